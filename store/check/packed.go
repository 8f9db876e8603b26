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

var errPacked = errors.New("it is packed, and cannot be opened")

// unpack returns a node or a commitment row, of at most so many bytes, as it was before it
// was packed, if it was.
func (c *checker) unpack(b []byte, most uint64) ([]byte, error) {
	if !isPacked(b) {
		return b, nil
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

func isPacked(b []byte) bool { return len(b) > 0 && b[0] == packMark }

// checkFormat looks for packed rows in a store of a format that has none. They are read all
// the same: it is the number that is wrong.
func (c *checker) checkFormat() {
	if c.format < formatPacked && c.rows.packed > 0 {
		c.errorf("scale.json", "bring scale.json back from a backup, or set its format to 2 again",
			"%d rows are packed, which a store of format %d does not have: a build that reads no other takes them for damaged", c.rows.packed, c.format)
	}
}
