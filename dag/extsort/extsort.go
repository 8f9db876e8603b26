// Package extsort sorts records of which there may be more than memory should
// hold, such as the entries of a directory: nobody knows how many there are
// before the last one came.
//
// A [Space] bounds the memory that several [Sorter]s take together, those of a
// directory and of the ones that it lies in. As long as they fit, nothing is
// written. When they do not, the one that holds most is sorted and written to a
// temporary file as a run, and its records are merged from its runs when they
// are asked for. Only where records are being taken do blocks of the runs have
// to be in memory: a sorter that waits for others gives even these back.
//
// The package does no I/O of its own: the temporary file comes from the caller,
// by a [Scratch]. What is read back from it is compared with a checksum that
// stayed in memory.
package extsort

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
)

// ErrScratch reports that the temporary file failed. What the system said, of a
// full disk say, is wrapped beside it. It means nothing for what is sorted.
var ErrScratch = errors.New("temporary file")

// A File is a temporary file, which goes away when it is closed.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// A Scratch makes a temporary file. It is called when there is something to
// write and not before, at most once for a Space.
type Scratch func() (File, error)

// Options configures a Space. The zero value sorts in memory alone.
type Options struct {
	// Scratch is where what does not fit into memory goes. Without one all stays
	// in memory, however much it is.
	Scratch Scratch
	// Memory is how many bytes the sorters may hold together; 0 means 8 MiB. The
	// two blocks of 64 KiB that a merge needs are taken whatever it says.
	Memory int
}

const (
	// defaultMemory holds a directory of some 100,000 names.
	defaultMemory = 8 << 20
	// unit is the size of a segment of memory and of a block of the file.
	unitBits = 16
	unit     = 1 << unitBits
	// maxFan is how many runs are merged at once: more cost memory, fewer cost
	// passes over the file. 32 runs of 8 MiB are a million long names.
	maxFan = 64
	// MaxRecord bounds the key and value of a record together, in bytes.
	MaxRecord = unit / 2
)

// A Space bounds the memory of its sorters and has the file that they share.
// Only one goroutine may use a Space and its sorters.
type Space struct {
	scratch Scratch
	limit   int
	fan     int // runs that are merged at once
	used    int // bytes that the sorters hold, and those kept to be used again
	err     error

	live   []*Sorter // not closed
	closed []*Sorter // to be used again
	units  [][]byte  // to be used again
	refs   []ref     // to be used again, the largest there was

	file  File
	next  uint32   // blocks that the file has
	freed []uint32 // those that hold nothing
	out   []byte   // the block that is being filled
}

// New returns a Space without sorters.
func New(o Options) *Space {
	sp := &Space{scratch: o.Scratch, limit: o.Memory}
	if sp.limit <= 0 {
		sp.limit = defaultMemory
	}
	sp.fan = min(max(sp.limit/4/unit, 2), maxFan)
	if sp.scratch == nil {
		sp.limit = math.MaxInt
	}
	return sp
}

// Close gives memory and file back. Neither the Space nor its sorters can be
// used any more, though these may be closed. Closing again does nothing.
func (sp *Space) Close() error {
	file := sp.file
	*sp = Space{err: fmt.Errorf("%w: closed", ErrScratch)}
	if file != nil {
		if err := file.Close(); err != nil {
			return fmt.Errorf("close %w: %w", ErrScratch, err)
		}
	}
	return nil
}

// A Record is sorted by the bytes of its key. In which order records of one key
// come is not said.
type Record struct{ Key, Value []byte }

// A Sorter takes records and gives them back in order.
type Sorter struct {
	space *Space
	place int // in Space.live
	held  int // bytes of segs, refs and the blocks of merge

	// Records in memory, none of which reaches across segments. The first segment
	// grows up to a unit, because most directories are small; the others are units.
	segs   [][]byte
	refs   []ref
	sorted bool // refs are in order as they are

	runs []run // written so far

	// Once records are asked for:
	reading bool
	at      int       // refs before it were given
	merge   []*reader // of all runs; a heap, unless parked
	given   *reader   // whose record was given last, if it was one of a run: merge[0], unless parked
	parked  bool      // the readers hold no blocks
}

// A ref says where in memory a record is. The first bytes of the key decide most
// comparisons without a look at the others.
type ref struct {
	prefix     uint64
	at         uint32 // segment<<unitBits | place in it
	key, value uint16 // lengths
}

const (
	refSize = 16
	// keepRefs is how many refs a sorter keeps when it is closed.
	keepRefs = 4096
)

