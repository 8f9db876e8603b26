package anchor

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// extending returns a world whose chain keeps extensions.
func extending(t *testing.T) *world {
	w := newWorld(t)
	w.chain.extends = true
	return w
}

func (w *world) sent(id string) int {
	w.chain.mu.Lock()
	defer w.chain.mu.Unlock()
	return w.chain.taken[id]
}

// TestBodyCutHalfWay: the chain has the transaction, but the body came only in part. It is
// sent again although the chain knows the transaction, until it was taken whole, and after
// a new start once more.
func TestBodyCutHalfWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := extending(t)
		fails := 3
		w.chain.onSend = func(Tx) (bool, error) {
			if fails > 0 {
				fails--
				return true, errors.New("chunk 2 of 3: connection reset")
			}
			return true, nil
		}
		w.start()
		w.want(1, Sent)
		w.pass(3 * time.Minute)
		if n := w.sent("tx1"); n != 4 || w.transactions() != 1 {
			t.Errorf("sent %d times, %d transactions; want 4 and 1", n, w.transactions())
		}
		w.stop()
		w.start()
		w.pass(10 * time.Second)
		if n := w.sent("tx1"); n != 5 {
			t.Errorf("after a new start sent %d times, want 5", n)
		}
		w.stop()
		// In a block meanwhile, but maybe without its body: it is sent before that is told.
		fails = 1
		w.chain.mine(1)
		w.start()
		w.want(1, Sent)
		w.pass(time.Minute)
		w.want(1, Seen)
		w.chain.mine(3)
		w.pass(2 * time.Second)
		w.want(1, Final)
		if n := w.sent("tx1"); n != 7 {
			t.Errorf("sent %d times, want 7", n)
		}
		w.stop()
	})
}

// TestBodyMissing: what the chain says that it does not have is sent again, and is not
// final before it has it.
func TestBodyMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := extending(t)
		missing := true
		w.chain.onStatus = func(tx Tx) (*Status, error) {
			if h, ok := w.chain.landed[tx.ID]; ok && missing {
				missing = w.chain.taken[tx.ID] < 3
				return &Status{Phase: Included, Missing: true, Receipt: Receipt{Chain: "k2", Raw: tx.Raw, Height: h, Block: "b"}}, nil
			}
			return nil, nil
		}
		w.start()
		defer w.stop()
		w.chain.mine(5)
		w.pass(time.Second)
		w.want(1, Seen)
		w.pass(10 * time.Second)
		w.want(1, Final)
		if n := w.sent("tx1"); n < 3 || w.transactions() != 1 {
			t.Errorf("sent %d times, %d transactions", n, w.transactions())
		}
	})
}
