package store

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// append makes the staged entries durable and returns the state to publish. Any
// failure from the first write on leaves an unknown outcome and stops the store.
func (st *stage) append(ctx context.Context) (*state, error) {
	s, base := st.s, st.base
	signer, err := s.logKey()
	if err != nil {
		return nil, err
	}

	// Step 2: the entries' blocks. Nothing points at them yet, so a crash after this
	// leaves garbage only.
	if err := st.writeBlocks(ctx); err != nil {
		return nil, s.stop(err)
	}
	leaves, err := st.readBack(ctx)
	if err != nil {
		return nil, s.stop(err)
	}
	// Append recomputes the stored right edge against the last signed root first:
	// over a ledger that does not match it nothing is ever signed.
	root, edge, err := ledger.Append(ctx, tiles{s}, base.checkpoint.Size, base.checkpoint.Root, leaves)
	if err != nil {
		return nil, s.stop(err)
	}
	next := &state{
		checkpoint: ledger.Checkpoint{Origin: s.Origin(), Size: base.checkpoint.Size + int64(len(leaves)), Root: root},
		policy:     base.policy, policyIndex: base.policyIndex,
	}
	if next.signed, err = ledger.SignCheckpoint(next.checkpoint, signer); err != nil {
		return nil, s.stop(err)
	}

	// Step 3: one transaction. Before it lands the ledger is what it was, after it
	// the entries are in; there is nothing in between.
	var b kv.Batch
	if err := st.rows(&b, next, edge); err != nil {
		return nil, s.stop(err)
	}
	b.Set(indexKey(rowCheckpoint, next.checkpoint.Size), next.signed)
	if err := s.kv.Commit(ctx, &b); err != nil {
		return nil, s.stop(err)
	}

	// Step 4: a crash before the mark is written is repaired at the next open, which
	// checks that the ledger extends the older mark.
	if err := s.writeHighWater(next.signed); err != nil {
		return nil, s.stop(err)
	}
	return next, nil
}

// rows sets what makes the staged entries entries of the ledger, and the policy in
// force after them. All but the checkpoint.
func (st *stage) rows(b *kv.Batch, next *state, edge []ledger.Tile) error {
	for i := range st.entries {
		n := &st.entries[i]
		d := digestOf(n.cid)
		b.Set(indexKey(rowIndex, n.index), d[:])
		b.Set(digestKey(rowPosition, d), putInt(n.index))
		if n.entry.Kind != ledger.KindPolicy {
			key, err := nameKey(n.entry.Name, n.version)
			if err != nil {
				return err
			}
			b.Set(key, putInt(n.index))
		}
		switch n.entry.Kind {
		case ledger.KindPolicy:
			b.Set(indexKey(rowPolicy, n.index), nil)
			next.policy, next.policyIndex = n.entry, n.index
		case ledger.KindDataset:
			b.Set(rootKey(digestOf(n.entry.Root), n.index), nil)
			b.Set(indexKey(rowPut, n.index), putRow{version: n.version, added: n.added}.append(nil))
		}
	}
	for _, t := range edge {
		b.Set(tileKey(t.Level, t.Index), t.Data)
	}
	return nil
}

// writeBlocks writes the entries that are not stored yet.
func (st *stage) writeBlocks(ctx context.Context) error {
	var b kv.Batch
	write := func() error {
		if err := st.s.kv.Commit(ctx, &b); err != nil {
			return fmt.Errorf("write entries: %w", err)
		}
		b.Reset()
		return nil
	}
	for i := range st.entries {
		n := &st.entries[i]
		if n.stored {
			continue
		}
		b.Set(digestKey(rowEntry, digestOf(n.cid)), n.block)
		if b.Bytes() > kv.MaxBatchBytes/2 {
			if err := write(); err != nil {
				return err
			}
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return write()
}

// readBack reads the entries as stored; what is signed is what is there.
func (st *stage) readBack(ctx context.Context) ([]tlog.Hash, error) {
	leaves := make([]tlog.Hash, len(st.entries))
	for i := range st.entries {
		n := &st.entries[i]
		b, err := st.s.kv.Get(ctx, digestKey(rowEntry, digestOf(n.cid)), nil)
		if err != nil {
			return nil, fmt.Errorf("read entry %d back: %w", n.index, err)
		}
		if !bytes.Equal(b, n.block) {
			return nil, fmt.Errorf("entry %d reads back differently: %w", n.index, ErrCorrupt)
		}
		leaves[i] = ledger.LeafHash(b)
	}
	return leaves, nil
}
