package k2_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"
	computebudget "github.com/gagliardetto/solana-go/programs/compute-budget"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
)

var memoProgram = solana.MustPublicKeyFromBase58(k2.DefaultMemoProgram)

// signed makes a transaction of instructions, signed by all keys, of which the first pays.
func signed(t testing.TB, change func(*solana.Message), keys []solana.PrivateKey, ins ...solana.Instruction) []byte {
	t.Helper()
	tx, err := solana.NewTransaction(ins, solana.Hash{1}, solana.TransactionPayer(keys[0].PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&tx.Message)
	}
	_, err = tx.Sign(func(k solana.PublicKey) *solana.PrivateKey {
		for i := range keys {
			if keys[i].PublicKey() == k {
				return &keys[i]
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func testKeys(t testing.TB) []solana.PrivateKey {
	t.Helper()
	a, b := newWallet(t, 0), newWallet(t, 0)
	return []solana.PrivateKey{a, b}
}

func memo(text string, signers ...solana.PrivateKey) solana.Instruction {
	var metas solana.AccountMetaSlice
	for _, s := range signers {
		metas = append(metas, solana.Meta(s.PublicKey()).SIGNER())
	}
	return solana.NewInstruction(memoProgram, metas, []byte(text))
}

func TestOpen(t *testing.T) {
	keys := testKeys(t)
	limit := computebudget.NewSetComputeUnitLimitInstruction(300_000).Build()
	for name, raw := range map[string][]byte{
		"memo":       signed(t, nil, keys[:1], memo("the text", keys[0])),
		"with limit": signed(t, nil, keys[:1], limit, memo("the text", keys[0])),
		"no signer":  signed(t, nil, keys[:1], memo("the text")),
	} {
		a, err := k2.Verifier{}.Open(anchor.Receipt{Chain: k2.Name, Raw: raw})
		if err != nil || string(a.Checkpoint) != "the text" || a.Signer != keys[0].PublicKey().String() || a.DataRoot != nil {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	keys := testKeys(t)
	good := signed(t, nil, keys[:1], memo("the text", keys[0]))
	limit := computebudget.NewSetComputeUnitLimitInstruction(300_000).Build()
	for name, raw := range map[string][]byte{
		"nothing":            nil,
		"too long":           append(bytes.Clone(good), make([]byte, 1232)...),
		"trailing byte":      append(bytes.Clone(good), 0),
		"two memos":          signed(t, nil, keys[:1], memo("the text", keys[0]), memo("another", keys[0])),
		"limit after":        signed(t, nil, keys[:1], memo("the text", keys[0]), limit),
		"no memo":            signed(t, nil, keys[:1], limit),
		"empty memo":         signed(t, nil, keys[:1], memo("", keys[0])),
		"no instruction":     signed(t, func(m *solana.Message) { m.Instructions = nil }, keys[:1], memo("the text", keys[0])),
		"two signers":        signed(t, nil, keys, memo("the text", keys[0], keys[1])),
		"program out of it":  signed(t, func(m *solana.Message) { m.Instructions[0].ProgramIDIndex = 9 }, keys[:1], memo("the text", keys[0])),
		"versioned":          signed(t, func(m *solana.Message) { m.SetVersion(solana.MessageVersionV0) }, keys[:1], memo("the text", keys[0])),
		"no signature":       append([]byte{0}, good[65:]...),
		"many signatures":    append([]byte{0xff, 0xff, 3}, good[65:]...),
		"long form of count": append([]byte{0x81, 0}, good[1:]...),
	} {
		if a, err := (k2.Verifier{}).Open(anchor.Receipt{Chain: k2.Name, Raw: raw}); !errors.Is(err, anchor.ErrForged) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	// No byte of it can be another.
	for i := range good {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= bit
			if a, err := (k2.Verifier{}).Open(anchor.Receipt{Chain: k2.Name, Raw: bad}); !errors.Is(err, anchor.ErrForged) {
				t.Errorf("byte %d: %+v, %v", i, a, err)
			}
		}
		if _, err := (k2.Verifier{}).Open(anchor.Receipt{Chain: k2.Name, Raw: good[:i]}); !errors.Is(err, anchor.ErrForged) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// A transaction that opens is one that its signer has signed, in its one form.
func FuzzOpen(f *testing.F) {
	keys := testKeys(f)
	limit := computebudget.NewSetComputeUnitLimitInstruction(300_000).Build()
	f.Add(signed(f, nil, keys[:1], memo("the text", keys[0])))
	f.Add(signed(f, nil, keys[:1], limit, memo("the text", keys[0])))
	f.Add(signed(f, nil, keys, memo("the text", keys[0], keys[1])))
	f.Add(signed(f, func(m *solana.Message) { m.SetVersion(solana.MessageVersionV0) }, keys[:1], memo("the text", keys[0])))
	f.Add([]byte{0xff, 0xff, 3})
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := k2.Verifier{}.Open(anchor.Receipt{Chain: k2.Name, Raw: raw})
		if err != nil {
			if !errors.Is(err, anchor.ErrForged) {
				t.Fatal(err)
			}
			return
		}
		if len(a.Checkpoint) == 0 || !bytes.Contains(raw, a.Checkpoint) {
			t.Fatalf("opened as %+v", a)
		}
		sig, err := solana.SignatureFromBase58(a.ID)
		if err != nil {
			t.Fatal(err)
		}
		key, err := solana.PublicKeyFromBase58(a.Signer)
		if err != nil || !sig.Verify(key, raw[65:]) || !bytes.Equal(sig[:], raw[1:65]) {
			t.Fatalf("opened as %+v, which its signer has not signed", a)
		}
	})
}

func TestReadWallet(t *testing.T) {
	key := newWallet(t, 0)
	text := func(b []byte) string {
		ints := make([]int, len(b))
		for i, c := range b {
			ints[i] = int(c)
		}
		s, err := json.Marshal(ints)
		if err != nil {
			t.Fatal(err)
		}
		return string(s)
	}
	write := func(s string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "id.json")
		if err := os.WriteFile(path, []byte(s), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	got, err := k2.ReadWallet(write(text(key)+"\n", 0o600))
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("%v, %v", got, err)
	}
	other := newWallet(t, 0)
	for name, path := range map[string]string{
		"missing":          filepath.Join(t.TempDir(), "none"),
		"directory":        t.TempDir(),
		"others":           write(text(key), 0o644),
		"short":            write(text(key[:63]), 0o600),
		"no bytes":         write(strings.Replace(text(key), "[", "[300,", 1), 0o600),
		"not a byte":       write("["+strings.Repeat("256,", 63)+"1]", 0o600),
		"other public key": write(text(append(bytes.Clone(key[:32]), other[32:]...)), 0o600),
		"long":             write(text(key)+strings.Repeat(" ", 8192), 0o600),
		"no JSON":          write("secret", 0o600),
	} {
		if _, err := k2.ReadWallet(path); !errors.Is(err, k2.ErrWallet) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	p, err := endpoint.New([]string{"http://127.0.0.1:1"}, endpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	good := k2.Config{Endpoints: p, Wallet: newWallet(t, 0), Genesis: chain.Genesis}
	if _, err := k2.New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*k2.Config){
		"agree": func(c *k2.Config) { c.Agree = 2 }, "wallet": func(c *k2.Config) { c.Wallet = c.Wallet[:32] }, "genesis": func(c *k2.Config) { c.Genesis = "" },
	} {
		c := good
		change(&c)
		if _, err := k2.New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
