package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"

	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
)

// Published returns the newest checkpoint and the tree it signs.
func (s *Store) Published() Published { return s.published.Load().public() }

func (st *state) public() Published {
	return Published{Size: st.checkpoint.Size, Root: st.checkpoint.Root, Checkpoint: st.signed}
}

// A LedgerEntry is an entry with its place.
type LedgerEntry struct {
	Index int64
	CID   cid.Cid
	Block []byte
	Entry *ledger.Entry
}

// entryAt reads a published entry and checks it against its digest.
func (s *Store) entryAt(ctx context.Context, index int64) (LedgerEntry, error) {
	size := s.published.Load().checkpoint.Size
	if index < 0 || index >= size {
		return LedgerEntry{}, fmt.Errorf("entry :%d of a ledger of %d: %w", index, size, ErrNotFound)
	}
	b, err := s.kv.Get(ctx, indexKey(rowIndex, index), nil)
	if err != nil {
		return LedgerEntry{}, fmt.Errorf("entry %d: %w", index, lost(err))
	}
	if len(b) != sha256.Size {
		return LedgerEntry{}, fmt.Errorf("entry %d: its digest has %d bytes: %w", index, len(b), ErrCorrupt)
	}
	d := dag.Digest(b)
	block, err := s.kv.Get(ctx, digestKey(rowEntry, d), nil)
	if err != nil {
		return LedgerEntry{}, fmt.Errorf("entry %d: %w", index, lost(err))
	}
	if sha256.Sum256(block) != d {
		return LedgerEntry{}, fmt.Errorf("entry %d does not match its digest: %w", index, ErrCorrupt)
	}
	e, err := ledger.ParseEntry(block)
	if err != nil {
		return LedgerEntry{}, fmt.Errorf("entry %d: %w: %w", index, ErrCorrupt, err)
	}
	return LedgerEntry{Index: index, CID: ledger.EntryCID(block), Block: block, Entry: e}, nil
}

// Entries yields the entries from index from up to, not including, to; a to past
// the end means the end.
func (s *Store) Entries(ctx context.Context, from, to int64) iter.Seq2[LedgerEntry, error] {
	return func(yield func(LedgerEntry, error) bool) {
		if from < 0 || from > to {
			yield(LedgerEntry{}, fmt.Errorf("entries %d to %d: %w", from, to, ErrInvalid))
			return
		}
		to := min(to, s.published.Load().checkpoint.Size)
		for i := from; i < to; i++ {
			e, err := s.entryAt(ctx, i)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Consistency proves that the tree of size from is a prefix of that of size to. The
// proof has been checked against the roots recomputed from the stored tiles.
func (s *Store) Consistency(ctx context.Context, from, to int64) (tlog.TreeProof, error) {
	size := s.published.Load().checkpoint.Size
	if from < 1 || from > to || to > size {
		return nil, fmt.Errorf("consistency of %d with %d in a ledger of %d entries: sizes are 1 to %d, the smaller first: %w", from, to, size, size, ErrInvalid)
	}
	p, err := ledger.ProveConsistency(ctx, tiles{s}, from, to)
	if err != nil {
		return nil, storeError(err)
	}
	old, err := s.rootAt(ctx, from)
	if err != nil {
		return nil, err
	}
	root, err := s.rootAt(ctx, to)
	if err != nil {
		return nil, err
	}
	if err := ledger.CheckConsistency(p, from, old, to, root); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return p, nil
}

// rootAt returns the root of a tree: the signed one where a checkpoint has that
// size, else recomputed.
func (s *Store) rootAt(ctx context.Context, size int64) (tlog.Hash, error) {
	b, err := s.kv.Get(ctx, indexKey(rowCheckpoint, size), nil)
	if err == nil {
		c, err := ledger.OpenCheckpoint(b, s.verifier)
		if err != nil {
			return tlog.Hash{}, fmt.Errorf("checkpoint of size %d: %w: %w", size, ErrCorrupt, err)
		}
		return c.Root, nil
	}
	root, err := ledger.Root(ctx, tiles{s}, size)
	return root, storeError(err)
}
