package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
)

func (a *app) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "history NAME",
		Short:   "List the versions of a dataset, oldest first",
		Long:    `Lists every version that was put under NAME, the oldest first: how to name it, its entry in the ledger, size, bytes that were new, CID and time.`,
		Example: `  scale history photos`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		for v, err := range s.History(cmd.Context(), args[0]) {
			if err != nil {
				return err
			}
			d := v.Dataset
			switch r := v.Removal; {
			case r != nil && a.json:
				err = a.print(viewRemoval(*r))
			case r != nil:
				_, err = fmt.Fprintf(tw, "%s@%d\t:%d\tremoved\t\t\t%s\n", r.Name, r.Version, r.Entry, timeText(r.Time))
			case a.json:
				err = a.print(viewDataset(*d))
			default:
				_, err = fmt.Fprintf(tw, "%s@%d\t:%d\t%s\t%s new\t%v\t%s\n", d.Name, d.Version, d.Entry, bytesText(d.Size), bytesText(d.NewBytes), d.CID, timeText(d.Time))
			}
			if err != nil {
				return err
			}
		}
		return tw.Flush()
	}
	return cmd
}
