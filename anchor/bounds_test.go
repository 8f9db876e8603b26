package anchor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestAgreed(t *testing.T) {
	for _, v := range []struct {
		say, against, n int
		want            bool
	}{
		{1, 0, 1, true}, {0, 0, 1, false}, {0, 1, 1, false},
		{1, 0, 2, true}, {1, 1, 2, false}, {2, 0, 2, true},
		{1, 0, 3, false}, {2, 0, 3, true}, {2, 1, 3, true}, {1, 2, 3, false},
		{2, 0, 4, true}, {2, 1, 4, false}, {2, 2, 4, false}, {3, 1, 4, true},
	} {
		if got := Agreed(v.say, v.against, DefaultAgree(v.n), v.n); got != v.want {
			t.Errorf("%d of %d say so, %d otherwise: %t", v.say, v.n, v.against, got)
		}
	}
	if Agreed(2, 0, 3, 3) {
		t.Error("two are enough where three are wanted")
	}
}

// Where blocks do not become final, the rows on their way do not grow without end, and
// all get there when they do.
func TestNothingBecomesFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.chain.depth = 1 << 40
		w.sched.Interval = time.Second
		w.start()
		defer w.stop()
		for i := range 3 * maxOpen {
			w.ledger.grow(int64(2 + i))
			w.pass(2 * time.Second)
			w.chain.mine(1)
			w.pass(2 * time.Second)
		}
		open := len(w.outbox.sizes("k2", func(n int64) bool { return w.outbox.open["k2"][n] }))
		if open != maxOpen {
			t.Errorf("%d rows are open", open)
		}
		w.chain.mu.Lock()
		w.chain.depth = 1
		w.chain.mu.Unlock()
		for range 10 {
			w.chain.mine(2)
			w.pass(5 * time.Second)
		}
		w.want(3*maxOpen+1, Final)
	})
}

// Words of endpoints neither grow a row until it cannot be stored any more, nor are they
// stored again and again.
func TestHostileWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		puts, calls := 0, 0
		w.outbox.fail = func(string, *Row) error { puts++; return nil }
		words := strings.Repeat("<\x01\x1b[31m\xff\u2028é>&", 40)
		w.chain.onPrep = func() error { calls++; return fmt.Errorf("%s: %w", words, ErrUnavailable) }
		w.start()
		w.pass(time.Hour)
		if r := w.want(1, Pending); strings.ContainsAny(r.Text(), "\x01\x1b\u2028") || !utf8.ValidString(r.Text()) || len(r.Text()) > maxText {
			t.Errorf("text %q", r.Text())
		}
		if calls < 100 || puts > 3 {
			t.Errorf("%d calls, %d writes", calls, puts)
		}
		w.stop()
	})
	// The largest row that can be has room.
	r := &Row{Chain: "arweave", Size: 1 << 40, Checkpoint: []byte(strings.Repeat("—", 700)), Tx: Tx{ID: strings.Repeat("A", 90), Raw: make([]byte, MaxRaw)}, Receipt: &Receipt{Network: strings.Repeat("n", 128), Block: strings.Repeat("b", 128)}}
	for i := range 2 * maxHistory {
		r.become(Sent+State(i%2), time.Unix(0, 0), strings.Repeat("\"<\x01\\", 500))
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeRow(b); err != nil {
		t.Error(err)
	}
}

// No body stays when its transaction has come to an end, also not one that a crash left.
func TestBodiesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := extending(t)
		w.chain.onSend = func(Tx) (bool, error) { return false, ErrUnavailable }
		w.start()
		w.want(1, Sent)
		if len(w.outbox.bodies) != 1 {
			t.Fatalf("%d bodies", len(w.outbox.bodies))
		}
		w.ledger.grow(2)
		w.chain.mine(11)
		w.chain.mu.Lock()
		w.chain.onSend = nil
		w.chain.mu.Unlock()
		w.pass(2 * time.Minute) // the first has expired, the second is under way
		w.want(1, Expired)
		w.want(2, Sent)
		if len(w.outbox.bodies) != 1 {
			t.Errorf("%d bodies while one is under way", len(w.outbox.bodies))
		}
		w.chain.mine(4)
		w.pass(2 * time.Second)
		w.want(2, Final)
		w.stop()
		if err := w.outbox.PutBody(t.Context(), "k2", 2, []byte("left by a crash")); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.stop()
		if len(w.outbox.bodies) != 0 {
			t.Errorf("%d bodies at the end", len(w.outbox.bodies))
		}
	})
}

