package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

// binRows is when a bin is cut for its DAG nodes and commitment rows, in bytes.
const binRows = 512 << 10

// A writer takes the new chunks and rows of all puts under way. It gathers chunks in
// frames, has them sealed and appended to the packs in order, and makes everything
// durable in flushes: one sync of the packs, then the index rows, then what points at
// them. A put that has handed in everything waits for its flush; those that come
// while one is under way share the next.
//
//	deposits ──> bins ──> frames sealed ──> packs ──┐
//	               └────> rows ─────────────────────┴─> flush: sync, commit
//
// Nothing in here waits for a put, so a put that stalls holds up nobody.
type writer struct {
	s      *Store
	frames *ingest.Frames

	// fill is held while frames in bins are filled, or bins cut. It is locked before mu.
	// Nobody who holds up a frame may wait for it.
	fill sync.Mutex
	bins [2]*bin // by kind; the pointers are written under both locks

	mu     sync.Mutex // guards what follows, and what types below say it does
	next   *flush     // gathers
	now    *flush     // under way, or nil
	held   bool       // until those whom the last flush has set free are committed, see turn
	chunks map[dag.Digest]pending
	rows   map[[32]byte]*bin // DAG nodes and commitment rows on their way
	recent []ended           // flushes whose chunks are in the map still, the oldest first
}

// Small datasets that come at once are gathered apart from larger ones, so that those
// who wait for them cut no frames of the others short.
const (
	small = 0
	bulk  = 1
)

// A pending chunk is on its way to the packs, or has just arrived there.
type pending struct {
	size uint32
	bin  *bin
}

// A bin is a frame that is being filled, and rows that must not be committed before it
// is durable.
type bin struct {
	kind   int
	frame  *ingest.Frame // guarded by fill; nil before the first chunk
	shares []share       // guarded by fill

	// Guarded by writer.mu until the bin is cut.
	rows     batches
	names    [][32]byte // of the rows
	deposits []*deposit // that depend on it
	wanted   bool       // to be cut with the next flush, full or not
	flush    *flush     // that the bin is part of; nil before it is cut
}

// A share is the part of a frame that belongs to one dataset of a put.
type share struct {
	into  *tally
	plain uint64
}

func (s *Store) newWriter() (*writer, error) {
	frames, err := ingest.NewFrames(ingest.FrameOptions{
		Size: s.opt.FrameSize, Seal: compress.SealOptions{Level: s.opt.Level, Check: s.opt.CheckFrames},
	})
	if err != nil {
		return nil, err
	}
	w := &writer{s: s, frames: frames, next: newFlush(0)}
	w.reset()
	return w, nil
}

// reset forgets what has not begun to become durable. Under both locks.
func (w *writer) reset() {
	for i, b := range w.bins {
		if b != nil && b.frame != nil {
			w.frames.Give(b.frame)
		}
		w.bins[i] = &bin{kind: i}
	}
	w.chunks, w.rows, w.recent = make(map[dag.Digest]pending), make(map[[32]byte]*bin), nil
	w.next = newFlush(w.next.n + 1)
}

