// Package rowpack makes rows smaller that are digests and little else: DAG nodes and
// commitment rows. Digests are random, so they are set aside; what is left between them
// repeats itself, and is sealed as one zstd frame. FORMAT.md of package store describes the
// bytes under "Packed rows".
//
// The node of a directory of 100 files, 5.9 kB, takes 3.8 (zstd by itself makes 3.9 of it, in
// twice the time), a row of 256 leaves of 10.8 kB takes 9.0, and the node of 256 chunks,
// 12.8 kB, takes 9.6. To open one takes 10 to 20 µs, to pack it twice as long.
//
// What is packed is not canonical, and nothing of it is checked but that it can be opened:
// who opens it compares the result with its name.
package rowpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"github.com/koii-network/scale/compress"
)

// ErrCorrupt reports a packed value that cannot be opened.
var ErrCorrupt = errors.New("corrupt packed row")

// Mark is the first byte of what is packed. No node and no commitment row begins with it.
const Mark = 0xc0

// digestLen is the length of the runs that are set aside.
const digestLen = 32

// minSize is the length of the shortest value that is packed: what is added, 20 bytes, has
// to be saved as well.
const minSize = 256

// A Packer packs and opens values. It is safe for concurrent use, and bounded: see
// compress.ShortSealer and compress.Opener.
type Packer struct {
	sealer  *compress.ShortSealer
	opener  *compress.Opener
	scratch sync.Pool // of *scratch
}

type scratch struct {
	gaps  []int
	inner []byte // what the frame opens to
	again []byte // what was packed, opened again
}

// New returns a Packer that opens frames with o, which stays its owner's.
func New(o *compress.Opener) (*Packer, error) {
	s, err := compress.NewShortSealer()
	if err != nil {
		return nil, err
	}
	return &Packer{sealer: s, opener: o}, nil
}

func (p *Packer) take() *scratch {
	if s, ok := p.scratch.Get().(*scratch); ok {
		return s
	}
	return new(scratch)
}

// Node packs a DAG node into dst[:0], or a larger slice. It returns the slice, and whether it
// holds what is to be stored: if packing saves less than an eighth, block is. What is packed
// was opened again and compared.
func (p *Packer) Node(dst, block []byte) ([]byte, bool) { return p.pack(dst, block, nodeGaps) }

// Row is Node for a commitment row. One of hashes has nothing but these.
func (p *Packer) Row(dst, row []byte) ([]byte, bool) {
	if len(row) == 0 || row[0] != leafRow {
		return dst, false
	}
	return p.pack(dst, row, leafGaps)
}

// pack packs value. gaps appends how many bytes are before each digest since the last.
func (p *Packer) pack(dst, value []byte, gaps func([]int, []byte) []int) ([]byte, bool) {
	if len(value) < minSize {
		return dst, false
	}
	s := p.take()
	defer p.scratch.Put(s)
	s.gaps, s.inner = gaps(s.gaps[:0], value), s.inner[:0]
	for _, gap := range s.gaps {
		s.inner = binary.AppendUvarint(s.inner, uint64(gap))
	}
	rest := value
	for _, gap := range s.gaps {
		s.inner = append(s.inner, rest[:gap]...)
		rest = rest[gap+digestLen:]
	}
	s.inner = append(s.inner, rest...)
	dst = binary.AppendUvarint(append(dst[:0], Mark), uint64(len(s.gaps)))
	dst = binary.AppendUvarint(dst, uint64(len(s.inner)))
	rest = value
	for _, gap := range s.gaps {
		dst = append(dst, rest[gap:gap+digestLen]...)
		rest = rest[gap+digestLen:]
	}
	if dst = p.sealer.Seal(dst, s.inner); len(dst) > len(value)-len(value)/8 {
		return dst, false
	}
	// A node that an encoder's error spoiled would take all below it along. To look takes less
	// than 0.3 % of the CPU of a put.
	again, err := p.Open(s.again[:0], dst, len(value))
	s.again = again
	return dst, err == nil && bytes.Equal(again, value)
}

// Open appends to dst what was packed, at most so many bytes, or value itself if it is not
// packed. It fails with ErrCorrupt and returns dst as it was. Whatever value holds, it
// allocates no more than twice as many.
func (p *Packer) Open(dst, value []byte, most int) ([]byte, error) {
	if len(value) == 0 || value[0] != Mark {
		return append(dst, value...), nil
	}
	rest := value[1:]
	count, n := uvarint(rest)
	rest = rest[n:]
	size, m := uvarint(rest)
	rest = rest[m:]
	if n == 0 || m == 0 || count > uint64(len(rest))/digestLen || size > uint64(most) {
		return dst, fmt.Errorf("%w: %d digests and %d other bytes in %d", ErrCorrupt, count, size, len(value))
	}
	digests, sealed := rest[:count*digestLen], rest[count*digestLen:]
	s := p.take()
	defer p.scratch.Put(s)
	inner, err := p.opener.Open(s.inner[:0], compress.Zstd, sealed, int(size))
	if err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	s.inner = inner
	s.gaps = s.gaps[:0]
	sum := uint64(0)
	for range count {
		gap, n := uvarint(inner)
		if n == 0 || gap > uint64(most) {
			return dst, fmt.Errorf("%w: it does not say where its digests belong", ErrCorrupt)
		}
		s.gaps, inner = append(s.gaps, int(gap)), inner[n:]
		sum += gap
	}
	if sum > uint64(len(inner)) || len(digests)+len(inner) > most {
		return dst, fmt.Errorf("%w: digests at byte %d of %d", ErrCorrupt, sum, len(inner))
	}
	if dst == nil {
		dst = make([]byte, 0, len(digests)+len(inner))
	}
	for _, gap := range s.gaps {
		dst = append(append(dst, inner[:gap]...), digests[:digestLen]...)
		inner, digests = inner[gap:], digests[digestLen:]
	}
	return append(dst, inner...), nil
}

// uvarint reads a number in its shortest form, and returns its length, or 0.
func uvarint(b []byte) (uint64, int) {
	v, n := binary.Uvarint(b)
	if n != (bits.Len64(v|1)+6)/7 {
		return 0, 0
	}
	return v, n
}
