package anchor

import (
	"context"
	"time"
)

const (
	balanceEvery = 5 * time.Minute
	// lowAnchors is how many more anchors a wallet should pay for.
	lowAnchors = 100
)

// watchBalance asks for the balance now and then; not knowing it stops nothing.
func (l *lane) watchBalance(ctx context.Context) {
	l.mu.Lock()
	fresh := !l.asked.IsZero() && time.Since(l.asked) < balanceEvery
	l.mu.Unlock()
	if fresh {
		return
	}
	var b Balance
	err := l.call(ctx, 0, func(ctx context.Context) (err error) {
		b, err = l.chain.Balance(ctx)
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = time.Now()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		l.w.opt.Logger.Warn("anchor: balance", "chain", l.name, "error", err)
		return
	}
	l.balance = &b
	if n := b.Anchors(); n >= 0 && n < lowAnchors {
		l.w.opt.Logger.Warn("anchor: the wallet is nearly empty", "chain", l.name, "address", b.Address, "anchors_left", n)
	}
}

// state collects ChainState.
func (l *lane) state(ctx context.Context) (ChainState, error) {
	size, _, _ := l.w.opt.Ledger.Newest()
	s, err := StoredState(ctx, l.w.opt.Outbox, l.name, size)
	if err != nil {
		return s, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Failing, s.Since, s.Retry = l.failing, l.since, l.retry
	if l.balance != nil {
		b := *l.balance
		s.Balance = &b
	}
	return s, nil
}

// StoredState returns how a chain stands as far as its outbox tells, with a ledger of so
// many entries: without what only a running worker knows.
func StoredState(ctx context.Context, o Outbox, chain string, published int64) (ChainState, error) {
	s := ChainState{Chain: chain, Published: published}
	for r, err := range rows(o.Back(ctx, chain, 1<<62)) {
		if err != nil {
			return s, err
		}
		if r.State.Open() && s.Open == nil {
			s.Open = r
		}
		if r.Reached(Seen) {
			s.Seen = max(s.Seen, r.Size)
		}
		if r.State == Final {
			s.Final = r.Size
			break
		}
	}
	s.Backlog = max(0, published-s.Final)
	return s, nil
}
