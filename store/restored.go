package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// A restoredRow says that the first size entries of the ledger came without their
// blocks, and whether the log appends again.
type restoredRow struct {
	size    int64
	resumed bool
}

func (r restoredRow) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.size))
	if r.resumed {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func parseRestoredRow(b []byte) (restoredRow, error) {
	v, err := uvarints(b, 2)
	if err != nil {
		return restoredRow{}, fmt.Errorf("row of what was restored: %w", err)
	}
	if v[0] < 1 || v[0] > ledger.MaxSize || v[1] > 1 {
		return restoredRow{}, fmt.Errorf("row of what was restored: %d: %w", v, ErrCorrupt)
	}
	return restoredRow{size: int64(v[0]), resumed: v[1] == 1}, nil
}

func (s *Store) loadRestored(ctx context.Context) error {
	b, err := s.kv.Get(ctx, []byte{rowRestored}, nil)
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	if err != nil {
		return storeError(err)
	}
	r, err := parseRestoredRow(b)
	if err != nil {
		return err
	}
	if s.restored = r.size; !r.resumed {
		s.frozen = fmt.Errorf("%w: it was restored from its anchors, and whether the log signed more entries than these %d is not known; reading and proving go on. "+
			"Give blocks back with: scale put --heal PATH; to append again run: scale log resume --log-key FILE", ErrReadOnly, r.size)
	}
	return nil
}

// Restored returns how many of the first entries came from anchors, without their
// blocks, which may have been given back since; 0 for a store that was not restored.
func (s *Store) Restored() int64 { return s.restored }

// gone is the class of what a dataset names and is not there: in a restored ledger it
// was not brought back yet, elsewhere it was lost.
func (s *Store) gone(err error) error {
	if s.restored > 0 {
		return fmt.Errorf("%w: %w: the ledger was restored without its blocks; give them back with: scale put --heal PATH", err, ErrMissing)
	}
	return fmt.Errorf("%w: %w", err, ErrCorrupt)
}

// unlessGone forgives that a dataset's blocks are not there: then its kind is not known.
func (s *Store) unlessGone(info dag.Info, err error) (dag.Info, error) {
	if s.restored > 0 && errors.Is(err, ErrMissing) {
		return dag.Info{}, nil
	}
	return info, err
}

// A MissingDataset is one whose blocks are not all there.
type MissingDataset struct {
	Dataset
	Blocks uint64 // found missing; what is below a missing node is not known
}

// MissingDatasets yields the datasets of a restored ledger whose blocks are not all there, in
// the order of their entries: each version, also those that names do not lead to any
// more. It looks at every block's row, not at the bytes.
func (s *Store) MissingDatasets(ctx context.Context) iter.Seq2[MissingDataset, error] {
	return func(yield func(MissingDataset, error) bool) {
		w := wholeness{s: s}
		for e, err := range s.Entries(ctx, 0, min(s.restored, s.size())) {
			if err == nil && e.Entry.Kind != ledger.KindDataset {
				continue
			}
			var n uint64
			if err == nil {
				n, err = w.missing(ctx, e.Entry.Root)
			}
			m := MissingDataset{Blocks: n}
			if err == nil && n > 0 {
				m.Dataset, err = s.datasetOfEntry(ctx, e)
			}
			if err != nil {
				yield(MissingDataset{}, err)
				return
			}
			if n > 0 && !yield(m, nil) {
				return
			}
		}
	}
}

// maxWhole bounds the nodes that a wholeness remembers: some 60 MB.
const maxWhole = 1 << 20

// A wholeness looks for blocks that are not there. What versions share is gone through
// once.
type wholeness struct {
	s     *Store
	whole map[[16]byte]struct{} // nodes below which all is there
}

// missing returns how many blocks of the DAG below root are not there, as far as that
// can be seen.
func (w *wholeness) missing(ctx context.Context, root cid.Cid) (n uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	d := digestOf(root)
	if d == dag.EmptyDigest && root.Prefix().Codec == cid.Raw {
		return 0, nil // never stored
	}
	if root.Prefix().Codec == cid.Raw {
		size, err := w.s.storedSize(ctx, d)
		if err == nil && size == 0 {
			n = 1
		}
		return n, err
	}
	key := [16]byte(d[:16])
	if _, ok := w.whole[key]; ok {
		return 0, nil
	}
	links, err := w.s.links(ctx, root)
	if errors.Is(err, ErrMissing) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	for _, l := range links {
		below, err := w.missing(ctx, l)
		if err != nil {
			return 0, err
		}
		n += below
	}
	if n == 0 {
		if w.whole == nil || len(w.whole) >= maxWhole {
			w.whole = map[[16]byte]struct{}{}
		}
		w.whole[key] = struct{}{}
	}
	return n, nil
}

// links returns what a node links to.
func (s *Store) links(ctx context.Context, node cid.Cid) (list []cid.Cid, err error) {
	first := true
	enter := func(c cid.Cid) bool {
		if first {
			first = false
			return true
		}
		list = append(list, c)
		return false
	}
	for _, err := range s.blocks(ctx, node, enter) {
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// healed finds the newest entry that records a dataset, whose blocks were put again.
func (s *Store) healed(ctx context.Context, d *draft) (PutResult, error) {
	miss := fmt.Errorf("no entry records what was put: its root is %v, of profile %s, times %t: %w; nothing was appended. "+
		"Give it the profile and options of the put that recorded it, and the very same data", d.tree.Root, d.profile, d.times, ErrMismatch)
	var found LedgerEntry
	for row, err := range s.kv.Scan(ctx, digestKey(rowRoot, digestOf(d.tree.Root)), nil) {
		if err != nil {
			return PutResult{}, storeError(err)
		}
		i, err := parseInt(row.Key[min(33, len(row.Key)):])
		if err != nil {
			return PutResult{}, err
		}
		if !s.visible(i) {
			continue
		}
		e, err := s.entryAt(ctx, i)
		if err != nil {
			return PutResult{}, err
		}
		if e.Entry.Kind == ledger.KindDataset && e.Entry.Root == d.tree.Root && dag.Hash(e.Entry.Commitment) == d.tree.Commitment &&
			(d.name == "" || e.Entry.Name == d.name) {
			found = e
		}
	}
	if found.Entry == nil {
		if d.name != "" {
			return PutResult{}, fmt.Errorf("%s: %w", d.name, miss)
		}
		return PutResult{}, miss
	}
	ds, err := s.datasetOfEntry(ctx, found)
	if err != nil {
		return PutResult{}, err
	}
	ds.NewBytes, ds.Stored = d.added.Plain, d.added.Packed
	return PutResult{Dataset: ds, Unchanged: true, TreeSize: s.size()}, nil
}
