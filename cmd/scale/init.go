package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

func (a *app) initCommand() *cobra.Command {
	var o store.InitOptions
	var successor, oldKey, frame string
	cmd := &cobra.Command{
		Use:   "init [--origin NAME]",
		Short: "Make a store",
		Long: `Makes a store with the key of its log and the key of its curator, both for its owner
alone (mode 0600) and never printed. Prints the log's public key (vkey): give it to
those who are to verify your proofs.

Data is compressed in frames of 4 MiB. To read a few bytes, all that is before them in their
frame is decoded, 1 to 2 milliseconds on average. --frame-size 512K makes that a quarter of it,
and what can be compressed takes 5 to 8 % more space. It holds for the life of the store.

--successor begins a log that carries on another one, which cannot be continued: its first
entry names the last checkpoint of the old one (a file: "scale log", the memo of its last
anchor), whose public key --successor-key has. The old log's datasets are not brought along.`,
		Example: `  scale init
  scale init --store /data/scale --origin data.example.org/scale
  scale init --frame-size 512K
  scale init --origin data.example.org/scale-2 --successor last.checkpoint --successor-key old.vkey`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&o.Origin, "origin", "", "`name` of the log, unique in the world; default is a random one")
	cmd.Flags().StringVar(&frame, "frame-size", "", frameSizeHelp)
	cmd.Flags().StringVar(&successor, "successor", "", "`file` with the last checkpoint of the log that this one carries on")
	cmd.Flags().StringVar(&oldKey, "successor-key", "", "that log's public `key` (vkey), or a file that holds it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.node.address != "" {
			return usagef("init is for a store on this machine, and not for --node")
		}
		if (successor == "") != (oldKey == "") {
			return usagef("--successor and --successor-key go together")
		}
		var err error
		if o.FrameSize, err = frameSize(frame); err != nil {
			return err
		}
		if successor != "" {
			old, err := readSuccessor(successor, oldKey)
			if err != nil {
				return err
			}
			o.Successor = old
		}
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

const frameSizeHelp = "compress so many `bytes` together, 64K to 4M; default is 4M"

// frameSize reads what --frame-size says; "" is the default, 0.
func frameSize(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	size, err := parseSize(s)
	if err != nil || size < store.MinFrame || size > store.MaxFrame {
		return 0, usagef("--frame-size %s: want 64K to 4M", quote(s))
	}
	return int(size), nil
}

// readSuccessor reads what names the log before.
func readSuccessor(checkpoint, key string) (*store.Successor, error) {
	f, err := os.Open(checkpoint)
	if err != nil {
		return nil, fmt.Errorf("--successor: %w", err)
	}
	defer f.Close() // read only
	b, err := io.ReadAll(io.LimitReader(f, ledger.MaxCheckpoint+1))
	if err != nil {
		return nil, fmt.Errorf("--successor: %w", err)
	}
	vkey, err := logKey(key)
	if err != nil {
		return nil, usagef("--successor-key: %w", err)
	}
	return &store.Successor{Checkpoint: b, VKey: vkey}, nil
}
