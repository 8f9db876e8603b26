package k2

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// historyPage is how many transactions are asked for at a time: some 300 bytes each.
const historyPage = 100

// Largest returns the size of the largest tree that size finds among the newest most
// transactions of a wallet on the network with that genesis hash; 0 for none. size is
// given what may be a checkpoint, and returns 0 for what is not. All endpoints are asked
// and have to answer: what one hides another may show.
func Largest(ctx context.Context, p *endpoint.Pool, genesis, wallet string, most int, size func(note []byte) int64) (int64, error) {
	if _, err := solana.PublicKeyFromBase58(wallet); err != nil {
		return 0, fmt.Errorf("%q is no K2 address: %w", wallet, err)
	}
	found := make([]int64, p.Len())
	errs := p.All(ctx, func(ctx context.Context, i int, e *endpoint.Endpoint) (err error) {
		c := client(e)
		h, err := genesisHash(ctx, c)
		if err != nil {
			return err
		}
		if h.String() != genesis {
			return fmt.Errorf("genesis hash is %s, not %s: %w", h, genesis, anchor.ErrCluster)
		}
		found[i], err = largest(ctx, c, wallet, most, size)
		return err
	})
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	top := int64(0)
	for _, n := range found {
		top = max(top, n)
	}
	return top, nil
}

func largest(ctx context.Context, c *rpc.Client, wallet string, most int, size func([]byte) int64) (top int64, err error) {
	type signature struct {
		Signature string `json:"signature"`
		Err       any    `json:"err"`
	}
	type transaction struct {
		Transaction []string `json:"transaction"`
	}
	before := ""
	for seen := 0; seen < most; {
		opt := map[string]any{"limit": historyPage, "commitment": rpc.CommitmentConfirmed}
		if before != "" {
			opt["before"] = before
		}
		list, err := call[[]signature](ctx, c, "getSignaturesForAddress", wallet, opt)
		if err != nil {
			return 0, err
		}
		if len(list) > historyPage {
			return 0, fmt.Errorf("%d transactions in place of %d: %w", len(list), historyPage, anchor.ErrUnavailable)
		}
		for _, s := range list {
			if before = s.Signature; s.Err != nil {
				continue
			}
			t, err := call[transaction](ctx, c, "getTransaction", s.Signature, map[string]any{
				"encoding": "base64", "commitment": rpc.CommitmentConfirmed, "maxSupportedTransactionVersion": 0,
			})
			if err != nil {
				return 0, fmt.Errorf("transaction %s: %w", clip(s.Signature), err)
			}
			if len(t.Transaction) == 0 {
				return 0, fmt.Errorf("transaction %s is empty: %w", clip(s.Signature), anchor.ErrUnavailable)
			}
			raw, err := base64.StdEncoding.DecodeString(t.Transaction[0])
			if err != nil {
				return 0, fmt.Errorf("transaction %s: %w: %w", clip(s.Signature), anchor.ErrUnavailable, err)
			}
			// What is none of ours, a payment for one, says nothing.
			if a, err := (Verifier{}).Open(anchor.Receipt{Raw: raw}); err == nil {
				top = max(top, size(a.Checkpoint))
			}
		}
		if seen += len(list); len(list) < historyPage {
			break
		}
	}
	return top, nil
}

// Address returns the address of the wallet in a file.
func Address(file string) (string, error) {
	k, err := ReadWallet(file)
	if err != nil {
		return "", err
	}
	return k.PublicKey().String(), nil
}
