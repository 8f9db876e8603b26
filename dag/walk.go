package dag

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag/extsort"
)

// Lookup returns what a path below root names. It does not follow symbolic
// links. What is not there, or below what is not a directory, is ErrNotFound.
func Lookup(ctx context.Context, r Reader, root cid.Cid, path string) (cid.Cid, error) {
	return (&Prover{r: r}).Lookup(ctx, root, path)
}

// Lookup is the function of that name.
func (p *Prover) Lookup(ctx context.Context, root cid.Cid, path string) (cid.Cid, error) {
	l, err := linkTo(root)
	if err != nil || path == "" {
		return root, err
	}
	if err := checkPath(path); err != nil {
		return cid.Undef, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := p.lookupName(ctx, l, name)
		if err != nil {
			return cid.Undef, fmt.Errorf("look up %q in %q: %w", name, path, err)
		}
		l = next
	}
	return l.cid(), nil
}

func (p *Prover) lookupName(ctx context.Context, dir link, name string) (link, error) {
	n, err := p.dir(ctx, dir)
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
		if n, err = p.shard(ctx, l.digest); err != nil {
			return link{}, err
		}
	}
	return link{}, fmt.Errorf("sharded directory too deep: %w", ErrFormat)
}

// loadDir reads the root node of a directory, ErrNotFound if it is none.
func loadDir(ctx context.Context, r Reader, dir link) (*node, error) {
	return (&Prover{r: r}).dir(ctx, dir)
}

func (p *Prover) dir(ctx context.Context, dir link) (*node, error) {
	if dir.codec == cid.Raw {
		return nil, fmt.Errorf("%v is not a directory: %w", dir.cid(), ErrNotFound)
	}
	n, err := p.node(ctx, dir.digest)
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
	return (&Prover{r: r}).shard(ctx, d)
}

func (p *Prover) shard(ctx context.Context, d Digest) (*node, error) {
	n, err := p.node(ctx, d)
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

// A Walker reads directories. They are gathered before they are given, because
// those that are sharded have no order: some 60 bytes and the name for each
// entry of the directory and of those that it lies in, unless Sort bounds it.
type Walker struct {
	Reader Reader
	// Sort bounds the memory. The zero value gathers in memory, however much it
	// is.
	Sort extsort.Options
}

// List yields the entries of a directory in bytewise order of their names.
func (w Walker) List(ctx context.Context, dir cid.Cid) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		l, err := linkTo(dir)
		if err == nil {
			g := &gatherer{r: w.Reader, space: extsort.New(w.Sort)}
			defer g.space.Close()
			err = g.forEachEntry(ctx, l, func(l link, name []byte) error {
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

// List is Walker.List in memory alone.
func List(ctx context.Context, r Reader, dir cid.Cid) iter.Seq2[DirEntry, error] {
	return Walker{Reader: r}.List(ctx, dir)
}

// errStop ends a walk whose consumer has had enough.
var errStop = errors.New("stop")

// A gatherer gives the entries of directories in order, also of one while it
// gives those of another that this one lies in.
type gatherer struct {
	r     Reader
	space *extsort.Space
	links int // of the nodes that are being given from
	value []byte
}

// maxLinks is how many links of nodes are held, some 200 bytes each. There are
// more only where many directories lie in one another: these are gathered.
const maxLinks = 1 << 15

// forEachEntry calls f for the entries of a directory in order of their names.
// The name is valid until f uses the gatherer.
func (g *gatherer) forEachEntry(ctx context.Context, dir link, f func(l link, name []byte) error) error {
	n, err := loadDir(ctx, g.r, dir)
	if err != nil {
		return err
	}
	if links := len(n.links); n.typ == typeDirectory && g.links+links <= maxLinks {
		g.links += links
		defer func() { g.links -= links }()
		for _, l := range n.links {
			if err := f(l.link, l.name); err != nil {
				return err
			}
		}
		return nil
	}
	entries := g.space.Sorter()
	defer entries.Close()
	if n.typ == typeDirectory {
		for _, l := range n.links {
			if err := g.add(entries, l.link, l.name); err != nil {
				return err
			}
		}
	} else if err := g.gather(ctx, n, entries, 0, 0); err != nil {
		return err
	}
	n = nil // not needed while others are given
	for e, err := range entries.Sorted() {
		if err != nil {
			return fmt.Errorf("directory %v: %w", dir.cid(), err)
		}
		l, err := parseEntry(e.Value)
		if err != nil {
			return err
		}
		if err := f(l, e.Key); err != nil {
			return err
		}
	}
	return nil
}

func (g *gatherer) add(entries *extsort.Sorter, l link, name []byte) error {
	g.value = l.append(g.value[:0])
	return entries.Add(name, g.value)
}

// gather adds the entries of a shard. Their hashes must begin with the bytes that
// led here, which prefix ends in: so no shard can serve at two places, no name is
// there twice, and the entries are no more than the shards hold.
func (g *gatherer) gather(ctx context.Context, n *node, entries *extsort.Sorter, prefix uint64, level int) error {
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
			if err := g.add(entries, l.link, name); err != nil {
				return err
			}
			continue
		}
		if level+1 == hamtLevels {
			return fmt.Errorf("sharded directory too deep: %w", ErrFormat)
		}
		child, err := loadShard(ctx, g.r, l.digest)
		if err != nil {
			return err
		}
		if err := g.gather(ctx, child, entries, here, level+1); err != nil {
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
func (w Walker) Walk(ctx context.Context, root cid.Cid) iter.Seq2[WalkEntry, error] {
	return func(yield func(WalkEntry, error) bool) {
		info, err := Stat(ctx, w.Reader, root)
		if err == nil {
			g := &gatherer{r: w.Reader, space: extsort.New(w.Sort)}
			defer g.space.Close()
			err = g.walk(ctx, WalkEntry{Info: info}, yield)
		}
		if err != nil && err != errStop {
			yield(WalkEntry{}, err)
		}
	}
}

// Walk is Walker.Walk in memory alone.
func Walk(ctx context.Context, r Reader, root cid.Cid) iter.Seq2[WalkEntry, error] {
	return Walker{Reader: r}.Walk(ctx, root)
}

func (g *gatherer) walk(ctx context.Context, e WalkEntry, yield func(WalkEntry, error) bool) error {
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
			if err := g.walk(ctx, last, yield); err != nil {
				return err
			}
		}
		return nil
	}
	err = g.forEachEntry(ctx, dir, func(l link, name []byte) error {
		e := WalkEntry{Path: prefix + string(name), Tsize: l.tsize}
		if len(e.Path) > MaxPath {
			return fmt.Errorf("path of %d bytes: %w: %w", len(e.Path), ErrPath, ErrFormat)
		}
		var err error
		if e.Info, err = Stat(ctx, g.r, l.cid()); err != nil {
			return fmt.Errorf("entry %q: %w", e.Path, err)
		}
		if err := flush(e.Path); err != nil {
			return err
		}
		if e.Info.Kind == KindDir {
			waiting = append(waiting, e)
			return nil
		}
		return g.walk(ctx, e, yield)
	})
	if err != nil {
		return err
	}
	return flush("")
}
