package grpcapi

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// A scratchPool is a pool of large buffers that come with whatever they held before. What
// is taken from it must be written before it is read.
type scratchPool struct {
	tiers [len(scratchTiers)]sync.Pool // of *[]byte
}

// scratchTiers are the sizes of buffers: of small frames, of a message with a piece of a
// mebibyte, of a frame that did not shrink.
var scratchTiers = [...]int{64 << 10, 256 << 10, 1<<20 + 64<<10, 4 << 20}

var _ mem.BufferPool = (*scratchPool)(nil)

// Get implements mem.BufferPool.
func (p *scratchPool) Get(n int) *[]byte {
	for i, size := range scratchTiers {
		if n > size {
			continue
		}
		b, ok := p.tiers[i].Get().(*[]byte)
		if !ok {
			s := make([]byte, size)
			b = &s
		}
		*b = (*b)[:n]
		return b
	}
	s := make([]byte, n)
	return &s
}

// Put implements mem.BufferPool.
func (p *scratchPool) Put(b *[]byte) {
	for i, size := range scratchTiers {
		if cap(*b) == size {
			p.tiers[i].Put(b)
			return
		}
	}
}
