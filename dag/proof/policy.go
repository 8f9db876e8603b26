package proof

import (
	"fmt"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
)

// TrustKey returns the policy of trusting one log by its public key (a note
// vkey, "origin+id+key").
func TrustKey(vkey string) (torchwood.Policy, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("log key %q: %w", vkey, err)
	}
	if err := ledger.CheckOrigin(v.Name()); err != nil {
		return nil, fmt.Errorf("log key %q: %w", vkey, err)
	}
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(v.Name()), torchwood.SingleVerifierPolicy(v)), nil
}

// ParsePolicy parses a C2SP tlog-policy file that names at least one log. A
// checkpoint satisfies it when any one of its logs signed it and the quorum of
// witnesses cosigned it.
func ParsePolicy(b []byte) (torchwood.Policy, error) {
	// torchwood wants the signatures of all logs at once, the specification
	// those of one: so there is one policy for each log.
	lines := strings.Split(string(b), "\n")
	var logs []int
	for i, line := range lines {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "log" {
			logs = append(logs, i)
		}
	}
	if len(logs) == 0 {
		return nil, fmt.Errorf("%w: the policy names no log", ErrNoKey)
	}
	var all anyLog
	for _, keep := range logs {
		one := make([]string, len(lines))
		copy(one, lines)
		for _, i := range logs {
			if i != keep {
				one[i] = "" // keeps the line numbers of error messages
			}
		}
		p, err := torchwood.ParsePolicy([]byte(strings.Join(one, "\n")))
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		all = append(all, p)
	}
	return all, nil
}

// anyLog is satisfied when one of its policies is.
type anyLog []torchwood.Policy

func (a anyLog) Check(origin string, sigs []note.Signature) error {
	var err error
	for _, p := range a {
		if err = p.Check(origin, sigs); err == nil {
			return nil
		}
	}
	if len(a) == 1 {
		return err
	}
	return fmt.Errorf("none of the %d logs of the policy, with its quorum, signed a checkpoint of %q", len(a), origin)
}

func (a anyLog) Verifier(name string, hash uint32) (note.Verifier, error) {
	for _, p := range a {
		v, err := p.Verifier(name, hash)
		if _, unknown := err.(*note.UnknownVerifierError); !unknown {
			return v, err
		}
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
}
