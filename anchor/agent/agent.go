// Package agent anchors the ledger of one store: it keeps the configuration of the chains
// in the store's directory, builds the worker from it, and tells how it goes. It lives in
// the process that owns the store. Whether it works, or only tells what is in the outbox,
// is for that process to say: Start.
package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

// Options configures New. The zero value is usable.
type Options struct {
	Logger *slog.Logger
	// Changed, if set, is told of each transition, after it is durable. It must not block.
	Changed func(anchor.Row)
}

// An Agent anchors a store. It is safe for concurrent use.
type Agent struct {
	store *store.Store
	opt   Options
	hub   hub

	mu      sync.Mutex // guards what is below; held while a worker is stopped
	cfg     anchor.Config
	cfgErr  error // why there is no configuration
	running *run  // nil unless it works
	mode    mode
	closed  bool
}

// A mode says what an agent is to do. Higher ones include lower ones.
type mode uint8

const (
	idle mode = iota
	// onDemand: bring on what is under way, and what is asked for by Now.
	onDemand
	// scheduled: anchor as configured as well.
	scheduled
)

// A run is a worker at work.
type run struct {
	worker *anchor.Worker // of the chains that could be built
	broken map[string]error
	cancel context.CancelFunc
	done   chan struct{}
	close  func()
}

// New makes an agent of an open store, which its caller closes after Close. Nothing is
// anchored before Start or Now. A configuration that cannot be read is told by every
// method that needs it: it must not keep a store from being opened.
func New(s *store.Store, o Options) *Agent {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Agent{store: s, opt: o}
	a.hub.init()
	if a.cfg, a.cfgErr = ReadConfig(s.Dir()); a.cfgErr != nil {
		o.Logger.Error("anchor: configuration", "error", a.cfgErr)
	}
	return a
}

// Start begins to anchor as configured. Starting twice does nothing.
func (a *Agent) Start() { a.raise(scheduled) }

// StartOnDemand begins to bring on what is under way. Only Now makes new anchors.
func (a *Agent) StartOnDemand() { a.raise(onDemand) }

func (a *Agent) raise(m mode) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.start(m)
}

// start is called with mu held.
func (a *Agent) start(m mode) {
	if m > a.mode {
		a.mode = m
		a.stop()
	}
	if a.running != nil || a.closed || len(a.cfg) == 0 || a.mode == idle {
		return
	}
	targets, broken, closeAll := build(a.cfg)
	for i := range targets {
		if a.mode == onDemand {
			targets[i].Schedule.Interval, targets[i].Schedule.Entries = 0, 0
		}
	}
	for chain, err := range broken {
		a.opt.Logger.Error("anchor: chain cannot be used", "chain", chain, "error", err)
	}
	w, err := anchor.NewWorker(anchor.Options{
		Ledger: a.store, Outbox: a.store.Outbox(), Targets: targets, Encode: a.encode, Logger: a.opt.Logger, Changed: a.changed,
	})
	if err != nil { // it is made of what was checked
		a.opt.Logger.Error("anchor: worker", "error", err)
		closeAll()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{worker: w, broken: broken, cancel: cancel, done: make(chan struct{}), close: closeAll}
	a.running = r
	go func() {
		defer close(r.done)
		w.Run(ctx)
	}()
}

// stop is called with mu held. What is under way goes on when a worker runs again: calls
// to chains are given up, rows are not.
func (a *Agent) stop() {
	if r := a.running; r != nil {
		r.cancel()
		<-r.done
		r.close()
		a.running = nil
	}
}

// Close stops working and ends those who watch.
func (a *Agent) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.stop()
	a.hub.close()
}

func (a *Agent) changed(r anchor.Row) {
	if a.opt.Changed != nil {
		a.opt.Changed(r)
	}
	a.hub.add(r)
}

// chains returns the configuration, the worker, if there is one, and whether this process
// anchors as configured.
func (a *Agent) chains() (cfg anchor.Config, r *run, works bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.cfg), a.running, a.mode == scheduled, a.cfgErr
}

