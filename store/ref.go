package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// String names the object as messages do.
func (o Object) String() string {
	s := o.Dataset.Name + "@" + strconv.Itoa(o.Dataset.Version)
	if o.Path != "" {
		s += "/" + o.Path
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return strconv.Quote(s)
	}
	return s
}

// Resolve finds what a reference names. A reference is NAME, CID or :INDEX, then
// optionally a path inside the dataset after a slash. NAME is its newest version,
// NAME@1 its first, NAME@-1 the one before the newest. A removal counts as a version of
// the name, but is not found: then NAME names nothing, and NAME@-1 what was there
// before. A CID is that of a dataset or of an entry; of several entries with one dataset
// the newest is meant.
func (s *Store) Resolve(ctx context.Context, ref string) (Object, error) {
	head, path, _ := strings.Cut(ref, "/")
	path = strings.TrimSuffix(path, "/")
	d, err := s.resolveDataset(ctx, head)
	if err != nil {
		return Object{}, fmt.Errorf("%q: %w", ref, err)
	}
	o := Object{Dataset: d, Path: path, CID: d.CID}
	if path != "" {
		if o.CID, err = s.prover.Lookup(ctx, d.CID, path); err != nil {
			return Object{}, fmt.Errorf("%q: %w", ref, storeError(err))
		}
	}
	if o.Info, err = s.prover.Stat(ctx, o.CID); path == "" {
		o.Info, err = s.unlessGone(o.Info, err)
	}
	if err != nil {
		return Object{}, fmt.Errorf("%q: %w", ref, storeError(err))
	}
	switch {
	case path == "":
		o.Info.Size, o.Info.SizeKnown = d.Size, true
	case o.Info.Kind == dag.KindFile && !o.Info.SizeKnown:
		row, err := s.chunkRow(ctx, dag.ChunkRef{Digest: digestOf(o.CID)})
		if err != nil {
			return Object{}, fmt.Errorf("%q: %w", ref, err)
		}
		o.Info.Size, o.Info.SizeKnown = uint64(row.Size), true
	}
	return o, nil
}

func (s *Store) resolveDataset(ctx context.Context, head string) (Dataset, error) {
	if rest, ok := strings.CutPrefix(head, ":"); ok {
		i, err := strconv.ParseInt(rest, 10, 64)
		if err != nil || i < 0 || strconv.FormatInt(i, 10) != rest {
			return Dataset{}, fmt.Errorf("an entry is :INDEX, a decimal number from 0: %w", ErrInvalid)
		}
		return s.datasetAt(ctx, i)
	}
	if c, err := cid.Decode(head); err == nil {
		return s.datasetByCID(ctx, c)
	}
	name, version, versioned := strings.Cut(head, "@")
	if err := ledger.CheckName(name); err != nil {
		return Dataset{}, fmt.Errorf("neither a name nor a CID nor :INDEX: %w: %w", ErrInvalid, err)
	}
	if !versioned {
		return s.newest(ctx, name)
	}
	v, err := parseVersion(name, version)
	if err != nil {
		return Dataset{}, err
	}
	if v < 0 {
		newest, err := s.newestSlot(ctx, name, s.size())
		if err != nil {
			return Dataset{}, err
		}
		if v += newest.version; v < 1 {
			return Dataset{}, fmt.Errorf("the newest version of %s is %d: %w", name, newest.version, ErrNotFound)
		}
	}
	return s.versionOf(ctx, name, v)
}

// parseVersion parses the version of a reference to a name. Numbers that no version can have
// are ErrNotFound.
func parseVersion(name, version string) (int, error) {
	digits := strings.TrimPrefix(version, "-")
	if digits == "" || digits[0] == '0' || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("a version is @1, @2, … or @-1, @-2, …: %w", ErrInvalid)
	}
	v, err := strconv.ParseInt(version, 10, 32)
	if err != nil { // it is a number, so what is wrong is its size
		return 0, errNoVersion(name, version)
	}
	return int(v), nil
}

func (s *Store) datasetByCID(ctx context.Context, c cid.Cid) (Dataset, error) {
	d, err := dag.DigestOf(c)
	if err != nil {
		return Dataset{}, fmt.Errorf("%v: no dataset has such a CID: %w", c, ErrNotFound)
	}
	var index int64
	if c.Prefix().Codec == cid.DagCBOR {
		b, err := s.kv.Get(ctx, digestKey(rowPosition, d), nil)
		if errors.Is(err, kv.ErrNotFound) {
			return Dataset{}, fmt.Errorf("no entry has that CID: %w", ErrNotFound)
		}
		if err != nil {
			return Dataset{}, fmt.Errorf("entry %v: %w", c, storeError(err))
		}
		if index, err = parseInt(b); err != nil {
			return Dataset{}, err
		}
		return s.datasetAt(ctx, index)
	}
	index = -1
	for row, err := range s.kv.Scan(ctx, digestKey(rowRoot, d), nil) {
		if err != nil {
			return Dataset{}, fmt.Errorf("dataset %v: %w", c, storeError(err))
		}
		i, err := parseInt(row.Key[33:])
		if err != nil {
			return Dataset{}, err
		}
		if s.visible(i) {
			index = i
		}
	}
	if index < 0 {
		return Dataset{}, fmt.Errorf("no dataset has that CID: %w", ErrNotFound)
	}
	ds, err := s.datasetAt(ctx, index)
	if err == nil && ds.CID != c {
		// The digest of a block is that of its bytes, whatever the codec says.
		return Dataset{}, fmt.Errorf("dataset %v: %w", c, ErrNotFound)
	}
	return ds, err
}