// admit waits while there is enough to flush already.
func (w *writer) admit(ctx context.Context, d *deposit) error {
	for {
		w.mu.Lock()
		now, full, err := w.now, w.next.full(), d.err
		w.mu.Unlock()
		if err != nil || now == nil || !full {
			return err
		}
		select {
		case <-now.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// cut makes a bin part of the next flush and begins another one. Under both locks.
func (w *writer) cut(b *bin) {
	if seal := w.cutUnsealed(b); seal != nil {
		go seal()
	}
}

// cutUnsealed cuts a bin and returns what is left to do for its frame, if it has one: the
// frames that are cut later wait for that.
func (w *writer) cutUnsealed(b *bin) (seal func()) {
	f, frame := w.next, b.frame
	if frame == nil && len(b.rows) == 0 {
		return nil
	}
	b.flush, b.frame = f, nil
	f.bins = append(f.bins, b)
	for _, d := range b.deposits {
		d.follow(f)
	}
	b.deposits = nil
	f.rowBytes += b.rows.bytes()
	w.bins[b.kind] = &bin{kind: b.kind}
	if frame == nil {
		return nil
	}
	f.plain += frame.Size()
	f.count += len(frame.Chunks())
	f.frames.Add(1)
	return w.frames.Reserve(frame, func(f pack.Frame, err error) { w.append(b, f, err) })
}

// cutRows cuts a bin for its rows, unless somebody has done so.
func (w *writer) cutRows(b *bin) {
	w.fill.Lock()
	defer w.fill.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if b == w.bins[b.kind] {
		w.cut(b)
		w.turn()
	}
}

// append puts a sealed frame behind the ones before it. One call at a time.
func (w *writer) append(b *bin, fr pack.Frame, err error) {
	f := b.flush
	defer f.frames.Done()
	w.mu.Lock()
	failed := f.err != nil
	w.mu.Unlock()
	if failed {
		return
	}
	var loc pack.Loc
	if err == nil {
		loc, err = w.s.appendFrame(fr)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if f.err == nil {
			f.err = err
		}
		// Those who still add to it should know soon.
		f.wanted = true
		go w.kick()
		return
	}
	start := uint32(0)
	for _, c := range fr.Chunks {
		f.add(c.Digest, chunkRow{Loc: loc, Start: start, Size: c.Size})
		start += c.Size
	}
	f.total.add(tally{Chunks: uint64(len(fr.Chunks)), Plain: uint64(fr.PlainSize), Packed: uint64(loc.Len)})
	// Datasets that share a frame share its cost by their plain bytes.
	left := uint64(loc.Len)
	for i, sh := range b.shares {
		part := uint64(loc.Len) * sh.plain / uint64(fr.PlainSize)
		if i == len(b.shares)-1 {
			part = left
		}
		sh.into.Packed += part
		left -= part
	}
	b.shares = nil
}

// appendFrame writes a frame to the packs.
func (s *Store) appendFrame(f pack.Frame) (pack.Loc, error) {
	if err := s.checkSpace(int64(len(f.Sealed))); err != nil {
		return pack.Loc{}, err
	}
	// The frame is that of many puts, so none of them can call it off.
	loc, err := s.packs.Append(context.Background(), f)
	if errors.Is(err, pack.ErrNoSpace) {
		return loc, fmt.Errorf("append frame: %w", storeError(err))
	}
	if err != nil {
		return loc, s.stop(err)
	}
	return loc, nil
}

// kick begins the next flush if it is due.
func (w *writer) kick() {
	w.fill.Lock()
	defer w.fill.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn()
}

// release lets the flush begin that was held back for a commit.
func (w *writer) release() {
	w.mu.Lock()
	held := w.held
	w.held = false
	w.mu.Unlock()
	if held {
		w.kick()
	}
}

// turn begins the next flush if it is due and none is under way. Under both locks.
//
// Unless it is full, a flush is held back until those whom the one before has set free are
// committed: both take turns with the disk. Side by side they would each take as long as
// both together, and be for half as many.
//
// Rows in one bin may name chunks in the other, so those must not stay behind. Small
// chunks never do, and who depends on an open bulk bin puts rows there.
func (w *writer) turn() {
	f := w.next
	if w.now != nil || (!f.wanted || w.held) && !f.full() {
		return
	}
	// Sealed by who runs the flush: to hand a frame of small datasets on and back again takes
	// longer than that where many others want the processors.
	seal := w.cutUnsealed(w.bins[small])
	if w.bins[bulk].wanted {
		w.cut(w.bins[bulk])
	}
	w.now, w.next = f, newFlush(f.n+1)
	go func() {
		if seal != nil {
			seal()
		}
		w.run(f)
	}()
}

// drain waits until all that was handed in is durable or has failed.
func (w *writer) drain() {
	for {
		w.mu.Lock()
		wait := w.now
		if len(w.next.deposits)+len(w.bins[small].deposits)+len(w.bins[bulk].deposits) > 0 {
			w.next.wanted, w.bins[bulk].wanted = true, true
			wait = w.next
		}
		w.mu.Unlock()
		if wait == nil {
			return
		}
		w.kick()
		<-wait.done
	}
}
