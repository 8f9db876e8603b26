package k2_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/k2"
)

// methods are those that the adapter calls on a smooth way.
var methods = []string{
	"getGenesisHash", "getLatestBlockhash", "getAccountInfo", "simulateTransaction", "getFeeForMessage", "getBalance",
	"sendTransaction", "getSignatureStatuses", "getBlock",
}

// says reports whether one of the transitions so far has the words.
func (w *world) says(words string) bool {
	return slices.ContainsFunc(w.words, func(s string) bool { return strings.Contains(s, words) })
}

func TestSmooth(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	r := w.final(1)
	if r.Attempt != 1 || r.Tx.Fee != baseFee || r.Tx.Expires == 0 {
		t.Errorf("row %+v", r)
	}
	var states []anchor.State
	for _, h := range r.History {
		states = append(states, h.State)
	}
	if states = slices.Compact(states); !slices.Equal(states, []anchor.State{anchor.Pending, anchor.Signed, anchor.Sent, anchor.Seen, anchor.Final}) {
		t.Errorf("history %v", states)
	}
}

// Every fault of a connection or an answer, at the first calls of every method: the
// checkpoint gets there, and is paid for once.
func TestEveryCall(t *testing.T) {
	faults := []struct {
		name  string
		fault anchortest.Fault
		slow  bool // as long as a call may take
	}{
		{"cut", anchortest.Cut, false},
		{"reply lost", anchortest.CutAfter, false},
		{"500", anchortest.Status(http.StatusInternalServerError), false},
		{"502 after", anchortest.StatusAfter(http.StatusBadGateway), false},
		{"429", anchortest.Status(http.StatusTooManyRequests), false},
		{"403", anchortest.Status(http.StatusForbidden), false},
		{"redirect", anchortest.Status(http.StatusTemporaryRedirect, "Location", chain.URL), false},
		{"truncated", anchortest.Truncate, false},
		{"malformed", anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":`), false},
		{"no JSON", anchortest.Body("<html>busy</html>"), false},
		{"empty", anchortest.Body(""), false},
		{"null", anchortest.Body("null"), false},
		{"no result", anchortest.Body(`{"jsonrpc":"2.0","id":1}`), false},
		{"null result", anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":null}`), false},
		{"empty result", anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":{}}`), false},
		{"null value", anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":1},"value":null}}`), false},
		{"list", anchortest.Body(`[]`), false},
		{"unhealthy", anchortest.Error(-32005, "Node is behind by 42 slots"), false},
		{"internal", anchortest.Error(-32603, "Internal error"), false},
		{"endless", anchortest.Endless(1<<30, false), false},
		{"1 GB", anchortest.Endless(1<<30, true), false},
		{"time-out before", anchortest.Hang, true},
		{"time-out after", anchortest.HangAfter, true},
	}
	s := newStore(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			put(t, s)
			w := newWorld(t, s, 1)
			times := 3
			if f.slow {
				w.call, times = 150*time.Millisecond, 1
			}
			for _, m := range methods {
				w.proxies[0].Fault(m, times, f.fault)
			}
			w.final(1)
			for _, m := range methods {
				// One sending that acted is enough.
				if n := len(w.proxies[0].Seen(m)); n <= times && m != "sendTransaction" {
					t.Errorf("%s was called %d times", m, n)
				}
			}
		})
	}
}

// While an endpoint is down, puts go on, nothing is signed twice, and there is no hurry.
func TestDown(t *testing.T) {
	for _, at := range []anchor.State{anchor.Pending, anchor.Sent, anchor.Seen} {
		t.Run(at.String(), func(t *testing.T) {
			w := newWorld(t, newStore(t), 1)
			p := w.proxies[0]
			w.sched.MaxBackoff = time.Minute
			down, longest := 0, time.Duration(0)
			w.onRow = func(r anchor.Row) {
				if down == 0 && r.State == at {
					down = 1
					p.Down()
				}
			}
			w.onWait = func(_ int, d time.Duration) {
				if down == 0 || down > 60 {
					return
				}
				longest = max(longest, d)
				if down++; down > 60 {
					p.Up()
				}
			}
			r := w.final(1)
			if longest < 30*time.Second || longest > time.Minute {
				t.Errorf("waited at most %v between attempts", longest)
			}
			if r.Attempt != 1 && at != anchor.Sent {
				t.Errorf("attempt %d", r.Attempt)
			}
		})
	}
}

// A put does not wait for a chain that does not answer.
func TestPutWhileHanging(t *testing.T) {
	s := newStore(t)
	w := newWorld(t, s, 1)
	released := make(chan struct{})
	hanging := make(chan struct{}, 1)
	w.proxies[0].Fault("sendTransaction", 1, func(x *anchortest.Exchange) {
		hanging <- struct{}{}
		anchortest.Until(released, anchortest.Pass)(x)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-hanging
		put(t, s)
		close(released)
	}()
	before, _, _ := s.Newest()
	if _, err := w.run(400, func(r anchor.Row) bool { return isFinal(r) && r.Size == before }); err != nil {
		t.Error(err)
	}
	<-done
	w.final(2) // the entry of the meantime has its own
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "100000": time.Hour, "-3": 0, "soon": 0} {
		t.Run(header, func(t *testing.T) {
			w := newWorld(t, newStore(t), 1)
			var pairs []string
			if header != "" {
				pairs = []string{"Retry-After", header}
			}
			w.proxies[0].Fault("getLatestBlockhash", 2, anchortest.Status(http.StatusTooManyRequests, pairs...))
			var waited []time.Duration
			w.onWait = func(n int, d time.Duration) {
				if n <= 2 {
					waited = append(waited, d)
				}
			}
			w.final(1)
			for _, d := range waited {
				if d < want || want == 0 && d > time.Second {
					t.Errorf("waited %v, the endpoint asked for %q", waited, header)
				}
			}
		})
	}
}

// Another endpoint takes over from one that is down, whatever it does.
func TestFailOver(t *testing.T) {
	for name, f := range map[string]anchortest.Fault{
		"cut": anchortest.Cut, "503": anchortest.Status(503), "429": anchortest.Status(429, "Retry-After", "3600"), "malformed": anchortest.Body("{"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, newStore(t), 3)
			w.proxies[0].Fault("", -1, f)
			if r := w.final(1); r.Attempt != 1 {
				t.Errorf("attempt %d", r.Attempt)
			}
			// The breaker keeps it from being asked at every step.
			if n := len(w.proxies[0].Seen("")); n > 8 {
				t.Errorf("asked the broken endpoint %d times", n)
			}
		})
	}
}

