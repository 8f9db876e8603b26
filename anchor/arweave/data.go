package arweave

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/everFinance/goar/types"
	"github.com/everFinance/goar/utils"
)

// A piece is the part of a body that goes into one chunk.
type piece struct {
	start, end int
	path       []byte // from the data root to the chunk
}

// A node is one of the tree whose root is a transaction's data root.
type node struct {
	id          [sha256.Size]byte
	end         int // of the bytes below, from the body's start
	hash        [sha256.Size]byte
	left, right *node // nil for leaves
}

// DataRoot returns the data root of a body as arweave-js cuts it: chunks of 256 KiB,
// the last two of one size where the last alone had less than 32 KiB.
func DataRoot(body []byte) [sha256.Size]byte { return grow(body).id }

// grow builds the tree.
func grow(body []byte) *node {
	var level []*node
	leaf := func(start, end int) {
		n := &node{end: end, hash: sha256.Sum256(body[start:end])}
		n.id = join(n.hash[:], number(end))
		level = append(level, n)
	}
	at := 0
	for rest := len(body); rest >= types.MAX_CHUNK_SIZE; rest = len(body) - at {
		size := types.MAX_CHUNK_SIZE
		if next := rest - size; next > 0 && next < types.MIN_CHUNK_SIZE {
			size = (rest + 1) / 2
		}
		leaf(at, at+size)
		at += size
	}
	leaf(at, len(body)) // which may be empty
	for len(level) > 1 {
		var above []*node
		for i := 0; i < len(level); i += 2 {
			l := level[i]
			if i+1 == len(level) {
				above = append(above, l)
				continue
			}
			r := level[i+1]
			above = append(above, &node{id: join(l.id[:], r.id[:], number(l.end)), end: r.end, left: l, right: r})
		}
		level = above
	}
	return level[0]
}

// join hashes the hashes of its parts.
func join(parts ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		s := sha256.Sum256(p)
		h.Write(s[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// number returns an offset as it is hashed, in 32 bytes.
func number(n int) []byte {
	b := make([]byte, types.NOTE_SIZE)
	binary.BigEndian.PutUint64(b[len(b)-8:], uint64(n))
	return b
}

// cut returns the data root of a body and the pieces to upload, in order. The library,
// which did not build the tree, has to find its way to every piece.
func cut(body []byte) (root [sha256.Size]byte, pieces []piece, err error) {
	top := grow(body)
	var walk func(n *node, start int, path []byte)
	walk = func(n *node, start int, path []byte) {
		if n.left == nil {
			if n.end > start {
				pieces = append(pieces, piece{start, n.end, utils.ConcatBuffer(path, n.hash[:], number(n.end))})
			}
			return
		}
		path = utils.ConcatBuffer(path, n.left.id[:], n.right.id[:], number(n.left.end))
		walk(n.left, start, path)
		walk(n.right, n.left.end, path)
	}
	walk(top, 0, nil)
	for _, p := range pieces {
		if v, ok := utils.ValidatePath(top.id[:], p.start, 0, len(body), p.path); !ok || v.LeftBound != p.start || v.RightBound != p.end {
			return root, nil, fmt.Errorf("arweave: data root %x does not lead to bytes %d to %d", top.id, p.start, p.end)
		}
	}
	return top.id, pieces, nil
}
