package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// checkTail looks at what lies behind the end of the packs, which the next append cuts
// off. A put that was broken off leaves frames there that no row knows. A row that
// points there says that the end is not the one that was recorded last.
func (s *Store) checkTail(ctx context.Context, tail pack.Tail) error {
	numbers, err := s.packs.List()
	if err != nil {
		return storeError(err)
	}
	for _, n := range numbers {
		if n < tail.Pack {
			continue
		}
		if err := s.checkBehind(ctx, n, tail); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) checkBehind(ctx context.Context, n uint32, tail pack.Tail) error {
	f, err := os.Open(filepath.Join(s.dir, packsDir, pack.Name(n)))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if n == tail.Pack && uint64(fi.Size()) <= tail.End {
		return nil
	}
	for fr, err := range pack.ScanFile(ctx, f, fi.Size(), n) {
		if err != nil && !errors.Is(err, pack.ErrCorrupt) {
			return err
		}
		// Damage before the end is found when it is read, and a torn frame behind it is
		// what is to be cut off.
		if len(fr.Chunks) == 0 || n == tail.Pack && fr.Off < tail.End {
			continue
		}
		b, err := s.kv.Get(ctx, digestKey(rowChunk, fr.Chunks[0].Digest), nil)
		if errors.Is(err, kv.ErrNotFound) {
			return nil
		}
		if err != nil {
			return storeError(err)
		}
		if r, err := parseChunkRow(b); err == nil && r.Loc == fr.Loc {
			return fmt.Errorf("the index knows a frame at %d of pack %d, behind where it says that the packs end: %w", fr.Off, n, ErrCorrupt)
		}
	}
	return nil
}
