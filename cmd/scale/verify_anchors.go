package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

// anchorFlags say how the receipts of a proof are checked.
type anchorFlags struct {
	online                 bool
	k2, arweave            []string
	k2Genesis, arweaveName string
	confirmations          uint64
	keys                   []string
	rule                   string
	timeout                time.Duration
}

func (f *anchorFlags) add(fl *pflag.FlagSet) {
	fl.BoolVar(&f.online, "online", false, "ask the chains whether the anchors are there, final, and since when")
	fl.StringArrayVar(&f.k2, "k2-rpc", nil, "`URL` of a K2 server to ask; several must agree")
	fl.StringArrayVar(&f.arweave, "arweave-gateway", nil, "`URL` of an Arweave gateway to ask; several must agree")
	fl.StringVar(&f.k2Genesis, "k2-genesis", "", "genesis `hash` that the K2 servers must have")
	fl.StringVar(&f.arweaveName, "arweave-network", "", "`name` that the gateways' network must have")
	fl.Uint64Var(&f.confirmations, "confirmations", 0, "`number` of Arweave blocks that make an anchor final (default 18)")
	fl.StringArrayVar(&f.keys, "anchor-key", nil, "count only anchors by this `key` or address; may be repeated")
	fl.StringVar(&f.rule, "anchors", "any", "with --online: "+rulePlain+", of those that are asked")
	fl.DurationVar(&f.timeout, "timeout", time.Minute, "with --online: how long the chains may take to answer")
}

// chains returns how many chains are asked.
func (f *anchorFlags) chains() int {
	n := 0
	for _, urls := range [][]string{f.k2, f.arweave} {
		if len(urls) > 0 {
			n++
		}
	}
	return n
}

func (f *anchorFlags) check() error {
	for _, urls := range [][]string{f.k2, f.arweave} {
		if len(urls) > 0 {
			p, err := endpoint.New(urls, endpoint.Options{})
			if err != nil {
				return usagef("%w", err)
			}
			p.Close()
		}
	}
	switch n := f.chains(); {
	case !f.online && n > 0:
		return usagef("--k2-rpc and --arweave-gateway go with --online")
	case !f.online:
		return nil
	case n == 0:
		return usagef("--online: name the servers to ask with --k2-rpc and --arweave-gateway; those of whoever made the proof are not trusted")
	case f.timeout <= 0:
		return usagef("--timeout must be above 0")
	}
	_, err := parseRule(f.rule, f.chains())
	return err
}

// checkReceipts checks the receipts of a proof as far as bytes go. One that does not hold
// is refused like any other part of a proof.
func checkReceipts(p *proof.Proof, v *proof.Verified, keys []string) ([]anchor.Evidence, error) {
	var claims []anchor.Claim
	for _, r := range v.Receipts {
		claims = append(claims, anchor.Claim{Receipt: r.Data, Size: r.Size, Path: r.Path})
	}
	list := anchor.CheckEvidence(claims, anchor.EvidenceOptions{
		Index: v.Index, Leaf: ledger.LeafHash(p.EntryBlock), Open: v.OpenCheckpoint,
		Verifiers: map[string]anchor.Verifier{k2.Name: k2.Verifier{}, arweave.Name: arweave.Verifier{}},
	})
	for i := range list {
		if list[i].Err != nil {
			return nil, fmt.Errorf("%w: receipt %d: %w", proof.ErrRefused, i, list[i].Err)
		}
		list[i].KeyNamed = slices.Contains(keys, list[i].Anchored.Signer)
	}
	return list, nil
}

// States of an anchor that was asked for.
const (
	notAsked     = ""
	confirmed    = "confirmed"
	notFinal     = "not_final"
	unreachable  = "unreachable"
	contradicted = "contradicted"
)

// A seenReceipt is a receipt and what its chain said of it.
type seenReceipt struct {
	anchor.Evidence
	counts bool // no anchor keys were named, or its own was
	status string
	said   anchor.Confirmed
	err    error
}

