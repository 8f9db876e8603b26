package k2

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/gagliardetto/solana-go"
	computebudget "github.com/gagliardetto/solana-go/programs/compute-budget"
	"github.com/gagliardetto/solana-go/rpc"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

const (
	defaultUnits = 200_000
	maxUnits     = 1_400_000
	// maxValid bounds for how many slots a blockhash is good; the protocol has 150.
	maxValid = 1000
)

// Prepare implements anchor.Chain. The transaction is simulated before it is signed, so
// that a missing memo program costs nothing, and nobody gets it signed before the outbox
// has it.
func (k *Chain) Prepare(ctx context.Context, j anchor.Job) (out anchor.Tx, err error) {
	err = k.cfg.Endpoints.First(ctx, k.on(func(each context.Context, c *rpc.Client) error {
		tx, expires, err := k.build(each, c, j)
		if err != nil {
			return err
		}
		fee, err := k.price(ctx, tx) // asks the others too, each within its own time
		if err != nil {
			return err
		}
		payer := k.cfg.Wallet.PublicKey()
		held, err := balance(each, c, payer)
		if err != nil {
			return err
		}
		if held < fee {
			return fmt.Errorf("%s holds %d ROE, an anchor costs %d: %w", payer, held, fee, anchor.ErrFunds)
		}
		if _, err := tx.Sign(func(solana.PublicKey) *solana.PrivateKey { return &k.cfg.Wallet }); err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		raw, err := tx.MarshalBinary()
		if err != nil {
			return err
		}
		k.fee.Store(fee)
		out = anchor.Tx{ID: tx.Signatures[0].String(), Raw: raw, Expires: expires, Fee: fee}
		return nil
	}))
	return out, err
}

// build makes the transaction, not signed, and the last height at which it can land.
func (k *Chain) build(ctx context.Context, c *rpc.Client, j anchor.Job) (*solana.Transaction, uint64, error) {
	type latest struct {
		Blockhash string `json:"blockhash"`
		LastValid uint64 `json:"lastValidBlockHeight"`
	}
	l, err := call[inContext[latest]](ctx, c, "getLatestBlockhash", at(rpc.CommitmentConfirmed))
	if err != nil {
		return nil, 0, err
	}
	if l.Value == nil {
		return nil, 0, fmt.Errorf("no blockhash in the answer: %w", anchor.ErrUnavailable)
	}
	hash, err := solana.HashFromBase58(l.Value.Blockhash)
	// Heights are never above slots, so this cannot be, and would be waited for in vain.
	if err != nil || l.Value.LastValid == 0 || l.Value.LastValid > l.Context.Slot+maxValid {
		return nil, 0, fmt.Errorf("blockhash %q, good to height %d at slot %d: %w", clip(l.Value.Blockhash), l.Value.LastValid, l.Context.Slot, anchor.ErrUnavailable)
	}
	if err := probe(ctx, c, k.memo); err != nil {
		return nil, 0, err
	}
	memo := solana.NewInstruction(k.memo, solana.AccountMetaSlice{solana.Meta(k.cfg.Wallet.PublicKey()).SIGNER()}, j.Checkpoint)
	tx, raw, err := k.unsigned(hash, memo)
	if err != nil {
		return nil, 0, err
	}
	type simulation struct {
		Err   any     `json:"err"`
		Units *uint64 `json:"unitsConsumed"`
	}
	sim, err := call[inContext[simulation]](ctx, c, "simulateTransaction", raw, map[string]any{"encoding": "base64", "commitment": rpc.CommitmentConfirmed})
	if err != nil {
		return nil, 0, err
	}
	if sim.Value == nil {
		return nil, 0, fmt.Errorf("simulation without a result: %w", anchor.ErrUnavailable)
	}
	units := uint64(0)
	if sim.Value.Units != nil {
		units = *sim.Value.Units
	}
	switch {
	case units > defaultUnits*9/10:
		limit := computebudget.NewSetComputeUnitLimitInstruction(uint32(min(max(units, defaultUnits)*13/10, maxUnits))).Build()
		tx, _, err = k.unsigned(hash, limit, memo)
	case sim.Value.Err != nil:
		err = fmt.Errorf("simulation: %s: %w", clip(fmt.Sprint(sim.Value.Err)), anchor.ErrRefused)
	}
	return tx, l.Value.LastValid, err
}

