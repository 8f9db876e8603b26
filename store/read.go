package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"math"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// readOptions are what differs between those who read.
type readOptions struct {
	// Join gives the bytes of chunks that follow one another in a frame at once, with the
	// step of the first. The others are not visited.
	Join bool
}

// A reader carries out steps: one goroutine plans, some decode and verify frames, and one
// visits.
type reader struct {
	s     *Store
	opt   readOptions
	visit func(o *op, data []byte) error

	g       *errgroup.Group
	started bool
	at      locator             // of the goroutine that plans
	failed  error               // why planning ended; for after what was planned
	batch   int                 // what a batch may weigh
	budget  *semaphore.Weighted // of what all that are under way may weigh, twice that
	wide    widening
	batches [batchesAhead]batch
	free    chan *batch
	order   chan *batch
	loads   chan loadOf
}

// batchesAhead is how many batches there are: one is visited while the next is decoded and
// one more is planned.
const batchesAhead = 3

// A loadOf is a load for a goroutine to do.
type loadOf struct {
	b *batch
	l *load
}

// read carries out the steps in order. Frames are read and decoded ahead on
// several goroutines; every chunk has been checked against its digest before visit
// sees its bytes.
func (s *Store) read(ctx context.Context, ops iter.Seq2[op, error], opt readOptions, visit func(o *op, data []byte) error) error {
	workers := min(runtime.GOMAXPROCS(0), 8)
	r := &reader{s: s, opt: opt, visit: visit, at: locator{s: s}, batch: (workers + 1) * compress.MaxPlain}
	r.budget = semaphore.NewWeighted(2 * int64(r.batch))
	most, _ := s.opt.wideShares()
	r.wide.room = semaphore.NewWeighted(int64(most))
	r.free, r.order = make(chan *batch, batchesAhead), make(chan *batch, batchesAhead)
	r.loads = make(chan loadOf, workers)
	for i := range r.batches {
		r.free <- &r.batches[i]
	}
	var gctx context.Context
	r.g, gctx = errgroup.WithContext(ctx)
	r.g.Go(func() error {
		defer close(r.order)
		defer close(r.loads)
		return r.plan(gctx, ops, workers)
	})
	err := r.g.Wait()
	if err == nil {
		err = r.failed
	}
	for i := range r.batches { // what was not visited, after an error
		b := &r.batches[i]
		for j := range b.loads {
			if l := &b.loads[j]; l.frame != nil {
				s.frames.release(l.frame, false)
			}
		}
		r.narrow(b)
	}
	return err
}

