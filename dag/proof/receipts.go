package proof

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

// Bounds of the section of receipts.
const (
	MaxReceipts = 16
	MaxReceipt  = 17 << 10 // bytes of one
)

// A Receipt is evidence that a checkpoint of the log was on a chain, with what leads
// from the proof's entry to that checkpoint. Here only its form is checked; package
// anchor says what it proves.
type Receipt struct {
	Data []byte // in the encoding of anchor/SPEC.md
	Size int64  // of the tree that was anchored, above the entry's index
	// Path is the inclusion path of the entry in that tree. In a proof it is empty where
	// Size is that of the proof's own checkpoint: then Proof.Inclusion is the path.
	Path tlog.RecordProof
}

// pathLength is the number of hashes in the inclusion path of a leaf.
func pathLength(index, size int64) int {
	inner := bits.Len64(uint64(index ^ (size - 1)))
	return inner + bits.OnesCount64(uint64(index)>>inner)
}

func compareReceipts(a, b Receipt) int {
	if a.Size != b.Size {
		return int(max(-1, min(1, a.Size-b.Size)))
	}
	return bytes.Compare(a.Data, b.Data)
}

// SortReceipts puts receipts in the order of a proof and drops those that come twice.
func SortReceipts(list []Receipt) []Receipt {
	slices.SortFunc(list, compareReceipts)
	return slices.CompactFunc(list, func(a, b Receipt) bool { return compareReceipts(a, b) == 0 })
}

// checkReceipts holds the rules of the receipts' form.
func (p *Proof) checkReceipts() error {
	if len(p.Receipts) == 0 {
		return nil
	}
	if len(p.Receipts) > MaxReceipts {
		return fmt.Errorf("%w: %d receipts, at most %d", ErrFormat, len(p.Receipts), MaxReceipts)
	}
	own, _, err := ledger.ParseCheckpointUnverified(p.Checkpoint)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for i, r := range p.Receipts {
		switch {
		case len(r.Data) == 0 || len(r.Data) > MaxReceipt:
			return fmt.Errorf("%w: receipt of %d bytes", ErrFormat, len(r.Data))
		case r.Size <= p.Index || r.Size > ledger.MaxSize:
			return fmt.Errorf("%w: receipt of a tree of %d entries, which cannot hold entry %d", ErrFormat, r.Size, p.Index)
		case i > 0 && compareReceipts(p.Receipts[i-1], r) >= 0:
			return fmt.Errorf("%w: receipt %d is out of order, or there twice", ErrFormat, i)
		}
		for _, o := range p.Receipts[:i] {
			if bytes.Equal(o.Data, r.Data) {
				return fmt.Errorf("%w: receipt %d is there twice", ErrFormat, i)
			}
		}
		want := 0
		if r.Size != own.Size {
			want = pathLength(p.Index, r.Size)
		}
		if len(r.Path) != want {
			return fmt.Errorf("%w: receipt %d has a path of %d hashes, must have %d", ErrFormat, i, len(r.Path), want)
		}
	}
	return nil
}

// verifiedReceipts returns the receipts with the path of each.
func (p *Proof) verifiedReceipts(size int64) []Receipt {
	list := slices.Clone(p.Receipts)
	for i := range list {
		if list[i].Size == size {
			list[i].Path = p.Inclusion
		}
	}
	return list
}

// OpenCheckpoint reads another checkpoint of the log that the proof is of: it returns
// ErrRefused unless the same key signed it. Quorums of witnesses do not apply: what is
// anchored has the log's own signature only.
func (v *Verified) OpenCheckpoint(b []byte) (ledger.Checkpoint, error) {
	c, lines, err := ledger.ParseCheckpointUnverified(b)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if c.Origin != v.Checkpoint.Origin || lines[0].Hash != v.KeyID {
		return c, refuse("a checkpoint of %s+%08x, not of log %s+%08x", c.Origin, lines[0].Hash, v.Checkpoint.Origin, v.KeyID)
	}
	key, err := v.policy.Verifier(v.Checkpoint.Origin, v.KeyID)
	if err != nil {
		return c, refuse("%w", err)
	}
	if _, err := note.Open(b, note.VerifierList(key)); err != nil {
		return c, refuse("checkpoint: %w", err)
	}
	return c, nil
}

func appendReceipts(b []byte, list []Receipt) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, r := range list {
		b = binary.AppendUvarint(b, uint64(len(r.Data)))
		b = append(b, r.Data...)
		b = binary.AppendUvarint(b, uint64(r.Size))
		b = binary.AppendUvarint(b, uint64(len(r.Path)))
		for _, h := range r.Path {
			b = append(b, h[:]...)
		}
	}
	return b
}

func (d *decoder) receipts() []Receipt {
	// The shortest receipt has a byte, its length, a size and an empty path.
	n := d.count(4)
	if n == 0 || n > MaxReceipts {
		d.fail("%d receipts", n)
		return nil
	}
	list := make([]Receipt, n)
	for i := range list {
		r := &list[i]
		r.Data = d.bytes(d.uint())
		r.Size = int64(d.uint())
		for range d.count(tlog.HashSize) {
			r.Path = append(r.Path, tlog.Hash(d.hash()))
		}
	}
	return list
}

// SetReceipts gives the proof these receipts, each with its path, in their order and
// without the paths that the proof has already. The checkpoint has to be there.
func (p *Proof) SetReceipts(list []Receipt) error {
	own, _, err := ledger.ParseCheckpointUnverified(p.Checkpoint)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	list = SortReceipts(slices.Clone(list))
	for i := range list {
		if list[i].Size == own.Size {
			list[i].Path = nil
		}
	}
	p.Receipts = list
	return p.checkReceipts()
}
