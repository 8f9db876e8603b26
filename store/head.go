package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

// A Head is what is needed to sign the next entry, and to verify what is there.
type Head struct {
	Published
	VerifierKey string // the log's public key
	Policy      int64  // index of the policy entry in force
	Newest      int64  // index of the newest entry of the name, a removal too; -1 for none
}

// Head returns the newest checkpoint and where a name stands in the tree that it signs. An
// empty name has Newest -1.
func (s *Store) Head(ctx context.Context, name string) (Head, error) {
	st := s.published.Load()
	h := Head{Published: st.public(), VerifierKey: s.vkey, Policy: st.policyIndex, Newest: -1}
	if name == "" {
		return h, nil
	}
	if err := ledger.CheckName(name); err != nil {
		return Head{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	at, err := s.newestSlot(ctx, name, st.checkpoint.Size)
	switch {
	case err == nil:
		h.Newest = at.index
	case !errors.Is(err, ErrNotFound):
		return Head{}, err
	}
	return h, nil
}

// An Inclusion is an RFC 6962 inclusion proof of an entry.
type Inclusion struct {
	Leaf   tlog.Hash
	Hashes tlog.RecordProof // from the leaf upwards
	Root   tlog.Hash
}

// Inclusion proves that an entry is in the tree of the given size, which is at most
// that of the published tree. The proof has been checked.
func (s *Store) Inclusion(ctx context.Context, index, size int64) (Inclusion, error) {
	published := s.published.Load().checkpoint.Size
	if size < 1 || size > published || index < 0 || index >= size {
		return Inclusion{}, fmt.Errorf("inclusion of entry :%d in a tree of %d entries, of a ledger of %d: %w", index, size, published, ErrInvalid)
	}
	e, err := s.entryAt(ctx, index)
	if err != nil {
		return Inclusion{}, err
	}
	p := Inclusion{Leaf: ledger.LeafHash(e.Block)}
	if p.Hashes, err = s.inclusions.Inclusion(ctx, size, index); err != nil {
		return Inclusion{}, storeError(err)
	}
	if p.Root, err = s.rootAt(ctx, size); err != nil {
		return Inclusion{}, err
	}
	if err := ledger.CheckInclusion(p.Hashes, size, p.Root, index, p.Leaf); err != nil {
		return Inclusion{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return p, nil
}

// RootAt returns the root of the tree of a size from 0 to that of the published tree.
func (s *Store) RootAt(ctx context.Context, size int64) (tlog.Hash, error) {
	published := s.published.Load().checkpoint.Size
	switch {
	case size < 0 || size > published:
		return tlog.Hash{}, fmt.Errorf("root of %d entries, of a ledger of %d: %w", size, published, ErrInvalid)
	case size == 0:
		return ledger.EmptyRoot(), nil
	}
	return s.rootAt(ctx, size)
}

// Follow yields the entries from index from on and goes on with those that are
// published later, each as soon as it is, until ctx ends, whose error comes last. When
// Published().Size is the index after an entry, the consumer has caught up. A from
// beyond the next entry is ErrInvalid.
func (s *Store) Follow(ctx context.Context, from int64) iter.Seq2[LedgerEntry, error] {
	return func(yield func(LedgerEntry, error) bool) {
		st := s.published.Load()
		if from < 0 || from > st.checkpoint.Size {
			yield(LedgerEntry{}, fmt.Errorf("follow from entry :%d a ledger of %d: %w", from, st.checkpoint.Size, ErrInvalid))
			return
		}
		for next := from; ; st = s.published.Load() {
			for ; next < st.checkpoint.Size; next++ {
				e, err := s.entryAt(ctx, next)
				if !yield(e, err) || err != nil {
					return
				}
			}
			select {
			case <-st.superseded:
			case <-ctx.Done():
				yield(LedgerEntry{}, ctx.Err())
				return
			}
		}
	}
}
