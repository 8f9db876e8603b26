package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

func datasetOf(index int64, c cid.Cid, e *ledger.Entry, kind dag.Kind, p putRow) Dataset {
	return Dataset{
		Name: e.Name, Version: p.version, CID: e.Root, Kind: kind, Profile: e.Profile, Size: e.Size,
		Files: e.Files, Leaves: e.Leaves, Chunks: e.Chunks, NewBytes: p.added.Plain, Stored: p.added.Packed,
		Commitment: e.Commitment, Times: e.Times, Entry: index, EntryCID: c, Parents: e.Parents,
		Previous: e.Previous, Time: e.Time, Curator: e.Curator,
	}
}

// datasetAt reads the dataset that a published entry records.
func (s *Store) datasetAt(ctx context.Context, index int64) (Dataset, error) {
	e, err := s.entryAt(ctx, index)
	if err != nil {
		return Dataset{}, err
	}
	if e.Entry.Kind != ledger.KindDataset {
		return Dataset{}, fmt.Errorf("entry :%d is a %v, not a dataset: %w", index, e.Entry.Kind, ErrInvalid)
	}
	b, err := s.kv.Get(ctx, indexKey(rowPut, index), nil)
	if err != nil {
		return Dataset{}, fmt.Errorf("put of entry %d: %w", index, lost(err))
	}
	p, err := parsePutRow(b)
	if err != nil {
		return Dataset{}, err
	}
	info, err := dag.Stat(ctx, s, e.Entry.Root)
	if err != nil {
		return Dataset{}, storeError(err)
	}
	return datasetOf(index, e.CID, e.Entry, info.Kind, p), nil
}

// lost is for rows that must be there.
func lost(err error) error {
	if errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("missing: %w", ErrCorrupt)
	}
	return storeError(err)
}

// Datasets yields the newest version of each name, by name.
func (s *Store) Datasets(ctx context.Context) iter.Seq2[Dataset, error] {
	return func(yield func(Dataset, error) bool) {
		var name []byte
		newest := int64(-1) // of name
		flush := func() bool {
			if newest < 0 {
				return true
			}
			d, err := s.datasetAt(ctx, newest)
			newest = -1
			return yield(d, err) && err == nil
		}
		for row, err := range s.visibleVersions(ctx, []byte{rowName}) {
			if err != nil {
				yield(Dataset{}, err)
				return
			}
			if !bytes.Equal(row.name, name) {
				if !flush() {
					return
				}
				name = append(name[:0], row.name...)
			}
			newest = row.index
		}
		flush()
	}
}

// A versionRow is one version of a name.
type versionRow struct {
	name  []byte
	index int64
}

func (s *Store) visibleVersions(ctx context.Context, prefix []byte) iter.Seq2[versionRow, error] {
	return func(yield func(versionRow, error) bool) {
		for row, err := range s.kv.Scan(ctx, prefix, nil) {
			var v versionRow
			if err == nil && len(row.Key) < 6 {
				err = fmt.Errorf("name row %x: %w", row.Key, ErrCorrupt)
			}
			if err == nil {
				v.name = row.Key[1 : len(row.Key)-5]
				v.index, err = parseInt(row.Value)
			}
			if err != nil {
				yield(v, storeError(err))
				return
			}
			if s.visible(v.index) && !yield(v, nil) {
				return
			}
		}
	}
}

// History yields the versions of a name, the first one first.
func (s *Store) History(ctx context.Context, name string) iter.Seq2[Dataset, error] {
	return func(yield func(Dataset, error) bool) {
		if err := ledger.CheckName(name); err != nil {
			yield(Dataset{}, fmt.Errorf("%w: %w", ErrInvalid, err))
			return
		}
		none := true
		for row, err := range s.visibleVersions(ctx, namePrefix(name)) {
			if err != nil {
				yield(Dataset{}, err)
				return
			}
			none = false
			d, err := s.datasetAt(ctx, row.index)
			if !yield(d, err) || err != nil {
				return
			}
		}
		if none {
			yield(Dataset{}, fmt.Errorf("no dataset is named %s: %w", name, ErrNotFound))
		}
	}
}

// List yields everything below o in canonical order, with paths relative to o. A
// file or link yields itself with an empty path.
func (s *Store) List(ctx context.Context, o Object) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range dag.Walk(ctx, s, o.CID) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("list %s: %w", o, storeError(err)))
				return
			}
			if e.Path == "" && e.Info.Kind == dag.KindDir {
				continue
			}
			if e.Info.Kind == dag.KindFile && !e.Info.SizeKnown {
				if e.Path == "" {
					e.Info = o.Info
				} else {
					// Of a file that is one chunk the directory's Tsize is the size.
					e.Info.Size, e.Info.SizeKnown = e.Tsize, true
				}
			}
			if !yield(Entry{Path: e.Path, CID: e.Info.CID, Info: e.Info}, nil) {
				return
			}
		}
	}
}
