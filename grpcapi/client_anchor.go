package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// Bounds of what a node says of anchors.
const (
	maxChains      = 16
	maxReceipts    = 16
	maxHistory     = 32
	maxTransaction = 128
)

func (p *parser) chain(s string) string {
	if s == "" || len(s) > maxChainName || strings.ContainsFunc(s, unprintable) {
		p.failf("%.50q is no name of a chain", s)
		return ""
	}
	return s
}

// row reads an anchor. All of it is the node's word but the checkpoint, which is signed.
func (c *Client) row(p *parser, m *scalev1.Anchor) *anchor.Row {
	r := &anchor.Row{
		Chain: p.chain(m.GetChain()), Size: p.index("anchored tree of size", m.GetSize(), 1), State: anchor.State(m.GetState()), Attempt: int(m.GetAttempt()),
		Tx:   anchor.Tx{ID: plain(m.GetTransaction(), maxTransaction), Fee: m.GetFee()},
		Base: anchor.Link{ID: plain(m.GetBaseTransaction(), maxTransaction), Size: m.GetBaseSize()}, Body: m.GetBodySize(),
	}
	if m.GetState() < scalev1.AnchorState_ANCHOR_STATE_PENDING || m.GetState() > scalev1.AnchorState_ANCHOR_STATE_REFUSED {
		p.failf("an anchor in state %d", m.GetState())
	}
	cp := p.checkpoint(m.GetCheckpoint())
	if p.err == nil && cp.Size != r.Size {
		p.failf("an anchor of %d entries has a checkpoint of %d", r.Size, cp.Size)
	}
	if p.err == nil {
		p.err = c.checkSigned(cp)
	}
	r.Checkpoint = cp.Checkpoint
	if b := m.GetReceipt(); len(b) > 0 {
		receipt, err := anchor.ParseReceipt(b)
		if err != nil || receipt.Chain != r.Chain {
			p.failf("receipt of an anchor on %s: %v", r.Chain, err)
		}
		r.Receipt, r.Tx.Raw = &receipt, receipt.Raw
	}
	if len(m.GetHistory()) > maxHistory {
		p.failf("an anchor of %d transitions", len(m.GetHistory()))
		return r
	}
	for _, h := range m.GetHistory() {
		r.History = append(r.History, anchor.Transition{
			Time: p.time("transition", h.GetTime()), State: anchor.State(h.GetState()), Attempt: int(h.GetAttempt()), Text: plain(h.GetText(), maxErrorText),
		})
	}
	return r
}

// AnchorChains returns how the node's chains stand, by name, and whether it makes anchors.
func (c *Client) AnchorChains(ctx context.Context) ([]anchor.ChainState, bool, error) {
	r, err := ask(ctx, c, c.anchors.ListChains, &scalev1.ListChainsRequest{})
	if err != nil {
		return nil, false, err
	}
	if n := len(r.GetChains()); n > maxChains {
		return nil, false, nodeErrorf("%d chains", n)
	}
	var p parser
	var out []anchor.ChainState
	for _, m := range r.GetChains() {
		s := anchor.ChainState{
			Chain: p.chain(m.GetChain()), Published: p.index("ledger of size", m.GetPublished(), 0), Seen: p.index("seen size", m.GetSeen(), 0),
			Final: p.index("final size", m.GetFinal(), 0), Backlog: p.index("backlog", m.GetBacklog(), 0), Failing: plain(m.GetFailing(), maxErrorText),
			Since: p.time("failing since", m.GetFailingSince()), Retry: p.time("retry", m.GetRetry()),
		}
		if m.GetOpen() != nil {
			s.Open = c.row(&p, m.GetOpen())
		}
		if b := m.GetBalance(); b != nil {
			s.Balance = &anchor.Balance{
				Address: plain(b.GetAddress(), maxTransaction), Units: b.GetUnits(), Price: b.GetPrice(), Unit: plain(b.GetUnit(), maxChainName),
				Decimals: int(b.GetDecimals()), Coin: plain(b.GetCoin(), maxChainName),
			}
			if s.Balance.Decimals < 0 || s.Balance.Decimals > 18 {
				p.failf("a coin of %d decimals", s.Balance.Decimals)
			}
		}
		out = append(out, s)
	}
	return out, r.GetWorking(), p.err
}

// Anchors yields the anchors of one chain, or with an empty name of all: by chain, and
// within it from the largest tree on.
func (c *Client) Anchors(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error] {
	return func(yield func(*anchor.Row, error) bool) {
		req := &scalev1.ListAnchorsRequest{Chain: chain, PageSize: mostAnchors}
		var last *anchor.Row
		for {
			r, err := ask(ctx, c, c.anchors.ListAnchors, req)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, m := range r.GetAnchors() {
				var p parser
				row := c.row(&p, m)
				if last != nil && (row.Chain < last.Chain || row.Chain == last.Chain && row.Size >= last.Size) || chain != "" && row.Chain != chain {
					p.failf("the anchor of %d entries on %s is out of order", row.Size, row.Chain)
				}
				last = row
				if !yield(row, p.err) || p.err != nil {
					return
				}
			}
			if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
				return
			}
			if len(r.GetAnchors()) == 0 {
				yield(nil, nodeErrorf("an empty page of anchors that is not the last"))
				return
			}
		}
	}
}

