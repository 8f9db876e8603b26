package zenc

import "math/bits"

// An entry of a hash table is a position, and in the lowest bits more of the hash of the
// bytes there. Position 0 is none.
type entry uint32

const (
	posBits = 22
	tagBits = 32 - posBits
	tagMask = 1<<tagBits - 1

	// Tables stay within the second cache together: 512 and 128 KiB.
	longBits  = 17
	shortBits = 15
)

// minMatch is the shortest match that is looked for.
const minMatch = 4

// Where nothing was found for so many bytes (as power of two), every other position is
// skipped, after twice as many two of three, and so on, until one in mostStep is looked at.
const (
	skipSingle = 5
	skipDouble = 6
	mostStep   = 64
)

// How far from the end of a block, and of the input, the search stops, so that what it and
// the copying of literals read lies inside.
const (
	blockMargin = 12
	inputMargin = 32
)

// Hashes of the first bytes of v: the highest bits are the best.
func hash8(v uint64) uint64 { return v * 0xcf1bbcdcb7a56463 }
func hash6(v uint64) uint64 { return v << 16 * 227718039650203 }
func hash5(v uint64) uint64 { return v << 24 * 889523592379 }

func tag(hash uint64, tableBits int) entry {
	return entry(hash>>(64-tableBits-tagBits)) & tagMask
}

func at(pos int, t entry) entry { return entry(pos)<<tagBits | t }

// has reports whether the bytes at e have that tag.
func (e entry) has(tag entry) bool { return (e^tag)&tagMask == 0 }

// pos returns the position, 0 for none.
func (e entry) pos() int { return int(e >> tagBits) }

// same returns how many bytes from a on equal those from b on, up to end. b < a.
func same(src []byte, a, b, end int) int {
	from := a
	for a+8 <= end {
		if x := load64(src, a) ^ load64(src, b); x != 0 {
			return a - from + bits.TrailingZeros64(x)>>3
		}
		a += 8
		b += 8
	}
	for a < end && src[a] == src[b] {
		a++
		b++
	}
	return a - from
}

// emit adds the sequence of the literals src[from:to] and a match behind them.
func (e *Encoder) emit(src []byte, from, to int, back, length int) {
	n := to - from
	*(*[slack]byte)(e.lits[e.nLits:]) = [slack]byte(src[from:])
	for i := slack; i < n; i += slack {
		*(*[slack]byte)(e.lits[e.nLits+i:]) = [slack]byte(src[from+i:])
	}
	e.nLits += n
	e.seqs[e.nSeqs] = sequence{uint32(n), uint32(length - baseMatch), uint32(back)}
	e.nSeqs++
}

// rest adds the literals behind the last match.
func (e *Encoder) rest(lits []byte) { e.nLits += copy(e.lits[e.nLits:], lits) }

// A match is taken if its bytes would take more as literals than as a sequence: the bits of
// its offset and sequenceBits. What a literal takes is that of the block before, and at
// first, in sixteenths of a bit, firstBits. Without this the digits in tables of numbers are
// found far away and cost more than they save: they take 3.3 bits as literals.
const (
	sequenceBits = 8
	firstBits    = 5 * 16
	// enoughLits is how many literals tell what one takes.
	enoughLits = 1 << 10
	// alwaysPays is a length, about, from which on a match pays wherever it is.
	alwaysPays = 16
)

// setReach sets what matches are taken where literals take so many sixteenths of a bit.
func (e *Encoder) setReach(literal int) {
	for length := range e.reach {
		e.reach[length] = 1 << min(posBits, max(0, length*literal>>4-sequenceBits))
	}
}

// pays reports whether a match of that length, from so far away, is worth it.
func (e *Encoder) pays(length, back int) bool {
	return uint32(back) <= e.reach[min(uint(length), alwaysPays-1)]
}

// limits returns from where to where matches of a block may start.
func limits(src []byte, start, end int) (from, to int) {
	return max(1, start), min(end-blockMargin, len(src)-inputMargin)
}

// searchSingle finds the sequences of src[start:end], and returns where the last one ends.
func (e *Encoder) searchSingle(src []byte, start, end int) int {
	ip, limit := limits(src, start, end)
	done := start // what is before is in sequences
	last, last2 := e.last[0], e.last[1]
	for ip < limit {
		v := load64(src, ip)
		h := hash6(v)
		slot, t := &e.long[h>>(64-longBits)], tag(h, longBits)
		c := *slot
		*slot = at(ip, t)
		var length, next int
		if uint32(v>>8) == load32(src, ip+1-last) {
			ip++
			length = 4 + same(src, ip+4, ip+4-last, end)
			e.emit(src, done, ip, repeat, length)
			goto found
		}
		if c.has(t) {
			if m := c.pos(); m != 0 && uint32(v) == load32(src, m) {
				length = 4 + same(src, ip+4, m+4, end)
				if e.pays(length, ip-m) {
					for ip > done && m > 0 && src[ip-1] == src[m-1] {
						ip--
						m--
						length++
					}
					last, last2 = ip-m, last
					e.emit(src, done, ip, last+baseMatch, length)
					goto found
				}
			}
		}
		ip += min(1+(ip-done)>>skipSingle, mostStep)
		continue
	found:
		next = ip + length
		done = next
		if next < limit {
			e.putSingle(src, ip+2)
			e.putSingle(src, next-2)
			for next < limit && load32(src, next) == load32(src, next-last2) {
				length := 4 + same(src, next+4, next+4-last2, end)
				last, last2 = last2, last
				e.putSingle(src, next)
				e.emit(src, next, next, repeat, length)
				next += length
				done = next
			}
		}
		ip = next
	}
	e.last = [2]int{last, last2}
	return done
}

func (e *Encoder) putSingle(src []byte, pos int) {
	h := hash6(load64(src, pos))
	e.long[h>>(64-longBits)] = at(pos, tag(h, longBits))
}
