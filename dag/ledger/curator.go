package ledger

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/mr-tron/base58"
)

// A CuratorKey is an Ed25519 public key. Its text form is base58, as Koii and
// Solana write addresses.
type CuratorKey [ed25519.PublicKeySize]byte

func (k CuratorKey) String() string { return base58.Encode(k[:]) }

// Compare orders keys bytewise, as policy entries list them.
func (k CuratorKey) Compare(o CuratorKey) int { return bytes.Compare(k[:], o[:]) }

// ParseCuratorKey parses the text form.
func ParseCuratorKey(s string) (CuratorKey, error) {
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
// this log. It does not say whether the curator was admitted.
func (e *Entry) CheckSignature(id LogID) error {
	msg, err := e.signed(id)
	if err != nil {
		return err
	}
	if !ed25519.Verify(e.Curator[:], msg, e.Signature[:]) {
		return fmt.Errorf("%w: curator %v did not sign this entry for log %v", ErrSignature, e.Curator, id)
	}
	return nil
}
