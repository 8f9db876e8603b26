package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// An app is one run of the command: the streams it talks to and the flags that all
// verbs share.
type app struct {
	stdin  *os.File
	stdout *output
	stderr io.Writer
	meter  *meter // nil unless standard error is a terminal

	json     bool
	store    string
	node     nodeFlags
	waitLock time.Duration
}

func newApp() *app {
	return &app{stdin: os.Stdin, stdout: newOutput(os.Stdout), stderr: os.Stderr, meter: newMeter(os.Stderr)}
}

// run executes one command line.
func (a *app) run(ctx context.Context, args []string) error {
	root := a.command()
	// What fails before a verb runs is the command line.
	started := false
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		started = true
		if a.waitLock < 0 {
			return usagef("--wait-lock is negative")
		}
		if a.node.address == "" && cmd.Flags().Changed("node") {
			return usagef("--node is empty") // a variable that is not set must not lead to a store
		}
		return a.checkNode()
	}
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, errInterrupted) {
		err = fmt.Errorf("%w (%w)", errInterrupted, err)
	}
	if err != nil && !started && !errors.Is(err, errUsage) {
		err = usagef("%w", err)
	}
	if errors.Is(err, errUsage) {
		err = fmt.Errorf("%w\nrun: %s --help", err, cmd.CommandPath())
	}
	if ferr := a.stdout.Flush(); err == nil {
		err = ferr
	}
	return err
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "scale",
		Short: "Store datasets once, and prove what is in them",
		Long: `SCALE stores datasets, names each by its CID, records it in an append-only ledger,
and makes small proofs that anyone can verify without the store.

  scale put DIR            store a directory, print its CID
  scale get NAME -o OUT    get it back
  scale prove NAME > P     prove it
  scale verify P DIR --key VKEY

A REF names a dataset, or a place in one:
  NAME, NAME@2, NAME@-1    the newest version, the second, the one before the newest
  CID                      of a dataset
  :INDEX                   an entry of the ledger
  REF/path/in/it           a file or directory inside

The store is --store, else $SCALE_STORE, else the data directory of the user
($XDG_DATA_HOME/scale or ~/.local/share/scale), which is made when it is missing.
With --node or $SCALE_NODE verbs work on a node (scale serve) instead.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 verification refused or data
corrupt, 5 store in use, 6 no space, 7 done but something was skipped, 8 a node or a
chain cannot be reached or has no time now, or an anchor is not final yet.`,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.store, "store", "", "directory of the `store`")
	a.node.add(f)
	f.BoolVar(&a.json, "json", false, "print JSON, one object a line")
	f.DurationVar(&a.waitLock, "wait-lock", 10*time.Second, "how long to wait while another process uses the store")
	root.AddCommand(
		a.initCommand(), a.putCommand(), a.removeCommand(), a.getCommand(), a.lsCommand(), a.historyCommand(), a.statCommand(),
		a.proveCommand(), a.verifyCommand(), a.auditCommand(), a.logCommand(), a.exportCommand(), a.checkCommand(), a.keyCommand(), a.curatorCommand(),
		a.anchorCommand(), a.upgradeCommand(), a.restoreCommand(), a.serveCommand(), a.tokenCommand(), a.versionCommand(),
	)
	return root
}

// group is what a command that only has subcommands does when none of them is named.
func group(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}
