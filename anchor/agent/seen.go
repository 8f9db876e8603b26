package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// How many of a wallet's newest transactions are looked at: those of an hour or so before
// the first append of a process, and many before a log is resumed.
const (
	// SeenFirst is for store.Options.Seen.
	SeenFirst = 50
	// SeenResume is for store.ResumeOptions.Seen.
	SeenResume = 5000
)

// A Source is where K2 is asked for the largest ledger that a log's key has signed.
type Source struct {
	RPC     []string
	Genesis string // "" is what the servers say, who then have to agree
	// Wallets that may have anchored it, as addresses.
	Wallets []string
}

// ConfiguredSource returns what the configuration of the store in dir says; nil if K2 is
// not configured.
func ConfiguredSource(dir string) (*Source, error) {
	cfg, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	c := cfg.Chain(k2.Name)
	if c == nil {
		return nil, nil
	}
	address, err := k2.Address(c.Wallet)
	if err != nil {
		return nil, err
	}
	return &Source{RPC: c.Endpoints, Genesis: c.Network, Wallets: []string{address}}, nil
}

// Largest asks for the size of the largest tree of the log with that public key, among
// the newest most transactions of each wallet.
func (s *Source) Largest(ctx context.Context, vkey string, most int) (int64, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return 0, fmt.Errorf("log key: %w", err)
	}
	if len(s.Wallets) == 0 {
		return 0, errors.New("no wallet is known that may have anchored the log")
	}
	// All of the history is one call: it has the time that there is.
	opt := endpoint.Options{}
	if end, ok := ctx.Deadline(); ok {
		opt.Call = max(time.Until(end), time.Second)
	}
	p, err := endpoint.New(s.RPC, opt)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	genesis := s.Genesis
	if genesis == "" {
		memo, err := k2.ParseProgram("")
		if err != nil {
			return 0, err
		}
		if genesis, err = k2.Network(ctx, p, memo); err != nil {
			return 0, err
		}
	}
	top := int64(0)
	for _, w := range s.Wallets {
		n, err := k2.Largest(ctx, p, genesis, w, most, func(b []byte) int64 {
			c, err := ledger.OpenCheckpoint(b, v)
			if err != nil {
				return 0
			}
			return c.Size
		})
		top = max(top, n)
		if err != nil {
			return top, err
		}
	}
	return top, nil
}

// SeenBy is for store.Options.Seen of the store in dir: it asks K2, if it is configured.
func SeenBy(dir string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		s, err := ConfiguredSource(dir)
		if err != nil || s == nil {
			return 0, err
		}
		vkey, err := store.VerifierKeyOf(dir)
		if err != nil {
			return 0, err
		}
		return s.Largest(ctx, vkey, SeenFirst)
	}
}

// Signers returns who signed the anchors of a chain that are in an outbox.
func Signers(ctx context.Context, o anchor.Outbox, chain string, v anchor.Verifier) ([]string, error) {
	var list []string
	for r, err := range anchor.ChainRows(ctx, o, chain, 1) {
		if err != nil {
			return nil, err
		}
		if r.Receipt == nil {
			continue
		}
		a, err := v.Open(*r.Receipt)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, a.Signer) {
			list = append(list, a.Signer)
		}
	}
	return list, nil
}
