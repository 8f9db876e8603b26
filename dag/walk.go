package dag

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
)

// Lookup returns what a path below root names. It does not follow symbolic
// links. What is not there, or below what is not a directory, is ErrNotFound.
func Lookup(ctx context.Context, r Reader, root cid.Cid, path string) (cid.Cid, error) {
	l, err := linkTo(root)
	if err != nil || path == "" {
		return root, err
	}
	if err := checkPath(path); err != nil {
		return cid.Undef, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := lookupName(ctx, r, l, name)
		if err != nil {
			return cid.Undef, fmt.Errorf("look up %q in %q: %w", name, path, err)
		}
		l = next
	}
	return l.cid(), nil
}

func lookupName(ctx context.Context, r Reader, dir link, name string) (link, error) {
	n, err := loadDir(ctx, r, dir)
	if err != nil {
		return link{}, err
	}
	if n.typ == typeDirectory {
		i, ok := slices.BinarySearchFunc(n.links, name, func(l namedLink, name string) int {
			return strings.Compare(string(l.name), name)
		})
		if !ok {
			return link{}, ErrNotFound
		}
		return n.links[i].link, nil
	}
	hash := hamtHashOf([]byte(name))
	for level := 0; level < hamtLevels; level++ {
		slot := int(hamtSlot(hash, level))
		if !n.hasSlot(slot) {
			return link{}, ErrNotFound
		}
		l := n.links[n.slotLink(slot)]
		if value := l.name[2:]; len(value) > 0 {
			if string(value) != name {
				return link{}, ErrNotFound
			}
			return l.link, nil
		}
		if n, err = loadShard(ctx, r, l.digest); err != nil {
			return link{}, err
		}
	}
	return link{}, fmt.Errorf("sharded directory too deep: %w", ErrFormat)
}

// loadDir reads the root node of a directory, ErrNotFound if it is none.
func loadDir(ctx context.Context, r Reader, dir link) (*node, error) {
	if dir.codec == cid.Raw {
		return nil, fmt.Errorf("%v is not a directory: %w", dir.cid(), ErrNotFound)
	}
	n, err := loadNode(ctx, r, dir.digest)
	if err != nil {
		return nil, err
	}
	if n.typ != typeDirectory && n.typ != typeHAMT {
		return nil, fmt.Errorf("%v is not a directory: %w", dir.cid(), ErrNotFound)
	}
	return n, nil
}

// loadShard reads a shard below the root of a directory.
func loadShard(ctx context.Context, r Reader, d Digest) (*node, error) {
	n, err := loadNode(ctx, r, d)
	if err != nil {
		return nil, err
	}
	if n.typ != typeHAMT {
		return nil, fmt.Errorf("%v is not a shard: %w", NodeCID(d), ErrFormat)
	}
	return n, nil
}

// A DirEntry is an entry of a directory.
type DirEntry struct {
	Name  string
	CID   cid.Cid
	Tsize uint64 // bytes of all blocks below, as the directory claims
}

// List yields the entries of a directory in bytewise order of their names. A
// sharded directory is gathered first, some 70 bytes for each entry.
func List(ctx context.Context, r Reader, dir cid.Cid) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		l, err := linkTo(dir)
		if err == nil {
			err = forEachEntry(ctx, r, l, func(l link, name []byte) error {
				if !yield(DirEntry{Name: string(name), CID: l.cid(), Tsize: l.tsize}, nil) {
					return errStop
				}
				return nil
			})
		}
		if err != nil && err != errStop {
			yield(DirEntry{}, err)
		}
	}
}

// errStop ends a walk whose consumer has had enough.
var errStop = errors.New("stop")

// forEachEntry calls f for the entries of a directory in order of their names.
func forEachEntry(ctx context.Context, r Reader, dir link, f func(l link, name []byte) error) error {
	n, err := loadDir(ctx, r, dir)
	if err != nil {
		return err
	}
	if n.typ == typeDirectory {
		for _, l := range n.links {
			if err := f(l.link, l.name); err != nil {
				return err
			}
		}
		return nil
	}
	set := entrySet{sorted: true}
	if err := gather(ctx, r, n, &set, 0, 0); err != nil {
		return err
	}
	if err := set.sort(); err != nil {
		return fmt.Errorf("directory %v: %w: %w", dir.cid(), err, ErrFormat)
	}
	for _, ref := range set.refs {
		if err := f(set.entry(ref)); err != nil {
			return err
		}
	}
	return nil
}

