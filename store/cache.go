package store

import (
	"container/list"
	"sync"

	"github.com/koii-network/scale/store/pack"
)

// A frameCache keeps the plain bytes of frames read lately, the least recently
// used going first. What it holds is shared and must not be written.
type frameCache struct {
	mu    sync.Mutex
	max   int64
	size  int64
	byLoc map[pack.Loc]*list.Element
	order *list.List // of *cachedFrame, newest first
}

// A cachedFrame is a frame whose first len(plain) bytes are decoded.
type cachedFrame struct {
	loc   pack.Loc
	plain []byte
}

func newFrameCache(max int64) *frameCache {
	return &frameCache{max: max, byLoc: map[pack.Loc]*list.Element{}, order: list.New()}
}

// get returns the frame's first n plain bytes, or nil.
func (c *frameCache) get(loc pack.Loc, n int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byLoc[loc]
	if !ok || len(e.Value.(*cachedFrame).plain) < n {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedFrame).plain
}

func (c *frameCache) put(loc pack.Loc, plain []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byLoc[loc]; ok {
		f := e.Value.(*cachedFrame)
		if len(plain) > len(f.plain) {
			c.size += int64(cap(plain) - cap(f.plain))
			f.plain = plain
		}
		c.order.MoveToFront(e)
	} else {
		c.byLoc[loc] = c.order.PushFront(&cachedFrame{loc, plain})
		c.size += int64(cap(plain))
	}
	for c.size > c.max && c.order.Len() > 0 {
		e := c.order.Back()
		f := c.order.Remove(e).(*cachedFrame)
		delete(c.byLoc, f.loc)
		c.size -= int64(cap(f.plain))
	}
}
