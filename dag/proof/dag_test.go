package proof_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/proof"
)

// blocks is a store of package dag's blocks and rows.
type blocks struct {
	nodes map[dag.Digest][]byte
	rows  map[dag.Hash][]byte
}

func newBlocks() blocks {
	return blocks{map[dag.Digest][]byte{}, map[dag.Hash][]byte{}}
}

func (b blocks) Node(d dag.Digest, block []byte) error {
	b.nodes[d] = bytes.Clone(block)
	return nil
}

func (b blocks) Row(h dag.Hash, row []byte) error {
	b.rows[h] = bytes.Clone(row)
	return nil
}

var errNoBlock = errors.New("no such block")

// reader reads what blocks holds.
type reader struct{ blocks }

func (r reader) Node(_ context.Context, d dag.Digest) ([]byte, error) { return found(r.nodes[d]) }
func (r reader) Row(_ context.Context, h dag.Hash) ([]byte, error)    { return found(r.rows[h]) }

func found(b []byte) ([]byte, error) {
	if b == nil {
		return nil, errNoBlock
	}
	return b, nil
}

// What package dag builds and proves is what this package verifies: a file of
// several rows of chunks among several rows of files.
func TestWithDAG(t *testing.T) {
	ctx := context.Background()
	profile, err := dag.LookupProfile("scale-fixed-1")
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{1})
	big := make([]byte, 300*(64<<10)+12345)
	if _, err := rng.Read(big); err != nil {
		t.Fatal(err)
	}
	attr := dag.Attr{Mode: dag.DefaultFileMode}
	b := newBlocks()
	tree := dag.NewTreeBuilder(profile, b)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(tree.AddDir("", dag.Attr{Mode: dag.DefaultDirMode}))
	bigFile, err := dag.HashFile(ctx, profile, bytes.NewReader(big), b, attr)
	must(err)
	must(tree.AddFile("big", bigFile))
	must(tree.AddDir("many", dag.Attr{Mode: dag.DefaultDirMode}))
	for i := range 600 {
		f, err := dag.HashFile(ctx, profile, bytes.NewReader(fmt.Append(nil, i)), b, attr)
		must(err)
		must(tree.AddFile(fmt.Sprintf("many/%03d", i), f))
	}
	must(tree.AddDir("void", dag.Attr{Mode: dag.DefaultDirMode}))
	built, err := tree.Finish()
	must(err)

	w := newWorld(t)
	w.put("built", &dataset{tree: built})
	index := int64(len(w.entries) - 1)
	w.sign()
	trust := w.trust()
	verify := func(p *proof.Proof) *proof.Verified {
		t.Helper()
		v, err := parseVerify(format(t, p), trust)
		must(err)
		return v
	}

	must(verify(w.prove(index)).CheckTree(built))
	must(verify(w.prove(index)).CheckRoot(built.Root))

	r := reader{b}
	leaves := dag.Leaves(ctx, r, built.Commitment, built.Leaves, 0)
	p := w.prove(index)
	for l, err := range leaves {
		must(err)
		p.Manifest = append(p.Manifest, l)
	}
	extra, missing, changed, err := verify(p).Diff(leaves)
	must(err)
	if len(extra)+len(missing)+len(changed) != 0 {
		t.Errorf("diff with itself: %q, %q, %q", extra, missing, changed)
	}
	extra, missing, changed, err = verify(p).Diff(iter.Seq2[dag.FileLeaf, error](func(yield func(dag.FileLeaf, error) bool) {}))
	must(err)
	if len(extra) != 0 || len(missing) != 602 || len(changed) != 0 {
		t.Errorf("diff with nothing: %q, %d missing, %q", extra, len(missing), changed)
	}

	proveFile := func(name string) *proof.Proof {
		p := w.prove(index)
		i, l, err := dag.FindLeaf(ctx, r, built.Commitment, built.Leaves, name)
		must(err)
		path, err := dag.ProveLeaf(ctx, r, built.Commitment, built.Leaves, i)
		must(err)
		must(dag.CheckLeaf(built.Commitment, built.Leaves, i, l.Hash(), path))
		p.File = &proof.FileProof{Leaf: l, Index: i, Path: path}
		return p
	}
	must(verify(proveFile("big")).CheckFile(bigFile))
	verify(proveFile("many/599"))
	verify(proveFile("void/"))

	for _, bytesOf := range [][2]uint64{{0, 1}, {0, uint64(len(big))}, {70000, 70001}, {65536, 131072}, {255 << 16, 258 << 16}, {uint64(len(big)) - 1, uint64(len(big))}} {
		p := proveFile("big")
		run, err := dag.FindChunks(ctx, r, bigFile.CID, p.File.Leaf, bytesOf[0], bytesOf[1])
		must(err)
		p.Range = &proof.RangeProof{First: run.First, Offset: run.Offset}
		for c, err := range dag.Chunks(ctx, r, bigFile.CID, run.Offset, run.End) {
			must(err)
			p.Range.Sizes = append(p.Range.Sizes, c.Size)
		}
		p.Range.Left, p.Range.Right, err = dag.ProveChunks(ctx, r, bigFile.CID, p.File.Leaf, run.First, run.Last)
		must(err)
		data := bytes.Clone(big[run.Offset:run.End])
		v := verify(p)
		must(v.CheckRange(bytes.NewReader(data)))
		data[len(data)/2] ^= 1
		wantErr(t, "changed byte", v.CheckRange(bytes.NewReader(data)), proof.ErrRefused)
		if size := len(format(t, p)); len(p.Range.Sizes) < 5 && size > 2500 {
			t.Errorf("proof of %d chunks takes %d bytes", len(p.Range.Sizes), size)
		}
	}
}
