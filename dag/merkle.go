package dag

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// The prefixes by which RFC 6962 keeps leaves and inner nodes apart.
const (
	leafPrefix = 0
	nodePrefix = 1
)

// The first byte of a leaf of each tree. Leaves of the ledger's own tree
// start with a CBOR map, 0xa0 or above.
const (
	chunkLeaf = 0x01
	fileLeaf  = 0x02
)

// emptyRoot is the RFC 6962 root of a tree without leaves: the chunk root of
// an empty file.
var emptyRoot Hash = sha256.Sum256(nil)

func hashNode(left, right *Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = nodePrefix
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// foldRoot returns the RFC 6962 root over h, which it overwrites. Combining
// neighbours level by level, and carrying a last odd one up as it is, splits
// at the same powers of two as the RFC's recursion.
func foldRoot(h []Hash) Hash {
	if len(h) == 0 {
		return emptyRoot
	}
	for len(h) > 1 {
		h = fold(h)
	}
	return h[0]
}

// fold combines neighbours, one level of foldRoot.
func fold(h []Hash) []Hash {
	n := 0
	for i := 0; i < len(h); i += 2 {
		if i+1 < len(h) {
			h[n] = hashNode(&h[i], &h[i+1])
		} else {
			h[n] = h[i]
		}
		n++
	}
	return h[:n]
}

// ChunkLeafHash returns the hash of a chunk's leaf in the tree of its file.
func ChunkLeafHash(c ChunkRef) Hash {
	var b [2 + 8 + 4 + sha256.Size]byte
	b[0], b[1] = leafPrefix, chunkLeaf
	binary.BigEndian.PutUint64(b[2:], c.Offset)
	binary.BigEndian.PutUint32(b[10:], c.Size)
	copy(b[14:], c.Digest[:])
	return sha256.Sum256(b[:])
}

// The type byte of a row.
const (
	hashRow = 0x01 // concatenated hashes
	leafRow = 0x02 // file leaves
)

// A rowBuilder makes the rows above the lowest of one tree, from the hashes
// that name the lowest. It holds one row for each level.
type rowBuilder struct {
	sink   Sink
	levels [][]Hash
	height int // levels in use
	buf    []byte
}

func (b *rowBuilder) push(level int, h Hash) error {
	if level == b.height {
		if b.height++; b.height > len(b.levels) {
			b.levels = append(b.levels, make([]Hash, 0, rowWidth))
		}
	}
	// A full row goes out only when another child comes: until then it may be
	// the top one.
	if len(b.levels[level]) == rowWidth {
		if err := b.flush(level); err != nil {
			return err
		}
	}
	b.levels[level] = append(b.levels[level], h)
	return nil
}

// flush moves the row of a level into the sink and its name one level up.
func (b *rowBuilder) flush(level int) error {
	name, err := b.write(level)
	if err != nil {
		return err
	}
	return b.push(level+1, name)
}

func (b *rowBuilder) write(level int) (Hash, error) {
	row := b.levels[level]
	b.levels[level] = row[:0]
	if len(row) == 1 {
		return row[0], nil // a row of one child is that child
	}
	b.buf = append(b.buf[:0], hashRow)
	for i := range row {
		b.buf = append(b.buf, row[i][:]...)
	}
	name := foldRoot(row)
	if err := b.sink.Row(name, b.buf); err != nil {
		return Hash{}, fmt.Errorf("store commitment row: %w", err)
	}
	return name, nil
}

// finish writes the last row of each level, returns the root and is ready for
// the next tree. At least one hash was pushed.
func (b *rowBuilder) finish() (Hash, error) {
	level := 0
	for ; level+1 < b.height; level++ {
		if err := b.flush(level); err != nil {
			return Hash{}, err
		}
	}
	b.height = 0
	return b.write(level)
}
