package anchor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// memOutbox keeps rows in memory; fail, if set, is asked before each write.
type memOutbox struct {
	mu     sync.Mutex
	rows   map[string]map[int64][]byte
	open   map[string]map[int64]bool
	bodies map[string][]byte
	fail   func(op string, row *Row) error
}

func newMemOutbox() *memOutbox {
	return &memOutbox{rows: map[string]map[int64][]byte{}, open: map[string]map[int64]bool{}, bodies: map[string][]byte{}}
}

func (o *memOutbox) Get(_ context.Context, chain string, size int64) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rows[chain][size], nil
}

func (o *memOutbox) Put(ctx context.Context, chain string, size int64, row []byte, open bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := DecodeRow(row)
	if err != nil {
		return err
	}
	if o.fail != nil {
		if err := o.fail("put", r); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rows[chain] == nil {
		o.rows[chain], o.open[chain] = map[int64][]byte{}, map[int64]bool{}
	}
	o.rows[chain][size] = row
	delete(o.open[chain], size)
	if open {
		o.open[chain][size] = true
	}
	return nil
}

func (o *memOutbox) Delete(_ context.Context, chain string, size int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.rows[chain], size)
	delete(o.open[chain], size)
	delete(o.bodies, fmt.Sprint(chain, size))
	return nil
}

func (o *memOutbox) sizes(chain string, keep func(int64) bool) []int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s []int64
	for n := range o.rows[chain] {
		if keep(n) {
			s = append(s, n)
		}
	}
	slices.Sort(s)
	return s
}

func (o *memOutbox) yield(ctx context.Context, chain string, sizes []int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, n := range sizes {
			b, err := o.Get(ctx, chain, n)
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

func (o *memOutbox) Rows(ctx context.Context, chain string, from int64) iter.Seq2[[]byte, error] {
	return o.yield(ctx, chain, o.sizes(chain, func(n int64) bool { return n >= from }))
}

func (o *memOutbox) Back(ctx context.Context, chain string, from int64) iter.Seq2[[]byte, error] {
	s := o.sizes(chain, func(n int64) bool { return n <= from })
	slices.Reverse(s)
	return o.yield(ctx, chain, s)
}

func (o *memOutbox) OpenRows(ctx context.Context, chain string) iter.Seq2[[]byte, error] {
	return o.yield(ctx, chain, o.sizes(chain, func(n int64) bool { return o.open[chain][n] }))
}

func (o *memOutbox) PutBody(_ context.Context, chain string, size int64, body []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bodies[fmt.Sprint(chain, size)] = body
	return nil
}

func (o *memOutbox) Body(_ context.Context, chain string, size, n int64) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, ok := o.bodies[fmt.Sprint(chain, size)]
	if !ok || int64(len(b)) != n {
		return nil, errors.New("no such body")
	}
	return b, nil
}

func (o *memOutbox) DeleteBody(_ context.Context, chain string, size int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.bodies, fmt.Sprint(chain, size))
	return nil
}

