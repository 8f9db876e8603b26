package grpcapi

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"google.golang.org/grpc/mem"
)

// A counter is told how many bytes are lent to it, and how many come back.
type counter interface{ count(n int64) }

// A bufferPool has buffers of a few sizes.
type bufferPool struct {
	sizes []int // ascending
	tiers []sync.Pool
}

func newBufferPool(sizes ...int) bufferPool {
	return bufferPool{sizes, make([]sync.Pool, len(sizes))}
}

// A lentBuffer is a buffer of a pool. buf is its first field, so that a pointer to one is
// a pointer to the other.
type lentBuffer struct {
	buf  []byte
	all  []byte
	tier int // -1: not kept
	out  *lentState
}

// A lentState outlives its buffer, for when that is dropped.
type lentState struct {
	to   counter
	size int64
	out  atomic.Bool
}

// lend counts the buffer as lent until Put, or until the garbage collector finds that it
// was dropped.
func (s *lentState) lend(to counter) {
	s.to = to
	s.out.Store(true)
	to.count(s.size)
}

func (s *lentState) back() {
	if s.out.CompareAndSwap(true, false) {
		s.to.count(-s.size)
	}
}

// size returns how large the buffer for n bytes is.
func (p *bufferPool) size(n int) int {
	for _, size := range p.sizes {
		if n <= size {
			return size
		}
	}
	return n
}

// take returns a buffer that is lent to nobody yet.
func (p *bufferPool) take(n int) *lentBuffer {
	for tier, size := range p.sizes {
		if n > size {
			continue
		}
		if b, ok := p.tiers[tier].Get().(*lentBuffer); ok {
			return b
		}
		return p.make(size, tier)
	}
	return p.make(n, -1)
}

func (p *bufferPool) make(size, tier int) *lentBuffer {
	b := &lentBuffer{all: make([]byte, size), tier: tier, out: &lentState{size: int64(size)}}
	runtime.AddCleanup(b, func(s *lentState) { s.back() }, b.out)
	return b
}

// Put takes a buffer back.
func (p *bufferPool) Put(buf *[]byte) {
	b := (*lentBuffer)(unsafe.Pointer(buf)) // take made it
	b.out.back()
	if b.tier >= 0 {
		p.tiers[b.tier].Put(b)
	}
}

// A receivePool gives the transport the buffers into which requests are read, and knows
// how many bytes of them are out: requests that have arrived and are not consumed.
//
// What the transport gives back is counted at once. What it drops, such as the unread rest
// of a stream that was cut off, is counted when the garbage collector finds it.
type receivePool struct {
	bufferPool
	limit int64
	out   atomic.Int64
	over  chan struct{} // has one when the limit is passed
}

func newReceivePool(limit int) *receivePool {
	// Frames have at most 16 KiB. Larger buffers are those of many tiny frames put together.
	return &receivePool{
		bufferPool: newBufferPool(4<<10, 16<<10, 64<<10, 256<<10, 1<<20),
		limit:      int64(limit), over: make(chan struct{}, 1),
	}
}

var _ mem.BufferPool = (*receivePool)(nil)

func (p *receivePool) count(n int64) { p.out.Add(n) }

// overPause is how long a connection that has brought too much is not read on.
const overPause = 10 * time.Millisecond

// Get implements mem.BufferPool. The caller is the reader of a connection: when too much is
// out, it waits, and its peer with it.
func (p *receivePool) Get(n int) *[]byte {
	if p.out.Load() > p.limit {
		select {
		case p.over <- struct{}{}:
		default:
		}
		if p.out.Load() > p.limit+p.limit/4 {
			time.Sleep(overPause)
		}
	}
	b := p.take(n)
	b.buf = b.all[:n]
	b.out.lend(p)
	return &b.buf
}

// full reports whether no more calls should begin.
func (p *receivePool) full() bool { return p.out.Load() > p.limit }

// heapLimit is the default of Limits.Memory.
func heapLimit() int64 {
	limit := debug.SetMemoryLimit(-1) // only asks
	if limit == math.MaxInt64 {
		return math.MaxInt64
	}
	return limit / 8 * 7
}

// A heapGuard watches the live heap.
type heapGuard struct {
	limit  int64
	sample [1]metrics.Sample // of the one goroutine that looks
	high   atomic.Bool
}

func newHeapGuard(limit int64) *heapGuard {
	h := &heapGuard{limit: limit}
	h.sample[0].Name = "/gc/heap/live:bytes"
	return h
}

// look returns by how many bytes the last collection left more than there may be; 0 if it
// did not.
func (h *heapGuard) look() int64 {
	if h.limit == math.MaxInt64 {
		return 0
	}
	metrics.Read(h.sample[:])
	over := max(0, int64(h.sample[0].Value.Uint64())-h.limit)
	h.high.Store(over > 0)
	return over
}
