package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/store"
)

func (a *app) anchorRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Anchor in the foreground, where there is no node",
		Long: `Anchors as configured until it is interrupted, and prints each transition in the form of
"scale anchor list". Other commands of the same user work on the store meanwhile, by way of
this process, as with a node; a node anchors by itself and does not need it.

What is under way when it ends goes on when a process anchors again: nothing is lost and
nothing is paid twice.`,
		Example: `  scale anchor run`,
		Args:    cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if a.remote() {
			return usagef("anchor run is for a store on this machine, and not for --node: a node anchors by itself")
		}
		ctx := cmd.Context()
		dir, err := a.existing(ctx)
		if err != nil {
			return err
		}
		p := &place{a: a, ctx: ctx, dir: dir, command: cmd.CommandPath(), anchoring: (*agent.Agent).Start}
		o, err := p.patientOwn()
		if err != nil {
			return err
		}
		defer closing(o, &err)
		if doubt := o.Doubt(); doubt != nil {
			a.note("scale: warning: the store reads but does not append: %v", doubt)
		}
		cfg, err := o.AnchorConfig(ctx)
		if err != nil {
			return err
		}
		if len(cfg) == 0 {
			return fmt.Errorf("no chain is configured; run scale anchor configure: %w", anchor.ErrNoChain)
		}
		for r, err := range o.WatchAnchors(ctx, "") {
			if ctx.Err() != nil {
				return nil // that is how it ends
			}
			if err != nil {
				return err
			}
			if r == nil {
				a.note("anchoring on %d chains", len(cfg))
				continue
			}
			if err := a.printAnchor(r); err != nil {
				return err
			}
			if err := a.stdout.Flush(); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// patientOwn is own that waits for --wait-lock while another process has the store.
func (p *place) patientOwn() (*owner, error) {
	p.patience = p.a.waitLock
	o, err := p.own()
	if errors.Is(err, store.ErrBusy) {
		err = fmt.Errorf("%w; a node that has the store anchors by itself", err)
	}
	return o, err
}
