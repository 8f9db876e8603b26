package arweave

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
)

// idOf returns the name of the transaction in a POST /tx.
func idOf(body []byte) string {
	var tx struct{ ID string }
	_ = json.Unmarshal(body, &tx) // then it has none
	return tx.ID
}

// calls are those that the adapter makes on a smooth way, by the beginning of their names.
var calls = []string{"GET /info", "GET /tx_anchor", "GET /price/", "GET /wallet/", "POST /tx", "POST /chunk", "GET /tx/", "GET /block/"}

// isData matches those that read a body back.
func isData(r anchortest.Request) bool {
	_, path, _ := strings.Cut(r.Name, " /")
	return isID(path) || strings.HasPrefix(path, "raw/") || strings.HasPrefix(path, "chunk/")
}

// isStatus matches those that ask where a transaction is.
func isStatus(r anchortest.Request) bool { return strings.HasSuffix(r.Name, "/status") }

// several is a body of several chunks.
const several = 700_001

func TestSmooth(t *testing.T) {
	for name, size := range map[string]int{"entries": 0, "several chunks": several} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.body = size
			r := w.final(1)
			var states []anchor.State
			for _, h := range r.History {
				states = append(states, h.State)
			}
			if states = slices.Compact(states); !slices.Equal(states, []anchor.State{anchor.Pending, anchor.Signed, anchor.Sent, anchor.Seen, anchor.Final}) || r.Attempt != 1 {
				t.Errorf("attempt %d, history %v", r.Attempt, states)
			}
			if n := len(w.proxies[0].Seen("POST /tx")); n != 1 {
				t.Errorf("sent %d times", n)
			}
		})
	}
}

// Every fault of a connection or an answer, at the first calls of every method: the
// checkpoint gets there, whole, and is paid for once.
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
		{"429 for a minute", anchortest.Status(http.StatusTooManyRequests, "Retry-After", "60"), false},
		{"401", anchortest.Status(http.StatusUnauthorized), false},
		{"redirect", anchortest.Status(http.StatusTemporaryRedirect, "Location", "http://127.0.0.1:1/"), false},
		{"truncated", anchortest.Truncate, false},
		{"endless", anchortest.Endless(1<<30, false), false},
		{"1 GB", anchortest.Endless(1<<30, true), false},
		{"time-out before", anchortest.Hang, true},
		{"time-out after", anchortest.HangAfter, true},
	}
	if testing.Short() {
		faults = faults[:4]
	}
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t, 1)
			if i%2 == 0 {
				w.body = several
			}
			times := 3
			if f.slow {
				w.call, times = 150*time.Millisecond, 1
			}
			for _, name := range calls {
				w.proxies[0].Fault(name, times, f.fault)
			}
			w.proxies[0].FaultIf(isData, times, f.fault)
			w.final(1)
		})
	}
}

// Answers that say nothing, or what cannot be, at the calls whose answers are read.
func TestEveryAnswer(t *testing.T) {
	answers := []string{"", "null", "{}", "<html>busy</html>", "-1", strings.Repeat("9", 300)}
	if testing.Short() {
		answers = answers[:3]
	}
	for i, a := range answers {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			w := newWorld(t, 1)
			for _, name := range calls {
				if !strings.HasPrefix(name, "POST") {
					w.proxies[0].Fault(name, 1, anchortest.Body(a))
				}
			}
			w.proxies[0].FaultIf(isData, 1, anchortest.Body(a))
			w.final(1)
		})
	}
}

// The reply to what matters most is lost, again and again: nothing is signed twice.
func TestReplyLost(t *testing.T) {
	for _, name := range []string{"POST /tx", "POST /chunk"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.body = several
			w.proxies[0].Fault(name, 5, anchortest.CutAfter)
			if r := w.final(1); r.Attempt != 1 {
				t.Errorf("attempt %d: %q", r.Attempt, w.words)
			}
		})
	}
}

// The upload fails half-way, at each chunk, also for good in this process: the next one
// goes on with the same transaction, and nothing is final without its body.
func TestUploadFails(t *testing.T) {
	for left := range 3 {
		w := newWorld(t, 1)
		w.body = several
		w.proxies[0].Fault("POST /chunk", left, anchortest.Pass)
		w.proxies[0].Fault("POST /chunk", -1, anchortest.Status(http.StatusBadRequest))
		last, err := w.run(30, isFinal)
		if !errors.Is(err, errLimit) || last.Attempt != 1 || !w.says("POST /chunk") {
			t.Errorf("%v in %s: %q", err, last.State, w.words)
		}
		w.proxies[0].Heal()
		w.final(1)
	}
}

// While an endpoint is down, puts go on, nothing is signed twice, and there is no hurry.
func TestDown(t *testing.T) {
	for _, at := range []anchor.State{anchor.Pending, anchor.Sent, anchor.Seen} {
		t.Run(at.String(), func(t *testing.T) {
			w := newWorld(t, 1)
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
				if down == 0 || down > 70 {
					return
				}
				longest = max(longest, d)
				if down++; down > 70 {
					p.Up()
				}
			}
			r := w.final(1)
			if longest < 30*time.Second || longest > time.Minute {
				t.Errorf("waited at most %v between attempts", longest)
			}
			if r.Attempt != 1 && at != anchor.Sent { // then it had never left
				t.Errorf("attempt %d", r.Attempt)
			}
		})
	}
}

