package k2_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/k2"
)

// landed puts a memo on the chain and returns its receipt as of now.
func landed(t *testing.T, slots int) anchor.Receipt {
	t.Helper()
	w := newWorld(t, nil, 1)
	k := w.chain()
	tx, err := k.Prepare(t.Context(), anchor.Job{Checkpoint: []byte("the text")})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Send(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	if err := chain.Advance(t.Context(), slots); err != nil {
		t.Fatal(err)
	}
	st, err := k.Status(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	r := st.Receipt
	r.Chain, r.Raw, r.Network = k2.Name, tx.Raw, chain.Genesis
	return r
}

// observer makes one over so many proxies.
func observer(t *testing.T, n int) (k2.Observer, []*anchortest.Proxy) {
	t.Helper()
	w := newWorld(t, nil, n)
	return k2.Observer{Endpoints: w.pool(), Genesis: chain.Genesis}, w.proxies
}

func TestConfirm(t *testing.T) {
	r := landed(t, finalized)
	if !r.Final || r.Height == 0 || r.Block == "" || r.Time == 0 {
		t.Fatalf("receipt %+v", r)
	}
	o, _ := observer(t, 2)
	c, err := o.Confirm(t.Context(), r)
	if err != nil || !c.Final || c.Height != r.Height || c.Block != r.Block || !c.Time.Equal(time.Unix(r.Time, 0)) || c.Asked != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	// A receipt that was made too early claims less, and is confirmed all the same.
	early := r
	early.Final, early.Height, early.Block = false, r.Height-1, ""
	if c, err := o.Confirm(t.Context(), early); err != nil || !c.Final || c.Height != r.Height {
		t.Errorf("early: %+v, %v", c, err)
	}
	// Endpoints that keep no blocks, but times.
	o, proxies := observer(t, 2)
	proxies[0].Fault("getBlock", -1, anchortest.Error(-32601, "Method not found"))
	if c, err := o.Confirm(t.Context(), r); err != nil || c.Block != r.Block {
		t.Errorf("without getBlock on one: %+v, %v", c, err)
	}
	proxies[1].Fault("getBlock", -1, anchortest.Error(-32001, "Block cleaned up"))
	if c, err := o.Confirm(t.Context(), r); err != nil || c.Block != "" || c.Time.Unix() != r.Time {
		t.Errorf("without getBlock: %+v, %v", c, err)
	}
}

// Whatever is not so is never confirmed, and what is not known is not called forged.
func TestConfirmRefuses(t *testing.T) {
	final := landed(t, finalized)
	both := func(f func(p *anchortest.Proxy)) func([]*anchortest.Proxy) {
		return func(all []*anchortest.Proxy) {
			for _, p := range all {
				f(p)
			}
		}
	}
	one := func(f func(p *anchortest.Proxy)) func([]*anchortest.Proxy) {
		return func(all []*anchortest.Proxy) { f(all[1]) }
	}
	status := func(s map[string]any) func(p *anchortest.Proxy) {
		return func(p *anchortest.Proxy) { p.Fault("getSignatureStatuses", -1, statuses(s)) }
	}
	block := func(name string, v any) func(p *anchortest.Proxy) {
		return func(p *anchortest.Proxy) {
			p.Fault("getBlock", -1, anchortest.Result(func(r any) any {
				r.(map[string]any)[name] = v
				return r
			}))
		}
	}
	answer := func(f anchortest.Fault) func(p *anchortest.Proxy) {
		return func(p *anchortest.Proxy) { p.Fault("", -1, f) }
	}
	const other = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
	for name, c := range map[string]struct {
		receipt func(*anchor.Receipt)
		chain   func([]*anchortest.Proxy)
		want    error
	}{
		"forged raw":    {receipt: func(r *anchor.Receipt) { r.Raw = append([]byte{}, r.Raw...); r.Raw[len(r.Raw)-1] ^= 1 }, want: anchor.ErrForged},
		"other network": {receipt: func(r *anchor.Receipt) { r.Network = other }, want: anchor.ErrForged},
		"other slot":    {receipt: func(r *anchor.Receipt) { r.Height++ }, want: anchor.ErrForged},
		"other block":   {receipt: func(r *anchor.Receipt) { r.Block = other }, want: anchor.ErrForged},
		"wrong cluster": {chain: both(func(p *anchortest.Proxy) {
			p.Fault("getGenesisHash", -1, anchortest.Result(func(any) any { return other }))
		}), want: anchor.ErrUnavailable},
		"one elsewhere": {chain: one(func(p *anchortest.Proxy) {
			p.Fault("getGenesisHash", -1, anchortest.Result(func(any) any { return other }))
		}), want: anchor.ErrUnavailable},
		"unknown":        {chain: both(status(nil)), want: anchor.ErrNotFinal},
		"unknown to one": {chain: one(status(nil)), want: anchor.ErrDisagree},
		"confirmed only": {chain: both(status(lied(1, "confirmed", nil))), want: anchor.ErrNotFinal},
		"processed":      {chain: both(status(lied(1, "processed", nil))), want: anchor.ErrNotFinal},
		"no level":       {chain: both(status(map[string]any{"slot": 1})), want: anchor.ErrNotFinal},
		"failed":         {chain: both(status(lied(1, "finalized", "AccountNotFound"))), want: anchor.ErrForged},
		"failed on one":  {chain: one(status(lied(int(final.Height), "finalized", "AccountNotFound"))), want: anchor.ErrDisagree},
		"slot of one":    {chain: one(status(lied(1, "finalized", nil))), want: anchor.ErrDisagree},
		"block of one":   {chain: one(block("blockhash", other)), want: anchor.ErrDisagree},
		"time of one":    {chain: one(block("blockTime", 1)), want: anchor.ErrDisagree},
		"no time":        {chain: both(block("blockTime", nil)), want: anchor.ErrUnavailable},
		"no block":       {chain: one(func(p *anchortest.Proxy) { p.Fault("getBlock", -1, anchortest.Error(-32004, "Block not available")) }), want: anchor.ErrUnavailable},
		"bad block hash": {chain: both(block("blockhash", "x")), want: anchor.ErrUnavailable},
		"down":           {chain: one((*anchortest.Proxy).Down), want: anchor.ErrUnavailable},
		"all down":       {chain: both((*anchortest.Proxy).Down), want: anchor.ErrUnavailable},
		"cut":            {chain: one(answer(anchortest.Cut)), want: anchor.ErrUnavailable},
		"500":            {chain: one(answer(anchortest.Status(500))), want: anchor.ErrUnavailable},
		"endless":        {chain: one(answer(anchortest.Endless(1<<30, false))), want: anchor.ErrUnavailable},
		"truncated":      {chain: one(answer(anchortest.Truncate)), want: anchor.ErrUnavailable},
		"null":           {chain: both(answer(anchortest.Body("null"))), want: anchor.ErrUnavailable},
		"null result":    {chain: both(answer(anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":null}`))), want: anchor.ErrUnavailable},
		"empty result":   {chain: both(answer(anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":{}}`))), want: anchor.ErrUnavailable},
		"no statuses": {chain: both(func(p *anchortest.Proxy) {
			p.Fault("getSignatureStatuses", -1, value(func(any) any { return []any{} }))
		}), want: anchor.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			o, proxies := observer(t, 2)
			r := final
			if c.receipt != nil {
				c.receipt(&r)
			}
			if c.chain != nil {
				c.chain(proxies)
			}
			got, err := o.Confirm(t.Context(), r)
			if !errors.Is(err, c.want) || got.Final {
				t.Errorf("%+v, %v", got, err)
			}
			if c.want != anchor.ErrForged && errors.Is(err, anchor.ErrForged) {
				t.Errorf("called forged: %v", err)
			}
		})
	}
}

// A time-out is no verdict.
func TestConfirmTimeout(t *testing.T) {
	r := landed(t, finalized)
	w := newWorld(t, nil, 2)
	w.call = 100 * time.Millisecond
	w.proxies[0].Fault("getSignatureStatuses", -1, anchortest.Hang)
	o := k2.Observer{Endpoints: w.pool()}
	if _, err := o.Confirm(t.Context(), r); !errors.Is(err, anchor.ErrUnavailable) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.Confirm(ctx, r); !errors.Is(err, anchor.ErrUnavailable) {
		t.Error(err)
	}
}

// Not final yet is not final, though the transaction is in a block.
func TestConfirmEarly(t *testing.T) {
	o, _ := observer(t, 2)
	for _, slots := range []int{0, confirmed, finalized - 1} {
		r := landed(t, slots)
		if r.Final {
			t.Errorf("%d slots: final", slots)
		}
		if c, err := o.Confirm(t.Context(), r); !errors.Is(err, anchor.ErrNotFinal) || c.Final {
			t.Errorf("%d slots: %+v, %v", slots, c, err)
		}
	}
}

// Configuring finds out what is wrong before anything is paid.
func TestNetwork(t *testing.T) {
	w := newWorld(t, nil, 2)
	program := solana.MustPublicKeyFromBase58(k2.DefaultMemoProgram)
	if h, err := k2.Network(t.Context(), w.pool(), program); err != nil || h != chain.Genesis {
		t.Errorf("%s, %v", h, err)
	}
	if _, err := k2.Network(t.Context(), w.pool(), newWallet(t, 0).PublicKey()); !errors.Is(err, anchor.ErrRefused) {
		t.Errorf("another program: %v", err)
	}
	if _, err := k2.Network(t.Context(), w.pool(), newWallet(t, 1e9).PublicKey()); !errors.Is(err, anchor.ErrRefused) {
		t.Errorf("an account that is no program: %v", err)
	}
	w.proxies[1].Fault("getGenesisHash", 1, anchortest.Result(func(any) any { return "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d" }))
	if _, err := k2.Network(t.Context(), w.pool(), program); !errors.Is(err, anchor.ErrCluster) {
		t.Errorf("two networks: %v", err)
	}
	w.proxies[1].Fault("getGenesisHash", 1, anchortest.Body(`{"jsonrpc":"2.0","id":1,"result":null}`))
	if _, err := k2.Network(t.Context(), w.pool(), program); !errors.Is(err, anchor.ErrUnavailable) {
		t.Errorf("no answer: %v", err)
	}
}
