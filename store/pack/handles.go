package pack

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// maxHandles bounds the packs that are kept open for reading.
const maxHandles = 64

// A handle is a pack open for reading.
type handle struct {
	f    *os.File
	refs int    // readers that use it, and the cache; guarded by handles.mu
	used uint64 // when it was last taken, in takes
}

// handles caches packs that are open for reading.
type handles struct {
	path func(uint32) string

	mu     sync.Mutex
	open   map[uint32]*handle // nil once closed
	takes  uint64
	closed bool
}

// get returns the handle of a pack, to be given back by put. A pack that is
// not there is lost data: ErrCorrupt.
//
// The pack's own header is not looked at: frames carry all that makes them
// valid, and a byte flipped in those 24 must not hide a whole pack.
func (c *handles) get(pack uint32) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	h := c.open[pack]
	if h == nil {
		f, err := os.Open(c.path(pack))
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		} else if err != nil {
			return nil, err
		}
		if len(c.open) >= maxHandles {
			c.evict()
		}
		if c.open == nil {
			c.open = make(map[uint32]*handle)
		}
		h = &handle{f: f, refs: 1}
		c.open[pack] = h
	}
	c.takes++
	h.used = c.takes
	h.refs++
	return h, nil
}

// put gives back a handle.
func (c *handles) put(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(h)
}

// release drops one use of h. The caller holds mu.
func (c *handles) release(h *handle) {
	if h.refs--; h.refs == 0 {
		h.f.Close()
	}
}

// evict drops the handle that was taken longest ago; its readers keep it open
// until they are done. The caller holds mu.
func (c *handles) evict() {
	var oldest uint32
	for n, h := range c.open {
		if o := c.open[oldest]; o == nil || h.used < o.used {
			oldest = n
		}
	}
	c.release(c.open[oldest])
	delete(c.open, oldest)
}

// close drops all handles and refuses new ones.
func (c *handles) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.open {
		c.release(h)
	}
	c.open, c.closed = nil, true
}
