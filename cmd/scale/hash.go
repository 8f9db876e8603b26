package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/dag/fstree"
)

// A treeHasher computes the tree of a directory without storing anything: several
// files at a time, put together in canonical order.
type treeHasher struct {
	profile  *dag.Profile
	keep     bool // remember the leaves
	progress func(bytes uint64)

	leaves  []dag.FileLeaf
	skipped []error // devices, sockets and pipes, which no dataset holds
}

// A hashJob is one entry of the tree. done is closed when file or err is set.
type hashJob struct {
	entry *fstree.Entry
	file  dag.File
	err   error
	done  chan struct{}
}

func (h *treeHasher) hash(ctx context.Context, dir string, times bool) (dag.Tree, error) {
	t, err := fstree.Open(dir, fstree.Options{
		Times: times, Skipped: func(_ string, why error) { h.skipped = append(h.skipped, why) }, Sort: sorting(),
	})
	if err != nil {
		return dag.Tree{}, err
	}
	defer t.Close()
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	order := make(chan *hashJob, 64*workers)
	files := make(chan *hashJob, cap(order))
	g.Go(func() error {
		defer close(order)
		defer close(files)
		for e, err := range t.Walk(ctx) {
			if err != nil {
				return err
			}
			j := &hashJob{entry: e, done: make(chan struct{})}
			if e.Kind == dag.KindFile {
				files <- j // taken by the workers, whatever happens, until it is closed
			}
			select {
			case order <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			hasher := dag.NewHasher(h.profile, nil)
			for j := range files {
				j.file, j.err = hashFile(ctx, hasher, t, j.entry)
				close(j.done)
			}
			return nil
		})
	}
	var tree dag.Tree
	g.Go(func() (err error) {
		tree, err = h.build(ctx, order)
		return err
	})
	err = g.Wait()
	if errors.Is(err, extsort.ErrScratch) {
		err = fmt.Errorf("sort a large directory: %w; $TMPDIR can name another place", err)
	}
	return tree, err
}

// build adds the entries to the tree as they come out in order.
func (h *treeHasher) build(ctx context.Context, order <-chan *hashJob) (dag.Tree, error) {
	b := dag.NewTreeBuilder(h.profile, nowhere{})
	b.Spill(sorting())
	defer b.Close()
	var bytes uint64
	for j := range order {
		e := j.entry
		var err error
		switch e.Kind {
		case dag.KindDir:
			err = b.AddDir(e.Path, e.Attr)
		case dag.KindLink:
			err = b.AddLink(e.Path, e.Target, e.Attr)
		default:
			select {
			case <-j.done:
			case <-ctx.Done():
				return dag.Tree{}, ctx.Err()
			}
			if err = j.err; err == nil {
				err = b.AddFile(e.Path, j.file)
			}
			bytes += j.file.Size
			h.progress(bytes)
		}
		if err != nil {
			return dag.Tree{}, err
		}
		h.remember(e, j.file)
	}
	if err := ctx.Err(); err != nil {
		return dag.Tree{}, err
	}
	return b.Finish()
}

// remember keeps the leaf of an entry. A directory has one only if it is empty, which
// shows when the next entry is not in it.
func (h *treeHasher) remember(e *fstree.Entry, f dag.File) {
	if !h.keep {
		return
	}
	if n := len(h.leaves); n > 0 {
		if last := h.leaves[n-1]; last.Kind == dag.KindDir && (last.Path == "/" || strings.HasPrefix(e.Path, last.Path)) {
			h.leaves = h.leaves[:n-1]
		}
	}
	l := dag.FileLeaf{Kind: e.Kind, Path: e.Path}
	switch e.Kind {
	case dag.KindFile:
		l.Size, l.Chunks, l.ChunkRoot = f.Size, f.Chunks, f.ChunkRoot
	case dag.KindLink:
		l.Size, l.Target = uint64(len(e.Target)), e.Target
	case dag.KindDir:
		l.Path += "/"
	}
	h.leaves = append(h.leaves, l)
}

// hashFile hashes one file as it is when it is opened.
func hashFile(ctx context.Context, h *dag.Hasher, t *fstree.Tree, e *fstree.Entry) (dag.File, error) {
	f, err := t.Open(e)
	if err != nil {
		return dag.File{}, err
	}
	defer f.Close()
	return h.File(ctx, f, e.Attr)
}

// nowhere takes the blocks and rows that a tree is made of and that nobody wants.
type nowhere struct{}

func (nowhere) Node(dag.Digest, []byte) error { return nil }
func (nowhere) Row(dag.Hash, []byte) error    { return nil }
