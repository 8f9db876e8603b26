package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
	"github.com/koii-network/scale/store/rowpack"
)

// A deposit is what one put hands to the writer, and what it has to wait for. It may
// be used by several goroutines.
type deposit struct {
	w   *writer
	ctx context.Context // of the put, but without its end: a look-up takes no time

	// Guarded by writer.mu.
	into  *tally  // what is new is counted here
	kind  int     // of the bin that takes chunks and rows
	open  [2]*bin // of each kind, the newest that it depends on
	flush *flush  // the newest that it depends on
	err   error   // of a flush that it depends on

	awaits  *flush         // by wait
	request *commitRequest // queued at once when that is over; nil if none is
}

var (
	_ ingest.Index  = (*deposit)(nil)
	_ ingest.Chunks = (*deposit)(nil)
	_ dag.Sink      = (*deposit)(nil)
)

// newDeposit begins a deposit of small datasets; the first that is not small makes it
// one of bulk.
func (w *writer) newDeposit(ctx context.Context) *deposit {
	return &deposit{w: w, ctx: context.WithoutCancel(ctx)}
}

// count has what is new from now on counted in t.
func (d *deposit) count(t *tally) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.into = t
}

// touch notes that the deposit depends on a bin. Under mu.
func (d *deposit) touch(b *bin) {
	if b.flush != nil {
		d.follow(b.flush)
		return
	}
	if b.kind == bulk {
		d.kind = bulk // see writer.turn
	}
	if d.open[b.kind] != b {
		d.open[b.kind] = b
		b.deposits = append(b.deposits, d)
	}
}

// follow notes that the deposit depends on a flush. Under mu.
func (d *deposit) follow(f *flush) {
	if !f.over && (d.flush == nil || d.flush.n < f.n) {
		d.flush = f
		f.deposits = append(f.deposits, d)
	}
}

