package k2_test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/store"
)

// A task is what the child does: it anchors, and dies at the nth point at which that
// could leave something behind.
type task struct {
	Dir, URL, Genesis string
	Seed              string // of the wallet, hexadecimal
	Die               int
}

// anchorOnce anchors until the newest checkpoint is final, or it dies.
func anchorOnce(todo task) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	seed, err := hex.DecodeString(todo.Seed)
	if err != nil {
		return err
	}
	pool, err := endpoint.New([]string{todo.URL}, endpoint.Options{})
	if err != nil {
		return err
	}
	k, err := k2.New(k2.Config{Endpoints: pool, Wallet: solana.PrivateKey(ed25519.NewKeyFromSeed(seed)), Genesis: todo.Genesis})
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, todo.Dir, store.Options{})
	if err != nil {
		return err
	}
	defer s.Close() // the parent checks what is left
	size, _, _ := s.Newest()
	net := &devnet.K2{URL: todo.URL}
	d := anchortest.NewDying(todo.Die)
	w, err := anchor.NewWorker(anchor.Options{
		Ledger: s, Outbox: d.Outbox(s.Outbox()),
		Targets: []anchor.Target{{Chain: d.Chain(k), Schedule: anchor.Schedule{Interval: time.Nanosecond, Poll: time.Microsecond, MinBackoff: time.Microsecond}}},
		After: func(time.Duration) <-chan time.Time {
			_ = net.Advance(ctx, 1) // the parent sees whether it gets anywhere
			c := make(chan time.Time, 1)
			c <- time.Now()
			return c
		},
		Changed: func(r anchor.Row) {
			if r.State == anchor.Expired {
				_ = net.Call(ctx, nil, "svm_dropNext", 0) // likewise
			}
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

// Killed at every point of a smooth way, and of one on which the first transaction
// expires, the checkpoint is anchored all the same, and paid for once.
func TestKill(t *testing.T) {
	for name, drop := range map[string]int{"smooth": 0, "expired": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			ended := false
			step := 1
			if testing.Short() {
				step = 3
			}
			for n := 1; !ended; n += step {
				t.Run(strconv.Itoa(n), func(t *testing.T) { ended = kill(t, n, drop) })
				if n > 60 {
					t.Fatal("there is no end to the points")
				}
			}
		})
	}
}

// kill lets a child die at its nth point, and reports whether it came to its end before.
func kill(t *testing.T, n, drop int) bool {
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(t.Context(), dir, store.InitOptions{Origin: "test.example/log"}); err != nil {
		t.Fatal(err)
	}
	open := func() *store.Store {
		s, err := store.Open(t.Context(), dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	put(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, nil, 1)
	rpcCall[any](t, "svm_dropNext", drop)
	died := anchortest.RunChild(t, task{Dir: dir, URL: chain.URL, Genesis: chain.Genesis, Seed: hex.EncodeToString(w.wallet[:32]), Die: n})
	w.store = open()
	defer w.store.Close() // the test has what it wants
	w.onRow = func(r anchor.Row) {
		if r.State == anchor.Expired {
			rpcCall[any](t, "svm_dropNext", 0)
		}
	}
	if r := w.newest(); r != nil && r.State == anchor.Expired {
		rpcCall[any](t, "svm_dropNext", 0)
	}
	if r := w.newest(); r != nil && r.State == anchor.Final {
		w.checkFinal(*r)
		if got := paid(t, w.wallet); len(got) != 1 || got[0] != r.Tx.ID {
			t.Errorf("paid for %v, want %s", got, r.Tx.ID)
		}
	} else {
		w.final(1)
	}
	return !died
}
