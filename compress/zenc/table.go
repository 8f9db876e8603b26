package zenc

import "math/bits"

// The kinds of symbols of a sequence, each with a table of its own, in the order in which
// the format lists them.
const (
	litLen = iota
	offset
	matchLen
	kinds
)

// No kind has as many symbols; indexes are masked with one less, which spares checks.
const symbols = 64

// maxLog is the most that the format allows for the logarithm of a table's size.
var maxLog = [kinds]int{litLen: 9, offset: 8, matchLen: 9}

const (
	minLog    = 5
	maxStates = 1 << 9
)

// A table codes symbols of one kind by tANS (finite state entropy). The zero value of
// shares, state and symbols codes a single symbol, with no bits.
type table struct {
	log    int            // of how many states it has
	n      int            // symbols
	shares [symbols]int16 // of the states: how many are a symbol's; -1: less than one, gets one
	state  [maxStates]uint16
	sym    [symbols]symbol
}

// A symbol says how one is coded from state s: the lowest (s+bits)>>16 bits of s go out,
// and what is left of it plus first is the index of the next state.
type symbol struct {
	bits  uint32
	first int32
}

// share divides the states of a table among the symbols, about by counts, whose sum is
// total. Of the counts at least two are not 0, and the last is not.
func (t *table) share(counts []uint32, total int, log int) {
	t.log, t.n = log, len(counts)
	left := 1 << log
	most := 0
	for s, c := range counts {
		if c == 0 {
			t.shares[s] = 0
			continue
		}
		if c > counts[most] {
			most = s
		}
		n := (int(c)<<(log+1) + total) / (2 * total)
		left -= max(1, n)
		if n == 0 {
			n = -1
		}
		t.shares[s] = int16(n)
	}
	// Where too many got one by rounding up, those with the most give them back.
	for left < 0 && int(t.shares[most])+left <= int(t.shares[most])*3/4 {
		for s := 0; s < t.n && left < 0; s++ {
			if t.shares[s] > 1 {
				t.shares[s]--
				left++
			}
		}
	}
	t.shares[most] += int16(left)
}

// build makes the states from the shares (RFC 8878, 4.1.1).
func (t *table) build() {
	size := 1 << t.log
	var owner [maxStates]uint8 // of each state
	var next [symbols + 1]uint16
	top := size // those with less than one state have the last ones
	for s, n := range t.shares[:t.n] {
		if n < 0 {
			n = 1
			top--
			owner[top] = uint8(s)
		}
		next[s+1] = next[s] + uint16(n)
	}
	at := 0
	for s, n := range t.shares[:t.n] {
		for ; n > 0; n-- {
			owner[at] = uint8(s)
			for at = (at + size>>1 + size>>3 + 3) & (size - 1); at >= top; {
				at = (at + size>>1 + size>>3 + 3) & (size - 1)
			}
		}
	}
	first := int32(0)
	for s, n := range t.shares[:t.n] {
		if n < 0 {
			n = 1
		}
		if n > 0 {
			most := uint32(t.log - bits.Len16(uint16(n-1)) + 1) // bits that go out
			if n == 1 {
				most = uint32(t.log)
			}
			t.sym[s] = symbol{most<<16 - uint32(n)<<most, first - int32(n)}
		}
		first += int32(n)
	}
	for i := range size {
		s := owner[i]
		t.state[next[s]] = uint16(size + i)
		next[s]++
	}
}

// appendShares appends the description of the table (RFC 8878, 4.1.1).
func (t *table) appendShares(dst []byte) []byte {
	var w bitWriter
	w.add(uint64(t.log-minLog), 4)
	for s, left := 0, 1<<t.log; left > 0; s++ {
		n := int(t.shares[s])
		// Of the left+2 values that may come the first few take one bit less.
		size := bits.Len(uint(left + 1))
		v, few := n+1, 1<<size-1-(left+1)
		switch {
		case v < few:
			w.add(uint64(v), size-1)
		case v < 1<<(size-1):
			w.add(uint64(v), size)
		default:
			w.add(uint64(v+few), size)
		}
		left -= max(n, -n)
		if n == 0 {
			// How many more symbols without a share follow, by threes.
			more := 0
			for ; t.shares[s+1] == 0; s++ {
				if more++; more == 3 {
					w.add(3, 2)
					more = 0
				}
			}
			w.add(uint64(more), 2)
		}
		dst = w.flush(dst)
	}
	return w.end(dst)
}

// unable is what symbols cost that a table has no states for.
const unable = 1 << 30

// cost returns about how many bits symbols take that occur so often.
func (t *table) cost(counts []uint32) int {
	if len(counts) > t.n {
		return unable
	}
	sum := 0
	for s, c := range counts {
		switch n := t.shares[s]; {
		case c == 0:
		case n == 0:
			return unable
		case n < 0:
			sum += int(c) * t.log << 8
		default:
			sum += int(c) * (t.log<<8 - int(log2x256[n]))
		}
	}
	return sum >> 8
}

// log2x256 has the logarithms of 1 to maxStates, times 256.
var log2x256 = func() (logs [maxStates + 1]uint16) {
	for i := 1; i <= maxStates; i++ {
		l := bits.Len(uint(i)) - 1
		// x is i as a fraction from 1 to 2. Each squaring gives one more bit.
		x := uint64(i) << (31 - l)
		for range 8 {
			x = x * x >> 31
			l <<= 1
			if x >= 1<<32 {
				x >>= 1
				l |= 1
			}
		}
		logs[i] = uint16(l)
	}
	return logs
}()

// A bitWriter collects bits, the first ones lowest.
type bitWriter struct {
	acc uint64
	n   int
}

func (w *bitWriter) add(v uint64, n int) {
	w.acc |= v << w.n
	w.n += n
}

func (w *bitWriter) flush(dst []byte) []byte {
	for ; w.n >= 8; w.n -= 8 {
		dst = append(dst, byte(w.acc))
		w.acc >>= 8
	}
	return dst
}

// end appends what is left, filled up to a byte.
func (w *bitWriter) end(dst []byte) []byte {
	if dst = w.flush(dst); w.n > 0 {
		dst = append(dst, byte(w.acc))
	}
	return dst
}