// Chains returns how each configured chain stands, by name, and whether this process
// anchors as configured. It asks no chain.
func (a *Agent) Chains(ctx context.Context) ([]anchor.ChainState, bool, error) {
	cfg, r, works, err := a.chains()
	if err != nil {
		return nil, false, err
	}
	size, _, _ := a.store.Newest()
	var out []anchor.ChainState
	for _, c := range cfg {
		var s anchor.ChainState
		err := anchor.ErrNoChain
		if r != nil {
			s, err = r.worker.State(ctx, c.Chain)
		}
		if errors.Is(err, anchor.ErrNoChain) {
			s, err = anchor.StoredState(ctx, a.store.Outbox(), c.Chain, size)
		}
		if err != nil {
			return nil, false, err
		}
		if r != nil && r.broken[c.Chain] != nil {
			s.Failing = r.broken[c.Chain].Error()
		}
		out = append(out, s)
	}
	return out, works, nil
}

// List returns at most most anchors of a chain whose tree has at most size entries, the
// largest first. A chain without any has none, configured or not.
func (a *Agent) List(ctx context.Context, chain string, size int64, most int) ([]*anchor.Row, error) {
	var out []*anchor.Row
	for b, err := range a.store.Outbox().Back(ctx, chain, size) {
		if err != nil {
			return nil, err
		}
		r, err := anchor.DecodeRow(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
		}
		if out = append(out, r); len(out) == most {
			break
		}
	}
	return out, nil
}

