package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

// A slab is a piece of a dataset: entries in order, with the bytes of their files.
// Only the first file may have begun in the slab before, and only the last one may go
// on in the next.
type slab struct {
	buf   *buffer
	items []item
	refs  []Chunk // of items that are given by digest, or by the file cache, in order
	ends  []int   // where chunks of the last item end, if the feeder cut it
	room  int     // bytes that the files need which a worker may have to read
	last  bool    // the dataset ends with this slab

	// What process found: the chunks of all items in order, and where their bytes are
	// in buf; -1 for those given by digest.
	chunks  []Chunk
	starts  []int
	known   []bool
	scratch []int
	ask     []Chunk // scratch
	answers []bool  // scratch
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
	again      bool  // what was handed on of the entry is void; the whole of it comes anew
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
	fromPast  // refs, of a file that did not change; a worker reads it if one is not stored
	fromKnown // refs, of such a file, that are stored
)

// unread says whether the bytes of an item were not read.
func (it *item) unread() bool { return it.from == fromPast || it.from == fromKnown }

// process reads what is to be read, and chunks, hashes and looks up everything in
// the slab.
func (sl *slab) process(ctx context.Context, r *run) {
	if sl.err = sl.recall(ctx, r); sl.err != nil {
		return
	}
	if sl.err = sl.sum(ctx, r); sl.err != nil {
		return
	}
	if sl.err = sl.look(ctx, r); sl.err != nil {
		sl.err = fmt.Errorf("look up chunks: %w", sl.err)
	}
}

// recall looks up the chunks of files that did not change, and has those read of which
// one is not stored.
func (sl *slab) recall(ctx context.Context, r *run) error {
	if !slices.ContainsFunc(sl.items, func(it item) bool { return it.from == fromPast }) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	known, err := sl.stored(ctx, r, sl.refs)
	if err != nil {
		return fmt.Errorf("look up chunks: %w", err)
	}
	for i := range sl.items {
		it := &sl.items[i]
		if it.from == fromPast && slices.Contains(known[:it.refs], false) {
			it.from = fromDisk
		}
		known = known[it.refs:]
	}
	return nil
}

// stored looks chunks up. What it returns is valid until the next call.
func (sl *slab) stored(ctx context.Context, r *run, chunks []Chunk) ([]bool, error) {
	if len(chunks) == 0 {
		return nil, nil
	}
	sl.answers = append(sl.answers[:0], make([]bool, len(chunks))...)
	err := r.out.Index.Known(ctx, chunks, sl.answers)
	return sl.answers, err
}

// look looks up the chunks that were not looked up before.
func (sl *slab) look(ctx context.Context, r *run) error {
	sl.ask = sl.ask[:0]
	for i, c := range sl.chunks {
		if !sl.known[i] {
			sl.ask = append(sl.ask, c)
		}
	}
	known, err := sl.stored(ctx, r, sl.ask)
	for i := range sl.known {
		if !sl.known[i] && err == nil {
			sl.known[i], known = known[0], known[1:]
		}
	}
	return err
}

// sum cuts and hashes.
func (sl *slab) sum(ctx context.Context, r *run) error {
	refs := sl.refs
	for i := range sl.items {
		it := &sl.items[i]
		first := len(sl.chunks)
		own := refs[:it.refs]
		refs = refs[it.refs:]
		switch it.from {
		case fromDisk:
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if sl.buf == nil {
				sl.buf = r.p.buffer(sl.room)
			}
			n, err := r.src.Read(it.entry, sl.buf.b[it.start:it.start+int(it.entry.Size)+1])
			if errors.Is(err, io.ErrShortBuffer) {
				err = fmt.Errorf("%q grew: %w", it.entry.Path, fstree.ErrChanged)
			}
			if it.err = err; err != nil {
				continue
			}
			it.end = it.start + n
			sl.split(r, it)
		case fromBytes:
			sl.split(r, it)
		case fromPart:
			sl.hash(r, it.start, sl.ends)
		case fromRefs, fromPast, fromKnown:
			sl.chunks = append(sl.chunks, own...)
			for range own {
				sl.starts, sl.known = append(sl.starts, -1), append(sl.known, it.unread())
			}
		}
		it.chunks = len(sl.chunks) - first
	}
	return nil
}

func (sl *slab) split(r *run, it *item) {
	sl.scratch = r.in.Profile.Splitter().Split(sl.scratch[:0], sl.buf.b[it.start:it.end], true)
	sl.hash(r, it.start, sl.scratch)
}

// hash takes the chunks that end at start + ends. One that is equal to the one before it, as
// in the holes of disk images, is compared and not hashed, and so is the first of a hole.
func (sl *slab) hash(r *run, start int, ends []int) {
	most := r.in.Profile.Splitter().Max()
	var before []byte
	at := start
	for _, e := range ends {
		end := start + e
		p := sl.buf.b[at:end]
		switch {
		case bytes.Equal(before, p): // never of the first, as no chunk is empty
			sl.chunks = append(sl.chunks, sl.chunks[len(sl.chunks)-1])
		case len(p) == most && p[0] == 0 && bytes.Equal(p[1:], p[:most-1]):
			sl.chunks = append(sl.chunks, r.zeros())
		default:
			sl.chunks = append(sl.chunks, sum(p))
		}
		sl.starts, sl.known = append(sl.starts, at), append(sl.known, false)
		at, before = end, p
	}
}

func sum(p []byte) Chunk {
	return Chunk{Digest: dag.Digest(sha256.Sum256(p)), Size: uint32(len(p))}
}
