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
// NAME@1 its first, NAME@-1 the one before the newest. A CID is that of a dataset
// or of an entry; of several entries with one dataset the newest is meant.
func (s *Store) Resolve(ctx context.Context, ref string) (Object, error) {
	head, path, _ := strings.Cut(ref, "/")
	path = strings.TrimSuffix(path, "/")
	d, err := s.resolveDataset(ctx, head)
	if err != nil {
		return Object{}, fmt.Errorf("%q: %w", ref, err)
	}
	o := Object{Dataset: d, Path: path, CID: d.CID}
	if path != "" {
		if o.CID, err = dag.Lookup(ctx, s, d.CID, path); err != nil {
			return Object{}, fmt.Errorf("%q: %w", ref, storeError(err))
		}
	}
	if o.Info, err = dag.Stat(ctx, s, o.CID); err != nil {
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
	v, err := strconv.Atoi(version)
	if err != nil || v == 0 || strconv.Itoa(v) != version {
		return Dataset{}, fmt.Errorf("a version is @1, @2, … or @-1, @-2, …: %w", ErrInvalid)
	}
	if v < 0 {
		d, err := s.newest(ctx, name)
		if err != nil {
			return Dataset{}, err
		}
		if v += d.Version; v < 1 {
			return Dataset{}, fmt.Errorf("the newest version of %s is %d: %w", name, d.Version, ErrNotFound)
		}
	}
	return s.versionOf(ctx, name, v)
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

// visible says whether readers may see an entry. Its rows are there from the moment
// its commit lands, a little before it is published, or without ever being published
// when the commit failed after that.
func (s *Store) visible(index int64) bool { return index < s.published.Load().checkpoint.Size }

// newest returns the newest visible version of a name.
func (s *Store) newest(ctx context.Context, name string) (Dataset, error) {
	row, err := s.kv.Last(ctx, namePrefix(name))
	for {
		var i int64
		if errors.Is(err, kv.ErrNotFound) {
			return Dataset{}, fmt.Errorf("no dataset is named %s: %w", name, ErrNotFound)
		}
		if err != nil {
			return Dataset{}, storeError(err)
		}
		if i, err = parseInt(row.Value); err != nil {
			return Dataset{}, err
		}
		if s.visible(i) {
			return s.datasetAt(ctx, i)
		}
		if len(row.Key) < 6 {
			return Dataset{}, fmt.Errorf("name row %x: %w", row.Key, ErrCorrupt)
		}
		version := int(binary.BigEndian.Uint32(row.Key[len(row.Key)-4:]))
		row.Key = nameKey(name, version-1)
		row.Value, err = s.kv.Get(ctx, row.Key, nil)
	}
}

func (s *Store) versionOf(ctx context.Context, name string, v int) (Dataset, error) {
	b, err := s.kv.Get(ctx, nameKey(name, v), nil)
	if errors.Is(err, kv.ErrNotFound) {
		return Dataset{}, fmt.Errorf("%s has no version %d: %w", name, v, ErrNotFound)
	}
	if err != nil {
		return Dataset{}, storeError(err)
	}
	return s.datasetOfRow(ctx, b)
}

func (s *Store) datasetOfRow(ctx context.Context, value []byte) (Dataset, error) {
	i, err := parseInt(value)
	if err != nil {
		return Dataset{}, err
	}
	return s.datasetAt(ctx, i)
}
