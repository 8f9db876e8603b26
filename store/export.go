package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
)

// ExportCAR writes the DAG of o as a CARv1: one root, every block once, each node
// before what it links to. The same object always gives the same bytes. Memory
// grows by about 100 bytes for every block.
func (s *Store) ExportCAR(ctx context.Context, o Object, w io.Writer) error {
	bw := bufio.NewWriterSize(w, 1<<20)
	if err := writeSection(bw, CARHeader(o.CID)); err != nil {
		return fmt.Errorf("export %s: %w", o, err)
	}
	err := s.read(ctx, s.carOps(ctx, o.CID), readOptions{}, func(p *op, data []byte) error {
		if p.kind == opNode {
			return writeSection(bw, p.block.cid.Bytes(), p.block.bytes)
		}
		return writeSection(bw, dag.RawCID(p.ref.Digest).Bytes(), data)
	})
	if err == nil {
		err = bw.Flush()
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", o, storeError(err))
	}
	return nil
}

func (s *Store) carOps(ctx context.Context, root cid.Cid) iter.Seq2[op, error] {
	// By CID: a chunk can hold the bytes of a node.
	seen := map[cid.Cid]struct{}{}
	enter := func(c cid.Cid) bool {
		_, ok := seen[c]
		seen[c] = struct{}{}
		return !ok
	}
	return func(yield func(op, error) bool) {
		for b, err := range s.blocks(ctx, root, enter) {
			o := op{kind: opNode, block: b}
			// The empty block is never stored.
			if d := b.cid; err == nil && b.bytes == nil && digestOf(d) != dag.EmptyDigest {
				o = op{ref: dag.ChunkRef{Digest: digestOf(d)}}
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// CARHeader is the header of a CAR version 1 with one root, without the length that goes
// before it: the dag-cbor map {"roots": [root], "version": 1}, whose encoding is
// fixed but for the CID.
func CARHeader(root cid.Cid) []byte {
	b := []byte("\xa2\x65roots\x81\xd8\x2a\x58")
	b = append(b, byte(1+root.ByteLen()), 0)
	b = append(b, root.Bytes()...)
	return append(b, "\x67version\x01"...)
}

func writeSection(w *bufio.Writer, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	w.Write(binary.AppendUvarint(w.AvailableBuffer(), uint64(n)))
	var err error
	for _, p := range parts {
		_, err = w.Write(p) // the first error is sticky
	}
	return err
}
