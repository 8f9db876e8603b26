package arweave

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// Status implements anchor.Chain. All endpoints that work are asked. Settled says too that the
// whole body was read back from one of them: a header without its body restores nothing.
func (c *Chain) Status(ctx context.Context, tx anchor.Tx) (anchor.Status, error) {
	if !isID(tx.ID) {
		return anchor.Status{}, fmt.Errorf("arweave: %q is no transaction", tx.ID)
	}
	all := make([]*seat, c.cfg.Endpoints.Len())
	errs := c.cfg.Endpoints.Some(ctx, c.cfg.Agree, func(ctx context.Context, i int, e *endpoint.Endpoint) error {
		s, err := locate(ctx, e, tx.ID, c.cfg.Network)
		if err == nil {
			s.who = e.String()
			all[i] = &s
		}
		return err
	})
	st, at, err := c.judge(tx, all)
	if err != nil {
		return anchor.Status{}, errors.Join(append([]error{err}, errs...)...)
	}
	if st.Phase != anchor.Included && st.Phase != anchor.Settled {
		return st, nil
	}
	st.Receipt = anchor.Receipt{Chain: Name, Raw: tx.Raw, Network: c.cfg.Network, Height: at.at, Block: at.block, Depth: at.depth}
	err = c.cfg.Endpoints.First(ctx, func(ctx context.Context, e *endpoint.Endpoint) (err error) {
		st.Receipt.Time, err = blockTime(ctx, e, at, tx.ID)
		return err
	})
	if st.Phase == anchor.Included {
		return st, nil // while it can be dropped, its time is no loss
	}
	if err != nil {
		return anchor.Status{}, fmt.Errorf("time of block %s: %w", at.block, err)
	}
	ok, tried, err := c.readable(ctx, tx)
	switch {
	case ok:
		st.Receipt.Final = true
	case err != nil && !errors.Is(err, errNotReadable):
		return anchor.Status{}, err
	default:
		st.Phase, st.Missing = anchor.Included, tried
		st.Detail += ", but " + errNotReadable.Error()
	}
	return st, nil
}

// like reports whether two endpoints have the transaction in the same block.
func (s *seat) like(o *seat) bool {
	return s.mined && o.mined && s.block == o.block && s.at == o.at
}

// words tell what an endpoint says.
func (s *seat) words() string {
	switch {
	case s.mined:
		return fmt.Sprintf("block %d (%s), %d confirmations", s.at, s.block, s.depth)
	case s.known:
		return "it waits for a block"
	}
	return fmt.Sprintf("at height %d that it does not know it", s.network.Height)
}

// count returns how many endpoints meet a condition, and what the others say that meet
// the second one. Those that said nothing are nil.
func count(all []*seat, say, against func(*seat) bool) (n, others int, dissent string) {
	var who, what []string
	for _, s := range all {
		switch {
		case s == nil:
		case say(s):
			n++
		case against(s):
			who, what = append(who, s.who), append(what, s.words())
		}
	}
	return n, len(who), anchor.Dissent(who, what)
}

// judge makes one status of what the endpoints said, by the rule of anchor.Agreed; nil is
// one that said nothing.
func (c *Chain) judge(tx anchor.Tx, all []*seat) (anchor.Status, seat, error) {
	agreed := func(n, others int) bool { return anchor.Agreed(n, others, c.cfg.Agree, len(all)) }
	every := func(*seat) bool { return true }
	answered, _, _ := count(all, every, every)
	if answered == 0 {
		return anchor.Status{}, seat{}, anchor.ErrUnavailable
	}
	var best *seat // in the block that most have it in; if that is even, the deepest
	most := 0
	for _, o := range all {
		if o == nil || !o.mined {
			continue
		}
		n, others, dissent := count(all,
			func(s *seat) bool { return s.like(o) && s.depth >= c.cfg.Confirmations },
			// One that is behind contradicts nobody.
			func(s *seat) bool { return s.network.Height >= o.at+c.cfg.Confirmations-1 && !s.like(o) })
		if o.depth >= c.cfg.Confirmations && agreed(n, others) {
			st := anchor.Status{Phase: anchor.Settled, Detail: fmt.Sprintf("block %d, %d confirmations", o.at, o.depth), Dissent: dissent}
			return st, *o, nil
		}
		if n, _, _ = count(all, o.like, every); n > most || n == most && o.depth > best.depth {
			most, best = n, o
		}
	}
	n, others, dissent := count(all, func(s *seat) bool { return !s.known && s.network.Height > tx.Expires+forkDepth }, every)
	if agreed(n, others) {
		return anchor.Status{Phase: anchor.Dead, Detail: fmt.Sprintf("in no block up to %d, the last that could have it", tx.Expires), Dissent: dissent}, seat{}, nil
	}
	// Nothing is certain yet. What most say is what is done next; nothing of it costs money.
	n, _, dissent = count(all, func(s *seat) bool { return !s.known }, every)
	if n == answered || 2*n > len(all) {
		return anchor.Status{Phase: anchor.Absent, Detail: "no endpoint knows it", Dissent: dissent}, seat{}, nil
	}
	n, _, dissent = count(all, func(s *seat) bool { return s.known && !s.mined }, func(s *seat) bool { return s.mined })
	if n > most {
		return anchor.Status{Phase: anchor.Waiting, Detail: "waits for a block", Dissent: dissent}, seat{}, nil
	}
	_, _, dissent = count(all, best.like, func(s *seat) bool { return s.network.Height >= best.at })
	return anchor.Status{
		Phase: anchor.Included, Detail: fmt.Sprintf("block %d, %d of %d confirmations", best.at, min(best.depth, c.cfg.Confirmations), c.cfg.Confirmations), Dissent: dissent,
	}, *best, nil
}

// A readBack remembers how reading the body of one transaction ended.
type readBack struct {
	id   string
	ok   bool
	last time.Time // of the last failure
}

// readPause is between attempts to read a body that could not be read.
const readPause = time.Minute

// readable tells whether the body can be read from an endpoint, and whether that was
// tried now.
func (c *Chain) readable(ctx context.Context, tx anchor.Tx) (ok, tried bool, err error) {
	c.mu.Lock()
	r := c.read
	c.mu.Unlock()
	if r.id == tx.ID && (r.ok || c.now().Sub(r.last) < readPause) {
		return r.ok, false, nil
	}
	h, err := open(tx.Raw)
	if err != nil {
		return false, false, err
	}
	_, err = readBody(ctx, c.cfg.Endpoints, h)
	if err != nil && !errors.Is(err, errNotReadable) {
		return false, true, err
	}
	c.mu.Lock()
	c.read = readBack{tx.ID, err == nil, c.now()}
	c.mu.Unlock()
	return err == nil, true, err
}
