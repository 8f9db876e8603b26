// Package audit asks whether a node holds the bytes of a dataset, and judges the
// answer. SPEC.md beside this file describes every byte.
//
// A challenge is a seed and a count. They determine positions, uniform over the bytes
// of the dataset, and the node answers with the chunk around each: its bytes and a
// proof that they are in the dataset. Who holds digests alone cannot answer. A task
// node puts the answer into a [Submission], a line that fits a chain, and whoever asks
// the same again can compute and compare it.
//
// The package is pure: no store, no network, no clock, and nothing random. A seed is
// worth as much as the node was unable to know it beforehand; where it comes from is the
// caller's.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/koii-network/scale/dag/ledger"
)

var (
	// ErrFormat says that a seed, a count or a submission is malformed, or that a
	// dataset has no bytes that could be asked for.
	ErrFormat = errors.New("malformed audit")
	// ErrRefused says that an answer does not hold.
	ErrRefused = errors.New("audit refused")
)

// Limits of a challenge. Seeds are in bytes.
const (
	MinSeed  = 16
	MaxSeed  = 64
	MaxCount = 1024
)

// The first lines of what is hashed. No other hash of this project begins so.
const (
	positionDomain = "scale-audit/position/v1\n"
	keyDomain      = "scale-audit/key/v1\n"
	samplesDomain  = "scale-audit/samples/v1\n"
	responseDomain = "scale-audit/response/v1\n"
)

// A Challenge is what is asked of a node about one dataset.
type Challenge struct {
	Seed  []byte // MinSeed to MaxSeed bytes that the node could not know beforehand
	Count int    // samples, 1 to MaxCount
}

func (c Challenge) check() error {
	if len(c.Seed) < MinSeed || len(c.Seed) > MaxSeed {
		return fmt.Errorf("%w: seed of %d bytes, must have %d to %d", ErrFormat, len(c.Seed), MinSeed, MaxSeed)
	}
	if c.Count < 1 || c.Count > MaxCount {
		return fmt.Errorf("%w: %d samples, must be 1 to %d", ErrFormat, c.Count, MaxCount)
	}
	return nil
}

// appendSeed writes the seed with its length before it.
func (c Challenge) appendSeed(b []byte) []byte {
	return append(append(b, byte(len(c.Seed))), c.Seed...)
}

// Positions returns the bytes of the dataset that the challenge asks for, in the order
// in which they are drawn: for each draw a number below size, the dataset's bytes, each as likely
// as any other. The entry is the SHA-256 of the dataset's entry as the ledger has it.
func (c Challenge) Positions(entry [32]byte, size uint64) ([]uint64, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, fmt.Errorf("%w: the dataset has no bytes", ErrFormat)
	}
	// Numbers above this, the last of 2^64 that are not a whole multiple of size, would
	// make the small positions likelier: they are drawn again.
	limit := math.MaxUint64 - (math.MaxUint64%size+1)%size
	b := append(c.appendSeed([]byte(positionDomain)), entry[:]...)
	counters := len(b)
	b = append(b, make([]byte, 8)...)
	list := make([]uint64, c.Count)
	for draw := range list {
		binary.BigEndian.PutUint32(b[counters:], uint32(draw))
		for try := uint32(0); ; try++ {
			binary.BigEndian.PutUint32(b[counters+4:], try)
			h := sha256.Sum256(b)
			if x := binary.BigEndian.Uint64(h[:]); x <= limit {
				list[draw] = x % size
				break
			}
		}
	}
	return list, nil
}

// key is what the bytes of a chunk are hashed behind, so that nobody who holds the
// chunk's digest alone can compute that hash.
func (c Challenge) key(entry [32]byte) [32]byte {
	return sha256.Sum256(append(c.appendSeed([]byte(keyDomain)), entry[:]...))
}

// response binds an answer to its challenge and to one checkpoint.
func (c Challenge) response(entry, checkpoint, samples [32]byte) [32]byte {
	b := append(c.appendSeed([]byte(responseDomain)), entry[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(c.Count))
	b = append(b, checkpoint[:]...)
	return sha256.Sum256(append(b, samples[:]...))
}

// CheckpointHash names a checkpoint: the SHA-256 of the signed note with the log's
// signature line alone, which is what chains get. Lines of witnesses do not change it.
// The signature is not checked.
func CheckpointHash(signed []byte) ([32]byte, error) {
	_, lines, err := ledger.ParseCheckpointUnverified(signed)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	end := len(signed)
	for _, l := range lines[1:] {
		// An em dash, a space, the name, a space, the base64, a line feed.
		end -= len("— ") + len(l.Name) + 1 + len(l.Base64) + 1
	}
	return sha256.Sum256(signed[:end]), nil
}
