package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// An opKind is one step of giving a tree back.
type opKind uint8

const (
	opData opKind = iota // bytes of the file under way
	opDir
	opLink
	opFile // a file begins
	opEnd  // it ends
	opNode // a block that is no chunk
)

// An op is a step with what it needs. Steps are carried out in order.
type op struct {
	kind   opKind
	path   string
	target string
	attr   dag.Attr
	size   uint64
	ref    dag.ChunkRef
	row    chunkRow // of ref; zero until it is looked up
	block  block    // of opNode
}

// A span is a run of steps whose data lies in one frame: the unit of read-ahead.
type span struct {
	ops   []op
	loc   pack.Loc // zero when no step has data
	need  int      // plain bytes of the frame up to the last one wanted
	used  int      // plain bytes wanted
	plain []byte   // aliases buf or the cache
	buf   []byte   // owned by the span, reused
	ready chan error
}

// spanOps bounds a span, so that a tree of empty files still flows. A frame of small
// files, three steps each, fits into one, so that it is decoded once.
const spanOps = 3*ingest.MaxFrameChunks + 1024

// read carries out the steps in order. Frames are read and decoded ahead on
// several goroutines; every chunk has been checked against its digest before visit
// sees its bytes.
func (s *Store) read(ctx context.Context, ops iter.Seq2[op, error], visit func(o *op, data []byte) error) error {
	workers := min(runtime.GOMAXPROCS(0), 8)
	depth := workers + 2
	free, work, order := make(chan *span, depth), make(chan *span, depth), make(chan *span, depth)
	for range depth {
		free <- &span{ready: make(chan error, 1)}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(order)
		defer close(work)
		return s.plan(gctx, ops, free, func(sp *span) {
			// Neither blocks: the channels hold as many spans as there are.
			work <- sp
			order <- sp
		})
	})
	for range workers {
		g.Go(func() error {
			var sealed []byte
			for sp := range work {
				var err error
				if sealed, err = s.load(gctx, sp, sealed); err == nil {
					err = sp.verify()
				}
				if tell := s.opt.Observer.Read; tell != nil && err == nil && sp.used > 0 {
					tell(sp.used)
				}
				sp.ready <- err
			}
			return nil
		})
	}
	g.Go(func() error {
		for sp := range order {
			if err := <-sp.ready; err != nil {
				return err
			}
			for i := range sp.ops {
				o := &sp.ops[i]
				var data []byte
				if o.kind == opData {
					data = sp.plain[o.row.Start : o.row.Start+o.row.Size]
				}
				if err := visit(o, data); err != nil {
					return err
				}
			}
			select {
			case free <- sp:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
		}
		return nil
	})
	return g.Wait()
}

