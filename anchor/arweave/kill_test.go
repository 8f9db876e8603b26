package arweave

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/store"
)

// A task is what the child does: it anchors, and dies at the nth point at which that
// could leave something behind.
type task struct {
	Dir, URL, Direct string // the second is the gateway past all proxies
	JWK              string
	Die, Blocks      int // the second is how many come with each wait
}

func anchorOnce(todo task) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wallet, err := ParseWallet([]byte(todo.JWK))
	if err != nil {
		return err
	}
	p, err := endpoint.New([]string{todo.URL}, endpoint.Options{})
	if err != nil {
		return err
	}
	c, err := New(Config{Endpoints: p, Wallet: wallet, Network: localNetwork, Confirmations: confirmations})
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, todo.Dir, store.Options{})
	if err != nil {
		return err
	}
	defer s.Close() // the parent checks what is left
	size, _, _ := s.Newest()
	gw := &devnet.Arweave{URL: todo.Direct}
	d := anchortest.NewDying(todo.Die)
	w, err := anchor.NewWorker(anchor.Options{
		Ledger: s, Outbox: d.Outbox(s.Outbox()),
		Encode:  func(ctx context.Context, x anchor.Extension) ([]byte, error) { return encodeStore(ctx, s, x) },
		Targets: []anchor.Target{{Chain: d.Chain(c), Schedule: anchor.Schedule{Interval: time.Nanosecond, Poll: time.Microsecond, MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond}}},
		After: func(time.Duration) <-chan time.Time {
			_ = gw.Mine(ctx, todo.Blocks) // the parent sees whether it gets anywhere
			c := make(chan time.Time, 1)
			c <- time.Now()
			return c
		},
		Changed: func(r anchor.Row) {
			if r.State == anchor.Final && r.Size == size {
				cancel()
			}
		},
	})
	if err != nil {
		return err
	}
	w.Run(ctx)
	return nil
}

// Killed at every point of a smooth way, and of one on which the first transaction never
// lands, the checkpoint is anchored all the same, and is on the chain once.
func TestKill(t *testing.T) {
	for name, lost := range map[string]bool{"smooth": false, "expired": true} {
		t.Run(name, func(t *testing.T) {
			step := 1
			if lost || testing.Short() {
				step = 4
			}
			for n, ended := 1, false; !ended; n += step {
				t.Run(strconv.Itoa(n), func(t *testing.T) { ended = kill(t, n, lost) })
				if n > 60 {
					t.Fatal("there is no end to the points")
				}
			}
		})
	}
}

// kill lets a child die at its nth point, and reports whether it came to its end before.
func kill(t *testing.T, n int, lost bool) bool {
	w := newWorld(t, 1)
	dir := w.store.Dir()
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.blocks = 1
	if lost { // the gateway takes the first transaction, and forgets it
		w.blocks = 10
		var first atomic.Pointer[string]
		w.proxies[0].Fault("POST /tx", -1, func(x *anchortest.Exchange) {
			id := idOf(x.Body)
			if first.CompareAndSwap(nil, &id) || *first.Load() == id {
				anchortest.Body("OK")(x)
				return
			}
			anchortest.Pass(x)
		})
	}
	died := anchortest.RunChild(t, task{Dir: dir, URL: w.proxies[0].URL(), Direct: w.gw.URL, JWK: string(testWallet().JWK()), Die: n, Blocks: w.blocks})
	w.open(dir)
	rows, err := anchor.NewestRows(t.Context(), w.store.Outbox(), Name, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) == 1 && rows[0].State == anchor.Final {
		w.checkFinal(*rows[0])
		if got := w.paid(); len(got) != 1 || got[0] != rows[0].Tx.ID {
			t.Errorf("the chain has %v, want %s", got, rows[0].Tx.ID)
		}
		// What the one who was killed has left is put in order by the next.
		w.put()
		w.final(2)
	} else {
		w.final(1)
	}
	return !died
}
