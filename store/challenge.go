package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store/pack"
)

// A Challenge is the answer to an audit.
type Challenge struct {
	Dataset Dataset
	Head    audit.Head // the signed entry, and the checkpoint in which all samples are proven
	// Samples yields the samples in the order in which they are drawn. Bytes are
	// read from the packs as it goes, and every chunk is checked against its digest.
	// What cannot be read is an error, and ends it. Proof and Data of a sample are the
	// consumer's to keep.
	Samples iter.Seq2[audit.Sample, error]
}

// Challenge answers an audit of a whole dataset: count samples, 1 to audit.MaxCount,
// at the positions that the seed determines. The seed has audit.MinSeed to
// audit.MaxSeed bytes. An empty dataset has nothing to hold and is ErrInvalid.
//
// It reads the sizes of the files up to the last position, some 60 bytes each, and
// holds a few MiB, whatever the dataset.
func (s *Store) Challenge(ctx context.Context, o Object, seed []byte, count int) (*Challenge, error) {
	if o.Path != "" {
		return nil, fmt.Errorf("challenge of %s: an audit is of a whole dataset: %w", o, ErrInvalid)
	}
	e, err := s.entryAt(ctx, o.Dataset.Entry)
	if err != nil {
		return nil, fmt.Errorf("challenge of %s: %w", o, err)
	}
	positions, err := (audit.Challenge{Seed: seed, Count: count}).Positions(sha256.Sum256(e.Block), e.Entry.Size)
	if err != nil {
		return nil, fmt.Errorf("challenge of %s: %w: %w", o, ErrInvalid, err)
	}
	st := s.published.Load()
	a := &answer{s: s, root: o.Dataset.CID, entry: e.Entry, proof: proof.Proof{EntryBlock: e.Block, Index: e.Index, Checkpoint: st.signed}}
	if a.proof.Inclusion, err = s.inclusions.Inclusion(ctx, st.checkpoint.Size, e.Index); err != nil {
		return nil, fmt.Errorf("challenge of %s: %w", o, storeError(err))
	}
	return &Challenge{
		Dataset: o.Dataset, Head: audit.Head{Entry: e.Block, Checkpoint: st.signed},
		Samples: func(yield func(audit.Sample, error) bool) {
			if err := a.samples(ctx, positions, yield); err != nil && err != errEnough {
				yield(audit.Sample{}, fmt.Errorf("challenge of %s: %w", o, storeError(err)))
			}
		},
	}, nil
}

// An answer is what the samples of one challenge share.
type answer struct {
	s     *Store
	root  cid.Cid
	entry *ledger.Entry
	proof proof.Proof // without a file
}

// A draw is one position on its way to a sample.
type draw struct {
	audit.Sample
	file  *auditFile
	chunk dag.ChunkRef
	run   dag.Run
	row   chunkRow
}

// An auditFile is a file that positions fall into.
type auditFile struct {
	cid   cid.Cid
	proof proof.FileProof
}

// answerBytes and answerDraws bound the samples that are made at a time: of random
// positions few are close to one another, but of those that are each frame is
// decoded once.
const (
	answerBytes = 4 << 20
	answerDraws = 64
)

func (a *answer) samples(ctx context.Context, positions []uint64, yield func(audit.Sample, error) bool) error {
	draws, err := a.place(ctx, positions)
	if err != nil {
		return err
	}
	for len(draws) > 0 {
		n, size := 0, 0
		for ; n < len(draws) && n < answerDraws && size < answerBytes; n++ {
			if err := a.find(ctx, &draws[n]); err != nil {
				return err
			}
			size += int(draws[n].chunk.Size)
		}
		if err := a.fill(ctx, draws[:n]); err != nil {
			return err
		}
		for i := range draws[:n] {
			if !yield(draws[i].Sample, nil) {
				return errEnough
			}
			draws[i] = draw{} // its bytes can go
		}
		draws = draws[n:]
	}
	return nil
}

// place finds the files that the positions fall into, going through the leaves once.
func (a *answer) place(ctx context.Context, positions []uint64) ([]draw, error) {
	draws := make([]draw, len(positions))
	order := make([]int, len(positions)) // draws by position
	for i, p := range positions {
		draws[i].Draw, draws[i].Position = i, p
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(positions[i], positions[j]) })
	root, n := dag.Hash(a.entry.Commitment), a.entry.Leaves
	var start, index uint64
	for l, err := range dag.Leaves(ctx, a.s, root, n, 0) {
		if err != nil {
			return nil, err
		}
		if l.Kind == dag.KindFile {
			var f *auditFile
			for len(order) > 0 && positions[order[0]]-start < l.Size {
				if f == nil {
					if f, err = a.file(ctx, l, index); err != nil {
						return nil, fmt.Errorf("file %q: %w", l.Path, err)
					}
				}
				d := &draws[order[0]]
				d.Path, d.FileStart, d.file = l.Path, start, f
				order = order[1:]
			}
			start += l.Size
		}
		if index++; len(order) == 0 {
			return draws, nil
		}
	}
	return nil, fmt.Errorf("its files have %d bytes, its entry says %d: %w", start, a.entry.Size, ErrCorrupt)
}

