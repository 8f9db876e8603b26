package store

import (
	"fmt"
	"slices"

	"github.com/koii-network/scale/dag/ledger"
)

// Signed returns a Signer that stands for an entry signed elsewhere: its block, as
// ledger.Entry.Marshal returns it. It serves one entry of one Put, Remove or change of
// policy. Time and signature are taken from the block; everything else must be what
// the store has found by itself.
//
// If the block names another policy, or another newest entry of its name, than there
// is now, that is ErrConflict: read the Head again, sign again, try again. Any other
// difference, and a signature that does not hold, is ErrMismatch and the message names
// it. A block that is no entry is ErrInvalid.
//
// The parents of a dataset are the CID of the newest entry of its name first, if that
// is a dataset, and then those of Input.Parents in their order, each once.
func Signed(block []byte) (Signer, error) {
	e, err := ledger.ParseEntry(block)
	if err != nil {
		return nil, fmt.Errorf("signed entry: %w: %w", ErrInvalid, err)
	}
	return signedElsewhere{e}, nil
}

type signedElsewhere struct{ entry *ledger.Entry }

func (s signedElsewhere) Curator() ledger.CuratorKey { return s.entry.Curator }

// SignEntry implements Signer. That the signature holds is checked by whoever admits
// the entry.
func (s signedElsewhere) SignEntry(e *ledger.Entry, _ ledger.LogID) error {
	if err := differs(s.entry, e); err != nil {
		return fmt.Errorf("the entry that was signed elsewhere: %w", err)
	}
	e.Time, e.Curator, e.Signature = s.entry.Time, s.entry.Curator, s.entry.Signature
	return nil
}

// differs says in what a signed entry is not the one that the store would have
// signed, or nil if nothing but time, curator and signature may differ.
func differs(signed, e *ledger.Entry) error {
	mismatch := func(field string, got, want any) error {
		return fmt.Errorf("its %s is %v, must be %v: %w", field, got, want, ErrMismatch)
	}
	if signed.Kind != e.Kind {
		return mismatch("kind", signed.Kind, e.Kind)
	}
	if signed.Name != e.Name {
		return mismatch("name", signed.Name, e.Name)
	}
	if signed.Policy != e.Policy {
		return fmt.Errorf("it names the policy :%d, in force is :%d: %w; sign again", signed.Policy, e.Policy, ErrConflict)
	}
	if signed.Previous != e.Previous {
		return fmt.Errorf("it follows entry %d of %s, the newest is %d: %w; sign again", signed.Previous, e.Name, e.Previous, ErrConflict)
	}
	for _, f := range [...]struct {
		name      string
		got, want any
	}{
		{"root", signed.Root, e.Root},
		{"size", signed.Size, e.Size},
		{"files", signed.Files, e.Files},
		{"leaves", signed.Leaves, e.Leaves},
		{"chunks", signed.Chunks, e.Chunks},
		{"commitment", fmt.Sprintf("%x", signed.Commitment), fmt.Sprintf("%x", e.Commitment)},
		{"profile", signed.Profile, e.Profile},
		{"times", signed.Times, e.Times},
	} {
		if f.got != f.want {
			return mismatch(f.name, f.got, f.want)
		}
	}
	if !slices.Equal(signed.Parents, e.Parents) {
		return mismatch("parents", signed.Parents, e.Parents)
	}
	if !slices.Equal(signed.Curators, e.Curators) {
		return mismatch("curators", signed.Curators, e.Curators)
	}
	return nil
}
