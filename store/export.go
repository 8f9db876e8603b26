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
	return s.ExportCARFrom(ctx, o, 0, w)
}

// ExportCARFrom writes what ExportCAR does from an offset on. Chunks that lie before it are
// not read. An offset beyond the end is invalid.
func (s *Store) ExportCARFrom(ctx context.Context, o Object, from uint64, w io.Writer) error {
	bw := bufio.NewWriterSize(w, 1<<20)
	c := carWriter{s: s, w: bw, skip: from}
	if c.leaveOut(len(CARHeader(o.CID)), 0) {
		c.section(CARHeader(o.CID))
	}
	err := s.read(ctx, c.ops(ctx, s.carOps(ctx, o.CID)), readOptions{}, func(p *op, data []byte) error {
		if p.kind == opNode {
			return c.section(p.block.cid.Bytes(), p.block.bytes)
		}
		return c.section(dag.RawCID(p.ref.Digest).Bytes(), data)
	})
	if err == nil && c.skip > 0 {
		err = fmt.Errorf("offset %d is %d bytes beyond the end: %w", from, c.skip, ErrInvalid)
	}
	if err == nil {
		err = bw.Flush()
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", o, storeError(err))
	}
	return nil
}

// A carWriter writes sections from an offset on.
type carWriter struct {
	s *Store
	w *bufio.Writer
	// skip is how many bytes are still left out, of the goroutine that plans; cut is how many
	// of the first section that is not left out whole, which is set before it comes.
	skip, cut uint64
}

// leaveOut looks at a section with so many bytes before and in a block, and reports whether
// any of it is to be written.
func (c *carWriter) leaveOut(cid, block int) bool {
	n := uint64(cid + block)
	n += uint64(len(binary.AppendUvarint(nil, n)))
	switch {
	case c.skip == 0:
		return true
	case c.skip >= n:
		c.skip -= n
		return false
	}
	c.cut, c.skip = c.skip, 0
	return true
}

// ops leaves out the blocks that lie before the offset.
func (c *carWriter) ops(ctx context.Context, all iter.Seq2[op, error]) iter.Seq2[op, error] {
	return func(yield func(op, error) bool) {
		at := locator{s: c.s}
		for o, err := range all {
			if err == nil && c.skip > 0 {
				cid, n := dag.RawCID(o.ref.Digest).ByteLen(), len(o.block.bytes)
				if o.kind == opNode {
					cid = o.block.cid.ByteLen()
				} else {
					var found located
					if found, err = at.find(ctx, o.ref); err == nil {
						o.row, o.guess, n = found.chunkRow, found.guess, int(found.Size)
					}
				}
				if err == nil && !c.leaveOut(cid, n) {
					continue
				}
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// section writes one section: its length and its parts.
func (c *carWriter) section(parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	err := c.write(binary.AppendUvarint(c.w.AvailableBuffer(), uint64(n)))
	for _, p := range parts {
		err = c.write(p) // the first error is sticky
	}
	return err
}

func (c *carWriter) write(p []byte) error {
	out := min(c.cut, uint64(len(p)))
	c.cut -= out
	_, err := c.w.Write(p[out:])
	return err
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
