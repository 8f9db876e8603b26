package devnet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// K2Options are the rules of a K2-like chain; zero values are those of the server.
type K2Options struct {
	Options
	// Port to listen on; 0 is any that is free.
	Port int
	// Slot is how long one takes; 0 is that only Advance opens them.
	Slot time.Duration
	// Confirmed and Finalized are how many slots are on top of one that is. 0 is 2 and 32.
	Confirmed, Finalized int
	// Valid is for how many slots a blockhash is good; 0 is 150.
	Valid int
	// Fee is what a signature costs in ROE; 0 is 500,000.
	Fee uint64
}

// A K2 is a running chain.
type K2 struct {
	*server
	URL     string
	Genesis string // its hash, in base58; another one at each start
}

// StartK2 starts a chain and returns when it answers.
func StartK2(ctx context.Context, o K2Options) (*K2, error) {
	args := []string{fmt.Sprintf("slot=%d", o.Slot.Milliseconds())}
	for name, v := range map[string]uint64{
		"port": uint64(o.Port), "confirmed": uint64(o.Confirmed), "finalized": uint64(o.Finalized), "valid": uint64(o.Valid), "fee": o.Fee,
	} {
		if v > 0 {
			args = append(args, name+"="+strconv.FormatUint(v, 10))
		}
	}
	s, words, err := start(ctx, o.Options, "k2", "server.mjs", args, "RUST_LOG=error")
	if err != nil {
		return nil, err
	}
	if len(words) != 3 {
		s.Close()
		return nil, fmt.Errorf("k2 server is ready with %q", words)
	}
	return &K2{server: s, URL: words[0], Genesis: words[2]}, nil
}

// Call calls a method of JSON-RPC and decodes its result into out, which may be nil.
func (k *K2) Call(ctx context.Context, out any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read only
	var answer struct {
		Result json.RawMessage
		Error  *struct {
			Code    int
			Message string
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %s: %w", method, resp.Status, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s (%d)", method, answer.Error.Message, answer.Error.Code)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, out)
}

// Advance opens n slots.
func (k *K2) Advance(ctx context.Context, n int) error {
	return k.Call(ctx, nil, "svm_advanceSlots", n)
}

// Airdrop pays ROE to an address, at once.
func (k *K2) Airdrop(ctx context.Context, address string, amount uint64) error {
	return k.Call(ctx, nil, "requestAirdrop", address, amount)
}

// Transactions returns the signatures of all transactions that an address has signed or
// is named in and that are in a block, the newest first.
func (k *K2) Transactions(ctx context.Context, address string) ([]string, error) {
	var list []struct{ Signature string }
	err := k.Call(ctx, &list, "getSignaturesForAddress", address, map[string]any{"commitment": "processed"})
	var out []string
	for _, s := range list {
		out = append(out, s.Signature)
	}
	return out, err
}