// A transaction that was taken and got lost is sent again, the same.
func TestDropped(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	rpcCall[any](t, "svm_dropNext", 3)
	if r := w.final(1); r.Attempt != 1 {
		t.Errorf("attempt %d", r.Attempt)
	}
	if n := len(w.proxies[0].Seen("sendTransaction")); n != 4 {
		t.Errorf("sent %d times", n)
	}
}

// One that never lands expires by the chain's height, and only then is another signed.
func TestExpired(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	rpcCall[any](t, "svm_dropNext", 1<<30)
	var expires uint64
	w.onRow = func(r anchor.Row) {
		switch {
		case r.State == anchor.Signed:
			expires = r.Tx.Expires
		case r.State == anchor.Expired:
			rpcCall[any](t, "svm_dropNext", 0)
			if h := rpcCall[uint64](t, "getBlockHeight"); h <= expires {
				t.Errorf("given up at height %d, it could land until %d", h, expires)
			}
		}
	}
	if r := w.final(1); r.Attempt != 2 {
		t.Errorf("attempt %d", r.Attempt)
	}
}

// A transaction that landed and failed was paid, and the checkpoint is anchored by
// another; but a chain on which all fail does not get all the money.
func TestFailed(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	rpcCall[any](t, "svm_failNext", 1)
	if r := w.final(2); r.Attempt != 2 {
		t.Errorf("attempt %d", r.Attempt)
	}
	if !w.says("ProgramFailedToComplete") {
		t.Errorf("nobody says why: %q", w.words)
	}

	w = newWorld(t, newStore(t), 1)
	w.sched.MinBackoff = time.Minute
	rpcCall[any](t, "svm_failNext", 1<<30)
	if _, err := w.run(200, isFinal); !errors.Is(err, errLimit) {
		t.Error(err)
	}
	if got := paid(t, w.wallet); len(got) != 1 {
		t.Errorf("paid for %d in less than a minute", len(got))
	}
}

// A transaction whose fork is dropped is looked for, and sent again, the same.
func TestForkDropped(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	forgot := false
	w.onRow = func(r anchor.Row) {
		if r.State == anchor.Seen && !forgot {
			forgot = true
			if !rpcCall[bool](t, "svm_forget", r.Tx.ID) {
				t.Error("nothing to forget")
			}
		}
	}
	if r := w.final(1); r.Attempt != 1 {
		t.Errorf("attempt %d", r.Attempt)
	}
	if !forgot || !w.says("dropped out of the chain") {
		t.Errorf("transitions %q", w.words)
	}
}

func TestFunds(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	w.wallet = newWallet(t, 0)
	w.onWait = func(n int, _ time.Duration) {
		if n == 10 {
			fund(t, w.wallet, 1e9)
		}
	}
	w.final(1)
	if !w.says("holds 0 ROE") && !w.says("AccountNotFound") {
		t.Errorf("nobody says that the wallet is empty: %q", w.words)
	}
}

