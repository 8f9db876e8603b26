package check

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
)

// checkDatasets goes through the tree of every dataset and compares it with its
// entry.
func (c *checker) checkDatasets(ctx context.Context) error {
	for i := range c.sum.Entries {
		c.progress("datasets", uint64(i), uint64(c.sum.Entries))
		d, err := c.get(ctx, rowKey('i', be64(i)))
		if err != nil {
			return err
		}
		block, err := c.get(ctx, rowKey('e', d))
		if err != nil {
			return err
		}
		e, err := ledger.ParseEntry(block)
		if err != nil || e.Kind != ledger.KindDataset {
			continue // a policy, or lost and reported with the ledger
		}
		b, err := c.get(ctx, rowKey('q', be64(i)))
		if err != nil {
			return err
		}
		ref := fmt.Sprintf(":%d", i) // should the version not be known
		if p, ok := parsePut(b); ok {
			ref = fmt.Sprintf("%s@%d", e.Name, p.version)
		}
		if err := c.checkDataset(ctx, ref, i, e); err != nil {
			return err
		}
	}
	return nil
}

// checkDataset checks the dataset of entry i, to which ref refers.
func (c *checker) checkDataset(ctx context.Context, ref string, i int64, e *ledger.Entry) error {
	name := fmt.Sprintf("%s (entry %d)", ref, i)
	d, err := dag.DigestOf(e.Root)
	if err != nil {
		return nil // reported with the ledger
	}
	root := link{codec: e.Root.Prefix().Codec, digest: d}
	if root.codec == cid.Raw {
		root.tsize = e.Size
	}
	t, err := c.walk(ctx, root, e.Leaves)
	if err != nil {
		return err
	}
	if restored := i < c.rows.restored; restored && (t.gone > 0 && t.gone == t.lostCount || t.worst == whole && t.rows > 0) {
		c.sum.Missing++
		c.report("missing blocks", Finding{
			Severity: Warning, Do: "put the very same data with: scale put --heal PATH",
			What: fmt.Sprintf("dataset %s was restored without its blocks: %d files or directories and %d commitment rows are not here", name, t.gone, t.rows),
		})
		return nil
	}
	if t.worst != whole {
		f := Finding{
			Severity: Error, What: fmt.Sprintf("dataset %s: %d files or directories cannot be read", name, t.lostCount),
			More: t.lostCount - uint64(len(t.lost)), Do: t.remedy.String(),
		}
		for _, l := range t.lost {
			at := ref
			if l.path != "" {
				at += "/" + l.path
			}
			f.Affected = append(f.Affected, at+": "+losses[l.loss].what)
		}
		c.report("datasets", f)
	}
	if t.tooMany {
		c.errorf("datasets", doBackup, "dataset %s: its tree has more than the %d leaves that its entry says", name, e.Leaves)
		return nil
	}
	if t.worst >= nodeMissing {
		return nil // what is missing cannot be counted
	}
	if t.size != e.Size || t.files != e.Files || t.leaves != e.Leaves || t.chunks != e.Chunks {
		c.errorf("datasets", doBackup, "dataset %s: its entry says %d bytes, %d files, %d leaves, %d chunks; its tree has %d, %d, %d, %d",
			name, e.Size, e.Files, e.Leaves, e.Chunks, t.size, t.files, t.leaves, t.chunks)
	}
	if t.commitment != e.Commitment {
		c.errorf("datasets", doBackup, "dataset %s: its entry commits to %x, its tree to %x: nothing in it can be proven", name, e.Commitment, t.commitment)
		return nil
	}
	if t.rows > 0 {
		c.errorf("datasets", doForget, "dataset %s: %d commitment rows are missing or damaged: files in it cannot be proven, though they can be read", name, t.rows)
	}
	return nil
}
