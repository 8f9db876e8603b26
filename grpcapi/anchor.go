package grpcapi

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Anchors is what a server needs of whatever anchors its store. None of its methods waits
// for a chain. Errors are of the classes of packages store and anchor.
type Anchors interface {
	// Chains returns how the configured chains stand, by name, and whether this process
	// makes anchors.
	Chains(ctx context.Context) ([]anchor.ChainState, bool, error)
	// Names returns the chains that there are anchors of, or that are configured.
	Names(ctx context.Context) ([]string, error)
	// List returns at most most anchors of a chain of trees of at most size entries, the
	// largest first.
	List(ctx context.Context, chain string, size int64, most int) ([]*anchor.Row, error)
	// Receipts returns those that cover an entry, and the size of the smallest tree with a
	// final anchor that does, or 0.
	Receipts(ctx context.Context, entry int64) ([]anchor.Claim, int64, error)
	// Prove is store.Store.Prove with the receipts that cover the entry.
	Prove(ctx context.Context, o store.Object, opt store.ProveOptions) (*proof.Proof, error)
	// Now asks for an anchor, on all chains with an empty name, and returns its size and
	// the chains.
	Now(chain string) (int64, []string, error)
	// Watch yields nil and then each transition. It ends with an error, when ctx does or
	// when there is no more to come.
	Watch(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error]
	// Config returns the configuration.
	Config() (anchor.Config, error)
	// Configure changes that of one chain, or takes it away.
	Configure(c anchor.ChainConfig, remove bool) error
}

type anchors struct {
	scalev1.UnimplementedAnchorServiceServer
	*Server
}

const (
	maxChainName   = 32
	mostAnchors    = 100
	defaultAnchors = 50
	// anchorBytes is what an anchor with its receipt takes.
	anchorBytes = 2 * proof.MaxReceipt
)

// get returns what anchors the store.
func (a *anchors) get(chain string) (Anchors, error) {
	if len(chain) > maxChainName {
		return nil, invalidf("chain", "%d bytes, must be at most %d", len(chain), maxChainName)
	}
	if a.opt.Anchors == nil {
		return nil, fmt.Errorf("this node does not anchor: %w", anchor.ErrNoChain)
	}
	return a.opt.Anchors, nil
}

// ListChains implements AnchorServiceServer.
func (a *anchors) ListChains(ctx context.Context, _ *scalev1.ListChainsRequest) (*scalev1.ListChainsResponse, error) {
	from, err := a.get("")
	if err != nil {
		return nil, err
	}
	chains, working, err := from.Chains(ctx)
	if err != nil {
		return nil, err
	}
	resp := &scalev1.ListChainsResponse{Working: working}
	for i := range chains {
		resp.Chains = append(resp.Chains, a.chain(&chains[i]))
	}
	return resp, nil
}

func (a *anchors) chain(s *anchor.ChainState) *scalev1.AnchorChain {
	p := &scalev1.AnchorChain{
		Chain: s.Chain, Published: s.Published, Seen: s.Seen, Final: s.Final, Backlog: s.Backlog,
		Failing: text(s.Failing), FailingSince: protoTime(s.Since), Retry: protoTime(s.Retry),
	}
	if s.Open != nil {
		p.Open = a.anchor(s.Open)
	}
	if b := s.Balance; b != nil {
		p.Balance = &scalev1.AnchorBalance{
			Address: b.Address, Units: b.Units, Price: b.Price, Unit: b.Unit, Decimals: int32(b.Decimals), Coin: b.Coin, AnchorsLeft: b.Anchors(),
		}
	}
	return p
}

// anchor is the API's form of a row of the outbox.
func (a *anchors) anchor(r *anchor.Row) *scalev1.Anchor {
	p := &scalev1.Anchor{
		Chain: r.Chain, Size: r.Size, Checkpoint: a.checkpointOf(r.Checkpoint), State: scalev1.AnchorState(r.State), Attempt: int32(r.Attempt),
		Transaction: text(r.Tx.ID), Fee: r.Tx.Fee, BaseSize: r.Base.Size, BaseTransaction: text(r.Base.ID), BodySize: r.Body,
	}
	if r.Receipt != nil {
		p.Receipt = r.Receipt.Append(nil)
	}
	for _, t := range r.History {
		p.History = append(p.History, &scalev1.AnchorTransition{
			Time: protoTime(t.Time), State: scalev1.AnchorState(t.State), Attempt: int32(t.Attempt), Text: text(t.Text),
		})
	}
	return p
}

// ListAnchors implements AnchorServiceServer.
func (a *anchors) ListAnchors(ctx context.Context, req *scalev1.ListAnchorsRequest) (*scalev1.ListAnchorsResponse, error) {
	from, err := a.get(req.GetChain())
	if err != nil {
		return nil, err
	}
	t := anchorsToken{asked: req.GetChain()}
	if err := parsePage(req.GetPageToken(), &t); err != nil {
		return nil, err
	}
	most := int(req.GetPageSize())
	switch {
	case most < 0:
		return nil, invalidf("page_size", "%d is negative", most)
	case most == 0:
		most = defaultAnchors
	}
	most = min(most, mostAnchors)
	if err := a.reserve(ctx, most*anchorBytes); err != nil {
		return nil, err
	}
	names, err := from.Names(ctx)
	if err != nil {
		return nil, err
	}
	resp := &scalev1.ListAnchorsResponse{}
	for _, name := range names {
		if req.GetChain() != "" && name != req.GetChain() || name < t.chain {
			continue
		}
		size := int64(math.MaxInt64 / 2)
		if name == t.chain {
			if size = t.size - 1; size < 1 {
				continue
			}
		}
		// One more tells whether there is another page.
		rows, err := from.List(ctx, name, size, most-len(resp.Anchors)+1)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if len(resp.Anchors) == most {
				last := resp.Anchors[most-1]
				resp.NextPageToken = formatPage(&anchorsToken{asked: req.GetChain(), chain: last.GetChain(), size: last.GetSize()})
				return resp, nil
			}
			resp.Anchors = append(resp.Anchors, a.anchor(r))
		}
	}
	return resp, nil
}