func TestFeeSpike(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	rpcCall[any](t, "svm_setFee", k2.DefaultMaxFee+1)
	w.onWait = func(n int, _ time.Duration) {
		if n == 10 {
			rpcCall[any](t, "svm_setFee", baseFee)
		}
	}
	w.final(1)
	if !w.says("above the fee cap") {
		t.Errorf("nobody says so: %q", w.words)
	}
}

func TestMemoProgramMissing(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	rpcCall[any](t, "svm_setProgram", k2.DefaultMemoProgram, false)
	w.onWait = func(n int, _ time.Duration) {
		if n == 10 {
			rpcCall[any](t, "svm_setProgram", k2.DefaultMemoProgram, true)
		}
	}
	w.final(1)
	if !w.says("--memo-program") {
		t.Errorf("nobody says so: %q", w.words)
	}
}

func TestWrongCluster(t *testing.T) {
	w := newWorld(t, newStore(t), 1)
	w.cfg.Genesis = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
	last, err := w.run(10, isFinal)
	if !errors.Is(err, errLimit) || last.State != anchor.Pending || !w.says("wrong network") {
		t.Errorf("%v, %+v, %q", err, last, w.words)
	}
	if n := len(w.proxies[0].Seen("")) - len(w.proxies[0].Seen("getGenesisHash")); n != 0 {
		t.Errorf("%d calls to a foreign chain", n)
	}
	// One such endpoint beside a right one does no harm.
	w = newWorld(t, newStore(t), 2)
	w.cfg.Agree = 1
	w.proxies[0].Fault("getGenesisHash", -1, anchortest.Result(func(any) any { return "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d" }))
	w.final(1)
	if n := len(w.proxies[0].Seen("sendTransaction")); n != 0 {
		t.Errorf("%d transactions sent to a foreign chain", n)
	}
}

// A clock that is wrong by a day changes what history shows, and nothing else.
func TestClock(t *testing.T) {
	for _, d := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		t.Run(d.String(), func(t *testing.T) {
			s := newStore(t)
			w := newWorld(t, s, 2)
			w.proxies[0].Fault("", 4, anchortest.Status(http.StatusTooManyRequests, "Retry-After", "1"))
			w.now = func() time.Time { return time.Now().Add(d) }
			r := w.final(1)
			if off := r.Receipt.Time - time.Now().Unix(); off < -600 || off > 600 {
				t.Errorf("the block's time is %d seconds off", off)
			}
			// The next worker has the right clock again.
			put(t, s)
			w.now = time.Now
			w.final(2)
		})
	}
}

// What a memo has room for is anchored, with a compute limit where one is needed.
func TestLongMemo(t *testing.T) {
	w := newWorld(t, nil, 1)
	k := w.chain()
	for _, n := range []int{1, 150, 356, 566} {
		j := anchor.Job{Checkpoint: []byte(strings.Repeat("m", n))}
		tx, err := k.Prepare(t.Context(), j)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if err := k.Send(t.Context(), tx, nil); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		type status struct {
			Err   any
			Level string `json:"confirmationStatus"`
		}
		if got := rpcCall[struct{ Value []*status }](t, "getSignatureStatuses", []string{tx.ID}).Value[0]; got == nil || got.Err != nil {
			t.Errorf("%d bytes: %+v", n, got)
		}
		a, err := k2.Verifier{}.Open(anchor.Receipt{Raw: tx.Raw})
		if err != nil || string(a.Checkpoint) != string(j.Checkpoint) {
			t.Errorf("%d bytes: %v", n, err)
		}
		// Sending it again is harmless.
		if err := k.Send(t.Context(), tx, nil); err != nil {
			t.Errorf("%d bytes, again: %v", n, err)
		}
	}
	if _, err := k.Prepare(t.Context(), anchor.Job{Checkpoint: make([]byte, 1200)}); !errors.Is(err, anchor.ErrRefused) {
		t.Errorf("1,200 bytes: %v", err)
	}
	b, err := k.Balance(t.Context())
	if err != nil || b.Units != 1e9-4*baseFee || b.Price != baseFee || b.Anchors() != int64(b.Units/baseFee) || b.Address != w.wallet.PublicKey().String() {
		t.Errorf("%+v, %v", b, err)
	}
}

// Nobody is given the transaction with its signature before it is sent.
func TestUnsignedBeforeSent(t *testing.T) {
	w := newWorld(t, nil, 1)
	tx, err := w.chain().Prepare(t.Context(), anchor.Job{Checkpoint: []byte("memo")})
	if err != nil {
		t.Fatal(err)
	}
	calls := w.proxies[0].Seen("")
	if len(w.proxies[0].Seen("simulateTransaction")) == 0 {
		t.Error("nothing was simulated")
	}
	for _, r := range calls {
		if strings.Contains(string(r.Body), rawText(tx)[:80]) {
			t.Errorf("%s was given the signature", r.Name)
		}
	}
}
