package main

import (
	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store"
)

const curatorKeyHelp = "sign with the key in this `file` (as koii-keygen writes it), not the store's own"

func (a *app) removeCommand() *cobra.Command {
	var keyFile string
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a name away; what was put under it stays",
		Long: `Records in the ledger that NAME is taken away, and prints that entry. From then on NAME
names nothing, and ls does not list it, until something is put under it again.

It deletes no data and no history: the versions stay in the ledger, where NAME@1, their
CIDs and :INDEX find them, and proofs of them stay valid.`,
		Example: `  scale remove photos
  scale history photos
  scale get photos@1 -o photos.back`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&keyFile, "curator-key", "", curatorKeyHelp)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		var o store.PutOptions
		if keyFile != "" {
			if o.Curator, err = store.LoadCurator(keyFile); err != nil {
				return err
			}
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		r, err := s.Remove(cmd.Context(), args[0], o)
		if err != nil {
			return outcome(err)
		}
		if a.json {
			return a.print(viewRemoval(r))
		}
		a.note("%s names nothing now; its versions and their data stay: scale history %[1]s", r.Name)
		return a.printf("%s@%d  :%d  removed  %s\n", r.Name, r.Version, r.Entry, timeText(r.Time))
	}
	return cmd
}

// A removalView is the removal of a name in JSON.
type removalView struct {
	Name     string `json:"name"`
	Version  int    `json:"version"`
	Removed  bool   `json:"removed"`
	Entry    int64  `json:"entry"`
	EntryCID string `json:"entry_cid"`
	Time     string `json:"time"`
	Curator  string `json:"curator"`
}

func viewRemoval(r store.Removal) removalView {
	return removalView{
		Name: r.Name, Version: r.Version, Removed: true, Entry: r.Entry, EntryCID: r.EntryCID.String(),
		Time: timeText(r.Time), Curator: r.Curator.String(),
	}
}
