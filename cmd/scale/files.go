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
// its bytes. Files of one directory go to one goroutine, because the system makes one file
// at a time in each.
type restorer struct {
	r        *fstree.Restore
	progress func(bytes uint64)
	bytes    uint64
	setID    int // entries with bits that were recorded and may not be restored

	g      errgroup.Group
	batch  *smallFiles // under way
	jobs   chan *smallFiles
	free   sync.Pool   // of *smallFiles
	failed atomic.Bool // a worker has
}

var _ store.Visitor = (*restorer)(nil)

const (
	restoreWorkers = 4 // they wait for the file system more than they compute
	smallFileSize  = 256 << 10
	// What one goroutine gets at a time.
	smallBatch = 512 << 10
	smallCount = 128
)

func newRestorer(r *fstree.Restore, progress func(uint64)) *restorer {
	v := &restorer{r: r, progress: progress, jobs: make(chan *smallFiles, restoreWorkers)}
	v.free.New = func() any { return new(smallFiles) }
	v.batch = new(smallFiles)
	for range restoreWorkers {
		v.g.Go(func() error {
			var first error
			// After an error the rest is still closed, which Abort wants.
			for b := range v.jobs {
				if err := b.write(); err != nil && first == nil {
					first = err
					v.failed.Store(true)
				}
				v.free.Put(b)
			}
			return first
		})
	}
	return v
}

// wait ends the restorer's goroutines and returns what went wrong in them.
func (v *restorer) wait() error {
	v.send()
	close(v.jobs)
	return v.g.Wait()
}

// send hands over the files that were collected.
func (v *restorer) send() {
	if len(v.batch.files) > 0 {
		v.jobs <- v.batch
		v.batch = v.free.Get().(*smallFiles)
	}
}

func (v *restorer) count(a dag.Attr) {
	if a.Mode&0o6000 != 0 {
		v.setID++
	}
}

func (v *restorer) Dir(path string, a dag.Attr) error {
	v.count(a)
	v.send()
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
	if b := v.batch; len(b.files) >= smallCount || uint64(len(b.data))+size > smallBatch {
		v.send()
	}
	v.batch.files = append(v.batch.files, smallFile{w: w, end: len(v.batch.data)})
	return v.batch, nil
}

// smallFiles are files that are held until a worker writes them.
type smallFiles struct {
	files []smallFile
	data  []byte // of all of them, one after the other
}

type smallFile struct {
	w   *fstree.FileWriter
	end int // of its bytes in data
}

// Write adds to the last file.
func (b *smallFiles) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)
	b.files[len(b.files)-1].end = len(b.data)
	return len(p), nil
}

// Close ends the last file. It is written with the others.
func (b *smallFiles) Close() error { return nil }

// write writes all files and forgets them. It returns the first error.
func (b *smallFiles) write() error {
	var first error
	start := 0
	for _, f := range b.files {
		var err error
		if f.end > start {
			_, err = f.w.Write(b.data[start:f.end])
		}
		start = f.end
		if cerr := f.w.Close(); err == nil {
			err = cerr
		}
		if first == nil {
			first = err
		}
	}
	clear(b.files)
	b.files, b.data = b.files[:0], b.data[:0]
	return first
}
