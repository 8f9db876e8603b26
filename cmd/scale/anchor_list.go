package main

import (
	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
)

func (a *app) anchorListCommand() *cobra.Command {
	var chain string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List anchors, the newest first",
		Long: `Lists the anchors of each chain, those of the largest trees first: chain, entries of the
tree, state, when it was entered, transaction, and what there is to say. --json has the
block, the history and the checkpoint too.`,
		Example: `  scale anchor list --chain k2 --limit 10`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&chain, "chain", "", "only those on this `chain`: k2 or arweave")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most `N` of each chain; 0 is all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if limit < 0 {
			return usagef("--limit is negative")
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		count := map[string]int{}
		for r, err := range s.Anchors(cmd.Context(), chain) {
			if err != nil {
				return err
			}
			if count[r.Chain]++; limit > 0 && count[r.Chain] > limit {
				continue
			}
			if err := a.printAnchor(r); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
