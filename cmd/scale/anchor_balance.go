package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/grpcapi"
)

func (a *app) anchorBalanceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "Ask the chains what the wallets hold",
		Long: `Asks each chain what the wallet holds and what an anchor costs, and prints for how many
more anchors that is enough. With --node it prints what the node was told last.`,
		Example: `  scale anchor balance`,
		Args:    cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		ctx := cmd.Context()
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		if a.remote() {
			defer closing(s, &err)
			chains, _, err := s.AnchorChains(ctx)
			if err != nil {
				return err
			}
			if len(chains) == 0 {
				return errNoChains
			}
			for _, c := range chains {
				if c.Balance == nil {
					a.note("%s: not known yet", c.Chain)
				} else if err := a.printBalance(c.Chain, c.Balance); err != nil {
					return err
				}
			}
			return nil
		}
		// Nobody waits for the store while a chain is asked.
		cfg, err := s.AnchorConfig(ctx)
		paid := map[string]uint64{}
		for _, c := range cfg {
			var e error
			if paid[c.Chain], e = lastFee(ctx, s, c.Chain); e != nil {
				err = errors.Join(err, e)
			}
		}
		if err = errors.Join(err, s.Close()); err != nil {
			return err
		}
		if len(cfg) == 0 {
			return errNoChains
		}
		var failed []error
		for _, c := range cfg {
			b, err := askBalance(ctx, c)
			if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", c.Chain, err))
				continue
			}
			if b.Price == 0 {
				b.Price = paid[c.Chain]
			}
			if err := a.printBalance(c.Chain, b); err != nil {
				return err
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}

var errNoChains = fmt.Errorf("no chain is configured; run scale anchor configure: %w", anchor.ErrNoChain)

// lastFee returns what the newest anchor of a chain costs, 0 if there is none.
func lastFee(ctx context.Context, s engine, chain string) (uint64, error) {
	for r, err := range s.Anchors(ctx, chain) {
		if err != nil {
			return 0, err
		}
		if r.Tx.Fee > 0 {
			return r.Tx.Fee, nil
		}
	}
	return 0, nil
}

func askBalance(ctx context.Context, c anchor.ChainConfig) (*anchor.Balance, error) {
	t, done, err := agent.Build(c)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	b, err := t.Chain.Balance(ctx)
	return &b, err
}

func (a *app) printBalance(chain string, b *anchor.Balance) error {
	if a.json {
		return a.print(viewBalance(chain, b))
	}
	return a.printf("%-8s %s\n", chain, grpcapi.Plain(balanceText(b)))
}