// A put does not wait for a chain that does not answer.
func TestPutWhileHanging(t *testing.T) {
	w := newWorld(t, 1)
	released, hanging, done := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
	w.proxies[0].Fault("POST /tx", 1, func(x *anchortest.Exchange) {
		hanging <- struct{}{}
		anchortest.Until(released, anchortest.Pass)(x)
	})
	before, _, _ := w.store.Newest()
	go func() {
		defer close(done)
		<-hanging
		w.put()
		close(released)
	}()
	if _, err := w.run(300, func(r anchor.Row) bool { return isFinal(r) && r.Size == before }); err != nil {
		t.Error(err)
	}
	<-done
	w.final(2) // the entry of the meantime has its own
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "100000": time.Hour} {
		w := newWorld(t, 1)
		var pairs []string
		if header != "" {
			pairs = []string{"Retry-After", header}
		}
		w.proxies[0].Fault("GET /tx_anchor", 2, anchortest.Status(http.StatusTooManyRequests, pairs...))
		w.onWait = func(n int, d time.Duration) {
			if n <= 2 && (d < want || want == 0 && d > time.Second) {
				t.Errorf("waited %v, the endpoint asked for %q", d, header)
			}
		}
		w.final(1)
	}
}

// A transaction that falls out of its block is looked for, and sent again, the same; if
// nobody takes it until it is too late, another one is signed.
func TestFallsOut(t *testing.T) {
	for name, lost := range map[string]bool{"lands again": false, "never again": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			forgot := ""
			w.onRow = func(r anchor.Row) {
				if r.State != anchor.Seen || forgot != "" {
					return
				}
				forgot = r.Tx.ID
				if lost {
					w.proxies[0].FaultIf(func(r anchortest.Request) bool { return r.Name == "POST /tx" && idOf(r.Body) == forgot }, -1, anchortest.Status(http.StatusBadRequest))
				}
				if err := w.gw.Forget(context.Background(), forgot); err != nil {
					t.Error(err)
				}
			}
			if r := w.final(1); (r.Attempt == 2) != lost || !w.says("dropped out of the chain") {
				t.Errorf("attempt %d: %q", r.Attempt, w.words)
			}
		})
	}
}

// What arlocal says of a transaction that waits is 200; a gateway of the network says 202.
func TestPending(t *testing.T) {
	for _, code := range []int{http.StatusOK, http.StatusAccepted} {
		w := newWorld(t, 1)
		n := 0
		w.still = 5
		w.proxies[0].FaultIf(isStatus, -1, func(x *anchortest.Exchange) {
			a, err := x.Forward()
			if err != nil {
				anchortest.Cut(x)
			}
			if strings.TrimSpace(string(a.Body)) == "Pending" {
				n++
				a.Status = code
			}
			x.Answer(a)
		})
		if w.final(1); n < 3 {
			t.Errorf("asked %d times while it waited", n)
		}
	}
}

func TestPriceSpike(t *testing.T) {
	w := newWorld(t, 1)
	w.proxies[0].Fault("GET /price/", -1, anchortest.Body("1000000000001"))
	w.onWait = func(n int, _ time.Duration) {
		if n == 10 {
			w.proxies[0].Heal()
		}
	}
	w.final(1)
	if !w.says("above the fee cap") {
		t.Errorf("nobody says so: %q", w.words)
	}
}

func TestFunds(t *testing.T) {
	w := newWorld(t, 1)
	w.proxies[0].Fault("GET /wallet/", -1, anchortest.Body("0"))
	w.onWait = func(n int, _ time.Duration) {
		if n == 10 {
			w.proxies[0].Heal()
		}
	}
	w.final(1)
	if !w.says("holds 0 winston") {
		t.Errorf("nobody says so: %q", w.words)
	}
	// The wallet was emptied after it was asked: what was refused is signed anew.
	w = newWorld(t, 1)
	w.proxies[0].Fault("POST /tx", 3, anchortest.Status(http.StatusGone))
	w.final(1)
	if !w.says("not enough funds") {
		t.Errorf("nobody says so: %q", w.words)
	}
}

func TestWrongNetwork(t *testing.T) {
	w := newWorld(t, 1)
	w.cfg.Network = MainNetwork
	last, err := w.run(10, isFinal)
	if !errors.Is(err, errLimit) || last.State != anchor.Pending || !w.says("wrong network") {
		t.Errorf("%v, %+v, %q", err, last, w.words)
	}
	if n := len(w.proxies[0].Seen("POST /tx")); n != 0 {
		t.Errorf("%d transactions sent to a foreign network", n)
	}
	// One such endpoint beside a right one does no harm.
	w = newWorld(t, 2)
	w.proxies[0].Fault("GET /info", -1, anchortest.Body(`{"network":"arweave.N.1","height":5}`))
	w.final(1)
	if n := len(w.proxies[0].Seen("POST /tx")); n != 0 {
		t.Errorf("%d transactions sent to a foreign network", n)
	}
}

// A clock that is wrong by a day changes what history shows, and nothing else.
func TestClock(t *testing.T) {
	for _, d := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		w := newWorld(t, 2)
		w.proxies[0].Fault("", 4, anchortest.Status(http.StatusTooManyRequests, "Retry-After", "1"))
		w.shift = d
		r := w.final(1)
		if off := r.Receipt.Time - time.Now().Unix(); off < -600 || off > 600 {
			t.Errorf("the block's time is %d seconds off", off)
		}
		w.put()
		w.shift = 0 // the next worker has the right clock again
		w.final(2)
	}
}
