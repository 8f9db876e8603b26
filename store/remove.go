package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag/ledger"
)

// A Removal is a ledger entry that takes a name away.
type Removal struct {
	Name     string
	Version  int   // the version slot of the name that it takes
	Entry    int64 // index in the ledger
	EntryCID cid.Cid
	Time     time.Time // as the curator claims it
	Curator  ledger.CuratorKey
}

// A Version is what stands in one version slot of a name: either a dataset or a
// removal, the other one nil.
type Version struct {
	Dataset *Dataset
	Removal *Removal
}

// Remove takes a name away by an entry of its own. Its versions stay in the ledger:
// NAME@V, CIDs and :INDEX still find them and proofs of them stay valid, but the name
// itself resolves no more until something is put under it again. A name that is not
// there, or that is removed already, is ErrNotFound. When Remove returns nil the
// entry is durable. Of o only Curator counts.
func (s *Store) Remove(ctx context.Context, name string, o PutOptions) (Removal, error) {
	if err := ledger.CheckName(name); err != nil {
		return Removal{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r, err := s.signedRequest(ctx, commitRequest{remove: name, curator: o.Curator})
	if err != nil {
		return Removal{}, err
	}
	return r.removal, nil
}