// row returns a row, or nil.
func (o *memOutbox) row(t *testing.T, chain string, size int64) *Row {
	t.Helper()
	b, err := o.Get(t.Context(), chain, size)
	if b == nil || err != nil {
		return nil
	}
	r, err := DecodeRow(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fakeLedger is a log of which only the size matters here.
type fakeLedger struct {
	mu      sync.Mutex
	size    int64
	signed  []int64
	changed chan struct{}
}

func newFakeLedger(size int64) *fakeLedger {
	return &fakeLedger{size: size, signed: []int64{size}, changed: make(chan struct{})}
}

func (f *fakeLedger) Origin() string { return "log.example" }

func (f *fakeLedger) Newest() (int64, []byte, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, fmt.Appendf(nil, "checkpoint %d", f.size), f.changed
}

func (f *fakeLedger) CheckpointAt(_ context.Context, size int64) (int64, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	best := int64(0)
	for _, s := range f.signed {
		if s <= size {
			best = max(best, s)
		}
	}
	return best, fmt.Appendf(nil, "checkpoint %d", best), nil
}

func (f *fakeLedger) RootAt(_ context.Context, size int64) (tlog.Hash, error) {
	return tlog.Hash{byte(size)}, nil
}

func (f *fakeLedger) grow(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = size
	f.signed = append(f.signed, size)
	close(f.changed)
	f.changed = make(chan struct{})
}

// fakeChain is a chain in memory. A transaction lands at the next call of mine.
type fakeChain struct {
	name    string
	extends bool

	mu       sync.Mutex
	height   uint64
	seq      int
	prepared []Job
	taken    map[string]int    // id -> times it was given to the chain
	landed   map[string]uint64 // id -> height
	failed   map[string]bool
	depth    uint64 // for Settled
	validity uint64
	onPrep   func() error
	onSend   func(tx Tx) (take bool, err error)
	onStatus func(tx Tx) (*Status, error)
}

func newFakeChain(name string) *fakeChain {
	return &fakeChain{name: name, height: 100, taken: map[string]int{}, landed: map[string]uint64{}, failed: map[string]bool{}, depth: 3, validity: 10}
}

func (c *fakeChain) Name() string  { return c.name }
func (c *fakeChain) Extends() bool { return c.extends }

func (c *fakeChain) Prepare(_ context.Context, j Job) (Tx, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onPrep != nil {
		if err := c.onPrep(); err != nil {
			return Tx{}, err
		}
	}
	c.seq++
	c.prepared = append(c.prepared, j)
	return Tx{ID: fmt.Sprintf("tx%d", c.seq), Raw: fmt.Appendf(nil, "raw %d of %d", c.seq, j.Size), Expires: c.height + c.validity, Fee: 5}, nil
}

func (c *fakeChain) Send(_ context.Context, tx Tx, _ []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	take, err := true, error(nil)
	if c.onSend != nil {
		take, err = c.onSend(tx)
	}
	if take {
		c.taken[tx.ID]++
	}
	return err
}

// mine makes a block of what was taken and can still land.
func (c *fakeChain) mine(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		c.height++
		for id := range c.taken {
			if _, ok := c.landed[id]; !ok {
				c.landed[id] = c.height
			}
		}
	}
}

func (c *fakeChain) Status(_ context.Context, tx Tx) (Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onStatus != nil {
		if st, err := c.onStatus(tx); st != nil || err != nil {
			return *cmpStatus(st), err
		}
	}
	h, ok := c.landed[tx.ID]
	switch {
	case ok && c.failed[tx.ID]:
		return Status{Phase: Failed, Detail: "custom program error"}, nil
	case ok:
		s := Status{Phase: Included, Detail: "included", Receipt: Receipt{Chain: c.name, Raw: tx.Raw, Height: h, Block: fmt.Sprint("block", h), Depth: c.height - h}}
		if c.height-h >= c.depth {
			s.Phase = Settled
		}
		return s, nil
	case c.height > tx.Expires:
		return Status{Phase: Dead, Detail: "expired"}, nil
	case c.taken[tx.ID] > 0:
		return Status{Phase: Waiting}, nil
	}
	return Status{Phase: Absent}, nil
}

func cmpStatus(s *Status) *Status {
	if s == nil {
		return &Status{}
	}
	return s
}

func (c *fakeChain) Balance(context.Context) (Balance, error) {
	return Balance{Address: "wallet", Units: 1000, Price: 5}, nil
}

// world is a worker with what it works on, in a bubble of fake time.
type world struct {
	t      *testing.T
	ledger *fakeLedger
	outbox *memOutbox
	chain  *fakeChain
	sched  Schedule
	cancel context.CancelFunc
	done   chan struct{}
	worker *Worker
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, ledger: newFakeLedger(1), outbox: newMemOutbox(), chain: newFakeChain("k2"),
		sched: Schedule{Interval: time.Minute, Poll: time.Second, Call: 10 * time.Second, MinBackoff: time.Second, MaxBackoff: 30 * time.Second},
	}
}

func (w *world) start() {
	w.t.Helper()
	wk, err := NewWorker(Options{
		Ledger: w.ledger, Outbox: w.outbox, Targets: []Target{{w.chain, w.sched}},
		Encode: func(_ context.Context, x Extension) ([]byte, error) {
			return fmt.Appendf(nil, "extension %d to %d", x.Base.Size, x.Size), nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	w.worker, w.cancel, w.done = wk, cancel, make(chan struct{})
	go func() { defer close(w.done); wk.Run(ctx) }()
	synctest.Wait()
}

func (w *world) stop() {
	w.cancel()
	<-w.done
}

// pass lets time go by, and then what is due happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) want(size int64, s State) *Row {
	w.t.Helper()
	r := w.outbox.row(w.t, w.chain.name, size)
	if r == nil {
		w.t.Fatalf("no row of size %d, want %s", size, s)
	}
	if r.State != s {
		w.t.Fatalf("size %d is %s (%s), want %s", size, r.State, r.Text(), s)
	}
	return r
}

func (w *world) transactions() int {
	w.chain.mu.Lock()
	defer w.chain.mu.Unlock()
	return w.chain.seq
}
