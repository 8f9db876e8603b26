package anchor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
	"unicode"
)

// A lane drives one chain: one goroutine, so its rows never change under it.
type lane struct {
	w     *Worker
	chain Chain
	name  string
	sched Schedule
	wake  chan struct{}

	// Of the goroutine alone:
	made    time.Time     // when the newest row was made in this process, monotonic
	ended   time.Time     // when the newest attempt expired or was refused, likewise
	backoff time.Duration // after errors of calls
	// The transaction that was sent whole, with its body, by this process.
	delivered string
	stand     *standing // nil when a row has changed since
	swept     bool      // bodies that a crash has left are gone

	mu      sync.Mutex // guards what is below
	wanted  int64      // size asked for by Now
	atOnce  bool       // Now was called since the last row: its pauses are skipped once
	failing string
	since   time.Time
	retry   time.Time
	balance *Balance
	asked   time.Time // when the balance was, monotonic
}

func newLane(w *Worker, t Target) *lane {
	return &lane{w: w, chain: t.Chain, name: t.Chain.Name(), sched: t.Schedule.withDefaults(), wake: make(chan struct{}, 1)}
}

func (l *lane) demand(size int64) {
	l.mu.Lock()
	l.wanted, l.atOnce = max(l.wanted, size), true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// grownPause keeps a busy ledger from waking the lane at every commit.
const grownPause = 100 * time.Millisecond

// run steps until ctx ends. Between steps it sleeps until a transaction is to be looked
// up, an anchor is due, or somebody asks.
func (l *lane) run(ctx context.Context) {
	for {
		_, _, grown := l.w.opt.Ledger.Newest()
		wait, err := l.step(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = l.failed(err)
			grown = nil // a chain that is down is not asked more often because puts come in
		} else {
			l.succeeded()
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = l.w.opt.After(wait)
		}
		select {
		case <-timer:
		case <-l.wake:
		case <-grown:
			select {
			case <-l.w.opt.After(grownPause):
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return
		}
	}
}

// failed notes an error and returns how long to wait: twice as long as before, with
// jitter, and not shorter than an endpoint asked for.
func (l *lane) failed(err error) time.Duration {
	l.backoff = min(max(2*l.backoff, l.sched.MinBackoff), l.sched.MaxBackoff)
	wait := max(l.backoff/2+rand.N(l.backoff/2+1), time.Microsecond) // 0 would be for ever
	var after *RetryError
	if errors.As(err, &after) {
		wait = max(wait, min(after.After, time.Hour))
	}
	now := l.w.opt.Now()
	l.mu.Lock()
	if l.failing == "" {
		l.since = now
	}
	l.failing, l.retry = clip(err.Error()), now.Add(wait)
	l.mu.Unlock()
	l.w.opt.Logger.Warn("anchor", "chain", l.name, "error", err, "retry_in", wait)
	return wait
}

func (l *lane) succeeded() {
	l.backoff = 0
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing != "" {
		l.w.opt.Logger.Info("anchor: works again", "chain", l.name)
	}
	l.failing, l.since, l.retry = "", time.Time{}, time.Time{}
}

// step brings every open row one step on, makes a new one if it is due, and says how
// long nothing is to be done; 0 is until the ledger grows.
func (l *lane) step(ctx context.Context) (time.Duration, error) {
	open, err := collect(rows(l.w.opt.Outbox.OpenRows(ctx, l.name)), -1)
	if err != nil {
		return 0, err
	}
	var failures []error
	left, onTheWay := 0, false
	for _, r := range open {
		if err := l.advance(ctx, r); err != nil {
			failures = append(failures, err)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if r.State.Open() {
			left++
		}
		onTheWay = onTheWay || r.State.Open() && r.State != Seen
	}
	if len(failures) > 0 {
		return 0, errors.Join(failures...)
	}
	l.watchBalance(ctx)
	var wait time.Duration
	if left > 0 {
		wait = l.sched.Poll
	}
	// No second transaction before the first is in a block, or dead; and where blocks do
	// not become final, no end of them.
	if onTheWay || left >= maxOpen {
		return wait, nil
	}
	due, t, err := l.due(ctx)
	if err != nil || due < 0 {
		return wait, err
	}
	if due > 0 {
		if wait == 0 || due < wait {
			wait = due
		}
		return wait, nil
	}
	r, err := l.begin(ctx, t)
	if err != nil {
		return 0, err
	}
	return l.sched.Poll, l.advance(ctx, r)
}

// maxOpen is how many rows of a chain are open at most: each is looked up at each step.
const maxOpen = 64

// A standing is how far a chain has come.
type standing struct {
	covered int64     // size of the newest anchor that is in a block
	made    time.Time // when that was made
	bad     int       // attempts since then that came to nothing
	ended   time.Time // when the last of these did
	final   *Row      // newest final row, nil if there is none
}

// standing reads the rows down to the newest final one, once until a row changes: there
// can be many that came to nothing.
func (l *lane) standing(ctx context.Context) (standing, error) {
	if l.stand != nil {
		return *l.stand, nil
	}
	var s standing
	for r, err := range rows(l.w.opt.Outbox.Back(ctx, l.name, 1<<62)) {
		if err != nil {
			return s, err
		}
		switch r.State {
		case Seen, Final:
			if s.covered == 0 {
				s.covered, s.made = r.Size, r.Created()
			}
		case Expired, Refused:
			if s.covered == 0 {
				s.bad += max(r.Attempt, 1)
				if u := r.Updated(); u.After(s.ended) {
					s.ended = u
				}
			}
		}
		if !l.swept && !r.State.Open() && l.chain.Extends() {
			if err := l.w.opt.Outbox.DeleteBody(ctx, l.name, r.Size); err != nil {
				return s, fmt.Errorf("outbox: %w", err)
			}
		}
		if r.State == Final {
			s.final = r
			break
		}
	}
	l.swept, l.stand = true, &s
	return s, nil
}

// A goal is the checkpoint to anchor next.
type goal struct {
	size int64
	note []byte
}

// goal returns the newest checkpoint or, where one extension cannot hold all that is
// new, the newest that it can reach.
func (l *lane) goal(ctx context.Context, final *Row, most int64) (goal, error) {
	size, note, _ := l.w.opt.Ledger.Newest()
	base := int64(0)
	if final != nil {
		base = final.Size
	}
	if !l.chain.Extends() || size <= base+most {
		return goal{size, note}, nil
	}
	size, note, err := l.w.opt.Ledger.CheckpointAt(ctx, base+most)
	if err != nil {
		return goal{}, err
	}
	if size <= base {
		return goal{}, fmt.Errorf("no checkpoint between entries %d and %d: one extension cannot hold what was committed together", base, base+most)
	}
	return goal{size, note}, nil
}

// due returns how long it is until an anchor is due, and of what: 0 for now, negative
// for not before the ledger grows.
func (l *lane) due(ctx context.Context) (time.Duration, goal, error) {
	s, err := l.standing(ctx)
	if err != nil {
		return 0, goal{}, err
	}
	g, err := l.goal(ctx, s.final, MaxEntries)
	if err != nil {
		return 0, goal{}, err
	}
	l.mu.Lock()
	wanted, atOnce := l.wanted, l.atOnce
	l.mu.Unlock()
	if g.size <= s.covered {
		return -1, g, nil
	}
	if s.bad > 0 && !atOnce {
		// What came to nothing may have been paid: the pauses between attempts double.
		pause := failedPause
		if n := min(s.bad, 40); l.sched.MinBackoff < failedPause>>n {
			pause = l.sched.MinBackoff << n
		}
		if rest := pause - l.elapsed(l.ended, s.ended, pause); rest > 0 {
			return rest, g, nil
		}
		return 0, g, nil
	}
	switch {
	case wanted > s.covered, l.sched.Entries > 0 && g.size-s.covered >= l.sched.Entries:
		return 0, g, nil
	case l.sched.Interval <= 0:
		return -1, g, nil
	}
	return max(0, l.sched.Interval-l.elapsed(l.made, s.made, l.sched.Interval)), g, nil
}

// failedPause is the longest pause between attempts that come to nothing.
const failedPause = time.Hour

// elapsed returns the time since something that happened at mono in this process or,
// where that is zero, at wall in an earlier one. A wall time that cannot be is taken as
// long ago: a wrong clock must not stop anchoring.
func (l *lane) elapsed(mono, wall time.Time, long time.Duration) time.Duration {
	if !mono.IsZero() {
		return time.Since(mono)
	}
	if e := l.w.opt.Now().Sub(wall); e >= 0 {
		return e
	}
	return long
}

// begin makes a pending row for a checkpoint; an earlier attempt at it goes on in the
// same row.
func (l *lane) begin(ctx context.Context, g goal) (*Row, error) {
	r := &Row{Chain: l.name, Size: g.size}
	b, err := l.w.opt.Outbox.Get(ctx, l.name, g.size)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	if b != nil {
		if r, err = DecodeRow(b); err != nil {
			return nil, err
		}
	}
	r.Checkpoint, r.Tx, r.Receipt, r.Body, r.Base = g.note, Tx{}, nil, 0, Link{}
	l.made = time.Now()
	l.mu.Lock()
	l.atOnce = false
	l.mu.Unlock()
	return r, l.put(ctx, r, Pending, "")
}

// put makes a transition durable, then tells of it.
func (l *lane) put(ctx context.Context, r *Row, s State, text string) error {
	old := r.State
	r.become(s, l.w.opt.Now(), text)
	b, err := r.Encode()
	if err != nil {
		return err
	}
	l.stand = nil // also if it fails: it may be stored all the same
	if err := l.w.opt.Outbox.Put(ctx, l.name, r.Size, b, s.Open()); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if s == Expired || s == Refused {
		l.ended = time.Now()
	}
	if s != old {
		l.w.opt.Logger.Info("anchor", "chain", l.name, "size", r.Size, "state", s.String(), "attempt", r.Attempt, "tx", r.Tx.ID, "text", text)
	}
	l.w.notify(*r)
	if !s.Open() && l.chain.Extends() { // nobody needs the body any more
		if err := l.w.opt.Outbox.DeleteBody(ctx, l.name, r.Size); err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
	}
	return nil
}

// say records a failure in the row's history and returns it.
func (l *lane) say(ctx context.Context, r *Row, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, l.note(ctx, r, err.Error()))
}

// note records words in the row's history, once for the same.
func (l *lane) note(ctx context.Context, r *Row, text string) error {
	if r.Text() == clip(text) {
		return nil
	}
	return l.put(ctx, r, r.State, text)
}

// clip makes a text for history out of one that endpoints may have had a hand in: short,
// on one line, and the same after it was stored.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}
