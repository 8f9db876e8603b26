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

// A Place is a point in a tree from which WalkFrom goes on.
type Place struct {
	Below string // the directory to walk, "" for all
	After string // the entry, relative to Below, after which to begin; "" for the first
}

// WalkFrom yields what Walk yields below a directory, without the directory itself, but
// only what comes after one entry. It goes by the leaves of the file tree, whose root and
// number are given, so that it finds its place in logarithmic time, whatever the size of
// the tree and its directories. Paths are relative to Place.Below, and all sizes of files
// are known. An After that is not in the tree is ErrNotFound.
func WalkFrom(ctx context.Context, r Reader, root cid.Cid, commitment Hash, leaves uint64, at Place) iter.Seq2[WalkEntry, error] {
	return func(yield func(WalkEntry, error) bool) {
		w := leafWalk{r: r, shards: map[Digest]*node{}, yield: yield}
		if err := w.walk(ctx, root, commitment, leaves, at); err != nil && err != errStop {
			yield(WalkEntry{}, err)
		}
	}
}

// A leafWalk finds the entries of a tree that its leaves name.
type leafWalk struct {
	r      Reader
	dirs   []openDir        // from the root down to that of the last leaf
	shards map[Digest]*node // below sharded directories, the last ones
	yield  func(WalkEntry, error) bool
}

// An openDir is a directory on the way to a leaf.
type openDir struct {
	path string // with "/" at its end; "" for the root
	link link
	node *node // nil if it was dropped
}

// maxOpenLinks is how many links of open directories are held, some 200 bytes each.
const maxOpenLinks = 1 << 15

// open goes into a directory below the last open one.
func (w *leafWalk) open(ctx context.Context, path string, l link) (*node, error) {
	n, err := loadDir(ctx, w.r, l)
	if err != nil {
		return nil, err
	}
	links := len(n.links)
	for i := len(w.dirs) - 1; i >= 0; i-- {
		if d := &w.dirs[i]; d.node != nil {
			if links += len(d.node.links); links > maxOpenLinks {
				d.node = nil
			}
		}
	}
	w.dirs = append(w.dirs, openDir{path: path, link: l, node: n})
	return n, nil
}

// last returns the last open directory.
func (w *leafWalk) last(ctx context.Context) (*openDir, error) {
	d := &w.dirs[len(w.dirs)-1]
	var err error
	if d.node == nil {
		d.node, err = loadDir(ctx, w.r, d.link)
	}
	return d, err
}

func (w *leafWalk) walk(ctx context.Context, root cid.Cid, commitment Hash, n uint64, at Place) error {
	l, err := linkTo(root)
	if err != nil {
		return err
	}
	if _, err := w.open(ctx, "", l); err != nil {
		return err
	}
	prefix := ""
	if at.Below != "" {
		prefix = at.Below + "/"
	}
	from, given, err := w.seek(ctx, commitment, n, prefix, at.After)
	if err != nil {
		return err
	}
	for leaf, err := range Leaves(ctx, w.r, commitment, n, from) {
		if err != nil {
			return err
		}
		if !strings.HasPrefix(leaf.Path, prefix) {
			return nil
		}
		if leaf.Path == prefix || leaf.Path == "/" { // it is the directory itself that is empty
			continue
		}
		if err := w.leaf(ctx, leaf, prefix, given); err != nil {
			return err
		}
		given = "" // all that come later lie behind it
	}
	return nil
}

// seek returns the first leaf that is wanted, and the directory, with "/" at its end,
// that was given already with all that it lies in.
func (w *leafWalk) seek(ctx context.Context, commitment Hash, n uint64, prefix, after string) (uint64, string, error) {
	if after == "" {
		i, _, err := seekLeaf(ctx, w.r, commitment, n, prefix)
		return i, prefix, err
	}
	path := prefix + after
	if strings.HasSuffix(after, "/") {
		return 0, "", fmt.Errorf("path %q: %w", after, ErrNotFound)
	}
	i, l, err := seekLeaf(ctx, w.r, commitment, n, path)
	if err != nil {
		return 0, "", err
	}
	if l.Path == path {
		return i + 1, path[:strings.LastIndexByte(path, '/')+1], nil
	}
	path += "/"
	i, l, err = seekLeaf(ctx, w.r, commitment, n, path)
	switch {
	case err != nil:
		return 0, "", err
	case l.Path == path:
		return i + 1, path, nil
	case strings.HasPrefix(l.Path, path):
		return i, path, nil
	}
	return 0, "", fmt.Errorf("path %q: %w", after, ErrNotFound)
}

