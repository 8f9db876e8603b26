package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/koii-network/scale/dag/ledger"
)

// Format is the number of the store's layout. Numbers are append-only: a store of
// a higher number is refused, a lower one is read or upgraded.
const Format = 1

// What is in a store's directory.
const (
	configFile    = "scale.json"
	lockFile      = "lock"
	ballastFile   = "ballast"
	highWaterFile = "highwater"
	keysDir       = "keys"
	logKeyFile    = "log.key"
	curatorFile   = "curator.json"
	kvDir         = "kv"
	packsDir      = "packs"
)

type config struct {
	Format int    `json:"format"`
	Origin string `json:"origin"`
	VKey   string `json:"vkey"`
}

// Init makes a store in dir, which must not exist or be empty: its log key, its
// curator key and the first entry of its ledger, the policy that admits this
// curator. The directory appears complete or not at all.
func Init(ctx context.Context, dir string, o InitOptions) error {
	if o.Origin == "" {
		o.Origin = "scale.local/" + strings.ToLower(rand.Text()[:16])
	}
	if err := ledger.CheckOrigin(o.Origin); err != nil {
		return fmt.Errorf("origin %q: %w (%v)", o.Origin, ErrInvalid, err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if Exists(dir) {
		return fmt.Errorf("store %s %w", dir, ErrExists)
	}
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return fmt.Errorf("init: %s %w and is not empty; choose another directory", dir, ErrExists)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("init: %w (%w)", ErrExists, err)
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	// Built beside and renamed, so that a crash leaves no half-made store behind
	// under the name that was asked for.
	tmp, err := os.MkdirTemp(parent, ".scale-init-")
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := populate(ctx, tmp, o); err != nil {
		return fmt.Errorf("init %s: %w", dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	return syncDir(parent)
}

func populate(ctx context.Context, dir string, o InitOptions) error {
	for _, d := range []string{kvDir, packsDir} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	vkey, err := makeKeys(dir, o.Origin)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(config{Format: Format, Origin: o.Origin, VKey: vkey}, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFileSync(filepath.Join(dir, configFile), append(b, '\n')); err != nil {
		return err
	}
	s, err := open(ctx, dir, Options{}, true)
	if err != nil {
		return err
	}
	return errors.Join(s.genesis(ctx), s.Close())
}

// Exists reports whether dir holds a store.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, configFile))
	return err == nil
}

// VerifierKeyOf returns the public key of the log in dir (the vkey of a signed
// note) without opening the store.
func VerifierKeyOf(dir string) (string, error) {
	c, err := readConfig(dir)
	return c.VKey, err
}

func readConfig(dir string) (config, error) {
	path := filepath.Join(dir, configFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config{}, fmt.Errorf("no store in %s: %w", dir, ErrNotFound)
	}
	if err != nil {
		return config{}, fmt.Errorf("open store: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return config{}, fmt.Errorf("open store: %w", err)
	}
	var c config
	if err := json.Unmarshal(b, &c); err != nil {
		return config{}, fmt.Errorf("%s: %w (%v)", path, ErrCorrupt, err)
	}
	if c.Format != Format {
		return config{}, fmt.Errorf("store %s has format %d, this build reads %d: %w; use a newer scale", dir, c.Format, Format, ErrFormat)
	}
	return c, nil
}

// writeFileSync makes a private file that is on disk when it returns. The caller
// syncs the directory.
func writeFileSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// replaceFileSync puts b at path so that after a crash there is either the old
// content or the new.
func replaceFileSync(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeFileSync(tmp, b); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