// plan looks up where each chunk is and cuts the steps into batches.
func (r *reader) plan(ctx context.Context, ops iter.Seq2[op, error], workers int) error {
	b := <-r.free
	for o, err := range ops {
		if err == nil && o.kind == opData && o.row.Size == 0 {
			var at located
			at, err = r.at.find(ctx, o.ref)
			o.row, o.guess = at.chunkRow, at.guess
		}
		if err != nil {
			r.failed = err
			break
		}
		if b.full(&o, r.batch) && (!r.widen(b) || b.full(&o, r.batch)) {
			r.follow(b)
			b.expect(&o, 2*r.batch)
			if !r.started {
				r.start(ctx, workers)
			}
			if err := r.send(ctx, b); err != nil {
				return err
			}
			select {
			case b = <-r.free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		b.add(&o)
	}
	if r.started {
		return r.send(ctx, b)
	}
	if len(b.loads) > 1 {
		r.start(ctx, workers)
		return r.send(ctx, b)
	}
	// All of it lies in one frame: nothing can be done at the same time.
	for i := range b.loads {
		l := &b.loads[i]
		l.ready <- r.do(ctx, b, l)
	}
	return r.give(ctx, b)
}

// start starts the goroutines that load and visit.
func (r *reader) start(ctx context.Context, workers int) {
	r.started = true
	for range workers {
		r.g.Go(func() error {
			for w := range r.loads {
				w.l.ready <- r.do(ctx, w.b, w.l)
			}
			return nil
		})
	}
	r.g.Go(func() error {
		for b := range r.order {
			if err := r.give(ctx, b); err != nil {
				return err
			}
			r.narrow(b)
			b.reset()
			r.free <- b // has room for all
		}
		return nil
	})
}

// send hands a batch over. Its loads wait until those before them have been visited, but
// never for each other: a batch weighs less than the budget. What a wide batch takes is got
// before.
func (r *reader) send(ctx context.Context, b *batch) error {
	if err := r.makeRoom(ctx, b); err != nil {
		return err
	}
	r.order <- b // has room for all
	for i := range b.loads {
		l := &b.loads[i]
		if l.copied = b.wide(); !l.copied {
			l.held = min(int64(l.weight()), 2*int64(r.batch))
			if err := r.budget.Acquire(ctx, l.held); err != nil {
				return context.Cause(ctx)
			}
		}
		select {
		case r.loads <- loadOf{b, l}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// give visits the steps of a batch.
func (r *reader) give(ctx context.Context, b *batch) error {
	for i := 0; i < len(b.ops); {
		o := &b.ops[i]
		i++
		if o.kind != opData {
			if err := r.visit(o, nil); err != nil {
				return err
			}
			continue
		}
		l := &b.loads[o.load]
		if !l.seen {
			select {
			case l.err = <-l.ready:
				l.seen = true
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if l.err != nil && i > int(l.bad) {
			return l.err
		}
		size := o.row.Size
		l.left--
		for r.opt.Join && i < len(b.ops) && b.ops[i].load == o.load && b.adjoins(i) && (l.err == nil || i < int(l.bad)) {
			size += b.ops[i].row.Size
			l.left--
			i++
		}
		if err := r.visit(o, b.bytes(o, size)); err != nil {
			return err
		}
		if l.left == 0 && l.frame != nil {
			r.s.frames.release(l.frame, l.keep())
			l.frame = nil
			r.budget.Release(l.held)
		}
	}
	return nil
}

// do loads and verifies. After an error what comes before the step l.bad can be given.
func (r *reader) do(ctx context.Context, b *batch, l *load) error {
	l.bad = l.first
	f, err := r.s.load(ctx, l)
	if err == nil {
		l.bad, err = b.verify(l, f)
	}
	if err != nil && l.guess {
		var other *cachedFrame
		if other, err = r.regain(ctx, b, l, err); err == nil {
			if f != nil {
				r.s.frames.release(f, false)
			}
			f = other
		}
	}
	if f != nil && l.copied {
		b.copyOut(l, f)
		r.s.frames.release(f, l.keep())
	} else {
		l.frame = f
	}
	if tell := r.s.opt.Observer.Read; tell != nil && err == nil {
		tell(l.used)
	}
	return err
}

// regain brings together from elsewhere what was guessed to be in a frame that could not
// be read or holds something else: chunks that are damaged there and were given back since.
// If the index has nothing elsewhere, the error stays.
func (r *reader) regain(ctx context.Context, b *batch, l *load, cause error) (*cachedFrame, error) {
	if ctx.Err() != nil || l.need > compress.MaxPlain {
		return nil, cause
	}
	var rows []chunkRow
	moved := false
	for i := l.first; i >= 0; i = b.ops[i].next {
		o := &b.ops[i]
		row := o.row
		if o.guess {
			var err error
			if row, err = r.s.chunkRow(ctx, o.ref); err != nil {
				return nil, err
			}
		}
		if row.Size != o.row.Size {
			return nil, cause
		}
		moved = moved || row != o.row
		rows = append(rows, row)
	}
	if !moved {
		return nil, cause
	}
	buf := r.s.frames.buffer(l.need - l.from)
	f := &cachedFrame{loc: l.loc, plain: buf[:l.need-l.from], buf: buf, users: 1} // the cache has it not
	for i := l.first; i >= 0; i = b.ops[i].next {
		o := &b.ops[i]
		if err := r.fetch(ctx, o, rows[0], f.plain[int(o.row.Start)-l.from:][:o.row.Size]); err != nil {
			r.s.frames.release(f, false)
			return nil, err
		}
		rows = rows[1:]
	}
	l.start = l.from
	return f, nil
}

// fetch reads one chunk.
func (r *reader) fetch(ctx context.Context, o *op, row chunkRow, to []byte) error {
	b := batch{}
	one := *o
	one.row, one.guess = row, false
	b.add(&one)
	l := &b.loads[0]
	f, err := r.s.load(ctx, l)
	if err != nil {
		return err
	}
	defer r.s.frames.release(f, true)
	if _, err := b.verify(l, f); err != nil {
		return err
	}
	copy(to, f.plain[int(row.Start)-l.start:])
	return nil
}

// load brings a frame into memory.
func (s *Store) load(ctx context.Context, l *load) (*cachedFrame, error) {
	f, known, err := s.frames.take(ctx, l.loc, l.need)
	if err != nil {
		return nil, err
	}
	if tell := s.opt.Observer.Frame; tell != nil {
		tell(f != nil)
	}
	if f != nil {
		return f, nil
	}
	defer s.frames.done(l.loc)
	// A frame that was wanted before is likely to be wanted again, and then further on:
	// versions alternate between old frames and new.
	l.whole = l.whole || known
	f, err = s.loadFrame(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("frame at %d in pack %d: %w", l.loc.Off, l.loc.Pack, storeError(err))
	}
	return f, nil
}

func (s *Store) loadFrame(ctx context.Context, l *load) (*cachedFrame, error) {
	if l.loc.Len > pack.MaxFrame {
		return nil, fmt.Errorf("no frame has %d bytes: %w", l.loc.Len, ErrCorrupt)
	}
	buf := s.frames.buffer(int(l.loc.Len))
	f, part, err := s.readFrame(ctx, l, buf)
	if err == nil && l.need > int(f.PlainSize) {
		err = fmt.Errorf("it has %d bytes, the index wants %d: %w", f.PlainSize, l.need, ErrCorrupt)
	}
	if err != nil {
		s.frames.give(buf)
		return nil, err
	}
	if part {
		c := &cachedFrame{loc: l.loc, plain: f.Sealed, buf: buf, users: 1}
		if l.start = l.partFrom(); l.start == 0 {
			s.frames.add(c)
		}
		return c, nil
	}
	defer s.frames.give(buf)
	need := int(f.PlainSize)
	if !l.whole {
		need = min(need, (l.need+compress.Block-1)/compress.Block*compress.Block)
	}
	dst := s.frames.buffer(need)
	plain, err := s.opener.OpenPrefix(dst[:0], f.Codec, f.Sealed, int(f.PlainSize), need)
	if err != nil {
		s.frames.give(dst)
		return nil, err
	}
	c := &cachedFrame{loc: l.loc, plain: plain, buf: dst}
	s.frames.add(c)
	return c, nil
}

// readFrame reads a frame. Of one that is stored as it is only what is wanted is read, and
// the frame's checksum is not compared: it protects nothing that verify does not, which
// finds any change in the bytes that are given. A frame that is decoded is compared first.
func (s *Store) readFrame(ctx context.Context, l *load, buf []byte) (f pack.Frame, part bool, err error) {
	if int64(l.loc.Len) <= int64(l.need) { // it shrank
		f, _, err = s.packs.ReadFrame(ctx, l.loc, buf)
		return f, false, err
	}
	to := uint32(math.MaxUint32)
	if !l.all() {
		to = uint32(min(l.need, math.MaxUint32))
	}
	f, part, _, err = s.packs.ReadPart(ctx, l.loc, uint32(l.partFrom()), to, buf)
	return f, part, err
}

// verify checks every chunk that is wanted of f against its digest; once, if it is wanted
// several times in a row. With an error comes the step whose chunk is another.
func (b *batch) verify(l *load, f *cachedFrame) (bad int32, err error) {
	var checked *op
	for i := l.first; i >= 0; i = b.ops[i].next {
		o := &b.ops[i]
		if checked != nil && o.row == checked.row && o.ref.Digest == checked.ref.Digest {
			continue
		}
		checked = o
		at := int(o.row.Start) - l.start
		got := dag.Digest(sha256.Sum256(f.plain[at : at+int(o.row.Size)]))
		if got != o.ref.Digest {
			return i, &ChunkError{CID: dag.RawCID(o.ref.Digest).String(), Err: fmt.Errorf("stored bytes hash to %v: %w", dag.RawCID(got), ErrCorrupt)}
		}
	}
	return -1, nil
}
