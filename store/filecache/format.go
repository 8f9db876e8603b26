package filecache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

// See FORMAT.md. A cache of another version is as good as none, so the number changes
// with every change of the format.
const magic = "scale filecache 1\n"

const (
	frameSize = 8 // length and checksum before a block
	nonceSize = 16
	// blockSize is where a block ends: with the row or the chunk that passes it.
	blockSize = 64 << 10
	// maxBlock is the longest payload, in bytes.
	maxBlock = blockSize + maxRow + maxChunk
	maxRow   = 2*binary.MaxVarintLen64 + dag.MaxPath + 5*binary.MaxVarintLen64
	maxChunk = binary.MaxVarintLen32 + len(dag.Digest{})
)

// The first byte of a block's payload.
const (
	headBlock  = 'h'
	rowBlock   = 'r'
	chunkBlock = 'c' // goes on with the chunks of the last row
)

// errFormat reports bytes that no Writer writes.
var errFormat = errors.New("not a sound file cache")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is that of block n of a cache with this nonce.
func checksum(nonce *[nonceSize]byte, n uint64, payload []byte) uint32 {
	var at [nonceSize + 8]byte
	copy(at[:], nonce[:])
	binary.BigEndian.PutUint64(at[nonceSize:], n)
	return crc32.Update(crc32.Checksum(at[:], castagnoli), castagnoli, payload)
}

// A row is a file without its chunks.
type row struct {
	path  []byte
	stamp fstree.Stamp
}

// appendRow appends what tells r from the row before it in its block.
func appendRow(b []byte, before *row, path string, s fstree.Stamp) []byte {
	n := 0
	for n < len(before.path) && n < len(path) && before.path[n] == path[n] {
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	b = binary.AppendUvarint(b, uint64(len(path)-n))
	b = append(b, path[n:]...)
	b = binary.AppendVarint(b, int64(s.Dev-before.stamp.Dev))
	b = binary.AppendVarint(b, int64(s.Ino-before.stamp.Ino))
	b = binary.AppendUvarint(b, uint64(s.Size))
	b = binary.AppendVarint(b, s.Mtime-before.stamp.Mtime)
	return binary.AppendVarint(b, s.Ctime-s.Mtime)
}

// parseRow turns r, the row before in the block, into the one that b begins with, and
// returns what is behind it.
func parseRow(b []byte, r *row) ([]byte, error) {
	c := cursor{rest: b}
	shared, more := c.uvarint(), c.uvarint()
	if shared > uint64(len(r.path)) || more > dag.MaxPath-shared {
		return nil, errFormat
	}
	r.path = append(r.path[:shared], c.bytes(more)...)
	r.stamp.Dev += uint64(c.varint())
	r.stamp.Ino += uint64(c.varint())
	size := c.uvarint()
	r.stamp.Mtime += c.varint()
	r.stamp.Ctime = r.stamp.Mtime + c.varint()
	if r.stamp.Size = int64(size); c.bad || r.stamp.Size < 0 {
		return nil, errFormat
	}
	return c.rest, nil
}

func appendChunk(b []byte, d dag.Digest, size uint32) []byte {
	return append(binary.AppendUvarint(b, uint64(size)), d[:]...)
}

// parseChunk takes a chunk of at most left bytes.
func parseChunk(b []byte, left int64) (d dag.Digest, size uint32, rest []byte, err error) {
	c := cursor{rest: b}
	n := c.uvarint()
	copy(d[:], c.bytes(uint64(len(d))))
	if c.bad || n == 0 || n > uint64(left) || n > dag.MaxBlock {
		return d, 0, nil, errFormat
	}
	return d, uint32(n), c.rest, nil
}

// A cursor takes apart what lies before it, within its bounds. After the first thing
// that is not there, bad is set and all others are zero.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) bytes(n uint64) []byte {
	if c.bad || n > uint64(len(c.rest)) {
		c.bad = true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.rest)
	return v & c.took(n)
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.rest)
	return v & int64(c.took(n))
}

// took goes on by n bytes and returns a mask: nothing, if they were not sound.
func (c *cursor) took(n int) uint64 {
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.rest = c.rest[n:]
	return ^uint64(0)
}

// appendHead appends the payload of the first block.
func appendHead(b []byte, nonce *[nonceSize]byte, k key) []byte {
	b = append(append(b, headBlock), nonce[:]...)
	b = append(binary.AppendUvarint(b, uint64(len(k.profile))), k.profile...)
	return append(binary.AppendUvarint(b, uint64(len(k.root))), k.root...)
}

func parseHead(b []byte) (nonce [nonceSize]byte, k key, err error) {
	c := cursor{rest: b}
	kind := c.bytes(1)
	copy(nonce[:], c.bytes(nonceSize))
	k.profile = string(c.bytes(c.uvarint()))
	k.root = string(c.bytes(c.uvarint()))
	if c.bad || kind[0] != headBlock || len(c.rest) > 0 {
		return nonce, key{}, errFormat
	}
	return nonce, k, nil
}
