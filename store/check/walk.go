package check

import (
	"bytes"
	"context"
	"slices"

	"github.com/ipfs/go-cid"
)

// A tree is what was found below the root of a dataset.
type tree struct {
	size, files, leaves, chunks uint64
	commitment                  hash
	rows                        uint64     // commitment rows that are missing or damaged
	lost                        []lostPath // the first of what cannot be read
	lostCount                   uint64
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
	buf   []byte
	err   error
}

// walk goes through the tree below a root that should have so many leaves.
func (c *checker) walk(ctx context.Context, root link, limit uint64) (tree, error) {
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

// An entry is an entry of a directory.
type entry struct {
	link
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
func (w *treeWalk) dir(r link) (tsize uint64) {
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
	o, err := w.object(w.ctx, e.link)
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
		o.tsize = w.dir(e.link)
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

// entries reads a directory, sharded or not.
func (w *treeWalk) entries(r link) (list []entry, tsize uint64, l loss, err error) {
	n, err := w.node(w.ctx, r.digest)
	if err != nil || n.loss != whole {
		return nil, 0, n.loss, err
	}
	if n.shard != nil {
		list, tsize, l, err = w.shard(n, nil, 0, 0)
	} else {
		tsize = n.bytes
		for i, k := range n.links {
			list = append(list, entry{link: k, name: n.names[i]})
			tsize += k.tsize
		}
	}
	for i := 0; i < len(list) && l == whole && err == nil; i++ {
		e := &list[i]
		if e.codec == cid.Raw {
			continue
		}
		var o object
		o, err = w.object(w.ctx, e.link)
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
			list = append(list, entry{link: k, name: name})
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
