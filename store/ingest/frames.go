package ingest

import (
	"context"
	"fmt"
	"sync"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// MaxFrameChunks bounds the chunks of a frame made here, so that its header stays small
// beside a read of one of them.
const MaxFrameChunks = 4096

// FrameOptions configures Frames. The zero value is the production default.
type FrameOptions struct {
	// Size is the plain size at which a frame is full, in bytes; 0 means
	// compress.MaxPlain.
	Size int
	// Sealers is how many frames are sealed at a time; 0 means one for each processor,
	// at most 8.
	Sealers int
	// Buffers is how many frames there are at a time; 0 means three more than Sealers.
	// Each takes its plain size.
	Buffers int
	// Seal configures the sealers.
	Seal compress.SealOptions
}

// Frames gather chunks, seal them on several goroutines and hand them on in order.
// They bound how many frames there are at a time, and keep the memory of frames and
// sealers for the next ones.
type Frames struct {
	opt     FrameOptions
	buffers chan struct{} // holds one for each frame that was taken
	sealing chan struct{} // holds one for each that is being sealed
	frames  free[*Frame]
	sealers free[*sealer]

	mu   sync.Mutex
	last chan struct{} // closed when the frame given to Seal last was handed on; nil: none was
}

// NewFrames returns Frames. An unknown level is an error.
func NewFrames(o FrameOptions) (*Frames, error) {
	if o.Size == 0 {
		o.Size = compress.MaxPlain
	}
	if o.Size < 0 || o.Size > compress.MaxPlain {
		return nil, fmt.Errorf("frames of %d bytes: %w", o.Size, ErrInvalid)
	}
	if o.Sealers <= 0 {
		o.Sealers = Workers()
	}
	if o.Buffers <= 0 {
		o.Buffers = o.Sealers + 3
	}
	p := &Frames{opt: o, buffers: make(chan struct{}, o.Buffers), sealing: make(chan struct{}, o.Sealers)}
	s, err := p.newSealer()
	if err != nil {
		return nil, err
	}
	p.sealers.give(s, p.opt.Sealers)
	return p, nil
}

// A sealer with what it seals to.
type sealer struct {
	*compress.Sealer
	out []byte
}

func (p *Frames) newSealer() (*sealer, error) {
	s, err := compress.NewSealer(p.opt.Seal)
	return &sealer{Sealer: s}, err
}

// A Frame is a run of chunks that is being gathered, by one goroutine at a time.
type Frame struct {
	max    int
	plain  []byte
	chunks []pack.Chunk
}

// Take returns an empty frame, waiting for one to come free. It must be given to Seal
// or to Give. A context that has ended still gets a frame that is free.
func (p *Frames) Take(ctx context.Context) (*Frame, error) {
	select {
	case p.buffers <- struct{}{}:
	default:
		select {
		case p.buffers <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if f, ok := p.frames.take(); ok {
		return f, nil
	}
	return &Frame{max: p.opt.Size}, nil
}

// Add copies a chunk to the frame, or returns false because it has no room for it. An
// empty frame has room for any chunk of up to dag.MaxBlock.
func (f *Frame) Add(c Chunk, data []byte) bool {
	if len(f.chunks) > 0 && (len(f.plain)+len(data) > f.max || len(f.chunks) >= MaxFrameChunks) {
		return false
	}
	f.plain = append(grow(f.plain, len(f.plain)+len(data), f.max), data...)
	f.chunks = append(f.chunks, pack.Chunk{Digest: c.Digest, Size: c.Size})
	return true
}

// grow gives b the capacity n. What is not small gets most at once: to grow it step by
// step would touch several times as much fresh memory.
func grow(b []byte, n, most int) []byte {
	if n <= cap(b) {
		return b
	}
	if n > 64<<10 {
		n = max(n, most)
	}
	return append(make([]byte, 0, n), b...)
}

// Chunks returns the chunks added so far. They are valid as long as the frame is.
func (f *Frame) Chunks() []pack.Chunk { return f.chunks }

// Size returns the plain bytes added so far.
func (f *Frame) Size() int { return len(f.plain) }

// Give takes a frame back that nobody wants.
func (p *Frames) Give(f *Frame) {
	f.plain, f.chunks = f.plain[:0], f.chunks[:0]
	p.frames.give(f, p.opt.Buffers)
	<-p.buffers
}

// Seal has a frame with chunks sealed in the background and calls done with it, after
// done has returned for all frames given to Seal before: one call at a time, from
// other goroutines. The frame is valid until done returns.
func (p *Frames) Seal(f *Frame, done func(pack.Frame, error)) {
	go p.Reserve(f, done)()
}

// Reserve gives a frame the place in the order that Seal would give it, and returns what is
// left to do: to seal it and call done. All frames behind it wait for that.
func (p *Frames) Reserve(f *Frame, done func(pack.Frame, error)) func() {
	p.mu.Lock()
	before, after := p.last, make(chan struct{})
	p.last = after
	p.mu.Unlock()
	return func() {
		defer close(after)
		out, err := p.seal(f)
		if before != nil {
			<-before
		}
		done(out, err)
		p.Give(f)
	}
}

// sealRoom is how much more than the plain bytes compress.Sealer.Seal may need.
const sealRoom = 1 << 10

func (p *Frames) seal(f *Frame) (pack.Frame, error) {
	p.sealing <- struct{}{}
	defer func() { <-p.sealing }()
	s, ok := p.sealers.take()
	if !ok {
		var err error
		if s, err = p.newSealer(); err != nil {
			return pack.Frame{}, err
		}
	}
	defer p.sealers.give(s, p.opt.Sealers)
	s.out = grow(s.out[:0], len(f.plain)+sealRoom, f.max+sealRoom)
	size := len(f.plain)
	codec, sealed, err := s.Seal(s.out, f.plain)
	if err != nil {
		return pack.Frame{}, fmt.Errorf("seal frame: %w", err)
	}
	if codec != compress.Raw {
		sealed = f.plain[:copy(f.plain, sealed)] // which is shorter, and wanted no more
	}
	return pack.Frame{Codec: codec, PlainSize: uint32(size), Chunks: f.chunks, Sealed: sealed}, nil
}

// A Packer is a Chunks that seals chunks into frames and sends these on, in order. It
// is for those who have no packs. One goroutine may use it.
type Packer struct {
	frames *Frames
	send   func(pack.Frame) error
	open   *Frame // nil before the first chunk
	recent [2]map[dag.Digest]struct{}

	wg  sync.WaitGroup // frames on their way
	mu  sync.Mutex
	err error // of the first frame that failed
}

// NewPacker returns a Packer. It calls send with one frame at a time, valid during the
// call, from goroutines of its own; what send does when it should end is the
// caller's to see to. After an error send is not called again.
func NewPacker(frames *Frames, send func(pack.Frame) error) *Packer {
	return &Packer{frames: frames, send: send}
}

var _ Chunks = (*Packer)(nil)

// Add implements Chunks. A chunk that was added a little before is not sent again.
func (p *Packer) Add(ctx context.Context, chunks []NewChunk, _ bool) error {
	if err := p.failed(); err != nil {
		return err
	}
	for _, c := range chunks {
		if p.seen(c.Digest) {
			continue
		}
		if p.open != nil && p.open.Add(c.Chunk, c.Data) {
			continue
		}
		p.cut()
		var err error
		if p.open, err = p.frames.Take(ctx); err != nil {
			return err
		}
		p.open.Add(c.Chunk, c.Data)
	}
	return nil
}

// recentChunks is how many chunks one generation of those just added holds: 4 MB.
const recentChunks = 1 << 16

func (p *Packer) seen(d dag.Digest) bool {
	for _, g := range p.recent {
		if _, ok := g[d]; ok {
			return true
		}
	}
	if p.recent[0] == nil || len(p.recent[0]) == recentChunks {
		p.recent[0], p.recent[1] = make(map[dag.Digest]struct{}), p.recent[0]
	}
	p.recent[0][d] = struct{}{}
	return false
}

func (p *Packer) cut() {
	if p.open == nil {
		return
	}
	p.wg.Add(1)
	p.frames.Seal(p.open, func(f pack.Frame, err error) {
		defer p.wg.Done()
		if p.failed() != nil {
			return
		}
		if err == nil {
			err = p.send(f)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = err
	})
	p.open = nil
}

func (p *Packer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Flush sends what is left and waits until every frame was sent, or returns the error
// of the first that was not. It must be called at the end, after an error too: it
// gives back what the Packer holds.
func (p *Packer) Flush() error {
	p.cut()
	p.wg.Wait()
	return p.failed()
}
