package store

import (
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

func removalOf(at slot, c cid.Cid, e *ledger.Entry) Removal {
	return Removal{Name: e.Name, Version: at.version, Entry: at.index, EntryCID: c, Time: e.Time, Curator: e.Curator}
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
	return s.datasetOfEntry(ctx, e)
}

func (s *Store) datasetOfEntry(ctx context.Context, e LedgerEntry) (Dataset, error) {
	b, err := s.kv.Get(ctx, indexKey(rowPut, e.Index), nil)
	if err != nil {
		return Dataset{}, fmt.Errorf("put of entry %d: %w", e.Index, lost(err))
	}
	p, err := parsePutRow(b)
	if err != nil {
		return Dataset{}, err
	}
	info, err := s.unlessGone(s.prover.Stat(ctx, e.Entry.Root))
	if err != nil {
		return Dataset{}, storeError(err)
	}
	return datasetOf(e.Index, e.CID, e.Entry, info.Kind, p), nil
}

// versionAt reads what stands in a version of a name.
func (s *Store) versionAt(ctx context.Context, at slot) (Version, error) {
	e, err := s.entryAt(ctx, at.index)
	if err != nil {
		return Version{}, err
	}
	switch e.Entry.Kind {
	case ledger.KindDataset:
		d, err := s.datasetOfEntry(ctx, e)
		return Version{Dataset: &d}, err
	case ledger.KindRemoval:
		r := removalOf(at, e.CID, e.Entry)
		return Version{Removal: &r}, nil
	}
	return Version{}, fmt.Errorf("%s@%d is entry :%d, a %v: %w", at.name, at.version, at.index, e.Entry.Kind, ErrCorrupt)
}

// lost is for rows that must be there.
func lost(err error) error {
	if errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("missing: %w", ErrCorrupt)
	}
	return storeError(err)
}

// Datasets yields the newest version of each name, by name. Names that were removed are
// left out.
func (s *Store) Datasets(ctx context.Context) iter.Seq2[Dataset, error] {
	return s.DatasetsFrom(ctx, "")
}

// DatasetsFrom yields what Datasets yields, but only the names after the given one in
// bytewise order.
func (s *Store) DatasetsFrom(ctx context.Context, after string) iter.Seq2[Dataset, error] {
	var from []byte
	if after != "" {
		// Behind all versions of that name, before a name that it begins.
		from = append(namePrefix(after), 0xff, 0xff, 0xff, 0xff, 0xff)
	}
	return func(yield func(Dataset, error) bool) {
		var newest slot // of the name under way
		flush := func() bool {
			if newest.name == "" {
				return true
			}
			v, err := s.versionAt(ctx, newest)
			if err != nil {
				yield(Dataset{}, err)
				return false
			}
			return v.Dataset == nil || yield(*v.Dataset, nil)
		}
		for at, err := range s.visibleVersions(ctx, []byte{rowName}, from) {
			if err != nil {
				yield(Dataset{}, err)
				return
			}
			if at.name != newest.name && !flush() {
				return
			}
			newest = at
		}
		flush()
	}
}

func (s *Store) visibleVersions(ctx context.Context, prefix, from []byte) iter.Seq2[slot, error] {
	return func(yield func(slot, error) bool) {
		for row, err := range s.kv.Scan(ctx, prefix, from) {
			var at slot
			if err == nil {
				at, err = parseSlot(row)
			}
			if err != nil {
				yield(at, storeError(err))
				return
			}
			if s.visible(at.index) && !yield(at, nil) {
				return
			}
		}
	}
}

// History yields the versions of a name, the first one first, its removals among them.
func (s *Store) History(ctx context.Context, name string) iter.Seq2[Version, error] {
	return s.HistoryFrom(ctx, name, 0)
}

// HistoryFrom yields what History yields, but only what comes after the given version.
// That there is nothing is not an error then.
func (s *Store) HistoryFrom(ctx context.Context, name string, after int) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		if err := ledger.CheckName(name); err != nil {
			yield(Version{}, fmt.Errorf("%w: %w", ErrInvalid, err))
			return
		}
		if after < 0 || after > maxVersion {
			yield(Version{}, fmt.Errorf("history of %s after version %d: %w", name, after, ErrInvalid))
			return
		}
		if after == maxVersion {
			return
		}
		from, err := nameKey(name, after+1)
		if err != nil {
			yield(Version{}, err)
			return
		}
		none := after == 0
		for at, err := range s.visibleVersions(ctx, namePrefix(name), from) {
			if err != nil {
				yield(Version{}, err)
				return
			}
			none = false
			v, err := s.versionAt(ctx, at)
			if !yield(v, err) || err != nil {
				return
			}
		}
		if none {
			yield(Version{}, errNoName(name))
		}
	}
}

// List yields everything below o in canonical order, with paths relative to o. A
// file or link yields itself with an empty path.
func (s *Store) List(ctx context.Context, o Object) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range s.walker().Walk(ctx, o.CID) {
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
