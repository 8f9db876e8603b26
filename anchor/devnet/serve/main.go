// Command serve runs both local chains in the foreground, with a wallet on each that has
// money, until it is interrupted. It is what "make devnet" starts.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/devnet"
)

const (
	koii = 100 * 1_000_000_000       // ROE
	ar   = 1_000 * 1_000_000_000_000 // winston
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "devnet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	k2Port := flag.Int("k2-port", 0, "port of the K2-like chain on 127.0.0.1; 0 is any that is free")
	arPort := flag.Int("arweave-port", 0, "port of the Arweave gateway on 127.0.0.1; 0 is any that is free")
	slot := flag.Duration("slot", 400*time.Millisecond, "time of a slot of K2")
	block := flag.Duration("block", 10*time.Second, "time of a block of Arweave")
	out := flag.String("out", "", "directory for the wallets and addresses; made if it is not there (default: a temporary one, removed at the end)")
	flag.Parse()
	if *slot < time.Millisecond || *block <= 0 {
		return errors.New("-slot and -block are times above a millisecond")
	}

	dir := *out
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "scale-devnet-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir) // temporary; nobody could do better
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}

	k, err := devnet.StartK2(ctx, devnet.K2Options{Port: *k2Port, Slot: *slot})
	if err != nil {
		return err
	}
	defer k.Close()
	a, err := devnet.StartArweave(ctx, devnet.ArweaveOptions{Port: *arPort})
	if err != nil {
		return err
	}
	defer a.Close()

	k2Wallet, err := koiiWallet(ctx, k, filepath.Join(dir, "k2-wallet.json"))
	if err != nil {
		return err
	}
	arWallet, err := arweaveWallet(ctx, a, filepath.Join(dir, "arweave-wallet.json"))
	if err != nil {
		return err
	}
	info := struct {
		K2      string `json:"k2_rpc"`
		Genesis string `json:"k2_genesis"`
		K2File  string `json:"k2_wallet"`
		Arweave string `json:"arweave_gateway"`
		ArFile  string `json:"arweave_wallet"`
	}{k.URL, k.Genesis, k2Wallet, a.URL, arWallet}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	// It is there under this name only when it is whole.
	path := filepath.Join(dir, "devnet.json")
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	fmt.Printf("%s\n", b)
	fmt.Fprintf(os.Stderr, `
Both chains are up, and the wallets have money. Anchor a store on them with

  scale anchor configure k2 --rpc %s --wallet %s
  scale anchor configure arweave --gateway %s --wallet %s --yes

Press Ctrl-C to stop them. Nothing of them is kept.
`, k.URL, k2Wallet, a.URL, arWallet)

	mine := time.NewTicker(*block)
	defer mine.Stop()
	for {
		select {
		case <-mine.C:
			if err := a.Mine(ctx, 1); err != nil && ctx.Err() == nil {
				return fmt.Errorf("arweave: %w", err)
			}
		case <-k.Done():
			return errors.New("the K2-like chain has ended by itself")
		case <-a.Done():
			return errors.New("the Arweave gateway has ended by itself")
		case <-ctx.Done():
			return nil
		}
	}
}

// koiiWallet writes a new key as koii-keygen does, and pays it.
func koiiWallet(ctx context.Context, k *devnet.K2, path string) (string, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	ints := make([]int, len(key))
	for i, c := range key {
		ints[i] = int(c)
	}
	b, err := json.Marshal(ints)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", err
	}
	return path, k.Airdrop(ctx, solana.PrivateKey(key).PublicKey().String(), koii)
}

// arweaveWallet writes a new JWK, and pays it.
func arweaveWallet(ctx context.Context, a *devnet.Arweave, path string) (string, error) {
	w, err := arweave.NewWallet()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, w.JWK(), 0o600); err != nil {
		return "", err
	}
	return path, a.Mint(ctx, w.Address(), ar)
}
