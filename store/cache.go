package store

import (
	"container/list"
	"context"
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
	order *list.List                 // of *cachedFrame, newest first
	busy  map[pack.Loc]chan struct{} // frames being decoded, closed when they are
}

// A cachedFrame is a frame whose first len(plain) bytes are decoded.
type cachedFrame struct {
	loc   pack.Loc
	plain []byte
}

func newFrameCache(max int64) *frameCache {
	return &frameCache{max: max, byLoc: map[pack.Loc]*list.Element{}, order: list.New(), busy: map[pack.Loc]chan struct{}{}}
}

// take returns the frame's first n plain bytes if they are there. If not, the caller
// is to decode the frame and must then call done; whoever wants the same frame waits
// for that. known says that the frame is there, but not that much of it.
func (c *frameCache) take(ctx context.Context, loc pack.Loc, n int) (plain []byte, known bool, err error) {
	for {
		c.mu.Lock()
		if e, ok := c.byLoc[loc]; ok {
			known = true
			if plain := e.Value.(*cachedFrame).plain; len(plain) >= n { // put may replace it
				c.order.MoveToFront(e)
				c.mu.Unlock()
				return plain, true, nil
			}
		}
		wait, ok := c.busy[loc]
		if !ok {
			c.busy[loc] = make(chan struct{})
			c.mu.Unlock()
			return nil, known, nil
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
