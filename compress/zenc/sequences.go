package zenc

import (
	"encoding/binary"
	"math/bits"
)

// A sequence is some literals and a match behind them.
type sequence struct {
	lits  uint32
	match uint32 // its length, less baseMatch
	back  uint32 // offsets + 3, or repeat: that of the last match
}

const (
	baseMatch = 3
	// repeat is the offset of the last match, or where there are no literals of the one
	// before it.
	repeat = 1
)

// How many extra bits a symbol of a length has, and its smallest value (RFC 8878, 3.1.1.3.2.1).
var (
	litBits = [symbols]uint8{16: 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	litCode [64]uint8 // of the lengths that need a table

	matchBits = [symbols]uint8{32: 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	matchCode [128]uint8
)

// standard are the tables that the format has for blocks with few sequences.
var standard [kinds]table

func init() {
	fillCodes(litCode[:], litBits[:])
	fillCodes(matchCode[:], matchBits[:])
	for kind, shares := range [kinds][]int16{
		litLen: {4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
			-1, -1, -1, -1},
		offset: {1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1},
		matchLen: {1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
			1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1},
	} {
		t := &standard[kind]
		t.log = [kinds]int{litLen: 6, offset: 5, matchLen: 6}[kind]
		t.n = copy(t.shares[:], shares)
		t.build()
	}
}

// fillCodes fills in the symbols of small lengths.
func fillCodes(codes, extra []uint8) {
	code, next := 0, 1<<extra[0]
	for v := range codes {
		if v == next {
			code++
			next += 1 << extra[code]
		}
		codes[v] = uint8(code)
	}
}

// The ways to name a table.
const (
	standardMode = iota
	singleMode
	describedMode
	repeatMode
)

// encodeSequences sets e.out to the section of the block's sequences.
func (e *Encoder) encodeSequences() {
	n := e.nSeqs
	out := e.out[:0]
	switch {
	case n < 128:
		out = append(out, byte(n))
	case n < 0x7f00:
		out = append(out, byte(n>>8+128), byte(n))
	default:
		out = append(out, 255, byte(n-0x7f00), byte((n-0x7f00)>>8))
	}
	if n == 0 {
		e.out = out
		return
	}
	counts := e.count()
	modes := len(out)
	out = append(out, 0)
	var tables [kinds]*table
	for kind := range tables {
		var mode byte
		tables[kind], mode, out = e.choose(out, kind, &counts[kind])
		out[modes] |= mode << (6 - 2*kind)
	}
	e.out = e.appendBits(out, &tables)
}

// count fills in the codes of the sequences, and returns how often each occurs.
func (e *Encoder) count() (counts [kinds][symbols]uint32) {
	seqs := e.seqs[:e.nSeqs]
	lits, backs, matches := e.codes[litLen][:len(seqs)], e.codes[offset][:len(seqs)], e.codes[matchLen][:len(seqs)]
	for i := range seqs {
		s := &seqs[i]
		l := uint8(bits.Len32(s.lits) + 18)
		if s.lits < uint32(len(litCode)) {
			l = litCode[s.lits]
		}
		m := uint8(bits.Len32(s.match) + 35)
		if s.match < uint32(len(matchCode)) {
			m = matchCode[s.match]
		}
		o := uint8(bits.Len32(s.back) - 1)
		lits[i], backs[i], matches[i] = l, o, m
		counts[litLen][l%symbols]++
		counts[offset][o%symbols]++
		counts[matchLen][m%symbols]++
	}
	return counts
}

// choose returns the table that takes least for symbols that occur so often, the mode that
// says which it is, and dst with its description.
func (e *Encoder) choose(dst []byte, kind int, all *[symbols]uint32) (*table, byte, []byte) {
	n, distinct := 0, 0
	for s, c := range all {
		if c > 0 {
			n = s + 1
			distinct++
		}
	}
	counts := all[:n]
	t := &e.made[kind][0]
	if e.used[kind] == t {
		t = &e.made[kind][1]
	}
	if distinct == 1 {
		*t = table{}
		e.used[kind] = nil
		return t, singleMode, append(dst, byte(n-1))
	}
	log := max(minLog, bits.Len(uint(distinct)), min(maxLog[kind], bits.Len(uint(e.nSeqs))-2))
	t.share(counts, e.nSeqs, log)
	described := t.appendShares(dst)
	fresh := t.cost(counts) + 8*(len(described)-len(dst))
	fixed := standard[kind].cost(counts)
	if u := e.used[kind]; u != nil && u.cost(counts) <= min(fresh, fixed) {
		return u, repeatMode, dst
	}
	if fixed <= fresh {
		e.used[kind] = &standard[kind]
		return &standard[kind], standardMode, dst
	}
	t.build()
	e.used[kind] = t
	return t, describedMode, described
}

// sequenceBytes is the most that a sequence takes: three states, extra bits of its lengths
// and of an offset, 9+8+9 + 16+16+22 bits.
const sequenceBytes = 10

// appendBits appends the sequences, the last one first, as a decoder reads from the end.
func (e *Encoder) appendBits(dst []byte, tables *[kinds]*table) []byte {
	n := e.nSeqs
	at := len(dst)
	if room := at + n*sequenceBytes + 16; cap(dst) < room {
		dst = append(make([]byte, 0, max(room, 2*cap(dst))), dst...)
	}
	out := dst[:cap(dst)]
	seqs := e.seqs[:n]
	lits, backs, matches := e.codes[litLen][:n], e.codes[offset][:n], e.codes[matchLen][:n]
	lt, ot, mt := tables[litLen], tables[offset], tables[matchLen]
	i := n - 1
	l, o, m := lits[i], backs[i], matches[i]
	ls, os, ms := lt.start(l), ot.start(o), mt.start(m)
	var acc uint64 // whose lowest used bits are not written
	var used uint
	for {
		s := &seqs[i]
		lb, mb := uint(litBits[l%symbols]), uint(matchBits[m%symbols])
		acc |= uint64(s.lits&(1<<(lb&31)-1)) << (used & 63)
		used += lb
		acc |= uint64(s.match&(1<<(mb&31)-1)) << (used & 63)
		used += mb
		binary.LittleEndian.PutUint64(out[at:], acc)
		at += int(used >> 3)
		acc >>= used & 56
		used &= 7
		acc |= uint64(s.back&(1<<(o&31)-1)) << (used & 63)
		used += uint(o)
		if i == 0 {
			break
		}
		i--
		l, o, m = lits[i], backs[i], matches[i]
		y := &ot.sym[o%symbols]
		b := (os + y.bits) >> 16
		acc |= uint64(os&(1<<(b&31)-1)) << (used & 63)
		used += uint(b)
		os = uint32(ot.state[uint32(int32(os>>(b&31))+y.first)%maxStates])
		y = &mt.sym[m%symbols]
		b = (ms + y.bits) >> 16
		acc |= uint64(ms&(1<<(b&31)-1)) << (used & 63)
		used += uint(b)
		ms = uint32(mt.state[uint32(int32(ms>>(b&31))+y.first)%maxStates])
		y = &lt.sym[l%symbols]
		b = (ls + y.bits) >> 16
		acc |= uint64(ls&(1<<(b&31)-1)) << (used & 63)
		used += uint(b)
		ls = uint32(lt.state[uint32(int32(ls>>(b&31))+y.first)%maxStates])
		binary.LittleEndian.PutUint64(out[at:], acc)
		at += int(used >> 3)
		acc >>= used & 56
		used &= 7
	}
	w := bitWriter{acc, int(used)}
	dst = w.flush(dst[:at])
	w.add(uint64(ms)&(1<<mt.log-1), mt.log)
	w.add(uint64(os)&(1<<ot.log-1), ot.log)
	w.add(uint64(ls)&(1<<lt.log-1), lt.log)
	w.add(1, 1) // where it ends
	return w.end(dst)
}

// start returns a state from which the last symbol is decoded without taking bits.
func (t *table) start(code uint8) uint32 {
	y := &t.sym[code%symbols]
	b := (y.bits + 1<<15) >> 16
	return uint32(t.state[int32((b<<16-y.bits)>>b)+y.first])
}
