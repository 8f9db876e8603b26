package dag

import (
	"errors"
	"fmt"

	"github.com/koii-network/scale/dag/chunk"
)

// What the format is built on, whatever the profile. The node of a file that
// lists chunks stands in for the commitment row over these chunks, so the two
// widths are one.
const (
	rowWidth = 256 // children of a commitment row
	rowBits  = 8   // its logarithm
	dagWidth = rowWidth
)

// A Profile freezes everything that decides a CID or a commitment. It never
// changes: what gives another result is another profile.
type Profile struct {
	Name     string // as recorded in ledger entries
	splitter chunk.Splitter
	dirLimit int // bytes of a directory's block above which it is sharded
}

// DefaultProfile is the name of the profile for whoever does not choose.
const DefaultProfile = "scale-1"

// ErrProfile reports a profile that this version does not know.
var ErrProfile = errors.New("unknown profile")

// profiles in the order in which they are listed; append only.
var profiles = []*Profile{
	{Name: DefaultProfile, splitter: chunk.Scale1(), dirLimit: 256 << 10},
	{Name: "scale-fixed-1", splitter: chunk.Fixed(64 << 10), dirLimit: 256 << 10},
}

// LookupProfile returns the profile of that name.
func LookupProfile(name string) (*Profile, error) {
	for _, p := range profiles {
		if p.Name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w %q", ErrProfile, name)
}

// ProfileNames returns the names of all profiles, the default first.
func ProfileNames() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.Name
	}
	return names
}

// Splitter returns what cuts files into chunks.
func (p *Profile) Splitter() chunk.Splitter { return p.splitter }
