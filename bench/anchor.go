package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/store"
)

// An anchorReport is what anchors take: against the local chains, whose time and fees are
// those that they were started with, and restoring, which needs no chain.
type anchorReport struct {
	Chains  []chainsResult `json:"chains,omitempty"`
	Restore *restoreResult `json:"restore,omitempty"`
}

// A chainsResult is of anchors on both chains while they had these times.
type chainsResult struct {
	Slot      float64 `json:"slot_seconds"`  // of K2
	Block     float64 `json:"block_seconds"` // of Arweave
	Confirmed latency `json:"k2_confirmed"`  // since the put's answer
	Finalized latency `json:"k2_finalized"`
	Seen      latency `json:"arweave_seen"`
	// The last of the anchors: of one entry on K2, of many on Arweave.
	K2      chainCost `json:"k2"`
	Arweave chainCost `json:"arweave"`
	// Receipts of both chains make a proof so much larger, in a ledger of more than hourly
	// entries.
	Receipts int `json:"receipts_bytes"`
}

// A chainCost is what one anchor takes.
type chainCost struct {
	Entries int64  `json:"entries"`           // that are new in it
	Bytes   int    `json:"transaction_bytes"` // on Arweave the header
	Body    int64  `json:"body_bytes"`
	Fee     uint64 `json:"fee"` // in ROE or winston
}

// hourly is how many entries are in the extension that the cost is of.
const hourly = 1000

// anchors measures all of it.
func (b *nodeBench) anchors(ctx context.Context) (*anchorReport, error) {
	r := &anchorReport{}
	for _, n := range []struct {
		slot, block time.Duration
		puts        int
	}{{400 * time.Millisecond, 2 * time.Second, 5}, {25 * time.Millisecond, 250 * time.Millisecond, 20}} {
		fmt.Fprintf(b.progress, "anchor: slots of %v\n", n.slot)
		res, err := b.chains(ctx, n.slot, n.block, n.puts)
		if err != nil {
			return nil, fmt.Errorf("anchors at %v a slot: %w", n.slot, err)
		}
		r.Chains = append(r.Chains, *res)
	}
	entries := 50_000
	if b.full {
		entries = 1_000_000
	}
	fmt.Fprintf(b.progress, "anchor: restore of %d entries\n", entries)
	var err error
	if r.Restore, err = b.restore(ctx, entries); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return r, nil
}

