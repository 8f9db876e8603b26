package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag/extsort"
)

// A tree is what was found below the root of a dataset.
type tree struct {
	size, files, leaves, chunks uint64
	commitment                  hash
	rows                        uint64     // commitment rows that are missing or damaged
	lost                        []lostPath // the first of what cannot be read
	lostCount                   uint64
	gone                        uint64 // of these, for want of a chunk or node that has no row
	worst                       loss
	remedy                      remedy
	tooMany                     bool // the walk was ended
}

type lostPath struct {
	path string
	loss loss
}

// A treeWalk goes through a dataset in canonical order.
type treeWalk struct {
	*checker
	ctx   context.Context
	tree  tree
	limit uint64 // leaves
	fold  fold
	path  []byte
	space *extsort.Space
	key   []byte
	buf   []byte
	err   error
}

// walk goes through the tree below a root that should have so many leaves.
func (c *checker) walk(ctx context.Context, root link, limit uint64) (tree, error) {
	if t, ok := c.memo.trees[root.memo()]; ok {
		return t, nil
	}
	w := &treeWalk{checker: c, ctx: ctx, limit: limit, space: extsort.New(c.opt.Sort)}
	defer w.space.Close()
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
	case kindLink:
		w.lose(nodeWrong) // no dataset is a link
	default:
		w.lose(o.loss)
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
	if l == chunkMissing || l == nodeMissing {
		w.tree.gone++
	}
	if w.tree.lostCount++; len(w.tree.lost) < maxAffected {
		w.tree.lost = append(w.tree.lost, lostPath{string(w.path), l})
	}
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

// dir goes through the directory at the path and returns what the link to it
// should claim.
func (w *treeWalk) dir(r link) (tsize uint64) {
	if w.err = w.ctx.Err(); w.err != nil {
		return 0
	}
	entries := w.space.Sorter()
	defer entries.Close()
	n, tsize, l, err := w.entries(r, entries)
	if w.err = err; err != nil {
		return 0
	}
	if l != whole {
		w.lose(l)
		return 0
	}
	at := len(w.path)
	if at > 0 || n == 0 {
		w.path = append(w.path, '/')
	}
	if n == 0 {
		w.leaf(object{kind: kindDir})
	}
	prefix := len(w.path)
	for e, err := range entries.Sorted() {
		if w.err == nil {
			w.err = err
		}
		if w.err != nil || w.tree.tooMany {
			break
		}
		name, e, ok := parseEntry(e)
		if !ok {
			w.err = fmt.Errorf("directory %x: an entry in the %w is malformed", r.digest, extsort.ErrScratch)
			break
		}
		w.path = append(w.path[:prefix], name...)
		if len(w.path) > maxPath {
			w.lose(nodeWrong)
			break
		}
		w.entry(e)
	}
	w.path = w.path[:at]
	return tsize
}

func (w *treeWalk) entry(e link) {
	o, err := w.object(w.ctx, e)
	if err != nil {
		w.err = err
		return
	}
	switch o.kind {
	case 0:
		w.lose(o.loss)
		return
	case kindDir:
		lost := w.tree.lostCount
		o.tsize = w.dir(e)
		if w.tree.lostCount > lost || w.tree.tooMany {
			return
		}
	default:
		w.leaf(o)
	}
	if o.tsize != e.tsize && o.loss < nodeMissing && w.err == nil {
		w.lose(nodeWrong)
	}
}

// entries reads a directory, sharded or not. It returns how many entries it has.
func (w *treeWalk) entries(r link, list *extsort.Sorter) (count int, tsize uint64, l loss, err error) {
	n, err := w.node(w.ctx, r.digest)
	if err != nil || n.loss != whole {
		return 0, 0, n.loss, err
	}
	if n.shard != nil {
		return w.shard(n, list, 0, 0)
	}
	tsize = n.bytes
	for i, k := range n.links {
		tsize += k.tsize
		if err := w.add(list, n.names[i], k); err != nil {
			return 0, 0, whole, err
		}
	}
	return len(n.links), tsize, whole, nil
}

// shard adds the entries of a shard, whose names hash to prefix in their first
// level bytes.
func (w *treeWalk) shard(n node, list *extsort.Sorter, prefix uint64, level int) (count int, tsize uint64, l loss, err error) {
	tsize = n.bytes
	for i, k := range n.links {
		here := prefix<<8 | uint64(n.shard[i])
		tsize += k.tsize
		if name := n.names[i]; name != "" {
			if nameHash(name)>>(56-8*level) != here {
				return 0, 0, nodeWrong, nil
			}
			if err := w.add(list, name, k); err != nil {
				return 0, 0, whole, err
			}
			count++
			continue
		}
		child, err := w.node(w.ctx, k.digest)
		if err != nil || child.loss != whole {
			return 0, 0, child.loss, err
		}
		if child.shard == nil || level == 7 {
			return 0, 0, nodeWrong, nil
		}
		below, t, l, err := w.shard(child, list, here, level+1)
		if err != nil || l != whole {
			return 0, 0, l, err
		}
		if t != k.tsize {
			return 0, 0, nodeWrong, nil
		}
		count += below
	}
	return count, tsize, whole, nil
}

// add adds an entry to those of a directory that are sorted as leaves come: one
// that is a directory as if its name ended in "/".
func (w *treeWalk) add(list *extsort.Sorter, name string, e link) error {
	w.key = append(w.key[:0], name...)
	if e.codec != cid.Raw {
		o, err := w.object(w.ctx, e)
		if err != nil {
			return err
		}
		if o.kind == kindDir {
			w.key = append(w.key, '/')
		}
	}
	w.buf = append(binary.AppendUvarint(w.buf[:0], e.codec), e.digest[:]...)
	w.buf = binary.AppendUvarint(w.buf, e.tsize)
	return list.Add(w.key, w.buf)
}

// parseEntry returns what add added.
func parseEntry(e extsort.Record) (name []byte, k link, ok bool) {
	r := reader{rest: e.Value}
	k.codec = r.uvarint()
	copy(k.digest[:], r.bytes(uint64(len(k.digest))))
	k.tsize = r.uvarint()
	return bytes.TrimSuffix(e.Key, []byte("/")), k, r.end()
}
