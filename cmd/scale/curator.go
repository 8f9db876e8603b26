package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

func (a *app) curatorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "curator",
		Short: "Show and change who may sign entries of the ledger",
		Long: `A ledger admits the entries of those curators whom its policy names. Every change of the
policy is an entry of its own, signed by one who was admitted before, so that whoever
verifies a proof knows who was admitted when.`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(
		a.curatorListCommand(),
		a.curatorChangeCommand("add", "Admit a curator from here on",
			`Admits KEY, the public key of a curator (base58, as koii-keygen and "scale key show" print
it), from the next entry on. A key that is admitted already changes nothing.`, ledger.ParseCuratorKey, engine.AddCurator),
		a.curatorChangeCommand("remove", "Admit a curator no longer",
			`Admits KEY no longer. What it has signed stays valid. The last one cannot go; when the
store's own key goes, puts need --curator-key. What is no key, and was admitted by an earlier
version, can go as well.`, ledger.ParseCuratorKeyUnverified, engine.RemoveCurator),
	)
	return cmd
}

func (a *app) curatorListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the curators whom the ledger admits",
		Long:    `Lists the public keys of the curators whom the policy in force admits, one a line.`,
		Example: `  scale curator list`,
		Args:    cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		p, err := s.Policy(cmd.Context())
		if err != nil {
			return err
		}
		if a.json {
			return a.print(viewPolicy(p))
		}
		for _, k := range p.Curators {
			own := ""
			if k == p.Own {
				own = "  the store's own"
			}
			if err := a.printf("%v%s\n", k, own); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// A policyView is a policy in JSON.
type policyView struct {
	Entry    int64    `json:"entry"`
	Curators []string `json:"curators"`
	Own      string   `json:"own,omitempty"`
}

func viewPolicy(p store.PolicyInfo) policyView {
	v := policyView{Entry: p.Entry, Curators: []string{}}
	for _, k := range p.Curators {
		v.Curators = append(v.Curators, k.String())
	}
	if p.Own != (ledger.CuratorKey{}) {
		v.Own = p.Own.String()
	}
	return v
}

type curatorParser func(text string) (ledger.CuratorKey, error)

type curatorChange func(e engine, ctx context.Context, key ledger.CuratorKey, signer store.Signer) (store.PolicyInfo, bool, error)

func (a *app) curatorChangeCommand(name, short, long string, parse curatorParser, change curatorChange) *cobra.Command {
	var keyFile string
	cmd := &cobra.Command{
		Use: name + " KEY", Short: short, Long: long,
		Example: "  scale curator " + name + " FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&keyFile, "curator-key", "", curatorKeyHelp)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		key, err := parse(args[0])
		if err != nil {
			return usagef("%w", err)
		}
		var signer store.Signer
		if keyFile != "" {
			if signer, err = store.LoadCurator(keyFile); err != nil {
				return err
			}
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		p, changed, err := change(s, cmd.Context(), key, signer)
		if err != nil {
			return outcome(err)
		}
		if a.json {
			return a.print(struct {
				policyView
				Changed bool `json:"changed"`
			}{viewPolicy(p), changed})
		}
		what := "the policy is unchanged"
		if changed {
			what = "the policy has changed"
		}
		a.note("%s: entry :%d admits %d curators", what, p.Entry, len(p.Curators))
		return nil
	}
	return cmd
}
