package check

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// workers decode and hash.
const workers = 2

func openPack(dir string, n uint32) (*packFile, error) {
	f, err := os.Open(filepath.Join(dir, pack.Name(n)))
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &packFile{ReaderAt: f, Closer: f, number: n, end: fi.Size()}, nil
}

// readPacks goes through the packs in order: one goroutine finds the frames by
// their headers, the others look at each.
func (c *checker) readPacks(ctx context.Context, dir string, numbers []uint32, last tail) error {
	w := &packWalk{checker: c, free: make(chan *frame, 2*workers), work: make(chan *frame, 2*workers)}
	for range cap(w.free) {
		w.free <- new(frame)
	}
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, n := range numbers {
		if fi, err := os.Stat(filepath.Join(dir, pack.Name(n))); err == nil && n <= last.pack {
			size := fi.Size()
			if n == last.pack {
				size = min(size, int64(last.end))
			}
			w.total += uint64(size)
		}
	}
	for range workers {
		g.Go(func() error {
			var b buffers
			// After an error the frames are still taken, so that nobody waits for ever.
			for f := range w.work {
				if ctx.Err() == nil {
					if err := c.checkFrame(ctx, f, &b); err != nil {
						stop(err)
					}
				}
				f.file.users.Done()
				w.free <- f
			}
			return context.Cause(ctx)
		})
	}
	g.Go(func() error {
		defer close(w.work)
		for _, n := range numbers {
			if err := w.pack(ctx, dir, n, last); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// A packWalk finds the frames of packs.
type packWalk struct {
	*checker
	free  chan *frame
	work  chan *frame // neither channel ever blocks a worker: each holds all frames
	done  uint64      // bytes, of
	total uint64
	buf   []byte
}

func (w *packWalk) pack(ctx context.Context, dir string, n uint32, last tail) error {
	if n > last.pack {
		w.addStretch(n, stretch{to: math.MaxInt64, why: "it is behind the durable end of the packs", quiet: true})
		if w.opt.Live != nil {
			return nil // it is being written
		}
		w.notef("tail", "", "pack %d is behind the durable end (%v): a put was broken off, the next one removes it", n, last)
		return nil
	}
	p, err := openPack(dir, n)
	if err != nil {
		w.addStretch(n, stretch{to: math.MaxInt64, why: err.Error()})
		return nil
	}
	defer p.Close()
	defer p.users.Wait()
	beyond := stretch{from: p.end, to: math.MaxInt64, why: "the file ends before", quiet: true}
	if n == last.pack {
		switch end := int64(last.end); {
		case p.end < end:
			w.errorf("tail", "bring the pack back from a backup", "pack %d has %d bytes, the durable end is %v: bytes were lost", n, p.end, last)
		case p.end > end:
			if w.opt.Live == nil {
				w.notef("tail", "", "pack %d has %d bytes behind the durable end: a put was broken off, the next one cuts them off", n, p.end-end)
			}
			p.end = end
			beyond.from, beyond.why = end, "it is behind the durable end of the packs"
		}
	}
	w.addStretch(n, beyond)
	if err := p.checkStart(); err != nil {
		w.warnf("packs", "nothing is lost by this alone; put goes on in a new pack", "pack %d: %v", n, err)
	}
	if err := w.frames(ctx, p); err != nil {
		return err
	}
	w.done += uint64(p.end)
	return nil
}

func (w *packWalk) frames(ctx context.Context, p *packFile) error {
	for off := int64(packHeader); off < p.end; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		f := <-w.free
		var err error
		w.buf, err = p.readHeader(f, off, w.buf)
		if err == nil && off+f.length() > p.end {
			err = damage("the frame is cut short")
		}
		if err == nil {
			off += f.length()
			p.users.Add(1)
			w.work <- f
			w.progress("packs", w.done+uint64(off), w.total)
			continue
		}
		w.free <- f
		next := p.end
		if isDamage(err) {
			// What cannot be read at all is not searched: the disk would be asked for ever.
			if n, serr := p.search(off + 1); serr == nil {
				next = n
			}
		}
		w.addStretch(p.number, stretch{from: off, to: next, why: err.Error()})
		off = next
	}
	return nil
}

// checkFrame compares a frame's chunks with their index rows, and their bytes
// with their names if that was asked for.
func (c *checker) checkFrame(ctx context.Context, f *frame, b *buffers) error {
	var bad []hash
	if c.opt.ReadData {
		var err error
		if bad, err = f.open(c.opener, b); err != nil {
			c.addStretch(f.file.number, stretch{from: f.off, to: f.off + f.length(), why: err.Error()})
			return nil
		}
	}
	all := tally{uint64(len(f.chunks)), uint64(f.plain), uint64(f.length())}
	var used tally
	here := chunkRow{pack: f.file.number, off: uint64(f.off), length: uint32(f.length())}
	for _, ch := range f.chunks {
		here.size = ch.size
		ok, err := c.pointsAt(ctx, ch.digest, here, b)
		if err != nil {
			return err
		}
		if ok {
			used.add(tally{1, uint64(ch.size), 0})
			if slices.Contains(bad, ch.digest) {
				c.addBad(ch.digest, chunkDamaged)
			}
		}
		here.start += ch.size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Frames++
	c.packs.frames.add(all)
	c.packs.confirmed += used.chunks
	c.packs.garbage.add(tally{all.chunks - used.chunks, all.plain - used.plain, 0})
	if c.opt.ReadData {
		c.sum.Read += all.plain
	}
	return nil
}

// pointsAt says whether a chunk's row points exactly here.
func (c *checker) pointsAt(ctx context.Context, digest hash, here chunkRow, b *buffers) (bool, error) {
	if c.db == nil {
		return false, nil
	}
	b.key = append(append(b.key[:0], 'b'), digest[:]...)
	v, err := c.db.Get(ctx, b.key, b.row[:0])
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, c.rowError(ctx, err)
	}
	b.row = v
	r, ok := parseChunkRow(v)
	return ok && r == here, nil
}

// headers looks up single frame headers.
type headers struct {
	dir  string
	last tail
	open map[uint32]*packFile
	f    frame
	buf  []byte
}

// has says whether the frame that a row points at lists that chunk there.
func (h *headers) has(digest hash, r chunkRow) bool {
	p, ok := h.open[r.pack]
	if !ok {
		if len(h.open) > 64 {
			h.close()
		}
		if h.open == nil {
			h.open = map[uint32]*packFile{}
		}
		p, _ = openPack(h.dir, r.pack)
		h.open[r.pack] = p
	}
	if p == nil || r.pack > h.last.pack {
		return false
	}
	var err error
	h.buf, err = p.readHeader(&h.f, int64(r.off), h.buf)
	if err != nil || h.f.length() != int64(r.length) {
		return false
	}
	at := uint32(0)
	for _, c := range h.f.chunks {
		if at == r.start && c.size == r.size && c.digest == digest {
			return true
		}
		at += c.size
	}
	return false
}

func (h *headers) close() {
	for _, p := range h.open {
		if p != nil {
			p.Close()
		}
	}
	h.open = nil
}
