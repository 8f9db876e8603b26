package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store/kv"
)

// proverBytes bounds the memory in which rows and nodes are kept for proofs and for
// finding paths: some 350 rows of 256 leaves, the nodes of files of 5 GiB together, or
// those of a directory of 200,000 names.
const proverBytes = 32 << 20

// Prove builds a proof that o is in the ledger as published now: of the dataset, of
// one file in it, or with a range of the smallest run of whole chunks around it.
// The proof holds no data. Its caller checks it against trusted keys with
// proof.Verify, like anyone else.
func (s *Store) Prove(ctx context.Context, o Object, opt ProveOptions) (*proof.Proof, error) {
	began := time.Now()
	p, err := s.prove(ctx, o, opt)
	if tell := s.opt.Observer.Proof; tell != nil {
		tell(time.Since(began), err)
	}
	if err != nil {
		return nil, fmt.Errorf("prove %s: %w", o, storeError(err))
	}
	return p, nil
}

func (s *Store) prove(ctx context.Context, o Object, opt ProveOptions) (*proof.Proof, error) {
	e, err := s.entryAt(ctx, o.Dataset.Entry)
	if err != nil {
		return nil, err
	}
	signed, size, err := s.provenAt(ctx, e.Index, opt.At)
	if err != nil {
		return nil, err
	}
	p := &proof.Proof{EntryBlock: e.Block, Index: e.Index, Checkpoint: signed}
	if p.Inclusion, err = s.inclusions.Inclusion(ctx, size, e.Index); err != nil {
		return nil, err
	}
	if opt.Manifest {
		if o.Path != "" || opt.Range != nil {
			return nil, fmt.Errorf("a manifest is of a whole dataset: %w", ErrInvalid)
		}
		return p, s.proveManifest(ctx, p, e.Entry, opt.ManifestBytes)
	}
	if o.Path == "" && opt.Range == nil {
		return p, nil
	}
	leaf := o.Path
	if o.Info.Kind == dag.KindDir {
		leaf += "/" // a directory has a leaf if it is empty
	}
	f := &proof.FileProof{}
	root, n := dag.Hash(e.Entry.Commitment), e.Entry.Leaves
	f.Index, f.Leaf, err = s.prover.FindLeaf(ctx, root, n, leaf)
	if o.Info.Kind == dag.KindDir && (opt.Range != nil || errors.Is(err, dag.ErrNotFound)) {
		return nil, fmt.Errorf("it is a directory; prove the whole dataset, or one file: %w", ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	if f.Path, err = s.prover.ProveLeaf(ctx, root, n, f.Index); err != nil {
		return nil, err
	}
	p.File = f
	if opt.Range != nil {
		p.Range, err = s.proveRange(ctx, o, f.Leaf, *opt.Range)
	}
	return p, err
}

// leafBytes is what a leaf takes in memory besides its path and target.
const leafBytes = 128

func (s *Store) proveManifest(ctx context.Context, p *proof.Proof, e *ledger.Entry, most uint64) error {
	bytes := e.Leaves * leafBytes
	tooLarge := func() error {
		return fmt.Errorf("a manifest of %d files takes more than %d bytes: %w", e.Leaves, most, ErrManifest)
	}
	if most > 0 && bytes > most {
		return tooLarge()
	}
	for l, err := range dag.Leaves(ctx, s, e.Commitment, e.Leaves, 0) {
		if err != nil {
			return err
		}
		if bytes += uint64(len(l.Path) + len(l.Target)); most > 0 && bytes > most {
			return tooLarge()
		}
		if p.Manifest == nil {
			p.Manifest = make([]dag.FileLeaf, 0, e.Leaves)
		}
		p.Manifest = append(p.Manifest, l)
	}
	return nil
}

func (s *Store) proveRange(ctx context.Context, o Object, l dag.FileLeaf, r Range) (*proof.RangeProof, error) {
	if l.Kind != dag.KindFile {
		return nil, fmt.Errorf("a range is of a file, this is a %v: %w", l.Kind, ErrInvalid)
	}
	run, err := s.prover.FindChunks(ctx, o.CID, l, r.From, r.To)
	if err != nil {
		return nil, err
	}
	p := &proof.RangeProof{First: run.First, Offset: run.Offset}
	for c, err := range s.prover.Chunks(ctx, o.CID, run.Offset, run.End) {
		if err != nil {
			return nil, err
		}
		if c.Size == 0 {
			c.Size = uint32(l.Size) // a file that is one chunk
		}
		p.Sizes = append(p.Sizes, c.Size)
	}
	p.Left, p.Right, err = s.prover.ProveChunks(ctx, o.CID, l, run.First, run.Last)
	return p, err
}

// provenAt returns the signed checkpoint of a size that covers an entry, and its size.
func (s *Store) provenAt(ctx context.Context, entry, at int64) ([]byte, int64, error) {
	st := s.published.Load()
	newest := st.checkpoint.Size
	switch {
	case at == 0 || at == newest:
		return st.signed, newest, nil
	case at <= entry || at > newest:
		return nil, 0, fmt.Errorf("entry :%d in a tree of %d entries, of a ledger of %d: %w", entry, at, newest, ErrInvalid)
	}
	signed, err := s.kv.Get(ctx, indexKey(rowCheckpoint, at), nil)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, 0, fmt.Errorf("no checkpoint of %d entries was signed, or it was not restored: %w", at, ErrNotFound)
	}
	if err != nil {
		return nil, 0, err
	}
	c, err := ledger.OpenCheckpoint(signed, s.verifier)
	if err == nil && c.Size != at {
		err = fmt.Errorf("it is of %d entries", c.Size)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("checkpoint of size %d: %w: %w", at, ErrCorrupt, err)
	}
	return signed, at, nil
}
