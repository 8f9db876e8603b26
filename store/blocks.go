package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
)

// A block is an element of a dataset's DAG. bytes is nil for a chunk.
type block struct {
	cid   cid.Cid
	bytes []byte
}

// blocks yields the DAG below root, each node before what it links to, links in
// their order. enter says whether a block is wanted; what is not is left out with
// everything below it.
func (s *Store) blocks(ctx context.Context, root cid.Cid, enter func(cid.Cid) bool) iter.Seq2[block, error] {
	return func(yield func(block, error) bool) {
		s.walkBlocks(ctx, root, enter, yield)
	}
}

func (s *Store) walkBlocks(ctx context.Context, c cid.Cid, enter func(cid.Cid) bool, yield func(block, error) bool) bool {
	if !enter(c) {
		return true
	}
	if c.Prefix().Codec == cid.Raw {
		return yield(block{cid: c}, nil)
	}
	b, err := s.Node(ctx, digestOf(c))
	if err != nil {
		return yield(block{}, err)
	}
	n, err := merkledag.DecodeProtobuf(b)
	if err != nil {
		return yield(block{}, fmt.Errorf("node %v: %w: %w", c, ErrCorrupt, err))
	}
	if !yield(block{cid: c, bytes: b}, nil) {
		return false
	}
	for _, l := range n.Links() {
		if _, err := dag.DigestOf(l.Cid); err != nil {
			return yield(block{}, fmt.Errorf("link of node %v: %w: %w", c, ErrCorrupt, err))
		}
		if !s.walkBlocks(ctx, l.Cid, enter, yield) {
			return false
		}
	}
	return true
}

// seenChunks is how many chunks Totals remembers at once: some 100 MB.
const seenChunks = 4 << 20

// Totals adds up what the store holds. Reclaimable is found by walking every
// dataset and so takes time with the size of the index, not with that of the data.
func (s *Store) Totals(ctx context.Context) (Totals, error) {
	s.indexMu.Lock()
	sum := s.totals
	s.indexMu.Unlock()
	t := Totals{Unique: sum.Plain, Packed: sum.Packed, Chunks: sum.Chunks, TreeSize: s.Published().Size}
	var roots []cid.Cid
	seen := map[cid.Cid]bool{}
	for row, err := range s.kv.Scan(ctx, []byte{rowPut}, nil) {
		if err != nil {
			return t, storeError(err)
		}
		i, err := parseInt(row.Key[1:])
		if err != nil {
			return t, err
		}
		if !s.visible(i) {
			continue
		}
		e, err := s.entryAt(ctx, i)
		if err != nil {
			return t, err
		}
		t.Datasets++
		t.Logical += e.Entry.Size
		if !seen[e.Entry.Root] {
			seen[e.Entry.Root] = true
			roots = append(roots, e.Entry.Root)
		}
	}
	var dead uint64
	passes := sum.Chunks/seenChunks + 1
	for pass := range passes {
		n, err := s.unreached(ctx, roots, pass, passes)
		if err != nil {
			return t, err
		}
		dead += n
	}
	if sum.Plain > 0 {
		// Frames hold chunks of one neighbourhood; the mean ratio is close.
		t.Reclaimable = uint64(float64(sum.Packed) * float64(dead) / float64(sum.Plain))
	}
	var err error
	t.Stored, err = diskUsage(s.dir)
	return t, err
}

// unreached returns the plain bytes of the chunks that no root reaches, looking only
// at those chunks whose digest falls to this pass.
func (s *Store) unreached(ctx context.Context, roots []cid.Cid, pass, passes uint64) (uint64, error) {
	type short [16]byte
	reached, nodes := map[short]struct{}{}, map[short]struct{}{}
	mine := func(d dag.Digest) bool { return (uint64(d[0])<<8|uint64(d[1]))%passes == pass }
	for _, root := range roots {
		enter := func(c cid.Cid) bool {
			d := digestOf(c)
			k := short(d[:16])
			if c.Prefix().Codec == cid.Raw {
				if mine(d) {
					reached[k] = struct{}{}
				}
				return false
			}
			if _, ok := nodes[k]; ok {
				return false
			}
			nodes[k] = struct{}{}
			return true
		}
		for _, err := range s.blocks(ctx, root, enter) {
			if err != nil && !errors.Is(err, ErrMissing) {
				return 0, err
			}
		}
	}
	var dead uint64
	for row, err := range s.kv.Scan(ctx, []byte{rowChunk}, nil) {
		if err != nil {
			return 0, storeError(err)
		}
		d := dag.Digest(row.Key[1:])
		if _, ok := reached[short(d[:16])]; ok || !mine(d) {
			continue
		}
		r, err := parseChunkRow(row.Value)
		if err != nil {
			return 0, err
		}
		dead += uint64(r.Size)
	}
	return dead, nil
}
