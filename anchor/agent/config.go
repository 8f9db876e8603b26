package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/extension"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/store"
)

// ConfigFile is the configuration's file in the directory of a store.
const ConfigFile = "anchor.json"

// ReadConfig reads the configuration of the store in dir; there may be none.
func ReadConfig(dir string) (anchor.Config, error) {
	path := filepath.Join(dir, ConfigFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", anchor.ErrConfig, err)
	}
	defer f.Close() // read only
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file", anchor.ErrConfig, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, anchor.MaxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", anchor.ErrConfig, err)
	}
	c, err := anchor.ParseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range c {
		if err := checkChain(&c[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, nil
}

// WriteConfig puts the configuration of the store in dir in its place, durably.
func WriteConfig(dir string, c anchor.Config) error {
	b, err := c.Format()
	if err == nil {
		err = store.ReplaceFile(filepath.Join(dir, ConfigFile), b)
	}
	return err
}

// checkChain is ChainConfig.Check with what is known of the chains.
func checkChain(c *anchor.ChainConfig) error {
	err := c.Check()
	if err != nil {
		return err
	}
	switch c.Chain {
	case k2.Name:
		if err = k2.CheckGenesis(c.Network); err == nil {
			_, err = k2.ParseProgram(c.MemoProgram)
		}
		if err == nil && c.Confirmations != 0 {
			err = errors.New("confirmations are Arweave's")
		}
	case arweave.Name:
		if c.MemoProgram != "" {
			err = errors.New("a memo program is K2's")
		}
	default:
		err = fmt.Errorf("%q is no chain that this program knows", c.Chain)
	}
	if err == nil {
		var p *endpoint.Pool
		if p, err = endpoint.New(c.Endpoints, endpoint.Options{}); err == nil {
			p.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", anchor.ErrConfig, err)
	}
	return nil
}

// extensionPoll is how often an extension is looked up: blocks take minutes.
const extensionPoll = 15 * time.Second

// Build makes the adapter of a chain, and what closes it. It asks nobody anything, but
// reads the wallet.
func Build(c anchor.ChainConfig) (anchor.Target, func(), error) {
	t := anchor.Target{Schedule: c.Schedule()}
	if err := checkChain(&c); err != nil {
		return t, nil, err
	}
	p, err := endpoint.New(c.Endpoints, endpoint.Options{})
	if err != nil {
		return t, nil, err
	}
	switch c.Chain {
	case k2.Name:
		cfg := k2.Config{Endpoints: p, Genesis: c.Network, MaxFee: c.MaxFee, Agree: c.Agree}
		if cfg.Wallet, err = k2.ReadWallet(c.Wallet); err != nil {
			break
		}
		if cfg.MemoProgram, err = k2.ParseProgram(c.MemoProgram); err != nil {
			break
		}
		var k *k2.Chain
		if k, err = k2.New(cfg); err == nil {
			t.Chain = k
		}
	case arweave.Name:
		if t.Schedule.Poll == 0 {
			t.Schedule.Poll = extensionPoll
		}
		cfg := arweave.Config{Endpoints: p, Network: c.Network, Confirmations: c.Confirmations, MaxFee: c.MaxFee, Agree: c.Agree}
		if cfg.Wallet, err = arweave.ReadWallet(c.Wallet); err != nil {
			break
		}
		var k *arweave.Chain
		if k, err = arweave.New(cfg); err == nil {
			t.Chain = k
		}
	}
	if err != nil {
		p.Close()
		return t, nil, err
	}
	return t, p.Close, nil
}

// build makes the chains of a configuration. One that cannot be made keeps no other from
// being anchored on.
func build(cfg anchor.Config) (targets []anchor.Target, broken map[string]error, closeAll func()) {
	broken = map[string]error{}
	var closers []func()
	for _, c := range cfg {
		t, done, err := Build(c)
		if err != nil {
			broken[c.Chain] = err
			continue
		}
		targets, closers = append(targets, t), append(closers, done)
	}
	return targets, broken, func() {
		for _, f := range closers {
			f()
		}
	}
}

// encode builds extensions from the store's entries.
func (a *Agent) encode(ctx context.Context, x anchor.Extension) ([]byte, error) {
	return extension.Encode(ctx, x, blocks(a.store.Entries(ctx, x.Base.Size, x.Size)))
}

func blocks(entries iter.Seq2[store.LedgerEntry, error]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for e, err := range entries {
			if !yield(e.Block, err) {
				return
			}
		}
	}
}
