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

// maxLogs bounds the logs of a policy: all of it is read for each.
const maxLogs = 64

// ParsePolicy parses a C2SP tlog-policy file that names at least one log. A
// checkpoint satisfies it when any one of its logs, of which there are at most 64, signed
// it and the quorum of witnesses cosigned it. The quorum may count no component twice.
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
	if len(logs) > maxLogs {
		return nil, fmt.Errorf("policy: %d logs, limit %d", len(logs), maxLogs)
	}
	if err := checkGroups(lines); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
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

// checkGroups refuses a quorum that counts a component twice. Each is to count once, and
// groups of groups could otherwise lead to one on more ways than can be walked.
func checkGroups(lines []string) error {
	groups := map[string][]string{}
	var todo []string
	for _, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		switch f := strings.Fields(line); {
		case len(f) > 3 && f[0] == "group":
			groups[f[1]] = f[3:]
		case len(f) > 1 && f[0] == "quorum":
			todo = append(todo, f[1])
		}
	}
	seen := map[string]bool{}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		if seen[c] {
			return fmt.Errorf("the quorum counts %q twice", c)
		}
		seen[c] = true
		todo = append(todo[:len(todo)-1], groups[c]...)
	}
	return nil
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