// An anchorVerdict is what became of all receipts of a proof.
type anchorVerdict struct {
	receipts []seenReceipt
	time     time.Time // of the earliest confirmed anchor
	// err says why fewer anchors are confirmed than were asked for.
	err error
}

// confirm asks the chains, if that is wanted.
func (f *anchorFlags) confirm(ctx context.Context, list []anchor.Evidence) anchorVerdict {
	var v anchorVerdict
	for _, e := range list {
		v.receipts = append(v.receipts, seenReceipt{Evidence: e, counts: len(f.keys) == 0 || e.KeyNamed})
	}
	if !f.online {
		return v
	}
	need, err := parseRule(f.rule, f.chains())
	if err != nil {
		v.err = err
		return v
	}
	observers, closeAll, err := f.observers()
	if err != nil {
		v.err = err
		return v
	}
	defer closeAll()
	limit, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range v.receipts {
		r := &v.receipts[i]
		if o := observers[r.Receipt.Chain]; o != nil && r.counts && r.Holds() {
			wg.Go(func() { r.ask(limit, o) })
		}
	}
	wg.Wait()
	v.decide(need, f)
	if ctx.Err() != nil {
		v.err = context.Cause(ctx)
	}
	return v
}

func (f *anchorFlags) observers() (map[string]anchor.Observer, func(), error) {
	list := map[string]anchor.Observer{}
	var pools []*endpoint.Pool
	closeAll := func() {
		for _, p := range pools {
			p.Close()
		}
	}
	pool := func(urls []string) (*endpoint.Pool, error) {
		p, err := endpoint.New(urls, endpoint.Options{Call: f.timeout})
		if err == nil {
			pools = append(pools, p)
		}
		return p, err
	}
	if len(f.k2) > 0 {
		p, err := pool(f.k2)
		if err != nil {
			return nil, closeAll, err
		}
		list[k2.Name] = k2.Observer{Endpoints: p, Genesis: f.k2Genesis}
	}
	if len(f.arweave) > 0 {
		p, err := pool(f.arweave)
		if err != nil {
			return nil, closeAll, err
		}
		list[arweave.Name] = arweave.Observer{Endpoints: p, Network: f.arweaveName, Confirmations: f.confirmations}
	}
	return list, closeAll, nil
}

func (r *seenReceipt) ask(ctx context.Context, o anchor.Observer) {
	r.said, r.err = o.Confirm(ctx, r.Receipt)
	switch {
	case r.err == nil && r.said.Final && !r.said.Time.IsZero():
		r.status = confirmed
	case errors.Is(r.err, anchor.ErrForged):
		r.status = contradicted
	case r.err == nil || errors.Is(r.err, anchor.ErrNotFinal):
		r.status = notFinal
	default:
		r.status = unreachable
	}
}

// decide weighs what the chains said: one contradiction is enough to refuse.
func (v *anchorVerdict) decide(need int, f *anchorFlags) {
	done := map[string]bool{}
	counting := 0
	var waits, forged []error
	for i := range v.receipts {
		r := &v.receipts[i]
		if r.counts {
			counting++
		}
		switch r.status {
		case confirmed:
			done[r.Receipt.Chain] = true
			if v.time.IsZero() || r.said.Time.Before(v.time) {
				v.time = r.said.Time
			}
		case contradicted:
			forged = append(forged, r.err)
		case notFinal, unreachable:
			waits = append(waits, r.err)
		}
	}
	short := fmt.Sprintf("the data is what the proof says, but %d of %d anchors are confirmed", len(done), need)
	switch {
	case len(forged) > 0:
		v.err = fmt.Errorf("%w: a chain contradicts the proof: %w", proof.ErrRefused, errors.Join(forged...))
	case len(done) >= need:
	case len(f.keys) > 0 && counting == 0 && len(v.receipts) > 0:
		v.err = fmt.Errorf("%w: no anchor in the proof was made by a key that you name", proof.ErrRefused)
	case len(waits) > 0:
		v.err = fmt.Errorf("%s: %w", short, errors.Join(waits...))
		if !errors.Is(v.err, anchor.ErrNotFinal) {
			v.err = fmt.Errorf("%w: %w", anchor.ErrUnavailable, v.err)
		}
	default:
		v.err = fmt.Errorf("%s: the proof has no receipt of the chains that you ask; scale upgrade adds those that came later: %w", short, anchor.ErrNotFinal)
	}
}

