package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"

	"github.com/koii-network/scale/store/kv"
)

// closeWaits closes while a scan runs.
func (s *kvSuite) closeWaits() {
	s.commit("a", "1", "b", "2", "c", "3")
	done := make(chan error)
	n := 0
	for row, err := range s.kv.Scan(s.ctx, nil, nil) {
		if err != nil {
			s.Fatal(err)
		}
		if n++; n == 1 {
			go func() { done <- s.kv.Close() }()
			for { // until the close has begun
				if _, err := s.kv.Get(s.ctx, []byte("a"), nil); errors.Is(err, kv.ErrClosed) {
					break
				}
			}
		}
		if want := string(rune('0' + n)); string(row.Value) != want {
			s.Errorf("row %d is %q", n, row.Value)
		}
	}
	if err := <-done; err != nil || n != 3 {
		s.Errorf("Close = %v after %d rows", err, n)
	}
	s.open()
}

// concurrent lets readers check that a batch is seen as a whole while one
// writer after the other replaces it.
func (s *kvSuite) concurrent() {
	const keys, commits = 50, 100
	key := func(i int) []byte { return fmt.Appendf(nil, "key%02d", i) }
	write := func(n int) {
		var b kv.Batch
		for i := range keys {
			b.Set(key(i), fmt.Appendf(nil, "%d", n))
		}
		if err := s.kv.Commit(s.ctx, &b); err != nil {
			s.Error(err)
		}
	}
	write(0)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for g := range 3 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.kv.Get(s.ctx, key(rng.IntN(keys)), nil); err != nil {
					s.Error(err)
				}
				if has, err := s.kv.Has(s.ctx, []byte("absent")); has || err != nil {
					s.Errorf("Has(absent) = %v, %v", has, err)
				}
				seen := make(map[string]int)
				for row, err := range s.kv.Scan(s.ctx, []byte("key"), nil) {
					if err != nil {
						s.Error(err)
					}
					seen[string(row.Value)]++
				}
				if len(seen) != 1 {
					s.Errorf("a scan sees parts of several commits: %v", seen)
					return
				}
			}
		})
	}
	for g := range 2 {
		writers.Go(func() {
			for n := range commits {
				write(2*n + g)
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// history runs a random history against a map, with reopens.
func (s *kvSuite) history() {
	rng := rand.New(rand.NewPCG(1, 2))
	model := make(map[string]string)
	// Few short keys, so that they meet again and nest.
	key := func() string {
		b := make([]byte, 1+rng.IntN(3))
		for i := range b {
			b[i] = "ab\x00\xff"[rng.IntN(4)]
		}
		return string(b)
	}
	for step := range 300 {
		var b kv.Batch
		for range rng.IntN(20) {
			k := key()
			if rng.IntN(3) == 0 {
				b.Delete([]byte(k))
				delete(model, k)
			} else {
				v := fmt.Sprintf("%d%s", step, bytes.Repeat([]byte("v"), rng.IntN(2000)))
				b.Set([]byte(k), []byte(v))
				model[k] = v
			}
		}
		if err := s.kv.Commit(s.ctx, &b); err != nil {
			s.Fatal(err)
		}
		if rng.IntN(40) == 0 {
			s.reopen()
		}
		k := key()
		v, there := model[k]
		s.want(k, v, there)
		if step%10 == 0 {
			prefix, from := key()[:rng.IntN(2)], key()
			var want []string
			for k := range model {
				if len(k) >= len(prefix) && k[:len(prefix)] == prefix && k >= from {
					want = append(want, k)
				}
			}
			sort.Strings(want)
			s.wantScan(prefix, from, want...)
			all := slices.Collect(func(yield func(string) bool) {
				for k := range model {
					if len(k) >= len(prefix) && k[:len(prefix)] == prefix && !yield(k) {
						return
					}
				}
			})
			row, err := s.kv.Last(s.ctx, []byte(prefix))
			if len(all) == 0 {
				if !errors.Is(err, kv.ErrNotFound) {
					s.Errorf("Last(%q) = %q, %v", prefix, row.Key, err)
				}
			} else if k := slices.Max(all); err != nil || string(row.Key) != k || string(row.Value) != model[k] {
				s.Errorf("Last(%q) = %q, %v, want %q", prefix, row.Key, err, k)
			}
		}
		if s.Failed() {
			return
		}
	}
}
