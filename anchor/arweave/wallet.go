package arweave

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
)

// keyBits is the only size of key that the network takes.
const keyBits = 4096

const exponent = 65537

// A Wallet is the RSA key that signs and pays.
type Wallet struct{ key *rsa.PrivateKey }

// jwk is a private key as wallets write it (RFC 7517, RFC 7518 section 6.3).
type jwk struct {
	Kty string `json:"kty"`
	N   string `json:"n"`
	E   string `json:"e"`
	D   string `json:"d"`
	P   string `json:"p"`
	Q   string `json:"q"`
	DP  string `json:"dp,omitempty"`
	DQ  string `json:"dq,omitempty"`
	QI  string `json:"qi,omitempty"`
}

// NewWallet makes a new key.
func NewWallet() (*Wallet, error) {
	k, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("new Arweave wallet: %w", err)
	}
	return &Wallet{k}, nil
}

// ReadWallet reads a JWK file, which nobody but its owner may be able to read.
func ReadWallet(file string) (*Wallet, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("wallet %s is not a file", file)
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("wallet %s can be read or written by others (mode %04o): chmod 600 %s", file, st.Mode().Perm(), file)
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, err
	}
	w, err := ParseWallet(b)
	if err != nil {
		return nil, fmt.Errorf("wallet %s: %w", file, err)
	}
	return w, nil
}

// ParseWallet reads a JWK of an RSA key of 4096 bits. Errors tell nothing of the key.
func ParseWallet(b []byte) (*Wallet, error) {
	var j jwk
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, errors.New("not a JWK: not JSON of its form")
	}
	if j.Kty != "RSA" {
		return nil, errors.New("not a JWK of an RSA key")
	}
	bad := ""
	field := func(name, s string) *big.Int {
		b, err := decode(s)
		if err != nil || len(b) == 0 || len(b) > keyBits/8 {
			bad = name
			return new(big.Int)
		}
		return new(big.Int).SetBytes(b)
	}
	e := field("e", j.E)
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: field("n", j.N), E: exponent},
		D:         field("d", j.D),
		Primes:    []*big.Int{field("p", j.P), field("q", j.Q)},
	}
	switch {
	case bad != "":
		return nil, fmt.Errorf("JWK without a proper field %q", bad)
	case k.N.BitLen() != keyBits:
		return nil, fmt.Errorf("RSA key of %d bits, Arweave takes %d", k.N.BitLen(), keyBits)
	case e.Cmp(big.NewInt(exponent)) != 0:
		return nil, fmt.Errorf("RSA key with another exponent than %d", exponent)
	}
	k.Precompute()
	if err := k.Validate(); err != nil {
		return nil, errors.New("JWK whose numbers do not belong together")
	}
	return &Wallet{k}, nil
}

// JWK returns the wallet as a file holds it. It is secret.
func (w *Wallet) JWK() []byte {
	num := func(n *big.Int) string { return encode(n.Bytes()) }
	p := w.key.Precomputed
	b, err := json.Marshal(jwk{
		Kty: "RSA", N: num(w.key.N), E: num(big.NewInt(exponent)), D: num(w.key.D),
		P: num(w.key.Primes[0]), Q: num(w.key.Primes[1]), DP: num(p.Dp), DQ: num(p.Dq), QI: num(p.Qinv),
	})
	if err != nil {
		panic(err) // strings always have a form
	}
	return append(b, '\n')
}

// Address returns the wallet's name: the digest of its modulus.
func (w *Wallet) Address() string { return address(w.key.N.Bytes()) }

func address(owner []byte) string {
	h := sha256.Sum256(owner)
	return encode(h[:])
}
