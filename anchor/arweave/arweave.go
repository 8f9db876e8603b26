// Package arweave anchors checkpoints on Arweave: a transaction whose tags hold the
// signed checkpoint and whose body is an extension, what is new in the ledger since the
// extension before. Of goar it uses types, signing and the check of paths; all HTTP goes
// through package endpoint.
package arweave

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everFinance/goar/types"
	"github.com/everFinance/goar/utils"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// Name is the chain's name in rows, receipts and commands.
const Name = "arweave"

// MainNetwork is what gateways of the network itself call it.
const MainNetwork = "arweave.N.1"

// Defaults of Config.
const (
	DefaultConfirmations = 18
	DefaultMaxFee        = 1_000_000_000_000 // winston: 1 AR
)

// anchorLife is for how many blocks the network takes a transaction's last_tx.
const anchorLife = 50

// forkDepth is how many blocks more have to be there before a transaction that none of
// them has is given up: the newest blocks can still be replaced, and the servers behind
// one address stand at different heights.
const forkDepth = 5

// Config configures New.
type Config struct {
	// Endpoints are the gateways or nodes.
	Endpoints *endpoint.Pool
	// Wallet signs and pays.
	Wallet *Wallet
	// Network is the name that /info has to give; "" is MainNetwork.
	Network string
	// Confirmations is how many blocks, with its own, make a transaction final; 0 is
	// DefaultConfirmations.
	Confirmations uint64
	// MaxFee is the most that one extension may cost, in winston; 0 is DefaultMaxFee.
	MaxFee uint64
	// Agree is how many endpoints must say that a transaction is final or can no longer
	// land, by the rule of anchor.Agreed: while another one that answers says otherwise it
	// takes more than half of all. 0 is half of them, rounded up.
	Agree int
}

// Chain is the adapter.
type Chain struct {
	cfg   Config
	size  atomic.Int64     // of the last body
	price atomic.Uint64    // of it
	now   func() time.Time // monotonic; only pauses hang on it

	mu       sync.Mutex
	progress upload
	read     readBack
}

// New makes an adapter. It asks nobody anything.
func New(c Config) (*Chain, error) {
	if c.Endpoints == nil || c.Wallet == nil {
		return nil, errors.New("arweave: endpoints and a wallet are needed")
	}
	if c.Network == "" {
		c.Network = MainNetwork
	}
	if c.Confirmations == 0 {
		c.Confirmations = DefaultConfirmations
	}
	if c.MaxFee == 0 {
		c.MaxFee = DefaultMaxFee
	}
	n := c.Endpoints.Len()
	if c.Agree == 0 {
		c.Agree = anchor.DefaultAgree(n)
	}
	if c.Agree < 1 || c.Agree > n {
		return nil, fmt.Errorf("%d of %d endpoints cannot agree", c.Agree, n)
	}
	return &Chain{cfg: c, now: time.Now}, nil
}

// Name implements anchor.Chain.
func (*Chain) Name() string { return Name }

// Extends implements anchor.Chain: the body is an extension.
func (*Chain) Extends() bool { return true }

// Network returns the name of the network that all endpoints are of.
func Network(ctx context.Context, p *endpoint.Pool) (string, error) {
	names := make([]string, p.Len())
	errs := p.All(ctx, func(ctx context.Context, i int, e *endpoint.Endpoint) error {
		n, err := info(ctx, e, "")
		names[i] = n.Network
		return err
	})
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for i, n := range names {
		if n != names[0] {
			return "", fmt.Errorf("%s is of the network %q, %s of %q: %w", p.Endpoints()[i], n, p.Endpoints()[0], names[0], anchor.ErrCluster)
		}
	}
	return names[0], nil
}

// An offer is what one endpoint says that a transaction needs.
type offer struct {
	anchor                 string
	height, price, balance uint64
}

