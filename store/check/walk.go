package check

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
)

// A ref is a link: what it names and the size of all that is below as it claims.
type ref struct {
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

func (r ref) memo() (k memoKey) {
	k[0] = byte(r.codec)
	copy(k[1:], r.digest[:])
	return k
}

// maxMemo bounds each part of memory: some 60 MB.
const maxMemo = 1 << 19

func remember[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil || len(*m) >= maxMemo {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// object finds out what a link leads to. Of a file it goes through all chunks.
func (c *checker) object(ctx context.Context, r ref) (object, error) {
	if o, ok := c.memo.objects[r.memo()]; ok {
		return o, nil
	}
	o, err := c.workOut(ctx, r)
	if err == nil {
		remember(&c.memo.objects, r.memo(), o)
	}
	return o, err
}

func (c *checker) workOut(ctx context.Context, r ref) (object, error) {
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
func (c *checker) rawFile(ctx context.Context, r ref) (object, error) {
	o := object{kind: kindFile, root: emptyDigest}
	if r.digest == emptyDigest {
		return o, nil
	}
	row, l, err := c.getChunk(ctx, r.digest, nil)
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
	wrong  bool
	err    error
}

func (c *checker) file(ctx context.Context, n node) (object, error) {
	w := &fileWalk{checker: c, o: object{kind: kindFile}}
	w.chunks.full = func(level int, _ uint64, h []hash) {
		if level > 0 {
			w.needRow(ctx, h)
		}
	}
	w.o.tsize, _, _ = w.node(ctx, n, 0)
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

// node goes through a node of a file and returns what the link to it should
// claim, how many levels it is above its chunks, and how many these are. In the
// balanced form all children but the last are full and on one level.
func (w *fileWalk) node(ctx context.Context, n node, offset uint64) (tsize uint64, height int, chunks uint64) {
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
			if child.kind != kindFile || child.size != size {
				w.lost(nodeWrong)
				return
			}
			t, h, k = w.node(ctx, child, offset)
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
	r, l, err := w.getChunk(ctx, d, nil)
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

// A tree is what was found below the root of a dataset.
type tree struct {
	size, files, leaves, chunks uint64
	commitment                  hash
	rows                        uint64  // commitment rows that are missing or damaged
	lost                        Finding // what cannot be read
	worst                       loss
	remedy                      remedy
	tooMany                     bool // the walk was ended
}

// A treeWalk goes through a dataset in canonical order.
type treeWalk struct {
	*checker
	ctx   context.Context
	tree  tree
	limit uint64 // leaves
	fold  fold
	path  []byte
	buf   []byte
	err   error
}

// walk goes through the tree below a root that should have so many leaves.
func (c *checker) walk(ctx context.Context, root ref, limit uint64) (tree, error) {
	if t, ok := c.memo.trees[root.memo()]; ok {
		return t, nil
	}
	w := &treeWalk{checker: c, ctx: ctx, limit: limit}
	w.fold.full = func(level int, _ uint64, h []hash) { w.needRow(level, h) }
	o, err := c.object(ctx, root)
	if err != nil {
		return tree{}, err
	}
	switch o.kind {
	case kindDir:
		w.dir(root)
	case kindFile:
		w.leaf(o)
	default:
		w.lose(max(o.loss, nodeMissing))
	}
	w.tree.commitment = w.fold.root(func(level int, h []hash) {
		if level == 0 || len(h) > 1 {
			w.needRow(level, h)
		}
	})
	if w.err == nil && !w.tree.tooMany {
		remember(&c.memo.trees, root.memo(), w.tree)
	}
	return w.tree, w.err
}

func (w *treeWalk) needRow(level int, h []hash) {
	typ := byte(hashRow)
	if level == 0 {
		typ = leafRow
	}
	ok, err := w.haveRow(w.ctx, treeHash(h), typ)
	if w.err == nil {
		w.err = err
	}
	if !ok {
		w.tree.rows++
	}
}

// lose notes that what is at the path cannot be read.
func (w *treeWalk) lose(l loss) {
	w.tree.worst, w.tree.remedy = max(w.tree.worst, l), max(w.tree.remedy, losses[l].remedy)
	w.tree.lost.affect(func() string {
		if len(w.path) == 0 {
			return losses[l].what
		}
		return fmt.Sprintf("%q: %s", w.path, losses[l].what)
	})
}

// leaf adds a leaf at the path.
func (w *treeWalk) leaf(o object) {
	if o.loss != whole {
		w.lose(o.loss)
	}
	l := leaf{kind: o.kind, path: w.path, size: o.size, chunks: o.chunks, root: o.root, target: []byte(o.target)}
	var h hash
	h, w.buf = l.hash(w.buf)
	w.fold.push(h)
	w.tree.leaves++
	w.tree.rows += o.rows
	if o.kind == kindFile {
		w.tree.files++
		w.tree.size += o.size
		w.tree.chunks += o.chunks
	}
	w.tree.tooMany = w.tree.leaves > w.limit
}

// An entry is an entry of a directory.
type entry struct {
	ref
	name string
	dir  bool
}

// compare orders entries as leaves come: a directory as if its name ended in "/".
func (e entry) compare(f entry) int {
	n := min(len(e.name), len(f.name))
	if d := bytes.Compare([]byte(e.name[:n]), []byte(f.name[:n])); d != 0 {
		return d
	}
	return e.at(n) - f.at(n)
}

func (e entry) at(i int) int {
	switch {
	case i < len(e.name):
		return int(e.name[i])
	case i == len(e.name) && e.dir:
		return '/'
	}
	return -1
}

// dir goes through the directory at the path and returns what the link to it
// should claim.
func (w *treeWalk) dir(r ref) (tsize uint64) {
	if w.err = w.ctx.Err(); w.err != nil {
		return 0
	}
	entries, tsize, l, err := w.entries(r)
	if w.err = err; err != nil {
		return 0
	}
	if l != whole {
		w.lose(l)
		return 0
	}
	at := len(w.path)
	if at > 0 || len(entries) == 0 {
		w.path = append(w.path, '/')
	}
	if len(entries) == 0 {
		w.leaf(object{kind: kindDir})
	}
	slices.SortFunc(entries, entry.compare)
	prefix := len(w.path)
	for _, e := range entries {
		if w.err != nil || w.tree.tooMany {
			break
		}
		w.path = append(w.path[:prefix], e.name...)
		if len(w.path) > maxPath {
			w.lose(nodeWrong)
			break
		}
		w.entry(e)
	}
	w.path = w.path[:at]
	return tsize
}

func (w *treeWalk) entry(e entry) {
	o, err := w.object(w.ctx, e.ref)
	if err != nil {
		w.err = err
		return
	}
	switch o.kind {
	case 0:
		w.lose(o.loss)
		return
	case kindDir:
		lost := w.tree.lost.affected()
		o.tsize = w.dir(e.ref)
		if w.tree.lost.affected() > lost || w.tree.tooMany {
			return
		}
	default:
		w.leaf(o)
	}
	if o.tsize != e.tsize && o.loss < nodeMissing && w.err == nil {
		w.lose(nodeWrong)
	}
}

// entries reads a directory, sharded or not.
func (w *treeWalk) entries(r ref) (list []entry, tsize uint64, l loss, err error) {
	n, err := w.node(w.ctx, r.digest)
	if err != nil || n.loss != whole {
		return nil, 0, n.loss, err
	}
	if n.shard != nil {
		list, tsize, l, err = w.shard(n, nil, 0, 0)
	} else {
		tsize = n.bytes
		for i, k := range n.links {
			list = append(list, entry{ref: k, name: n.names[i]})
			tsize += k.tsize
		}
	}
	for i := 0; i < len(list) && l == whole && err == nil; i++ {
		e := &list[i]
		if e.codec == cid.Raw {
			continue
		}
		var o object
		o, err = w.object(w.ctx, e.ref)
		e.dir = o.kind == kindDir
	}
	return list, tsize, l, err
}

// shard adds the entries of a shard, whose names hash to prefix in their first
// level bytes.
func (w *treeWalk) shard(n node, list []entry, prefix uint64, level int) (_ []entry, tsize uint64, l loss, err error) {
	tsize = n.bytes
	for i, k := range n.links {
		here := prefix<<8 | uint64(n.shard[i])
		tsize += k.tsize
		if name := n.names[i]; name != "" {
			if nameHash(name)>>(56-8*level) != here {
				return nil, 0, nodeWrong, nil
			}
			list = append(list, entry{ref: k, name: name})
			continue
		}
		child, err := w.node(w.ctx, k.digest)
		if err != nil || child.loss != whole {
			return nil, 0, child.loss, err
		}
		if child.shard == nil || level == 7 {
			return nil, 0, nodeWrong, nil
		}
		var t uint64
		if list, t, l, err = w.shard(child, list, here, level+1); err != nil || l != whole {
			return nil, 0, l, err
		}
		if t != k.tsize {
			return nil, 0, nodeWrong, nil
		}
	}
	return list, tsize, whole, nil
}
