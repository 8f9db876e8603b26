package anchor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// A Ledger is what the worker needs of the log it anchors; the store is one.
type Ledger interface {
	// Origin of the log.
	Origin() string
	// Newest returns the newest published tree size, its signed checkpoint, and a channel
	// that is closed when there is a newer one. Size 0 has no checkpoint.
	Newest() (size int64, note []byte, changed <-chan struct{})
	// CheckpointAt returns the signed checkpoint of the largest tree of at most size entries
	// that was ever signed.
	CheckpointAt(ctx context.Context, size int64) (int64, []byte, error)
	// RootAt returns the root of the tree of the first size entries.
	RootAt(ctx context.Context, size int64) (tlog.Hash, error)
}

// A Schedule says when a chain gets an anchor: when there are entries that no anchor
// on its way covers, and Interval has gone by since the last one, or Entries of them
// have come together, or somebody asked.
type Schedule struct {
	Interval time.Duration // 0: not by time
	Entries  int64         // 0: not by number
	// Poll is how often a transaction on its way is looked up.
	Poll time.Duration
	// Call bounds one step: a few calls to the chain with fail-over between endpoints.
	Call time.Duration
	// MinBackoff and MaxBackoff bound the pause after a failure.
	MinBackoff, MaxBackoff time.Duration
}

func (s Schedule) withDefaults() Schedule {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&s.Poll, 2*time.Second)
	set(&s.Call, time.Minute)
	set(&s.MinBackoff, time.Second)
	set(&s.MaxBackoff, 5*time.Minute)
	return s
}

// An Extension is what is new in a ledger since another extension.
type Extension struct {
	Base       Link   // the newest final one, zero for none
	Size       int64  // of the tree that Checkpoint signs
	Checkpoint []byte // signed note
	// Receipts of checkpoints after Base on other chains, all final.
	Receipts []Receipt
}

// Target is a chain with its schedule.
type Target struct {
	Chain    Chain
	Schedule Schedule
}

// Options configures a Worker. Ledger, Outbox and Targets are required.
type Options struct {
	Ledger  Ledger
	Outbox  Outbox
	Targets []Target
	// Encode builds the body of an extension for chains that keep them; a *TooLargeError
	// if one cannot hold so much.
	Encode func(ctx context.Context, x Extension) (body []byte, err error)
	Logger *slog.Logger
	// Now is the clock that history shows; no decision rests on it alone. Nil is time.Now.
	Now func() time.Time
	// After is the timer; nil is time.After.
	After func(time.Duration) <-chan time.Time
	// Changed, if set, is told of each transition, after it is durable. It must not block.
	Changed func(Row)
}

// A Worker brings the checkpoints of a ledger onto its chains.
type Worker struct {
	opt   Options
	lanes []*lane

	mu      sync.Mutex
	changed chan struct{} // closed at the next transition; guarded by mu
}

// NewWorker makes a worker; Run starts it.
func NewWorker(o Options) (*Worker, error) {
	if o.Ledger == nil || o.Outbox == nil {
		return nil, errors.New("a worker needs a ledger and an outbox")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.After == nil {
		o.After = time.After
	}
	w := &Worker{opt: o, changed: make(chan struct{})}
	seen := map[string]bool{}
	for _, t := range o.Targets {
		name := t.Chain.Name()
		if seen[name] {
			return nil, fmt.Errorf("chain %s twice", name)
		}
		seen[name] = true
		if t.Chain.Extends() && o.Encode == nil {
			return nil, fmt.Errorf("chain %s keeps extensions: Encode is needed", name)
		}
		w.lanes = append(w.lanes, newLane(w, t))
	}
	return w, nil
}

// Run anchors until ctx ends. A chain that is down holds up nothing but itself.
func (w *Worker) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, l := range w.lanes {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Wait()
}

// Chains returns the names of the chains.
func (w *Worker) Chains() []string {
	var names []string
	for _, l := range w.lanes {
		names = append(names, l.name)
	}
	return names
}

// Now asks for an anchor of what is published now, on one chain or, with an empty name,
// on all, and returns its size. It does not wait.
func (w *Worker) Now(chain string) (int64, error) {
	size, _, _ := w.opt.Ledger.Newest()
	found := false
	for _, l := range w.lanes {
		if chain == "" || l.name == chain {
			l.demand(size)
			found = true
		}
	}
	if !found {
		if chain == "" {
			return 0, fmt.Errorf("no chain is configured: %w", ErrNoChain)
		}
		return 0, fmt.Errorf("%s: %w", chain, ErrNoChain)
	}
	return size, nil
}

// ErrNoChain: the chain is not configured.
var ErrNoChain = errors.New("chain not configured")

// Wait returns when a chain has an anchor of at least size entries in the given state or
// further on, with its row.
func (w *Worker) Wait(ctx context.Context, chain string, size int64, s State) (*Row, error) {
	for {
		changed := w.Changes()
		for r, err := range ChainRows(ctx, w.opt.Outbox, chain, size) {
			if err != nil {
				return nil, err
			}
			if r.Reached(s) {
				return r, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Changes returns a channel that is closed at the next transition of any row.
func (w *Worker) Changes() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *Worker) notify(r Row) {
	w.mu.Lock()
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	if w.opt.Changed != nil {
		w.opt.Changed(r)
	}
}

// A ChainState is how a chain stands, for people and metrics.
type ChainState struct {
	Chain     string
	Published int64 // size of the ledger
	Final     int64 // size of the newest final anchor
	Seen      int64 // of the newest that is at least seen
	Open      *Row  // the newest on its way, if any
	Balance   *Balance
	// Failing tells why the last step failed, until one succeeds; Since when, Retry when next.
	Failing string
	Since   time.Time
	Retry   time.Time
	Backlog int64 // entries that no final anchor covers
}

// State returns how a chain stands.
func (w *Worker) State(ctx context.Context, chain string) (ChainState, error) {
	for _, l := range w.lanes {
		if l.name == chain {
			return l.state(ctx)
		}
	}
	return ChainState{}, fmt.Errorf("%s: %w", chain, ErrNoChain)
}
