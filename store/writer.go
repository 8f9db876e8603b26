package store

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// flushBytes is how many plain bytes go between two syncs of the packs. Packs
// write back in the background meanwhile; each sync lets index rows be committed.
const flushBytes = 64 << 20

// A share is the part of a frame that belongs to one dataset of a put.
type share struct {
	into  *tally
	plain uint64
}

// A frameJob is a run of new chunks on its way to the packs, or rows that must not
// be committed before the frames ahead of them are synced, or both.
type frameJob struct {
	plain  []byte
	chunks []pack.Chunk
	shares []share
	rows   *kv.Batch // DAG nodes and commitment rows

	codec  compress.Codec
	sealed []byte // aliases out or plain
	out    []byte // owned by the job, reused
	ready  chan error
}

// A frameWriter seals frames on several goroutines, appends them to the packs in
// order and commits their index rows behind the sync.
type frameWriter struct {
	s     *Store
	seal  chan *frameJob // to the sealers
	order chan *frameJob // to the appender, in order
	free  chan *frameJob
	flush chan *flushJob
	group *errgroup.Group
	ctx   context.Context // of the put; the writer lives within one call
	abort context.CancelCauseFunc
}

// newFrameWriter starts the goroutines of one put. finish ends them.
func (s *Store) newFrameWriter(ctx context.Context, workers int) (*frameWriter, error) {
	depth := workers + 3
	w := &frameWriter{
		s: s, seal: make(chan *frameJob, depth), order: make(chan *frameJob, depth),
		free: make(chan *frameJob, depth), flush: make(chan *flushJob),
	}
	ctx, w.abort = context.WithCancelCause(ctx)
	w.group, w.ctx = errgroup.WithContext(ctx)
	for range depth {
		w.free <- s.pools.takeFrame()
	}
	for range workers {
		sealer, err := s.pools.takeSealer(s.opt)
		if err != nil {
			return nil, err
		}
		w.group.Go(func() error {
			defer s.pools.giveSealer(sealer)
			for j := range w.seal {
				var err error
				j.codec, j.sealed, err = sealer.Seal(j.out[:0], j.plain)
				if j.codec != compress.Raw {
					j.out = j.sealed
				}
				j.ready <- err
			}
			return nil
		})
	}
	w.group.Go(func() error {
		defer close(w.flush)
		return w.appendFrames()
	})
	w.group.Go(func() error {
		var err error
		for f := range w.flush {
			if err == nil {
				err = s.flushIndex(w.ctx, f)
			}
			f.done <- err
		}
		return err
	})
	return w, nil
}

// job returns an empty job, waiting for one to come free.
func (w *frameWriter) job() (*frameJob, error) {
	select {
	case j := <-w.free:
		return j, nil
	case <-w.ctx.Done():
		return nil, context.Cause(w.ctx)
	}
}

// submit hands a job over; it must not be touched afterwards.
func (w *frameWriter) submit(j *frameJob) error {
	if len(j.chunks) > 0 {
		// Never blocks: the channel holds as many jobs as there are.
		w.seal <- j
	}
	select {
	case w.order <- j:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// finish ends the writer. With a nil error every job submitted is durable and
// indexed when it returns.
func (w *frameWriter) finish() error {
	defer w.abort(nil)
	close(w.order)
	close(w.seal)
	err := w.group.Wait()
	for {
		select {
		case j := <-w.free:
			w.s.pools.giveFrame(j)
		default:
			return err
		}
	}
}

func (w *frameWriter) appendFrames() error {
	cur := &flushJob{done: make(chan error, 1)}
	var last *flushJob // under way
	turn := func() error {
		if last != nil {
			err := <-last.done
			if last = nil; err != nil {
				return err
			}
		}
		if cur.empty() {
			return nil
		}
		select {
		case w.flush <- cur:
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
		last, cur = cur, &flushJob{done: make(chan error, 1)}
		return nil
	}
	for {
		var j *frameJob
		var ok bool
		select {
		case j, ok = <-w.order:
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
		if !ok {
			break
		}
		if len(j.chunks) > 0 {
			if err := w.appendFrame(j, cur); err != nil {
				return err
			}
		}
		if j.rows != nil {
			cur.rows = append(cur.rows, j.rows)
		}
		j.reset()
		w.free <- j
		if cur.total.Plain >= flushBytes || len(cur.rows) >= 4 {
			if err := turn(); err != nil {
				return err
			}
		}
	}
	if err := turn(); err != nil {
		return err
	}
	if last != nil {
		return <-last.done
	}
	return nil
}

func (w *frameWriter) appendFrame(j *frameJob, f *flushJob) error {
	if err := <-j.ready; err != nil {
		return fmt.Errorf("seal frame: %w", err)
	}
	if err := w.s.checkSpace(int64(len(j.sealed))); err != nil {
		return err
	}
	loc, err := w.s.packs.Append(w.ctx, pack.Frame{
		Codec: j.codec, PlainSize: uint32(len(j.plain)), Chunks: j.chunks, Sealed: j.sealed,
	})
	if err != nil {
		return fmt.Errorf("append frame: %w", storeError(err))
	}
	start := uint32(0)
	for _, c := range j.chunks {
		f.add(c.Digest, chunkRow{Loc: loc, Start: start, Size: c.Size})
		start += c.Size
	}
	f.total.add(tally{Chunks: uint64(len(j.chunks)), Plain: uint64(len(j.plain)), Packed: uint64(loc.Len)})
	// Datasets that share a frame share its cost by their plain bytes.
	left := uint64(loc.Len)
	for i, sh := range j.shares {
		part := uint64(loc.Len) * sh.plain / uint64(len(j.plain))
		if i == len(j.shares)-1 {
			part = left
		}
		sh.into.Packed += part
		left -= part
	}
	return nil
}

func (j *frameJob) reset() {
	j.plain, j.chunks, j.shares, j.rows, j.sealed = j.plain[:0], j.chunks[:0], j.shares[:0], nil, nil
}

// A flushJob is what becomes durable together.
type flushJob struct {
	index []*kv.Batch // chunk rows
	rows  []*kv.Batch
	total tally
	done  chan error
}

func (f *flushJob) empty() bool { return len(f.index) == 0 && len(f.rows) == 0 }

func (f *flushJob) add(d dag.Digest, r chunkRow) {
	n := len(f.index)
	// Two rows are left for the totals and the end of the packs.
	if n == 0 || f.index[n-1].Len() >= kv.MaxBatchRows-2 {
		f.index = append(f.index, new(kv.Batch))
		n++
	}
	var buf [32]byte
	f.index[n-1].Set(digestKey(rowChunk, d), r.append(buf[:0]))
}

// flushIndex makes the packs durable and then the rows that point into them.
func (s *Store) flushIndex(ctx context.Context, f *flushJob) error {
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	tail := s.packs.Tail()
	if len(f.index) > 0 {
		if err := s.packs.Sync(ctx); err != nil {
			return s.stop(err)
		}
	}
	// Safe to crash here: the frames are durable and nothing points at them. The
	// recorded tail still ends before them, so the next open cuts them off.
	total := s.totals
	total.add(f.total)
	if len(f.index) > 0 {
		f.index[0].Set([]byte{rowTotals}, total.append(nil))
		f.index[0].Set([]byte{rowTail}, appendTail(nil, tail))
	}
	for _, b := range append(f.index, f.rows...) {
		if err := s.checkSpace(int64(b.Bytes())); err != nil {
			return err
		}
		if err := s.kv.Commit(ctx, b); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return s.stop(err)
		}
		s.totals = total
	}
	return nil
}
