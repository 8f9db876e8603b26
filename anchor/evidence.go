package anchor

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

// A Claim is a receipt as a proof carries it: with the size of the tree that was
// anchored, and the inclusion path of the proof's entry in that tree.
type Claim struct {
	Receipt []byte // as Receipt.Append writes it
	Size    int64
	Path    tlog.RecordProof
}

// EvidenceOptions says against what receipts are checked.
type EvidenceOptions struct {
	Index int64     // of the entry in its log
	Leaf  tlog.Hash // of the entry
	// Open verifies that a signed checkpoint is one of the log that the proof is of, by
	// the key that the verifier trusts.
	Open func(note []byte) (ledger.Checkpoint, error)
	// Verifiers by the name of their chain. Receipts of other chains prove nothing.
	Verifiers map[string]Verifier
	// Keys, if any, are those by which anchors count. Anyone can copy a checkpoint to a
	// chain, which harms nobody: the log's signature says that it is the log's.
	Keys []string
}

// Evidence is what became of one receipt offline.
type Evidence struct {
	Receipt    Receipt           // all but Raw is claimed; zero if it is malformed
	Size       int64             // that the proof states
	Anchored   Anchored          // what Raw says, if a verifier knows the chain
	Checkpoint ledger.Checkpoint // that was anchored; set if it is one of this log
	// Known says that there is a verifier for the chain. Without one nothing is proven,
	// and nothing refused.
	Known bool
	// KeyNamed says that EvidenceOptions.Keys names the transaction's signer.
	KeyNamed bool
	// Err wraps ErrForged if the receipt does not hold.
	Err error
}

// Holds says that the transaction is sound and anchors a checkpoint of this log that
// covers the entry. That it is on the chain is what an Observer finds out.
func (e *Evidence) Holds() bool { return e.Known && e.Err == nil }

// CheckEvidence checks receipts as far as bytes go, each by itself, in their order.
func CheckEvidence(claims []Claim, o EvidenceOptions) []Evidence {
	list := make([]Evidence, len(claims))
	for i, c := range claims {
		list[i] = Evidence{Size: c.Size}
		if err := list[i].check(c, o); err != nil {
			list[i].Err = fmt.Errorf("%w: %w", ErrForged, err)
		}
	}
	return list
}

func (e *Evidence) check(c Claim, o EvidenceOptions) (err error) {
	if e.Receipt, err = ParseReceipt(c.Receipt); err != nil {
		return err
	}
	v := o.Verifiers[e.Receipt.Chain]
	if v == nil {
		return nil
	}
	e.Known = true
	if e.Anchored, err = v.Open(e.Receipt); err != nil {
		return err
	}
	cp, err := o.Open(e.Anchored.Checkpoint)
	if err != nil {
		return fmt.Errorf("transaction %s holds no checkpoint of this log: %w", e.Anchored.ID, err)
	}
	e.Checkpoint = cp
	switch {
	case cp.Size != c.Size:
		return fmt.Errorf("transaction %s anchors a tree of %d entries, the proof says %d", e.Anchored.ID, cp.Size, c.Size)
	case cp.Size <= o.Index:
		return fmt.Errorf("transaction %s anchors a tree of %d entries, in which entry %d is not", e.Anchored.ID, cp.Size, o.Index)
	}
	if err := ledger.CheckInclusion(c.Path, cp.Size, cp.Root, o.Index, o.Leaf); err != nil {
		return fmt.Errorf("transaction %s: the entry is not in the tree that was anchored: %w", e.Anchored.ID, err)
	}
	e.KeyNamed = slices.Contains(o.Keys, e.Anchored.Signer)
	if len(o.Keys) > 0 && !e.KeyNamed {
		return fmt.Errorf("transaction %s was signed by %s, which is none of the anchor keys that you name", e.Anchored.ID, e.Anchored.Signer)
	}
	return nil
}

// Proven says in words what the receipt proves by itself.
func (e *Evidence) Proven() string {
	switch {
	case e.Err != nil:
		return "nothing: " + e.Err.Error()
	case !e.Known:
		return fmt.Sprintf("nothing: this program does not know the chain %q", e.Receipt.Chain)
	}
	key := "not checked by you"
	if e.KeyNamed {
		key = "an anchor key that you name"
	}
	return fmt.Sprintf("%s transaction %s holds this log's checkpoint of %d entries, this entry among them; its signer is %s (%s)",
		e.Receipt.Chain, e.Anchored.ID, e.Checkpoint.Size, e.Anchored.Signer, key)
}

// Claimed says in words what whoever added the receipt says that the chain said.
// Nothing of it is proven until the chain is asked.
func (e *Evidence) Claimed() string {
	r := &e.Receipt
	if r.Chain == "" {
		return ""
	}
	s := fmt.Sprintf("in block %s at height %d of network %s", r.Block, r.Height, r.Network)
	if r.Time > 0 {
		s += ", at " + time.Unix(r.Time, 0).UTC().Format(time.RFC3339)
	}
	if r.Final {
		return s + ", final"
	}
	return s + ", not final when the receipt was made"
}

// MergeClaims adds receipts to those that a proof has. Of one transaction the newer
// receipt stays, and one that is not final gives way to a final one of its chain. The
// order is that of a proof: by size, then bytewise.
func MergeClaims(old, more []Claim) []Claim {
	type tx struct{ chain, raw string }
	at := map[tx]int{}
	final := map[string]bool{}
	var out []Claim
	var receipts []Receipt
	for i, c := range slices.Concat(old, more) {
		r, err := ParseReceipt(c.Receipt)
		if err != nil {
			continue // it would prove nothing to anyone
		}
		final[r.Chain] = final[r.Chain] || r.Final
		k := tx{r.Chain, string(r.Raw)}
		j, there := at[k]
		switch {
		case !there:
			at[k] = len(out)
			out, receipts = append(out, c), append(receipts, r)
		case i >= len(old) && (r.Final || !receipts[j].Final):
			out[j], receipts[j] = c, r
		}
	}
	keep := out[:0]
	for i, c := range out {
		if receipts[i].Final || !final[receipts[i].Chain] {
			keep = append(keep, c)
		}
	}
	slices.SortFunc(keep, func(a, b Claim) int {
		if a.Size != b.Size {
			return int(max(-1, min(1, a.Size-b.Size)))
		}
		return bytes.Compare(a.Receipt, b.Receipt)
	})
	return keep
}
