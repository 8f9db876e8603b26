package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/ledger"
)

// probeTime bounds how long chains are asked when they are configured.
const probeTime = 30 * time.Second

func (a *app) anchorConfigureCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "configure",
		Short: "Set up the chains, or show how they are set up",
		Long: `Without a chain, shows the configuration. It is kept in the store, and holds at once, also
for a node or "scale anchor run" that is running. Wallets stay where they are; what is kept
is the path.`,
		Example: `  scale anchor configure
  scale anchor configure k2 --rpc https://mainnet.koii.network --wallet ~/.config/koii/id.json
  scale anchor configure arweave --gateway https://arweave.net --wallet arweave.json --yes
  scale anchor configure k2 --remove`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return group(cmd, args)
		}
		return a.showChains(cmd)
	}
	cmd.AddCommand(a.configureK2Command(), a.configureArweaveCommand())
	return cmd
}

// configureFlags are those of both chains.
type configureFlags struct {
	c      anchor.ChainConfig
	remove bool
	yes    bool
}

func (f *configureFlags) add(cmd *cobra.Command, chain, endpoints, network string, interval time.Duration, unit string) {
	f.c.Chain = chain
	fl := cmd.Flags()
	fl.StringArrayVar(&f.c.Endpoints, endpoints, nil, "`URL` of a server; several make it safer, and are tried in their order")
	fl.StringVar(&f.c.Wallet, "wallet", "", "`file` of the wallet that signs and pays, for its owner alone")
	fl.DurationVar(&f.c.Interval, "interval", interval, "how long new entries may wait for an anchor; 0 is not by time")
	fl.Int64Var(&f.c.Entries, "entries", 0, "`number` of new entries that do not wait for the interval; 0 is none")
	fl.Uint64Var(&f.c.MaxFee, "max-fee", 0, "the most that one anchor may cost, in `"+unit+"`; 0 is a default")
	fl.IntVar(&f.c.Agree, "agree", 0, "`number` of servers that must agree on what is final; 0 is a default")
	fl.DurationVar(&f.c.Poll, "poll", 0, "how often a transaction under way is looked up; 0 is a default")
	fl.BoolVar(&f.remove, "remove", false, "anchor on this chain no longer; the anchors that there are stay")
	_ = cmd.MarkFlagFilename("wallet") // the flag is there
	fl.StringVar(&f.c.Network, network, "", "the network's `name` that the servers must be of; given, it is set up even if they cannot be reached")
}

// complete checks what does not need a chain.
func (f *configureFlags) complete(endpoints string) error {
	if len(f.c.Endpoints) == 0 {
		return usagef("--%s is missing", endpoints)
	}
	if f.c.Wallet == "" {
		return usagef("--wallet is missing")
	}
	var err error
	f.c.Wallet, err = filepath.Abs(f.c.Wallet)
	return err
}

// network asks the servers of which network they are. What was named has to be that.
func (f *configureFlags) network(a *app, ctx context.Context, ask func(context.Context, *endpoint.Pool) (string, error)) error {
	p, err := endpoint.New(f.c.Endpoints, endpoint.Options{})
	if err != nil {
		return usagef("%w", err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	named := f.c.Network
	found, err := ask(ctx, p)
	switch {
	case err == nil && named != "" && found != named:
		return fmt.Errorf("the servers are of the network %s, not %s: %w", quote(found), quote(named), anchor.ErrCluster)
	case err == nil:
		f.c.Network = found
	case named != "" && !errors.Is(err, anchor.ErrRefused):
		a.note("the servers were not asked: %v", err)
	case errors.Is(err, anchor.ErrRefused):
		return err
	default:
		return fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	return nil
}

func (a *app) configureK2Command() *cobra.Command {
	var f configureFlags
	cmd := &cobra.Command{
		Use:   "k2 --rpc URL... --wallet FILE",
		Short: "Anchor on K2",
		Long: `Has the newest checkpoint anchored on K2: as the text of a memo, in a transaction that the
wallet (as koii-keygen writes it) signs and pays. The servers are asked at once for the hash
of their genesis block, which is what tells networks apart, and for the memo program.`,
		Example: `  scale anchor configure k2 --rpc https://mainnet.koii.network --wallet ~/.config/koii/id.json --interval 1m`,
		Args:    cobra.NoArgs,
	}
	f.add(cmd, k2.Name, "rpc", "genesis", time.Minute, "ROE")
	cmd.Flags().StringVar(&f.c.MemoProgram, "memo-program", "", "`id` of the memo program (default "+k2.DefaultMemoProgram+")")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.remove {
			return a.configureChain(cmd, &f)
		}
		if err := f.complete("rpc"); err != nil {
			return err
		}
		memo, err := k2.ParseProgram(f.c.MemoProgram)
		if err != nil {
			return usagef("--memo-program: %w", err)
		}
		err = f.network(a, cmd.Context(), func(ctx context.Context, p *endpoint.Pool) (string, error) { return k2.Network(ctx, p, memo) })
		if err != nil {
			return err
		}
		return a.configureChain(cmd, &f)
	}
	return cmd
}

func (a *app) configureArweaveCommand() *cobra.Command {
	var f configureFlags
	cmd := &cobra.Command{
		Use:   "arweave --gateway URL... --wallet FILE",
		Short: "Publish the ledger on Arweave, for ever",
		Long: `Has the entries of the ledger published on Arweave, each once, together with the newest
checkpoint and the receipts from K2: from that alone "scale restore" rebuilds the ledger.
The wallet is a JWK of an RSA key of 4096 bits.

Entries hold the names and sizes of datasets, their CIDs, times and curators, and everybody
can read them for ever, also those that come later. The data itself is not published. So
what is there now is listed, and --yes is wanted. "scale put --private-name" records a
salted hash instead of a name.`,
		Example: `  scale anchor configure arweave --gateway https://arweave.net --wallet arweave.json --interval 1h --yes`,
		Args:    cobra.NoArgs,
	}
	f.add(cmd, arweave.Name, "gateway", "network", time.Hour, "winston")
	cmd.Flags().Uint64Var(&f.c.Confirmations, "confirmations", 0, "`number` of blocks that make an anchor final (default 18)")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "what is listed may become public")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.remove {
			return a.configureChain(cmd, &f)
		}
		if err := f.complete("gateway"); err != nil {
			return err
		}
		if err := f.network(a, cmd.Context(), arweave.Network); err != nil {
			return err
		}
		return a.configureChain(cmd, &f)
	}
	return cmd
}

