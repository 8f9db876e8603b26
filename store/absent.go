package store

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/koii-network/scale/dag"
)

// An absence tells of most chunks without a row that they have none, without a look into the
// index: those take 3 to 5 µs, and most look-ups of a first import are of such. What it does
// not tell is looked up.
//
// It knows a store that had no rows of chunks when it was opened, until that has so many that
// it would tell little. For others all rows would have to be read, which costs as much for
// each as a look-up. It relies on what lookedUp relies on: rows of chunks are written by
// flushes alone, which tell it, and none goes while the store is open.
type absence struct {
	stored atomic.Pointer[filter] // what has a row; nil: tells nothing
}

// absenceKeys is how many chunks it is for, 50 to 100 GB of data: 3 MB.
const absenceKeys = 2 << 20

// begin is called when a store is opened that has no rows of chunks.
func (a *absence) begin() { a.stored.Store(newFilter(absenceKeys)) }

// tells says that a chunk has no row. If it does not, the chunk may have one.
func (a *absence) tells(d *dag.Digest) bool {
	f := a.stored.Load()
	return f != nil && !f.has(d)
}

// wrote says that chunks have rows, before anybody may rely on it that they are found. One
// call at a time.
func (a *absence) wrote(digests []dag.Digest) {
	f := a.stored.Load()
	if f == nil {
		return
	}
	for i := range digests {
		f.add(&digests[i])
	}
	if f.full() {
		a.stored.Store(nil)
	}
}

// A filter is a Bloom filter whose keys have all their bits in one line of the processor's
// cache, one in each of eight words. At 12 bits a key it takes 1 in 200 of others for its own.
// Digests are their own hashes.
type filter struct {
	lines [][8]atomic.Uint64
	keys  int
	most  int
}

func newFilter(keys int) *filter {
	return &filter{lines: make([][8]atomic.Uint64, keys*12/512+1), most: keys}
}

func (f *filter) line(d *dag.Digest) *[8]atomic.Uint64 {
	return &f.lines[binary.LittleEndian.Uint64(d[:])%uint64(len(f.lines))]
}

func (f *filter) has(d *dag.Digest) bool {
	l := f.line(d)
	for i := range l {
		if l[i].Load()>>(d[8+i]&63)&1 == 0 {
			return false
		}
	}
	return true
}

func (f *filter) add(d *dag.Digest) {
	l := f.line(d)
	for i := range l {
		l[i].Or(1 << (d[8+i] & 63))
	}
	f.keys++
}

// full says that it holds twice what it is for, and takes 1 in 10 for its own.
func (f *filter) full() bool { return f.keys > 2*f.most }
