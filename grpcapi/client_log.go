package grpcapi

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// ExportLog writes the node's ledger below dir, as store.Store.ExportLog does. When it
// returns nil, tiles and entries have been recomputed and lead to the signed checkpoint.
func (c *Client) ExportLog(ctx context.Context, dir string) error {
	return store.WriteLog(dir, c.LogFiles(ctx))
}

// LogFiles yields the ledger as files, as store.Store.LogFiles does, and at last an error
// if they are not such a ledger. It is not repeated when the connection breaks.
func (c *Client) LogFiles(ctx context.Context) iter.Seq2[store.LogFile, error] {
	return func(yield func(store.LogFile, error) bool) {
		v, err := note.NewVerifier(c.info.VKey)
		if err != nil {
			yield(store.LogFile{}, nodeErrorf("the log's key: %w", err))
			return
		}
		f := &logReceiver{check: logChecker{verifier: v}, yield: yield}
		callErr, takeErr := c.receive(ctx, scalev1.LedgerService_ExportLog_FullMethodName, &scalev1.ExportLogRequest{}, f.take)
		if callErr == nil && takeErr == nil {
			if takeErr = f.flush(); takeErr == nil {
				takeErr = f.check.end()
			}
		}
		switch {
		case f.enough:
		case takeErr != nil:
			yield(store.LogFile{}, fmt.Errorf("export log: %w", takeErr))
		case callErr != nil:
			yield(store.LogFile{}, fmt.Errorf("export log: %w", callError(ctx, callErr)))
		}
	}
}

// maxLogFile bounds a file of the log: a bundle of entries.
const maxLogFile = ledger.TileWidth * (2 + ledger.MaxEntry)

// A logReceiver puts together the files in pieces.
type logReceiver struct {
	check  logChecker
	yield  func(store.LogFile, error) bool
	begun  bool
	path   string
	data   []byte
	enough bool // yield wants no more
}

func (f *logReceiver) take(m *wireMessage) error {
	if len(m.b) == 0 {
		return errNothing
	}
	return m.fields(func(n protowire.Number, b []byte) error {
		switch n {
		case 1:
			if err := f.flush(); err != nil {
				return err
			}
			f.begun, f.path, f.data = true, string(b), f.data[:0]
		case 2:
			if !f.begun || len(f.data)+len(b) > maxLogFile {
				return nodeErrorf("a file of the log that is too long, or has no path")
			}
			f.data = append(f.data, b...)
		}
		return nil
	})
}

// flush hands on the file that has come.
func (f *logReceiver) flush() error {
	if !f.begun {
		return nil
	}
	if err := f.check.file(f.path, f.data); err != nil {
		return nodeErrorf("file %.100q of the log: %w", f.path, err)
	}
	if !f.yield(store.LogFile{Path: f.path, Data: f.data}, nil) {
		f.enough = true
		return errEnoughFiles
	}
	return nil
}

var errEnoughFiles = fmt.Errorf("enough")

// A logChecker recomputes a ledger from its files, in the order in which they come: the
// tiles level by level, the bundles of entries, the checkpoint. It holds 32 bytes for
// every 256 entries.
type logChecker struct {
	verifier note.Verifier

	level  int         // of the tiles that come; -1: of the bundles
	next   int64       // index of the next tile or bundle
	size   int64       // entries, as far as tiles of level 0 have come
	leaves []tlog.Hash // roots of the full tiles of level 0
	below  []tlog.Hash // roots of the full tiles of the level below
	here   []tlog.Hash // and of this one
	edge   [][]byte    // the last tile of each level, if it is partial
	done   bool
}

func (c *logChecker) file(path string, data []byte) error {
	if c.done {
		return fmt.Errorf("it comes behind the checkpoint")
	}
	if path == "checkpoint" {
		return c.checkpoint(data)
	}
	if c.level >= 0 {
		if c.rest() == 0 || c.level == 0 && path != ledger.TilePath(0, c.next, len(data)/tlog.HashSize) {
			c.up()
		}
	}
	if c.level < 0 {
		return c.bundle(path, data)
	}
	return c.tile(path, data)
}

// rest returns how many hashes of this level are to come; of level 0 that is not known.
func (c *logChecker) rest() int64 {
	if c.level == 0 {
		return ledger.TileWidth
	}
	return c.size>>(ledger.TileHeight*c.level) - c.next*ledger.TileWidth
}

