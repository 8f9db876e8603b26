// Package k2 anchors checkpoints on K2, Koii's fork of Solana: the signed checkpoint is
// the text of a memo, in a legacy transaction of its own.
package k2

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync/atomic"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// Name is the chain's name in rows, receipts and commands.
const Name = "k2"

// DefaultMemoProgram is SPL Memo v2 and v3.
const DefaultMemoProgram = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"

// DefaultMaxFee is ten times the base fee that is documented, in ROE.
const DefaultMaxFee = 5_000_000

// maxTransaction is what a validator takes, in bytes.
const maxTransaction = 1232

// Config configures New.
type Config struct {
	// Endpoints are the JSON-RPC servers.
	Endpoints *endpoint.Pool
	// Wallet signs and pays.
	Wallet solana.PrivateKey
	// Genesis is the hash, in base58, that says which network it has to be.
	Genesis string
	// MemoProgram is the program's id; zero is DefaultMemoProgram.
	MemoProgram solana.PublicKey
	// MaxFee is the most that one anchor may cost, in ROE; 0 is DefaultMaxFee.
	MaxFee uint64
	// Agree is how many endpoints must say that a transaction is final, has failed or can
	// no longer land, by the rule of anchor.Agreed: while another one that answers says
	// otherwise it takes more than half of all. 0 is half of them, rounded up.
	Agree int
}

// Chain is the adapter.
type Chain struct {
	cfg     Config
	memo    solana.PublicKey
	genesis solana.Hash
	known   map[*endpoint.Endpoint]*atomic.Bool // whose network was checked
	fee     atomic.Uint64                       // of the last transaction
}

// New makes an adapter. It asks nobody anything.
func New(c Config) (*Chain, error) {
	k := &Chain{cfg: c, memo: c.MemoProgram, known: map[*endpoint.Endpoint]*atomic.Bool{}}
	if k.memo.IsZero() {
		k.memo = solana.MustPublicKeyFromBase58(DefaultMemoProgram)
	}
	if k.cfg.MaxFee == 0 {
		k.cfg.MaxFee = DefaultMaxFee
	}
	n := c.Endpoints.Len()
	if k.cfg.Agree == 0 {
		k.cfg.Agree = anchor.DefaultAgree(n)
	}
	if k.cfg.Agree < 1 || k.cfg.Agree > n {
		return nil, fmt.Errorf("%d of %d endpoints cannot agree", k.cfg.Agree, n)
	}
	if err := c.Wallet.Validate(); err != nil {
		return nil, fmt.Errorf("wallet: %w", err)
	}
	var err error
	if k.genesis, err = solana.HashFromBase58(c.Genesis); err != nil {
		return nil, fmt.Errorf("genesis hash %q: %w", c.Genesis, err)
	}
	for _, e := range c.Endpoints.Endpoints() {
		k.known[e] = new(atomic.Bool)
	}
	return k, nil
}

// Name implements anchor.Chain.
func (*Chain) Name() string { return Name }

// Extends implements anchor.Chain: a memo holds a checkpoint only.
func (*Chain) Extends() bool { return false }

// on returns a function for the pool that has checked which network the endpoint is of.
func (k *Chain) on(f func(context.Context, *rpc.Client) error) func(context.Context, *endpoint.Endpoint) error {
	return func(ctx context.Context, e *endpoint.Endpoint) error {
		c := client(e)
		if known := k.known[e]; !known.Load() {
			h, err := genesisHash(ctx, c)
			if err != nil {
				return err
			}
			if h != k.genesis {
				return fmt.Errorf("genesis hash is %s, not %s: %w", h, k.genesis, anchor.ErrCluster)
			}
			known.Store(true)
		}
		return f(ctx, c)
	}
}

// Send implements anchor.Chain. All endpoints get the transaction: one that takes it and
// does not pass it on does no harm then.
func (k *Chain) Send(ctx context.Context, tx anchor.Tx, _ []byte) error {
	text := base64.StdEncoding.EncodeToString(tx.Raw)
	return k.cfg.Endpoints.Any(ctx, k.on(func(ctx context.Context, c *rpc.Client) error {
		id, err := call[string](ctx, c, "sendTransaction", text, map[string]any{"encoding": "base64", "preflightCommitment": rpc.CommitmentConfirmed})
		switch {
		case err != nil && preflight(err) == "AlreadyProcessed":
			return nil
		case err != nil:
			return err
		case id != tx.ID:
			return fmt.Errorf("took another transaction, %q: %w", clip(id), anchor.ErrUnavailable)
		}
		return nil
	}))
}

// Balance implements anchor.Chain.
func (k *Chain) Balance(ctx context.Context) (anchor.Balance, error) {
	key := k.cfg.Wallet.PublicKey()
	b := anchor.Balance{Address: key.String(), Price: k.fee.Load(), Unit: "ROE", Decimals: 9, Coin: "KOII"}
	err := k.cfg.Endpoints.First(ctx, k.on(func(ctx context.Context, c *rpc.Client) (err error) {
		b.Units, err = balance(ctx, c, key)
		return err
	}))
	return b, err
}
