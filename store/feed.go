package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

const (
	// slabSize is how much is read, chunked and hashed as one piece of work.
	slabSize = 1 << 20
	// smallFile is the size up to which a file is read whole by a hasher, together
	// with its neighbours, instead of being streamed.
	smallFile = 256 << 10
	// slabEntries bounds the tree entries of one slab.
	slabEntries = 512
)

// A slab is a piece of input: either a run of entries of a tree whose small files
// lie in buf, or a part of one stream.
type slab struct {
	buf   []byte
	ds    *dataset
	cuts  []cut
	ends  []int // scratch of the splitter
	ready chan struct{}
	err   error // what process found

	entries []slabEntry

	stream  bool
	n       int           // bytes of buf that are the stream's chunks
	entry   *fstree.Entry // of the file that ends with this slab, else nil
	readErr error         // why the stream ended early

	last bool // the dataset ends with this slab
}

// A cut is a chunk in a slab's buffer.
type cut struct {
	start, end int
	digest     dag.Digest
	known      bool // the index has it
}

type slabEntry struct {
	*fstree.Entry
	start int // of its room in buf, one byte more than its size
	cuts  int // how many of the slab's cuts are its, in order
	err   error
}

func (sl *slab) reset(ds *dataset) {
	*sl = slab{
		buf: sl.buf, ready: sl.ready, cuts: sl.cuts[:0], ends: sl.ends[:0], entries: sl.entries[:0], ds: ds,
	}
}

// process reads what is to be read, and chunks, hashes and looks up everything in
// the slab.
func (sl *slab) process(ctx context.Context, s *Store) {
	if sl.stream {
		sl.err = sl.sum(ctx, s, 0)
		return
	}
	for i := range sl.entries {
		e := &sl.entries[i]
		if e.Kind != dag.KindFile {
			continue
		}
		if sl.err = ctx.Err(); sl.err != nil {
			return
		}
		room := sl.buf[e.start : e.start+int(e.Size)+1]
		n, err := sl.ds.src.Read(e.Entry, room)
		if errors.Is(err, io.ErrShortBuffer) {
			err = fmt.Errorf("%q grew: %w", e.Path, fstree.ErrChanged)
		}
		if err != nil {
			e.err = err
			continue
		}
		first := len(sl.cuts)
		sl.split(e.start, e.start+n, true)
		if sl.err = sl.sum(ctx, s, first); sl.err != nil {
			return
		}
		e.cuts = len(sl.cuts) - first
	}
}

// split cuts buf[start:end] into chunks and returns where the last one ends.
func (sl *slab) split(start, end int, final bool) int {
	sl.ends = sl.ds.profile.Splitter().Split(sl.ends[:0], sl.buf[start:end], final)
	at := start
	for _, e := range sl.ends {
		sl.cuts = append(sl.cuts, cut{start: at, end: start + e})
		at = start + e
	}
	return at
}

// sum hashes and looks up the cuts from first on.
func (sl *slab) sum(ctx context.Context, s *Store, first int) error {
	for i := first; i < len(sl.cuts); i++ {
		c := &sl.cuts[i]
		c.digest = sha256.Sum256(sl.buf[c.start:c.end])
		known, err := s.stored(ctx, c.digest)
		if err != nil {
			return fmt.Errorf("look up chunk: %w", err)
		}
		c.known = known
	}
	return nil
}

// stored says whether a chunk has a row and its frame a place in the packs. One whose
// pack was lost is stored again, and its row replaced.
func (s *Store) stored(ctx context.Context, d dag.Digest) (bool, error) {
	key := digestKey(rowChunk, d)
	known, err := s.kv.Has(ctx, key)
	if err != nil || !known {
		return false, storeError(err)
	}
	var scratch [64]byte
	b, err := s.kv.Get(ctx, key, scratch[:0])
	if err != nil {
		return false, storeError(err)
	}
	r, err := parseChunkRow(b)
	return err == nil && s.packs.Holds(r.Loc), nil
}

