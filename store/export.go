package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
)

// ExportCAR writes the DAG of o as a CARv1: one root, every block once, each node
// before what it links to. The same object always gives the same bytes. Memory
// grows by about 100 bytes for every block.
func (s *Store) ExportCAR(ctx context.Context, o Object, w io.Writer) error {
	bw := bufio.NewWriterSize(w, 1<<20)
	if err := writeSection(bw, carHeader(o.CID)); err != nil {
		return fmt.Errorf("export %s: %w", o, err)
	}
	err := s.read(ctx, s.carOps(ctx, o.CID), func(p *op, data []byte) error {
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

// carHeader is the dag-cbor map {"roots": [root], "version": 1}, whose encoding is
// fixed but for the CID.
func carHeader(root cid.Cid) []byte {
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

// ExportLog writes the ledger in the C2SP tlog-tiles layout below dir, which must
// not exist or be empty: checkpoint, tile/<L>/<N> and tile/entries/<N>. The
// checkpoint comes last, so that a directory that has one is complete.
func (s *Store) ExportLog(ctx context.Context, dir string) error {
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return fmt.Errorf("export log: %s %w and is not empty", dir, ErrExists)
	}
	st := s.published.Load()
	if err := s.exportTiles(ctx, dir, st.checkpoint.Size); err != nil {
		return fmt.Errorf("export log: %w", storeError(err))
	}
	if err := s.exportBundles(ctx, dir, st.checkpoint.Size); err != nil {
		return fmt.Errorf("export log: %w", storeError(err))
	}
	return errors.Join(exportFile(dir, "checkpoint", st.signed), syncDir(dir))
}

const tileWidth = 256

func (s *Store) exportTiles(ctx context.Context, dir string, size int64) error {
	for level, n := 0, size; n > 0; level, n = level+1, n/tileWidth {
		for i := int64(0); i*tileWidth < n; i++ {
			width := int(min(n-i*tileWidth, tileWidth))
			b, err := tiles{s}.ReadTile(ctx, level, i, width)
			if err != nil {
				return err
			}
			if err := exportFile(dir, ledger.TilePath(level, i, width), b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) exportBundles(ctx context.Context, dir string, size int64) error {
	for i := int64(0); i*tileWidth < size; i++ {
		width := min(size-i*tileWidth, tileWidth)
		var b []byte
		for e, err := range s.Entries(ctx, i*tileWidth, i*tileWidth+width) {
			if err == nil {
				b, err = ledger.AppendBundle(b, e.Block)
			}
			if err != nil {
				return err
			}
		}
		if err := exportFile(dir, ledger.BundlePath(i, int(width)), b); err != nil {
			return err
		}
	}
	return nil
}

func exportFile(dir, name string, b []byte) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