// up goes to the next level, or behind the last one to the bundles.
func (c *logChecker) up() {
	if c.level == 0 {
		c.leaves = c.here
	}
	c.level, c.next, c.below, c.here = c.level+1, 0, c.here, nil
	if c.size>>(ledger.TileHeight*c.level) == 0 {
		c.level = -1
	}
}

func (c *logChecker) tile(path string, data []byte) error {
	width := len(data) / tlog.HashSize
	if width == 0 || width > ledger.TileWidth || len(data)%tlog.HashSize != 0 || path != ledger.TilePath(c.level, c.next, width) {
		return fmt.Errorf("it is not tile %d of level %d", c.next, c.level)
	}
	switch {
	case c.level == 0 && len(c.edge) > 0:
		return fmt.Errorf("it comes behind a partial tile")
	case c.level == 0:
		c.size += int64(width)
	case int64(width) != min(c.rest(), ledger.TileWidth):
		return fmt.Errorf("it has %d hashes, and there are %d entries", width, c.size)
	}
	if c.level > 0 {
		for i := range width {
			if !bytes.Equal(data[i*tlog.HashSize:(i+1)*tlog.HashSize], c.below[c.next*ledger.TileWidth+int64(i)][:]) {
				return fmt.Errorf("hash %d is not that of the tile below", i)
			}
		}
	}
	if width == ledger.TileWidth {
		c.here = append(c.here, perfectRoot(hashesOf(data)))
	} else {
		for len(c.edge) <= c.level {
			c.edge = append(c.edge, nil)
		}
		c.edge[c.level] = bytes.Clone(data)
	}
	c.next++
	return nil
}

func hashesOf(data []byte) []tlog.Hash {
	h := make([]tlog.Hash, len(data)/tlog.HashSize)
	for i := range h {
		copy(h[i][:], data[i*tlog.HashSize:])
	}
	return h
}

// perfectRoot is the root of a tree of a power of two leaves, whose hashes it overwrites.
func perfectRoot(h []tlog.Hash) tlog.Hash {
	for len(h) > 1 {
		for i := range len(h) / 2 {
			h[i] = tlog.NodeHash(h[2*i], h[2*i+1])
		}
		h = h[:len(h)/2]
	}
	return h[0]
}

func (c *logChecker) bundle(path string, data []byte) error {
	width := min(c.size-c.next*ledger.TileWidth, ledger.TileWidth)
	if width <= 0 || path != ledger.BundlePath(c.next, int(width)) {
		return fmt.Errorf("it is not bundle %d of %d entries", c.next, c.size)
	}
	blocks, err := ledger.ParseBundle(data)
	if err != nil {
		return err
	}
	if int64(len(blocks)) != width {
		return fmt.Errorf("it has %d entries, not %d", len(blocks), width)
	}
	leaves := make([]tlog.Hash, width)
	for i, b := range blocks {
		leaves[i] = ledger.LeafHash(b)
	}
	same := false
	if width == ledger.TileWidth {
		same = perfectRoot(leaves) == c.leaves[c.next]
	} else {
		var b []byte
		for _, h := range leaves {
			b = append(b, h[:]...)
		}
		same = bytes.Equal(b, c.edge[0])
	}
	if !same {
		return fmt.Errorf("its entries are not those of the tile")
	}
	c.next++
	return nil
}

func (c *logChecker) checkpoint(data []byte) error {
	if c.level >= 0 && c.size > 0 || c.level < 0 && c.next*ledger.TileWidth < c.size {
		return fmt.Errorf("it comes too early")
	}
	cp, err := ledger.OpenCheckpoint(data, c.verifier)
	if err != nil {
		return err
	}
	root := ledger.EmptyRoot()
	if c.size > 0 {
		if root, err = ledger.Root(context.Background(), edgeTiles(c.edge), c.size); err != nil {
			return err
		}
	}
	if cp.Size != c.size || cp.Root != root {
		return fmt.Errorf("it signs another tree than that of the %d entries", c.size)
	}
	c.done = true
	return nil
}

func (c *logChecker) end() error {
	if !c.done {
		return nodeErrorf("the log ends without its checkpoint")
	}
	return nil
}

// edgeTiles are the partial tiles at the right edge of a tree, by level.
type edgeTiles [][]byte

// ReadTile implements ledger.TileReader.
func (t edgeTiles) ReadTile(_ context.Context, level int, _ int64, width int) ([]byte, error) {
	if level >= len(t) || len(t[level]) < width*tlog.HashSize {
		return nil, fmt.Errorf("tile of level %d: %w", level, ledger.ErrCorrupt)
	}
	return t[level][:width*tlog.HashSize], nil
}