// prefixOf returns what orders most keys. Where prefixes are equal it says
// nothing, since a short key looks like one that ends in zeros.
func prefixOf(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

func compareKeys(prefix uint64, key []byte, prefix2 uint64, key2 []byte) int {
	if prefix != prefix2 {
		return cmp.Compare(prefix, prefix2)
	}
	return bytes.Compare(key, key2)
}

// Sorter returns an empty sorter.
func (sp *Space) Sorter() *Sorter {
	s := &Sorter{space: sp}
	if n := len(sp.closed); n > 0 {
		s, sp.closed = sp.closed[n-1], sp.closed[:n-1]
	}
	s.place, s.sorted = len(sp.live), true
	sp.live = append(sp.live, s)
	return s
}

// Close forgets the records. The sorter must not be used any more.
func (s *Sorter) Close() {
	sp := s.space
	if sp.err != nil {
		return // all that is left to do with this Space is to close it
	}
	s.unload()
	for _, r := range s.merge {
		sp.free(r.run)
	}
	for _, r := range s.runs {
		sp.free(r)
	}
	// What a directory of usual size needs is kept for the next one.
	if cap(s.refs) > keepRefs || len(s.segs) > 1 {
		s.giveMemory()
	} else if len(s.segs) == 1 {
		s.segs[0] = s.segs[0][:0]
	}
	last := len(sp.live) - 1
	sp.live[s.place] = sp.live[last]
	sp.live[s.place].place = s.place
	sp.live[last] = nil
	sp.live = sp.live[:last]
	*s = Sorter{space: sp, held: s.held, segs: s.segs, refs: s.refs[:0]}
	sp.closed = append(sp.closed, s)
}

// Add takes a record, whose bytes it copies.
func (s *Sorter) Add(key, value []byte) error {
	n := len(key) + len(value)
	if s.space.err != nil {
		return s.space.err
	}
	if n > MaxRecord || s.reading {
		return fmt.Errorf("record of %d bytes to be sorted, after the last one: %t", n, s.reading)
	}
	if last := len(s.segs) - 1; len(s.refs) == cap(s.refs) || last < 0 || cap(s.segs[last])-len(s.segs[last]) <= n {
		if err := s.grow(n + 1); err != nil {
			return err
		}
	}
	last := len(s.segs) - 1
	seg := s.segs[last]
	r := ref{prefix: prefixOf(key), at: uint32(last<<unitBits | len(seg)), key: uint16(len(key)), value: uint16(len(value))}
	if n := len(s.refs); n > 0 && s.sorted {
		before := s.refs[n-1]
		s.sorted = compareKeys(before.prefix, s.key(before), r.prefix, key) <= 0
	}
	s.refs = append(s.refs, r)
	s.segs[last] = append(append(seg, key...), value...)
	return nil
}

func (s *Sorter) key(r ref) []byte {
	return s.segs[r.at>>unitBits][r.at%unit:][:r.key]
}

func (s *Sorter) record(r ref) Record {
	b := s.segs[r.at>>unitBits][r.at%unit:]
	return Record{Key: b[:r.key:r.key], Value: b[r.key : int(r.key)+int(r.value)]}
}

// sort puts what is in memory in order.
func (s *Sorter) sort() {
	if !s.sorted {
		slices.SortFunc(s.refs, func(a, b ref) int {
			if a.prefix != b.prefix {
				return cmp.Compare(a.prefix, b.prefix)
			}
			return bytes.Compare(s.key(a), s.key(b))
		})
	}
	s.sorted = true
}

// Sorted yields the records in order, each once. No more can be added then. What
// it yields is valid until the next call of a method of any sorter of the Space.
func (s *Sorter) Sorted() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			r, ok, err := s.next()
			if err != nil {
				yield(Record{}, err)
			}
			if err != nil || !ok || !yield(r, nil) {
				return
			}
		}
	}
}

func (s *Sorter) next() (r Record, ok bool, err error) {
	if s.space.err != nil {
		return r, false, s.space.err
	}
	if !s.reading {
		err = s.begin()
	}
	if err == nil && len(s.merge) > 0 {
		err = s.advance()
	}
	if err != nil {
		return r, false, err
	}
	if s.at == len(s.refs) {
		if len(s.merge) == 0 {
			return r, false, nil
		}
	} else if m := s.refs[s.at]; len(s.merge) == 0 || s.merge[0].compare(m.prefix, s.key(m)) > 0 {
		s.at++
		return s.record(m), true, nil
	}
	s.given = s.merge[0]
	return s.given.Record, true, nil
}
