package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"filippo.io/edwards25519"
)

// edgeKeys are points of small order, in canonical and other encodings, and keys that
// are no points.
var edgeKeys = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"0200000000000000000000000000000000000000000000000000000000000000",
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// agree checks that a table has the verdict of crypto/ed25519, and returns it.
func agree(t testing.TB, table *keyTable, key, msg, sig []byte) bool {
	t.Helper()
	want := ed25519.Verify(key, msg, sig)
	if got := table != nil && table.verify(msg, sig); got != want {
		t.Errorf("key %x, message %x, signature %x: %t, crypto/ed25519 says %t", key, msg, sig, got, want)
	}
	return want
}

func TestKeyTable(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 1))
	seed := make([]byte, ed25519.SeedSize)
	for i := range 4 {
		binary.LittleEndian.PutUint64(seed, uint64(i))
		key := ed25519.NewKeyFromSeed(seed)
		pub := key.Public().(ed25519.PublicKey)
		table := newKeyTable(pub)
		for n := range 100 {
			msg := bytes.Repeat([]byte{byte(n)}, n)
			sig := ed25519.Sign(key, msg)
			if !agree(t, table, pub, msg, sig) {
				t.Fatal("crypto/ed25519 refuses its own signature")
			}
			sig[random.IntN(len(sig))] ^= 1 << random.IntN(8)
			if agree(t, table, pub, msg, sig) {
				t.Error("a changed signature holds")
			}
			if agree(t, table, pub, append(msg, 0), ed25519.Sign(key, msg)) {
				t.Error("a signature of something else holds")
			}
		}
		sig := ed25519.Sign(key, nil)
		agree(t, table, pub, nil, sig[:63])
		// S + the order of the base point is the same number to the equation.
		order := unhex(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
		carry := 0
		for i, c := range order {
			carry += int(sig[32+i]) + int(c)
			sig[32+i] = byte(carry)
			carry >>= 8
		}
		if agree(t, table, pub, nil, sig) {
			t.Error("a scalar that is not reduced holds")
		}
	}
}

// With a key that has a part of small order a signature holds for some messages, and the
// sign of the scalar's representation matters.
func TestKeyTableSmallOrder(t *testing.T) {
	var held, refused int
	for i, s := range edgeKeys {
		small := unhex(t, s)
		table := newKeyTable(small)
		for n := range 64 {
			// [S]B = R + [k]A with S = 0 and R = A or the identity.
			for _, r := range [][]byte{small, unhex(t, edgeKeys[0]), unhex(t, edgeKeys[n%len(edgeKeys)])} {
				if agree(t, table, small, []byte{byte(n)}, append(bytes.Clone(r), make([]byte, 32)...)) {
					held++
				} else {
					refused++
				}
			}
		}
		a, err := new(edwards25519.Point).SetBytes(small)
		if err != nil {
			continue
		}
		// A key that is a sound one plus that point, with R and S made for the sound one.
		x, err := new(edwards25519.Scalar).SetUniformBytes(bytes.Repeat([]byte{byte(i + 1)}, 64))
		if err != nil {
			t.Fatal(err)
		}
		mixed := a.Add(a, new(edwards25519.Point).ScalarBaseMult(x)).Bytes()
		table = newKeyTable(mixed)
		for n := range 64 {
			msg := []byte{byte(n)}
			if agree(t, table, mixed, msg, signAs(t, x, mixed, msg)) {
				held++
			} else {
				refused++
			}
		}
	}
	if held < 100 || refused < 100 {
		t.Errorf("%d held and %d were refused: both have to be seen", held, refused)
	}
}

// signAs signs with the scalar x under a public key that need not be its own.
func signAs(t testing.TB, x *edwards25519.Scalar, key, msg []byte) []byte {
	t.Helper()
	nonce := edwards25519.NewScalar().Add(x, x)
	r := new(edwards25519.Point).ScalarBaseMult(nonce).Bytes()
	k, err := new(edwards25519.Scalar).SetUniformBytes(challenge(r, key, msg))
	if err != nil {
		t.Fatal(err)
	}
	return append(r, edwards25519.NewScalar().MultiplyAdd(k, x, nonce).Bytes()...)
}

func FuzzKeyTable(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	f.Add([]byte(key.Public().(ed25519.PublicKey)), []byte("m"), ed25519.Sign(key, []byte("m")))
	for _, s := range edgeKeys {
		small := unhex(f, s)
		f.Add(small, []byte("m"), append(bytes.Clone(small), make([]byte, 32)...))
	}
	f.Fuzz(func(t *testing.T, key, msg, sig []byte) {
		if len(key) == ed25519.PublicKeySize {
			agree(t, newKeyTable(key), key, msg, sig)
		}
	})
}

// A checker has the verdicts of CheckSignature before a key has a table and after it.
func TestSignatureChecker(t *testing.T) {
	id := LogID{Origin: "example.com/log", KeyID: 7}
	c := NewSignatureChecker(id)
	for i := range maxTables + 2 {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize))
		for n := range tableAfter + 2 {
			e := &Entry{Kind: KindRemoval, Name: "n", Time: time.UnixMilli(int64(n))}
			if err := e.Sign(id, key); err != nil {
				t.Fatal(err)
			}
			if err := c.Check(e); err != nil {
				t.Fatalf("entry %d of curator %d: %v", n, i, err)
			}
			e.Previous++
			if err := c.Check(e); !errors.Is(err, ErrSignature) {
				t.Fatalf("entry %d of curator %d, changed: %v", n, i, err)
			}
		}
	}
	if c.tables != maxTables || len(c.keys) != maxTables+2 {
		t.Errorf("%d tables of %d keys", c.tables, len(c.keys))
	}
	bad := &Entry{Kind: KindRemoval, Name: "n", Time: time.UnixMilli(1), Curator: CuratorKey(unhex(t, edgeKeys[len(edgeKeys)-1]))}
	for range tableAfter + 1 {
		if err := c.Check(bad); !errors.Is(err, ErrSignature) {
			t.Fatal(err)
		}
	}
}

// Of 53 µs with crypto/ed25519.
func BenchmarkSignatureChecker(b *testing.B) {
	id := LogID{Origin: "example.com/log", KeyID: 7}
	e := &Entry{Kind: KindRemoval, Name: "n", Time: time.UnixMilli(1)}
	if err := e.Sign(id, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))); err != nil {
		b.Fatal(err)
	}
	c := NewSignatureChecker(id)
	for b.Loop() {
		if err := c.Check(e); err != nil {
			b.Fatal(err)
		}
	}
}
