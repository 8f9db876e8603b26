package ingest

import (
	"runtime"
	"sync"
)

const (
	// slabSize is how much is read, chunked and hashed as one piece of work.
	slabSize = 1 << 20
	// smallFile is the size up to which a file on disk is read whole by a worker,
	// together with its neighbours, instead of being streamed.
	smallFile = 256 << 10
	// slabEntries, slabNames and slabRefs bound the entries of one slab, the bytes of
	// their names and targets, and the chunks that are given by digest. With the
	// chunks of its bytes a slab has at most maxLookup.
	slabEntries = 512
	slabNames   = 64 << 10
	slabRefs    = 3 << 10
)

// PoolOptions configures Pools. The zero value is for stores on this machine.
type PoolOptions struct {
	// Workers is how many goroutines hash at a time; 0 means one for each processor,
	// at most 8.
	Workers int
	// Slabs is how many pieces of input, of 1 MiB each, are hashed and looked up at a
	// time; 0 means two more than Workers. With an index far away more of them hide
	// its distance.
	Slabs int
}

// Pools are what all datasets under way share: they hold no more than the slabs in
// circulation, and each dataset one more, which grows as it is filled.
type Pools struct {
	// Streams come from anywhere and are hashed only when their bytes are there. The
	// files of trees on disk are read by the workers, so a file system that hangs
	// stops other trees on disk, but no stream.
	streams, trees lane

	slabs   sync.Pool // of *slab
	buffers [len(classes)]free[*buffer]
	more    [len(classes)]sync.Pool // of *buffer: those that the lists above have no room for
}

// A free list keeps memory to be used again, the last first: fresh memory is slow to
// touch (half a gigabyte a second on the machines measured).
type free[T any] struct {
	mu   sync.Mutex
	list []T
}

func (f *free[T]) take() (x T, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.list)
	if n == 0 {
		return x, false
	}
	last := f.list[n-1]
	f.list[n-1] = x
	f.list = f.list[:n-1]
	return last, true
}

// give returns false if the list has most elements already.
func (f *free[T]) give(x T, most int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) >= most {
		return false
	}
	f.list = append(f.list, x)
	return true
}

// A lane bounds what one kind of input has in circulation.
type lane struct {
	slabs chan struct{} // holds one for each slab in circulation
	work  chan struct{} // holds one for each that is being hashed
}

// NewPools returns Pools.
func NewPools(o PoolOptions) *Pools {
	if o.Workers <= 0 {
		o.Workers = Workers()
	}
	if o.Slabs <= 0 {
		o.Slabs = o.Workers + 2
	}
	newLane := func() lane {
		return lane{slabs: make(chan struct{}, o.Slabs), work: make(chan struct{}, o.Workers)}
	}
	return &Pools{streams: newLane(), trees: newLane()}
}

// Workers returns how many goroutines do the work of one processor each by default.
func Workers() int { return min(runtime.GOMAXPROCS(0), 8) }

// classes are the sizes of buffers. A buffer of a dataset begins with the smallest:
// most uploads are small, and one that stalls should not hold a megabyte.
var classes = [...]int{4 << 10, 64 << 10, slabSize}

// A buffer belongs to one slab at a time. Its length is the size of its class.
type buffer struct {
	b     []byte
	class int // -1: not from a pool
}

// kept is how many buffers of each class are kept for good; what was needed besides
// goes when it has not been for a while.
const kept = 8

// buffer returns one of at least n bytes.
func (p *Pools) buffer(n int) *buffer {
	for i, size := range classes {
		if n > size {
			continue
		}
		if b, ok := p.buffers[i].take(); ok {
			return b
		}
		if b, ok := p.more[i].Get().(*buffer); ok {
			return b
		}
		return &buffer{b: make([]byte, size), class: i}
	}
	return &buffer{b: make([]byte, n), class: -1}
}

func (p *Pools) giveBuffer(b *buffer) {
	if b != nil && b.class >= 0 && !p.buffers[b.class].give(b, kept) {
		p.more[b.class].Put(b)
	}
}

func (p *Pools) slab() *slab {
	if sl, ok := p.slabs.Get().(*slab); ok {
		return sl
	}
	return &slab{ready: make(chan struct{}, 1)}
}

func (p *Pools) giveSlab(sl *slab) {
	p.giveBuffer(sl.buf)
	clear(sl.items)
	*sl = slab{
		items: sl.items[:0], chunks: sl.chunks[:0], starts: sl.starts[:0], known: sl.known[:0],
		refs: sl.refs[:0], ends: sl.ends[:0], scratch: sl.scratch[:0],
		ask: sl.ask[:0], answers: sl.answers[:0], ready: sl.ready,
	}
	p.slabs.Put(sl)
}
