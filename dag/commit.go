package dag

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// A FileLeaf is a leaf of the file tree of a dataset: a file, a link, or a
// directory with nothing in it.
type FileLeaf struct {
	Kind      Kind
	Path      string // of an empty directory it ends in "/"
	Size      uint64 // bytes of a file; of a link, the length of its target
	Chunks    uint64 // KindFile
	ChunkRoot Hash   // KindFile
	Target    string // KindLink
}

// maxLeaf is the longest marshalled leaf.
const maxLeaf = 1 + 1 + 4 + MaxPath + 8 + 8 + 4 + MaxTarget

// check checks what the fields say together.
func (l *FileLeaf) check() error {
	if l.Kind != KindLink && l.Target != "" || l.Kind != KindFile && (l.Chunks != 0 || l.ChunkRoot != Hash{}) {
		return fmt.Errorf("leaf %q has fields of another kind: %w", l.Path, ErrFormat)
	}
	path := l.Path
	switch l.Kind {
	case KindFile:
		if err := l.checkFile(); err != nil {
			return err
		}
		if path == "" {
			return nil // a dataset of one stream
		}
	case KindLink:
		if err := checkTarget(l.Target); err != nil {
			return fmt.Errorf("leaf %q: %w: %w", l.Path, err, ErrFormat)
		}
		if l.Size != uint64(len(l.Target)) {
			return fmt.Errorf("leaf %q: size of a link is not that of its target: %w", l.Path, ErrFormat)
		}
	case KindDir:
		if l.Size != 0 {
			return fmt.Errorf("leaf %q: directory with a size: %w", l.Path, ErrFormat)
		}
		if path == "/" {
			return nil // an empty dataset
		}
		var ok bool
		if path, ok = strings.CutSuffix(path, "/"); !ok {
			return fmt.Errorf("leaf %q: directory without final slash: %w", l.Path, ErrFormat)
		}
	default:
		return fmt.Errorf("leaf %q: %v: %w", l.Path, l.Kind, ErrFormat)
	}
	if err := checkPath(path); err != nil {
		return fmt.Errorf("leaf: %w: %w", err, ErrFormat)
	}
	return nil
}

// checkFile checks the counts of a file.
func (l *FileLeaf) checkFile() error {
	// Every chunk has at least one byte and at most MaxBlock.
	if l.Size > maxFileSize || l.Chunks > l.Size || l.Chunks < (l.Size+MaxBlock-1)/MaxBlock {
		return fmt.Errorf("leaf %q: %d chunks for %d bytes: %w", l.Path, l.Chunks, l.Size, ErrFormat)
	}
	if l.Chunks == 0 && l.ChunkRoot != emptyRoot {
		return fmt.Errorf("leaf %q: empty file with a chunk root: %w", l.Path, ErrFormat)
	}
	return nil
}

// Marshal returns the bytes that the tree hashes.
func (l FileLeaf) Marshal() []byte { return l.append(make([]byte, 0, 64+len(l.Path)+len(l.Target))) }

func (l *FileLeaf) append(b []byte) []byte {
	b = append(b, fileLeaf, byte(l.Kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Path)))
	b = append(b, l.Path...)
	b = binary.BigEndian.AppendUint64(b, l.Size)
	b = binary.BigEndian.AppendUint64(b, l.Chunks)
	switch l.Kind {
	case KindFile:
		b = append(b, l.ChunkRoot[:]...)
	case KindLink:
		b = binary.BigEndian.AppendUint32(b, uint32(len(l.Target)))
		b = append(b, l.Target...)
	}
	return b
}

// Hash returns the hash of the leaf in the tree.
func (l FileLeaf) Hash() Hash {
	h, _ := l.hash(make([]byte, 0, 128+len(l.Path)+len(l.Target)))
	return h
}

// hash is Hash with a buffer to use again.
func (l *FileLeaf) hash(buf []byte) (Hash, []byte) {
	buf = l.append(append(buf[:0], leafPrefix))
	return sha256.Sum256(buf), buf
}

// ParseFileLeaf is the inverse of Marshal.
func ParseFileLeaf(b []byte) (FileLeaf, error) {
	c := cursor{rest: b}
	if len(b) > maxLeaf || c.byte() != fileLeaf {
		return FileLeaf{}, fmt.Errorf("not a file leaf: %w", ErrFormat)
	}
	l := FileLeaf{Kind: Kind(c.byte())}
	l.Path = string(c.bytes(uint64(c.uint32())))
	l.Size, l.Chunks = c.uint64(), c.uint64()
	switch l.Kind {
	case KindFile:
		copy(l.ChunkRoot[:], c.bytes(sha256.Size))
	case KindLink:
		l.Target = string(c.bytes(uint64(c.uint32())))
	}
	if !c.end() {
		return FileLeaf{}, fmt.Errorf("file leaf cut short or too long: %w", ErrFormat)
	}
	if err := l.check(); err != nil {
		return FileLeaf{}, err
	}
	return l, nil
}

// MaxRow is the largest row in bytes: 256 leaves with the longest paths and
// targets.
const MaxRow = 1 + rowWidth*(maxLeaf+16)

