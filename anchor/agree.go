package anchor

import (
	"fmt"
	"strings"
)

// DefaultAgree returns how many of n endpoints have to say that a transaction is settled,
// has failed or is dead, if nothing else is configured: half of them, rounded up. So with
// one of two down anchors go on.
func DefaultAgree(n int) int { return (n + 1) / 2 }

// Agreed is the one rule by which endpoints decide about money and finality. Of n that are
// configured, say so many are of one mind, need are wanted at least, and against are those
// that answer and say otherwise; one that is merely behind is not among them. While
// anybody says otherwise it takes more than half of all: two that contradict each other
// decide nothing, one liar among three is outvoted.
func Agreed(say, against, need, n int) bool {
	return say >= need && (against == 0 || 2*say > n)
}

// Dissent puts in words what endpoints say that contradicts the others; both have the same
// length. It is empty where there are none.
func Dissent(who, what []string) string {
	parts := make([]string, len(who))
	for i := range who {
		parts[i] = fmt.Sprintf("%s says %s", who[i], what[i])
	}
	return strings.Join(parts, ", ")
}
