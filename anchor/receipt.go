package anchor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Bounds of the parts of a receipt in bytes.
const (
	maxChain = 32
	maxField = 128
	// MaxRaw is the largest transaction: a header on Arweave with 2,048 bytes of tags.
	MaxRaw = 16 << 10
	// MaxReceipt is the largest receipt.
	MaxReceipt = MaxRaw + maxChain + 2*maxField + 64
)

// ErrReceipt is a receipt that is not in its form.
var ErrReceipt = errors.New("malformed receipt")

// Append appends the receipt's one encoding, version 1 (SPEC.md): strings with their
// length before them, integers as unsigned varints in their shortest form.
func (r Receipt) Append(dst []byte) []byte {
	str := func(s string) { dst = append(binary.AppendUvarint(dst, uint64(len(s))), s...) }
	str(r.Chain)
	str(r.Network)
	dst = binary.AppendUvarint(dst, r.Height)
	str(r.Block)
	dst = binary.AppendUvarint(dst, uint64(max(r.Time, 0)))
	dst = binary.AppendUvarint(dst, r.Depth)
	if r.Final {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	str(string(r.Raw))
	return dst
}

// ParseReceipt reads what Append wrote, all of b.
func ParseReceipt(b []byte) (Receipt, error) {
	p := parser{b: b}
	r := Receipt{Chain: p.str(maxChain), Network: p.str(maxField), Height: p.int()}
	r.Block = p.str(maxField)
	r.Time = int64(p.int())
	r.Depth = p.int()
	final := p.int()
	r.Raw = []byte(p.str(MaxRaw))
	switch {
	case p.bad || len(p.b) != 0 || final > 1:
		return Receipt{}, ErrReceipt
	case r.Chain == "" || len(r.Raw) == 0:
		return Receipt{}, fmt.Errorf("%w: without chain or transaction", ErrReceipt)
	}
	r.Final = final == 1
	return r, nil
}

// A parser reads shortest varints and strings; after a mistake it returns zeros.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) int() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 || n > 1 && p.b[n-1] == 0 || v > math.MaxInt64 {
		p.bad, p.b = true, nil
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) str(most uint64) string {
	n := p.int()
	if n > most || n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return ""
	}
	s := string(p.b[:n])
	p.b = p.b[n:]
	return s
}
