package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/koii-network/scale/dag/ledger"
)

// A PolicyInfo says who may sign entries.
type PolicyInfo struct {
	Entry    int64               // index of the policy entry in force
	Curators []ledger.CuratorKey // admitted, ascending
	Own      ledger.CuratorKey   // the store's own key, admitted or not; zero if its file cannot be read
}

// Policy returns the policy in force.
func (s *Store) Policy(ctx context.Context) (PolicyInfo, error) {
	st := s.published.Load()
	if st.policy == nil {
		return PolicyInfo{}, fmt.Errorf("the ledger has no policy that can be read: %w", ErrCorrupt)
	}
	p := PolicyInfo{Entry: st.policyIndex, Curators: slices.Clone(st.policy.Curators)}
	if own, err := s.curator(); err == nil {
		p.Own = own.Curator()
	}
	return p, nil
}

// Curators returns the keys that the policy in force admits.
func (s *Store) Curators(ctx context.Context) ([]ledger.CuratorKey, error) {
	p, err := s.Policy(ctx)
	return p.Curators, err
}

// AddCurator admits a key from the next entry on, by a policy entry that signer
// signs; a nil signer is the store's own key. It returns the policy in force then and
// whether an entry was appended: a key that is admitted already changes nothing. When
// it returns nil the entry is durable. A policy holds at most ledger.MaxCurators keys.
// What ledger.CheckCuratorKey refuses is ErrInvalid.
func (s *Store) AddCurator(ctx context.Context, key ledger.CuratorKey, signer Signer) (p PolicyInfo, changed bool, err error) {
	return s.changePolicy(ctx, policyChange{key: key, admit: true}, signer)
}

// RemoveCurator admits a key no longer; what it signed before stays valid. It works
// like AddCurator, but takes what is no key as well: an old policy may name it. The last
// key cannot go: that is ErrLastCurator. When the store's own key goes, puts and changes
// that it would sign fail with ledger.ErrNotAdmitted.
func (s *Store) RemoveCurator(ctx context.Context, key ledger.CuratorKey, signer Signer) (p PolicyInfo, changed bool, err error) {
	return s.changePolicy(ctx, policyChange{key: key}, signer)
}

func (s *Store) changePolicy(ctx context.Context, c policyChange, signer Signer) (PolicyInfo, bool, error) {
	r, err := s.signedRequest(ctx, commitRequest{policy: &c, curator: signer})
	if err != nil {
		return PolicyInfo{}, false, err
	}
	// The caller may have gone meanwhile, and what is recorded is told all the same.
	p, err := s.Policy(context.WithoutCancel(ctx))
	return p, r.changed, err
}

// signedRequest commits a request that brings no data. The curator nil is the store's
// own.
func (s *Store) signedRequest(ctx context.Context, r commitRequest) (*commitRequest, error) {
	if err := s.appendable(); err != nil {
		return nil, err
	}
	var err error
	if r.curator, err = s.signer(r.curator); err != nil {
		return nil, err
	}
	_, err = s.commit(ctx, &r)
	return &r, err
}

// A policyChange admits a key, or admits it no longer.
type policyChange struct {
	key   ledger.CuratorKey
	admit bool
}

// change stages a policy entry, unless there is nothing to change.
func (st *stage) change(ctx context.Context, c *policyChange, curator Signer) (changed bool, err error) {
	keys := st.base.policy.Curators
	at, there := slices.BinarySearchFunc(keys, c.key, ledger.CuratorKey.Compare)
	if c.admit {
		if err := ledger.CheckCuratorKey(c.key); err != nil {
			return false, fmt.Errorf("%w: %w", err, ErrInvalid)
		}
	}
	if there == c.admit {
		return false, nil
	}
	if c.admit && len(keys) >= ledger.MaxCurators {
		return false, fmt.Errorf("add curator %v: the policy has %d already, which is the most: %w", c.key, len(keys), ErrInvalid)
	}
	keys = slices.Clone(keys)
	if c.admit {
		keys = slices.Insert(keys, at, c.key)
	} else {
		keys = slices.Delete(keys, at, at+1)
	}
	if !ledger.CanSign(keys) {
		return false, fmt.Errorf("remove curator %v: nobody could append any more; add another one first: %w", c.key, ErrLastCurator)
	}
	e := &ledger.Entry{Kind: ledger.KindPolicy, Curators: keys, Previous: -1}
	if _, err := st.add(ctx, e, staged{}, curator, nil); err != nil {
		return false, fmt.Errorf("change the policy: %w", err)
	}
	return true, nil
}
