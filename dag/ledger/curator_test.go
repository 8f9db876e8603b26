package ledger

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"filippo.io/edwards25519"
)

// soundKey says by arithmetic alone whether a key is the canonical encoding of a point whose
// order does not divide 8.
func soundKey(k CuratorKey) bool {
	p, err := new(edwards25519.Point).SetBytes(k[:])
	return err == nil && bytes.Equal(p.Bytes(), k[:]) && new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 0
}

// agreed checks that parser and check say of a key what arithmetic says, and returns it.
func agreed(t testing.TB, k CuratorKey) bool {
	t.Helper()
	want := soundKey(k)
	if err := CheckCuratorKey(k); (err == nil) != want || err != nil && !errors.Is(err, ErrFormat) {
		t.Errorf("key %x: %v, arithmetic says %t", k[:], err, want)
	}
	if got, err := ParseCuratorKey(k.String()); (err == nil) != want || err == nil && got != k {
		t.Errorf("key %x parses as %x, %v, arithmetic says %t", k[:], got[:], err, want)
	}
	if got, err := ParseCuratorKeyUnverified(k.String()); err != nil || got != k {
		t.Errorf("the text of %x parses as %x, %v", k[:], got[:], err)
	}
	if CanSign([]CuratorKey{{}, k}) != want {
		t.Errorf("key %x: CanSign is %t", k[:], !want)
	}
	return want
}

func TestCheckCuratorKey(t *testing.T) {
	for _, s := range edgeKeys {
		if agreed(t, CuratorKey(unhex(t, s))) {
			t.Errorf("%s is accepted", s)
		}
	}
	// Every y that has two encodings, and as many that are next to them.
	for n := range 38 {
		for _, sign := range []byte{0, 0x80} {
			k := fieldPrimeLess(19)
			k[0] += byte(n)
			k[31] |= sign
			if agreed(t, k) && n >= 19 {
				t.Errorf("%x is accepted: its y is not below the field's prime", k[:])
			}
			agreed(t, CuratorKey{0: byte(n), 31: sign})
		}
	}
	random := rand.New(rand.NewPCG(1, 8))
	seed := make([]byte, ed25519.SeedSize)
	small, err := new(edwards25519.Point).SetBytes(unhex(t, edgeKeys[6]))
	if err != nil {
		t.Fatal(err)
	}
	points := 0
	for range 200 {
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		if agreed(t, CuratorKey(seed)) {
			points++
		}
		key := CuratorKey(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
		if !agreed(t, key) {
			t.Errorf("%x has a private key and is refused", key[:])
		}
		// A part of small order takes nothing from the need for the private key.
		p, err := new(edwards25519.Point).SetBytes(key[:])
		if err != nil {
			t.Fatal(err)
		}
		if mixed := CuratorKey(p.Add(p, small).Bytes()); !agreed(t, mixed) {
			t.Errorf("%x is of large order and is refused", mixed[:])
		}
	}
	if points < 60 || points > 140 {
		t.Errorf("of 200 random encodings %d are points, about half of them should be", points)
	}
	if CanSign(nil) {
		t.Error("nobody can sign")
	}
}

// Under a key of small order anybody makes signatures that crypto/ed25519 accepts. They do
// not count, however often they come.
func TestForgedSignature(t *testing.T) {
	id := LogID{Origin: "example.com/log", KeyID: 7}
	forged := 0
	for _, s := range edgeKeys {
		key := CuratorKey(unhex(t, s))
		checker := NewSignatureChecker(id)
		for n := range 3 * tableAfter {
			e := &Entry{Kind: KindRemoval, Name: "n", Time: time.UnixMilli(int64(n)), Curator: key}
			copy(e.Signature[:], unhex(t, edgeKeys[0])) // R = 1 and S = 0 hold where [k]A = 1
			msg, err := e.signed(id)
			if err != nil {
				t.Fatal(err)
			}
			if ed25519.Verify(key[:], msg, e.Signature[:]) {
				forged++
			}
			if err := e.CheckSignature(id); !errors.Is(err, ErrSignature) {
				t.Errorf("key %s, entry %d: %v", s, n, err)
			}
			if err := checker.Check(e); !errors.Is(err, ErrSignature) {
				t.Errorf("key %s, entry %d, checked among many: %v", s, n, err)
			}
		}
	}
	if forged < 100 {
		t.Errorf("crypto/ed25519 accepts %d of them: the test proves nothing", forged)
	}
}

func FuzzCheckCuratorKey(f *testing.F) {
	f.Add([]byte(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)))
	for _, s := range edgeKeys {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		if len(key) == ed25519.PublicKeySize {
			agreed(t, CuratorKey(key))
		}
	})
}

func BenchmarkCheckCuratorKey(b *testing.B) {
	key := CuratorKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey))
	for b.Loop() {
		if err := CheckCuratorKey(key); err != nil {
			b.Fatal(err)
		}
	}
}

// What it adds to a signature that is checked.
func BenchmarkCheckWeak(b *testing.B) {
	key := CuratorKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey))
	for b.Loop() {
		if err := key.checkWeak(); err != nil {
			b.Fatal(err)
		}
	}
}