// plan looks up where each chunk is and cuts the steps into spans.
func (s *Store) plan(ctx context.Context, ops iter.Seq2[op, error], free <-chan *span, send func(*span)) error {
	var sp *span
	for o, err := range ops {
		if err != nil {
			return err
		}
		if o.kind == opData && o.row.Size == 0 {
			if o.row, err = s.chunkRow(ctx, o.ref); err != nil {
				return err
			}
		}
		if sp != nil && (len(sp.ops) >= spanOps || o.kind == opData && sp.loc.Pack != 0 && sp.loc != o.row.Loc) {
			send(sp)
			sp = nil
		}
		if sp == nil {
			select {
			case sp = <-free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			sp.ops, sp.loc, sp.need, sp.used, sp.plain = sp.ops[:0], pack.Loc{}, 0, 0, nil
		}
		sp.ops = append(sp.ops, o)
		if o.kind == opData {
			sp.loc = o.row.Loc
			sp.need = max(sp.need, int(o.row.Start)+int(o.row.Size))
			sp.used += int(o.row.Size)
		}
	}
	if sp != nil {
		send(sp)
	}
	return nil
}

// load brings the span's frame into memory. sealed is scratch.
func (s *Store) load(ctx context.Context, sp *span, sealed []byte) ([]byte, error) {
	if sp.loc.Pack == 0 {
		return sealed, nil
	}
	plain, known, err := s.frames.take(ctx, sp.loc, sp.need)
	if err != nil || plain != nil {
		sp.plain = plain
		return sealed, err
	}
	defer s.frames.done(sp.loc)
	f, sealed, err := s.packs.ReadFrame(ctx, sp.loc, sealed)
	if err != nil {
		return sealed, fmt.Errorf("frame at %d in pack %d: %w", sp.loc.Off, sp.loc.Pack, storeError(err))
	}
	if sp.need > int(f.PlainSize) {
		return sealed, fmt.Errorf("frame at %d in pack %d has %d bytes, the index wants %d: %w", sp.loc.Off, sp.loc.Pack, f.PlainSize, sp.need, ErrCorrupt)
	}
	// A frame of which little is wanted now is likely to be wanted again soon, and
	// then further on: versions alternate between old frames and new. One that is read
	// through is not, and its buffer is better reused.
	share := known || sp.used*2 < int(f.PlainSize)
	need, dst := sp.need, sp.buf[:0]
	if known {
		need = int(f.PlainSize)
	}
	if share {
		dst = make([]byte, 0, need)
	}
	plain, err = s.opener.OpenPrefix(dst, f.Codec, f.Sealed, int(f.PlainSize), need)
	if err != nil {
		return sealed, fmt.Errorf("frame at %d in pack %d: %w", sp.loc.Off, sp.loc.Pack, storeError(err))
	}
	sp.plain = plain
	if share {
		s.frames.put(sp.loc, plain)
	} else {
		sp.buf = plain
	}
	return sealed, nil
}

// verify checks every chunk of the span against its digest.
func (sp *span) verify() error {
	for i := range sp.ops {
		o := &sp.ops[i]
		if o.kind != opData {
			continue
		}
		got := dag.Digest(sha256.Sum256(sp.plain[o.row.Start : o.row.Start+o.row.Size]))
		if got != o.ref.Digest {
			return &ChunkError{CID: dag.RawCID(o.ref.Digest).String(), Err: fmt.Errorf("stored bytes hash to %v: %w", dag.RawCID(got), ErrCorrupt)}
		}
	}
	return nil
}

// chunkRow finds a chunk. One that a published dataset names and that is not
// there was lost.
func (s *Store) chunkRow(ctx context.Context, ref dag.ChunkRef) (chunkRow, error) {
	var scratch [64]byte
	b, err := s.kv.Get(ctx, digestKey(rowChunk, ref.Digest), scratch[:0])
	if errors.Is(err, kv.ErrNotFound) {
		err = s.gone(errors.New("not in the index"))
	}
	var r chunkRow
	if err == nil {
		r, err = parseChunkRow(b)
	}
	if err == nil && ref.Size != 0 && ref.Size != r.Size {
		err = fmt.Errorf("the index has %d bytes, the dataset %d: %w", r.Size, ref.Size, ErrCorrupt)
	}
	if err != nil {
		return chunkRow{}, &ChunkError{CID: dag.RawCID(ref.Digest).String(), Err: storeError(err)}
	}
	return r, nil
}

// Node implements dag.Reader: the dag-pb block with that digest, checked. A block
// that is not there was lost, since only what a dataset names is asked for.
func (s *Store) Node(ctx context.Context, d dag.Digest) ([]byte, error) {
	b, err := s.kv.Get(ctx, digestKey(rowNode, d), nil)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, s.gone(fmt.Errorf("node %v is missing", dag.NodeCID(d)))
	}
	if err != nil {
		return nil, fmt.Errorf("node %v: %w", dag.NodeCID(d), storeError(err))
	}
	if got := dag.Digest(sha256.Sum256(b)); got != d {
		return nil, fmt.Errorf("node %v hashes to %v: %w", dag.NodeCID(d), dag.NodeCID(got), ErrCorrupt)
	}
	return b, nil
}

// Row implements dag.Reader: a row of a commitment tree, which package dag checks.
func (s *Store) Row(ctx context.Context, h dag.Hash) ([]byte, error) {
	var row []byte
	for part := 0; len(row) == part*rowPart && len(row) <= dag.MaxRow; part++ {
		var err error
		row, err = s.kv.Get(ctx, commitmentKey(h, part), row)
		if errors.Is(err, kv.ErrNotFound) {
			return nil, s.gone(fmt.Errorf("commitment row %v is missing", h))
		}
		if err != nil {
			return nil, fmt.Errorf("commitment row %v: %w", h, storeError(err))
		}
	}
	return row, nil
}
