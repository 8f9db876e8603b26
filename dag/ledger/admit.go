package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
)

// State is what Admit asks about the ledger that an entry would extend. Where
// several entries are admitted together it must include those before.
type State interface {
	// Policy returns the policy entry in force and its index, or -1 and nil when the ledger is empty.
	Policy(ctx context.Context) (int64, *Entry, error)
	// Newest returns the index and the kind of the newest entry of a name, or -1.
	Newest(ctx context.Context, name string) (int64, Kind, error)
	// IndexOf returns the index of the entry with that CID, or -1.
	IndexOf(ctx context.Context, entry cid.Cid) (int64, error)
}

// CheckAdmitted returns ErrNotAdmitted unless the policy names e's curator.
func CheckAdmitted(e, policy *Entry) error {
	if policy.Kind != KindPolicy {
		return fmt.Errorf("%w: a %v entry is not a policy", ErrFormat, policy.Kind)
	}
	if !slices.Contains(policy.Curators, e.Curator) {
		return fmt.Errorf("%w: %v", ErrNotAdmitted, e.Curator)
	}
	return nil
}

// Admit parses a block and says whether it may be the next entry of the log.
// Refusals are ErrFormat, ErrDuplicate, ErrSignature, ErrConflict,
// ErrNotAdmitted and ErrUnknownParent; any other error comes from s.
func Admit(ctx context.Context, s State, id LogID, block []byte) (*Entry, error) {
	e, err := ParseEntry(block)
	if err != nil {
		return nil, err
	}
	c := EntryCID(block)
	if i, err := s.IndexOf(ctx, c); err != nil {
		return nil, fmt.Errorf("look up entry %v: %w", c, err)
	} else if i >= 0 {
		return nil, fmt.Errorf("%w: %v is entry %d", ErrDuplicate, c, i)
	}
	if err := e.CheckSignature(id); err != nil {
		return nil, err
	}
	if err := e.CheckSuccession(id); err != nil {
		return nil, err
	}
	if err := CheckFollows(ctx, s, e); err != nil {
		return nil, err
	}
	return e, nil
}

// CheckFollows is the part of Admit that depends on the ledger's newest state: whether
// an entry whose signature holds, and which is not in the ledger, may come next.
// Refusals are ErrConflict, ErrNotAdmitted and ErrUnknownParent.
func CheckFollows(ctx context.Context, s State, e *Entry) error {
	inForce, policy, err := s.Policy(ctx)
	if err != nil {
		return fmt.Errorf("look up the policy in force: %w", err)
	}
	if inForce < 0 {
		// Entry 0 admits itself: nobody else could.
		if e.Kind != KindPolicy {
			return fmt.Errorf("%w: entry 0 must be a policy, not a %v", ErrConflict, e.Kind)
		}
		policy = e
	}
	if e.Policy != inForce {
		return fmt.Errorf("%w: entry names policy %d, in force is %d", ErrConflict, e.Policy, inForce)
	}
	if err := CheckAdmitted(e, policy); err != nil {
		return err
	}
	if e.Kind == KindPolicy {
		return nil
	}
	newest, kind, err := s.Newest(ctx, e.Name)
	if err != nil {
		return fmt.Errorf("look up name %q: %w", e.Name, err)
	}
	if e.Previous != newest {
		return fmt.Errorf("%w: entry follows entry %d of %q, the newest is %d", ErrConflict, e.Previous, e.Name, newest)
	}
	if e.Kind == KindRemoval && kind != KindDataset {
		return fmt.Errorf("%w: %q was removed by entry %d", ErrConflict, e.Name, newest)
	}
	for _, p := range e.Parents {
		if i, err := s.IndexOf(ctx, p); err != nil {
			return fmt.Errorf("look up parent %v: %w", p, err)
		} else if i < 0 {
			return fmt.Errorf("%w: %v", ErrUnknownParent, p)
		}
	}
	return nil
}
