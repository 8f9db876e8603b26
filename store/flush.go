package store

import (
	"context"
	"slices"
	"sync"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/kv"
)

// A flush is due when it has this much, whether or not anybody waits for it. Packs
// write back in the background meanwhile; each sync lets index rows be committed.
const (
	flushBytes  = 64 << 20 // plain bytes
	flushChunks = 32 << 10
	flushRows   = 2 << 20 // bytes of DAG nodes and commitment rows
)

// recentChunks is how many chunks are remembered once they are indexed: those of the
// flush that ended last, and as many before it as are needed for this number.
const recentChunks = 4096

// A flush is what becomes durable together. Its fields are guarded by writer.mu until
// it is under way.
type flush struct {
	n        uint64
	frames   sync.WaitGroup // that are not appended yet
	bins     []*bin
	deposits []*deposit // that depend on it
	index    batches    // chunk rows
	digests  []dag.Digest
	total    tally
	plain    int
	count    int // of chunks in frames, appended or not
	rowBytes int

	wanted bool
	over   bool // it is durable, or failed
	err    error
	done   chan struct{} // closed when it is durable, or never will be
}

func newFlush(n uint64) *flush { return &flush{n: n, done: make(chan struct{})} }

func (f *flush) full() bool {
	return f.plain >= flushBytes || f.count >= flushChunks || f.rowBytes >= flushRows
}

// ended is what is remembered of a flush: its chunks.
type ended struct {
	n       uint64
	digests []dag.Digest
}

// add adds a chunk that is in the packs.
func (f *flush) add(d dag.Digest, r chunkRow) {
	var buf [32]byte
	f.index.set(digestKey(rowChunk, d), r.append(buf[:0]))
	f.digests = append(f.digests, d)
}

// run makes a flush durable.
func (w *writer) run(f *flush) {
	f.frames.Wait()
	w.mu.Lock()
	err := f.err
	w.mu.Unlock()
	if err == nil {
		err = w.s.flush(f)
	}
	if err != nil {
		w.fail(f, err)
	} else {
		w.mu.Lock()
		var coming []*commitRequest
		for _, d := range f.deposits {
			if d.request != nil && d.awaits == f {
				coming = append(coming, d.request)
			}
		}
		w.s.expect(coming...)
		w.held = len(coming) > 0
		w.forget(f)
		w.mu.Unlock()
	}
	w.mu.Lock()
	w.now = nil
	w.mu.Unlock()
	close(f.done)
	w.kick()
}

// forget forgets what is on its way no more. Chunks are remembered a little longer: who
// looked them up before they were indexed comes to add them soon.
func (w *writer) forget(f *flush) {
	for _, b := range f.bins {
		for _, name := range b.names {
			delete(w.rows, name)
		}
		b.rows, b.names = nil, nil
	}
	if len(f.digests) > 0 {
		w.recent = append(w.recent, ended{f.n, f.digests})
	}
	count := 0
	for i, e := range slices.Backward(w.recent) {
		if count > recentChunks {
			w.drop(w.recent[:i+1])
			w.recent = slices.Delete(w.recent, 0, i+1)
			break
		}
		count += len(e.digests)
	}
	f.over, f.digests, f.bins, f.deposits, f.index = true, nil, nil, nil, nil
}

// drop forgets the chunks of flushes that have ended. Some may be on their way again.
func (w *writer) drop(flushes []ended) {
	for _, e := range flushes {
		for _, d := range e.digests {
			if p, ok := w.chunks[d]; ok && p.bin.flush != nil && p.bin.flush.n == e.n {
				delete(w.chunks, d)
			}
		}
	}
}

// fail ends a flush that did not become durable, and with it all that has been handed
// in since: it may depend on the flush.
func (w *writer) fail(f *flush, err error) {
	w.fill.Lock()
	defer w.fill.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.next
	for _, f := range []*flush{f, next} {
		if f.over = true; f.err == nil {
			f.err = err
		}
		for _, d := range f.deposits {
			d.err = err
		}
	}
	for _, b := range w.bins {
		for _, d := range b.deposits {
			d.err = err
		}
	}
	w.reset()
	close(next.done)
}

// flush makes the packs durable and then commits the rows that point into them.
func (s *Store) flush(f *flush) error {
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	ctx := context.Background() // many puts share it, so none of them can call it off
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
	all := f.index
	for _, b := range f.bins {
		all = all.join(b.rows)
	}
	for _, b := range all {
		if err := s.checkSpace(int64(b.Bytes())); err != nil {
			return err
		}
		if err := s.kv.Commit(ctx, b); err != nil {
			return s.stop(err)
		}
		s.totals = total
	}
	// Those who looked for these chunks before rely on writer.chunks, which has them still.
	s.absent.wrote(f.digests)
	if l := s.looked.Load(); l != nil {
		l.wrote(f.index)
	}
	return nil
}

// batches are rows in the order in which they are to be committed.
type batches []*kv.Batch

// set adds a row. Two rows of a few bytes always have room besides.
func (b *batches) set(key, value []byte) {
	n := len(*b)
	if n == 0 || !(*b)[n-1].Fits(3, len(key)+len(value)+64) {
		*b = append(*b, new(kv.Batch))
		n++
	}
	(*b)[n-1].Set(key, value)
}

// join adds rows behind those that are there, in as few commits as that takes.
func (b batches) join(more batches) batches {
	for _, m := range more {
		if n := len(b); n > 0 && b[n-1].Fits(m.Len()+2, m.Bytes()+64) {
			for r := range m.Rows() {
				b[n-1].Set(r.Key, r.Value)
			}
			continue
		}
		b = append(b, m)
	}
	return b
}

func (b batches) bytes() int {
	n := 0
	for _, x := range b {
		n += x.Bytes()
	}
	return n
}
