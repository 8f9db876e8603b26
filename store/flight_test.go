package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// A full disk fails the puts in flight and no others, and stops nothing.
func TestNoSpaceInFlight(t *testing.T) {
	for _, where := range []string{"append", "commit"} {
		t.Run(where, func(t *testing.T) {
			var full atomic.Bool
			h := newHarness(t, store.Options{
				FrameSize: 40 << 10,
				WrapKV:    func(s kv.Store) kv.Store { return fullKV{s, func() bool { return where == "commit" && full.Load() }} },
				WrapPacks: func(s pack.Store) pack.Store {
					return fullPacks{s, func() bool { return where == "append" && full.Load() }}
				},
			})
			h.mustPut(stream("before", text(1, 50_000)))
			full.Store(true)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					if _, err := h.put(stream(fmt.Sprintf("n%d", i), random(uint64(i), 1000+i*30_000))); !errors.Is(err, store.ErrNoSpace) || errors.Is(err, store.ErrStopped) {
						t.Errorf("%v, want ErrNoSpace", err)
					}
				})
			}
			wg.Wait()
			if got := h.get("before"); !bytes.Equal(got, text(1, 50_000)) {
				t.Error("what was there before reads differently")
			}
			full.Store(false)
			for i := range 8 {
				name, b := fmt.Sprintf("n%d", i), random(uint64(i), 1000+i*30_000)
				h.mustPut(stream(name, b))
				if !bytes.Equal(h.get(name), b) {
					t.Errorf("%s reads back differently", name)
				}
			}
			h.check()
		})
	}
}

type fullKV struct {
	kv.Store
	full func() bool
}

func (f fullKV) Commit(ctx context.Context, b *kv.Batch) error {
	for r := range b.Rows() {
		if (r.Key[0] == 'b' || r.Key[0] == 'm') && f.full() {
			return fmt.Errorf("commit: %w", kv.ErrNoSpace)
		}
	}
	return f.Store.Commit(ctx, b)
}

type fullPacks struct {
	pack.Store
	full func() bool
}

func (f fullPacks) Append(ctx context.Context, fr pack.Frame) (pack.Loc, error) {
	if f.full() {
		return pack.Loc{}, fmt.Errorf("append: %w", pack.ErrNoSpace)
	}
	return f.Store.Append(ctx, fr)
}

// A write fails while several puts are in flight. Whatever became of it, what was
// acknowledged is there, what is seen is whole, and all of it can be put again.
func TestWriteFailsInFlight(t *testing.T) {
	data := func(i int) []byte {
		if i%2 == 0 {
			return random(uint64(i/2), 300+i*25_000) // shared by two
		}
		return text(uint64(i), 500+i*40_000)
	}
	type fault struct {
		kind   string
		n      int
		landed bool
	}
	faulty := []fault{{"append", 1, false}, {"append", 3, false}}
	for _, landed := range []bool{false, true} {
		faulty = append(faulty, fault{"sync", 1, landed}, fault{"sync", 2, landed})
		for _, n := range []int{1, 2, 4, 7} {
			faulty = append(faulty, fault{"commit", n, landed})
		}
	}
	for i, c := range faulty {
		if testing.Short() && i%3 > 0 {
			continue
		}
		t.Run(fmt.Sprintf("%s/%d/landed=%t", c.kind, c.n, c.landed), func(t *testing.T) {
			h, f := newFaultyHarness(t)
			h.mustPut(stream("before", text(9, 50_000)))
			cosigned := h.s.Published()
			switch c.kind {
			case "append":
				f.packs.FailAppendAt(c.n)
			case "sync":
				f.packs.FailSyncAt(c.n, c.landed)
			default:
				f.kv.FailAt(c.n, c.landed)
			}
			const puts = 6
			var acked [puts]bool
			var wg sync.WaitGroup
			for i := range puts {
				wg.Go(func() {
					in := stream(fmt.Sprintf("n%d", i), data(i))
					if i%3 == 0 {
						in = store.Input{Name: in.Name, Source: sourceOf(file{name: "a", data: data(i)})}
					}
					_, err := h.put(in)
					acked[i] = err == nil
				})
			}
			wg.Wait()
			seen := func(when string) {
				t.Helper()
				for i, ok := range acked {
					ref := fmt.Sprintf("n%d", i)
					if i%3 == 0 {
						ref += "/a"
					}
					if _, err := h.s.Resolve(h.ctx, ref); err != nil {
						if ok {
							t.Errorf("%s: %s was acknowledged: %v", when, ref, err)
						}
					} else if !bytes.Equal(h.get(ref), data(i)) {
						t.Errorf("%s: %s reads differently", when, ref)
					}
				}
			}
			seen("before it was opened again")
			h.reopen()
			if err := h.s.Doubt(); err != nil {
				t.Fatal(err)
			}
			seen("after it was opened again")
			if _, err := h.s.Consistency(h.ctx, cosigned.Size, h.s.Published().Size); err != nil {
				t.Error(err)
			}
			var again []store.Input
			for i := range puts {
				again = append(again, stream(fmt.Sprintf("n%d", i), data(i)))
			}
			h.mustPut(again...)
			h.check()
		})
	}
}
