package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/dag/ledger"
)

// localChains are both chains of the local network, with blocks that come by themselves.
type localChains struct {
	k2      *devnet.K2
	arweave *devnet.Arweave
	jwk     []byte // of a wallet with money; making one takes seconds
	address string // of that wallet
}

// startChains starts both chains for one test.
func startChains(t *testing.T) *localChains {
	t.Helper()
	ctx := t.Context()
	c := &localChains{}
	var err error
	if c.k2, err = devnet.StartK2(ctx, devnet.K2Options{Slot: 20 * time.Millisecond, Confirmed: 1, Finalized: 4}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.k2.Close)
	if c.arweave, err = devnet.StartArweave(ctx, devnet.ArweaveOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.arweave.Close)
	w, err := arweave.NewWallet()
	if err != nil {
		t.Fatal(err)
	}
	c.jwk, c.address = w.JWK(), w.Address()
	if err := c.arweave.Mint(ctx, c.address, 1e18); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var mining sync.WaitGroup
	mining.Go(func() {
		for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; {
			select {
			case <-tick.C:
				if err := c.arweave.Mine(ctx, 1); err != nil && ctx.Err() == nil {
					t.Errorf("arweave: %v", err)
					return
				}
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() { stop(); mining.Wait() })
	return c
}

// wallet writes a K2 wallet that has money, and returns its address.
func (c *localChains) wallet(ctx context.Context, file string) (string, error) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	ints := make([]int, len(key))
	for i, b := range key {
		ints[i] = int(b)
	}
	b, err := json.Marshal(ints)
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	address := ledger.CuratorKey(public).String()
	if err == nil {
		err = c.k2.Airdrop(ctx, address, 1e9)
	}
	return address, err
}

// TestAnchorScript runs testdata/anchor against local chains: $K2 and $GATEWAY, with the
// wallets k2.json, whose address is $WALLET, and arweave.json.
func TestAnchorScript(t *testing.T) {
	c := startChains(t)
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: filepath.Join("testdata", "anchor"),
			Setup: func(e *testscript.Env) error {
				e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
				e.Setenv("SCALE_STORE", filepath.Join(e.WorkDir, "store"))
				e.Values[scriptNodeKey{}] = &scriptNode{}
				address, err := c.wallet(t.Context(), filepath.Join(e.WorkDir, "k2.json"))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(e.WorkDir, "arweave.json"), c.jwk, 0o600); err != nil {
					return err
				}
				for name, v := range map[string]string{"K2": c.k2.URL, "GENESIS": c.k2.Genesis, "GATEWAY": c.arweave.URL, "WALLET": address, "ARWALLET": c.address} {
					e.Setenv(name, v)
				}
				return os.Mkdir(filepath.Join(e.WorkDir, "home"), 0o755)
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"exits": cmdExits, "field": cmdField, "poke": cmdPoke, "node": cmdNode, "nodeends": cmdNodeEnds, "owned": cmdOwned,
			},
			RequireUniqueNames: true,
		})
	})
	t.Run("readme", func(t *testing.T) { readmeAnchors(t, c) })
}

// readmeAnchors runs the README's section on anchors, on these chains.
func readmeAnchors(t *testing.T, c *localChains) {
	dir := t.TempDir()
	if _, err := c.wallet(t.Context(), filepath.Join(dir, "k2.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "arweave.json"), c.jwk, 0o600); err != nil {
		t.Fatal(err)
	}
	lines := append([]string{"mkdir photos; echo x > photos/a.jpg; scale init > log.vkey; scale put photos"}, fenced(t, "console")...)
	text := strings.NewReplacer("https://mainnet.koii.network", c.k2.URL, "https://arweave.net", c.arweave.URL).Replace(strings.Join(lines, "\n"))
	cmd := exec.Command("bash", "-euxo", "pipefail", "-c", text)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "SCALE_STORE=" + filepath.Join(dir, "store")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"final        2 of 2 entries", "0.9995 KOII", "existed before 20", "K2 slot", "Arweave block", "restored     2 entries", "missing      :1  photos@1"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

// owned waits until a process that was started beside the script owns the store.
func cmdOwned(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: owned")
	}
	socket := filepath.Join(ts.Getenv("SCALE_STORE"), "node.sock")
	for end := time.Now().Add(patient); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return
		} else if time.Now().After(end) {
			ts.Fatalf("nobody owns the store: %v", err)
		}
	}
}
