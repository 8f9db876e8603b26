package store

import (
	"sync"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// pools keeps buffers between puts. Fresh memory is slow to touch (about half a
// gigabyte a second on the machines measured), and an encoder's tables are large.
type pools struct {
	mu      sync.Mutex
	slabs   []*slab
	frames  []*frameJob
	sealers []*compress.Sealer
}

// keep is the most of each kind that stays between puts; more come and go with the
// number of puts under way.
const keep = 8

func take[T any](p *pools, list *[]T, make func() T) T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(*list); n > 0 {
		x := (*list)[n-1]
		*list = (*list)[:n-1]
		return x
	}
	return make()
}

func give[T any](p *pools, list *[]T, x T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(*list) < keep {
		*list = append(*list, x)
	}
}

func (p *pools) takeSlab() *slab {
	return take(p, &p.slabs, func() *slab { return &slab{buf: make([]byte, slabSize), ready: make(chan struct{}, 1)} })
}

func (p *pools) giveSlab(s *slab) { give(p, &p.slabs, s) }

func (p *pools) takeFrame() *frameJob {
	return take(p, &p.frames, func() *frameJob { return &frameJob{ready: make(chan error, 1)} })
}

func (p *pools) giveFrame(j *frameJob) { give(p, &p.frames, j) }

func (p *pools) takeSealer(o Options) (*compress.Sealer, error) {
	var err error
	s := take(p, &p.sealers, func() (s *compress.Sealer) {
		s, err = compress.NewSealer(compress.SealOptions{Level: o.Level, Check: o.CheckFrames})
		return s
	})
	return s, err
}

func (p *pools) giveSealer(s *compress.Sealer) { give(p, &p.sealers, s) }

// recent remembers the digests that a put has stored but that may not be in the
// index yet. It forgets the oldest: by then their rows are committed, and where one
// is not the chunk is stored twice, which costs space and nothing else.
type recent struct {
	gens [4]map[dag.Digest]struct{}
	n    int // bytes in the newest generation
}

// recentBytes is the plain size of one generation. Four of them cover what is
// unflushed (two flushes and the frames in flight) with room to spare.
const recentBytes = flushBytes

func (r *recent) has(d dag.Digest) bool {
	for _, g := range r.gens {
		if _, ok := g[d]; ok {
			return true
		}
	}
	return false
}

func (r *recent) add(d dag.Digest, size int) {
	if r.gens[0] == nil || r.n >= recentBytes {
		copy(r.gens[1:], r.gens[:])
		r.gens[0], r.n = make(map[dag.Digest]struct{}), 0
	}
	r.gens[0][d] = struct{}{}
	r.n += size
}

// addChunk appends a chunk to a frame under way.
func (j *frameJob) addChunk(d dag.Digest, data []byte, into *tally) {
	j.plain = append(j.plain, data...)
	j.chunks = append(j.chunks, pack.Chunk{Digest: d, Size: uint32(len(data))})
	if n := len(j.shares); n == 0 || j.shares[n-1].into != into {
		j.shares = append(j.shares, share{into: into})
	}
	j.shares[len(j.shares)-1].plain += uint64(len(data))
}
