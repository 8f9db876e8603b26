package dag

import (
	"context"
	"fmt"
	"iter"

	"github.com/ipfs/go-cid"
)

// Info is what a DAG says of one file, link or directory.
type Info struct {
	Kind      Kind
	CID       cid.Cid
	Attr      Attr
	Size      uint64 // of a file's content, or of a link's target
	SizeKnown bool   // false for a file that is one chunk: its CID does not tell
	Target    string // KindLink
}

// Stat describes what c names. It reads at most one node.
func Stat(ctx context.Context, r Reader, c cid.Cid) (Info, error) {
	return (&Prover{r: r}).Stat(ctx, c)
}

// Stat is the function of that name.
func (p *Prover) Stat(ctx context.Context, c cid.Cid) (Info, error) {
	l, err := linkTo(c)
	if err != nil {
		return Info{}, err
	}
	if l.codec == cid.Raw {
		return Info{Kind: KindFile, CID: c, Attr: Attr{Mode: DefaultFileMode}, SizeKnown: l.digest == EmptyDigest}, nil
	}
	n, err := p.node(ctx, l.digest)
	if err != nil {
		return Info{}, err
	}
	return n.info(c), nil
}

// linkTo returns a link, without size, to a chunk or node.
func linkTo(c cid.Cid) (link, error) {
	codec, d, ok := splitCID(c.KeyString())
	if !ok || codec != cid.Raw && codec != cid.DagProtobuf {
		return link{}, fmt.Errorf("CID %v is not of a file or directory: %w", c, ErrFormat)
	}
	return link{codec: codec, digest: d}, nil
}

// maxFileHeight bounds the depth of a file's DAG: with 256 links a node,
// eight levels hold more than maxFileSize bytes.
const maxFileHeight = 8

// Chunks yields the chunks of a file that have bytes in [from, to), in order.
// Of a file that is one raw block its size is not known: the only ChunkRef
// has size 0 then.
func Chunks(ctx context.Context, r Reader, file cid.Cid, from, to uint64) iter.Seq2[ChunkRef, error] {
	return (&Prover{r: r}).Chunks(ctx, file, from, to)
}

// Chunks is the function of that name.
func (p *Prover) Chunks(ctx context.Context, file cid.Cid, from, to uint64) iter.Seq2[ChunkRef, error] {
	return func(yield func(ChunkRef, error) bool) {
		l, err := linkTo(file)
		if err != nil {
			yield(ChunkRef{}, err)
			return
		}
		if from >= to || l.digest == EmptyDigest {
			return
		}
		if l.codec == cid.Raw {
			yield(ChunkRef{Digest: l.digest}, nil)
			return
		}
		w := chunkWalk{p: p, from: from, to: to, yield: yield}
		w.root(ctx, l.digest)
	}
}

type chunkWalk struct {
	p        *Prover
	from, to uint64
	yield    func(ChunkRef, error) bool
}

func (w *chunkWalk) root(ctx context.Context, d Digest) {
	n, err := w.p.node(ctx, d)
	if err == nil && n.typ != typeFile {
		err = fmt.Errorf("%v is not a file: %w", NodeCID(d), ErrFormat)
	}
	if err != nil {
		w.yield(ChunkRef{}, err)
		return
	}
	w.node(ctx, n, 0, maxFileHeight)
}

// node yields the chunks below n, whose content starts at offset. It returns
// false to end the walk.
func (w *chunkWalk) node(ctx context.Context, n *node, offset uint64, height int) bool {
	for i, l := range n.links {
		size := n.blocksizes[i]
		start := offset
		offset += size
		if offset <= w.from {
			continue
		}
		if start >= w.to {
			return false
		}
		if l.codec == cid.Raw {
			if !w.yield(ChunkRef{Digest: l.digest, Offset: start, Size: uint32(size)}, nil) {
				return false
			}
			continue
		}
		child, err := w.p.fileNode(ctx, l.digest, size, height-1)
		if err != nil {
			w.yield(ChunkRef{}, err)
			return false
		}
		if !w.node(ctx, child, start, height-1) {
			return false
		}
	}
	return true
}

// A Run is a run of whole chunks of a file.
type Run struct {
	First, Last uint64 // chunks [First, Last)
	Offset, End uint64 // their bytes [Offset, End)
}

