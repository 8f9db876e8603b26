// Package ledger is SCALE's append-only log: signed entries, the RFC 6962 tree
// over them in C2SP tiles, and signed checkpoints. SPEC.md beside this file
// describes every byte.
//
// The package is pure. It neither stores nor fetches: tiles come through
// [TileReader], what an entry may follow comes through [State]. It never
// decides which of two trees is right; whatever does not agree with the root
// that it was given is [ErrCorrupt].
//
// Formats are a promise: every entry that this package ever admitted stays
// readable, numbers are only appended, and parsers accept one encoding only.
package ledger

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

var (
	// ErrFormat says that bytes or values are not a valid entry, name, key or
	// checkpoint.
	ErrFormat = errors.New("malformed")
	// ErrCorrupt says that stored tiles do not agree with the root they should have.
	ErrCorrupt = errors.New("ledger is corrupt")
	// ErrSignature says that a signature does not hold.
	ErrSignature = errors.New("invalid signature")
	// ErrConflict says that an entry follows a state of the ledger that is no
	// longer the newest: its author must look again and sign anew.
	ErrConflict = errors.New("conflict with a newer entry")
	// ErrNotAdmitted says that the policy in force does not name the curator.
	ErrNotAdmitted = errors.New("curator is not admitted")
	// ErrDuplicate says that the ledger holds this very entry already.
	ErrDuplicate = errors.New("entry is already in the ledger")
	// ErrUnknownParent says that an entry names a parent that the ledger does not hold.
	ErrUnknownParent = errors.New("parent is not in the ledger")
	// ErrProof says that an inclusion or consistency proof does not hold.
	ErrProof = errors.New("proof does not hold")
)

const (
	// MaxName and MaxOrigin are in bytes. The origin's limit keeps a signed
	// checkpoint within the 512 bytes of a Koii task submission.
	MaxName   = 128
	MaxOrigin = 100
)

// LogID names a log: the origin of its checkpoints and the id of the key that
// signs them (the first four bytes of the note key's hash, big-endian).
type LogID struct {
	Origin string
	KeyID  uint32
}

func (id LogID) String() string { return fmt.Sprintf("%s+%08x", id.Origin, id.KeyID) }

// CheckName says whether s can name a dataset: 1 to 128 of [A-Za-z0-9._-], and
// not a text that parses as a CID, so that a reference is never ambiguous.
func CheckName(s string) error {
	if err := checkWord("name", s, MaxName); err != nil {
		return err
	}
	if _, err := cid.Decode(s); err == nil {
		return fmt.Errorf("%w: name %q is a CID", ErrFormat, s)
	}
	return nil
}

// checkWord holds the rule that names and profile names share.
func checkWord(what, s string, limit int) error {
	if s == "" || len(s) > limit {
		return fmt.Errorf("%w: %s of %d bytes, must have 1 to %d", ErrFormat, what, len(s), limit)
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return fmt.Errorf("%w: %s %q: only A-Z a-z 0-9 . _ - are allowed", ErrFormat, what, s)
		}
	}
	return nil
}

// CheckOrigin says whether s can be the origin of a log, which is also the
// name of the key that signs its checkpoints: 1 to 100 bytes of printable
// UTF-8 without spaces and without '+'.
func CheckOrigin(s string) error {
	if s == "" || len(s) > MaxOrigin {
		return fmt.Errorf("%w: origin of %d bytes, must have 1 to %d", ErrFormat, len(s), MaxOrigin)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: origin %q is not UTF-8", ErrFormat, s)
	}
	for _, r := range s {
		if r == '+' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return fmt.Errorf("%w: origin %q: spaces, '+' and unprintable characters are not allowed", ErrFormat, s)
		}
	}
	return nil
}
