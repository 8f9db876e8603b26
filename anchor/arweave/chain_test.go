package arweave

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/anchor/endpoint"
)

func pool(t testing.TB, urls ...string) *endpoint.Pool {
	t.Helper()
	p, err := endpoint.New(urls, endpoint.Options{Call: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

const localNetwork = "arlocal.N.1"

func chain(t testing.TB, c Config) *Chain {
	t.Helper()
	if c.Network == "" {
		c.Network = localNetwork
	}
	c.Wallet = testWallet()
	out, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// job returns a job whose body is n bytes in which no chunk comes twice.
func job(n int, seed byte) anchor.Job {
	body := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(body)
	return anchor.Job{Origin: "log.example", Size: 7, Body: body, Checkpoint: []byte("log.example\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— log.example signature\n")}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestGateway goes the whole way on a real gateway, one that mines on demand.
func TestGateway(t *testing.T) {
	ctx := t.Context()
	gw, err := devnet.StartArweave(ctx, devnet.ArweaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gw.Close)
	p := pool(t, gw.URL)
	mine := func(t *testing.T, n int) {
		t.Helper()
		if err := gw.Mine(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	phase := func(t *testing.T, c *Chain, tx anchor.Tx, want anchor.Phase) anchor.Status {
		t.Helper()
		st, err := c.Status(ctx, tx)
		if err != nil || st.Phase != want || st.Missing {
			t.Fatalf("phase %d (%+v, %v), want %d", st.Phase, st, err, want)
		}
		return st
	}
	c := chain(t, Config{Endpoints: p, Confirmations: 3})

	if n := must(Network(ctx, p))(t); n != localNetwork {
		t.Errorf("network %q", n)
	}
	if _, err := chain(t, Config{Endpoints: p, Network: MainNetwork}).Prepare(ctx, job(10, 1)); !errors.Is(err, anchor.ErrCluster) {
		t.Errorf("on another network: %v", err)
	}
	if _, err := c.Prepare(ctx, job(10, 1)); !errors.Is(err, anchor.ErrFunds) {
		t.Errorf("without money: %v", err)
	}
	if err := gw.Mint(ctx, testWallet().Address(), 1e15); err != nil {
		t.Fatal(err)
	}
	if _, err := chain(t, Config{Endpoints: p, MaxFee: 1000}).Prepare(ctx, job(5000, 1)); !errors.Is(err, anchor.ErrFee) {
		t.Errorf("above the cap: %v", err)
	}
	if b := must(c.Balance(ctx))(t); b.Units != 1e15 || b.Price == 0 || b.Anchors() < 1 || b.Address != testWallet().Address() {
		t.Errorf("balance %+v", b)
	}

	for name, size := range map[string]int{"one chunk": 1000, "one whole chunk": 262144, "chunks": 1_500_001} {
		t.Run(name, func(t *testing.T) {
			j := job(size, byte(size))
			tx := must(c.Prepare(ctx, j))(t)
			phase(t, c, tx, anchor.Absent)
			for range 2 { // the second time is harmless
				if err := c.Send(ctx, tx, j.Body); err != nil {
					t.Fatal(err)
				}
			}
			phase(t, c, tx, anchor.Waiting)
			mine(t, 1)
			phase(t, c, tx, anchor.Included)
			if _, err := (Observer{Endpoints: p, Confirmations: 3}).Confirm(ctx, anchor.Receipt{Raw: tx.Raw, Network: localNetwork}); !errors.Is(err, anchor.ErrNotFinal) {
				t.Errorf("before it is final: %v", err)
			}
			mine(t, 3)
			r := phase(t, c, tx, anchor.Settled).Receipt
			if r.Chain != Name || !r.Final || r.Network != localNetwork || r.Block == "" || r.Time == 0 || r.Depth < 3 || !bytes.Equal(r.Raw, tx.Raw) {
				t.Errorf("receipt %+v", r)
			}
			a := must(Verifier{}.Open(r))(t)
			if a.ID != tx.ID || !bytes.Equal(a.Checkpoint, j.Checkpoint) || a.Signer != testWallet().Address() || a.DataSize != int64(size) {
				t.Errorf("opens as %+v", a)
			}
			got := must(Observer{Endpoints: p, Network: localNetwork, Confirmations: 3}.Confirm(ctx, r))(t)
			if got.Height != r.Height || got.Block != r.Block || got.Time.Unix() != r.Time || !got.Final || got.Asked != 1 {
				t.Errorf("confirmed %+v", got)
			}
			h, body, err := Fetch(ctx, p, tx.ID, 2<<20)
			if err != nil || !bytes.Equal(body, j.Body) || !bytes.Equal(h.Raw, tx.Raw) || h.Origin != j.Origin {
				t.Errorf("fetched %d bytes, %v", len(body), err)
			}
			// In chunks, as from a node that serves nothing else.
			if b, err := readChunks(ctx, p.Endpoints()[0], h); err != nil || !bytes.Equal(b, j.Body) {
				if name != "chunks" { // which were sent twice, and have moved here by that
					t.Errorf("read %d bytes in chunks, %v", len(b), err)
				}
			}
			if _, _, err := Fetch(ctx, p, tx.ID, int64(size)-1); !errors.Is(err, anchor.ErrForged) {
				t.Errorf("a body above the limit: %v", err)
			}
			for name, r := range map[string]anchor.Receipt{
				"network": {Raw: tx.Raw, Network: MainNetwork},
				"height":  {Raw: tx.Raw, Network: r.Network, Final: true, Height: r.Height + 1, Block: r.Block, Time: r.Time},
				"block":   {Raw: tx.Raw, Network: r.Network, Final: true, Height: r.Height, Block: "AAAA", Time: r.Time},
				"time":    {Raw: tx.Raw, Network: r.Network, Final: true, Height: r.Height, Block: r.Block, Time: r.Time - 1},
			} {
				if _, err := (Observer{Endpoints: p, Confirmations: 3}).Confirm(ctx, r); !errors.Is(err, anchor.ErrForged) {
					t.Errorf("a receipt with another %s: %v", name, err)
				}
			}
		})
	}

	t.Run("found by its tags", func(t *testing.T) {
		q := `{"query":"{transactions(tags:[{name:\"App-Name\",values:[\"SCALE\"]},{name:\"Origin\",values:[\"log.example\"]}]){edges{node{id tags{name value}}}}}"}`
		req := must(http.NewRequestWithContext(ctx, http.MethodPost, gw.URL+"/graphql", strings.NewReader(q)))(t)
		req.Header.Set("Content-Type", "application/json")
		resp := must(http.DefaultClient.Do(req))(t)
		defer resp.Body.Close()
		var out struct {
			Data struct {
				Transactions struct {
					Edges []struct {
						Node struct {
							Tags []struct{ Name, Value string }
						}
					}
				}
			}
		}
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		edges := out.Data.Transactions.Edges
		if len(edges) != 3 {
			t.Fatalf("%d transactions", len(edges))
		}
		tags := edges[0].Node.Tags
		if len(tags) != 4 || tags[3].Name != "Checkpoint" || tags[3].Value != string(job(1, 1).Checkpoint) {
			t.Errorf("tags %+v", tags)
		}
	})

	t.Run("falls out", func(t *testing.T) {
		j := job(2000, 9)
		tx := must(c.Prepare(ctx, j))(t)
		if err := c.Send(ctx, tx, j.Body); err != nil {
			t.Fatal(err)
		}
		mine(t, 1)
		r := phase(t, c, tx, anchor.Included).Receipt
		if err := gw.Forget(ctx, tx.ID); err != nil {
			t.Fatal(err)
		}
		phase(t, c, tx, anchor.Absent)
		if _, err := (Observer{Endpoints: p}).Confirm(ctx, r); !errors.Is(err, anchor.ErrNotFinal) || !strings.Contains(err.Error(), "dropped out") {
			t.Errorf("what has dropped out: %v", err)
		}
		if _, err := FetchHeader(ctx, p, tx.ID); !errors.Is(err, anchor.ErrNotFinal) {
			t.Errorf("what has dropped out is fetched: %v", err)
		}
		if err := c.Send(ctx, tx, j.Body); err != nil {
			t.Fatal(err)
		}
		mine(t, 4)
		phase(t, c, tx, anchor.Settled)
	})

	t.Run("never sent", func(t *testing.T) {
		j := job(2000, 10)
		tx := must(c.Prepare(ctx, j))(t)
		mine(t, anchorLife+forkDepth)
		phase(t, c, tx, anchor.Absent)
		mine(t, 1)
		phase(t, c, tx, anchor.Dead)
	})

	t.Run("another body", func(t *testing.T) {
		tx := must(c.Prepare(ctx, job(2000, 11)))(t)
		if err := c.Send(ctx, tx, job(2000, 12).Body); err == nil {
			t.Error("another body is sent")
		}
	})

	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := c.Status(ctx, anchor.Tx{ID: encode(make([]byte, 32))}); err == nil {
			t.Error("answers")
		}
	})
}
