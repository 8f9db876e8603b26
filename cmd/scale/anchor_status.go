package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/compress"
)

func (a *app) anchorStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how each chain stands",
		Long: `Shows for each configured chain how much of the ledger is anchored there, what is under
way, what fails and why, and what the wallet holds as the chain said last. Asks no chain.`,
		Example: `  scale anchor status --json`,
		Args:    cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		chains, working, err := s.AnchorChains(cmd.Context())
		if err != nil {
			return err
		}
		if len(chains) == 0 {
			a.note("no chain is configured; run: scale anchor configure k2 --rpc URL --wallet FILE")
		} else if !working {
			a.note("nobody anchors: run scale serve, or scale anchor run")
		}
		for i := range chains {
			if err := a.printChain(&chains[i], working); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// A chainView is the state of a chain in JSON.
type chainView struct {
	Chain        string       `json:"chain"`
	Working      bool         `json:"working"`
	Published    int64        `json:"published"`
	Seen         int64        `json:"seen"`
	Final        int64        `json:"final"`
	Backlog      int64        `json:"backlog"`
	Open         *anchorView  `json:"open,omitempty"`
	Failing      string       `json:"failing,omitempty"`
	FailingSince string       `json:"failing_since,omitempty"`
	Retry        string       `json:"retry,omitempty"`
	Balance      *balanceView `json:"balance,omitempty"`
}

type balanceView struct {
	Chain       string `json:"chain"`
	Address     string `json:"address"`
	Units       uint64 `json:"units"`
	Price       uint64 `json:"price"`
	Unit        string `json:"unit"`
	Coins       string `json:"coins"`
	AnchorsLeft *int64 `json:"anchors_left,omitempty"` // absent where the price is not known
}

func viewBalance(chain string, b *anchor.Balance) *balanceView {
	v := &balanceView{Chain: chain, Address: b.Address, Units: b.Units, Price: b.Price, Unit: b.Unit, Coins: coins(b.Units, b.Decimals, b.Coin)}
	if n := b.Anchors(); n >= 0 {
		v.AnchorsLeft = &n
	}
	return v
}

func balanceText(b *anchor.Balance) string {
	s := fmt.Sprintf("%s in %s", coins(b.Units, b.Decimals, b.Coin), quote(b.Address))
	if n := b.Anchors(); n >= 0 {
		s += fmt.Sprintf(", for %d more anchors", n)
	}
	return s
}

func (a *app) printChain(s *anchor.ChainState, working bool) error {
	v := chainView{Chain: s.Chain, Working: working, Published: s.Published, Seen: s.Seen, Final: s.Final, Backlog: s.Backlog, Failing: s.Failing}
	optional := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return timeText(t)
	}
	v.FailingSince, v.Retry = optional(s.Since), optional(s.Retry)
	if s.Open != nil {
		open := viewAnchor(s.Open)
		v.Open = &open
	}
	if s.Balance != nil {
		v.Balance = viewBalance(s.Chain, s.Balance)
	}
	if a.json {
		return a.print(v)
	}
	fields := []field{
		{"chain", s.Chain}, {"final", fmt.Sprintf("%d of %d entries", s.Final, s.Published)}, {"seen", fmt.Sprintf("%d", s.Seen)},
	}
	if r := s.Open; r != nil {
		text := fmt.Sprintf("%d entries, %s", r.Size, r.State)
		if r.Attempt > 1 {
			text += fmt.Sprintf(", attempt %d", r.Attempt)
		}
		if r.Tx.ID != "" {
			text += ", " + quote(r.Tx.ID)
		}
		if r.Text() != "" {
			text += ": " + quote(r.Text())
		}
		fields = append(fields, field{"under way", text})
	}
	if v.Failing != "" {
		text := quote(v.Failing)
		if v.FailingSince != "" {
			text += "; since " + v.FailingSince
		}
		if v.Retry != "" {
			text += ", again at " + v.Retry
		}
		fields = append(fields, field{"failing", text})
	}
	if s.Balance != nil {
		fields = append(fields, field{"balance", balanceText(s.Balance)})
	}
	return a.printFields(fields...)
}
