package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/store/kv"
)

// A Snapshot is what a store held at one moment between two commits of its ledger, for
// package check, which reads the store by itself.
type Snapshot struct {
	Dir       string    // of the store
	Rows      kv.Reader // as they were at that moment
	HighWater []byte    // content of the high-water mark then; nil if it could not be read
	// Sort is how large directories are sorted, as the store itself does when it reads.
	Sort  extsort.Options
	close func()
}

// Snapshot returns the store as it is now, while puts go on. It costs nothing but the
// space of rows that are replaced until it is closed, a few KiB for each commit.
func (s *Store) Snapshot(ctx context.Context) (*Snapshot, error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	mark, err := os.ReadFile(filepath.Join(s.dir, highWaterFile))
	if err != nil {
		s.log.Error("snapshot", "high-water mark", err)
		mark = nil
	}
	rows, err := s.kv.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", storeError(err))
	}
	return &Snapshot{Dir: s.dir, Rows: rows, HighWater: mark, Sort: s.walker().Sort, close: rows.Close}, nil
}

// Close gives the snapshot up. Closing twice is harmless.
func (v *Snapshot) Close() { v.close() }