func servers(n int) string {
	if n == 1 {
		return "the server that you name"
	}
	return fmt.Sprintf("%d servers that you name", n)
}

// place says where on its chain an anchor is.
func (r *seenReceipt) place() string {
	if r.Receipt.Chain == k2.Name {
		return fmt.Sprintf("K2 slot %d", r.said.Height)
	}
	return fmt.Sprintf("Arweave block %d", r.said.Height)
}

// fields tells people of the anchors.
func (v *anchorVerdict) fields() []field {
	var out []field
	var places []string
	for i := range v.receipts {
		r := &v.receipts[i]
		out = append(out, field{"anchor", r.Proven()})
		switch {
		case !r.counts:
			out = append(out, field{"", "does not count: its signer is none of the anchor keys that you name"})
		case r.status == confirmed:
			places = append(places, r.place())
			out = append(out, field{"", fmt.Sprintf("confirmed by %s: %s, %s", servers(r.said.Asked), r.place(), timeText(r.said.Time))})
		case r.status != notAsked:
			out = append(out, field{"", fmt.Sprintf("%s: %v", strings.ReplaceAll(r.status, "_", " "), r.err)})
		default:
			out = append(out, field{"", "claimed, not asked for: " + r.Claimed()})
		}
	}
	if v.err == nil && !v.time.IsZero() {
		out = append(out, field{"existed before", fmt.Sprintf("%s (%s)", timeText(v.time), strings.Join(places, ", "))})
	}
	return out
}

// An evidenceView is a receipt in JSON.
type evidenceView struct {
	Chain       string `json:"chain"`
	Transaction string `json:"transaction,omitempty"`
	Size        int64  `json:"size"`
	Signer      string `json:"signer,omitempty"`
	KeyNamed    bool   `json:"key_named"`
	Counts      bool   `json:"counts"`
	// Holds: its transaction is sound, and anchors a checkpoint of this log that covers the
	// entry.
	Holds   bool        `json:"holds"`
	Claimed claimedView `json:"claimed"`
	Status  string      `json:"status,omitempty"` // with --online
	Time    string      `json:"time,omitempty"`   // if confirmed
	Height  uint64      `json:"height,omitempty"`
	Block   string      `json:"block,omitempty"`
	Asked   int         `json:"asked,omitempty"`
	Error   string      `json:"error,omitempty"`
}

type claimedView struct {
	Network string `json:"network"`
	Height  uint64 `json:"height"`
	Block   string `json:"block"`
	Time    string `json:"time,omitempty"`
	Final   bool   `json:"final"`
}

func (v *anchorVerdict) views() []evidenceView {
	out := []evidenceView{}
	for i := range v.receipts {
		r := &v.receipts[i]
		c := r.Receipt
		view := evidenceView{
			Chain: c.Chain, Transaction: r.Anchored.ID, Size: r.Size, Signer: r.Anchored.Signer, KeyNamed: r.KeyNamed, Counts: r.counts,
			Holds: r.Holds(), Status: r.status, Claimed: claimedView{Network: c.Network, Height: c.Height, Block: c.Block, Final: c.Final},
		}
		if c.Time > 0 {
			view.Claimed.Time = timeText(time.Unix(c.Time, 0))
		}
		if r.status == confirmed {
			view.Time, view.Height, view.Block, view.Asked = timeText(r.said.Time), r.said.Height, r.said.Block, r.said.Asked
		}
		if r.err != nil {
			view.Error = r.err.Error()
		}
		out = append(out, view)
	}
	return out
}