// FindChunks returns the smallest run of whole chunks around the bytes
// [from, to) of a file, whose leaf is f. An end beyond the file is the end of
// the file.
func FindChunks(ctx context.Context, r Reader, file cid.Cid, f FileLeaf, from, to uint64) (Run, error) {
	return (&Prover{r: r}).FindChunks(ctx, file, f, from, to)
}

// FindChunks is the function of that name.
func (p *Prover) FindChunks(ctx context.Context, file cid.Cid, f FileLeaf, from, to uint64) (Run, error) {
	if err := f.checkFile(); err != nil {
		return Run{}, err
	}
	to = min(to, f.Size)
	if from >= to {
		return Run{}, fmt.Errorf("bytes %d to %d of a file of %d bytes: %w", from, to, f.Size, ErrRange)
	}
	t := chunkTree{p: p, file: file, leaf: f}
	i, first, err := t.chunkAt(ctx, from)
	if err != nil {
		return Run{}, err
	}
	j, last, err := t.chunkAt(ctx, to-1)
	if err != nil {
		return Run{}, err
	}
	return Run{First: i, Last: j + 1, Offset: first.Offset, End: last.Offset + uint64(last.Size)}, nil
}

// A chunkTree finds chunks by number or by place, in a DAG that is balanced as
// the FileBuilder makes it: every node but the last of a level has 256 links.
type chunkTree struct {
	p    *Prover
	file cid.Cid
	leaf FileLeaf
}

// A subtree is what a link of a file's DAG stands for.
type subtree struct {
	first, chunks uint64 // chunks [first, first+chunks)
	offset, size  uint64 // bytes [offset, offset+size)
}

// group returns the chunks that one node lists: those of the lowest node for
// which want holds all the way down. first is the number of the first.
func (t *chunkTree) group(ctx context.Context, want func(subtree) bool) (first uint64, chunks []ChunkRef, err error) {
	l, err := linkTo(t.file)
	if err != nil {
		return 0, nil, err
	}
	s := subtree{chunks: t.leaf.Chunks, size: t.leaf.Size}
	if l.codec == cid.Raw {
		if s.chunks != 1 {
			return 0, nil, fmt.Errorf("file %v is one chunk, its leaf says %d: %w", t.file, s.chunks, ErrFormat)
		}
		return 0, []ChunkRef{{Digest: l.digest, Size: uint32(s.size)}}, nil
	}
	// span is how many chunks a full child holds.
	span, height := uint64(1), 1
	for (s.chunks-1)/span >= dagWidth {
		span *= dagWidth
		height++
	}
	for ; ; height-- {
		n, err := t.p.fileNode(ctx, l.digest, s.size, height)
		if err != nil {
			return 0, nil, err
		}
		if uint64(len(n.links)) != (s.chunks+span-1)/span || (n.links[0].codec == cid.Raw) != (span == 1) {
			return 0, nil, fmt.Errorf("node %v: not the balanced node of %d chunks: %w", NodeCID(l.digest), s.chunks, ErrFormat)
		}
		if span == 1 {
			return s.first, n.chunks(s.offset), nil
		}
		i := 0
		for ; i < len(n.links); i++ {
			left := s.chunks - uint64(i)*span
			child := subtree{first: s.first + uint64(i)*span, chunks: min(span, left), offset: s.offset, size: n.blocksizes[i]}
			if want(child) {
				s = child
				break
			}
			s.offset += child.size
		}
		if i == len(n.links) {
			return 0, nil, fmt.Errorf("file %v: no such chunk: %w", t.file, ErrRange)
		}
		l = n.links[i].link
		span /= dagWidth
	}
}

// chunks returns the chunks that a lowest node lists.
func (n *node) chunks(offset uint64) []ChunkRef {
	refs := make([]ChunkRef, len(n.links))
	for i, l := range n.links {
		refs[i] = ChunkRef{Digest: l.digest, Offset: offset, Size: uint32(n.blocksizes[i])}
		offset += n.blocksizes[i]
	}
	return refs
}

// chunkAt returns the chunk that has the byte at offset, and its number.
func (t *chunkTree) chunkAt(ctx context.Context, offset uint64) (uint64, ChunkRef, error) {
	first, chunks, err := t.group(ctx, func(s subtree) bool { return offset-s.offset < s.size })
	if err != nil {
		return 0, ChunkRef{}, err
	}
	for i, c := range chunks {
		if offset-c.Offset < uint64(c.Size) {
			return first + uint64(i), c, nil
		}
	}
	return 0, ChunkRef{}, fmt.Errorf("file %v: no chunk at %d: %w", t.file, offset, ErrRange)
}
