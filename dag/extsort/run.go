package extsort

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A run is records in order, in blocks of the file.
type run []block

// A block holds whole records: of each the lengths of key and value as uvarints,
// then both. A block of the file that it lies in may have been another's before.
type block struct {
	number uint32
	size   uint32 // bytes in use, at most unit
	sum    uint32 // CRC-32C of these
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (sp *Space) free(r run) {
	for _, b := range r {
		sp.freed = append(sp.freed, b.number)
	}
}

// fail makes an error stay: what the file has is not known any more.
func (sp *Space) fail(what string, err error) error {
	sp.err = fmt.Errorf("%s %w: %w", what, ErrScratch, err)
	return sp.err
}

// A runWriter writes a run. There is one at a time.
type runWriter struct {
	space *Space
	run   run
}

// add takes the next record of the run.
func (w *runWriter) add(r Record) error {
	sp := w.space
	if len(sp.out)+2*binary.MaxVarintLen16+len(r.Key)+len(r.Value) > unit {
		if err := w.flush(); err != nil {
			return err
		}
	}
	sp.out = binary.AppendUvarint(sp.out, uint64(len(r.Key)))
	sp.out = binary.AppendUvarint(sp.out, uint64(len(r.Value)))
	sp.out = append(append(sp.out, r.Key...), r.Value...)
	return nil
}

// flush writes the block that is being filled.
func (w *runWriter) flush() error {
	sp := w.space
	if len(sp.out) == 0 {
		return nil
	}
	if sp.file == nil {
		f, err := sp.scratch()
		if err != nil {
			return sp.fail("make", err)
		}
		sp.file = f
	}
	b := block{number: sp.next, size: uint32(len(sp.out)), sum: crc32.Checksum(sp.out, castagnoli)}
	if n := len(sp.freed); n > 0 {
		b.number, sp.freed = sp.freed[n-1], sp.freed[:n-1]
	} else {
		sp.next++
	}
	if _, err := sp.file.WriteAt(sp.out, int64(b.number)<<unitBits); err != nil {
		return sp.fail("write", err)
	}
	w.run, sp.out = append(w.run, b), sp.out[:0]
	return nil
}

// A reader takes the records of a run one after another.
type reader struct {
	run     run // not read to its end yet
	at, end int // of the record in the first block
	buf     []byte
	loaded  bool // buf holds the first block and Record is there

	Record
	prefix uint64
}

func (r *reader) compare(prefix uint64, key []byte) int {
	return compareKeys(r.prefix, r.Key, prefix, key)
}

// skip goes behind the record, whether it is loaded or not.
func (r *reader) skip(sp *Space) {
	r.at = r.end
	if r.at == int(r.run[0].size) {
		sp.freed = append(sp.freed, r.run[0].number)
		r.run, r.at, r.loaded = r.run[1:], 0, false
	}
}

// load gets the record that the reader stands at, which it is not behind.
func (r *reader) load(sp *Space) error {
	b := r.run[0]
	if !r.loaded {
		r.buf = r.buf[:b.size]
		if n, err := sp.file.ReadAt(r.buf, int64(b.number)<<unitBits); n < len(r.buf) { // at its end the file may say so
			return sp.fail("read", err)
		}
		if crc32.Checksum(r.buf, castagnoli) != b.sum {
			return sp.fail("read", errors.New("it does not hold what was written to it"))
		}
		r.loaded = true
	}
	rec, n, ok := parseRecord(r.buf[r.at:])
	if !ok {
		return sp.fail("read", errors.New("a record in it is malformed"))
	}
	r.Record, r.end, r.prefix = rec, r.at+n, prefixOf(rec.Key)
	return nil
}

// parseRecord returns the record at the start of b, and its length there.
func parseRecord(b []byte) (r Record, n int, ok bool) {
	key, i := binary.Uvarint(b)
	if i <= 0 {
		return r, 0, false
	}
	value, j := binary.Uvarint(b[i:])
	if j <= 0 {
		return r, 0, false
	}
	rest := b[i+j:]
	if key > MaxRecord || value > MaxRecord || key+value > uint64(len(rest)) {
		return r, 0, false
	}
	return Record{Key: rest[:key:key], Value: rest[key : key+value]}, i + j + int(key+value), true
}

// unload takes the blocks from the readers. They find them again.
func (s *Sorter) unload() {
	for _, r := range s.merge {
		if r.buf != nil {
			s.space.units = append(s.space.units, r.buf)
			s.held -= unit
		}
		r.buf, r.loaded = nil, false
	}
	s.parked = len(s.merge) > 0
}

// spill gives back all memory that the sorter holds. What is not in the file yet
// becomes a run.
func (s *Sorter) spill() error {
	s.unload()
	if s.at < len(s.refs) {
		s.sort()
		w := runWriter{space: s.space}
		for _, r := range s.refs[s.at:] {
			if err := w.add(s.record(r)); err != nil {
				return err
			}
		}
		if err := w.flush(); err != nil {
			return err
		}
		if s.reading {
			s.merge, s.parked = append(s.merge, &reader{run: w.run}), true
		} else {
			s.runs = append(s.runs, w.run)
		}
	}
	s.giveMemory()
	return nil
}

// begin makes the sorter ready to give its records back.
func (s *Sorter) begin() error {
	sp := s.space
	s.sort()
	// The readers need memory too, beside what was not written yet.
	if len(s.runs) > 0 && s.held+unit*min(len(s.runs)+1, sp.fan) > sp.limit {
		if err := s.spill(); err != nil {
			return err
		}
	}
	for len(s.runs) > sp.fan {
		n := min(sp.fan, len(s.runs)-sp.fan+1)
		r, err := s.join(s.runs[:n])
		if err != nil {
			return err
		}
		s.runs = append(s.runs[n:], r)
	}
	s.reading = true
	s.readers(s.runs)
	s.runs = nil
	return nil
}

func (s *Sorter) readers(runs []run) {
	for _, r := range runs {
		s.merge = append(s.merge, &reader{run: r})
	}
	s.given, s.parked = nil, len(runs) > 0
}

// join merges runs into one.
func (s *Sorter) join(runs []run) (run, error) {
	w := runWriter{space: s.space}
	s.readers(runs)
	for {
		if err := s.advance(); err != nil {
			return nil, err
		}
		if len(s.merge) == 0 {
			break
		}
		s.given = s.merge[0]
		if err := w.add(s.given.Record); err != nil {
			return nil, err
		}
	}
	err := w.flush()
	return w.run, err
}

// advance goes behind the record that was given last, so that the least record of
// all runs is that of merge[0], if there are more.
func (s *Sorter) advance() error {
	given := s.given
	s.given = nil
	if given != nil {
		given.skip(s.space)
	}
	if s.parked {
		return s.resume()
	}
	if given == nil {
		return nil
	}
	if len(given.run) == 0 {
		s.space.units = append(s.space.units, given.buf)
		s.held -= unit
		last := len(s.merge) - 1
		s.merge[0], s.merge[last] = s.merge[last], nil
		s.merge = s.merge[:last]
	} else if err := given.load(s.space); err != nil {
		return err
	}
	s.down(0)
	return nil
}

// resume loads the readers.
func (s *Sorter) resume() error {
	sp := s.space
	all := s.merge
	s.merge, s.parked = s.merge[:0], false
	for _, r := range all {
		if len(r.run) == 0 {
			continue
		}
		r.buf = sp.unit()
		s.held += unit
		s.merge = append(s.merge, r)
	}
	clear(all[len(s.merge):])
	if err := sp.shed(s); err != nil {
		return err
	}
	for _, r := range s.merge {
		if err := r.load(sp); err != nil {
			return err
		}
	}
	for i := len(s.merge)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
	return nil
}

// down puts merge[i] in its place in the heap below it.
func (s *Sorter) down(i int) {
	h := s.merge
	for {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < len(h) && h[c].compare(h[least].prefix, h[least].Key) < 0 {
				least = c
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
