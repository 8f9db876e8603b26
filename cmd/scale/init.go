package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/store"
)

func (a *app) initCommand() *cobra.Command {
	var o store.InitOptions
	cmd := &cobra.Command{
		Use:   "init [--origin NAME]",
		Short: "Make a store",
		Long: `Makes a store with the key of its log and the key of its curator, both for its owner
alone (mode 0600) and never printed. Prints the log's public key (vkey): give it to
those who are to verify your proofs.`,
		Example: `  scale init
  scale init --store /data/scale --origin data.example.org/scale`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&o.Origin, "origin", "", "`name` of the log, unique in the world; default is a random one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, _, err := a.storeDir()
		if err != nil {
			return err
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		if err := store.Init(cmd.Context(), dir, o); err != nil {
			return err
		}
		vkey, err := store.VerifierKeyOf(dir)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]string{"store": dir, "vkey": vkey})
		}
		a.note("made a store in %s; back up its keys with: scale key export", dir)
		return a.printf("%s\n", vkey)
	}
	return cmd
}