// countingOutbox counts the rows that are read from the newest down.
type countingOutbox struct {
	*memOutbox
	read int
}

func (o *countingOutbox) Back(ctx context.Context, chain string, from int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for b, err := range o.memOutbox.Back(ctx, chain, from) {
			if o.read++; !yield(b, err) {
				return
			}
		}
	}
}

// Rows that came to nothing are read when the worker starts and when a row changes, not
// at each look; those below the newest final one never.
func TestManyRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const final, refused = 2000, 500
		o := &countingOutbox{memOutbox: newMemOutbox()}
		for n := int64(1); n <= final+refused; n++ {
			r := &Row{Chain: "k2", Size: n, Checkpoint: []byte("c"), Attempt: 1, Tx: Tx{ID: "tx", Raw: []byte("raw")}}
			if n <= final {
				r.Receipt = &Receipt{Chain: "k2", Raw: r.Tx.Raw}
				r.become(Final, time.Now(), "")
			} else {
				r.become(Refused, time.Now(), "")
			}
			b, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Put(t.Context(), "k2", n, b, false); err != nil {
				t.Fatal(err)
			}
		}
		chain := newFakeChain("k2")
		w, err := NewWorker(Options{
			Ledger: newFakeLedger(final + refused + 1), Outbox: o,
			Targets: []Target{{chain, Schedule{Interval: time.Minute, Poll: time.Second}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		time.Sleep(3 * time.Hour) // of fake time: thousands of looks at what is under way
		synctest.Wait()
		cancel()
		<-done
		if r := o.row(t, "k2", final+refused+1); r == nil || r.State != Sent {
			t.Fatalf("%+v", r)
		}
		if o.read > 10*refused {
			t.Errorf("read %d rows", o.read)
		}
	})
}

// An extension that reaches no further than one that is not final yet waits for that:
// it would be paid for nothing, and in the worst case forget the other one.
func TestSmallerThanSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := extending(t)
		w.ledger.signed = []int64{1, 50}
		w.chain.depth = 1 << 40
		var fits atomic.Int64
		wk, err := NewWorker(Options{
			Ledger: w.ledger, Outbox: w.outbox, Targets: []Target{{w.chain, w.sched}},
			Encode: func(_ context.Context, x Extension) ([]byte, error) {
				if n := fits.Load(); n > 0 && x.Size-x.Base.Size > n {
					return nil, &TooLargeError{Fits: n}
				}
				return []byte("body"), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); wk.Run(ctx) }()
		synctest.Wait()
		w.ledger.grow(100)
		for range 4 {
			w.chain.mine(1)
			w.pass(time.Minute)
		}
		first := w.want(100, Seen)
		fits.Store(60)
		w.ledger.grow(200)
		w.pass(5 * time.Minute)
		if r := w.want(100, Seen); r.Tx.ID != first.Tx.ID || w.outbox.row(t, "k2", 50) != nil {
			t.Errorf("row of 100 entries has %s, was %s", r.Tx.ID, first.Tx.ID)
		}
		if st, err := wk.State(t.Context(), "k2"); err != nil || !strings.Contains(st.Failing, "has to be final first") {
			t.Errorf("%+v, %v", st, err)
		}
		cancel()
		<-done
	})
}

// What contradicts the others is told in the row, and once.
func TestDissentIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		puts := 0
		w.outbox.fail = func(string, *Row) error { puts++; return nil }
		phase := Waiting
		w.chain.onStatus = func(tx Tx) (*Status, error) {
			return &Status{
				Phase: phase, Detail: "waits", Dissent: Dissent([]string{"https://b"}, []string{"no"}),
				Receipt: Receipt{Chain: "k2", Raw: tx.Raw, Height: 1, Block: "b"},
			}, nil
		}
		w.start()
		defer w.stop()
		for _, p := range []Phase{Waiting, Absent, Included} {
			w.chain.mu.Lock()
			phase = p
			w.chain.mu.Unlock()
			w.pass(10 * time.Minute)
		}
		if r := w.want(1, Seen); r.Text() != "waits; https://b says no" {
			t.Errorf("text %q", r.Text())
		}
		if puts > 6 {
			t.Errorf("%d writes", puts)
		}
		if _, err := w.worker.Wait(t.Context(), "k2", 1, Seen); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