// Names returns the chains that there are anchors of, or that are configured.
func (a *Agent) Names(ctx context.Context) ([]string, error) {
	names, err := a.store.Outbox().Chains(ctx)
	if err != nil {
		return nil, err
	}
	cfg, _, _, _ := a.chains()
	for _, c := range cfg {
		names = append(names, c.Chain)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Receipts returns the receipts that cover an entry, and the size of the smallest tree
// with a final anchor that does; 0 if there is none.
func (a *Agent) Receipts(ctx context.Context, entry int64) ([]anchor.Claim, int64, error) {
	if size := a.store.Published().Size; entry < 0 || entry >= size {
		return nil, 0, fmt.Errorf("entry :%d of a ledger of %d: %w", entry, size, store.ErrNotFound)
	}
	names, err := a.store.Outbox().Chains(ctx)
	if err != nil {
		return nil, 0, err
	}
	claims, at, err := anchor.Attach(ctx, a.store.Outbox(), names, entry, func(ctx context.Context, index, size int64) (tlog.RecordProof, error) {
		in, err := a.store.Inclusion(ctx, index, size)
		return in.Hashes, err
	})
	if errors.Is(err, anchor.ErrRow) {
		err = fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return claims, at, err
}

// Prove makes a proof, as store.Store.Prove does, with the receipts that cover its entry.
// Where one of them is final, the proof's own checkpoint is one that was anchored.
func (a *Agent) Prove(ctx context.Context, o store.Object, opt store.ProveOptions) (*proof.Proof, error) {
	claims, at, err := a.Receipts(ctx, o.Dataset.Entry)
	if err != nil {
		return nil, fmt.Errorf("prove %s: receipts: %w", o, err)
	}
	if opt.At == 0 {
		opt.At = at
	}
	p, err := a.store.Prove(ctx, o, opt)
	if err != nil || len(claims) == 0 {
		return p, err
	}
	list := make([]proof.Receipt, len(claims))
	for i, c := range claims {
		list[i] = proof.Receipt{Data: c.Receipt, Size: c.Size, Path: c.Path}
	}
	return p, p.SetReceipts(list)
}

// Now asks for an anchor of what is published, on one chain or with an empty name on all,
// and returns its size and the chains. It begins to work, on demand, if this process did not.
func (a *Agent) Now(chain string) (int64, []string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.cfgErr != nil:
		return 0, nil, a.cfgErr
	case chain == "" && len(a.cfg) == 0:
		return 0, nil, fmt.Errorf("no chain is configured: %w", anchor.ErrNoChain)
	case chain != "" && a.cfg.Chain(chain) == nil:
		return 0, nil, fmt.Errorf("%.100q: %w", chain, anchor.ErrNoChain)
	}
	if a.start(onDemand); a.running == nil {
		return 0, nil, errors.New("anchoring is being stopped")
	}
	var names []string
	for _, c := range a.cfg {
		if chain != "" && chain != c.Chain {
			continue
		}
		if err := a.running.broken[c.Chain]; err != nil {
			return 0, nil, fmt.Errorf("%s: %w: %w", c.Chain, anchor.ErrConfig, err)
		}
		names = append(names, c.Chain)
	}
	size, err := a.running.worker.Now(chain)
	return size, names, err
}

// Config returns the configuration.
func (a *Agent) Config() (anchor.Config, error) {
	cfg, _, _, err := a.chains()
	return cfg, err
}

// Configure puts the configuration of a chain in its place or, with remove, takes that of
// the chain that c names away. It is durable, and holds, when it returns: no chain is
// asked for it.
func (a *Agent) Configure(c anchor.ChainConfig, remove bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errors.New("anchoring is being stopped")
	}
	if a.cfgErr != nil {
		return a.cfgErr
	}
	next := a.cfg.Without(c.Chain)
	if !remove {
		if err := checkChain(&c); err != nil {
			return err
		}
		next = a.cfg.With(c)
	} else if len(next) == len(a.cfg) {
		return fmt.Errorf("%.100q: %w", c.Chain, anchor.ErrNoChain)
	}
	if err := WriteConfig(a.store.Dir(), next); err != nil {
		return err
	}
	a.cfg = next
	a.stop()
	a.start(a.mode)
	return nil
}

// A hub tells watchers of transitions. It keeps the newest, so that nobody waits for a
// slow watcher: he misses what was pushed out.
type hub struct {
	mu      sync.Mutex
	ring    [hubRows]anchor.Row
	next    uint64        // number of the next row
	changed chan struct{} // closed at the next row, or at the end
	closed  bool
}

const hubRows = 256

func (h *hub) init() { h.changed = make(chan struct{}) }

func (h *hub) add(r anchor.Row) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	r.Tx.Raw, r.History, r.Receipt = nil, slices.Clone(r.History), nil
	h.ring[h.next%hubRows] = r
	h.next++
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.changed)
	}
}

// from returns the rows from number at on, the number after them, and what to wait for.
func (h *hub) from(at uint64) (rows []anchor.Row, next uint64, changed <-chan struct{}, closed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next > hubRows {
		at = max(at, h.next-hubRows)
	}
	for ; at < h.next; at++ {
		rows = append(rows, h.ring[at%hubRows])
	}
	return rows, h.next, h.changed, h.closed
}

// ErrStopped ends a watch: the process anchors no more.
var ErrStopped = errors.New("anchoring has stopped")

// Watch yields each transition from now on, of one chain or with an empty name of all,
// as the row is after it, without its transaction and receipt. The first row is nil: from
// then on nothing is missed but by a slow consumer. It ends with an error.
func (a *Agent) Watch(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error] {
	return func(yield func(*anchor.Row, error) bool) {
		_, at, changed, closed := a.hub.from(^uint64(0))
		if !yield(nil, nil) {
			return
		}
		for {
			if !closed {
				select {
				case <-changed:
				case <-ctx.Done():
					yield(nil, context.Cause(ctx))
					return
				}
			}
			var rows []anchor.Row
			rows, at, changed, closed = a.hub.from(at)
			for i := range rows {
				if (chain == "" || rows[i].Chain == chain) && !yield(&rows[i], nil) {
					return
				}
			}
			if closed {
				yield(nil, ErrStopped)
				return
			}
		}
	}
}
