package dag

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// A rowTree reads the rows of one tree, and checks each against its name. It
// keeps the last row of each level.
type rowTree struct {
	p      *Prover
	root   Hash
	levels []rowLevel
	kind   keptKind // of the lowest rows
	// lowest reads the j-th row of the lowest level, without checking it.
	lowest func(ctx context.Context, j uint64, name Hash) ([]Hash, []FileLeaf, error)
}

type rowLevel struct {
	nodes uint64 // children of all its rows together
	j     uint64
	row   *row // the j-th, or nil
}

func (p *Prover) rowTree(root Hash, n uint64) *rowTree {
	t := &rowTree{p: p, root: root, levels: []rowLevel{{nodes: n}}}
	for n > rowWidth {
		n = (n-1)/rowWidth + 1
		t.levels = append(t.levels, rowLevel{nodes: n})
	}
	return t
}

// row returns the j-th row of a level.
func (t *rowTree) row(ctx context.Context, level int, j uint64) (*row, error) {
	v := &t.levels[level]
	if v.row != nil && v.j == j {
		return v.row, nil
	}
	name, err := t.name(ctx, level, j)
	if err != nil {
		return nil, err
	}
	row, err := t.load(ctx, level, j, name)
	if err == nil && row.n != min(rowWidth, v.nodes-j*rowWidth) {
		err = ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("commitment row %v: %w", name, err)
	}
	v.j, v.row = j, row
	return row, nil
}

// name returns the name of the j-th row of a level.
func (t *rowTree) name(ctx context.Context, level int, j uint64) (Hash, error) {
	if level+1 == len(t.levels) {
		return t.root, nil
	}
	above, err := t.row(ctx, level+1, j/rowWidth)
	if err != nil {
		return Hash{}, err
	}
	return above.nodes[j%rowWidth], nil
}