// GetReceipts implements AnchorServiceServer.
func (a *anchors) GetReceipts(ctx context.Context, req *scalev1.GetReceiptsRequest) (*scalev1.GetReceiptsResponse, error) {
	from, err := a.get("")
	if err != nil {
		return nil, err
	}
	if i, size := req.GetIndex(), a.store.Published().Size; i < 0 {
		return nil, invalidf("index", "%d, must be 0 or more", i)
	} else if i >= size {
		return nil, inField("index", notFoundf("entry :%d of a ledger of %d", i, size))
	}
	if err := a.reserve(ctx, proof.MaxReceipts*anchorBytes); err != nil {
		return nil, err
	}
	claims, at, err := from.Receipts(ctx, req.GetIndex())
	if err != nil {
		return nil, err
	}
	resp := &scalev1.GetReceiptsResponse{FinalSize: at}
	for _, c := range claims {
		resp.Receipts = append(resp.Receipts, &scalev1.AnchorReceipt{Receipt: c.Receipt, Size: c.Size, Path: protoHashes(c.Path)})
	}
	return resp, nil
}

// AnchorNow implements AnchorServiceServer.
func (a *anchors) AnchorNow(_ context.Context, req *scalev1.AnchorNowRequest) (*scalev1.AnchorNowResponse, error) {
	from, err := a.get(req.GetChain())
	if err != nil {
		return nil, err
	}
	size, chains, err := from.Now(req.GetChain())
	if err != nil {
		return nil, err
	}
	return &scalev1.AnchorNowResponse{Size: size, Chains: chains}, nil
}

// WatchAnchors implements AnchorServiceServer.
func (a *anchors) WatchAnchors(req *scalev1.WatchAnchorsRequest, ss grpc.ServerStreamingServer[scalev1.WatchAnchorsResponse]) error {
	from, err := a.get(req.GetChain())
	if err != nil {
		return err
	}
	ctx := ss.Context()
	for r, err := range from.Watch(ctx, req.GetChain()) {
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return ErrClosing
		}
		m := &scalev1.WatchAnchorsResponse{}
		if r != nil {
			m.Anchor = a.anchor(r)
		}
		if err := ss.Send(m); err != nil {
			return err
		}
	}
	return ErrClosing
}

// GetConfiguration implements AnchorServiceServer.
func (a *anchors) GetConfiguration(_ context.Context, _ *scalev1.GetConfigurationRequest) (*scalev1.GetConfigurationResponse, error) {
	from, err := a.get("")
	if err != nil {
		return nil, err
	}
	cfg, err := from.Config()
	if err != nil {
		return nil, err
	}
	resp := &scalev1.GetConfigurationResponse{}
	for _, c := range cfg {
		resp.Chains = append(resp.Chains, protoChainConfig(&c))
	}
	return resp, nil
}

// ConfigureChain implements AnchorServiceServer.
func (a *anchors) ConfigureChain(_ context.Context, req *scalev1.ConfigureChainRequest) (*scalev1.ConfigureChainResponse, error) {
	from, err := a.get("")
	if err != nil {
		return nil, err
	}
	if req.GetConfig() == nil {
		return nil, invalidf("config", "it is missing")
	}
	c, err := chainConfig(req.GetConfig())
	if err != nil {
		return nil, inField("config", err)
	}
	if err := from.Configure(c, req.GetRemove()); err != nil {
		return nil, err
	}
	return &scalev1.ConfigureChainResponse{}, nil
}

func protoChainConfig(c *anchor.ChainConfig) *scalev1.ChainConfig {
	return &scalev1.ChainConfig{
		Chain: c.Chain, Endpoints: c.Endpoints, Wallet: c.Wallet, Network: c.Network, MemoProgram: c.MemoProgram, Confirmations: c.Confirmations,
		MaxFee: c.MaxFee, IntervalMs: c.Interval.Milliseconds(), Entries: c.Entries, Agree: int32(c.Agree), PollMs: c.Poll.Milliseconds(),
	}
}

// chainConfig reads a configuration; whether it makes sense is for ChainConfig.Check.
func chainConfig(p *scalev1.ChainConfig) (anchor.ChainConfig, error) {
	c := anchor.ChainConfig{
		Chain: p.GetChain(), Endpoints: p.GetEndpoints(), Wallet: p.GetWallet(), Network: p.GetNetwork(), MemoProgram: p.GetMemoProgram(),
		Confirmations: p.GetConfirmations(), MaxFee: p.GetMaxFee(), Entries: p.GetEntries(), Agree: int(p.GetAgree()),
	}
	const longest = int64(math.MaxInt64 / time.Millisecond)
	if p.GetIntervalMs() > longest || p.GetIntervalMs() < -longest || p.GetPollMs() > longest || p.GetPollMs() < -longest {
		return c, fmt.Errorf("%w: a time that is too long", anchor.ErrConfig)
	}
	c.Interval, c.Poll = time.Duration(p.GetIntervalMs())*time.Millisecond, time.Duration(p.GetPollMs())*time.Millisecond
	return c, nil
}
