package check

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// A loss says why a chunk, node or file cannot be read.
type loss uint8

const (
	whole         loss = iota
	chunkMissing       // no index row
	rowWrong           // the row is not one, or there is no such chunk at that place
	rowUnreadable      // the key-value store does not give it
	inDamage           // its frame lies in a damaged or missing part of a pack
	chunkDamaged       // its bytes do not hash to its name
	nodeMissing
	nodeDamaged
	nodeWrong // hashes to its name and is not what it should be
)

// A remedy says what to do about a loss. Of several the greatest is needed.
type remedy uint8

const (
	putAgain remedy = iota
	forgetFirst
	fromBackup
)

func (r remedy) String() string { return [...]string{doPut, doForget, doBackup}[r] }

var losses = [...]struct {
	what   string
	remedy remedy
}{
	chunkMissing:  {"a chunk is not in the index", putAgain},
	rowWrong:      {"the index does not say where a chunk is", forgetFirst},
	rowUnreadable: {"the index cannot be read at a chunk", fromBackup},
	inDamage:      {"a chunk lies where a pack is damaged or missing", forgetFirst},
	chunkDamaged:  {"a chunk's bytes do not hash to its name", forgetFirst},
	nodeMissing:   {"a node of its DAG is missing", putAgain},
	nodeDamaged:   {"a node of its DAG does not hash to its name", forgetFirst},
	nodeWrong:     {"a node of its DAG contradicts what should be there", fromBackup},
}

// packState is what is known of the packs. Until they are checked all is whole.
type packState struct {
	damage  map[uint32][]*stretch // by pack, in order
	bad     map[hash]loss         // single chunks
	damaged int                   // stretches and chunks in these
	full    bool                  // there were more than are kept

	confirmed uint64 // chunk rows found to be right
	frames    tally  // of all sound frames
	garbage   tally  // chunks there without an index row that points at them
}

// maxDamage bounds what is remembered of damage: some 100 MB.
const maxDamage = 1 << 20

// A stretch is a part of a pack that cannot be read.
type stretch struct {
	from, to int64
	why      string
	quiet    bool   // no damage unless a row points there
	lost     uint64 // chunks whose rows point there
}

// loss says whether a chunk can be read from where its row points.
func (p *packState) loss(digest hash, r chunkRow) loss {
	if p.stretch(r) != nil {
		return inDamage
	}
	return p.bad[digest]
}

// stretch returns the damage that a row points into.
func (p *packState) stretch(r chunkRow) *stretch {
	s := p.damage[r.pack]
	i, _ := slices.BinarySearchFunc(s, int64(r.off), func(s *stretch, off int64) int {
		if s.to <= off {
			return -1
		}
		return 1
	})
	if i < len(s) && s[i].from < int64(r.off)+int64(r.length) {
		return s[i]
	}
	return nil
}

// addStretch notes damage. The stretches of a pack are sorted once all are there.
func (c *checker) addStretch(pack uint32, s stretch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.quiet {
		if c.packs.damaged++; c.packs.damaged > maxDamage {
			c.packs.full = true
			return
		}
	}
	c.packs.damage[pack] = append(c.packs.damage[pack], &s)
}

func (c *checker) addBad(digest hash, l loss) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.packs.damaged++; c.packs.damaged > maxDamage {
		c.packs.full = true
		return
	}
	c.packs.bad[digest] = l
}

// checkPacks reads the headers of all frames, with Options.ReadData also what is
// in them, and compares them with the index rows.
func (c *checker) checkPacks(ctx context.Context) error {
	c.packs.damage, c.packs.bad = map[uint32][]*stretch{}, map[hash]loss{}
	dir := filepath.Join(c.dir, "packs")
	numbers, err := pack.List(dir)
	if err != nil {
		c.errorf("packs", "put the directory back: all data is in it", "the packs cannot be read: %v", err)
	}
	c.sum.Packs = len(numbers)
	last := c.lastTail()
	if last != noTail {
		c.addMissing(numbers, last.pack)
	}
	if err := c.readPacks(ctx, dir, numbers, last); err != nil {
		return err
	}
	for _, s := range c.packs.damage {
		slices.SortFunc(s, func(a, b *stretch) int { return cmp.Compare(a.from, b.from) })
	}
	c.sum.Chunks, c.sum.Plain, c.sum.Garbage = c.rows.sound, c.rows.plain, c.packs.garbage.plain
	if c.scanned && c.packs.confirmed != c.rows.sound {
		if err := c.findLost(ctx, dir, last); err != nil {
			return err
		}
	}
	c.reportPacks()
	return nil
}

// noTail stands for an end of the packs that is not known.
var noTail = tail{math.MaxUint32, math.MaxInt64}

// lastTail returns the durable end of the packs: all that index rows point at is
// before it.
func (c *checker) lastTail() tail {
	switch {
	case !c.scanned:
		return noTail
	case c.rows.tail != nil:
		return *c.rows.tail
	case c.rows.of['b'] > 0 || c.rows.totals != nil:
		c.errorf("tail", "do not put into this store: the next put would remove the packs. "+doBackup,
			"the row that says where the packs end is missing or damaged")
		return noTail
	}
	return tail{}
}

