package main

import (
	"context"
	"fmt"
	"iter"
	"math/big"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

func (a *app) anchorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "anchor",
		Short: "Anchor the ledger on K2 and Arweave, and show how that goes",
		Long: `Brings the log's signed checkpoint onto chains, so that anyone can see that what the ledger
holds existed then: onto K2 within seconds, and onto Arweave for ever, together with the
entries that are new.

"scale serve" anchors by itself once chains are configured, as does "scale anchor run"
where there is no node. Storing, reading and proving never wait for a chain.`,
		Example: `  scale anchor configure k2 --rpc https://mainnet.koii.network --wallet ~/.config/koii/id.json
  scale anchor run
  scale anchor now --wait final
  scale anchor status`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(a.anchorConfigureCommand(), a.anchorNowCommand(), a.anchorStatusCommand(), a.anchorListCommand(),
		a.anchorWatchCommand(), a.anchorBalanceCommand(), a.anchorRunCommand())
	return cmd
}

// What an owner knows of anchors, as a node tells it.

func (o *owner) AnchorChains(ctx context.Context) ([]anchor.ChainState, bool, error) {
	return o.agent.Chains(ctx)
}

func (o *owner) Anchors(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error] {
	return func(yield func(*anchor.Row, error) bool) {
		names, err := o.agent.Names(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		const page = 100
		for _, name := range names {
			if chain != "" && name != chain {
				continue
			}
			for size := int64(1 << 62); ; {
				rows, err := o.agent.List(ctx, name, size, page)
				if err != nil {
					yield(nil, err)
					return
				}
				for _, r := range rows {
					if !yield(r, nil) {
						return
					}
					size = r.Size - 1
				}
				if len(rows) < page || size < 1 {
					break
				}
			}
		}
	}
}

func (o *owner) AnchorReceipts(ctx context.Context, entry int64) ([]anchor.Claim, int64, error) {
	return o.agent.Receipts(ctx, entry)
}

func (o *owner) AnchorNow(_ context.Context, chain string) (int64, []string, error) {
	return o.agent.Now(chain)
}

func (o *owner) WatchAnchors(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error] {
	return o.agent.Watch(ctx, chain)
}

func (o *owner) AnchorConfig(context.Context) (anchor.Config, error) { return o.agent.Config() }

func (o *owner) ConfigureAnchors(_ context.Context, c anchor.ChainConfig, remove bool) error {
	return o.agent.Configure(c, remove)
}

// Prove adds the receipts that cover the entry.
func (o *owner) Prove(ctx context.Context, of store.Object, opt store.ProveOptions) (*proof.Proof, error) {
	return o.agent.Prove(ctx, of, opt)
}

// A waiter waits for anchors, and tells people meanwhile what happens to them.
type waiter struct {
	a     *app
	e     engine
	state anchor.State
	// open holds the chains that are waited for, and the tree size that has to be anchored.
	open map[string]int64
	// most, if not 0, is how many chains are enough.
	most int
	// again, if set, is called when the connection to whoever anchors was broken.
	again func(context.Context) error
	done  map[string]*anchor.Row
}

// wait returns the anchors by chain.
func (w *waiter) wait(ctx context.Context) (map[string]*anchor.Row, error) {
	w.done = map[string]*anchor.Row{}
	first := true
	for r, err := range w.e.WatchAnchors(ctx, "") {
		if err != nil {
			return w.done, err
		}
		if r == nil && !first && w.again != nil {
			if err := w.again(ctx); err != nil {
				return w.done, err
			}
		}
		if first = false; r != nil {
			w.tell(r)
		}
		// What there is already is looked for at first, and after the connection was broken.
		if r == nil || r.Reached(w.state) {
			if err := w.look(ctx); err != nil {
				return w.done, err
			}
		}
		if len(w.open) == 0 || w.most > 0 && len(w.done) >= w.most {
			break
		}
	}
	return w.done, ctx.Err()
}

// tell tells of a transition on a chain that is waited for.
func (w *waiter) tell(r *anchor.Row) {
	if _, waited := w.open[r.Chain]; !waited {
		return
	}
	text := r.Text()
	if text != "" {
		text = ": " + text
	}
	w.a.note("%s, %d entries: %s%s", r.Chain, r.Size, r.State, text)
}

// look finds anchors that will do.
func (w *waiter) look(ctx context.Context) error {
	for chain, size := range w.open {
		// The smallest is meant: it comes last.
		for r, err := range w.e.Anchors(ctx, chain) {
			if err != nil {
				return err
			}
			if r.Size < size {
				break
			}
			if r.Reached(w.state) {
				w.done[chain] = r
			}
		}
		if w.done[chain] != nil {
			delete(w.open, chain)
		}
	}
	return nil
}

// An anchorView is an anchor in JSON.
type anchorView struct {
	Chain           string           `json:"chain"`
	Size            int64            `json:"size"`
	State           anchor.State     `json:"state"`
	Attempt         int              `json:"attempt"`
	Transaction     string           `json:"transaction,omitempty"`
	Fee             uint64           `json:"fee,omitempty"`
	BaseSize        int64            `json:"base_size,omitempty"`
	BaseTransaction string           `json:"base_transaction,omitempty"`
	Network         string           `json:"network,omitempty"`
	Height          uint64           `json:"height,omitempty"`
	Block           string           `json:"block,omitempty"`
	BlockTime       string           `json:"block_time,omitempty"`
	Depth           uint64           `json:"depth,omitempty"`
	Time            string           `json:"time,omitempty"`
	Text            string           `json:"text,omitempty"`
	Checkpoint      string           `json:"checkpoint"`
	History         []transitionView `json:"history"`
}

type transitionView struct {
	Time    string       `json:"time"`
	State   anchor.State `json:"state"`
	Attempt int          `json:"attempt"`
	Text    string       `json:"text,omitempty"`
}

func viewAnchor(r *anchor.Row) anchorView {
	v := anchorView{
		Chain: r.Chain, Size: r.Size, State: r.State, Attempt: r.Attempt, Transaction: r.Tx.ID, Fee: r.Tx.Fee,
		BaseSize: r.Base.Size, BaseTransaction: r.Base.ID, Text: r.Text(), Checkpoint: string(r.Checkpoint), History: []transitionView{},
	}
	if t := r.Updated(); !t.IsZero() {
		v.Time = timeText(t)
	}
	if c := r.Receipt; c != nil {
		v.Network, v.Height, v.Block, v.Depth = c.Network, c.Height, c.Block, c.Depth
		if c.Time > 0 {
			v.BlockTime = timeText(time.Unix(c.Time, 0))
		}
	}
	for _, h := range r.History {
		v.History = append(v.History, transitionView{timeText(h.Time), h.State, h.Attempt, h.Text})
	}
	return v
}

// printAnchor prints an anchor on a line.
func (a *app) printAnchor(r *anchor.Row) error {
	if a.json {
		return a.print(viewAnchor(r))
	}
	line := fmt.Sprintf("%-8s %8d  %-8s", r.Chain, r.Size, r.State)
	if t := r.Updated(); !t.IsZero() {
		line += "  " + timeText(t)
	}
	if r.Tx.ID != "" {
		line += "  " + quote(r.Tx.ID)
	}
	if text := r.Text(); text != "" {
		line += "  " + quote(text)
	}
	return a.printf("%s\n", line)
}

// coins writes an amount of smallest units as that of coins.
func coins(units uint64, decimals int, coin string) string {
	s := new(big.Int).SetUint64(units).String()
	if len(s) <= decimals {
		s = strings.Repeat("0", decimals-len(s)+1) + s
	}
	whole, rest := s[:len(s)-decimals], strings.TrimRight(s[len(s)-decimals:], "0")
	if rest != "" {
		whole += "." + rest
	}
	return whole + " " + coin
}
