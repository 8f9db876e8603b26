package dag

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag/extsort"
)

// A Tree is what is known of a dataset whose files have all been seen.
type Tree struct {
	Root       cid.Cid
	Size       uint64 // bytes of all files
	Tsize      uint64 // bytes of all blocks, as often as they are linked
	Files      uint64 // regular files
	Leaves     uint64 // files, links and empty directories
	Chunks     uint64 // of all files
	Commitment Hash   // root of the file tree
}

// A TreeBuilder builds the directories and the file tree of a dataset, from
// its entries in canonical order: the bytewise order of the paths, where that
// of a directory ends in "/". So a directory comes before what is in it, and
// leaves come in bytewise order of their paths. Paths are relative and use
// "/"; the root directory is "" and comes first. Names are bytes, not text.
//
// The entries of the directories that are open are held in memory, unless Spill
// bounds that. After an error it cannot be used again, and Finish returns that
// error.
type TreeBuilder struct {
	nodes nodeWriter
	sort  extsort.Options
	err   error

	// The last path added, with "/" after a directory but the root, and the
	// one that is being added.
	last, key []byte
	// The open directories, each inside the one before. Their paths are
	// prefixes of last. Those beyond depth are kept to be used again.
	open  []*dirBuilder
	depth int
	root  link // once the root directory is closed

	leaves leafRowBuilder
	rows   rowBuilder
	rowed  bool // rows were begun
	tree   Tree
}

// NewTreeBuilder returns a builder that gives what it makes to s.
func NewTreeBuilder(p *Profile, s Sink) *TreeBuilder {
	return &TreeBuilder{nodes: nodeWriter{sink: s, limit: p.dirLimit}, rows: rowBuilder{sink: s}}
}

// Spill bounds the memory for entries of directories: what is more goes to a
// temporary file. It must come before the first entry. A failing file ends the
// build with extsort.ErrScratch. The file is given back by Finish, by an error,
// or by Close.
func (b *TreeBuilder) Spill(o extsort.Options) { b.sort = o }

// Close ends a build that is not to be finished. After Finish it does nothing.
func (b *TreeBuilder) Close() error {
	b.keep(fmt.Errorf("tree was closed: %w", ErrOrder))
	return b.release()
}

func (b *TreeBuilder) release() error {
	if b.nodes.space == nil {
		return nil
	}
	return b.nodes.space.Close()
}

// AddDir adds a directory.
func (b *TreeBuilder) AddDir(path string, a Attr) error {
	return b.keep(b.addDir(path, a))
}

// AddFile adds a file that a FileBuilder built.
func (b *TreeBuilder) AddFile(path string, f File) error {
	return b.keep(b.addFile(path, f))
}

// AddLink adds a symbolic link. Of a, only the time is recorded: links have no
// mode.
func (b *TreeBuilder) AddLink(path, target string, a Attr) error {
	return b.keep(b.addLink(path, target, a))
}

// keep makes the first error stay.
func (b *TreeBuilder) keep(err error) error {
	if b.err == nil && err != nil {
		b.err = err
		b.release() // that it fails would add nothing
	}
	return err
}

func (b *TreeBuilder) addDir(path string, a Attr) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	if _, err := b.enter(path, "/"); err != nil {
		return err
	}
	if b.depth == len(b.open) {
		b.open = append(b.open, new(dirBuilder))
	}
	if b.nodes.space == nil {
		b.nodes.space = extsort.New(b.sort)
	}
	b.nodes.open(b.open[b.depth], a, len(path))
	b.depth++
	return nil
}

func (b *TreeBuilder) addFile(path string, f File) error {
	name, err := b.enter(path, "")
	if err != nil {
		return err
	}
	l := fileLeafOf(path, f)
	if err := l.checkFile(); err != nil {
		return err
	}
	codec, d, ok := splitCID(f.CID.KeyString())
	if !ok || codec != cid.Raw && codec != cid.DagProtobuf {
		return fmt.Errorf("file %q: CID %v: %w", path, f.CID, ErrFormat)
	}
	if err := b.nodes.add(b.parent(), link{codec: codec, digest: d, tsize: f.Tsize}, name); err != nil {
		return err
	}
	b.tree.Files++
	return b.addLeaf(l)
}

func fileLeafOf(path string, f File) FileLeaf {
	return FileLeaf{Kind: KindFile, Path: path, Size: f.Size, Chunks: f.Chunks, ChunkRoot: f.ChunkRoot}
}

func (b *TreeBuilder) addLink(path, target string, a Attr) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("link %q: %w", path, err)
	}
	if err := checkTarget(target); err != nil {
		return fmt.Errorf("link %q: %w", path, err)
	}
	name, err := b.enter(path, "")
	if err != nil {
		return err
	}
	l, err := b.nodes.symlink(target, a)
	if err != nil {
		return err
	}
	if err := b.nodes.add(b.parent(), l, name); err != nil {
		return err
	}
	return b.addLeaf(FileLeaf{Kind: KindLink, Path: path, Size: uint64(len(target)), Target: target})
}

