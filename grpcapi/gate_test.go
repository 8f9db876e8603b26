package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// The gate by itself: turns of writes, in order, for a while, and for more than one caller.
func TestGate(t *testing.T) {
	lim, err := Limits{Calls: 16, Writes: 2, WriteQueue: 2, WriteWait: time.Minute}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(lim)
	var exits []func()
	for i := range 14 {
		exit, err := g.enter("a", kindShort, false)
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		exits = append(exits, exit)
	}
	if _, err := g.enter("a", kindShort, false); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "the rest is for others") {
		t.Errorf("%v", err)
	}
	for range 2 {
		exit, err := g.enter("b", kindShort, false)
		if err != nil {
			t.Fatal(err)
		}
		exits = append(exits, exit)
	}
	if _, err := g.enter("c", kindShort, false); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "16 calls") {
		t.Errorf("%v", err)
	}
	ctx := t.Context()
	one, err1 := g.begin(ctx, "a")
	two, err2 := g.begin(ctx, "b")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	waits := func(n int) {
		t.Helper()
		until(t, fmt.Sprintf("%d writes wait", n), func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.waiting) == n
		})
	}
	turns := make(chan string)
	var releases [2]func()
	for i, who := range []string{"a", "b"} {
		go func() {
			release, err := g.begin(ctx, who)
			if err != nil {
				who = err.Error()
			}
			releases[i] = release
			turns <- who
		}()
		waits(i + 1)
	}
	if _, err := g.begin(ctx, "a"); !errors.Is(err, ErrLimit) {
		t.Errorf("beyond the queue: %v", err)
	}
	one()
	if who := <-turns; who != "a" {
		t.Errorf("%s has the first turn", who)
	}
	two()
	if who := <-turns; who != "b" {
		t.Errorf("%s has the second turn", who)
	}
	gone := errors.New("gone")
	over, cancel := context.WithCancelCause(ctx)
	cancel(gone)
	if _, err := g.begin(over, "a"); err != gone {
		t.Errorf("%v", err)
	}
	g.wait = time.Millisecond
	var retry *RetryAfter
	if _, err := g.begin(ctx, "a"); !errors.As(err, &retry) || !errors.Is(err, ErrLimit) {
		t.Errorf("%v", err)
	}
	releases[0]()
	releases[1]()
	for _, exit := range exits {
		exit()
	}
	if g.running != 0 || g.long != 0 || g.writing != 0 || len(g.by) != 0 || len(g.waiting) != 0 {
		t.Errorf("%+v", g)
	}
}

// Writes wait for their turn and are told when it does not come.
func TestWriteQueue(t *testing.T) {
	n := newRawNode(t, limited(Limits{Writes: 1, WriteQueue: 1, WriteWait: time.Millisecond}))
	ss, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := ss.Send(fileHeader("x")); err != nil {
		t.Fatal(err)
	}
	n.waiting(1, waitsRecv)
	_, err = n.put(n.ctx, fileHeader("y"))
	refused(t, "put", err, isLimit, "none ended within")
	_, err = n.upload()
	refused(t, "upload", err, isLimit)
	if _, err := n.datasets.ListDatasets(n.ctx, &scalev1.ListDatasetsRequest{}); err != nil {
		t.Errorf("reading: %v", err)
	}
	if _, err := ss.CloseAndRecv(); err != nil {
		t.Error(err)
	}
	n.putFile("y", nil)
	if c := status.Code(err); c != codes.ResourceExhausted {
		t.Errorf("%v", c)
	}
}
