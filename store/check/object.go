package check

import (
	"context"

	"github.com/ipfs/go-cid"
)

// A link is a link of a node: what it names and the size of all that is below as it claims.
type link struct {
	codec  uint64
	digest hash
	tsize  uint64
}

// An object is what a link of a directory leads to.
type object struct {
	kind         byte // kindFile, kindLink, kindDir; 0 when it cannot be told
	loss         loss // the worst found in it; of a directory only its own node
	size, chunks uint64
	root         hash // of the chunk tree
	tsize        uint64
	target       string
	rows         uint64 // commitment rows that are missing
}

// memory keeps what was worked out, so that what versions share is not done
// again. When it is full it starts anew.
type memory struct {
	objects map[memoKey]object
	rows    map[hash]struct{} // commitment rows that are there
	trees   map[memoKey]tree
}

// A memoKey is a codec and the first bytes of a digest.
type memoKey [17]byte

func (r link) memo() (k memoKey) {
	k[0] = byte(r.codec)
	copy(k[1:], r.digest[:])
	return k
}

// maxMemo bounds each part of memory: some 60 MB.
const maxMemo = 1 << 19

// maxMemoTarget keeps the targets of links within that.
const maxMemoTarget = 64

func remember[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil || len(*m) >= maxMemo {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// object finds out what a link leads to. Of a file it goes through all chunks.
//
// Links with long targets are read again rather than remembered.
func (c *checker) object(ctx context.Context, r link) (object, error) {
	if o, ok := c.memo.objects[r.memo()]; ok {
		return o, nil
	}
	o, err := c.workOut(ctx, r)
	if err == nil && len(o.target) <= maxMemoTarget {
		remember(&c.memo.objects, r.memo(), o)
	}
	return o, err
}

func (c *checker) workOut(ctx context.Context, r link) (object, error) {
	if r.codec == cid.Raw {
		return c.rawFile(ctx, r)
	}
	n, err := c.node(ctx, r.digest)
	if err != nil || n.loss != whole {
		return object{loss: n.loss}, err
	}
	switch n.kind {
	case kindLink:
		return object{kind: kindLink, size: uint64(len(n.target)), tsize: n.bytes, target: n.target}, nil
	case kindDir:
		return object{kind: kindDir}, nil
	}
	return c.file(ctx, n)
}

// rawFile is a file of one chunk, or the empty one.
func (c *checker) rawFile(ctx context.Context, r link) (object, error) {
	o := object{kind: kindFile, root: emptyDigest}
	if r.digest == emptyDigest {
		return o, nil
	}
	row, l, err := c.getChunk(ctx, r.digest)
	if l == whole && uint64(row.size) != r.tsize {
		l = rowWrong
	}
	// The link is bound by the root of the dataset, the row is not.
	o.loss, o.size, o.chunks, o.tsize = l, r.tsize, 1, r.tsize
	o.root = chunkHash(r.digest, 0, uint32(r.tsize))
	return o, err
}

// A fileWalk goes through the DAG of one file.
type fileWalk struct {
	*checker
	o      object
	chunks fold
	err    error
}

func (c *checker) file(ctx context.Context, n node) (object, error) {
	w := &fileWalk{checker: c, o: object{kind: kindFile}}
	w.chunks.full = func(level int, _ uint64, h []hash) {
		if level > 0 {
			w.needRow(ctx, h)
		}
	}
	w.o.tsize, _, _ = w.node(ctx, n, 0, 0)
	w.o.root = w.chunks.root(func(level int, h []hash) {
		if level > 0 && len(h) > 1 {
			w.needRow(ctx, h)
		}
	})
	w.o.size = n.size
	return w.o, w.err
}

func (w *fileWalk) needRow(ctx context.Context, h []hash) {
	ok, err := w.haveRow(ctx, treeHash(h), hashRow)
	if w.err == nil {
		w.err = err
	}
	if !ok {
		w.o.rows++
	}
}

// lost keeps the worst: what a put mends counts less than what it does not.
func (w *fileWalk) lost(l loss) { w.o.loss = max(w.o.loss, l) }

// maxDepth is how far chunks can be below the root of a file of 2^62 bytes.
const maxDepth = 8

// node goes through a node of a file and returns what the link to it should
// claim, how many levels it is above its chunks, and how many these are. In the
// balanced form all children but the last are full and on one level.
func (w *fileWalk) node(ctx context.Context, n node, offset uint64, depth int) (tsize uint64, height int, chunks uint64) {
	tsize = n.bytes
	full := uint64(1) // chunks of a full child
	for i, l := range n.links {
		if w.err != nil {
			return
		}
		size := n.sizes[i]
		var t, k uint64
		h := 0
		if l.codec == cid.Raw {
			t, k = size, 1
			w.chunk(ctx, l.digest, offset, size)
		} else {
			var child node
			if child, w.err = w.checker.node(ctx, l.digest); child.loss != whole {
				w.lost(child.loss)
				return
			}
			if child.kind != kindFile || child.size != size || depth == maxDepth {
				w.lost(nodeWrong)
				return
			}
			t, h, k = w.node(ctx, child, offset, depth+1)
			if w.o.loss >= nodeMissing {
				return
			}
		}
		if i == 0 {
			height = h + 1
			for range h {
				full *= width
			}
		}
		if t != l.tsize || h+1 != height || k > full || i < len(n.links)-1 && k != full {
			w.lost(nodeWrong)
		}
		offset += size
		tsize += t
		chunks += k
	}
	return tsize, height, chunks
}

func (w *fileWalk) chunk(ctx context.Context, d hash, offset, size uint64) {
	w.o.chunks++
	w.chunks.push(chunkHash(d, offset, uint32(size)))
	r, l, err := w.getChunk(ctx, d)
	if err != nil {
		w.err = err
		return
	}
	if l == whole && uint64(r.size) != size {
		l = rowWrong
	}
	w.lost(l)
}

// haveRow says whether a commitment row of that name and type is there.
func (c *checker) haveRow(ctx context.Context, name hash, typ byte) (bool, error) {
	if _, ok := c.memo.rows[name]; ok {
		return true, nil
	}
	got, err := c.loadRow(ctx, name)
	if err != nil || got != typ {
		return false, err
	}
	remember(&c.memo.rows, name, struct{}{})
	return true, nil
}
