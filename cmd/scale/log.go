package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

func (a *app) logCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Print the log's signed checkpoint; see the subcommands for more",
		Long: `Prints the newest signed checkpoint of the ledger, a C2SP tlog-checkpoint, as it is.
It commits to every entry there is.`,
		Example: `  scale log
  scale log entries --from 10
  scale log consistency 5 12
  scale log export public_html/log`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if len(args) > 0 {
			return group(cmd, args)
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		p, err := s.Head(cmd.Context(), "")
		if err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]any{
				"origin": s.Origin(), "size": p.Size, "root": fmt.Sprintf("%x", p.Root), "checkpoint": string(p.Checkpoint),
			})
		}
		return a.printf("%s", p.Checkpoint)
	}
	cmd.AddCommand(a.logEntriesCommand(), a.logConsistencyCommand(), a.logExportCommand(), a.logResumeCommand())
	return cmd
}

// A ledgerView is a ledger entry in JSON.
type ledgerView struct {
	Index      int64    `json:"index"`
	CID        string   `json:"cid"`
	Kind       string   `json:"kind"`
	Time       string   `json:"time"`
	Curator    string   `json:"curator"`
	Policy     int64    `json:"policy"`
	Name       string   `json:"name,omitempty"`
	Root       string   `json:"root,omitempty"`
	Size       uint64   `json:"size,omitempty"`
	Files      uint64   `json:"files,omitempty"`
	Leaves     uint64   `json:"leaves,omitempty"`
	Chunks     uint64   `json:"chunks,omitempty"`
	Commitment string   `json:"commitment,omitempty"`
	Profile    string   `json:"profile,omitempty"`
	Previous   *int64   `json:"previous,omitempty"`
	Parents    []string `json:"parents,omitempty"`
	Curators   []string `json:"curators,omitempty"`
	Block      []byte   `json:"block"`
}

func viewLedgerEntry(l store.LedgerEntry) ledgerView {
	e := l.Entry
	v := ledgerView{
		Index: l.Index, CID: l.CID.String(), Kind: e.Kind.String(), Time: timeText(e.Time),
		Curator: e.Curator.String(), Policy: e.Policy, Block: l.Block,
	}
	v.Name = e.Name
	if e.Kind == ledger.KindDataset {
		v.Root, v.Profile = e.Root.String(), e.Profile
		v.Size, v.Files, v.Leaves, v.Chunks = e.Size, e.Files, e.Leaves, e.Chunks
		v.Commitment = fmt.Sprintf("%x", e.Commitment)
	}
	if e.Previous >= 0 {
		v.Previous = &e.Previous
	}
	for _, p := range e.Parents {
		v.Parents = append(v.Parents, p.String())
	}
	for _, c := range e.Curators {
		v.Curators = append(v.Curators, c.String())
	}
	return v
}

func (a *app) logEntriesCommand() *cobra.Command {
	var from, to int64
	var follow bool
	cmd := &cobra.Command{
		Use:   "entries",
		Short: "List the entries of the ledger",
		Long: `Lists entries by index: kind, name and root CID, claimed time, curator. --json has all
fields and the signed block. With --follow it goes on with those that are appended later,
each as soon as it is published, until it is interrupted.`,
		Example: `  scale log entries --from 10 --to 20
  scale log entries --follow --json | while read -r entry; do echo "$entry"; done`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().Int64Var(&from, "from", 0, "first `index`")
	cmd.Flags().Int64Var(&to, "to", -1, "`index` after the last; default is the end")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with entries that are appended later")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		ctx := cmd.Context()
		ends := cmd.Flags().Changed("to")
		if follow && ends {
			return usagef("--follow and --to do not go together")
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		h, err := s.Head(ctx, "")
		if err != nil {
			return err
		}
		if to < 0 && !ends {
			to = h.Size
		}
		if from < 0 || from > to || to > h.Size {
			return usagef("entries %d to %d of a ledger of %d", from, to, h.Size)
		}
		entries := s.Entries(ctx, from, to)
		if follow {
			entries = s.Follow(ctx, from)
		}
		for l, err := range entries {
			if follow && ctx.Err() != nil {
				return nil // that is how it ends
			}
			if err != nil {
				return err
			}
			if err := a.printEntry(l); err != nil {
				return err
			}
			if follow {
				if err := a.stdout.Flush(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return cmd
}

func (a *app) printEntry(l store.LedgerEntry) error {
	v := viewLedgerEntry(l)
	if a.json {
		return a.print(v)
	}
	what := fmt.Sprintf("%d curators", len(v.Curators))
	switch l.Entry.Kind {
	case ledger.KindDataset:
		what = v.Name + "  " + v.Root
	case ledger.KindRemoval:
		what = v.Name
	}
	return a.printf(":%d  %s  %s  %s  by %s\n", v.Index, v.Kind, what, v.Time, v.Curator)
}

func (a *app) logConsistencyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consistency FROM TO",
		Short: "Print the proof that the log of size TO continues that of size FROM",
		Long: `Prints an RFC 6962 consistency proof between the trees of size FROM and TO, one hash in
base64 a line, after checking it.`,
		Example: `  scale log consistency 5 12`,
		Args:    cobra.ExactArgs(2),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		var sizes [2]int64
		for i, arg := range args {
			if sizes[i], err = strconv.ParseInt(arg, 10, 64); err != nil {
				return usagef("%q is not a tree size", arg)
			}
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		h, err := s.Head(cmd.Context(), "")
		if err != nil {
			return err
		}
		if from, to, size := sizes[0], sizes[1], h.Size; from < 1 || from > to || to > size {
			return usagef("sizes %d and %d: must be 1 or more, in order, and at most %d", from, to, size)
		}
		p, err := s.Consistency(cmd.Context(), sizes[0], sizes[1])
		if err != nil {
			return err
		}
		if a.json {
			hashes := make([]string, len(p))
			for i, h := range p {
				hashes[i] = h.String()
			}
			return a.print(map[string]any{"origin": s.Origin(), "from": sizes[0], "to": sizes[1], "hashes": hashes})
		}
		for _, h := range p {
			if err := a.printf("%v\n", h); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func (a *app) logExportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Write the log to DIR in the C2SP tlog-tiles layout",
		Long: `Writes checkpoint, tiles and entry bundles to DIR, which must not exist or be empty. Any
web server can serve it, and any tlog tool check it.`,
		Example: `  scale log export public_html/log`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		if err := s.ExportLog(cmd.Context(), args[0]); err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(args[0], "checkpoint"))
		if err != nil {
			return err
		}
		c, _, err := ledger.ParseCheckpointUnverified(b)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]any{"dir": args[0], "origin": c.Origin, "size": c.Size})
		}
		a.note("exported the log, %d entries, to %s", c.Size, quote(args[0]))
		return nil
	}
	return cmd
}