func (t *rowTree) load(ctx context.Context, level int, j uint64, name Hash) (*row, error) {
	if level > 0 && t.levels[level].nodes-j*rowWidth == 1 { // not stored: a row of one child is that child
		return &row{n: 1, nodes: []Hash{name}}, nil
	}
	kind := keptHashRow
	if level == 0 {
		kind = t.kind
	}
	if i := t.p.kept.get(kind, name); i != nil {
		return i.row, nil
	}
	var children []Hash
	var leaves []FileLeaf
	var err error
	if level == 0 {
		children, leaves, err = t.lowest(ctx, j, name)
	} else {
		var b []byte
		if b, err = t.p.r.Row(ctx, name); err == nil {
			if children, err = parseHashRow(b); err != nil {
				err = fmt.Errorf("%w: %w", err, ErrCorrupt)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if len(children) == 0 || len(children) > rowWidth {
		return nil, ErrCorrupt
	}
	w, root := newRow(children)
	if root != name {
		return nil, ErrCorrupt
	}
	w.leaves = leaves
	t.p.kept.put(&keptItem{key: keptKey{kind, name}, row: w, size: w.size()})
	return w, nil
}

// hashes returns the hashes of complete subtrees.
func (t *rowTree) hashes(ctx context.Context, ids []compact.NodeID) ([][]byte, error) {
	hashes := make([][]byte, len(ids))
	for i, id := range ids {
		// The row that has the children, how many levels the node is above
		// them, and which one it is there.
		up := id.Level % rowBits
		row, err := t.row(ctx, int(id.Level/rowBits), id.Index>>(rowBits-up))
		if err != nil {
			return nil, err
		}
		h := row.at(up, id.Index&(rowWidth>>up-1))
		hashes[i] = h[:]
	}
	return hashes, nil
}

// A leafTree reads file leaves.
type leafTree struct{ *rowTree }

func newLeafTree(r Reader, root Hash, n uint64) leafTree { return (&Prover{r: r}).leafTree(root, n) }

func (p *Prover) leafTree(root Hash, n uint64) leafTree {
	t := leafTree{p.rowTree(root, n)}
	t.kind = keptLeafRow
	t.lowest = func(ctx context.Context, _ uint64, name Hash) ([]Hash, []FileLeaf, error) {
		b, err := p.r.Row(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		leaves, err := parseLeafRow(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", err, ErrCorrupt)
		}
		hashes := make([]Hash, len(leaves))
		var buf []byte
		for i := range leaves {
			hashes[i], buf = leaves[i].hash(buf)
		}
		return hashes, leaves, nil
	}
	return t
}

func (t leafTree) leafRow(ctx context.Context, j uint64) ([]FileLeaf, error) {
	w, err := t.row(ctx, 0, j)
	if err != nil {
		return nil, err
	}
	return w.leaves, nil
}

// firstPath returns the first path of the j-th row of leaves, which is not checked.
func (t leafTree) firstPath(ctx context.Context, j uint64) (string, error) {
	name, err := t.name(ctx, 0, j)
	if err != nil {
		return "", err
	}
	path, err := t.p.firstPath(ctx, name)
	if err != nil {
		err = fmt.Errorf("commitment row %v: %w", name, err)
	}
	return path, err
}

// Leaf returns leaf i of the file tree of n leaves.
func Leaf(ctx context.Context, r Reader, root Hash, n, i uint64) (FileLeaf, error) {
	if i >= n {
		return FileLeaf{}, fmt.Errorf("leaf %d of %d: %w", i, n, ErrRange)
	}
	row, err := newLeafTree(r, root, n).leafRow(ctx, i/rowWidth)
	if err != nil {
		return FileLeaf{}, fmt.Errorf("read leaf %d: %w", i, err)
	}
	return row[i%rowWidth], nil
}

// Leaves yields the leaves of a file tree of n leaves, from one on.
func Leaves(ctx context.Context, r Reader, root Hash, n, from uint64) iter.Seq2[FileLeaf, error] {
	return func(yield func(FileLeaf, error) bool) {
		t := newLeafTree(r, root, n)
		before := ""
		for i := from; i < n; {
			row, err := t.leafRow(ctx, i/rowWidth)
			if err == nil && i > from && row[0].Path <= before {
				err = fmt.Errorf("leaf %q after %q: %w", row[0].Path, before, ErrFormat)
			}
			if err != nil {
				yield(FileLeaf{}, fmt.Errorf("read leaf %d: %w", i, err))
				return
			}
			for _, l := range row[i%rowWidth:] {
				if !yield(l, nil) {
					return
				}
				i++
			}
			before = row[len(row)-1].Path
		}
	}
}

// FindLeaf returns the leaf of a path in a file tree of n leaves, and its
// index. The leaf path of an empty directory ends in "/".
func FindLeaf(ctx context.Context, r Reader, root Hash, n uint64, path string) (uint64, FileLeaf, error) {
	return (&Prover{r: r}).FindLeaf(ctx, root, n, path)
}

// FindLeaf is the function of that name.
func (p *Prover) FindLeaf(ctx context.Context, root Hash, n uint64, path string) (uint64, FileLeaf, error) {
	i, l, err := p.findLeaf(ctx, root, n, path)
	if err != nil {
		return 0, FileLeaf{}, fmt.Errorf("find leaf %q: %w", path, err)
	}
	return i, l, nil
}

func (p *Prover) findLeaf(ctx context.Context, root Hash, n uint64, path string) (uint64, FileLeaf, error) {
	if n == 0 {
		return 0, FileLeaf{}, ErrNotFound
	}
	t := p.leafTree(root, n)
	// The last row that does not begin behind the path. Rows on the way are not
	// checked, which takes a hundred times longer than to look at the first path.
	lo, hi := uint64(0), (n-1)/rowWidth+1
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		first, err := t.firstPath(ctx, mid)
		if err != nil {
			return 0, FileLeaf{}, err
		}
		if path < first {
			hi = mid
		} else {
			lo = mid
		}
	}
	row, err := t.leafRow(ctx, lo)
	if err != nil {
		return 0, FileLeaf{}, err
	}
	at, ok := slices.BinarySearchFunc(row, path, func(l FileLeaf, path string) int { return strings.Compare(l.Path, path) })
	if ok {
		return lo*rowWidth + uint64(at), row[at], nil
	}
	// That there is none is said only by rows that were checked.
	stray := at == 0 && lo > 0
	if at == len(row) && hi*rowWidth < n {
		if row, err = t.leafRow(ctx, hi); err != nil {
			return 0, FileLeaf{}, err
		}
		stray = row[0].Path <= path
	}
	if stray {
		return 0, FileLeaf{}, fmt.Errorf("rows that do not follow one another near leaf %d: %w", hi*rowWidth, ErrCorrupt)
	}
	return 0, FileLeaf{}, ErrNotFound
}

// ProveLeaf returns the RFC 6962 audit path of leaf i in a file tree of n
// leaves.
func ProveLeaf(ctx context.Context, r Reader, root Hash, n, i uint64) ([]Hash, error) {
	return (&Prover{r: r}).ProveLeaf(ctx, root, n, i)
}

// ProveLeaf is the function of that name.
func (p *Prover) ProveLeaf(ctx context.Context, root Hash, n, i uint64) ([]Hash, error) {
	nodes, err := proof.Inclusion(i, n)
	if err != nil {
		return nil, fmt.Errorf("prove leaf: %w: %w", err, ErrRange)
	}
	hashes, err := p.leafTree(root, n).hashes(ctx, nodes.IDs)
	if err == nil {
		hashes, err = nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	}
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d: %w", i, err)
	}
	return toHashes(hashes), nil
}

// CheckLeaf checks that path leads from a leaf hash at index i of n to root.
func CheckLeaf(root Hash, n, i uint64, leaf Hash, path []Hash) error {
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, i, n, leaf[:], fromHashes(path), root[:]); err != nil {
		return fmt.Errorf("leaf %d of %d: %w: %w", i, n, err, ErrProof)
	}
	return nil
}

// ProveChunks returns the hashes of the compact ranges left and right of the
// chunks [first, last) of a file, whose leaf is f.
func ProveChunks(ctx context.Context, r Reader, file cid.Cid, f FileLeaf, first, last uint64) (left, right []Hash, err error) {
	return (&Prover{r: r}).ProveChunks(ctx, file, f, first, last)
}

// ProveChunks is the function of that name.
func (p *Prover) ProveChunks(ctx context.Context, file cid.Cid, f FileLeaf, first, last uint64) (left, right []Hash, err error) {
	if err := f.checkFile(); err != nil {
		return nil, nil, err
	}
	n := f.Chunks
	if first >= last || last > n {
		return nil, nil, fmt.Errorf("chunks %d to %d of %d: %w", first, last, n, ErrRange)
	}
	chunks := chunkTree{p: p, file: file, leaf: f}
	t := p.rowTree(f.ChunkRoot, n)
	t.kind = keptChunkRow
	t.lowest = func(ctx context.Context, j uint64, _ Hash) ([]Hash, []FileLeaf, error) {
		_, group, err := chunks.group(ctx, func(s subtree) bool { return j*rowWidth-s.first < s.chunks })
		hashes := make([]Hash, len(group))
		for i := range group {
			hashes[i] = ChunkLeafHash(group[i])
		}
		return hashes, nil, err
	}
	l, err := t.hashes(ctx, compact.RangeNodes(0, first, nil))
	if err == nil {
		var r [][]byte
		if r, err = t.hashes(ctx, compact.RangeNodes(last, n, nil)); err == nil {
			return toHashes(l), toHashes(r), nil
		}
	}
	return nil, nil, fmt.Errorf("prove chunks %d to %d: %w", first, last, err)
}

var ranges = compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// CheckChunks checks that the leaf hashes run stand from first on in the chunk
// tree of n leaves with that root, given the compact ranges beside them.
func CheckChunks(root Hash, n, first uint64, run, left, right []Hash) error {
	if err := checkChunks(root, n, first, run, left, right); err != nil {
		return fmt.Errorf("%d chunks from %d of %d: %w: %w", len(run), first, n, err, ErrProof)
	}
	return nil
}

func checkChunks(root Hash, n, first uint64, run, left, right []Hash) error {
	if n > maxFileSize || first >= n || len(run) == 0 || uint64(len(run)) > n-first {
		return errors.New("outside of the file")
	}
	t, err := ranges.NewRange(0, first, fromHashes(left))
	if err != nil {
		return err
	}
	for i := range run {
		if err := t.Append(run[i][:], nil); err != nil {
			return err
		}
	}
	rest, err := ranges.NewRange(t.End(), n, fromHashes(right))
	if err != nil {
		return err
	}
	if err := t.AppendRange(rest, nil); err != nil {
		return err
	}
	got, err := t.GetRootHash(nil)
	if err != nil {
		return err
	}
	if Hash(got) != root {
		return fmt.Errorf("computed root %x, want %v", got, root)
	}
	return nil
}

func toHashes(b [][]byte) []Hash {
	hashes := make([]Hash, len(b))
	for i := range b {
		hashes[i] = Hash(b[i])
	}
	return hashes
}

func fromHashes(h []Hash) [][]byte {
	b := make([][]byte, len(h))
	for i := range h {
		b[i] = h[i][:]
	}
	return b
}
