package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store"
)

func (a *app) restoreCommand() *cobra.Command {
	var tx, key, frame string
	var gateways []string
	var confirmations uint64
	cmd := &cobra.Command{
		Use:   "restore --from-arweave TX --key VKEY --arweave-gateway URL...",
		Short: "Rebuild the ledger in an empty store from what is on Arweave",
		Long: `Rebuilds a ledger from the extensions that were anchored on Arweave: from that in the
transaction TX and those before it. Entries, tiles, the anchored checkpoints and the receipts
come back, each verified against the log's public key; the data of the datasets does not, and
those are listed whose blocks are missing. "scale put --heal PATH" gives them back.

The newest TX is the one that "scale anchor list --chain arweave" or a search for the tags
App-Name: SCALE and Origin at a gateway shows. The store that this makes reads and proves,
and does not append before "scale log resume". --frame-size is that of "scale init": what is
put into it is compressed in frames of that size for the life of the store.`,
		Example: `  scale restore --store /data/new --from-arweave 3xK9... --key log.vkey --arweave-gateway https://arweave.net`,
		Args:    cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&tx, "from-arweave", "", "`TX`, id of the transaction with the newest extension")
	fl.StringVar(&key, "key", "", "the log's public `key` (vkey), or a file that holds it")
	fl.StringArrayVar(&gateways, "arweave-gateway", nil, "`URL` of an Arweave gateway; several are tried in their order")
	fl.Uint64Var(&confirmations, "confirmations", 0, "`number` of blocks that make an extension final (default 18)")
	fl.StringVar(&frame, "frame-size", "", frameSizeHelp)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		ctx := cmd.Context()
		switch {
		case a.remote():
			return usagef("restore makes a store on this machine, and not for --node")
		case tx == "" || key == "" || len(gateways) == 0:
			return usagef("--from-arweave, --key and --arweave-gateway are needed")
		}
		size, err := frameSize(frame)
		if err != nil {
			return err
		}
		vkey, err := logKey(key)
		if err != nil {
			return usagef("--key: %w", err)
		}
		p, err := endpoint.New(gateways, endpoint.Options{})
		if err != nil {
			return usagef("--arweave-gateway: %w", err)
		}
		defer p.Close()
		dir, _, err := a.storeDir()
		if err != nil {
			return err
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		n, err := agent.Restore(ctx, agent.RestoreOptions{
			Dir: dir, Transaction: tx, VKey: vkey, Gateways: p, Confirmations: confirmations, TempDir: tempDir(),
			Store: store.Options{Command: cmd.CommandPath(), TempDir: tempDir(), Logger: a.nodeLog(), FrameSize: size},
			Note:  func(s string) { a.note("%s", s) },
		})
		if err != nil {
			return fmt.Errorf("nothing was restored: %w", err)
		}
		return a.printRestored(cmd, dir, n)
	}
	return cmd
}

// printRestored says what is there and what is missing.
func (a *app) printRestored(cmd *cobra.Command, dir string, entries int64) (err error) {
	p := &place{a: a, ctx: cmd.Context(), dir: dir, command: cmd.CommandPath(), level: compress.Default}
	o, err := p.patientOwn()
	if err != nil {
		return err
	}
	defer closing(o, &err)
	if a.json {
		if err := a.print(map[string]any{"store": dir, "origin": o.Origin(), "entries": entries, "tree_size": o.Published().Size}); err != nil {
			return err
		}
	} else if err := a.printFields(field{"restored", fmt.Sprintf("%d entries of %s", entries, o.Origin())}, field{"store", quote(dir)}); err != nil {
		return err
	}
	missing := 0
	for d, err := range o.MissingDatasets(cmd.Context()) {
		if err != nil {
			return err
		}
		missing++
		if a.json {
			err = a.print(map[string]any{"missing": d.Name, "version": d.Version, "cid": d.CID.String(), "entry": d.Entry, "size": d.Size})
		} else {
			err = a.printf("%-12s :%d  %s@%d  %s  %s\n", "missing", d.Entry, d.Name, d.Version, sizeText(d.Size), d.CID)
		}
		if err != nil {
			return err
		}
	}
	if missing > 0 {
		a.note("the blocks of %d datasets are missing; give them back with: scale put --heal PATH", missing)
	}
	a.note("the store reads and proves; to append again run: scale log resume --log-key FILE")
	return nil
}
