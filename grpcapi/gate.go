package grpcapi

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A gate counts the calls of all connections at a time and lets no more in than there may
// be. Writes wait for a turn for a while; other calls do not.
type gate struct {
	calls   int // limits, as Limits has them
	writes  int
	queue   int
	wait    time.Duration
	reserve int // of calls, for short ones

	mu      sync.Mutex
	running int               // guarded by mu, as is all below; without spare
	spare   int               // of the owner, beyond calls
	long    int               // of running: not short
	writing int               // that have a turn
	by      map[string]*share // who has calls
	waiting []*turn           // in order
}

// A share is what one caller has of the calls.
type share struct{ calls, writes int }

// A turn is a write that waits.
type turn struct {
	who  string
	mine chan struct{} // closed when it may go
}

func newGate(l Limits) *gate {
	return &gate{
		calls: l.Calls, writes: l.Writes, queue: l.WriteQueue, wait: l.WriteWait,
		reserve: l.Calls / 8, by: map[string]*share{},
	}
}

// stranger is whoever has not said who he is, in calls for which nobody needs to. Such
// callers together have what is kept from anybody else, so that they cannot keep others out.
const stranger = ""

// spareCalls is how many short calls may come through the private socket when there is no
// room for more: so that whoever owns the node can look at it and revoke tokens during a flood.
const spareCalls = 8

// soon is when a call that was refused for want of room may be tried again.
const soon = time.Second

func busy(format string, args ...any) error {
	return &RetryAfter{soon, fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))}
}

// enter lets a call in, or says why not. Private is one that came through the private
// socket. release must be called when the call has ended.
func (g *gate) enter(who string, kind methodKind, private bool) (release func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	full := g.full(who, kind)
	switch {
	case full == nil:
		return g.let(who, kind), nil
	case !private || kind != kindShort || g.spare >= spareCalls:
		return nil, full
	}
	g.spare++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.spare--
	}, nil
}

// full says why there is no room for a call, or nil.
func (g *gate) full(who string, kind methodKind) error {
	s := g.by[who]
	switch {
	case g.running >= g.calls:
		return busy("the node has %d calls, which is as many as it takes at a time", g.running)
	case kind != kindShort && g.long >= g.calls-g.reserve:
		return busy("the node has %d streams, which is as many as it takes at a time", g.long)
	case who == stranger && s != nil && s.calls >= max(1, g.calls/shareForOthers):
		return busy("callers who have not said who they are have %d calls, the rest is for others", s.calls)
	case s != nil && s.calls >= g.calls-g.calls/shareForOthers:
		return busy("this caller has %d calls, the rest is for others", s.calls)
	}
	return nil
}

// let counts a call that enters.
func (g *gate) let(who string, kind methodKind) (release func()) {
	s := g.by[who]
	if s == nil {
		s = &share{}
		g.by[who] = s
	}
	g.running++
	s.calls++
	if kind != kindShort {
		g.long++
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running--
		s.calls--
		if kind != kindShort {
			g.long--
		}
		g.forget(who, s)
	}
}

func (g *gate) forget(who string, s *share) {
	if *s == (share{}) {
		delete(g.by, who)
	}
}

// free reports whether a write of who may go.
func (g *gate) free(who string) bool {
	s := g.by[who]
	return g.writing < g.writes && (s == nil || s.writes < max(1, g.writes-g.writes/shareForOthers))
}

func (g *gate) take(who string) {
	g.writing++
	g.by[who].writes++ // of a call that has entered
}

// begin waits for the turn of a write that has entered. release must be called when it
// has ended.
func (g *gate) begin(ctx context.Context, who string) (release func(), err error) {
	release = func() { g.end(who) }
	g.mu.Lock()
	if g.free(who) {
		g.take(who)
		g.mu.Unlock()
		return release, nil
	}
	if len(g.waiting) >= g.queue {
		n, w := g.writing, len(g.waiting)
		g.mu.Unlock()
		return nil, busy("the node has %d writes, and %d wait", n, w)
	}
	t := &turn{who: who, mine: make(chan struct{})}
	g.waiting = append(g.waiting, t)
	g.mu.Unlock()

	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case <-t.mine:
		return release, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = busy("the node has as many writes as it takes at a time, and none ended within %v", g.wait)
	}
	g.mu.Lock()
	i := slices.Index(g.waiting, t)
	if i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // its turn has come meanwhile
		release()
	}
	return nil, err
}

// end gives a turn back, and to the first that may have it.
func (g *gate) end(who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writing--
	g.by[who].writes--
	for i := 0; i < len(g.waiting); i++ {
		if t := g.waiting[i]; g.free(t.who) {
			g.waiting = slices.Delete(g.waiting, i, i+1)
			g.take(t.who)
			close(t.mine)
			i--
		}
	}
}