func (b *TreeBuilder) parent() *dirBuilder { return b.open[b.depth-1] }

// enter goes from the last entry to a new one, whose directory it leaves as
// the innermost open one, and returns the new name.
func (b *TreeBuilder) enter(path, suffix string) (name string, err error) {
	if b.err != nil {
		return "", b.err
	}
	if b.depth == 0 {
		if path+suffix != "/" || b.root.codec != 0 {
			return "", fmt.Errorf("entry %q before the root directory or after it: %w", path, ErrOrder)
		}
		return "", nil
	}
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
		if dir == "" {
			return "", fmt.Errorf("absolute path %q: %w", path, ErrPath)
		}
	}
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("path %q: %w", path, err)
	}
	if len(path) > MaxPath {
		return "", fmt.Errorf("path of %d bytes: %w", len(path), ErrPath)
	}
	b.key = append(append(b.key[:0], path...), suffix...)
	if bytes.Compare(b.key, b.last) <= 0 {
		return "", fmt.Errorf("entry %q after %q: %w", b.key, b.last, ErrOrder)
	}
	for string(b.last[:b.parent().path]) != dir {
		if b.depth == 1 {
			return "", fmt.Errorf("entry %q without its directory: %w", path, ErrOrder)
		}
		if err := b.closeDir(); err != nil {
			return "", err
		}
	}
	b.last, b.key = b.key, b.last
	return name, nil
}

// closeDir ends the innermost open directory.
func (b *TreeBuilder) closeDir() error {
	d := b.parent()
	path := string(b.last[:d.path])
	l, err := b.nodes.close(d)
	if err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	if d.n == 0 {
		if err := b.addLeaf(FileLeaf{Kind: KindDir, Path: path + "/"}); err != nil {
			return err
		}
	}
	if b.depth--; b.depth == 0 {
		b.root = l
		return nil
	}
	return b.nodes.add(b.parent(), l, path[strings.LastIndexByte(path, '/')+1:])
}

func (b *TreeBuilder) addLeaf(l FileLeaf) error {
	if err := b.tree.count(&l); err != nil {
		return err
	}
	if len(b.leaves.hashes) == rowWidth {
		b.rowed = true
		h, err := b.leaves.flush(b.nodes.sink)
		if err != nil {
			return err
		}
		if err := b.rows.push(0, h); err != nil {
			return err
		}
	}
	b.leaves.add(&l)
	return nil
}

func (t *Tree) count(l *FileLeaf) error {
	t.Leaves++
	if l.Kind == KindFile {
		if t.Size > math.MaxInt64-l.Size {
			return fmt.Errorf("tree of more than %d bytes: %w", int64(math.MaxInt64), ErrRange)
		}
		t.Size += l.Size
		t.Chunks += l.Chunks
	}
	return nil
}

// Finish ends the tree. The builder cannot be used again.
func (b *TreeBuilder) Finish() (Tree, error) {
	t, err := b.finish()
	b.keep(err)
	b.keep(fmt.Errorf("tree was finished: %w", ErrOrder))
	return t, err
}

func (b *TreeBuilder) finish() (Tree, error) {
	if b.err != nil {
		return Tree{}, b.err
	}
	if b.depth == 0 {
		return Tree{}, fmt.Errorf("tree without a root directory: %w", ErrOrder)
	}
	for b.depth > 0 {
		if err := b.closeDir(); err != nil {
			return Tree{}, err
		}
	}
	// At least one leaf is pending: an empty tree has its root as leaf.
	h, err := b.leaves.flush(b.nodes.sink)
	if err == nil && b.rowed {
		if err = b.rows.push(0, h); err == nil {
			h, err = b.rows.finish()
		}
	}
	if err != nil {
		return Tree{}, err
	}
	b.tree.Root, b.tree.Tsize, b.tree.Commitment = b.root.cid(), b.root.tsize, h
	return b.tree, nil
}

// SingleFile makes a dataset of one stream: a file tree of one leaf, whose
// path is empty. Its root is that of the file.
func SingleFile(f File, s Sink) (Tree, error) {
	t := Tree{Root: f.CID, Tsize: f.Tsize, Files: 1}
	l := fileLeafOf("", f)
	if err := l.checkFile(); err != nil {
		return Tree{}, err
	}
	if err := t.count(&l); err != nil {
		return Tree{}, err
	}
	var row leafRowBuilder
	row.add(&l)
	h, err := row.flush(s)
	t.Commitment = h
	return t, err
}
