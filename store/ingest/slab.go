package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/chunk"
	"github.com/koii-network/scale/dag/fstree"
)

// A slab is a piece of a dataset: entries in order, with the bytes of their files.
// Only the first file may have begun in the slab before, and only the last one may go
// on in the next.
type slab struct {
	buf   *buffer
	items []item
	refs  []Chunk // of items that are given by digest, in order
	ends  []int   // where chunks of the last item end, if the feeder cut it
	room  int     // bytes that the files need which a worker is to read
	last  bool    // the dataset ends with this slab

	// What process found: the chunks of all items in order, and where their bytes are
	// in buf; -1 for those given by digest.
	chunks  []Chunk
	starts  []int
	known   []bool
	scratch []int
	err     error
	ready   chan struct{} // takes one when process is done
}

// An item is an entry or a part of one.
type item struct {
	entry      *fstree.Entry
	from       origin
	start, end int // of its bytes in buf; fromDisk ends where the file does
	refs       int // how many of the slab's refs are its
	begins     bool
	ends       bool
	chunks     int   // how many of the slab's chunks are its, set by process
	err        error // why its bytes end early
}

// An origin says where an item's chunks come from.
type origin uint8

const (
	fromNothing origin = iota
	fromBytes          // buf[start:end], to the end of the file
	fromPart           // buf[start:], cut already: sl.ends
	fromDisk           // a worker reads the file to buf[start:]
	fromRefs
)

// process reads what is to be read, and chunks, hashes and looks up everything in
// the slab.
func (sl *slab) process(ctx context.Context, r *run) {
	if sl.err = sl.sum(ctx, r); sl.err != nil || len(sl.chunks) == 0 {
		return
	}
	sl.known = append(sl.known, make([]bool, len(sl.chunks))...)
	if err := r.out.Index.Known(ctx, sl.chunks, sl.known); err != nil {
		sl.err = fmt.Errorf("look up chunks: %w", err)
	}
}

// sum cuts and hashes.
func (sl *slab) sum(ctx context.Context, r *run) error {
	if sl.room > 0 {
		sl.buf = r.p.buffer(sl.room)
	}
	splitter, refs := r.in.Profile.Splitter(), sl.refs
	for i := range sl.items {
		it := &sl.items[i]
		first := len(sl.chunks)
		switch it.from {
		case fromDisk:
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			n, err := r.src.Read(it.entry, sl.buf.b[it.start:it.start+int(it.entry.Size)+1])
			if errors.Is(err, io.ErrShortBuffer) {
				err = fmt.Errorf("%q grew: %w", it.entry.Path, fstree.ErrChanged)
			}
			if it.err = err; err != nil {
				continue
			}
			it.end = it.start + n
			sl.split(splitter, it)
		case fromBytes:
			sl.split(splitter, it)
		case fromPart:
			sl.hash(it.start, sl.ends)
		case fromRefs:
			sl.chunks = append(sl.chunks, refs[:it.refs]...)
			for range it.refs {
				sl.starts = append(sl.starts, -1)
			}
			refs = refs[it.refs:]
		}
		it.chunks = len(sl.chunks) - first
	}
	return nil
}

func (sl *slab) split(s chunk.Splitter, it *item) {
	sl.scratch = s.Split(sl.scratch[:0], sl.buf.b[it.start:it.end], true)
	sl.hash(it.start, sl.scratch)
}

// hash takes the chunks that end at start + ends.
func (sl *slab) hash(start int, ends []int) {
	at := start
	for _, e := range ends {
		end := start + e
		sl.chunks = append(sl.chunks, Chunk{Digest: dag.Digest(sha256.Sum256(sl.buf.b[at:end])), Size: uint32(end - at)})
		sl.starts = append(sl.starts, at)
		at = end
	}
}
