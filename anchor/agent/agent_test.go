package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testKey = "[174,47,154,16,202,193,206,113,199,190,53,133,169,175,31,56,222,53,138,189,224,216,117,173,10,149,53,45,73,251,237,246,15,185,186,82,177,240,148,69,241,227,167,80,141,89,240,121,121,35,172,247,68,251,226,218,48,63,176,109,168,89,238,135]"

func openStore(t *testing.T) *store.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(t.Context(), dir, store.InitOptions{Origin: "agent.test"}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// offline is a configuration of a chain that nobody answers for.
func offline(t *testing.T) anchor.ChainConfig {
	t.Helper()
	wallet := filepath.Join(t.TempDir(), "id.json")
	if err := os.WriteFile(wallet, []byte(testKey), 0o600); err != nil {
		t.Fatal(err)
	}
	return anchor.ChainConfig{Chain: k2.Name, Endpoints: []string{"http://127.0.0.1:1"}, Wallet: wallet, Network: "11111111111111111111111111111111"}
}

func TestConfigure(t *testing.T) {
	s := openStore(t)
	a := New(s, Options{})
	defer a.Close()
	if _, _, err := a.Now(""); !errors.Is(err, anchor.ErrNoChain) {
		t.Errorf("without chains: %v", err)
	}
	c := offline(t)
	for what, change := range map[string]func(*anchor.ChainConfig){
		"network":       func(c *anchor.ChainConfig) { c.Network = "net" },
		"memo program":  func(c *anchor.ChainConfig) { c.MemoProgram = "memo" },
		"confirmations": func(c *anchor.ChainConfig) { c.Confirmations = 3 },
		"chain":         func(c *anchor.ChainConfig) { c.Chain = "doge" },
		"endpoint":      func(c *anchor.ChainConfig) { c.Endpoints = append(c.Endpoints, c.Endpoints...) },
		"arweave":       func(c *anchor.ChainConfig) { c.Chain, c.MemoProgram = arweave.Name, k2.DefaultMemoProgram },
	} {
		bad := c
		if change(&bad); a.Configure(bad, false) == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := a.Configure(c, true); !errors.Is(err, anchor.ErrNoChain) {
		t.Errorf("takes away what is not there: %v", err)
	}
	if err := a.Configure(c, false); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(s.Dir(), ConfigFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	again := New(s, Options{})
	defer again.Close()
	if cfg, err := again.Config(); err != nil || !reflect.DeepEqual(cfg, anchor.Config{c}) {
		t.Errorf("%+v, %v", cfg, err)
	}
	if chains, works, err := again.Chains(t.Context()); err != nil || works || len(chains) != 1 || chains[0].Published != 1 || chains[0].Backlog != 1 {
		t.Errorf("%+v, %t, %v", chains, works, err)
	}
	again.Start()
	if _, works, err := again.Chains(t.Context()); err != nil || !works {
		t.Errorf("%t, %v", works, err)
	}
	// What is configured while it works holds, also nothing.
	if err := again.Configure(c, true); err != nil {
		t.Fatal(err)
	}
	if chains, works, err := again.Chains(t.Context()); err != nil || !works || len(chains) != 0 {
		t.Errorf("%+v, %t, %v", chains, works, err)
	}
}

// A chain whose wallet has gone says so, and one that is down takes the demand.
func TestBrokenChain(t *testing.T) {
	s := openStore(t)
	c := offline(t)
	if err := WriteConfig(s.Dir(), anchor.Config{c}); err != nil {
		t.Fatal(err)
	}
	a := New(s, Options{})
	defer a.Close()
	if size, names, err := a.Now(""); err != nil || size != 1 || len(names) != 1 {
		t.Errorf("%d %v, %v", size, names, err)
	}
	if err := os.Remove(c.Wallet); err != nil {
		t.Fatal(err)
	}
	b := New(s, Options{})
	defer b.Close()
	b.Start()
	if chains, _, err := b.Chains(t.Context()); err != nil || !strings.Contains(chains[0].Failing, "no such file") {
		t.Errorf("%+v, %v", chains, err)
	}
	if _, _, err := b.Now(k2.Name); !errors.Is(err, anchor.ErrConfig) {
		t.Errorf("now: %v", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), ConfigFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := New(s, Options{})
	defer d.Close()
	if d.Start(); d.Configure(c, false) == nil {
		t.Error("a configuration that cannot be read was overwritten")
	}
	if _, err := d.Config(); !errors.Is(err, anchor.ErrConfig) {
		t.Errorf("%v", err)
	}
}

// Nobody waits for a slow watcher, who misses what was pushed out and never the newest.
func TestHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{}
		a.hub.init()
		sizes := make(chan int64, 2*hubRows)
		hold := make(chan struct{})
		go func() {
			defer close(sizes)
			for r, err := range a.Watch(context.Background(), "k2") {
				if err != nil {
					if !errors.Is(err, ErrStopped) {
						t.Error(err)
					}
					return
				}
				if r == nil {
					<-hold
					continue
				}
				sizes <- r.Size
			}
		}()
		synctest.Wait()
		for i := range int64(hubRows + 10) {
			a.hub.add(anchor.Row{Chain: "k2", Size: i + 1, Tx: anchor.Tx{Raw: []byte("raw")}})
		}
		a.hub.add(anchor.Row{Chain: "arweave", Size: 7})
		close(hold)
		synctest.Wait()
		if n := len(sizes); n != hubRows-1 {
			t.Errorf("%d transitions, want %d", n, hubRows-1)
		}
		if first := <-sizes; first != 12 {
			t.Errorf("the first is of %d entries", first)
		}
		a.Close()
		last := int64(0)
		for last = range sizes {
		}
		if last != hubRows+10 {
			t.Errorf("the last is of %d entries", last)
		}
	})
}
