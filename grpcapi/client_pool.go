package grpcapi

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// A framePool keeps the buffers into which a connection's data is received: one for each
// HTTP/2 frame, thousands a second. The usual pool loses them at every garbage collection,
// which are many in a process with little memory, and clears those that it gives.
type framePool struct {
	mu   sync.Mutex
	free []*[]byte // guarded by mu
	rest mem.BufferPool
}

const (
	frameBuffer = 16 << 10 // the most that gRPC puts into a frame
	// keptFrames is as many as a stream's window takes.
	keptFrames = streamWindow / frameBuffer
)

var _ mem.BufferPool = (*framePool)(nil)

func newFramePool() *framePool { return &framePool{rest: mem.DefaultBufferPool()} }

// Get implements mem.BufferPool.
func (p *framePool) Get(n int) *[]byte {
	if n > frameBuffer || n <= frameBuffer/4 {
		return p.rest.Get(n)
	}
	p.mu.Lock()
	var b *[]byte
	if k := len(p.free); k > 0 {
		b, p.free = p.free[k-1], p.free[:k-1]
	}
	p.mu.Unlock()
	if b == nil {
		s := make([]byte, frameBuffer)
		b = &s
	}
	*b = (*b)[:n]
	return b
}

// Put implements mem.BufferPool.
func (p *framePool) Put(b *[]byte) {
	if cap(*b) != frameBuffer {
		p.rest.Put(b)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < keptFrames {
		p.free = append(p.free, b)
	}
}
