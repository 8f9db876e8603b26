package dag

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// A Prover looks up, finds and proves, as the functions of the same names do, and keeps
// rows and nodes that it has read and checked, the least recently used going first. It is safe for concurrent use if its Reader is.
type Prover struct {
	r    Reader
	kept *kept // nil if nothing is kept
}

// NewProver returns a Prover that keeps at most so many bytes.
func NewProver(r Reader, bytes int64) *Prover {
	return &Prover{r: r, kept: &kept{max: bytes, items: map[keptKey]*list.Element{}, order: list.New()}}
}

// A keptKind says what is kept under a digest.
type keptKind uint8

const (
	keptHashRow  keptKind = iota // row of hashes
	keptLeafRow                  // row of file leaves
	keptChunkRow                 // lowest row of a chunk tree
	keptPath                     // first path of a row of file leaves, unchecked
	keptNode                     // node of a file or directory
)

type keptKey struct {
	kind keptKind
	of   [32]byte // name of a row, digest of a node
}

// A keptItem is one of them. It is shared and not changed.
type keptItem struct {
	key  keptKey
	size int64 // in memory, about
	row  *row
	path string
	node *node
}

// kept is a cache bounded by bytes. A nil one is always empty.
type kept struct {
	mu    sync.Mutex
	max   int64
	size  int64
	items map[keptKey]*list.Element
	order *list.List // of *keptItem, newest first
}

// keptCost is what keeping an item takes besides what is in it.
const keptCost = 300

func (k *kept) get(kind keptKind, of [32]byte) *keptItem {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.items[keptKey{kind, of}]
	if e == nil {
		return nil
	}
	k.order.MoveToFront(e)
	return e.Value.(*keptItem)
}

func (k *kept) put(i *keptItem) {
	if k == nil {
		return
	}
	i.size += keptCost
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.items[i.key] != nil || i.size > k.max {
		return
	}
	k.items[i.key] = k.order.PushFront(i)
	k.size += i.size
	for k.size > k.max {
		old := k.order.Remove(k.order.Back()).(*keptItem)
		delete(k.items, old.key)
		k.size -= old.size
	}
}

// A row is a row of a tree that was checked against its name.
type row struct {
	n      uint64     // children
	nodes  []Hash     // hashes of its complete subtrees, by height: first the children
	leaves []FileLeaf // the children of a row of file leaves
}

// newRow returns the row of these children, and its name.
func newRow(children []Hash) (*row, Hash) {
	w := &row{n: uint64(len(children)), nodes: make([]Hash, 0, 2*len(children))}
	var scratch [rowWidth]Hash
	h := scratch[:copy(scratch[:], children)]
	for complete := len(h); complete > 0; complete /= 2 {
		w.nodes = append(w.nodes, h[:complete]...)
		h = fold(h)
	}
	return w, foldRoot(h)
}

// at returns the hash of the i-th complete subtree of that height above the children.
func (w *row) at(height uint, i uint64) Hash {
	for up := range height {
		i += w.n >> up
	}
	return w.nodes[i]
}

func (w *row) size() int64 {
	size := int64(cap(w.nodes)) * 32
	for i := range w.leaves {
		size += 96 + int64(len(w.leaves[i].Path)+len(w.leaves[i].Target))
	}
	return size
}

// fileNode returns a node below the root of a file. It must hold size bytes and be at
// most height levels above its chunks.
func (p *Prover) fileNode(ctx context.Context, d Digest, size uint64, height int) (*node, error) {
	if height == 0 {
		return nil, fmt.Errorf("file node %v: too deep: %w", NodeCID(d), ErrFormat)
	}
	n, err := p.node(ctx, d)
	if err != nil {
		return nil, err
	}
	if n.typ != typeFile || n.filesize != size {
		return nil, fmt.Errorf("node %v: not the file node of %d bytes that its parent says: %w", NodeCID(d), size, ErrFormat)
	}
	return n, nil
}

func (p *Prover) node(ctx context.Context, d Digest) (*node, error) {
	if i := p.kept.get(keptNode, d); i != nil {
		return i.node, nil
	}
	n, err := loadNode(ctx, p.r, d)
	if err == nil && p.kept != nil && (n.typ == typeFile && len(n.links) > 0 || len(n.links) >= keptEntries) {
		p.kept.put(&keptItem{key: keptKey{keptNode, d}, node: n, size: n.size()})
	}
	return n, err
}

// keptEntries is how many entries a node of a directory has at least that is kept. A
// directory of 100,000 names has as many as 20,000 shards with a few each.
const keptEntries = 16

// size returns about how many bytes the node takes. The slices of a link point into the
// block, which takes less than 64 bytes and the name of it.
func (n *node) size() int64 {
	size := int64(cap(n.links))*(96+64) + int64(cap(n.blocksizes))*8
	for i := range n.links {
		size += int64(len(n.links[i].name))
	}
	return size
}

// firstPath returns the first path of a row of file leaves. It serves to find a row and
// is not checked.
func (p *Prover) firstPath(ctx context.Context, name Hash) (string, error) {
	if i := p.kept.get(keptPath, name); i != nil {
		return i.path, nil
	}
	b, err := p.r.Row(ctx, name)
	if err != nil {
		return "", err
	}
	c := cursor{rest: b}
	kind, shared := c.byte(), c.uvarint()
	path := c.bytes(c.uvarint())
	if c.bad || kind != leafRow || shared != 0 || len(path) > MaxPath+1 {
		return "", fmt.Errorf("not a row of file leaves: %w", ErrCorrupt)
	}
	i := &keptItem{key: keptKey{keptPath, name}, path: string(path), size: int64(len(path))}
	p.kept.put(i)
	return i.path, nil
}
