package k2

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gagliardetto/solana-go"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
)

// ErrWallet is a wallet that cannot be used.
var ErrWallet = errors.New("K2 wallet")

// maxWallet is the largest file of a wallet in bytes: 64 numbers with room.
const maxWallet = 4 << 10

// ReadWallet reads a key as koii-keygen writes it: a JSON array of 64 bytes, the seed
// and the public key. A file that others can read is refused.
func ReadWallet(file string) (solana.PrivateKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWallet, err)
	}
	defer f.Close() // read only
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrWallet, err)
	case !st.Mode().IsRegular() || st.Size() > maxWallet:
		return nil, fmt.Errorf("%w: %s is no file of a key", ErrWallet, file)
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%w: others can read %s (mode %04o); if nobody has, run: chmod 600 %s", ErrWallet, file, st.Mode().Perm(), file)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxWallet))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWallet, err)
	}
	k, err := ParseWallet(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

// ParseWallet reads the content of such a file.
func ParseWallet(b []byte) (solana.PrivateKey, error) {
	var ints []int
	k := make(solana.PrivateKey, 64)
	if err := json.Unmarshal(b, &ints); err != nil || len(ints) != len(k) {
		return nil, fmt.Errorf("%w: not a JSON array of %d bytes as koii-keygen writes it", ErrWallet, len(k))
	}
	for i, v := range ints {
		if v < 0 || v > 255 {
			return nil, fmt.Errorf("%w: element %d is not a byte", ErrWallet, i)
		}
		k[i] = byte(v)
	}
	if !bytes.Equal(ed25519.NewKeyFromSeed(k[:ed25519.SeedSize]), k) {
		return nil, fmt.Errorf("%w: its public half does not belong to its seed", ErrWallet)
	}
	return k, nil
}

// ParseProgram reads the id of a memo program; "" is DefaultMemoProgram.
func ParseProgram(s string) (solana.PublicKey, error) {
	if s == "" {
		s = DefaultMemoProgram
	}
	p, err := solana.PublicKeyFromBase58(s)
	if err != nil {
		return p, fmt.Errorf("memo program %.100q is no id: %w", s, err)
	}
	return p, nil
}

// CheckGenesis says what is wrong with a genesis hash.
func CheckGenesis(s string) error {
	if _, err := solana.HashFromBase58(s); err != nil {
		return fmt.Errorf("genesis hash %.100q: %w", s, err)
	}
	return nil
}

// Network asks all endpoints for their genesis hash, which has to be the same, and
// whether the memo program is there and can be run.
func Network(ctx context.Context, p *endpoint.Pool, memo solana.PublicKey) (string, error) {
	hashes := make([]solana.Hash, p.Len())
	errs := p.All(ctx, func(ctx context.Context, i int, e *endpoint.Endpoint) (err error) {
		c := client(e)
		if hashes[i], err = genesisHash(ctx, c); err != nil {
			return err
		}
		return probe(ctx, c, memo)
	})
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for i, h := range hashes {
		if h != hashes[0] {
			return "", fmt.Errorf("%s has the genesis hash %s, %s has %s: %w", p.Endpoints()[i], h, p.Endpoints()[0], hashes[0], anchor.ErrCluster)
		}
	}
	return hashes[0].String(), nil
}