// A feeder turns inputs into slabs, in order.
type feeder struct {
	s     *Store
	ctx   context.Context // of the put; the feeder lives within one call
	hash  chan *slab      // to the hashers
	order chan *slab      // to the assembler
	free  chan *slab
}

func (f *feeder) slab(ds *dataset) (*slab, error) {
	select {
	case sl := <-f.free:
		sl.reset(ds)
		return sl, nil
	case <-f.ctx.Done():
		return nil, context.Cause(f.ctx)
	}
}

// send never blocks on hash: the channel holds as many slabs as there are.
func (f *feeder) send(sl *slab) error {
	f.hash <- sl
	f.order <- sl
	return nil
}

func (f *feeder) release() {
	for {
		select {
		case sl := <-f.free:
			sl.reset(nil)
			f.s.pools.giveSlab(sl)
		default:
			return
		}
	}
}

// feed reads one dataset.
func (f *feeder) feed(ds *dataset) (err error) {
	if ds.in.Reader != nil {
		ds.kind = dag.KindFile
		e := &fstree.Entry{Kind: dag.KindFile, Attr: dag.Attr{Mode: dag.DefaultFileMode}}
		return f.stream(ds, ds.in.Reader, e, true)
	}
	ds.src, err = fstree.Open(ds.in.Path, fstree.Options{
		Times: ds.in.Times, Exclude: ds.in.Exclude, SkipUnreadable: ds.in.SkipUnreadable,
		Skipped: func(path string, why error) {
			ds.skip(Skipped{Path: path, Why: why, Special: errors.Is(why, fstree.ErrSpecial)})
		},
	})
	if err != nil {
		return err
	}
	sl, err := f.slab(ds)
	if err != nil {
		return err
	}
	used := 0
	flush := func() error {
		if len(sl.entries) == 0 {
			return nil
		}
		if err := f.send(sl); err != nil {
			return err
		}
		used = 0
		sl, err = f.slab(ds)
		return err
	}
	first := true
	for e, werr := range ds.src.Walk(f.ctx) {
		if werr != nil {
			return werr
		}
		if first {
			ds.kind, first = e.Kind, false
		}
		big := e.Kind == dag.KindFile && e.Size > smallFile
		if big || used+int(e.Size)+1 > len(sl.buf) || len(sl.entries) >= slabEntries {
			if err := flush(); err != nil {
				return err
			}
		}
		if big {
			if err := f.file(ds, e); err != nil {
				return err
			}
			continue
		}
		se := slabEntry{Entry: e, start: used}
		if e.Kind == dag.KindFile {
			used += int(e.Size) + 1 // one more, so that growth shows
		}
		sl.entries = append(sl.entries, se)
	}
	sl.last = true
	return f.send(sl)
}

// file streams one large file of a tree.
func (f *feeder) file(ds *dataset, e *fstree.Entry) error {
	r, err := ds.src.Open(e)
	if err != nil {
		return ds.src.Skip(e.Path, err)
	}
	defer r.Close()
	return f.stream(ds, r, e, false)
}

// stream cuts a reader into slabs. What is left behind the last cut of a slab opens
// the next one, so that cuts do not depend on slabs.
func (f *feeder) stream(ds *dataset, r io.Reader, e *fstree.Entry, last bool) error {
	sl, err := f.slab(ds)
	if err != nil {
		return err
	}
	kept := 0
	for {
		n, err := io.ReadFull(r, sl.buf[kept:])
		final := err != nil
		sl.stream = true
		if final {
			sl.entry, sl.last = e, last
			if err != io.EOF && err != io.ErrUnexpectedEOF {
				sl.readErr = err
			}
		}
		sl.n = sl.split(0, kept+n, final)
		if final {
			return f.send(sl)
		}
		next, err := f.slab(ds)
		if err != nil {
			return err
		}
		kept = copy(next.buf, sl.buf[sl.n:])
		if err := f.send(sl); err != nil {
			return err
		}
		sl = next
	}
}
