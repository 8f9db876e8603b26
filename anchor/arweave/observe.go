package arweave

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// An Observer confirms receipts by endpoints that the verifier of a proof trusts.
type Observer struct {
	Verifier
	// Endpoints all have to answer, and alike.
	Endpoints *endpoint.Pool
	// Network, if set, is the one that the verifier means.
	Network string
	// Confirmations is how many make an anchor final; 0 is DefaultConfirmations.
	Confirmations uint64
}

// Confirm implements anchor.Observer. The id is the digest of a signature that covers
// all of the header, so where it is says enough: nobody needs to return its bytes.
func (o Observer) Confirm(ctx context.Context, r anchor.Receipt) (anchor.Confirmed, error) {
	a, err := o.Open(r)
	if err != nil {
		return anchor.Confirmed{}, err
	}
	need := o.Confirmations
	if need == 0 {
		need = DefaultConfirmations
	}
	type answered struct {
		seat
		time int64
	}
	all := make([]answered, o.Endpoints.Len())
	errs := o.Endpoints.All(ctx, func(ctx context.Context, i int, e *endpoint.Endpoint) (err error) {
		if all[i].seat, err = locate(ctx, e, a.ID, ""); err == nil && all[i].mined {
			all[i].time, err = blockTime(ctx, e, all[i].seat, a.ID)
		}
		return err
	})
	if err := errors.Join(errs...); err != nil {
		return anchor.Confirmed{}, fmt.Errorf("arweave: %w: %w", anchor.ErrUnavailable, err)
	}
	first := all[0]
	c := anchor.Confirmed{Height: first.at, Block: first.block, Depth: first.depth, Asked: len(all)}
	for i, s := range all {
		e := o.Endpoints.Endpoints()[i]
		switch n := s.network.Network; {
		case o.Network != "" && n != o.Network:
			return anchor.Confirmed{}, fmt.Errorf("%s is of the network %q, not %q: %w: %w", e, n, o.Network, anchor.ErrUnavailable, anchor.ErrCluster)
		case n != first.network.Network, s.mined && first.mined && (s.block != first.block || s.at != first.at || s.time != first.time):
			return anchor.Confirmed{}, fmt.Errorf("%s says otherwise than %s of transaction %s: %w", e, o.Endpoints.Endpoints()[0], a.ID, anchor.ErrDisagree)
		}
		c.Depth = min(c.Depth, s.depth)
	}
	if n := first.network.Network; r.Network != n {
		return c, fmt.Errorf("anchored on the network %q, the endpoints are of %q: %w", r.Network, n, anchor.ErrForged)
	}
	for i, s := range all {
		e := o.Endpoints.Endpoints()[i]
		switch {
		case !s.known:
			return c, fmt.Errorf("%s does not know transaction %s: it never landed, or has dropped out: %w", e, a.ID, anchor.ErrNotFinal)
		case !s.mined:
			return c, fmt.Errorf("%s says that transaction %s waits for a block: %w", e, a.ID, anchor.ErrNotFinal)
		}
	}
	switch {
	case c.Depth < need:
		return c, fmt.Errorf("transaction %s has %d of %d confirmations in block %d: %w", a.ID, c.Depth, need, c.Height, anchor.ErrNotFinal)
	case r.Final && (r.Height != c.Height || r.Block != c.Block || r.Time != first.time):
		return c, fmt.Errorf("the receipt says block %s at height %d and time %d; the chain says %s, %d and %d: %w",
			r.Block, r.Height, r.Time, c.Block, c.Height, first.time, anchor.ErrForged)
	}
	c.Final, c.Time = true, time.Unix(first.time, 0).UTC()
	return c, nil
}
