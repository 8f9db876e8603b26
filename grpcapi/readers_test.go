package grpcapi

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/mem"
)

// Whoever takes what is read, but slowly, keeps his place for as long as nobody else wants
// it, and then not longer than the lane has patience, however often he takes a little.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(1)
		l.patience = 2 * time.Second
		done := make(chan struct{})
		defer close(done)
		pushed := func(wanted bool) int {
			r := &round{lane: l, done: done, ch: make(chan *encoded)}
			var taker sync.WaitGroup
			taker.Go(func() {
				for range r.ch {
					time.Sleep(150 * time.Millisecond) // less than letGoAfter
				}
			})
			defer taker.Wait()
			defer close(r.ch)
			if wanted {
				ctx, cancel := context.WithCancel(t.Context())
				l.places <- struct{}{}
				go l.enter(ctx)
				synctest.Wait()
				defer func() {
					cancel()
					synctest.Wait()
					l.leave()
				}()
			}
			for n := range 100 {
				if err := r.push(&encoded{mem.BufferSlice{mem.SliceBuffer("x")}}); err == errLetGo {
					return n
				} else if err != nil {
					t.Fatal(err)
				}
			}
			return 100
		}
		if n := pushed(false); n != 100 {
			t.Errorf("a place that nobody wants is given up after %d messages", n)
		}
		if n := pushed(true); n < 10 || n > 20 {
			t.Errorf("a place that is wanted is given up after %d messages, each of 150 ms", n)
		}
		l.patience = 0
		if n := pushed(true); n != 100 {
			t.Errorf("without patience a place is given up after %d messages", n)
		}
	})
}
