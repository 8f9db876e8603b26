package anchor

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

// A PathFunc returns the inclusion path of an entry in the tree of the first size
// entries, checked against that tree's root.
type PathFunc func(ctx context.Context, index, size int64) (tlog.RecordProof, error)

// Attach collects the receipts that cover an entry for a proof: of each chain the
// smallest final anchor, or the smallest that was seen if none is final. At is the size
// of the smallest final one, so that the proof's own checkpoint can be an anchored one;
// 0 if none is final.
func Attach(ctx context.Context, o Outbox, chains []string, entry int64, path PathFunc) (claims []Claim, at int64, err error) {
	for _, chain := range chains {
		r, err := Covering(ctx, o, chain, entry)
		if err != nil {
			return nil, 0, err
		}
		if r == nil {
			continue
		}
		p, err := path(ctx, entry, r.Size)
		if err != nil {
			return nil, 0, fmt.Errorf("entry :%d in the tree of %d entries that %s has: %w", entry, r.Size, chain, err)
		}
		claims = append(claims, Claim{Receipt: r.Receipt.Append(nil), Size: r.Size, Path: p})
		if r.State == Final && (at == 0 || r.Size < at) {
			at = r.Size
		}
	}
	return MergeClaims(nil, claims), at, nil
}

// RestoredRow returns the row of an anchor that is known by its receipt alone, as an
// extension brings it. Whether its checkpoint is the log's own is for the caller to
// check. Time is that of the block.
func RestoredRow(r Receipt, v Verifier) (*Row, error) {
	a, err := v.Open(r)
	if err != nil {
		return nil, err
	}
	c, _, err := ledger.ParseCheckpointUnverified(a.Checkpoint)
	if err != nil {
		return nil, fmt.Errorf("%w: transaction %s: %w", ErrForged, a.ID, err)
	}
	if c.Size < 1 || !r.Final {
		return nil, fmt.Errorf("%w: transaction %s: a tree of %d entries, final: %t", ErrForged, a.ID, c.Size, r.Final)
	}
	row := &Row{Chain: r.Chain, Size: c.Size, Checkpoint: a.Checkpoint, Attempt: 1, Tx: Tx{ID: a.ID, Raw: r.Raw}, Receipt: &r}
	row.become(Final, time.Unix(r.Time, 0), "restored from the ledger's extensions")
	return row, nil
}