// configureChain hands the configuration over.
func (a *app) configureChain(cmd *cobra.Command, f *configureFlags) (err error) {
	if a.remote() {
		return usagef("chains are configured on the node's machine, by its user, without --node")
	}
	if !f.remove {
		// The wallet is read here too, for an error that is seen.
		_, done, err := agent.Build(f.c)
		if err != nil {
			return err
		}
		done()
	}
	s, err := a.open(cmd, compress.Default)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	if f.c.Chain == arweave.Name && !f.remove {
		if err := a.listPublic(cmd.Context(), s, f.yes); err != nil {
			return err
		}
	}
	if err := s.ConfigureAnchors(cmd.Context(), f.c, f.remove); err != nil {
		return err
	}
	if f.remove {
		a.note("%s: no more anchors", f.c.Chain)
		return nil
	}
	_, working, err := s.AnchorChains(cmd.Context())
	if err != nil {
		return err
	}
	if !working {
		a.note("configured; to anchor run: scale serve, or scale anchor run")
	}
	return a.printChainConfig(f.c)
}

// mostListed is how many datasets are named that become public.
const mostListed = 100

// listPublic says what becomes public, and wants to be told that it may.
func (a *app) listPublic(ctx context.Context, s engine, yes bool) error {
	h, err := s.Head(ctx, "")
	if err != nil {
		return err
	}
	cfg, err := s.AnchorConfig(ctx)
	if err != nil {
		return err
	}
	if cfg.Chain(arweave.Name) != nil {
		return nil // it has been said
	}
	a.note("What becomes public on Arweave, for ever: the %d entries of the log %s, and those to come.", h.Size, quote(s.Origin()))
	listed := 0
	for l, err := range s.Entries(ctx, 0, h.Size) {
		if err != nil {
			return err
		}
		if l.Entry.Kind == ledger.KindPolicy {
			continue
		}
		if listed++; listed > mostListed {
			a.note("  and what else scale log entries lists")
			break
		}
		what := l.Entry.Kind.String()
		if l.Entry.Kind == ledger.KindDataset {
			what = fmt.Sprintf("%s, %d files, %s", sizeText(l.Entry.Size), l.Entry.Files, l.Entry.Root)
		}
		a.note("  :%d  %s  %s", l.Index, l.Entry.Name, what)
	}
	if !yes {
		return usagef("nothing was configured: if this may become public, repeat it with --yes")
	}
	return nil
}

// showChains prints the configuration.
func (a *app) showChains(cmd *cobra.Command) (err error) {
	s, err := a.open(cmd, compress.Default)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	cfg, err := s.AnchorConfig(cmd.Context())
	if err != nil {
		return err
	}
	if len(cfg) == 0 {
		a.note("no chain is configured; run: scale anchor configure k2 --rpc URL --wallet FILE")
	}
	for _, c := range cfg {
		if err := a.printChainConfig(c); err != nil {
			return err
		}
	}
	return nil
}

// A configView is the configuration of a chain in JSON.
type configView struct {
	Chain         string   `json:"chain"`
	Endpoints     []string `json:"endpoints"`
	Wallet        string   `json:"wallet"`
	Network       string   `json:"network"`
	MemoProgram   string   `json:"memo_program,omitempty"`
	Confirmations uint64   `json:"confirmations,omitempty"`
	MaxFee        uint64   `json:"max_fee,omitempty"`
	Interval      float64  `json:"interval_seconds"`
	Entries       int64    `json:"entries,omitempty"`
	Agree         int      `json:"agree,omitempty"`
	Poll          float64  `json:"poll_seconds,omitempty"`
}

func (a *app) printChainConfig(c anchor.ChainConfig) error {
	if a.json {
		return a.print(configView{
			c.Chain, c.Endpoints, c.Wallet, c.Network, c.MemoProgram, c.Confirmations, c.MaxFee, c.Interval.Seconds(), c.Entries, c.Agree, c.Poll.Seconds(),
		})
	}
	when := []string{}
	if c.Interval > 0 {
		when = append(when, fmt.Sprintf("every %v", c.Interval))
	}
	if c.Entries > 0 {
		when = append(when, fmt.Sprintf("every %d entries", c.Entries))
	}
	if len(when) == 0 {
		when = append(when, "only on demand: scale anchor now")
	}
	fields := []field{{"chain", c.Chain}, {"network", quote(c.Network)}, {"servers", quote(strings.Join(c.Endpoints, " "))}, {"wallet", quote(c.Wallet)}, {"anchors", strings.Join(when, ", ")}}
	for _, n := range []struct {
		name string
		n    uint64
	}{{"confirmed by", c.Confirmations}, {"max fee", c.MaxFee}, {"agree", uint64(c.Agree)}} {
		if n.n > 0 {
			fields = append(fields, field{n.name, n.n})
		}
	}
	if c.MemoProgram != "" {
		fields = append(fields, field{"memo program", c.MemoProgram})
	}
	return a.printFields(fields...)
}
