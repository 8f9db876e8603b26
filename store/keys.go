package store

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
)

// An Ed25519Signer is a curator's key held in memory.
type Ed25519Signer ed25519.PrivateKey

var _ Signer = Ed25519Signer(nil)

// Curator returns the public half.
func (k Ed25519Signer) Curator() ledger.CuratorKey {
	return ledger.CuratorKey(ed25519.PrivateKey(k).Public().(ed25519.PublicKey))
}

// SignEntry sets the entry's curator and signature.
func (k Ed25519Signer) SignEntry(e *ledger.Entry, id ledger.LogID) error {
	return e.Sign(id, ed25519.PrivateKey(k))
}

// LoadCurator reads a curator's key as koii-keygen and solana-keygen write it: a
// JSON array of 64 bytes, the Ed25519 seed followed by the public key. A file that
// others can read is refused with ErrKeys.
func LoadCurator(path string) (Signer, error) {
	b, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	var ints []int
	if err := json.Unmarshal(b, &ints); err != nil || len(ints) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("curator key %s: not a JSON array of %d bytes as koii-keygen writes it: %w", path, ed25519.PrivateKeySize, ErrKeys)
	}
	raw := make([]byte, len(ints))
	for i, v := range ints {
		if v < 0 || v > 255 {
			return nil, fmt.Errorf("curator key %s: element %d is not a byte: %w", path, i, ErrKeys)
		}
		raw[i] = byte(v)
	}
	key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if !bytes.Equal(key, raw) {
		return nil, fmt.Errorf("curator key %s: its public half does not belong to its seed: %w", path, ErrKeys)
	}
	return Ed25519Signer(key), nil
}

func formatCurator(key ed25519.PrivateKey) []byte {
	ints := make([]int, len(key))
	for i, b := range key {
		ints[i] = int(b)
	}
	b, err := json.Marshal(ints)
	if err != nil {
		panic(err) // a slice of ints
	}
	return append(b, '\n')
}

func loadLogKey(dir, vkey string) (note.Signer, error) {
	path := filepath.Join(dir, keysDir, logKeyFile)
	b, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	s, err := note.NewSigner(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w (%v)", path, ErrKeys, err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("log's public key in %s: %w (%v)", configFile, ErrFormat, err)
	}
	if s.Name() != v.Name() || s.KeyHash() != v.KeyHash() {
		return nil, fmt.Errorf("log key %s is %s+%08x, the store's is %s+%08x: %w", path, s.Name(), s.KeyHash(), v.Name(), v.KeyHash(), ErrKeys)
	}
	return s, nil
}

// readKeyFile reads a private key that only its owner may read.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key %s is missing: %w; put it back from your backup", path, ErrKeys)
	}
	if err != nil {
		return nil, fmt.Errorf("key: %w (%w)", ErrKeys, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > 1<<16 {
		return nil, fmt.Errorf("key %s is not a key file: %w", path, ErrKeys)
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("key %s can be read by others (mode %04o): %w; if nobody has, run: chmod 600 %s", path, perm, ErrKeys, path)
	}
	b := make([]byte, fi.Size())
	n, err := f.ReadAt(b, 0)
	if n < len(b) {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return b, nil
}

// makeKeys writes a new log key and a new curator key and returns the log's
// public key in the form verifiers take.
func makeKeys(dir, origin string) (vkey string, err error) {
	keys := filepath.Join(dir, keysDir)
	if err := os.Mkdir(keys, 0o700); err != nil {
		return "", fmt.Errorf("make keys: %w", err)
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return "", fmt.Errorf("make log key: %w", err)
	}
	_, curator, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make curator key: %w", err)
	}
	if err := writeFileSync(filepath.Join(keys, logKeyFile), []byte(skey+"\n")); err != nil {
		return "", err
	}
	if err := writeFileSync(filepath.Join(keys, curatorFile), formatCurator(curator)); err != nil {
		return "", err
	}
	return vkey, syncDir(keys)
}