// AnchorReceipts returns the receipts that cover an entry, and the size of the smallest
// tree with a final anchor that does, or 0. They are not verified.
func (c *Client) AnchorReceipts(ctx context.Context, entry int64) ([]anchor.Claim, int64, error) {
	r, err := ask(ctx, c, c.anchors.GetReceipts, &scalev1.GetReceiptsRequest{Index: entry})
	if err != nil {
		return nil, 0, err
	}
	if n := len(r.GetReceipts()); n > maxReceipts {
		return nil, 0, nodeErrorf("%d receipts", n)
	}
	var p parser
	var out []anchor.Claim
	for _, m := range r.GetReceipts() {
		claim := anchor.Claim{Receipt: m.GetReceipt(), Size: p.index("anchored tree of size", m.GetSize(), entry+1)}
		if _, err := anchor.ParseReceipt(claim.Receipt); err != nil {
			p.failf("%w", err)
		}
		if n := len(m.GetPath()); n > 64 {
			p.failf("an inclusion path of %d hashes", n)
			break
		}
		for _, h := range m.GetPath() {
			claim.Path = append(claim.Path, tlog.Hash(p.hash("hash of an inclusion path", h)))
		}
		out = append(out, claim)
	}
	return out, p.index("final size", r.GetFinalSize(), 0), p.err
}

// AnchorNow asks the node for an anchor of what is in its ledger, on one chain or with an
// empty name on all, and returns its size and the chains.
func (c *Client) AnchorNow(ctx context.Context, chain string) (int64, []string, error) {
	// Asked twice it anchors once.
	r, err := ask(ctx, c, c.anchors.AnchorNow, &scalev1.AnchorNowRequest{Chain: chain})
	if err != nil {
		return 0, nil, err
	}
	var p parser
	if len(r.GetChains()) > maxChains {
		p.failf("%d chains", len(r.GetChains()))
		return 0, nil, p.err
	}
	for _, name := range r.GetChains() {
		p.chain(name)
	}
	return p.index("ledger of size", r.GetSize(), 0), r.GetChains(), p.err
}

// WatchAnchors yields each transition from now on, of one chain or with an empty name of
// all, as the anchor is after it. A nil row says that from then on nothing is missed: it
// comes first, and after every time that the connection broke.
func (c *Client) WatchAnchors(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error] {
	return func(yield func(*anchor.Row, error) bool) {
		p := patience{c: c}
		for {
			more, callErr := c.watchOnce(ctx, chain, func(r *anchor.Row, err error) bool {
				p.progress()
				return yield(r, err)
			})
			if !more {
				return
			}
			if callErr == nil {
				callErr = errors.New("the node has ended the stream")
			}
			if err := p.again(ctx, callErr); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// watchOnce yields what one call brings. More is false when yield wants no more.
func (c *Client) watchOnce(ctx context.Context, chain string, yield func(*anchor.Row, error) bool) (more bool, callErr error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.anchors.WatchAnchors(ctx, &scalev1.WatchAnchorsRequest{Chain: chain})
	if err != nil {
		return true, err
	}
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return true, err
		}
		if m.GetAnchor() == nil {
			if !yield(nil, nil) {
				return false, nil
			}
			continue
		}
		var p parser
		r := c.row(&p, m.GetAnchor())
		if !yield(r, p.err) || p.err != nil {
			return false, nil
		}
	}
}

// AnchorConfig returns the configuration of the chains, to who comes through the private
// socket.
func (c *Client) AnchorConfig(ctx context.Context) (anchor.Config, error) {
	r, err := ask(ctx, c, c.anchors.GetConfiguration, &scalev1.GetConfigurationRequest{})
	if err != nil {
		return nil, err
	}
	if n := len(r.GetChains()); n > maxChains {
		return nil, nodeErrorf("%d chains", n)
	}
	var cfg anchor.Config
	for _, m := range r.GetChains() {
		one, err := chainConfig(m)
		if err == nil {
			err = one.Check()
		}
		if err == nil && cfg.Chain(one.Chain) != nil {
			err = fmt.Errorf("chain %s twice", one.Chain)
		}
		if err != nil {
			return nil, nodeErrorf("%w", err)
		}
		cfg = cfg.With(one)
	}
	return cfg, nil
}

// ConfigureAnchors changes the configuration of a chain or takes it away, for who comes
// through the private socket.
func (c *Client) ConfigureAnchors(ctx context.Context, one anchor.ChainConfig, remove bool) error {
	_, err := ask(ctx, c, c.anchors.ConfigureChain, &scalev1.ConfigureChainRequest{Config: protoChainConfig(&one), Remove: remove})
	return err
}
