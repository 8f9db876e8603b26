package main

import (
	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
)

func (a *app) anchorWatchCommand() *cobra.Command {
	var chain string
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print what becomes of anchors, until it is interrupted",
		Long: `Prints each transition of an anchor as it happens, in the form of "scale anchor list". It
watches whoever anchors, and makes none itself.`,
		Example: `  scale anchor watch --json`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&chain, "chain", "", "only those on this `chain`: k2 or arweave")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		ctx := cmd.Context()
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		for r, err := range s.WatchAnchors(ctx, chain) {
			if ctx.Err() != nil {
				return nil // that is how it ends
			}
			if err != nil {
				return err
			}
			if r == nil {
				a.note("watching")
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
