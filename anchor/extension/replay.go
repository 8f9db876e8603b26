package extension

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/ledger"
)

// ErrChain is an extension that does not follow the one before it, or whose entries do
// not make the tree that its checkpoint signs.
var ErrChain = errors.New("extension does not continue the log")

// A Replay follows the extensions of one log from its first entry on and verifies every
// step: that each continues the one before, that the log signed its checkpoint, and that
// its entries make that checkpoint's tree. It holds a few hashes, whatever the log's size.
type Replay struct {
	log   note.Verifier
	last  anchor.Link
	peaks []tlog.Hash // roots of the full subtrees, the largest first
}

// NewReplay returns a Replay of the log that v verifies.
func NewReplay(v note.Verifier) *Replay {
	root := ledger.EmptyRoot()
	return &Replay{log: v, last: anchor.Link{Root: root[:]}}
}

// Last returns the link that the next extension has to have as its base.
func (r *Replay) Last() anchor.Link { return r.last }

// Add reads the next extension, which the chain knows as id. Entries and receipts are
// handed on as they are read: entries are the log's only once Add has returned nil, and
// receipts prove themselves. After an error the Replay cannot go on.
func (r *Replay) Add(id string, b []byte, entry func(index int64, block []byte) error, receipt func(anchor.Receipt) error) (ledger.Checkpoint, error) {
	x, err := Parse(b)
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("extension %s: %w", id, err)
	}
	c, err := r.add(x, entry, receipt)
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("extension %s: %w", id, err)
	}
	r.last = anchor.Link{ID: id, Size: c.Size, Root: c.Root[:]}
	return c, nil
}

func (r *Replay) add(x *Bundle, entry func(int64, []byte) error, receipt func(anchor.Receipt) error) (ledger.Checkpoint, error) {
	c, err := ledger.OpenCheckpoint(x.Checkpoint, r.log)
	if err != nil {
		return c, err
	}
	if x.Base.ID != r.last.ID || x.Base.Size != r.last.Size || tlog.Hash(x.Base.Root) != tlog.Hash(r.last.Root) {
		return c, fmt.Errorf("follows %q, %d entries, root %x; here are %q, %d, %x: %w",
			x.Base.ID, x.Base.Size, x.Base.Root, r.last.ID, r.last.Size, r.last.Root, ErrChain)
	}
	err = x.Records(func(index int64, block []byte) error {
		r.grow(index, ledger.LeafHash(block))
		return entry(index, block)
	}, receipt)
	if err != nil {
		return c, err
	}
	if root := r.root(); root != c.Root {
		return c, fmt.Errorf("its entries make the root %v at size %d, its checkpoint says %v: %w", root, c.Size, c.Root, ErrChain)
	}
	return c, nil
}

// grow adds a leaf to a tree of size leaves.
func (r *Replay) grow(size int64, h tlog.Hash) {
	for ; size&1 == 1; size >>= 1 {
		h = tlog.NodeHash(r.peaks[len(r.peaks)-1], h)
		r.peaks = r.peaks[:len(r.peaks)-1]
	}
	r.peaks = append(r.peaks, h)
}

// root returns the root of the tree, which is not empty.
func (r *Replay) root() tlog.Hash {
	h := r.peaks[len(r.peaks)-1]
	for i := len(r.peaks) - 2; i >= 0; i-- {
		h = tlog.NodeHash(r.peaks[i], h)
	}
	return h
}