// Prepare implements anchor.Chain. All endpoints are asked: the price is theirs to name,
// so one alone must not name it where there are others.
func (c *Chain) Prepare(ctx context.Context, j anchor.Job) (anchor.Tx, error) {
	if len(j.Body) == 0 {
		return anchor.Tx{}, errors.New("arweave: a transaction needs a body")
	}
	root, _, err := cut(j.Body)
	if err != nil {
		return anchor.Tx{}, err
	}
	o, err := c.offer(ctx, len(j.Body))
	if err != nil {
		return anchor.Tx{}, err
	}
	c.size.Store(int64(len(j.Body)))
	c.price.Store(o.price)
	switch {
	case o.price > c.cfg.MaxFee:
		return anchor.Tx{}, fmt.Errorf("%d bytes cost %d winston, at most %d: %w", len(j.Body), o.price, c.cfg.MaxFee, anchor.ErrFee)
	case o.balance < o.price:
		return anchor.Tx{}, fmt.Errorf("%s holds %d winston, %d bytes cost %d: %w", c.cfg.Wallet.Address(), o.balance, len(j.Body), o.price, anchor.ErrFunds)
	}
	tx := types.Transaction{
		Format: 2, LastTx: o.anchor, Owner: encode(c.cfg.Wallet.key.N.Bytes()), Quantity: "0",
		Tags: utils.TagsEncode([]types.Tag{
			{Name: tagApp, Value: AppName}, {Name: tagType, Value: ContentType},
			{Name: tagOrigin, Value: j.Origin}, {Name: tagCheckpoint, Value: string(j.Checkpoint)},
		}),
		DataSize: strconv.Itoa(len(j.Body)), DataRoot: encode(root[:]), Reward: strconv.FormatUint(o.price, 10),
	}
	if err := utils.SignTransaction(&tx, c.cfg.Wallet.key); err != nil {
		return anchor.Tx{}, fmt.Errorf("sign: %w", err)
	}
	raw, err := format(tx)
	if err != nil {
		return anchor.Tx{}, err
	}
	if _, err := open(raw); err != nil {
		return anchor.Tx{}, fmt.Errorf("what was just signed: %w", err)
	}
	return anchor.Tx{ID: tx.ID, Raw: raw, Expires: o.height + anchorLife, Fee: o.price}, nil
}

// offer asks all endpoints and takes of each number the upper median of the answers.
func (c *Chain) offer(ctx context.Context, size int) (offer, error) {
	all := make([]*offer, c.cfg.Endpoints.Len())
	errs := c.cfg.Endpoints.Some(ctx, c.cfg.Agree, func(ctx context.Context, i int, e *endpoint.Endpoint) error {
		var o offer
		var err error
		if o.anchor, err = lastTx(ctx, e); err != nil {
			return err
		}
		// Asked after the anchor, whose block is then not above it.
		n, err := info(ctx, e, c.cfg.Network)
		if err != nil {
			return err
		}
		o.height = n.Height
		if o.price, err = price(ctx, e, size); err != nil {
			return err
		}
		if o.balance, err = balance(ctx, e, c.cfg.Wallet.Address()); err != nil {
			return err
		}
		all[i] = &o
		return nil
	})
	all = slices.DeleteFunc(all, func(o *offer) bool { return o == nil })
	if len(all) == 0 {
		return offer{}, joined(errs)
	}
	middle := func(by func(*offer) uint64) *offer {
		slices.SortStableFunc(all, func(a, b *offer) int { return cmp.Compare(by(a), by(b)) })
		return all[len(all)/2]
	}
	top := middle(func(o *offer) uint64 { return o.height })
	o := offer{anchor: top.anchor, height: top.height}
	o.balance = middle(func(o *offer) uint64 { return o.balance }).balance
	o.price = middle(func(o *offer) uint64 { return o.price }).price
	near := 0
	for _, a := range all {
		if a.price >= o.price-o.price/10 && a.price <= o.price+o.price/10 {
			near++
		}
	}
	if 2*near <= len(all) {
		return offer{}, fmt.Errorf("prices from %d to %d winston for %d bytes: %w", all[0].price, all[len(all)-1].price, size, anchor.ErrDisagree)
	}
	return o, nil
}

// joined is the failure of all endpoints: a refusal only if all refused.
func joined(errs []error) error {
	err := errors.Join(errs...)
	for _, e := range errs {
		if !errors.Is(e, anchor.ErrRefused) {
			return fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
		}
	}
	return err
}

// Balance implements anchor.Chain.
func (c *Chain) Balance(ctx context.Context) (anchor.Balance, error) {
	b := anchor.Balance{Address: c.cfg.Wallet.Address(), Price: c.price.Load(), Unit: "winston", Decimals: 12, Coin: "AR"}
	err := c.cfg.Endpoints.First(ctx, func(ctx context.Context, e *endpoint.Endpoint) (err error) {
		if _, err = info(ctx, e, c.cfg.Network); err != nil {
			return err
		}
		if b.Units, err = balance(ctx, e, b.Address); err != nil || b.Price > 0 {
			return err
		}
		b.Price, err = price(ctx, e, max(int(c.size.Load()), types.MAX_CHUNK_SIZE))
		return err
	})
	return b, err
}
