package k2

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// computeBudget is the program of the one instruction that may stand before the memo.
var computeBudget = solana.MustPublicKeyFromBase58("ComputeBudget111111111111111111111111111111")

// Verifier checks receipts offline. Which program got the memo does not matter: that
// the log signed the checkpoint in it does.
type Verifier struct{}

// Name implements anchor.Verifier.
func (Verifier) Name() string { return Name }

// Open implements anchor.Verifier.
func (Verifier) Open(r anchor.Receipt) (anchor.Anchored, error) {
	forged := func(format string, a ...any) (anchor.Anchored, error) {
		return anchor.Anchored{}, fmt.Errorf("K2 transaction: %s: %w", fmt.Sprintf(format, a...), anchor.ErrForged)
	}
	if len(r.Raw) == 0 || len(r.Raw) > maxTransaction {
		return forged("%d bytes", len(r.Raw))
	}
	tx, err := decode(r.Raw)
	if err != nil {
		return forged("%v", err)
	}
	again, err := tx.MarshalBinary()
	if err != nil || !bytes.Equal(again, r.Raw) {
		return forged("not in its one form")
	}
	m := &tx.Message
	if m.IsVersioned() {
		return forged("not a legacy transaction")
	}
	// A transaction is named by its first signature; more than one signer is not ours.
	if len(tx.Signatures) != 1 || m.Header.NumRequiredSignatures != 1 || len(m.AccountKeys) == 0 {
		return forged("%d signatures", len(tx.Signatures))
	}
	if err := tx.VerifySignatures(); err != nil {
		return forged("signature: %v", err)
	}
	var memo []byte
	for _, in := range m.Instructions {
		p, err := m.Program(in.ProgramIDIndex)
		if err != nil {
			return forged("%v", err)
		}
		switch {
		case p == computeBudget && memo == nil:
		case memo != nil || len(in.Data) == 0:
			return forged("%d instructions", len(m.Instructions))
		default:
			memo = in.Data
		}
	}
	if memo == nil {
		return forged("no memo")
	}
	return anchor.Anchored{ID: tx.Signatures[0].String(), Checkpoint: memo, Signer: m.AccountKeys[0].String()}, nil
}

// decode parses a transaction. The library is not written for hostile bytes.
func decode(raw []byte) (tx *solana.Transaction, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot be parsed: %v", p)
		}
	}()
	return solana.TransactionFromBytes(raw)
}

// An Observer confirms receipts by endpoints that the verifier of a proof trusts.
type Observer struct {
	Verifier
	// Endpoints all have to answer, and alike.
	Endpoints *endpoint.Pool
	// Genesis, if set, is the hash of the network that the verifier means.
	Genesis string
}

// Confirm implements anchor.Observer. A transaction's signature covers all of it, so
// its status is enough: nobody needs to return its bytes.
func (o Observer) Confirm(ctx context.Context, r anchor.Receipt) (anchor.Confirmed, error) {
	a, err := o.Open(r)
	if err != nil {
		return anchor.Confirmed{}, err
	}
	sig, err := solana.SignatureFromBase58(a.ID)
	if err != nil {
		return anchor.Confirmed{}, err
	}
	type answered struct {
		said
		block
		genesis solana.Hash
	}
	all := make([]answered, o.Endpoints.Len())
	errs := o.Endpoints.All(ctx, func(ctx context.Context, i int, e *endpoint.Endpoint) (err error) {
		c, a := client(e), &all[i]
		if a.genesis, err = genesisHash(ctx, c); err != nil {
			return err
		}
		if a.said, err = ask(ctx, c, sig); err != nil || !a.found || a.level != rpc.ConfirmationStatusFinalized {
			return err
		}
		a.block, err = blockAt(ctx, c, a.slot, rpc.CommitmentFinalized)
		return err
	})
	if err := errors.Join(errs...); err != nil {
		return anchor.Confirmed{}, fmt.Errorf("K2: %w: %w", anchor.ErrUnavailable, err)
	}
	first := all[0]
	for i, b := range all {
		e := o.Endpoints.Endpoints()[i]
		if o.Genesis != "" && b.genesis.String() != o.Genesis {
			return anchor.Confirmed{}, fmt.Errorf("%s is of the network %s, not %s: %w: %w", e, b.genesis, o.Genesis, anchor.ErrUnavailable, anchor.ErrCluster)
		}
		alike := b.genesis == first.genesis && b.found == first.found && b.level == first.level && b.slot == first.slot && b.failed == first.failed
		// Not to keep blocks is no contradiction.
		alike = alike && (b.hash == "" || first.hash == "" || b.hash == first.hash) && (b.time == 0 || first.time == 0 || b.time == first.time)
		if !alike {
			return anchor.Confirmed{}, fmt.Errorf("%s says otherwise than %s of transaction %s: %w", e, o.Endpoints.Endpoints()[0], a.ID, anchor.ErrDisagree)
		}
		first.hash, first.time = cmp.Or(first.hash, b.hash), cmp.Or(first.time, b.time)
	}
	c := anchor.Confirmed{Height: first.slot, Block: first.hash, Depth: first.depth, Asked: len(all)}
	switch {
	case r.Network != first.genesis.String():
		return c, fmt.Errorf("anchored on the network %s, the endpoints are of %s: %w", r.Network, first.genesis, anchor.ErrForged)
	case !first.found:
		return c, fmt.Errorf("no endpoint knows transaction %s: it never landed, or is older than their history: %w", a.ID, anchor.ErrNotFinal)
	case first.level != rpc.ConfirmationStatusFinalized:
		return c, fmt.Errorf("transaction %s is %s in slot %d: %w", a.ID, first.level, first.slot, anchor.ErrNotFinal)
	case first.failed != "":
		return c, fmt.Errorf("transaction %s failed: %s: %w", a.ID, first.failed, anchor.ErrForged)
	case first.time == 0:
		return c, fmt.Errorf("no endpoint says when slot %d was: %w", first.slot, anchor.ErrUnavailable)
	case r.Final && (r.Height != first.slot || r.Block != "" && first.hash != "" && r.Block != first.hash):
		return c, fmt.Errorf("the receipt says slot %d, block %s; the chain says slot %d, block %s: %w", r.Height, r.Block, first.slot, first.hash, anchor.ErrForged)
	}
	c.Final, c.Time = true, time.Unix(first.time, 0).UTC()
	return c, nil
}