// Known implements ingest.Index: chunks that are stored, and those on their way.
func (d *deposit) Known(_ context.Context, chunks []ingest.Chunk, known []bool) error {
	s, unknown := d.w.s, 0
	for i, c := range chunks {
		size, err := s.storedSize(d.ctx, c.Digest)
		if err != nil {
			return err
		}
		if known[i] = size == c.Size; !known[i] {
			unknown++
		}
	}
	if unknown == 0 {
		return nil
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	for i, c := range chunks {
		if !known[i] {
			known[i] = d.pending(c)
		}
	}
	return nil
}

// misnamed returns ErrMismatch for a MissingError of a chunk that is stored, but not with
// the size that it is named with: to store it again would not help.
func (d *deposit) misnamed(err error) error {
	var m *MissingError
	if !errors.As(err, &m) {
		return err
	}
	for i, named := range m.Sizes {
		digest := m.Digests[i]
		size, sizeErr := d.w.s.storedSize(d.ctx, digest)
		if sizeErr != nil {
			return sizeErr
		}
		if size == 0 {
			d.w.mu.Lock()
			size = d.w.chunks[digest].size
			d.w.mu.Unlock()
		}
		if size != 0 && size != named {
			return fmt.Errorf("chunk %v has %d bytes, the dataset names it with %d: %w", dag.RawCID(digest), size, named, ErrMismatch)
		}
	}
	return err
}

// pending says whether a chunk is on its way, and notes that the deposit depends on
// it. Under mu.
func (d *deposit) pending(c ingest.Chunk) bool {
	p, ok := d.w.chunks[c.Digest]
	if !ok || p.size != c.Size {
		return false
	}
	d.touch(p.bin)
	return true
}

// Add implements ingest.Chunks.
func (d *deposit) Add(ctx context.Context, chunks []ingest.NewChunk, last bool) error {
	w := d.w
	if err := w.admit(ctx, d); err != nil {
		return err
	}
	w.fill.Lock()
	defer w.fill.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !last {
		d.kind = bulk
	}
	for _, c := range chunks {
		if d.err != nil {
			return d.err
		}
		if d.pending(c.Chunk) {
			continue
		}
		b, err := d.put(ctx, c)
		if err != nil {
			return err
		}
		w.chunks[c.Digest] = pending{size: c.Size, bin: b}
		d.touch(b)
		d.into.Chunks++
		d.into.Plain += uint64(c.Size)
	}
	w.turn()
	return nil
}

// put puts a chunk into a bin. Under both locks, of which it may give up mu meanwhile.
func (d *deposit) put(ctx context.Context, c ingest.NewChunk) (*bin, error) {
	w := d.w
	b := w.bins[d.kind]
	for b.frame == nil || !b.frame.Add(c.Chunk, c.Data) {
		if b.frame != nil {
			w.cut(b)
		}
		w.mu.Unlock()
		frame, err := w.frames.Take(ctx)
		w.mu.Lock()
		if err != nil {
			return nil, err
		}
		b = w.bins[d.kind]
		b.frame = frame
	}
	if n := len(b.shares); n == 0 || b.shares[n-1].into != d.into {
		b.shares = append(b.shares, share{into: d.into})
	}
	b.shares[len(b.shares)-1].plain += uint64(c.Size)
	return b, nil
}

// Node implements dag.Sink.
func (d *deposit) Node(digest dag.Digest, block []byte) error {
	key := digestKey(rowNode, digest)
	return d.row(digest, key, block, (*rowpack.Packer).Node, func(rows *batches, value []byte) { rows.set(key, value) })
}

// Row implements dag.Sink.
func (d *deposit) Row(h dag.Hash, row []byte) error {
	return d.row(h, commitmentKey(h, 0), row, (*rowpack.Packer).Row, func(rows *batches, value []byte) {
		// The first part says that the row is there, so it is written last. The last
		// one is shorter than the others, and so may be empty.
		for part := len(value) / rowPart; part >= 0; part-- {
			rows.set(commitmentKey(h, part), value[part*rowPart:min(len(value), (part+1)*rowPart)])
		}
	})
}

// A packFunc is one of rowpack.Packer.
type packFunc func(p *rowpack.Packer, dst, value []byte) ([]byte, bool)

// row hands in what has a name, unless it is there or on its way. Key is the row that is
// committed last. Set is given the value as it is to be stored.
func (d *deposit) row(name [32]byte, key, value []byte, pack packFunc, set func(*batches, []byte)) error {
	w := d.w
	has, err := w.s.kv.Has(d.ctx, key)
	if err != nil {
		return fmt.Errorf("look up row: %w", storeError(err))
	}
	if has {
		return nil
	}
	if err := w.admit(d.ctx, d); err != nil {
		return err
	}
	if w.s.format >= formatPacked { // without the lock: it takes 20 to 40 µs
		buf := w.s.buffers.take()
		defer w.s.buffers.give(buf)
		var shrunk bool
		if *buf, shrunk = pack(w.s.packer, *buf, value); shrunk {
			value = *buf
		}
	}
	w.mu.Lock()
	if b, ok := w.rows[name]; ok {
		d.touch(b)
		w.mu.Unlock()
		return nil
	}
	if err := d.err; err != nil {
		w.mu.Unlock()
		return err
	}
	b := w.bins[d.kind]
	set(&b.rows, value)
	b.names = append(b.names, name)
	w.rows[name] = b
	d.touch(b)
	full := b.rows.bytes() >= binRows
	w.mu.Unlock()
	if full {
		w.cutRows(b)
	}
	return nil
}

// addFrame appends a frame that is sealed already. Fresh says which of its chunks had
// no row; the others keep theirs.
func (d *deposit) addFrame(ctx context.Context, fr pack.Frame, fresh []bool) error {
	w := d.w
	if err := w.admit(ctx, d); err != nil {
		return err
	}
	loc, err := w.s.appendFrame(fr)
	if err != nil {
		return err
	}
	w.mu.Lock()
	if d.err != nil {
		defer w.mu.Unlock()
		return d.err
	}
	f := w.next
	b, start, added := &bin{kind: bulk, flush: f}, uint32(0), tally{Packed: uint64(loc.Len)}
	for i, c := range fr.Chunks {
		chunk := ingest.Chunk{Digest: c.Digest, Size: c.Size}
		if fresh[i] && !d.pending(chunk) {
			f.add(c.Digest, chunkRow{Loc: loc, Start: start, Size: c.Size})
			w.chunks[c.Digest] = pending{size: c.Size, bin: b}
			added.Chunks++
			added.Plain += uint64(c.Size)
		}
		start += c.Size
	}
	f.plain += int(fr.PlainSize)
	f.count += len(fr.Chunks)
	f.total.add(added)
	d.into.add(added)
	d.follow(f)
	full := f.full()
	w.mu.Unlock()
	if full {
		w.kick()
	}
	return nil
}

// want asks for all that the deposit depends on to become durable, and returns the
// flush after which it is; nil if it is already.
func (d *deposit) want() *flush {
	w := d.w
	w.mu.Lock()
	f := d.flush
	for _, b := range d.open {
		if b != nil && b.flush == nil && d.err == nil {
			b.wanted = true
			f = w.next // which takes bins that are wanted
		}
	}
	d.awaits = f
	begin := false
	if f == w.next {
		f.wanted = true
		begin = w.now == nil // else it begins by itself
	}
	w.mu.Unlock()
	if begin {
		w.kick()
	}
	return f
}

// wait waits until all that was handed in is durable and indexed. If ctx ends it
// becomes so all the same.
func (d *deposit) wait(ctx context.Context) error {
	if f := d.want(); f != nil {
		select {
		case <-f.done:
		case <-ctx.Done():
			d.leave()
			return context.Cause(ctx)
		}
	}
	d.w.mu.Lock()
	err := d.err
	d.w.mu.Unlock()
	if err != nil {
		d.leave()
	}
	return err
}

// entry hands in the block of a ledger entry, which no row of the ledger names yet. It is
// durable with all that was handed in before.
func (d *deposit) entry(digest dag.Digest, block []byte) error {
	w := d.w
	if err := w.admit(d.ctx, d); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	b := w.bins[d.kind]
	b.rows.set(digestKey(rowEntry, digest), block)
	d.touch(b)
	return nil
}

// precedes says that a request is queued as soon as the wait that follows is over, or is
// said to have been missed.
func (d *deposit) precedes(r *commitRequest) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.request = r
}

// leave says that what the deposit precedes will not be queued.
func (d *deposit) leave() {
	d.w.mu.Lock()
	r := d.request
	d.request = nil
	d.w.mu.Unlock()
	if r != nil {
		d.w.s.missed(r)
	}
}
