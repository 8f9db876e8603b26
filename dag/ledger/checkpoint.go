package ledger

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCheckpoint bounds a signed checkpoint with all its cosignatures.
const MaxCheckpoint = 256 << 10

// A Checkpoint says what a log is: its root at one size.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// text returns the body of the note: C2SP tlog-checkpoint without extension lines.
func (c Checkpoint) text() string {
	return torchwood.Checkpoint{Origin: c.Origin, Tree: tlog.Tree{N: c.Size, Hash: c.Root}}.String()
}

// SignCheckpoint returns the signed note. The signer's name must be the origin.
func SignCheckpoint(c Checkpoint, s note.Signer) ([]byte, error) {
	if err := CheckOrigin(c.Origin); err != nil {
		return nil, err
	}
	if c.Origin != s.Name() || c.Size < 0 || c.Size > MaxSize {
		return nil, fmt.Errorf("%w: checkpoint of %q, size %d, for a key named %q", ErrFormat, c.Origin, c.Size, s.Name())
	}
	b, err := note.Sign(&note.Note{Text: c.text()}, s)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return b, nil
}

// OpenCheckpoint parses a signed checkpoint and checks the log's signature.
// Other signatures are not looked at.
func OpenCheckpoint(b []byte, v note.Verifier) (Checkpoint, error) {
	c, sigs, err := ParseCheckpointUnverified(b)
	if err != nil {
		return Checkpoint{}, err
	}
	if sigs[0].Name != v.Name() || sigs[0].Hash != v.KeyHash() {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is signed by %s+%08x, not by %s+%08x",
			ErrSignature, sigs[0].Name, sigs[0].Hash, v.Name(), v.KeyHash())
	}
	if _, err := note.Open(b, note.VerifierList(v)); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: %w", ErrSignature, err)
	}
	return c, nil
}

// ParseCheckpointUnverified parses a signed checkpoint in its one canonical
// form and returns its signature lines, none of them checked. The first is the
// log's: its name is the origin. Any others are cosignatures under other names.
func ParseCheckpointUnverified(b []byte) (Checkpoint, []note.Signature, error) {
	if len(b) > MaxCheckpoint {
		return Checkpoint{}, nil, fmt.Errorf("%w: checkpoint of %d bytes, limit %d", ErrFormat, len(b), MaxCheckpoint)
	}
	_, err := note.Open(b, nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return Checkpoint{}, nil, fmt.Errorf("%w: checkpoint: %w", ErrFormat, err)
	}
	n := unverified.Note
	t, err := torchwood.ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	c := Checkpoint{Origin: t.Origin, Size: t.N, Root: t.Hash}
	if err := CheckOrigin(c.Origin); err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Size > MaxSize {
		return Checkpoint{}, nil, fmt.Errorf("%w: %w", ErrFormat, errSize)
	}
	if c.text() != n.Text {
		return Checkpoint{}, nil, fmt.Errorf("%w: checkpoint has extension lines or is not canonical", ErrFormat)
	}
	// note drops repeated lines and takes sloppy base64: both would leave
	// bytes that nothing covers.
	again, err := note.Sign(n)
	if err != nil || !bytes.Equal(again, b) {
		return Checkpoint{}, nil, fmt.Errorf("%w: checkpoint is not canonical", ErrFormat)
	}
	type key struct {
		name string
		hash uint32
	}
	seen := make(map[key]bool)
	for i, s := range n.UnverifiedSigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return Checkpoint{}, nil, fmt.Errorf("%w: signature of %s: %w", ErrFormat, s.Name, err)
		}
		if (s.Name == c.Origin) != (i == 0) {
			return Checkpoint{}, nil, fmt.Errorf("%w: the first signature, and no other, must be the log's", ErrFormat)
		}
		if k := (key{s.Name, s.Hash}); seen[k] {
			return Checkpoint{}, nil, fmt.Errorf("%w: two signatures of %s+%08x", ErrFormat, s.Name, s.Hash)
		} else {
			seen[k] = true
		}
	}
	return c, n.UnverifiedSigs, nil
}
