package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/rowpack"
)

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
	buf := s.buffers.take()
	defer s.buffers.give(buf)
	b, err := s.kv.Get(ctx, digestKey(rowNode, d), *buf)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, s.gone(fmt.Errorf("node %v is missing", dag.NodeCID(d)))
	}
	if err == nil {
		*buf = b[:0]
		b, err = s.packer.Open(nil, b, dag.MaxBlock)
	}
	if err != nil {
		return nil, fmt.Errorf("node %v: %w%s", dag.NodeCID(d), storeError(err), mend(err))
	}
	if got := dag.Digest(sha256.Sum256(b)); got != d {
		return nil, fmt.Errorf("node %v hashes to %v: %w%s", dag.NodeCID(d), dag.NodeCID(got), ErrCorrupt, mend(ErrCorrupt))
	}
	return b, nil
}

// Row implements dag.Reader: a row of a commitment tree, which package dag checks.
func (s *Store) Row(ctx context.Context, h dag.Hash) ([]byte, error) {
	buf := s.buffers.take()
	defer s.buffers.give(buf)
	row := *buf
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
	*buf = row[:0]
	row, err := s.packer.Open(nil, row, dag.MaxRow)
	if err != nil {
		return nil, fmt.Errorf("commitment row %v: %w%s", h, storeError(err), mend(err))
	}
	return row, nil
}

// mend says what to do about a row whose bytes are there and are not what they were.
func mend(err error) string {
	if errors.Is(err, ErrCorrupt) || errors.Is(err, rowpack.ErrCorrupt) {
		return "; scale check says what it touches; scale check --read-data --forget-damaged, and then putting the same data again, mends it"
	}
	return ""
}

// rowBuffers are for the values of nodes and commitment rows, as they are stored.
type rowBuffers struct{ pool sync.Pool } // of *[]byte

func (b *rowBuffers) take() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	return new([]byte)
}

func (b *rowBuffers) give(p *[]byte) {
	*p = (*p)[:0]
	b.pool.Put(p)
}