// probe asks whether a memo program is there and can be run.
func probe(ctx context.Context, c *rpc.Client, memo solana.PublicKey) error {
	type account struct {
		Executable bool `json:"executable"`
	}
	a, err := call[inContext[account]](ctx, c, "getAccountInfo", memo.String(), map[string]any{
		"commitment": rpc.CommitmentConfirmed, "encoding": "base64", "dataSlice": map[string]int{"offset": 0, "length": 0},
	})
	switch {
	case err != nil:
		return err
	case a.Value == nil && a.Context.Slot == 0:
		return fmt.Errorf("no account in the answer: %w", anchor.ErrUnavailable)
	case a.Value == nil || !a.Value.Executable:
		return fmt.Errorf("memo program %s is not there: name the right one with --memo-program: %w", memo, anchor.ErrRefused)
	}
	return nil
}

// unsigned makes a transaction with room for its signature, and its text for a simulation.
func (k *Chain) unsigned(hash solana.Hash, ins ...solana.Instruction) (*solana.Transaction, string, error) {
	tx, err := solana.NewTransaction(ins, hash, solana.TransactionPayer(k.cfg.Wallet.PublicKey()))
	if err != nil {
		return nil, "", err
	}
	tx.Signatures = make([]solana.Signature, 1)
	raw, err := tx.MarshalBinary()
	tx.Signatures = nil
	if err == nil && len(raw) > maxTransaction {
		err = fmt.Errorf("transaction of %d bytes, at most %d: %w", len(raw), maxTransaction, anchor.ErrRefused)
	}
	return tx, base64.StdEncoding.EncodeToString(raw), err
}

// price asks the endpoints for the fee. It is not above what more than half of those that
// answer say, and as many as have to agree: whoever says less alone does not get past the
// cap. And as many have to know the blockhash, or the transaction would go nowhere.
func (k *Chain) price(ctx context.Context, tx *solana.Transaction) (uint64, error) {
	msg, err := tx.Message.MarshalBinary()
	if err != nil {
		return 0, err
	}
	text := base64.StdEncoding.EncodeToString(msg)
	all := make([]*inContext[uint64], k.cfg.Endpoints.Len())
	errs := k.cfg.Endpoints.Some(ctx, k.cfg.Agree, func(ctx context.Context, i int, e *endpoint.Endpoint) error {
		return k.on(func(ctx context.Context, c *rpc.Client) error {
			f, err := call[inContext[uint64]](ctx, c, "getFeeForMessage", text, at(rpc.CommitmentConfirmed))
			if err == nil {
				all[i] = &f
			}
			return err
		})(ctx, e)
	})
	answered := 0
	var fees []uint64
	for _, f := range all {
		if f != nil {
			answered++
			if f.Value != nil {
				fees = append(fees, *f.Value)
			}
		}
	}
	need := max(min(k.cfg.Agree, answered), answered/2+1)
	switch {
	case answered == 0:
		return 0, fmt.Errorf("fee: %w: %w", anchor.ErrUnavailable, errors.Join(errs...))
	case len(fees) < need:
		return 0, fmt.Errorf("fee: %d of %d endpoints know blockhash %s: %w", len(fees), answered, tx.Message.RecentBlockhash, anchor.ErrDisagree)
	}
	slices.Sort(fees)
	fee := fees[need-1]
	if fee > k.cfg.MaxFee {
		return 0, fmt.Errorf("fee is %d ROE, at most %d: %w", fee, k.cfg.MaxFee, anchor.ErrFee)
	}
	return fee, nil
}