// leaf yields the directories that begin with a leaf, unless they were given, and the
// leaf itself.
func (w *leafWalk) leaf(ctx context.Context, l FileLeaf, prefix, given string) error {
	path := strings.TrimSuffix(l.Path, "/") // of an empty directory
	for len(w.dirs) > 1 && !strings.HasPrefix(path, w.dirs[len(w.dirs)-1].path) {
		w.dirs = w.dirs[:len(w.dirs)-1]
	}
	for {
		dir, err := w.last(ctx)
		if err != nil {
			return fmt.Errorf("directory of %q: %w", path, err)
		}
		name, _, more := strings.Cut(path[len(dir.path):], "/")
		link, err := w.lookup(ctx, dir.node, name)
		if err != nil {
			if errors.Is(err, ErrNotFound) {
				err = fmt.Errorf("the commitment has it, its directory has not: %w", ErrCorrupt)
			}
			return fmt.Errorf("entry %q: %w", path, err)
		}
		here := dir.path + name
		if !more {
			return w.entry(ctx, l, here[len(prefix):], link)
		}
		n, err := w.open(ctx, here+"/", link)
		if err != nil {
			return fmt.Errorf("entry %q: %w", here, err)
		}
		if len(here) > len(prefix) && !strings.HasPrefix(given, here+"/") {
			if !w.yield(WalkEntry{Path: here[len(prefix):], Info: n.info(link.cid()), Tsize: link.tsize}, nil) {
				return errStop
			}
		}
	}
}

// entry yields what a leaf stands for.
func (w *leafWalk) entry(ctx context.Context, l FileLeaf, path string, at link) error {
	info, err := Stat(ctx, w.r, at.cid())
	if err == nil && info.Kind != l.Kind {
		err = fmt.Errorf("a %v, which the commitment has as a %v: %w", info.Kind, l.Kind, ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("entry %q: %w", l.Path, err)
	}
	if l.Kind == KindFile {
		info.Size, info.SizeKnown = l.Size, true
	}
	if !w.yield(WalkEntry{Path: path, Info: info, Tsize: at.tsize}, nil) {
		return errStop
	}
	return nil
}

// maxShards bounds the shards kept: some 5 MB.
const maxShards = 300

// lookup finds a name in a directory.
func (w *leafWalk) lookup(ctx context.Context, n *node, name string) (link, error) {
	if n.typ == typeDirectory {
		return n.find(name)
	}
	return findInShards(n, name, func(d Digest) (*node, error) {
		if n, ok := w.shards[d]; ok {
			return n, nil
		}
		n, err := loadShard(ctx, w.r, d)
		if err == nil {
			if len(w.shards) >= maxShards {
				clear(w.shards)
			}
			w.shards[d] = n
		}
		return n, err
	})
}

// find finds a name in a directory that is not sharded.
func (n *node) find(name string) (link, error) {
	i, ok := slices.BinarySearchFunc(n.links, name, func(l namedLink, name string) int {
		return strings.Compare(string(l.name), name)
	})
	if !ok {
		return link{}, ErrNotFound
	}
	return n.links[i].link, nil
}

// findInShards finds a name in a sharded directory.
func findInShards(n *node, name string, load func(Digest) (*node, error)) (link, error) {
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
		var err error
		if n, err = load(l.digest); err != nil {
			return link{}, err
		}
	}
	return link{}, fmt.Errorf("sharded directory too deep: %w", ErrFormat)
}

// seekLeaf returns the first leaf whose path is not before the given one, and its
// index; n and an empty leaf if all are before it.
func seekLeaf(ctx context.Context, r Reader, root Hash, n uint64, path string) (uint64, FileLeaf, error) {
	t := newLeafTree(r, root, n)
	lo, hi := uint64(0), (n+rowWidth-1)/rowWidth // rows before lo end before path, those from hi on do not
	for lo < hi {
		mid := lo + (hi-lo)/2
		row, err := t.leafRow(ctx, mid)
		if err != nil {
			return 0, FileLeaf{}, fmt.Errorf("find leaf %q: %w", path, err)
		}
		if row[len(row)-1].Path < path {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo*rowWidth >= n {
		return n, FileLeaf{}, nil
	}
	row, err := t.leafRow(ctx, lo)
	if err != nil {
		return 0, FileLeaf{}, fmt.Errorf("find leaf %q: %w", path, err)
	}
	i, _ := slices.BinarySearchFunc(row, path, func(l FileLeaf, path string) int { return strings.Compare(l.Path, path) })
	return lo*rowWidth + uint64(i), row[i], nil
}
