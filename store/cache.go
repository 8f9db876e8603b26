package store

import (
	"container/list"
	"context"
	"math/bits"
	"slices"
	"sync"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store/pack"
)

// A frameCache holds the plain bytes of frames: of those that are in use, and of those
// used lately, the least recently used going first. It lends the memory for reading and
// decoding too and takes it back, because fresh memory costs as much as decoding into it.
type frameCache struct {
	mu    sync.Mutex
	max   int64 // what size should not exceed, and does while more is in use; lend raises it
	size  int64 // bytes of all buffers: lent, of frames, free
	byLoc map[pack.Loc]*cachedFrame
	idle  *list.List                 // of *cachedFrame that nobody uses, newest first
	free  [][]byte                   // the one to take first comes last
	busy  map[pack.Loc]chan struct{} // frames being decoded, closed when they are
}

// A cachedFrame is a frame whose first len(plain) bytes are decoded. They are shared and
// must not be written.
type cachedFrame struct {
	loc   pack.Loc
	plain []byte
	buf   []byte // what plain lies in, from buffer

	// Guarded by frameCache.mu.
	users int
	keep  bool          // somebody expects it to be wanted again
	idle  *list.Element // while nobody uses it
}

func newFrameCache(max int64) *frameCache {
	return &frameCache{max: max, byLoc: map[pack.Loc]*cachedFrame{}, idle: list.New(), busy: map[pack.Loc]chan struct{}{}}
}

// take returns the frame if its first n plain bytes are there, to be given back by release.
// If not, the caller is to decode the frame and must then call done; whoever wants the same
// frame waits for that. known says that the frame is there, but not that much of it.
func (c *frameCache) take(ctx context.Context, loc pack.Loc, n int) (f *cachedFrame, known bool, err error) {
	for {
		c.mu.Lock()
		f := c.byLoc[loc]
		if f != nil && len(f.plain) >= n {
			if f.users++; f.idle != nil {
				c.idle.Remove(f.idle)
				f.idle = nil
			}
			c.mu.Unlock()
			return f, true, nil
		}
		wait, ok := c.busy[loc]
		if !ok {
			c.busy[loc] = make(chan struct{})
			c.mu.Unlock()
			return nil, f != nil, nil
		}
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// done ends what take began.
func (c *frameCache) done(loc pack.Loc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.busy[loc])
	delete(c.busy, loc)
}

// add puts in a frame, which the caller uses and is to release. It takes the place of a
// shorter prefix.
func (c *frameCache) add(f *cachedFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.users = 1
	old := c.byLoc[f.loc]
	c.byLoc[f.loc] = f
	if old != nil && old.users == 0 {
		c.idle.Remove(old.idle)
		c.reuse(old.buf)
	}
}

// release ends a use of f. keep says that the frame is likely to be wanted again.
func (c *frameCache) release(f *cachedFrame, keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.keep = f.keep || keep
	if f.users--; f.users > 0 {
		return
	}
	switch {
	case c.byLoc[f.loc] != f:
		c.reuse(f.buf)
	case f.keep:
		f.idle = c.idle.PushFront(f)
		c.trim(0)
	default:
		delete(c.byLoc, f.loc)
		c.reuse(f.buf)
	}
}

// buffer lends n bytes at least, which hold anything.
func (c *frameCache) buffer(n int) []byte {
	class := bufferClass(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, b := range slices.Backward(c.free) {
		if len(b) == class {
			c.free = slices.Delete(c.free, i, i+1)
			return b
		}
	}
	if c.size+int64(class) > c.max {
		// Of the frames to go next, one whose buffer fits.
		e := c.idle.Back()
		for tries := 0; e != nil && tries < 16; tries++ {
			if f := e.Value.(*cachedFrame); len(f.buf) == class {
				c.idle.Remove(e)
				delete(c.byLoc, f.loc)
				return f.buf
			}
			e = e.Prev()
		}
	}
	c.trim(class)
	c.size += int64(class)
	return make([]byte, class)
}

// bufferClass rounds up to a power of two and a sixteenth, so that there are few sizes, and
// those of a frame with its header and of its plain bytes are mostly the same.
func bufferClass(n int) int {
	class := 4 << 10
	if n > class+class/16 {
		class = 1 << bits.Len(uint(n-1))
		if half := class / 2; n <= half+half/16 {
			class = half
		}
	}
	return class + class/16
}

// give takes back what buffer lent.
func (c *frameCache) give(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reuse(b)
}

// lend lends n buffers of compress.MaxPlain, for which max grows: whoever reads much must not
// drive out what is kept for the others.
func (c *frameCache) lend(n int) [][]byte {
	c.mu.Lock()
	c.max += int64(n * bufferClass(compress.MaxPlain))
	c.mu.Unlock()
	b := make([][]byte, n)
	for i := range b {
		b[i] = c.buffer(compress.MaxPlain)
	}
	return b
}

// takeBack takes back what lend lent.
func (c *frameCache) takeBack(lent [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, lent...)
	c.max -= int64(len(lent) * bufferClass(compress.MaxPlain))
	c.trim(0)
}

// reuse makes a buffer free. The caller holds mu.
func (c *frameCache) reuse(b []byte) {
	c.free = append(c.free, b)
	c.trim(0)
}

// trim makes room for n bytes more, if that can be done. The caller holds mu.
func (c *frameCache) trim(n int) {
	for c.size+int64(n) > c.max && len(c.free) > 0 {
		c.size -= int64(len(c.free[0]))
		c.free = slices.Delete(c.free, 0, 1)
	}
	for c.size+int64(n) > c.max && c.idle.Len() > 0 {
		f := c.idle.Remove(c.idle.Back()).(*cachedFrame)
		delete(c.byLoc, f.loc)
		c.size -= int64(len(f.buf))
	}
}
