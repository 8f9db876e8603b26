package check

import (
	"errors"

	"github.com/koii-network/scale/compress"
)

// packMark begins a packed row; see FORMAT.md.
const packMark = 0xc0

// The formats of a store that this package reads.
const (
	formatPlain  = 1
	formatPacked = 2
)

var (
	errPacked   = errors.New("it is packed, and cannot be opened")
	errTooEarly = errors.New("it is packed, which it must not be in a store of format 1")
)

// unpack returns a node or a commitment row, of at most so many bytes, as it was before it
// was packed, if it was.
func (c *checker) unpack(b []byte, most uint64) ([]byte, error) {
	if len(b) == 0 || b[0] != packMark {
		return b, nil
	}
	if c.format < formatPacked {
		return nil, errTooEarly
	}
	r := reader{rest: b[1:]}
	count, size := r.uvarint(), r.uvarint()
	if r.bad || count > uint64(len(r.rest))/32 || size > most {
		return nil, errPacked
	}
	digests := reader{rest: r.bytes(32 * count)}
	opened, err := c.opener.Open(nil, compress.Zstd, r.rest, int(size))
	if err != nil {
		return nil, errPacked
	}
	// First how many bytes are before each digest, then these bytes.
	gaps, others := reader{rest: opened}, reader{rest: opened}
	for range count {
		others.uvarint()
	}
	var plain []byte
	for range count {
		plain = append(plain, others.bytes(gaps.uvarint())...)
		plain = append(plain, digests.bytes(32)...)
		if uint64(len(plain)) > most {
			return nil, errPacked
		}
	}
	plain = append(plain, others.rest...)
	if gaps.bad || others.bad || uint64(len(plain)) > most {
		return nil, errPacked
	}
	return plain, nil
}
