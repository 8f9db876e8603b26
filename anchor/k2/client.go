package k2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"
	"github.com/gagliardetto/solana-go/rpc/jsonrpc"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// client returns the JSON-RPC client of an endpoint.
func client(e *endpoint.Endpoint) *rpc.Client {
	return rpc.NewWithCustomRPCClient(jsonrpc.NewClientWithOpts(e.URL(""), &jsonrpc.RPCClientOpts{HTTPClient: whole{e.HTTP()}}))
}

// maxAnswer is the longest answer that is read, in bytes. Most have a few hundred; a page
// of history, with memos, 100 KiB.
const maxAnswer = 256 << 10

// whole reads answers to their end before they are parsed: the library's parser takes a
// second for a megabyte of a string that does not end.
type whole struct{ *http.Client }

func (w whole) Do(r *http.Request) (*http.Response, error) {
	resp, err := w.Client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // read only
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("answer of more than %d bytes: %w", maxAnswer, anchor.ErrUnavailable)
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, nil
}

// call calls a method. The library's own functions take an answer without a result for
// an empty one, or follow a nil pointer: here it is an error.
func call[T any](ctx context.Context, c *rpc.Client, method string, params ...any) (T, error) {
	var out *T
	if err := c.RPCCallForInto(ctx, &out, method, params); err != nil {
		return *new(T), answer(err)
	}
	if out == nil {
		return *new(T), fmt.Errorf("%s: empty answer: %w", method, anchor.ErrUnavailable)
	}
	return *out, nil
}

// inContext is a result that says of which slot it is.
type inContext[T any] struct {
	Context struct {
		Slot uint64 `json:"slot"`
	} `json:"context"`
	Value *T `json:"value"`
}

// at is the last parameter of a call.
func at(c rpc.CommitmentType) map[string]any { return map[string]any{"commitment": c} }

func genesisHash(ctx context.Context, c *rpc.Client) (solana.Hash, error) {
	s, err := call[string](ctx, c, "getGenesisHash")
	if err != nil {
		return solana.Hash{}, err
	}
	h, err := solana.HashFromBase58(s)
	if err != nil {
		return solana.Hash{}, fmt.Errorf("genesis hash %q: %w", clip(s), anchor.ErrUnavailable)
	}
	return h, nil
}

// balance returns what an account holds in ROE.
func balance(ctx context.Context, c *rpc.Client, key solana.PublicKey) (uint64, error) {
	b, err := call[inContext[uint64]](ctx, c, "getBalance", key.String(), at(rpc.CommitmentConfirmed))
	if err != nil {
		return 0, err
	}
	if b.Value == nil {
		return 0, fmt.Errorf("no balance in the answer: %w", anchor.ErrUnavailable)
	}
	return *b.Value, nil
}

// Error codes of the validator.
const (
	codeMethodNotFound = -32601
	codeInvalidParams  = -32602
	codeCleanedUp      = -32001
	codePreflight      = -32002
	codeSignature      = -32003
	codeSkipped        = -32007
	codeSkippedLong    = -32009
	codeNoHistory      = -32011
)

// code returns the code of a JSON-RPC error, 0 for any other.
func code(err error) int {
	var r *jsonrpc.RPCError
	if errors.As(err, &r) {
		return r.Code
	}
	return 0
}

// answer gives an error of a call its class. What is not a clear no is unknown.
func answer(err error) error {
	var r *jsonrpc.RPCError
	if !errors.As(err, &r) {
		return fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	class := anchor.ErrUnavailable
	switch r.Code {
	case codeInvalidParams, codePreflight, codeSignature:
		class = anchor.ErrRefused
	}
	return fmt.Errorf("%w: %w", class, &rpcError{r})
}

// rpcError shows a JSON-RPC error in one short line.
type rpcError struct{ *jsonrpc.RPCError }

func (e *rpcError) Error() string { return fmt.Sprintf("%s (%d)", clip(e.Message), e.Code) }
func (e *rpcError) Unwrap() error { return e.RPCError }

func clip(s string) string {
	if len(s) > 200 {
		return s[:200]
	}
	return s
}

// preflight returns the error that the endpoint's simulation of a transaction gave.
func preflight(err error) string {
	var r *jsonrpc.RPCError
	if errors.As(err, &r) && r.Code == codePreflight {
		if m, ok := r.Data.(map[string]any); ok {
			return fmt.Sprint(m["err"])
		}
	}
	return ""
}

// A block is what is kept of one.
type block struct {
	hash string
	time int64 // seconds since 1970, 0 if nobody says
}

// blockAt asks for the block of a slot. An endpoint that keeps no blocks, or has not kept
// this one, is asked for the time alone; not to have that either is no error.
func blockAt(ctx context.Context, c *rpc.Client, slot uint64, level rpc.CommitmentType) (block, error) {
	type result struct {
		Blockhash string `json:"blockhash"`
		BlockTime *int64 `json:"blockTime"`
	}
	b, err := call[result](ctx, c, "getBlock", slot, map[string]any{
		"encoding": "base64", "transactionDetails": "none", "rewards": false, "commitment": level, "maxSupportedTransactionVersion": 0,
	})
	if err == nil {
		if _, err := solana.HashFromBase58(b.Blockhash); err != nil {
			return block{}, fmt.Errorf("block hash %q: %w", clip(b.Blockhash), anchor.ErrUnavailable)
		}
		out := block{hash: b.Blockhash}
		if b.BlockTime != nil {
			out.time = *b.BlockTime
		}
		return out, nil
	}
	if !notKept(err) {
		return block{}, err
	}
	t, err := call[int64](ctx, c, "getBlockTime", slot)
	if err != nil && !notKept(err) {
		return block{}, err
	}
	return block{time: t}, nil
}

func notKept(err error) bool {
	switch code(err) {
	case codeMethodNotFound, codeCleanedUp, codeSkipped, codeSkippedLong, codeNoHistory:
		return true
	}
	return false
}
