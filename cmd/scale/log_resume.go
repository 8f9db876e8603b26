package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/store"
)

func (a *app) logResumeCommand() *cobra.Command {
	var key, genesis string
	var rpc, wallets []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "resume --log-key FILE",
		Short: "Have a restored ledger append again",
		Long: `Has a ledger that "scale restore" made append again, with the log's private key in FILE. A
log that signs two different trees of one size is worthless, so K2 is asked first, for the
transactions of those wallets that have anchored the log: if one of them holds a larger tree
than was restored, or nobody can be asked, the ledger stays as it is.

The servers are those of --k2-rpc, else of the configuration; the wallets are those whose
anchors were restored, that of the configuration, and those of --anchor-key. Where something
larger was signed, begin a new log that names this one: scale init --successor.`,
		Example: `  scale log resume --log-key log.key --k2-rpc https://mainnet.koii.network`,
		Args:    cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&key, "log-key", "", "`file` of the log's private key, as \"scale key export\" saves it")
	fl.StringArrayVar(&rpc, "k2-rpc", nil, "`URL` of a K2 server to ask; all of them have to answer")
	fl.StringVar(&genesis, "k2-genesis", "", "genesis `hash` that the servers must have")
	fl.StringArrayVar(&wallets, "anchor-key", nil, "`address` of a wallet that may have anchored the log; may be repeated")
	fl.DurationVar(&timeout, "timeout", 10*time.Minute, "how long the servers may take")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		switch {
		case a.remote():
			return usagef("log resume is for a store on this machine, and not for --node")
		case key == "":
			return usagef("--log-key is missing")
		case timeout <= 0:
			return usagef("--timeout must be above 0")
		}
		if len(rpc) > 0 {
			p, err := endpoint.New(rpc, endpoint.Options{})
			if err != nil {
				return usagef("--k2-rpc: %w", err)
			}
			p.Close()
		}
		dir, err := a.existing(ctx)
		if err != nil {
			return err
		}
		vkey, err := store.VerifierKeyOf(dir)
		if err != nil {
			return err
		}
		o := store.Options{WaitLock: a.waitLock, Command: cmd.CommandPath(), TempDir: tempDir(), Logger: a.nodeLog()}
		source, err := resumeSource(ctx, dir, o)
		if err != nil {
			return err
		}
		if len(rpc) > 0 {
			source.RPC, source.Genesis = rpc, genesis
		}
		if len(source.RPC) == 0 {
			return usagef("no K2 server is known: name one with --k2-rpc")
		}
		for _, w := range wallets {
			if !slices.Contains(source.Wallets, w) {
				source.Wallets = append(source.Wallets, w)
			}
		}
		if len(source.Wallets) == 0 {
			return usagef("no wallet is known that has anchored the log on K2: name it with --anchor-key")
		}
		// The store is asked to resume with what K2 has said: nobody waits for it meanwhile.
		asked, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		seen, err := source.Largest(asked, vkey, agent.SeenResume)
		if err != nil {
			return fmt.Errorf("the log was not resumed, since K2 could not be asked for the largest tree that was signed: %w", err)
		}
		a.note("the largest tree that %d wallets have anchored on K2 has %d entries", len(source.Wallets), seen)
		err = store.Resume(ctx, dir, store.ResumeOptions{
			LogKey: key, Options: o, Seen: func(context.Context) (int64, error) { return seen, nil },
		})
		if err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]any{"resumed": true, "seen": seen})
		}
		a.note("the ledger appends again")
		return nil
	}
	return cmd
}

// resumeSource collects who is to be asked, from the configuration and from the anchors
// that the store knows of.
func resumeSource(ctx context.Context, dir string, o store.Options) (_ *agent.Source, err error) {
	source, err := agent.ConfiguredSource(dir)
	if err != nil {
		return nil, err
	}
	if source == nil {
		source = &agent.Source{}
	}
	s, err := store.Open(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	signers, err := agent.Signers(ctx, s.Outbox(), k2.Name, k2.Verifier{})
	for _, w := range signers {
		if !slices.Contains(source.Wallets, w) {
			source.Wallets = append(source.Wallets, w)
		}
	}
	return source, err
}