// gather adds the entries of a shard to set. Their hashes must begin with the
// bytes that led here, which prefix ends in: so no shard can serve at two
// places, and the entries are no more than the shards hold.
func gather(ctx context.Context, r Reader, n *node, set *entrySet, prefix uint64, level int) error {
	next := 0
	for slot := range hamtWidth {
		if !n.hasSlot(slot) {
			continue
		}
		l := n.links[next]
		next++
		here := prefix<<8 | uint64(slot)
		if name := l.name[2:]; len(name) > 0 {
			if hamtHashOf(name)>>(56-8*level) != here {
				return fmt.Errorf("sharded directory has %q in the wrong slot: %w", name, ErrFormat)
			}
			if err := set.add(l.link, string(name)); err != nil {
				return err
			}
			continue
		}
		if level+1 == hamtLevels {
			return fmt.Errorf("sharded directory too deep: %w", ErrFormat)
		}
		child, err := loadShard(ctx, r, l.digest)
		if err != nil {
			return err
		}
		if err := gather(ctx, r, child, set, here, level+1); err != nil {
			return err
		}
	}
	return nil
}

// A WalkEntry is an entry of a tree.
type WalkEntry struct {
	Path  string
	Info  Info
	Tsize uint64 // as its directory claims; 0 for the root
}

// Walk yields a whole tree in canonical order, directories before what is in
// them, the root with the path "". The root may be a file.
//
// One directory can be linked from many places, so a small store can hold a
// tree of more entries than anyone can walk: bound the walk with ctx or by
// counting.
func Walk(ctx context.Context, r Reader, root cid.Cid) iter.Seq2[WalkEntry, error] {
	return func(yield func(WalkEntry, error) bool) {
		info, err := Stat(ctx, r, root)
		if err == nil {
			err = walk(ctx, r, WalkEntry{Info: info}, yield)
		}
		if err != nil && err != errStop {
			yield(WalkEntry{}, err)
		}
	}
}

func walk(ctx context.Context, r Reader, e WalkEntry, yield func(WalkEntry, error) bool) error {
	if !yield(e, nil) {
		return errStop
	}
	if e.Info.Kind != KindDir {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	prefix := e.Path + "/"
	if e.Path == "" {
		prefix = ""
	}
	dir, err := linkTo(e.Info.CID)
	if err != nil {
		return err
	}
	// Entries come by name, and a directory belongs where name+"/" stands:
	// "a-b" comes before what is in "a". Those that must wait for such
	// entries each begin with the one before, so the last one goes first.
	var waiting []WalkEntry
	flush := func(key string) error {
		for len(waiting) > 0 {
			last := waiting[len(waiting)-1]
			if key != "" && last.Path+"/" > key {
				return nil
			}
			waiting = waiting[:len(waiting)-1]
			if err := walk(ctx, r, last, yield); err != nil {
				return err
			}
		}
		return nil
	}
	err = forEachEntry(ctx, r, dir, func(l link, name []byte) error {
		e := WalkEntry{Path: prefix + string(name), Tsize: l.tsize}
		if len(e.Path) > MaxPath {
			return fmt.Errorf("path of %d bytes: %w: %w", len(e.Path), ErrPath, ErrFormat)
		}
		var err error
		if e.Info, err = Stat(ctx, r, l.cid()); err != nil {
			return fmt.Errorf("entry %q: %w", e.Path, err)
		}
		if err := flush(e.Path); err != nil {
			return err
		}
		if e.Info.Kind == KindDir {
			waiting = append(waiting, e)
			return nil
		}
		return walk(ctx, r, e, yield)
	})
	if err != nil {
		return err
	}
	return flush("")
}
