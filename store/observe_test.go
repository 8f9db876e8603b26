package store_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// The observer is told what was done, and of a failure that it was one.
func TestObserver(t *testing.T) {
	var mu sync.Mutex
	var puts []store.PutEvent
	var entries, proofs, failed, read int
	h := newHarness(t, store.Options{Observer: store.Observer{
		Put: func(e store.PutEvent) {
			mu.Lock()
			defer mu.Unlock()
			puts = append(puts, e)
		},
		Commit: func(n int, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			entries += n
		},
		Proof: func(_ time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			if proofs++; err != nil {
				failed++
			}
		},
		Read: func(n int) {
			mu.Lock()
			defer mu.Unlock()
			read += n
		},
	}})
	data := random(1, 300_000)
	h.mustPut(stream("x", data), stream("y", data))
	h.mustPut(stream("x", data))
	if _, err := h.put(stream("no name", data)); err == nil {
		t.Error("a bad name was put under")
	}
	if len(puts) != 3 {
		t.Fatalf("%d puts: %+v", len(puts), puts)
	}
	if e := puts[0]; e.Datasets != 2 || e.Unchanged != 0 || e.Bytes != 600_000 || e.New != 300_000 || e.Stored < 300_000 || e.Took <= 0 || e.Err != nil {
		t.Errorf("first put: %+v", e)
	}
	if e := puts[1]; e.Datasets != 1 || e.Unchanged != 1 || e.Bytes != 300_000 || e.New != 0 || e.Err != nil {
		t.Errorf("unchanged put: %+v", e)
	}
	if e := puts[2]; e.Err == nil || e.Bytes != 0 || e.New != 0 || e.Stored != 0 {
		t.Errorf("failed put: %+v", e)
	}
	if entries != 2 {
		t.Errorf("%d entries were committed", entries)
	}
	h.get("x")
	if read != 300_000 {
		t.Errorf("%d bytes were read", read)
	}
	o := h.resolve("x")
	if _, err := h.s.Prove(h.ctx, o, store.ProveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.s.Prove(h.ctx, o, store.ProveOptions{Range: &store.Range{From: 5, To: 5}}); err == nil {
		t.Error("a range of nothing was proven")
	}
	if proofs != 2 || failed != 1 {
		t.Errorf("%d proofs, %d failed", proofs, failed)
	}
	read = 0
	if _, err := h.challenge("x", 3); err != nil || read == 0 {
		t.Errorf("%d bytes were read for an audit, %v", read, err)
	}
}

// A key that is replaced counts from the next entry on, however soon that is.
func TestKeyReplaced(t *testing.T) {
	h := newHarness(t, store.Options{})
	path := filepath.Join(h.dir, "keys", "curator.json")
	own, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, b := range ed25519.NewKeyFromSeed(bytes.Repeat([]byte{100}, 32)) {
		numbers = append(numbers, int(b))
	}
	other, err := json.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	// Of one length, and written in place, so that nothing but the time tells them apart.
	n := max(len(own), len(other))
	pad := func(b []byte) []byte { return append(bytes.Clone(b), bytes.Repeat([]byte{' '}, n-len(b))...) }
	for i := range 30 {
		for _, c := range []struct {
			key  []byte
			want error
		}{{own, nil}, {other, ledger.ErrNotAdmitted}} {
			if err := os.WriteFile(path, pad(c.key), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := h.put(stream("x", []byte{byte(i)})); !errors.Is(err, c.want) {
				t.Fatalf("round %d: %v, want %v", i, err, c.want)
			}
		}
	}
	if err := os.WriteFile(path, own, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Nothing is left running by whoever has enough, goes away, or waits while the store is
// closed.
func TestNothingLeaks(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", text(1, 500_000)))
	c, err := h.s.Challenge(h.ctx, h.resolve("x"), auditSeed, 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first(c.Samples); err != nil {
		t.Error(err)
	}
	if _, err := first(h.s.Follow(h.ctx, 0)); err != nil {
		t.Error(err)
	}
	v, err := h.s.Snapshot(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.s.Remove(h.ctx, "x", store.PutOptions{}); err != nil {
		t.Error(err)
	}
	h.close()
	v.Close()
	v.Close()
}
