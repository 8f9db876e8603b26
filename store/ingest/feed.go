package ingest

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

// A feeder turns an input into slabs, in order.
type feeder struct {
	r     *run
	sl    *slab // being filled, nil when it was sent
	used  int   // bytes of its buffer
	names int   // bytes of its paths and targets
	limit int   // of used
}

func (r *run) newFeeder() *feeder {
	// A slab takes at least two chunks, so that one of them is cut off.
	return &feeder{r: r, limit: max(slabSize, 2*r.in.Profile.Splitter().Max())}
}

// feed reads the input to its end. What was read before an error is sent.
func (f *feeder) feed() error {
	var err error
	switch {
	case f.r.in.Reader != nil:
		f.r.kind = dag.KindFile
		err = f.body(f.r.in.Reader, &fstree.Entry{Kind: dag.KindFile, Attr: dag.Attr{Mode: dag.DefaultFileMode}})
	case f.r.in.Source != nil:
		err = f.source()
	default:
		err = f.tree()
	}
	if err == nil {
		f.need()
		f.sl.last = true
		return f.flush()
	}
	if f.sl != nil {
		f.r.sendRest(f.sl)
	}
	return err
}

// need makes sure that there is a slab to fill.
func (f *feeder) need() {
	if f.sl == nil {
		f.sl, f.used, f.names = f.r.p.slab(), 0, 0
	}
}

// add adds an item, whose bytes, if any, begin at f.used.
func (f *feeder) add(it item) *item {
	f.need()
	it.start = f.used
	f.names += len(it.entry.Path) + len(it.entry.Target)
	f.sl.items = append(f.sl.items, it)
	return f.item()
}

// item is the last one of the slab.
func (f *feeder) item() *item { return &f.sl.items[len(f.sl.items)-1] }

// flush sends the slab, if there is one.
func (f *feeder) flush() error {
	sl := f.sl
	f.sl = nil
	if sl == nil {
		return nil
	}
	return f.r.send(sl)
}

// tree reads a tree on disk. Its small files are left to the workers.
func (f *feeder) tree() error {
	in, r := f.r.in, f.r
	var err error
	r.src, err = fstree.Open(in.Path, fstree.Options{
		Times: in.Times, Exclude: in.Exclude, SkipUnreadable: in.SkipUnreadable, Skipped: r.skipped,
		Sort: in.Sort,
	})
	if err != nil {
		return err
	}
	first := true
	for e, err := range r.src.Walk(r.ctx) {
		if err != nil {
			return err
		}
		if first {
			r.kind, first = e.Kind, false
		}
		past := e.Kind == dag.KindFile && in.Files.Find(e.Path, e.Stamp)
		big := e.Kind == dag.KindFile && e.Size > smallFile
		if big || f.full() || f.used+int(e.Size)+1 > f.limit {
			if err := f.flush(); err != nil {
				return err
			}
		}
		if big {
			read := f.file
			if past {
				read = f.past
			}
			if err := read(e); err != nil {
				return err
			}
			continue
		}
		it := f.add(item{entry: e, begins: true, ends: true})
		if e.Kind == dag.KindFile {
			it.from = fromDisk
			if past && f.recall(it, e.Size) == 0 {
				it.from = fromPast
			}
			f.used += int(e.Size) + 1 // one more, so that growth shows
			f.sl.room = f.used
		}
	}
	return nil
}

// full says whether a slab should take no more entries.
func (f *feeder) full() bool {
	return f.sl != nil && (len(f.sl.items) >= slabEntries || f.names >= slabNames || len(f.sl.refs) >= slabRefs)
}

// file streams one large file of a tree on disk.
func (f *feeder) file(e *fstree.Entry) error {
	r, err := f.r.src.Open(e)
	if err != nil {
		return f.r.src.Skip(e.Path, err)
	}
	defer r.Close()
	if err := f.body(r, e); err != nil {
		return err
	}
	return f.flush()
}

