package anchor

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestSmoothWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		defer w.stop()
		w.want(1, Sent)
		w.chain.mine(1)
		w.pass(2 * time.Second)
		w.want(1, Seen)
		w.chain.mine(3)
		w.pass(2 * time.Second)
		r := w.want(1, Final)
		if !r.Receipt.Final || r.Receipt.Height != 101 || string(r.Receipt.Raw) != "raw 1 of 1" || r.Attempt != 1 {
			t.Errorf("receipt %+v, attempt %d", r.Receipt, r.Attempt)
		}
		var states []State
		for _, h := range r.History {
			states = append(states, h.State)
		}
		if !slices.Equal(states, []State{Pending, Signed, Sent, Seen, Final}) {
			t.Errorf("history %v", states)
		}
		// Nothing new: nothing is anchored, however long it takes.
		w.pass(24 * time.Hour)
		if n := w.transactions(); n != 1 {
			t.Errorf("%d transactions for one checkpoint", n)
		}
	})
}

func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.sched.Entries = 100
		w.start()
		defer w.stop()
		settle := func() { w.chain.mine(4); w.pass(2 * time.Second) }
		settle()
		w.want(1, Final)
		// Within the interval new entries wait, and only the newest checkpoint is anchored.
		w.ledger.grow(2)
		w.pass(10 * time.Second)
		w.ledger.grow(3)
		w.pass(10 * time.Second)
		if n := w.transactions(); n != 1 {
			t.Fatalf("%d transactions within the interval", n)
		}
		w.pass(time.Minute)
		settle()
		w.want(3, Final)
		if w.outbox.row(t, "k2", 2) != nil {
			t.Error("a checkpoint that a newer one covers has a row")
		}
		// So many entries do not wait for the interval.
		w.ledger.grow(103)
		w.pass(2 * time.Second)
		settle()
		w.want(103, Final)
		// Nor does one that was asked for.
		w.ledger.grow(104)
		w.pass(2 * time.Second)
		if size, err := w.worker.Now("k2"); err != nil || size != 104 {
			t.Fatal(size, err)
		}
		synctest.Wait()
		settle()
		w.want(104, Final)
		if _, err := w.worker.Now("doge"); !errors.Is(err, ErrNoChain) {
			t.Errorf("unknown chain: %v", err)
		}
	})
}

// A call whose outcome is unknown never leads to a second transaction while the first can land.
func TestUnknownOutcome(t *testing.T) {
	for _, acted := range []bool{true, false} {
		t.Run(fmt.Sprintf("acted=%t", acted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				first := true
				w.chain.onSend = func(Tx) (bool, error) {
					if first {
						first = false
						return acted, ErrUnavailable
					}
					return true, nil
				}
				w.start()
				defer w.stop()
				w.want(1, Sent)
				w.pass(time.Minute)
				w.chain.mine(1)
				w.pass(time.Minute)
				w.chain.mine(3)
				w.pass(time.Minute)
				if r := w.want(1, Final); r.Attempt != 1 || w.transactions() != 1 {
					t.Errorf("attempt %d, %d transactions", r.Attempt, w.transactions())
				}
			})
		})
	}
}

func TestRefusedByAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		refuse := 3
		w.chain.onSend = func(Tx) (bool, error) {
			if refuse > 0 {
				refuse--
				return false, ErrFunds
			}
			return true, nil
		}
		w.start()
		defer w.stop()
		w.want(1, Refused)
		w.pass(time.Minute) // pauses of at most 2, 4 and 8 s, and as much of backoff
		w.chain.mine(4)
		w.pass(time.Minute)
		if r := w.want(1, Final); r.Attempt != 4 {
			t.Errorf("attempt %d, want 4", r.Attempt)
		}
	})
}

// A refusal after an unknown outcome says nothing of the first call.
func TestRefusedAfterUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		calls := 0
		w.chain.onSend = func(Tx) (bool, error) {
			if calls++; calls == 1 {
				return false, ErrUnavailable
			}
			return false, ErrRefused
		}
		w.start()
		defer w.stop()
		w.pass(5 * time.Minute)
		if w.want(1, Sent); w.transactions() != 1 {
			t.Errorf("%d transactions while the first could land", w.transactions())
		}
		w.chain.mine(11)
		w.chain.mu.Lock()
		w.chain.onSend = nil
		w.chain.mu.Unlock()
		w.pass(5 * time.Minute)
		w.chain.mine(4)
		w.pass(5 * time.Minute)
		if r := w.want(1, Final); r.Attempt != 2 {
			t.Errorf("attempt %d", r.Attempt)
		}
	})
}

func TestDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		defer w.stop()
		w.chain.mine(1)
		w.pass(2 * time.Second)
		w.want(1, Seen)
		// The fork with it is dropped; the chain has forgotten it.
		w.chain.mu.Lock()
		clear(w.chain.landed)
		clear(w.chain.taken)
		w.chain.mu.Unlock()
		w.pass(2 * time.Second)
		w.want(1, Sent)
		w.chain.mine(4)
		w.pass(2 * time.Second)
		if r := w.want(1, Final); r.Attempt != 1 {
			t.Errorf("signed %d times, the old bytes could still land", r.Attempt)
		}
	})
}

