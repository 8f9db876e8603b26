package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/koii-network/scale/dag/ledger"
)

// A LogFile is a file of the exported ledger.
type LogFile struct {
	Path string // with slashes, for example "tile/0/000.p/7"
	Data []byte // valid until the iteration goes on; at most some 4 MiB
}

// checkpointFile is the path of the file that comes last.
const checkpointFile = "checkpoint"

// LogFiles yields the ledger as files in the C2SP tlog-tiles layout: tiles, entry
// bundles and at last the checkpoint, which covers just these. What is published
// meanwhile is left out.
func (s *Store) LogFiles(ctx context.Context) iter.Seq2[LogFile, error] {
	return func(yield func(LogFile, error) bool) {
		st := s.published.Load()
		err := s.tileFiles(ctx, st.checkpoint.Size, yield)
		if err == nil {
			err = s.bundleFiles(ctx, st.checkpoint.Size, yield)
		}
		if err == nil {
			yield(LogFile{Path: checkpointFile, Data: st.signed}, nil)
		} else if err != errEnough {
			yield(LogFile{}, fmt.Errorf("export log: %w", storeError(err)))
		}
	}
}

// errEnough ends an iteration whose consumer has had enough.
var errEnough = errors.New("enough")

func (s *Store) tileFiles(ctx context.Context, size int64, yield func(LogFile, error) bool) error {
	for level, n := 0, size; n > 0; level, n = level+1, n/ledger.TileWidth {
		for i := int64(0); i*ledger.TileWidth < n; i++ {
			width := int(min(n-i*ledger.TileWidth, ledger.TileWidth))
			b, err := tiles{s}.ReadTile(ctx, level, i, width)
			if err != nil {
				return err
			}
			if !yield(LogFile{Path: ledger.TilePath(level, i, width), Data: b}, nil) {
				return errEnough
			}
		}
	}
	return nil
}

func (s *Store) bundleFiles(ctx context.Context, size int64, yield func(LogFile, error) bool) error {
	var b []byte
	for i := int64(0); i*ledger.TileWidth < size; i++ {
		width := min(size-i*ledger.TileWidth, ledger.TileWidth)
		b = b[:0]
		for e, err := range s.Entries(ctx, i*ledger.TileWidth, i*ledger.TileWidth+width) {
			if err == nil {
				b, err = ledger.AppendBundle(b, e.Block)
			}
			if err != nil {
				return err
			}
		}
		if !yield(LogFile{Path: ledger.BundlePath(i, int(width)), Data: b}, nil) {
			return errEnough
		}
	}
	return nil
}

// ExportLog writes the ledger in the C2SP tlog-tiles layout below dir, which must
// not exist or be empty: checkpoint, tile/<L>/<N> and tile/entries/<N>. The
// checkpoint comes last, so that a directory that has one is complete.
func (s *Store) ExportLog(ctx context.Context, dir string) error {
	return WriteLog(dir, s.LogFiles(ctx))
}

// WriteLog writes the files of an exported ledger, wherever they come from, below dir,
// which must not exist or be empty. Paths that are not of such a ledger are ErrInvalid,
// and files that do not end with the checkpoint ErrCorrupt.
func WriteLog(dir string, files iter.Seq2[LogFile, error]) error {
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return fmt.Errorf("export log: %s %w and is not empty", dir, ErrExists)
	}
	last := ""
	for f, err := range files {
		if err != nil {
			return err
		}
		if err := writeLogFile(dir, f); err != nil {
			return fmt.Errorf("export log: %w", err)
		}
		last = f.Path
	}
	if last != checkpointFile {
		return fmt.Errorf("export log: the checkpoint is missing: %w", ErrCorrupt)
	}
	return syncDir(dir)
}

func writeLogFile(dir string, f LogFile) error {
	if f.Path != checkpointFile && (!strings.HasPrefix(f.Path, "tile/") || path.Clean(f.Path) != f.Path || !filepath.IsLocal(f.Path)) {
		return fmt.Errorf("%q is no file of a log: %w", f.Path, ErrInvalid)
	}
	name := filepath.Join(dir, filepath.FromSlash(f.Path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, f.Data, 0o644)
}
