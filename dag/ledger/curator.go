package ledger

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"filippo.io/edwards25519"
	"github.com/mr-tron/base58"
)

// A CuratorKey is an Ed25519 public key, or where [CheckCuratorKey] refuses it 32 bytes
// that stand in the place of one. Its text form is base58, as Koii and Solana write
// addresses.
type CuratorKey [ed25519.PublicKeySize]byte

func (k CuratorKey) String() string { return base58.Encode(k[:]) }

// Compare orders keys bytewise, as policy entries list them.
func (k CuratorKey) Compare(o CuratorKey) int { return bytes.Compare(k[:], o[:]) }

// ParseCuratorKey parses the text form of a key that CheckCuratorKey accepts.
func ParseCuratorKey(s string) (CuratorKey, error) {
	k, err := ParseCuratorKeyUnverified(s)
	if err == nil {
		err = CheckCuratorKey(k)
	}
	return k, err
}

// ParseCuratorKeyUnverified parses the text form of any 32 bytes. Policies of before keys
// were checked may name some that are no key, and these have to be taken out.
func ParseCuratorKeyUnverified(s string) (CuratorKey, error) {
	// 32 bytes never take more than 44 digits; base58 takes quadratic time.
	if len(s) > 44 {
		return CuratorKey{}, fmt.Errorf("%w: curator key of %d characters", ErrFormat, len(s))
	}
	b, err := base58.Decode(s)
	if err != nil {
		return CuratorKey{}, fmt.Errorf("%w: curator key %q: %w", ErrFormat, s, err)
	}
	if len(b) != ed25519.PublicKeySize {
		return CuratorKey{}, fmt.Errorf("%w: curator key %q has %d bytes, must have %d", ErrFormat, s, len(b), ed25519.PublicKeySize)
	}
	return CuratorKey(b), nil
}

// CheckCuratorKey returns ErrFormat unless k is an Ed25519 public key under which
// signatures count: the canonical encoding of a point of the curve whose order does not
// divide 8. Of any other bytes nobody has the private key, or nobody needs it. Takes 3 µs.
func CheckCuratorKey(k CuratorKey) error {
	err := k.checkWeak()
	if err == nil {
		if _, e := new(edwards25519.Point).SetBytes(k[:]); e != nil {
			err = errors.New("it is not a point of the curve")
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %v is not the public key of a curator: %w", ErrFormat, k, err)
	}
	return nil
}

// CanSign reports whether signatures under one of the keys count.
func CanSign(keys []CuratorKey) bool {
	return slices.ContainsFunc(keys, func(k CuratorKey) bool { return CheckCuratorKey(k) == nil })
}

// smallOrder holds the y coordinates of the eight points whose order divides 8. But for the
// first two, each is that of a point and of its negative.
var smallOrder = [...]CuratorKey{
	{1},               // order 1
	fieldPrimeLess(1), // 2
	{},                // 4
	{ // 8
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	},
	{ // 8
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	},
}

// fieldPrime is that of the coordinates.
var fieldPrime = fieldPrimeLess(0)

// fieldPrimeLess returns 2^255 - 19 - n, little-endian; n is at most 0xed.
func fieldPrimeLess(n byte) CuratorKey {
	k := CuratorKey(bytes.Repeat([]byte{0xff}, ed25519.PublicKeySize))
	k[0], k[ed25519.PublicKeySize-1] = 0xed-n, 0x7f
	return k
}

// checkWeak refuses keys under which crypto/ed25519 would accept signatures that must not
// count. It does not find out whether k is a point: under what is none, nothing holds.
func (k CuratorKey) checkWeak() error {
	k[ed25519.PublicKeySize-1] &= 0x7f // the sign of x: which of the two points with that y
	if k[0] >= fieldPrime[0] && bytes.Equal(k[1:], fieldPrime[1:]) {
		return errors.New("it is not a canonical encoding")
	}
	// What is left that is not canonical is a sign where x is 0, of order 1 and 2.
	if slices.Contains(smallOrder[:], k) {
		return errors.New("it is a point of small order, under which anybody can sign")
	}
	return nil
}

// signatureDomain begins what a curator signs. No other signature of this
// project, of a signed note or of a chain begins with this line.
const signatureDomain = "scale-entry/v1"

// signed returns the bytes that the signature covers. They bind the entry to
// one log, so that it cannot be replayed in another.
func (e *Entry) signed(id LogID) ([]byte, error) {
	if err := CheckOrigin(id.Origin); err != nil {
		return nil, err
	}
	body, err := e.encode(false)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%s\n%s\n%08x\n", signatureDomain, id.Origin, id.KeyID), body...), nil
}

// Sign sets Curator and Signature, and cuts Time to whole milliseconds.
func (e *Entry) Sign(id LogID, key ed25519.PrivateKey) error {
	if len(key) != ed25519.PrivateKeySize {
		return fmt.Errorf("%w: private key of %d bytes", ErrFormat, len(key))
	}
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	e.Curator = CuratorKey(key.Public().(ed25519.PublicKey))
	msg, err := e.signed(id)
	if err != nil {
		return err
	}
	e.Signature = [64]byte(ed25519.Sign(key, msg))
	return nil
}

// CheckSignature returns ErrSignature unless e.Curator signed the entry for
// this log. Nothing is signed by a key that CheckCuratorKey refuses. It does not say
// whether the curator was admitted.
func (e *Entry) CheckSignature(id LogID) error {
	msg, err := e.signed(id)
	if err != nil {
		return err
	}
	if err := e.Curator.checkWeak(); err != nil {
		return fmt.Errorf("%w: %v is no key that signatures count under: %w", ErrSignature, e.Curator, err)
	}
	if !ed25519.Verify(e.Curator[:], msg, e.Signature[:]) {
		return fmt.Errorf("%w: curator %v did not sign this entry for log %v", ErrSignature, e.Curator, id)
	}
	return nil
}
