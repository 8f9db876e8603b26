package check

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
)

// The first byte of a commitment row.
const (
	hashRow = 1
	leafRow = 2
)

// The kinds of file leaves.
const (
	kindFile = 1
	kindLink = 2
	kindDir  = 3
)

const (
	maxName   = 255
	maxPath   = 4096
	maxTarget = 4095
	// maxRow is what 256 leaves with the longest paths and targets take.
	maxRow = 1 + width*(1+1+4+maxPath+8+8+4+maxTarget+16)
)

// A leaf is a leaf of the file tree.
type leaf struct {
	kind         byte
	path         []byte
	size, chunks uint64
	root         hash
	target       []byte
}

// hash returns the leaf's hash in the tree. buf is scratch.
func (l *leaf) hash(buf []byte) (hash, []byte) {
	be := binary.BigEndian
	buf = append(buf[:0], 0, 2, l.kind)
	buf = be.AppendUint32(buf, uint32(len(l.path)))
	buf = append(buf, l.path...)
	buf = be.AppendUint64(buf, l.size)
	buf = be.AppendUint64(buf, l.chunks)
	switch l.kind {
	case kindFile:
		buf = append(buf, l.root[:]...)
	case kindLink:
		buf = be.AppendUint32(buf, uint32(len(l.target)))
		buf = append(buf, l.target...)
	}
	return sha256.Sum256(buf), buf
}

// chunkHash returns the hash of a chunk's leaf in the tree of its file.
func chunkHash(digest hash, offset uint64, size uint32) hash {
	var b [2 + 8 + 4 + sha256.Size]byte
	b[1] = 1
	binary.BigEndian.PutUint64(b[2:], offset)
	binary.BigEndian.PutUint32(b[10:], size)
	copy(b[14:], digest[:])
	return sha256.Sum256(b[:])
}

var errRow = errors.New("malformed")

// parseRow returns the type of a commitment row and the name that it should
// have. It accepts one encoding only.
func parseRow(b []byte) (typ byte, name hash, err error) {
	var hashes []hash
	r := reader{rest: b}
	switch typ = r.byte(); typ {
	case hashRow:
		for len(r.rest) > 0 && len(hashes) < width {
			var h hash
			copy(h[:], r.bytes(sha256.Size))
			hashes = append(hashes, h)
		}
		r.bad = r.bad || len(hashes) < 2
	case leafRow:
		hashes = r.leaves()
		r.bad = r.bad || len(hashes) == 0
	default:
		return 0, name, errRow
	}
	if !r.end() {
		return 0, name, errRow
	}
	return typ, treeHash(hashes), nil
}

// leaves reads front-coded leaves, each path greater than the one before.
func (r *reader) leaves() (hashes []hash) {
	var path, buf []byte
	for len(r.rest) > 0 && len(hashes) < width && !r.bad {
		shared, added := r.uvarint(), r.bytes(r.uvarint())
		if shared > uint64(len(path)) {
			r.bad = true
			return nil
		}
		old := path[shared:]
		if len(hashes) > 0 && (len(added) == 0 || len(old) > 0 && added[0] <= old[0]) {
			r.bad = true
		}
		path = append(path[:shared], added...)
		l := leaf{kind: r.byte(), path: path}
		switch l.kind {
		case kindFile:
			l.size, l.chunks = r.uvarint(), r.uvarint()
			if l.root = emptyDigest; l.chunks > 0 {
				copy(l.root[:], r.bytes(sha256.Size))
			}
		case kindLink:
			l.target = r.bytes(r.uvarint())
			l.size = uint64(len(l.target))
		case kindDir:
		default:
			r.bad = true
		}
		r.bad = r.bad || len(path) > maxPath || len(l.target) > maxTarget
		var h hash
		h, buf = l.hash(buf)
		hashes = append(hashes, h)
	}
	return hashes
}

// A reader takes bytes apart. What is not there sets bad and reads as zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// uvarint takes a number in its shortest form.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if r.bad || n != (bits.Len64(v|1)+6)/7 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) end() bool { return !r.bad && len(r.rest) == 0 }