// chains puts one small dataset after the other, waits for its anchors each time, and
// then for those of many.
func (b *nodeBench) chains(ctx context.Context, slot, block time.Duration, puts int) (_ *chainsResult, err error) {
	dir := filepath.Join(b.scratch, "anchor-"+slot.String())
	cfg, stop, err := startChains(ctx, dir, slot, block)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	s, err := newStore(ctx, filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	type change struct {
		row anchor.Row
		at  time.Time
	}
	changes := make(chan change, 4096) // more than there will be: Changed must not wait
	a := agent.New(s, agent.Options{Changed: func(r anchor.Row) { changes <- change{r, time.Now()} }})
	defer a.Close()
	for _, c := range cfg {
		if err := a.Configure(c, false); err != nil {
			return nil, err
		}
	}
	a.Start()

	// until waits for the first anchors that cover a tree: on K2 in both states, and on
	// Arweave in a block.
	until := func(size int64) (took [3]time.Duration, rows [3]anchor.Row, err error) {
		answered, left := time.Now(), 3
		for left > 0 {
			select {
			case c := <-changes:
				at := -1
				switch {
				case c.row.Size < size:
				case c.row.Chain == k2.Name && c.row.State == anchor.Seen:
					at = 0
				case c.row.Chain == k2.Name && c.row.State == anchor.Final:
					at = 1
				case c.row.Chain == arweave.Name && c.row.State == anchor.Seen:
					at = 2
				}
				if at >= 0 && took[at] == 0 {
					took[at], rows[at] = c.at.Sub(answered), c.row
					left--
				}
			case <-time.After(2 * time.Minute):
				return took, rows, fmt.Errorf("no anchor of %d entries after two minutes", size)
			case <-ctx.Done():
				return took, rows, ctx.Err()
			}
		}
		return took, rows, nil
	}
	all := make([][]time.Duration, 3)
	r := &chainsResult{Slot: slot.Seconds(), Block: block.Seconds()}
	for i := range puts + 1 {
		n := 1
		if i == puts {
			n = hourly
		}
		size, err := putMany(ctx, s, i*hourly, n)
		if err != nil {
			return nil, err
		}
		took, rows, err := until(size)
		if err != nil {
			return nil, err
		}
		if n > 1 {
			r.K2 = chainCost{Entries: int64(n), Bytes: len(rows[1].Tx.Raw), Fee: rows[1].Tx.Fee}
			if r.Arweave, err = extensionCost(&rows[2]); err != nil {
				return nil, err
			}
			if r.Receipts, err = receiptsCost(ctx, s, a, size-1); err != nil {
				return nil, err
			}
			break
		}
		for j := range took {
			all[j] = append(all[j], took[j])
		}
	}
	r.Confirmed, r.Finalized, r.Seen = latencyOf(all[0]), latencyOf(all[1]), latencyOf(all[2])
	return r, nil
}

func extensionCost(r *anchor.Row) (chainCost, error) {
	said, err := arweave.Verifier{}.Open(*r.Receipt)
	return chainCost{Entries: r.Size - r.Base.Size, Bytes: len(r.Tx.Raw), Body: said.DataSize, Fee: r.Tx.Fee}, err
}

// receiptsCost returns how many bytes of the proof of an entry are receipts, which must be
// of both chains.
func receiptsCost(ctx context.Context, s *store.Store, a *agent.Agent, entry int64) (int, error) {
	o, err := s.Resolve(ctx, fmt.Sprintf(":%d", entry))
	if err != nil {
		return 0, err
	}
	p, err := a.Prove(ctx, o, store.ProveOptions{})
	if err != nil {
		return 0, err
	}
	if len(p.Receipts) != 2 {
		return 0, fmt.Errorf("a proof of entry :%d has %d receipts, expected one of each chain", entry, len(p.Receipts))
	}
	with, err := p.Format()
	if err != nil {
		return 0, err
	}
	p.Receipts = nil
	without, err := p.Format()
	return len(with) - len(without), err
}

// startChains starts both, with wallets that have money, and returns how to anchor on them
// at each put.
func startChains(ctx context.Context, dir string, slot, block time.Duration) (_ []anchor.ChainConfig, stop func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	k, err := devnet.StartK2(ctx, devnet.K2Options{Slot: slot})
	if err != nil {
		return nil, nil, err
	}
	a, err := devnet.StartArweave(ctx, devnet.ArweaveOptions{})
	if err != nil {
		k.Close()
		return nil, nil, err
	}
	mining, cancel := context.WithCancel(ctx)
	mined := make(chan error, 1)
	go func() {
		t := time.NewTicker(block)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if err := a.Mine(mining, 1); err != nil && mining.Err() == nil {
					mined <- err
					return
				}
			case <-mining.Done():
				mined <- nil
				return
			}
		}
	}()
	stop = func() error {
		cancel()
		k.Close()
		a.Close()
		return <-mined
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	k2Wallet, arWallet := filepath.Join(dir, "k2.json"), filepath.Join(dir, "arweave.json")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	ints := make([]int, len(key))
	for i, c := range key {
		ints[i] = int(c)
	}
	b, err := json.Marshal(ints)
	if err != nil {
		return nil, nil, err
	}
	w, err := arweave.NewWallet()
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(os.WriteFile(k2Wallet, b, 0o600), os.WriteFile(arWallet, w.JWK(), 0o600)); err != nil {
		return nil, nil, err
	}
	payer, err := k2.ReadWallet(k2Wallet)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(k.Airdrop(ctx, payer.PublicKey().String(), 100e9), a.Mint(ctx, w.Address(), 1e18)); err != nil {
		return nil, nil, err
	}
	gateway, err := endpoint.New([]string{a.URL}, endpoint.Options{})
	if err != nil {
		return nil, nil, err
	}
	defer gateway.Close()
	network, err := arweave.Network(ctx, gateway)
	if err != nil {
		return nil, nil, err
	}
	return []anchor.ChainConfig{
		{Chain: k2.Name, Endpoints: []string{k.URL}, Wallet: k2Wallet, Network: k.Genesis, Entries: 1, Poll: slot},
		{Chain: arweave.Name, Endpoints: []string{a.URL}, Wallet: arWallet, Network: network, Confirmations: 1, Entries: 1, Poll: block / 4},
	}, stop, nil
}

func newStore(ctx context.Context, dir string) (*store.Store, error) {
	if err := store.Init(ctx, dir, store.InitOptions{}); err != nil {
		return nil, err
	}
	return store.Open(ctx, dir, store.Options{})
}

// putMany puts n datasets of some bytes in one commit and returns the size of the tree.
func putMany(ctx context.Context, s *store.Store, from, n int) (int64, error) {
	in := make([]store.Input, n)
	for i := range in {
		name := fmt.Sprintf("measurement-%d", from+i)
		in[i] = store.Input{Name: name, Reader: io.Reader(strings.NewReader(name))}
	}
	res, err := s.Put(ctx, in, store.PutOptions{})
	if err != nil {
		return 0, err
	}
	return res[0].TreeSize, nil
}
