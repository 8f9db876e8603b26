package filecache

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"os"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

// A Reader finds files in a cache. One goroutine may use it. A nil Reader finds nothing.
type Reader struct {
	f     *os.File
	in    *bufio.Reader
	nonce [nonceSize]byte
	n     uint64 // blocks read
	block []byte
	rest  []byte // of the payload, not taken apart yet
	kind  byte   // of the block
	fresh bool   // none of its rows was taken apart

	row   row
	last  []byte // path of the row before
	begun bool   // there was one
	// A row is ahead as long as the walk has not come to it.
	ahead bool
	left  int64 // bytes of the file whose chunks were not given yet
	ended bool  // there is no more, or what there is is not sound
}

// open returns the cache of the tree at root, or nil if there is none that can be used.
func (d Dir) open(root, profile string) *Reader {
	k, err := keyOf(root, profile)
	if err != nil {
		return nil // the walk says what is wrong with root
	}
	f, err := openFile(d.path(k))
	if err != nil {
		return nil
	}
	r, err := newReader(f, k)
	if err != nil {
		f.Close()
		return nil
	}
	r.f = f
	return r
}

// newReader reads the beginning of a cache, which must have the key k.
func newReader(in io.Reader, k key) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 2*blockSize)}
	var text [len(magic)]byte
	if _, err := io.ReadFull(r.in, text[:]); err != nil || string(text[:]) != magic {
		return nil, errFormat
	}
	// The nonce is part of what it helps to check.
	payload, sum, err := r.frame()
	if err != nil {
		return nil, err
	}
	nonce, got, err := parseHead(payload)
	if err != nil || got != k || sum != checksum(&nonce, 0, payload) {
		return nil, errFormat
	}
	r.nonce, r.n = nonce, 1
	return r, nil
}

// Close gives back what the Reader holds.
func (r *Reader) Close() error {
	if r == nil {
		return nil
	}
	return r.f.Close()
}

// Find reports whether the file at path had the stamp s when its row was recorded. If
// so, Chunk gives its chunks. Paths must come in the order of a walk.
func (r *Reader) Find(path string, s fstree.Stamp) bool {
	if r == nil {
		return false
	}
	for r.ahead || r.next() {
		if r.ahead = string(r.row.path) > path; r.ahead {
			return false
		}
		if string(r.row.path) == path {
			return r.row.stamp == s
		}
	}
	return false
}

// Chunk returns the next chunk of the file that was found. Without ok the row is not
// sound: its chunks do not add up to the size of the file.
func (r *Reader) Chunk() (d dag.Digest, size uint32, ok bool) {
	for len(r.rest) == 0 {
		if r.left == 0 || !r.read() || r.kind != chunkBlock {
			r.left = 0
			return d, 0, false
		}
	}
	if r.left == 0 {
		return d, 0, false
	}
	var err error
	d, size, r.rest, err = parseChunk(r.rest, r.left)
	if err != nil {
		r.end()
		return d, 0, false
	}
	r.left -= int64(size)
	return d, size, true
}

// next goes to the next row.
func (r *Reader) next() bool {
	for r.left > 0 {
		if _, _, ok := r.Chunk(); !ok {
			break
		}
	}
	for len(r.rest) == 0 || r.kind == chunkBlock { // what is left there is of a row that went wrong
		if !r.read() {
			return false
		}
	}
	r.last = append(r.last[:0], r.row.path...)
	if r.fresh {
		r.row.path, r.row.stamp, r.fresh = r.row.path[:0], fstree.Stamp{}, false
	}
	rest, err := parseRow(r.rest, &r.row)
	if err != nil || r.begun && bytes.Compare(r.row.path, r.last) <= 0 {
		return r.end()
	}
	r.begun = true
	r.rest, r.left = rest, r.row.stamp.Size
	return true
}

// end gives up. It returns false.
func (r *Reader) end() bool {
	r.ended, r.rest, r.left = true, nil, 0
	return false
}

// read reads the next block.
func (r *Reader) read() bool {
	if r.ended {
		return false
	}
	payload, sum, err := r.frame()
	if err != nil || sum != checksum(&r.nonce, r.n, payload) || len(payload) < 2 || payload[0] != rowBlock && payload[0] != chunkBlock {
		return r.end()
	}
	r.n++
	r.kind, r.rest, r.fresh = payload[0], payload[1:], true
	return true
}

// frame reads a block, whose checksum is to be compared.
func (r *Reader) frame() (payload []byte, sum uint32, err error) {
	var h [frameSize]byte
	if _, err := io.ReadFull(r.in, h[:]); err != nil {
		return nil, 0, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n > uint32(maxBlock) {
		return nil, 0, errFormat
	}
	if cap(r.block) < int(n) {
		r.block = make([]byte, n, maxBlock)
	}
	r.block = r.block[:n]
	_, err = io.ReadFull(r.in, r.block)
	return r.block, binary.BigEndian.Uint32(h[4:]), err
}