// past takes a large file that did not change, whose row was found. If one of its chunks
// turns out not to be stored, or the row is not sound, the file is read.
func (f *feeder) past(e *fstree.Entry) error {
	it := f.add(item{entry: e, from: fromKnown, begins: true})
	for left := e.Size; left > 0; {
		if f.full() {
			if err := f.flush(); err != nil {
				return err
			}
			it = f.add(item{entry: e, from: fromKnown})
		}
		if left = f.recall(it, left); left < 0 {
			break
		}
		known, err := f.sl.stored(f.r.ctx, f.r, f.sl.refs)
		if err != nil {
			return fmt.Errorf("look up chunks: %w", err)
		}
		if slices.Contains(known, false) {
			break
		}
		it.ends = left == 0
	}
	if it.ends {
		return f.flush()
	}
	f.sl.refs, it.refs = f.sl.refs[:0], 0
	it.ends, it.again = true, true
	if err := f.flush(); err != nil {
		return err
	}
	again := *e // the assembler may not be done with e
	return f.file(&again)
}

// recall adds chunks of the file whose row was found to the slab and the item, as many
// as the slab takes, and returns how many of left bytes are left then: -1 if the row is
// not sound.
func (f *feeder) recall(it *item, left int64) int64 {
	split := f.r.in.Profile.Splitter()
	for left > 0 && len(f.sl.refs) < slabRefs {
		d, size, ok := f.r.in.Files.Chunk()
		if !ok || int64(size) > int64(split.Max()) || int64(size) < int64(split.Min()) && int64(size) < left {
			f.sl.refs, it.refs = f.sl.refs[:len(f.sl.refs)-it.refs], 0
			return -1
		}
		f.sl.refs = append(f.sl.refs, Chunk{Digest: d, Size: size})
		it.refs++
		left -= int64(size)
	}
	return left
}

// body reads the bytes of a file into this slab and the ones behind it. What is left
// behind the last cut of a full slab opens the next one, so that cuts do not depend
// on slabs.
func (f *feeder) body(r io.Reader, e *fstree.Entry) error {
	f.add(item{entry: e, from: fromBytes, begins: true})
	for {
		err := f.fill(r)
		if err == nil {
			if err = f.next(); err == nil {
				continue
			}
			return err
		}
		it := f.item()
		it.ends, it.end = true, f.used
		if err == io.EOF {
			return nil
		}
		// The last bytes are no whole chunk; the chunks before them are kept.
		f.used = f.cut()
		if f.r.src != nil {
			it.err = err // it may be left out
			return nil
		}
		it.ends = false
		return err
	}
}

// fill reads until the slab is full, and then returns nil.
func (f *feeder) fill(r io.Reader) error {
	for idle := 0; ; {
		if err := f.r.ctx.Err(); err != nil {
			return context.Cause(f.r.ctx)
		}
		if !f.room() {
			return nil
		}
		n, err := r.Read(f.sl.buf.b[f.used:min(len(f.sl.buf.b), f.limit)])
		if f.used += n; err != nil {
			return err
		}
		if idle++; n > 0 {
			idle = 0
		} else if idle == 100 {
			return io.ErrNoProgress
		}
	}
}

// room sees to it that the buffer takes more bytes, and says whether it does.
func (f *feeder) room() bool {
	if f.used == f.limit {
		return false
	}
	old := f.sl.buf
	if old == nil || f.used == len(old.b) {
		f.sl.buf = f.r.p.buffer(f.size())
		if old != nil {
			copy(f.sl.buf.b, old.b[:f.used])
			f.r.p.giveBuffer(old)
		}
	}
	return true
}

// size is that of the next buffer. A dataset that has filled a slab will fill more.
func (f *feeder) size() int {
	if f.r.began {
		return f.limit
	}
	for _, size := range classes {
		if size > f.used {
			return size
		}
	}
	return f.limit
}

// cut finds the whole chunks of the last item, which goes on, and returns where they
// end.
func (f *feeder) cut() int {
	it := f.item()
	it.from, f.sl.ends = fromPart, f.sl.ends[:0]
	if f.used > it.start {
		f.sl.ends = f.r.in.Profile.Splitter().Split(f.sl.ends, f.sl.buf.b[it.start:f.used], false)
	}
	it.end = it.start
	if n := len(f.sl.ends); n > 0 {
		it.end += f.sl.ends[n-1]
	}
	return it.end
}

