package arweave

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// A reply is an answer whose status says that it is one: below 300, or 4xx.
type reply struct {
	code int
	body []byte
}

func (r reply) ok() bool { return r.code >= 200 && r.code < 300 }

// words returns what a reply says, for people.
func (r reply) words() string {
	s := strings.ToValidUTF8(string(bytes.TrimSpace(r.body)), "")
	if len(s) > 200 {
		s = s[:200]
	}
	if s == "" {
		s = http.StatusText(r.code)
	}
	return fmt.Sprintf("%s (%d)", s, r.code)
}

// unusable is the error of a reply that says nothing about what was asked.
func (r reply) unusable(what string) error {
	return fmt.Errorf("%s: %s: %w", what, r.words(), anchor.ErrUnavailable)
}

func call(ctx context.Context, e *endpoint.Endpoint, method, path string, body []byte) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.URL(path), bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := e.HTTP().Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, b}, err
}

func get(ctx context.Context, e *endpoint.Endpoint, path string) (reply, error) {
	return call(ctx, e, http.MethodGet, path, nil)
}

// getJSON fills in v from an answer that has to be 200.
func getJSON(ctx context.Context, e *endpoint.Endpoint, path string, v any) error {
	r, err := get(ctx, e, path)
	switch {
	case err != nil:
		return err
	case r.code != http.StatusOK:
		return r.unusable(path)
	}
	if err := json.Unmarshal(r.body, v); err != nil {
		return fmt.Errorf("%s: %w: %w", path, anchor.ErrUnavailable, err)
	}
	return nil
}

// A node's own view of its network.
type network struct {
	Network string `json:"network"`
	Height  uint64 `json:"height"`
}

// maxNetwork bounds a network's name: a receipt holds it.
const maxNetwork = 128

// info asks for network and height; want, if not empty, is which network it has to be.
func info(ctx context.Context, e *endpoint.Endpoint, want string) (network, error) {
	var n network
	if err := getJSON(ctx, e, "/info", &n); err != nil {
		return n, err
	}
	switch {
	case n.Network == "" || len(n.Network) > maxNetwork:
		return n, fmt.Errorf("/info names no network: %w", anchor.ErrUnavailable)
	case want != "" && n.Network != want:
		return n, fmt.Errorf("its network is %q, not %q: %w", n.Network, want, anchor.ErrCluster)
	case n.Height > 1<<40:
		return n, fmt.Errorf("/info: height %d: %w", n.Height, anchor.ErrUnavailable)
	}
	return n, nil
}

// plain gets a short text.
func plain(ctx context.Context, e *endpoint.Endpoint, path string) (string, error) {
	r, err := get(ctx, e, path)
	switch {
	case err != nil:
		return "", err
	case r.code != http.StatusOK || len(r.body) > 128:
		return "", r.unusable(path)
	}
	return strings.TrimSpace(string(r.body)), nil
}

func lastTx(ctx context.Context, e *endpoint.Endpoint) (string, error) {
	s, err := plain(ctx, e, "/tx_anchor")
	if err != nil {
		return "", err
	}
	if b, err := decode(s); err != nil || len(b) == 0 || len(b) > maxAnchor {
		return "", fmt.Errorf("/tx_anchor: %q is none: %w", s, anchor.ErrUnavailable)
	}
	return s, nil
}

func price(ctx context.Context, e *endpoint.Endpoint, size int) (uint64, error) {
	s, err := plain(ctx, e, "/price/"+strconv.Itoa(size))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("/price/%d: %q is none: %w", size, s, anchor.ErrUnavailable)
	}
	return n, nil
}

// balance returns winston; what is more than 63 bits hold, which all coins together are,
// as the most that they do.
func balance(ctx context.Context, e *endpoint.Endpoint, address string) (uint64, error) {
	const most = 1<<63 - 1
	s, err := plain(ctx, e, "/wallet/"+address+"/balance")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		return most, nil
	}
	if err != nil {
		if f, ferr := strconv.ParseFloat(s, 64); ferr == nil && f >= most { // 1e+21
			return most, nil
		}
		return 0, fmt.Errorf("/wallet/%s/balance: %q is none: %w", address, s, anchor.ErrUnavailable)
	}
	return n, nil
}

// A seat is where a transaction is, as one endpoint says.
type seat struct {
	who     string // the endpoint
	known   bool   // in a block or waiting for one
	mined   bool
	block   string
	at      uint64 // its height
	depth   uint64 // blocks with its own
	network network
}

// locate asks one endpoint where a transaction is. The height is asked first: what is
// absent then cannot have been in a block up to it, and no depth is more than it allows.
func locate(ctx context.Context, e *endpoint.Endpoint, id, want string) (seat, error) {
	n, err := info(ctx, e, want)
	if err != nil {
		return seat{}, err
	}
	s, err := status(ctx, e, id)
	s.network = n
	if s.mined {
		most := uint64(0)
		if n.Height >= s.at {
			most = n.Height - s.at + 1
		}
		s.depth = min(s.depth, most)
	}
	return s, err
}

// status asks one endpoint for a transaction. A node says 202 while it waits, others 200
// with the word "Pending".
func status(ctx context.Context, e *endpoint.Endpoint, id string) (seat, error) {
	path := "/tx/" + id + "/status"
	r, err := get(ctx, e, path)
	switch {
	case err != nil:
		return seat{}, err
	case r.code == http.StatusNotFound:
		return seat{}, nil
	case r.code == http.StatusAccepted, r.code == http.StatusOK && string(bytes.TrimSpace(r.body)) == "Pending":
		return seat{known: true}, nil
	case r.code != http.StatusOK:
		return seat{}, r.unusable(path)
	}
	var v struct {
		Height *int64 `json:"block_height"`
		Hash   string `json:"block_indep_hash"`
		Depth  *int64 `json:"number_of_confirmations"`
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		return seat{}, fmt.Errorf("%s: %w: %w", path, anchor.ErrUnavailable, err)
	}
	if v.Height == nil || v.Depth == nil || *v.Height < 0 || *v.Height > 1<<40 || !isHash(v.Hash) {
		return seat{}, r.unusable(path)
	}
	return seat{known: true, mined: true, block: v.Hash, at: uint64(*v.Height), depth: uint64(max(0, *v.Depth))}, nil
}

// isHash tells whether a text can be a block's hash: it becomes part of an address and of
// receipts.
func isHash(s string) bool {
	b, err := decode(s)
	return err == nil && len(b) > 0 && len(b) <= maxAnchor
}

// blockTime returns when a block was, from an endpoint whose block is the one that was
// meant and has the transaction, if it lists them.
func blockTime(ctx context.Context, e *endpoint.Endpoint, s seat, id string) (int64, error) {
	var b struct {
		Hash string   `json:"indep_hash"`
		Time int64    `json:"timestamp"`
		Txs  []string `json:"txs"`
	}
	path := "/block/hash/" + s.block
	if err := getJSON(ctx, e, path, &b); err != nil {
		return 0, err
	}
	switch {
	case b.Hash != s.block:
		return 0, fmt.Errorf("%s: the answer is block %q: %w", path, b.Hash, anchor.ErrUnavailable)
	// arlocal lists no ids, but other words.
	case b.Txs != nil && (len(b.Txs) == 0 || slices.ContainsFunc(b.Txs, isID)) && !slices.Contains(b.Txs, id):
		return 0, fmt.Errorf("%s: transaction %s is not in it: %w", path, id, anchor.ErrUnavailable)
	case b.Time <= 0:
		return 0, fmt.Errorf("%s: without a time: %w", path, anchor.ErrUnavailable)
	}
	return b.Time, nil
}