// A leafRowBuilder encodes a row of file leaves: the type byte, then for each
// leaf
//
//	uvarint  bytes that its path has in common with the one before
//	uvarint  bytes of its path that follow
//	bytes    these
//	byte     kind
//	file:    uvarint size, uvarint chunks, and unless that is 0 the chunk root
//	link:    uvarint length of the target, target
type leafRowBuilder struct {
	row    []byte
	hashes []Hash
	buf    []byte
	path   []byte // of the last leaf
}

func (b *leafRowBuilder) add(l *FileLeaf) {
	if len(b.hashes) == 0 {
		b.row = append(b.row[:0], leafRow)
		b.path = b.path[:0]
	}
	shared := sharedPrefix(b.path, l.Path)
	b.path = append(b.path[:0], l.Path...)
	b.row = binary.AppendUvarint(b.row, uint64(shared))
	b.row = binary.AppendUvarint(b.row, uint64(len(l.Path)-shared))
	b.row = append(b.row, l.Path[shared:]...)
	b.row = append(b.row, byte(l.Kind))
	switch l.Kind {
	case KindFile:
		b.row = binary.AppendUvarint(b.row, l.Size)
		b.row = binary.AppendUvarint(b.row, l.Chunks)
		if l.Chunks > 0 {
			b.row = append(b.row, l.ChunkRoot[:]...)
		}
	case KindLink:
		b.row = binary.AppendUvarint(b.row, uint64(len(l.Target)))
		b.row = append(b.row, l.Target...)
	}
	var h Hash
	h, b.buf = l.hash(b.buf)
	b.hashes = append(b.hashes, h)
}

func (b *leafRowBuilder) flush(s Sink) (Hash, error) {
	h := foldRoot(b.hashes)
	b.hashes = b.hashes[:0]
	if err := s.Row(h, b.row); err != nil {
		return h, fmt.Errorf("store commitment row: %w", err)
	}
	return h, nil
}

func sharedPrefix(a []byte, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// parseLeafRow is the inverse of what leafRowBuilder makes. It accepts
// nothing that the builder would write otherwise.
func parseLeafRow(row []byte) ([]FileLeaf, error) {
	c := cursor{rest: row}
	if len(row) > MaxRow || c.byte() != leafRow {
		return nil, fmt.Errorf("not a row of file leaves: %w", ErrFormat)
	}
	var leaves []FileLeaf
	var path []byte
	for len(c.rest) > 0 {
		if len(leaves) == rowWidth {
			return nil, fmt.Errorf("row of more than %d leaves: %w", rowWidth, ErrFormat)
		}
		shared := c.uvarint()
		suffix := c.bytes(c.uvarint())
		if c.bad || shared > uint64(len(path)) {
			return nil, fmt.Errorf("leaf %d of row: path: %w", len(leaves), ErrFormat)
		}
		// The whole common prefix must be used, and the path be greater.
		if rest := path[shared:]; len(leaves) > 0 && (len(suffix) == 0 || len(rest) > 0 && suffix[0] <= rest[0]) {
			return nil, fmt.Errorf("leaf %d of row: order: %w", len(leaves), ErrFormat)
		}
		path = append(path[:shared], suffix...)
		l := FileLeaf{Kind: Kind(c.byte()), Path: string(path)}
		switch l.Kind {
		case KindFile:
			l.Size, l.Chunks = c.uvarint(), c.uvarint()
			l.ChunkRoot = emptyRoot
			if l.Chunks > 0 {
				copy(l.ChunkRoot[:], c.bytes(sha256.Size))
			}
		case KindLink:
			l.Target = string(c.bytes(c.uvarint()))
			l.Size = uint64(len(l.Target))
		}
		if c.bad {
			return nil, fmt.Errorf("leaf %d of row: cut short: %w", len(leaves), ErrFormat)
		}
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("leaf %d of row: %w", len(leaves), err)
		}
		leaves = append(leaves, l)
	}
	if len(leaves) == 0 {
		return nil, fmt.Errorf("row without leaves: %w", ErrFormat)
	}
	return leaves, nil
}

// parseHashRow returns the hashes of a row above the lowest.
func parseHashRow(row []byte) ([]Hash, error) {
	n := (len(row) - 1) / sha256.Size
	if len(row) != 1+n*sha256.Size || row[0] != hashRow || n < 2 || n > rowWidth {
		return nil, fmt.Errorf("not a row of hashes: %w", ErrFormat)
	}
	hashes := make([]Hash, n)
	for i := range hashes {
		copy(hashes[i][:], row[1+i*sha256.Size:])
	}
	return hashes, nil
}

// A cursor takes apart what lies before it, within its bounds. After the
// first thing that is not there, bad is set and all others are zero.
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

func (c *cursor) byte() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint takes a varint of the shortest form.
func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.rest)
	if c.bad || n != uvarintLen(v) {
		c.bad = true
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

// end tells whether all was there and nothing is left.
func (c *cursor) end() bool { return !c.bad && len(c.rest) == 0 }
