package check

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
)

// A ledgerCheck goes through the entries once, in order.
type ledgerCheck struct {
	*checker
	ctx  context.Context
	size int64 // of the newest checkpoint

	tree     fold
	inForce  int64 // index of the policy, -1 for none
	datasets uint64
	removals uint64
	policies uint64
	points   uint64 // checkpoints seen
	tiles    uint64
	lost     uint64 // entries that cannot be read
	err      error  // of the store, met where no error can be returned
}

// checkLedger recomputes the whole ledger from its entries.
func (c *checker) checkLedger(ctx context.Context) error {
	l := &ledgerCheck{checker: c, ctx: ctx, inForce: -1}
	l.tree.full = func(level int, i uint64, h []hash) { l.tile(level, i, h) }
	if err := l.findSize(); err != nil {
		return err
	}
	l.compareMark()
	for i := range l.size {
		if i%64 == 0 {
			c.progress("entries", uint64(i), uint64(l.size))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.step(i); err != nil {
			return err
		}
	}
	for level := range l.tree.levels {
		if v := &l.tree.levels[level]; len(v.pending) > 0 {
			l.tile(level, v.index, v.pending)
		}
	}
	l.compareCounts()
	if err := l.checkOutbox(); err != nil {
		return err
	}
	if n := l.rows.restored; n > l.size {
		l.errorf("restored", doBackup, "%d entries were restored, the ledger has %d", n, l.size)
	} else if n > 0 && !l.rows.resumed {
		l.notef("restored", "to append again run: scale log resume --log-key FILE", "the ledger was restored from its anchors and does not append")
	}
	c.sum.Entries, c.sum.Datasets = l.size, int64(l.datasets)
	if l.inForce < 0 && l.size > 0 {
		c.errorf("policy", doBackup, "no policy is in force: nobody may put")
	}
	if c.policy != nil {
		for _, k := range c.policy.Curators {
			if err := ledger.CheckCuratorKey(k); err != nil {
				c.warnf("policy", "run: scale curator remove "+k.String(), "the policy in force: %v", err)
			}
		}
	}
	return l.err
}

// findSize finds the newest checkpoint that is signed by the log.
func (l *ledgerCheck) findSize() error {
	newest := int64(-1)
	for r, err := range l.db.Scan(l.ctx, []byte{'c'}, nil) {
		if err != nil {
			return l.rowError(l.ctx, err)
		}
		if len(r.Key) != 9 || !index(r.Key[1:]) {
			continue // reported by the scan
		}
		n := int64(binary.BigEndian.Uint64(r.Key[1:]))
		cp, err := ledger.OpenCheckpoint(r.Value, l.verifier)
		if err == nil && cp.Size != n {
			err = fmt.Errorf("it is of size %d", cp.Size)
		}
		if err != nil {
			l.errorf("checkpoints", doBackup, "the checkpoint of size %d: %v", n, err)
			continue
		}
		newest = max(newest, n)
	}
	if newest < 1 {
		l.errorf("checkpoints", doBackup, "the ledger has no signed checkpoint")
	}
	l.size = max(newest, 0)
	return nil
}

// compareMark compares the newest checkpoint with the mark outside of Badger.
// Their roots are compared when the size is reached.
func (l *ledgerCheck) compareMark() {
	switch {
	case l.mark == nil:
	case l.mark.Size > l.size:
		l.errorf("highwater", doMark, "the log signed a ledger of %d entries, only %d are there: entries were lost, or an old copy was put in place", l.mark.Size, l.size)
	case l.mark.Size < l.size:
		l.warnf("highwater", "open the store once (run scale log): a crash between a commit and the mark is mended then",
			"the high-water mark is of %d entries, the ledger has %d", l.mark.Size, l.size)
	}
}

// step checks entry i and all that is derived from it.
func (l *ledgerCheck) step(i int64) error {
	d, err := l.get(l.ctx, rowKey('i', be64(i)))
	if err != nil {
		return err
	}
	var block []byte
	if len(d) == sha256.Size {
		if block, err = l.get(l.ctx, rowKey('e', d)); err != nil {
			return err
		}
	}
	h := leafHash(block)
	if block == nil || sha256.Sum256(block) != hash(d) {
		l.lost++
		l.errorf("entries", doBackup, "entry %d is missing or damaged: what it recorded can no longer be found or proven", i)
		if policy, err := l.get(l.ctx, rowKey('o', be64(i))); err != nil {
			return err
		} else if policy != nil {
			l.policy, l.inForce = nil, i
		}
		if h, err = l.tileHash(i); err != nil {
			return err
		}
	} else if err := l.entry(i, hash(d), block); err != nil {
		return err
	}
	l.tree.push(h)
	return l.compareRoot(i + 1)
}

// tileHash returns the leaf hash of an entry as its tile has it, so that one lost
// entry does not make all tiles look wrong.
func (l *ledgerCheck) tileHash(i int64) (h hash, err error) {
	b, err := l.get(l.ctx, tileKey(0, uint64(i)/width))
	if at := int(i%width) * len(h); at+len(h) <= len(b) {
		copy(h[:], b[at:])
	}
	return h, err
}

func tileKey(level int, i uint64) []byte { return rowKey('t', []byte{byte(level)}, be64(int64(i))) }

func (l *ledgerCheck) tile(level int, i uint64, h []hash) {
	l.tiles++
	b, err := l.get(l.ctx, tileKey(level, i))
	if err != nil {
		l.err = errors.Join(l.err, err)
		return
	}
	ok := len(b) == len(h)*sha256.Size
	for n := 0; ok && n < len(h); n++ {
		ok = hash(b[n*sha256.Size:]) == h[n]
	}
	if !ok {
		l.errorf("tiles", doBackup, "tile %d of level %d is not that of the entries: do not put into this store", i, level)
	}
}

// compareRoot compares the root so far with what was signed for this size.
func (l *ledgerCheck) compareRoot(size int64) error {
	b, err := l.get(l.ctx, rowKey('c', be64(size)))
	if err != nil {
		return err
	}
	marked := l.mark != nil && l.mark.Size == size
	if b == nil && !marked {
		return nil
	}
	root := tlog.Hash(l.tree.root(nil))
	if b != nil {
		l.points++
		cp, _, err := ledger.ParseCheckpointUnverified(b) // findSize verified those that count
		if err == nil && cp.Root != root {
			l.errorf("roots", doBackup, "the checkpoint of size %d signs root %v, the entries have %v", size, cp.Root, root)
		}
	}
	if marked && l.mark.Root != root {
		l.errorf("highwater", doMark, "the high-water mark names another tree of %d entries", size)
	}
	return nil
}

// entry checks a block whose digest is right.
func (l *ledgerCheck) entry(i int64, d hash, block []byte) error {
	bad := func(format string, args ...any) {
		l.errorf("entries", doBackup, "entry %d: %s", i, fmt.Sprintf(format, args...))
	}
	if at, err := l.getIndex(l.ctx, rowKey('x', d[:])); err != nil {
		return err
	} else if at != i {
		bad("the row of its place says %d", at)
	}
	e, err := ledger.ParseEntry(block)
	if err != nil {
		l.lost++
		bad("%v", err)
		return nil
	}
	if err := e.CheckSignature(l.logID()); err != nil {
		bad("%v", err)
	}
	if err := e.CheckSuccession(l.logID()); err != nil {
		bad("%v", err)
	}
	if e.Policy != l.inForce {
		bad("it names policy %d, in force is %d", e.Policy, l.inForce)
	}
	policy := l.policy
	if i == 0 {
		policy = e // entry 0 admits itself
	}
	if policy == nil {
		if l.lost == 0 {
			bad("no policy is there that admits its curator")
		}
	} else if err := ledger.CheckAdmitted(e, policy); err != nil {
		bad("%v", err)
	}
	if e.Kind == ledger.KindPolicy {
		l.policies++
		l.policy, l.inForce = e, i
		return l.need(i, rowKey('o', be64(i)), "the row that says that it is a policy")
	}
	if e.Kind == ledger.KindRemoval {
		l.removals++
		return l.removal(i, e, bad)
	}
	l.datasets++
	if err := l.parents(i, e, bad); err != nil {
		return err
	}
	return l.dataset(i, e, bad)
}

func (l *ledgerCheck) need(i int64, key []byte, what string) error {
	b, err := l.get(l.ctx, key)
	if err == nil && b == nil {
		l.errorf("entries", doBackup, "entry %d: %s is missing", i, what)
	}
	return err
}

func (l *ledgerCheck) parents(i int64, e *ledger.Entry, bad func(string, ...any)) error {
	for _, p := range e.Parents {
		d, err := dag.DigestOf(p)
		if err != nil {
			bad("parent %v: %v", p, err)
			continue
		}
		at, err := l.getIndex(l.ctx, rowKey('x', d[:]))
		if err != nil {
			return err
		}
		if at < 0 || at >= i {
			bad("its parent %v is not an entry before it", p)
		}
	}
	return nil
}

// dataset checks the rows by which a dataset is found, and that it follows the
// version of its name before.
func (l *ledgerCheck) dataset(i int64, e *ledger.Entry, bad func(string, ...any)) error {
	root, err := dag.DigestOf(e.Root)
	if err != nil {
		bad("root %v: %v", e.Root, err)
		return nil
	}
	if err := l.need(i, rowKey('k', root[:], be64(i)), "the row that finds it by its root"); err != nil {
		return err
	}
	b, err := l.get(l.ctx, rowKey('q', be64(i)))
	if err != nil {
		return err
	}
	p, ok := parsePut(b)
	if !ok {
		bad("the row of what its put added is missing or damaged")
		return nil
	}
	at, err := l.getIndex(l.ctx, nameKey(e.Name, p.version))
	if err != nil {
		return err
	}
	if at != i {
		bad("%s@%d, which it is, leads to entry %d", e.Name, p.version, at)
	}
	before := int64(-1)
	if p.version > 1 {
		if before, err = l.getIndex(l.ctx, nameKey(e.Name, p.version-1)); err != nil {
			return err
		}
	}
	if e.Previous != before || before >= i {
		bad("it follows entry %d, but version %d of %s is entry %d", e.Previous, p.version-1, e.Name, before)
	}
	return nil
}

// removal checks that it takes away a dataset, which alone have rows of puts, and that
// the name leads to it.
func (l *ledgerCheck) removal(i int64, e *ledger.Entry, bad func(string, ...any)) error {
	b, err := l.get(l.ctx, rowKey('q', be64(e.Previous)))
	if err != nil {
		return err
	}
	p, ok := parsePut(b)
	if !ok || e.Previous >= i {
		bad("it takes %s away, whose newest version it says is entry %d, which is no dataset before it", e.Name, e.Previous)
		return nil
	}
	for later, want := range []int64{e.Previous, i} {
		version := p.version + uint64(later)
		at, err := l.getIndex(l.ctx, nameKey(e.Name, version))
		if err != nil {
			return err
		}
		if at != want {
			bad("it takes %s away after version %d, which is entry %d, but %s@%d leads to entry %d", e.Name, p.version, e.Previous, e.Name, version, at)
		}
	}
	return nil
}

// compareCounts finds rows that belong to no entry: each entry was found to have
// its own, so there is one too many when the counts differ.
func (l *ledgerCheck) compareCounts() {
	if !l.scanned || l.lost > 0 {
		return // counts of what could not be seen say nothing
	}
	n := &l.rows.of
	for _, r := range []struct {
		prefix byte
		want   uint64
		what   string
	}{
		{'i', uint64(l.size), "entries"},
		{'x', uint64(l.size), "places of entries"},
		{'o', l.policies, "policies"},
		{'n', l.datasets + l.removals, "versions of names"},
		{'k', l.datasets, "roots"},
		{'q', l.datasets, "puts"},
		{'t', l.tiles, "tiles"},
		{'c', l.points, "checkpoints"},
	} {
		if n[r.prefix] > r.want {
			l.errorf("counts", doBackup, "there are %d rows of %s, the ledger accounts for %d: the others belong to nothing", n[r.prefix], r.what, r.want)
		}
	}
	// There may be more blocks of entries: those of puts under way, of those that were broken
	// off, and of those before which another came.
}
