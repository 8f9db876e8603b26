package ingest

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store/filecache"
)

// An Input is one dataset. Exactly one of Reader, Path and Source is set.
type Input struct {
	Reader io.Reader // a single stream
	Path   string    // a file or a directory on disk
	Source Source    // a tree or a file that comes piece by piece

	Profile *dag.Profile
	// Times records modification times.
	Times bool
	// Exclude and SkipUnreadable are for Path: see fstree.Options.
	Exclude        []string
	SkipUnreadable bool
	// Files, if not nil, is what is remembered of Path: files that did not change since are
	// not read again, as long as the Index knows all of their chunks.
	Files *filecache.Reader
	// Sort bounds the memory for the names of large directories: once for the tree
	// that is built, and for Path once for the tree on disk. See extsort.Options.
	Sort extsort.Options
}

// An Output is what takes a dataset.
type Output struct {
	Index  Index
	Chunks Chunks
	// Nodes takes DAG and commitment, never before the chunks that they name.
	Nodes dag.Sink
	// Manifest, if not nil, is told the dataset itself.
	Manifest Manifest
	// Files, if not nil, is told the files of Input.Path, what they were made of and when.
	Files *filecache.Writer
	// Progress, if not nil, is called now and then from one goroutine at a time.
	Progress func(Progress)
}

// MaxLookup is the most chunks in one call of Known, if no chunk of the profile but
// the last of a file is shorter than 2 KiB.
const MaxLookup = 4096

// An Index knows which chunks are stored.
type Index interface {
	// Known sets those of known, all false before and as long as chunks, whose chunks
	// are stored with their digest and size. Calls may come from several goroutines at
	// a time. After the context of the dataset has ended it may fail.
	Known(ctx context.Context, chunks []Chunk, known []bool) error
}

// Chunks takes new chunks.
type Chunks interface {
	// Add takes chunks that the Index did not know, in the order of the dataset, one
	// call at a time. The same chunk may come again. It does not keep the bytes. Last
	// says that no call follows for this dataset.
	Add(ctx context.Context, chunks []NewChunk, last bool) error
}

// A NewChunk is a chunk with its bytes.
type NewChunk struct {
	Chunk
	Data []byte
}

// A Manifest is told a dataset: each entry in canonical order, with the chunks of a
// file in their order between Begin and End. Calls come from one goroutine at a time.
type Manifest interface {
	Begin(e Entry) error
	Chunk(c Chunk) error
	// End ends the entry. Without keep it is to be forgotten: it could not be read to
	// its end and is left out.
	End(keep bool) error
}

// An Entry is an entry of a dataset as it is recorded.
type Entry struct {
	Path   string // relative, with slashes; the root is ""
	Kind   dag.Kind
	Attr   dag.Attr
	Target string // of a link
}

// Progress of a dataset.
type Progress struct {
	Bytes  uint64 // plain bytes so far
	Files  uint64
	Unread uint64 // of Bytes, those of files that did not change and were not read again
}

// A Result is a dataset that was read to its end.
type Result struct {
	Kind    dag.Kind // KindFile or KindDir
	Tree    dag.Tree
	Skipped []Skipped
	Unread  uint64 // plain bytes of files that did not change and were not read again
}

// Skipped is something in a tree on disk that was left out.
type Skipped struct {
	Path string
	Why  error
}

// errStopped ends the reading of a dataset that the assembler has given up.
var errStopped = errors.New("stopped")

// A run is one dataset on its way.
//
//	reader ──> slab ──> hash ──> look up ──> assembler ──> new chunks, nodes, manifest
//	           └─────── several at a time ──┘ in order
//
// The goroutine of the caller reads. What fits into one slab it brings to its end by
// itself.
type run struct {
	p    *Pools
	in   *Input
	out  *Output
	lane *lane

	ctx    context.Context // of the put; the run lives within one call
	cancel context.CancelCauseFunc

	src   *fstree.Tree // of Input.Path
	kind  dag.Kind
	began bool       // slabs are in circulation
	order chan *slab // these, in order; only if began
	done  chan struct{}
	asm   assembler
	zeros func() Chunk // the largest chunk, of zeros: hashed once, when the first one comes

	mu   sync.Mutex
	skip []Skipped // guarded by mu
}

// Run reads a dataset to its end. When it returns nil, everything of it has been
// handed to the output.
//
// When reading fails or ctx ends, whole chunks that were read before are still handed
// over, so that a second attempt finds them. Run returns when the reader does: a Read
// that blocks for ever must be ended by whoever made it.
func (p *Pools) Run(ctx context.Context, in *Input, out *Output) (res Result, err error) {
	r := &run{p: p, in: in, out: out, lane: &p.streams}
	if in.Path != "" {
		r.lane = &p.trees
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	r.asm.r = r
	r.zeros = sync.OnceValue(func() Chunk { return sum(make([]byte, in.Profile.Splitter().Max())) })
	err = r.newFeeder().feed()
	stopped := context.Cause(r.ctx) == errStopped
	if r.began {
		close(r.order)
		<-r.done
	}
	if err == nil || stopped {
		err = r.asm.err
	}
	if r.asm.tree != nil {
		r.asm.tree.Close() // it was finished, or its end does not matter
	}
	if cerr := r.asm.close(); err == nil {
		err = cerr
	}
	if r.src != nil {
		if cerr := r.src.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return Result{}, err
	}
	return Result{Kind: r.kind, Tree: r.asm.result, Skipped: r.skip, Unread: r.asm.done.Unread}, nil
}

func (r *run) skipped(path string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.skip = append(r.skip, Skipped{Path: path, Why: why})
}

// send hands over a slab. That which is the whole dataset needs nobody else.
func (r *run) send(sl *slab) error {
	if sl.last && !r.began {
		defer r.p.giveSlab(sl)
		sl.process(r.ctx, r)
		return r.asm.take(sl)
	}
	if err := r.acquire(); err != nil {
		r.sendRest(sl)
		return err
	}
	r.dispatch(sl)
	return nil
}

// sendRest hands over what was read before an error, without which the dataset ends
// anyway. The slabs before it make room.
func (r *run) sendRest(sl *slab) {
	if !r.began {
		sl.process(r.ctx, r)
		r.asm.take(sl)
		r.p.giveSlab(sl)
		return
	}
	sl.last = false
	r.lane.slabs <- struct{}{}
	r.dispatch(sl)
}

// acquire waits for a place in circulation.
func (r *run) acquire() error {
	select {
	case r.lane.slabs <- struct{}{}:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// dispatch puts a slab, whose place was acquired, into circulation.
func (r *run) dispatch(sl *slab) {
	if !r.began {
		r.began = true
		r.order = make(chan *slab, cap(r.lane.slabs))
		r.done = make(chan struct{})
		go r.assemble()
	}
	r.order <- sl // which has room for all there are
	go func() {
		r.lane.work <- struct{}{}
		sl.process(r.ctx, r)
		<-r.lane.work
		sl.ready <- struct{}{}
	}()
}

// assemble takes the slabs in circulation, in order. After an error the others are
// only given back.
func (r *run) assemble() {
	defer close(r.done)
	for sl := range r.order {
		<-sl.ready
		if r.asm.err == nil {
			if r.asm.take(sl) != nil {
				r.cancel(errStopped)
			}
		}
		r.p.giveSlab(sl)
		<-r.lane.slabs
	}
}