func (a *answer) file(ctx context.Context, l dag.FileLeaf, index uint64) (*auditFile, error) {
	f := &auditFile{proof: proof.FileProof{Leaf: l, Index: index}}
	var err error
	if f.cid, err = a.s.prover.Lookup(ctx, a.root, l.Path); err != nil {
		if errors.Is(err, dag.ErrNotFound) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil, err
	}
	f.proof.Path, err = a.s.prover.ProveLeaf(ctx, a.entry.Commitment, a.entry.Leaves, index)
	return f, err
}

// find finds the chunk that a position falls into.
func (a *answer) find(ctx context.Context, d *draw) error {
	in := d.Position - d.FileStart
	var err error
	if d.run, err = a.s.prover.FindChunks(ctx, d.file.cid, d.file.proof.Leaf, in, in+1); err != nil {
		return fmt.Errorf("byte %d of %q: %w", in, d.Path, err)
	}
	for c, err := range a.s.prover.Chunks(ctx, d.file.cid, d.run.Offset, d.run.End) {
		if err != nil {
			return fmt.Errorf("byte %d of %q: %w", in, d.Path, err)
		}
		if c.Size == 0 {
			c.Size = uint32(d.file.proof.Leaf.Size) // a file that is one chunk
		}
		d.chunk = c
	}
	d.ChunkStart = d.run.Offset
	d.row, err = a.s.chunkRow(ctx, d.chunk)
	return err
}

// fill reads the bytes of some draws, each frame once, and makes their proofs.
func (a *answer) fill(ctx context.Context, draws []draw) error {
	frames := make(map[pack.Loc][]*draw)
	for i := range draws {
		frames[draws[i].row.Loc] = append(frames[draws[i].row.Loc], &draws[i])
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), 4))
	for loc, of := range frames {
		g.Go(func() error {
			if err := a.read(ctx, loc, of); err != nil {
				return err
			}
			for _, d := range of {
				if err := a.prove(ctx, d); err != nil {
					return fmt.Errorf("byte %d of %q: %w", d.ChunkStart, d.Path, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// read reads a frame for the draws whose chunks are in it. It goes past the cache of
// decoded frames: what is asked is whether the packs are there.
func (a *answer) read(ctx context.Context, loc pack.Loc, draws []*draw) error {
	bad := func(d *draw, err error) error {
		return &ChunkError{CID: dag.RawCID(d.chunk.Digest).String(), Err: storeError(err)}
	}
	// A pack that was removed can still be read by a process that has it open.
	if _, err := os.Stat(filepath.Join(a.s.dir, packsDir, pack.Name(loc.Pack))); err != nil {
		return bad(draws[0], fmt.Errorf("pack %d: %w: %w", loc.Pack, ErrCorrupt, err))
	}
	f, _, err := a.s.packs.ReadFrame(ctx, loc, nil)
	if err != nil {
		return bad(draws[0], err)
	}
	need := 0
	for _, d := range draws {
		need = max(need, int(d.row.Start)+int(d.row.Size))
	}
	if need > int(f.PlainSize) {
		return bad(draws[0], fmt.Errorf("frame at %d in pack %d has %d bytes, the index wants %d: %w", loc.Off, loc.Pack, f.PlainSize, need, ErrCorrupt))
	}
	plain, err := a.s.opener.OpenPrefix(nil, f.Codec, f.Sealed, int(f.PlainSize), need)
	if err != nil {
		return bad(draws[0], err)
	}
	for _, d := range draws {
		d.Data = slices.Clone(plain[d.row.Start : d.row.Start+d.row.Size])
		if got := dag.Digest(sha256.Sum256(d.Data)); got != d.chunk.Digest {
			return bad(d, fmt.Errorf("stored bytes hash to %v: %w", dag.RawCID(got), ErrCorrupt))
		}
		if read := a.s.opt.Observer.Read; read != nil {
			read(len(d.Data))
		}
	}
	return nil
}

func (a *answer) prove(ctx context.Context, d *draw) error {
	r := &proof.RangeProof{First: d.run.First, Offset: d.run.Offset, Sizes: []uint32{d.chunk.Size}}
	var err error
	if r.Left, r.Right, err = a.s.prover.ProveChunks(ctx, d.file.cid, d.file.proof.Leaf, d.run.First, d.run.Last); err != nil {
		return err
	}
	p := a.proof
	p.File, p.Range = &d.file.proof, r
	d.Proof, err = p.Format()
	return err
}
