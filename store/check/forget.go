package check

import (
	"context"

	"github.com/koii-network/scale/store/kv"
)

// forgetDamaged removes the rows of what was proven unreadable. It never touches
// the ledger, and nothing that could be read is lost by it.
func (c *checker) forgetDamaged(ctx context.Context, db kv.Store) error {
	if !c.scanned || c.sum.Packs == 0 && c.rows.of['b'] > 0 {
		c.warnf("forget", doBackup, "nothing was forgotten: the index or the packs cannot be read at all")
		return nil
	}
	var b kv.Batch
	flush := func() error {
		if err := db.Commit(ctx, &b); err != nil {
			return err
		}
		c.sum.Forgotten += uint64(b.Len())
		b.Reset()
		return nil
	}
	for r, err := range db.Scan(ctx, []byte{'b'}, nil) {
		if err != nil {
			return err
		}
		row, ok := parseChunkRow(r.Value)
		if ok && len(r.Key) == 33 && c.packs.loss(hash(r.Key[1:]), row) == whole {
			continue
		}
		if b.Delete(r.Key); b.Len() >= kv.MaxBatchRows/2 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	for _, k := range c.forget {
		if b.Delete(k); b.Len() >= kv.MaxBatchRows/2 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if c.sum.Forgotten > 0 {
		c.notef("forget", "put the datasets named above again under their names: what was forgotten is stored anew",
			"%d rows of what cannot be read were removed", c.sum.Forgotten)
	}
	return nil
}