// A transaction that fails is paid for: attempts grow rare, also after a restart, and
// somebody who asks is not made to wait.
func TestFailedOnChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.chain.failed = nil
		w.chain.onStatus = func(Tx) (*Status, error) { return &Status{Phase: Failed, Detail: "out of compute"}, nil }
		w.start()
		w.pass(24 * time.Hour)
		n := w.transactions()
		if n < 5 || n > 40 {
			t.Errorf("%d attempts in a day", n)
		}
		w.stop()
		w.start()
		defer w.stop()
		w.pass(50 * time.Minute)
		if m := w.transactions() - n; m > 1 {
			t.Errorf("%d attempts within an hour after a restart", m)
		}
		n = w.transactions()
		for range 3 {
			if _, err := w.worker.Now(""); err != nil {
				t.Fatal(err)
			}
			w.pass(2 * time.Minute)
		}
		if m := w.transactions() - n; m < 2 || m > 4 {
			t.Errorf("%d attempts for 3 demands", m)
		}
	})
}

func TestChainDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		calls := 0
		w.chain.onPrep = func() error { calls++; return &RetryError{After: 10 * time.Minute, Err: ErrUnavailable} }
		w.start()
		defer w.stop()
		w.pass(time.Hour)
		if calls < 5 || calls > 7 {
			t.Errorf("asked %d times in an hour, told to come back after 10 minutes", calls)
		}
		st, err := w.worker.State(t.Context(), "k2")
		if err != nil || st.Failing == "" || st.Open == nil || st.Open.State != Pending || st.Backlog != 1 || st.Retry.IsZero() {
			t.Errorf("state %+v, %v", st, err)
		}
		w.chain.mu.Lock()
		w.chain.onPrep = func() error { calls++; return ErrUnavailable }
		calls = 0
		w.chain.mu.Unlock()
		for i := range 1000 { // puts go on; the chain is not asked more often for it
			w.ledger.grow(int64(2 + i))
			w.pass(2 * time.Second)
		}
		if calls > 120 {
			t.Errorf("asked %d times in 1,000 s, backoff is at most 30 s", calls)
		}
		w.chain.mu.Lock()
		w.chain.onPrep = nil
		w.chain.mu.Unlock()
		w.pass(time.Minute)
		w.chain.mine(4)
		w.pass(2 * time.Second)
		w.want(1001, Final)
		rows, err := NewestRows(t.Context(), w.outbox, "k2", 10)
		if err != nil || len(rows) != 1 {
			t.Errorf("%d rows, %v: checkpoints that nobody was given stayed", len(rows), err)
		}
		if st, err = w.worker.State(t.Context(), "k2"); err != nil || st.Failing != "" || st.Final != 1001 || st.Balance.Anchors() != 200 {
			t.Errorf("state %+v, %v", st, err)
		}
	})
}

// A process that dies at any transition loses no checkpoint and pays for none twice.
func TestCrashAtEveryTransition(t *testing.T) {
	for _, at := range []State{Pending, Signed, Sent, Seen, Final} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,stored=%t", at, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.chain.extends = true
					crashed := false
					w.outbox.fail = func(_ string, r *Row) error {
						if crashed {
							return errors.New("dead")
						}
						if r.State == at {
							crashed = true
							if !after {
								return errors.New("dead")
							}
						}
						return nil
					}
					w.start()
					for range 5 {
						w.chain.mine(1)
						w.pass(2 * time.Second)
					}
					w.stop()
					if !crashed {
						t.Fatal("did not come so far")
					}
					w.outbox.fail = nil
					w.start()
					defer w.stop()
					for range 10 {
						w.chain.mine(1)
						w.pass(time.Minute)
					}
					r := w.want(1, Final)
					if len(w.chain.taken) != 1 || r.Tx.ID == "" || w.chain.landed[r.Tx.ID] == 0 {
						t.Errorf("the chain was given %v, the row says %s", w.chain.taken, r.Tx.ID)
					}
					if len(w.outbox.bodies) != 0 {
						t.Error("the body stays after the end")
					}
				})
			})
		}
	}
}

func TestExtensions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.chain.extends = true
		w.start()
		defer w.stop()
		w.chain.mine(1)
		w.pass(2 * time.Second)
		w.want(1, Seen)
		// While one is not final the next starts where it did.
		w.ledger.grow(5)
		w.pass(2 * time.Minute)
		w.chain.mine(1)
		w.pass(2 * time.Second)
		if r := w.want(5, Seen); r.Base.Size != 0 || r.Base.ID != "" {
			t.Errorf("follows %+v, which is not final", r.Base)
		}
		w.chain.mine(5)
		w.pass(2 * time.Second)
		last := w.want(5, Final)
		// More than one extension holds goes in several, one after the other.
		w.ledger.grow(MaxEntries)
		w.ledger.grow(MaxEntries + 5)
		w.ledger.grow(MaxEntries + 6)
		w.pass(2 * time.Minute)
		w.chain.mine(5)
		w.pass(2 * time.Second)
		if r := w.want(MaxEntries+5, Final); r.Base.Size != 5 || r.Base.ID != last.Tx.ID || r.Base.Root[0] != 5 {
			t.Errorf("follows %+v", r.Base)
		}
		w.pass(2 * time.Minute)
		w.chain.mine(5)
		w.pass(2 * time.Second)
		w.want(MaxEntries+6, Final)
	})
}

func TestWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.chain.mine(4)
		w.pass(2 * time.Second)
		w.want(1, Final)
		w.stop()
		// The last anchor seems to have been made tomorrow.
		r := w.want(1, Final)
		for i := range r.History {
			r.History[i].Time = r.History[i].Time.Add(24 * time.Hour)
		}
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.outbox.Put(t.Context(), "k2", 1, b, false); err != nil {
			t.Fatal(err)
		}
		w.ledger.grow(2)
		w.start()
		defer w.stop()
		w.pass(2 * time.Minute)
		w.chain.mine(4)
		w.pass(2 * time.Second)
		w.want(2, Final)
	})
}
