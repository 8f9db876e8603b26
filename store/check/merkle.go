package check

import "crypto/sha256"

// hash is a node of an RFC 6962 tree, of the ledger or of a commitment.
type hash = [sha256.Size]byte

func leafHash(data []byte) hash {
	return sha256.Sum256(append([]byte{0}, data...))
}

// treeHash is the definition of RFC 6962, section 2.1, over the hashes of
// leaves, or of complete subtrees of one size of which the last may be smaller.
func treeHash(h []hash) hash {
	switch len(h) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return h[0]
	}
	k := 1
	for k*2 < len(h) {
		k *= 2
	}
	left, right := treeHash(h[:k]), treeHash(h[k:])
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// width is how many hashes a tile and a commitment row hold.
const width = 256

// A fold computes a tree from its leaves, of which it keeps those of the right
// edge: the hashes of each eighth level that are not yet width many.
type fold struct {
	levels []foldLevel
	// full is called with each run of width hashes.
	full func(level int, index uint64, h []hash)
}

type foldLevel struct {
	index   uint64 // of the run that is pending
	pending []hash
}

func (f *fold) push(h hash) { f.add(0, h) }

func (f *fold) add(level int, h hash) {
	if level == len(f.levels) {
		f.levels = append(f.levels, foldLevel{pending: make([]hash, 0, width)})
	}
	v := &f.levels[level]
	if v.pending = append(v.pending, h); len(v.pending) < width {
		return
	}
	f.full(level, v.index, v.pending)
	up := treeHash(v.pending)
	v.index, v.pending = v.index+1, v.pending[:0]
	f.add(level+1, up)
}

// root returns the root over what was pushed. It calls row, if set, with the
// last run of each level, in which the root of the smaller subtree that is left
// over below comes last.
func (f *fold) root(row func(level int, h []hash)) hash {
	var buf [width]hash
	var carry *hash
	for i := range f.levels {
		h := append(buf[:0], f.levels[i].pending...)
		if carry != nil {
			h = append(h, *carry)
		}
		if len(h) == 0 {
			continue
		}
		if row != nil {
			row(i, h)
		}
		r := treeHash(h)
		carry = &r
	}
	if carry == nil {
		return treeHash(nil)
	}
	return *carry
}