// addMissing notes the packs that should be there.
func (c *checker) addMissing(numbers []uint32, last uint32) {
	next := uint32(1)
	for _, n := range append(slices.Clone(numbers), last+1) {
		for ; next < n && next <= last; next++ {
			c.addStretch(next, stretch{to: math.MaxInt64, why: "the file is missing"})
		}
		next = n + 1
	}
}

// findLost counts the chunks whose rows point into damage, and finds the rows
// that point at no such chunk. Only then is every row compared with the header
// it points at: in the usual case all rows were met while the packs were read.
func (c *checker) findLost(ctx context.Context, dir string, last tail) error {
	var hits uint64
	err := c.eachChunkRow(ctx, func(_ hash, r chunkRow) {
		if s := c.packs.stretch(r); s != nil {
			s.lost++
			hits++
		}
	})
	if err != nil || c.packs.confirmed+hits == c.rows.sound {
		return err
	}
	h := headers{dir: dir, last: last}
	defer h.close()
	return c.eachChunkRow(ctx, func(d hash, r chunkRow) {
		if c.packs.stretch(r) == nil && !h.has(d, r) {
			c.addBad(d, rowWrong)
		}
	})
}

func (c *checker) eachChunkRow(ctx context.Context, f func(hash, chunkRow)) error {
	n := uint64(0)
	for kr, err := range c.db.Scan(ctx, []byte{'b'}, nil) {
		if err != nil {
			return c.rowError(ctx, err)
		}
		if n++; n%1024 == 0 {
			c.progress("index", n, c.rows.of['b'])
		}
		if r, ok := parseChunkRow(kr.Value); ok && len(kr.Key) == 33 {
			f(hash(kr.Key[1:]), r)
		}
	}
	return nil
}

// reportPacks says what is damaged, and compares the totals.
func (c *checker) reportPacks() {
	for _, n := range slices.Sorted(maps.Keys(c.packs.damage)) {
		for _, s := range c.packs.damage[n] {
			c.reportStretch(n, s)
		}
	}
	lost := map[loss]*Finding{}
	for _, d := range slices.SortedFunc(maps.Keys(c.packs.bad), func(a, b hash) int { return bytes.Compare(a[:], b[:]) }) {
		l := c.packs.bad[d]
		f := lost[l]
		if f == nil {
			f = &Finding{Severity: Error, What: "chunks that cannot be read: " + losses[l].what, Do: losses[l].remedy.String()}
			lost[l] = f
		}
		f.affect(dag.RawCID(d).String)
	}
	for _, l := range slices.Sorted(maps.Keys(lost)) {
		c.report("chunks", *lost[l])
	}
	if c.packs.full {
		c.warnf("chunks", "", "there is more damage than check remembers; run it again when this is mended")
	}
	if c.db == nil || !c.scanned {
		return
	}
	if g := c.packs.garbage; g.chunks > 0 {
		c.notef("garbage", "", "%d chunks (%d bytes) in the packs are of no use: puts that were broken off, or that ran side by side, leave such", g.chunks, g.plain)
	}
	c.compareTotals()
}

func (c *checker) reportStretch(n uint32, s *stretch) {
	where := fmt.Sprintf("pack %d, bytes %d to %d", n, s.from, s.to)
	if s.to == math.MaxInt64 {
		where = fmt.Sprintf("pack %d, from byte %d on", n, s.from)
	}
	if s.from == 0 {
		where = fmt.Sprintf("pack %d", n)
	}
	switch {
	case c.db == nil:
		if !s.quiet {
			c.errorf("packs", "", "%s: %s", where, s.why)
		}
	case s.lost > 0:
		c.errorf("packs", "bring the pack back from a backup, or "+doForget, "%s: %s: %d chunks cannot be read", where, s.why, s.lost)
	case !s.quiet:
		c.notef("packs", "", "%s: %s; no index row points there", where, s.why)
	}
}

// compareTotals compares the running totals with what is there. They count all
// that was ever indexed, so they lie between what has a row and what is in packs. What
// puts are said to have added is no bound: who uploads chunks before says it.
func (c *checker) compareTotals() {
	t := c.rows.totals
	if t == nil {
		if c.rows.of['b'] > 0 {
			c.warnf("totals", "sizes that scale stat prints are wrong; nothing else is", "the row of totals is missing or damaged")
		}
		return
	}
	low := tally{chunks: c.rows.sound, plain: c.rows.plain}
	high, sound := c.packs.frames, c.packs.damaged == 0
	if t.chunks < low.chunks || t.plain < low.plain ||
		sound && (t.chunks > high.chunks || t.plain > high.plain || t.packed > high.packed) {
		c.warnf("totals", "sizes that scale stat prints are wrong; nothing else is",
			"the totals are %+v, but at least %+v are indexed and %+v are in packs", *t, low, high)
	}
}
