package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store"
)

// writeFile writes a file of our own making: beside its place, synced, renamed.
func (a *app) writeFile(ctx context.Context, path string, mode uint32, overwrite bool, write func(io.Writer) error) error {
	attr := dag.Attr{Mode: mode &^ umask()}
	return fstree.WriteFile(path, attr, fstree.RestoreOptions{Overwrite: overwrite}, func(f io.Writer) error {
		if err := write(f); err != nil {
			return err
		}
		return ctx.Err() // an interrupted verb leaves nothing behind
	})
}

// umask is what the user wants new files not to allow. It can only be read by
// setting it, which is done before this process makes files of its own.
var umask = sync.OnceValue(func() uint32 {
	m := unix.Umask(0o077)
	unix.Umask(m)
	return uint32(m)
})

// A restorer writes what the store visits to disk. Small files, of which there are
// many, are collected and written by several goroutines: making a file costs more than
// its bytes.
type restorer struct {
	r        *fstree.Restore
	progress func(bytes uint64)
	bytes    uint64
	setID    int // entries with bits that were recorded and may not be restored

	g      errgroup.Group
	jobs   chan *smallFile
	free   sync.Pool   // of *smallFile
	failed atomic.Bool // a worker has
}

var _ store.Visitor = (*restorer)(nil)

const (
	restoreWorkers = 4 // they wait for the file system more than they compute
	smallFileSize  = 256 << 10
)

func newRestorer(r *fstree.Restore, progress func(uint64)) *restorer {
	v := &restorer{r: r, progress: progress, jobs: make(chan *smallFile, 4*restoreWorkers)}
	v.free.New = func() any { return &smallFile{v: v} }
	for range restoreWorkers {
		v.g.Go(func() error {
			var first error
			// After an error the rest is still closed, which Abort wants.
			for f := range v.jobs {
				if err := f.flush(); err != nil && first == nil {
					first = err
					v.failed.Store(true)
				}
			}
			return first
		})
	}
	return v
}

// wait ends the restorer's goroutines and returns what went wrong in them.
func (v *restorer) wait() error {
	close(v.jobs)
	return v.g.Wait()
}

func (v *restorer) count(a dag.Attr) {
	if a.Mode&0o6000 != 0 {
		v.setID++
	}
}

func (v *restorer) Dir(path string, a dag.Attr) error {
	v.count(a)
	return v.r.Dir(path, a)
}

func (v *restorer) Link(path, target string, a dag.Attr) error { return v.r.Link(path, target, a) }

func (v *restorer) File(path string, a dag.Attr, size uint64) (io.WriteCloser, error) {
	if v.failed.Load() {
		return nil, errors.New("another file could not be written") // which wait tells
	}
	v.count(a)
	w, err := v.r.File(path, a)
	if err != nil {
		return nil, err
	}
	v.bytes += size
	v.progress(v.bytes)
	if size > smallFileSize {
		return w, nil
	}
	f := v.free.Get().(*smallFile)
	f.w, f.data = w, f.data[:0]
	return f, nil
}

// A smallFile holds a file until a worker writes it.
type smallFile struct {
	v    *restorer
	w    *fstree.FileWriter
	data []byte
}

func (f *smallFile) Write(p []byte) (int, error) {
	f.data = append(f.data, p...)
	return len(p), nil
}

// Close hands the file over.
func (f *smallFile) Close() error {
	f.v.jobs <- f
	return nil
}

func (f *smallFile) flush() error {
	var err error
	if len(f.data) > 0 {
		_, err = f.w.Write(f.data)
	}
	if cerr := f.w.Close(); err == nil {
		err = cerr
	}
	f.v.free.Put(f)
	return err
}