// next sends a slab that is full in the middle of a file and goes on in another.
func (f *feeder) next() error {
	sl, end := f.sl, f.cut()
	it := *f.item()
	if it.end > it.start {
		it.begins = false
	} else {
		sl.items = sl.items[:len(sl.items)-1] // all of it moves
	}
	// From here on the slab is one of those in circulation, and the dataset's own
	// is the next one.
	if err := f.r.acquire(); err != nil {
		return err
	}
	rest := sl.buf.b[end:f.used]
	f.sl = nil
	f.add(item{entry: it.entry, from: fromBytes, begins: it.begins})
	f.sl.buf = f.r.p.buffer(f.limit)
	f.item().start = 0
	f.used = copy(f.sl.buf.b, rest)
	f.r.dispatch(sl)
	return nil
}

// source reads a dataset that comes piece by piece.
func (f *feeder) source() error {
	for first := true; ; first = false {
		if err := f.r.ctx.Err(); err != nil {
			return context.Cause(f.r.ctx)
		}
		e, err := f.r.in.Source.Next(f.r.ctx)
		if err == io.EOF && !first {
			return nil
		}
		if err == io.EOF {
			return fmt.Errorf("a source without entries: %w", ErrInvalid)
		}
		if err != nil {
			return err
		}
		if err := f.check(e, first); err != nil {
			return err
		}
		if first {
			f.r.kind = e.Kind
		}
		if f.full() {
			if err := f.flush(); err != nil {
				return err
			}
		}
		if err := f.entry(e); err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
	}
}

// check refuses what the builders would not see.
func (f *feeder) check(e *SourceEntry, first bool) error {
	bad := func(what string) error {
		return fmt.Errorf("entry %.300q: %s: %w", e.Path, what, ErrInvalid)
	}
	switch {
	case len(e.Path) > dag.MaxPath || len(e.Target) > dag.MaxTarget:
		return bad("its path or its target is too long")
	case first && (e.Path != "" || e.Kind != dag.KindDir && e.Kind != dag.KindFile):
		return bad("the first entry must be the root, a directory or a file")
	case !first && f.r.kind != dag.KindDir:
		return bad("a dataset that is a file has one entry")
	case e.Kind != dag.KindFile && e.Kind != dag.KindDir && e.Kind != dag.KindLink:
		return bad("it is neither file nor directory nor link")
	case e.Kind != dag.KindFile && (e.Body != nil || e.Chunks != nil):
		return bad("only files have bytes")
	case e.Body != nil && e.Chunks != nil:
		return bad("its bytes are given twice")
	case e.Kind != dag.KindLink && e.Target != "":
		return bad("only links have targets")
	}
	return nil
}

func (f *feeder) entry(e *SourceEntry) error {
	fe := &fstree.Entry{Path: e.Path, Kind: e.Kind, Attr: e.Attr, Target: e.Target}
	if !f.r.in.Times {
		fe.Attr.Mtime = dag.Attr{}.Mtime
	}
	switch {
	case e.Body != nil:
		return f.body(e.Body, fe)
	case e.Chunks != nil:
		return f.chunks(e, fe)
	}
	f.add(item{entry: fe, begins: true, ends: true})
	return nil
}

// chunks takes a file that is given by digests.
func (f *feeder) chunks(e *SourceEntry, fe *fstree.Entry) error {
	split := f.r.in.Profile.Splitter()
	it, short := f.add(item{entry: fe, from: fromRefs, begins: true}), false
	for c, err := range e.Chunks {
		if err != nil {
			return err
		}
		if c.Size == 0 || int64(c.Size) > int64(split.Max()) || short {
			return fmt.Errorf("a chunk of %d bytes: chunks have %d to %d bytes, the last one of a file may have less: %w",
				c.Size, split.Min(), split.Max(), ErrInvalid)
		}
		short = int64(c.Size) < int64(split.Min())
		if len(f.sl.refs) >= slabRefs {
			if err := f.flush(); err != nil {
				return err
			}
			it = f.add(item{entry: fe, from: fromRefs})
		}
		f.sl.refs = append(f.sl.refs, c)
		it.refs++
	}
	it.ends = true
	return nil
}
