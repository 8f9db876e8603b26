package store

import (
	"fmt"

	"github.com/koii-network/scale/dag/ledger"
)

// signers returns who signs the entries of those inputs that have no curator of their
// own, and checks that all who sign may: nil if nobody else is needed.
func (s *Store) signers(in []Input, o PutOptions) (Signer, error) {
	own := false
	for i := range in {
		if c := in[i].Curator; c == nil {
			own = true
		} else if err := s.checkSigning(c); err != nil {
			return nil, err
		}
	}
	if !own {
		return nil, nil
	}
	return s.signer(o.Curator)
}

// signer returns the curator, or for nil the store's own, and checks that it may sign.
func (s *Store) signer(curator Signer) (Signer, error) {
	if curator == nil {
		var err error
		if curator, err = s.curator(); err != nil {
			return nil, err
		}
	}
	return curator, s.checkSigning(curator)
}

// checkSigning says whether an entry of that curator could be appended now.
func (s *Store) checkSigning(curator Signer) error {
	if _, err := s.logKey(); err != nil {
		return err
	}
	st := s.published.Load()
	e := &ledger.Entry{Curator: curator.Curator()}
	if err := ledger.CheckAdmitted(e, st.policy); err != nil {
		return fmt.Errorf("%w: the policy in force, entry :%d, names %d others; sign with the key of one of them, or have one of them add this curator", err, st.policyIndex, len(st.policy.Curators))
	}
	return nil
}