// size is that of the ledger as readers see it.
func (s *Store) size() int64 { return s.published.Load().checkpoint.Size }

// visible says whether readers may see an entry.
func (s *Store) visible(index int64) bool { return index < s.size() }

// A slot is one version of a name.
type slot struct {
	name    string
	version int
	index   int64 // of the entry in it
}

func errNoName(name string) error {
	return fmt.Errorf("no dataset is named %s: %w", name, ErrNotFound)
}

func errNoVersion(name string, version any) error {
	return fmt.Errorf("%s has no version %v: %w", name, version, ErrNotFound)
}

func errRemoved(r slot) error {
	return fmt.Errorf("%s was removed by entry :%d; what was there before is %s@%d: %w", r.name, r.index, r.name, r.version-1, ErrNotFound)
}

// newestSlot finds the newest entry of a name, a dataset or a removal, in the ledger of
// that size. Rows of entries are there from the moment their commit lands, a little
// before it is published, or without ever being published when the commit failed after
// that.
func (s *Store) newestSlot(ctx context.Context, name string, size int64) (slot, error) {
	// Versions are counted from 1. A lookup that finds nothing costs a hundredth of
	// a scan that finds nothing, and new names are common.
	first, err := nameKey(name, 1)
	if err != nil {
		return slot{}, err
	}
	if has, err := s.kv.Has(ctx, first); err != nil {
		return slot{}, storeError(err)
	} else if !has {
		return slot{}, errNoName(name)
	}
	row, err := s.kv.Last(ctx, namePrefix(name))
	for {
		if errors.Is(err, kv.ErrNotFound) {
			return slot{}, errNoName(name)
		}
		if err != nil {
			return slot{}, storeError(err)
		}
		var found slot
		if found, err = parseSlot(row); err != nil {
			return slot{}, err
		}
		if found.index < size {
			return found, nil
		}
		if found.version == 1 {
			return slot{}, errNoName(name)
		}
		if row.Key, err = nameKey(name, found.version-1); err != nil {
			return slot{}, err
		}
		row.Value, err = s.kv.Get(ctx, row.Key, nil)
	}
}

// parseSlot reads the row of a version.
func parseSlot(row kv.Row) (slot, error) {
	n := len(row.Key) - 5
	if n < 2 {
		return slot{}, fmt.Errorf("name row %x: %w", row.Key, ErrCorrupt)
	}
	version := binary.BigEndian.Uint32(row.Key[n+1:])
	if version < 1 || version > maxVersion {
		return slot{}, fmt.Errorf("name row %x: %w", row.Key, ErrCorrupt)
	}
	i, err := parseInt(row.Value)
	return slot{name: string(row.Key[1:n]), version: int(version), index: i}, err
}

// newestEntry reads the newest visible entry of a name; nil if there is none.
func (s *Store) newestEntry(ctx context.Context, name string) (*nameEntry, error) {
	at, err := s.newestSlot(ctx, name, s.size())
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, err := s.entryAt(ctx, at.index)
	if err != nil {
		return nil, err
	}
	return &nameEntry{slot: at, cid: e.CID, entry: e.Entry}, nil
}

// newest returns the newest visible version of a name.
func (s *Store) newest(ctx context.Context, name string) (Dataset, error) {
	at, err := s.newestSlot(ctx, name, s.size())
	if err != nil {
		return Dataset{}, err
	}
	v, err := s.versionAt(ctx, at)
	if err == nil && v.Dataset == nil {
		err = errRemoved(at)
	}
	if err != nil {
		return Dataset{}, err
	}
	return *v.Dataset, nil
}

func (s *Store) versionOf(ctx context.Context, name string, version int) (Dataset, error) {
	key, err := nameKey(name, version)
	if err != nil {
		return Dataset{}, err
	}
	b, err := s.kv.Get(ctx, key, nil)
	var at slot
	if err == nil {
		at, err = parseSlot(kv.Row{Key: key, Value: b})
	}
	if errors.Is(err, kv.ErrNotFound) || err == nil && !s.visible(at.index) {
		return Dataset{}, errNoVersion(name, version)
	}
	if err != nil {
		return Dataset{}, storeError(err)
	}
	v, err := s.versionAt(ctx, at)
	if err == nil && v.Dataset == nil {
		err = fmt.Errorf("%s@%d is the removal of that name, by entry :%d: %w", name, version, at.index, ErrNotFound)
	}
	if err != nil {
		return Dataset{}, err
	}
	return *v.Dataset, nil
}
