package zenc

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// readShares reads the description of a table as RFC 8878, 4.1.1, tells a decoder to.
func readShares(t *testing.T, p []byte) (log int, shares []int16, length int) {
	t.Helper()
	pos := 0
	peek := func(n int) int {
		v := 0
		for i := range n {
			if at := pos + i; at/8 < len(p) {
				v |= int(p[at/8]>>(at%8)&1) << i
			}
		}
		return v
	}
	log = peek(4) + 5
	pos = 4
	for left := 1 << log; left > 0; {
		most := left + 1 // the values that may come are 0 to most
		n := bits.Len(uint(most))
		short := 1<<n - 1 - most
		v := peek(n - 1)
		if v < short {
			pos += n - 1
		} else {
			v = peek(n)
			pos += n
			if v >= 1<<(n-1) {
				v -= short
			}
		}
		shares = append(shares, int16(v-1))
		switch v {
		case 0:
			left--
		case 1:
			for again := true; again; {
				more := peek(2)
				pos += 2
				shares = append(shares, make([]int16, more)...)
				again = more == 3
			}
		default:
			left -= v - 1
		}
		if left < 0 || pos > 8*len(p) {
			t.Fatalf("description of %d bytes: %d states left, %d bits read", len(p), left, pos)
		}
	}
	return log, shares, (pos + 7) / 8
}

// Whatever the counts are, the shares are all the states, every symbol has one, and the
// description says them.
func TestShares(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		kind := r.IntN(kinds)
		counts := make([]uint32, 2+r.IntN([]int{35, 30, 52}[kind]))
		total, distinct := 0, 0
		sparse, scale := r.Float64(), math.Pow(10, 4*r.Float64())
		for s := range counts {
			if r.Float64() < sparse || s == len(counts)-1 || distinct == 0 && s == len(counts)-2 {
				counts[s] = 1 + uint32(r.ExpFloat64()*r.ExpFloat64()*scale)
				total += int(counts[s])
				distinct++
			}
		}
		log := max(minLog, bits.Len(uint(distinct)), min(maxLog[kind], bits.Len(uint(total))-2))
		var tab table
		tab.share(counts, total, log)
		p := tab.appendShares([]byte{})
		gotLog, shares, length := readShares(t, p)
		if gotLog != log || length != len(p) || len(shares) != len(counts) {
			t.Fatalf("%v: log %d read as %d, %d symbols as %d, %d bytes as %d", counts, log, gotLog, len(counts), len(shares), len(p), length)
		}
		for s, n := range shares {
			if n != tab.shares[s] || (counts[s] > 0) != (n != 0) {
				t.Fatalf("%v: symbol %d, %d times, has share %d, read as %d", counts, s, counts[s], tab.shares[s], n)
			}
		}
		// cost is the entropy of the counts under the shares, to a bit in a hundred.
		want := 0.0
		for s, c := range counts {
			if c > 0 {
				want += float64(c) * (float64(log) - math.Log2(math.Abs(float64(tab.shares[s]))))
			}
		}
		if got := float64(tab.cost(counts)); math.Abs(got-want) > 1+float64(total)/100 {
			t.Fatalf("%v: cost %.0f, want %.0f", counts, got, want)
		}
	}
}

// A table without states for a symbol that occurs cannot be taken.
func TestCostOfUnknown(t *testing.T) {
	var tab table
	tab.share([]uint32{5, 0, 7}, 12, 5)
	for _, counts := range [][]uint32{{1, 1, 1}, {1, 0, 1, 1}} {
		if tab.cost(counts) < unable {
			t.Errorf("%v cost %d", counts, tab.cost(counts))
		}
	}
}
