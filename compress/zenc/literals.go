package zenc

import "github.com/klauspost/compress/huff0"

// A literalsHeader is the header of a block's literals.
type literalsHeader struct {
	b [5]byte
	n int
}

func (h *literalsHeader) bytes() []byte { return h.b[:h.n] }

func newLiteralsHeader(v uint64, n int) (h literalsHeader) {
	for i := range h.b {
		h.b[i] = byte(v >> (8 * i))
	}
	h.n = n
	return h
}

// The types of the literals of a block.
const (
	rawLiterals        = 0
	rleLiterals        = 1
	compressedLiterals = 2
	treelessLiterals   = 3 // with the tree of the last block that had one
)

// literals returns the section of the block's literals, until the next block.
func (e *Encoder) literals() (literalsHeader, []byte) {
	lits := e.lits[:e.nLits]
	var (
		body   []byte
		reused bool
		err    = huff0.ErrIncompressible
	)
	four := len(lits) >= 1<<10 // streams, not one
	switch {
	case four:
		body, reused, err = huff0.Compress4X(lits, &e.huff)
	case len(lits) > 32:
		body, reused, err = huff0.Compress1X(lits, &e.huff)
	}
	if err != nil {
		return e.plainLiterals(lits, err == huff0.ErrUseRLE)
	}
	e.huff.Reuse = huff0.ReusePolicyAllow
	h := uint64(compressedLiterals)
	if reused {
		h = treelessLiterals
	}
	n, c := uint64(len(lits)), uint64(len(body)) // c < n, see WantLogLess
	switch {
	case !four:
		return newLiteralsHeader(h|n<<4|c<<14, 3), body
	case n < 1<<14:
		return newLiteralsHeader(h|2<<2|n<<4|c<<18, 4), body
	}
	return newLiteralsHeader(h|3<<2|n<<4|c<<22, 5), body
}

// plainLiterals returns the section of literals that are not coded. If same, all are equal.
func (e *Encoder) plainLiterals(lits []byte, same bool) (literalsHeader, []byte) {
	n, h := uint64(len(lits)), uint64(rawLiterals)
	if same {
		h, lits = rleLiterals, lits[:1]
	}
	switch {
	case n < 1<<5:
		return newLiteralsHeader(h|n<<3, 1), lits
	case n < 1<<12:
		return newLiteralsHeader(h|1<<2|n<<4, 2), lits
	}
	return newLiteralsHeader(h|3<<2|n<<4, 3), lits
}
