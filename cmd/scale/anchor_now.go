package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/agent"
)

func (a *app) anchorNowCommand() *cobra.Command {
	var chain, wait string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "now",
		Short: "Anchor what is in the ledger now, before its time",
		Long: `Asks for an anchor of the newest checkpoint, which costs what an anchor costs. Where no
other process anchors this one does, and returns when the transaction has been sent; others
use the store meanwhile. Prints the anchors it has waited for, one a line.

--wait seen returns when the anchor is in a block, --wait final when it cannot be dropped any
more. What happens meanwhile is told on standard error. When --timeout has passed before,
the exit code is 8, and anchoring goes on the next time that a process anchors.`,
		Example: `  scale anchor now --wait final
  scale anchor now --chain k2`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&chain, "chain", "", "only on this `chain`: k2 or arweave")
	fl.StringVar(&wait, "wait", "", "`state` to wait for: seen or final")
	fl.DurationVar(&timeout, "timeout", 0, "how long to wait at most; 0 is for ever")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		state := anchor.Sent
		switch wait {
		case "":
		case "seen":
			state = anchor.Seen
		case "final":
			state = anchor.Final
		default:
			return usagef("--wait %q: must be seen or final", wait)
		}
		if timeout < 0 {
			return usagef("--timeout is negative")
		}
		s, err := a.openAnchoring(cmd, (*agent.Agent).StartOnDemand)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		_, own := s.(*owner)
		_, working, err := s.AnchorChains(cmd.Context())
		if err != nil {
			return err
		}
		size, chains, err := s.AnchorNow(cmd.Context(), chain)
		if err != nil {
			return err
		}
		if size == 0 {
			a.note("the ledger is empty: there is nothing to anchor")
			return nil
		}
		if wait == "" && (a.remote() || working && !own) {
			a.note("asked for an anchor of %d entries on %v", size, chains)
			return nil
		}
		ctx, cancel := a.waiting(cmd.Context(), timeout)
		defer cancel()
		w := waiter{a: a, e: s, state: state, open: map[string]int64{}}
		// Whoever was asked may have gone, and this process may have taken the store over.
		w.again = func(ctx context.Context) error {
			_, _, err := s.AnchorNow(ctx, chain)
			return err
		}
		for _, c := range chains {
			w.open[c] = size
		}
		done, err := w.wait(ctx)
		slices.Sort(chains)
		for _, c := range chains {
			if r := done[c]; r != nil {
				if err := a.printAnchor(r); err != nil {
					return err
				}
			}
		}
		return waited(ctx, err)
	}
	return cmd
}

// waiting bounds how long a verb waits for chains; 0 is not at all.
func (a *app) waiting(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: not within %v", anchor.ErrNotFinal, timeout))
}

// waited returns why waiting ended, if that was the time.
func waited(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
