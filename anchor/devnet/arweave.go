package devnet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

// ArweaveOptions are those of an Arweave gateway.
type ArweaveOptions struct {
	Options
	// Port to listen on; 0 is any that is free.
	Port int
}

// An Arweave is a running gateway. Blocks are mined by Mine only.
type Arweave struct {
	*server
	URL string
	dir string
}

// StartArweave starts a gateway with an empty database and returns when it answers.
func StartArweave(ctx context.Context, o ArweaveOptions) (*Arweave, error) {
	dir, err := os.MkdirTemp(o.Temp, "scale-arlocal-")
	if err != nil {
		return nil, err
	}
	s, words, err := start(ctx, o.Options, "arlocal", "start.cjs", []string{strconv.Itoa(o.Port), dir})
	if err != nil {
		_ = os.RemoveAll(dir) // the other error says more
		return nil, err
	}
	return &Arweave{server: s, URL: words[0], dir: dir}, nil
}

// Close stops the gateway and removes its database.
func (a *Arweave) Close() {
	a.server.Close()
	_ = os.RemoveAll(a.dir) // temporary; nobody could do better
}

// Mint pays winston to an address, at once.
func (a *Arweave) Mint(ctx context.Context, address string, winston uint64) error {
	return a.get(ctx, "/mint/"+address+"/"+strconv.FormatUint(winston, 10))
}

// Mine makes n blocks; the first one takes what waits.
func (a *Arweave) Mine(ctx context.Context, n int) error {
	return a.get(ctx, "/mine/"+strconv.Itoa(n))
}

// Forget takes a transaction out of its block, as when the fork is dropped that had it.
func (a *Arweave) Forget(ctx context.Context, id string) error {
	return a.do(ctx, http.MethodDelete, "/tx/"+id)
}

func (a *Arweave) get(ctx context.Context, path string) error {
	return a.do(ctx, http.MethodGet, path)
}

func (a *Arweave) do(ctx context.Context, method, path string) error {
	req, err := http.NewRequestWithContext(ctx, method, a.URL+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read only
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, b)
	}
	return nil
}
