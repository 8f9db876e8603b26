package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/koii-network/scale/dag/ledger"
)

// Newest returns the size of the published tree, its checkpoint as the log signed it,
// which is nil before the first entry, and a channel that is closed when a newer one is
// published.
func (s *Store) Newest() (size int64, note []byte, changed <-chan struct{}) {
	st := s.published.Load()
	return st.checkpoint.Size, st.signed, st.superseded
}

// CheckpointAt returns the signed checkpoint of the largest tree of at most size
// entries, and its size; ErrNotFound if there is none. A group of entries that were
// committed together has one checkpoint, so not every size has its own.
func (s *Store) CheckpointAt(ctx context.Context, size int64) (int64, []byte, error) {
	newest, note, _ := s.Newest()
	if size >= newest {
		if note == nil {
			return 0, nil, fmt.Errorf("checkpoint of at most %d entries of an empty ledger: %w", size, ErrNotFound)
		}
		return newest, note, nil
	}
	if size < 1 {
		return 0, nil, fmt.Errorf("checkpoint of at most %d entries: %w", size, ErrNotFound)
	}
	// Rows are read upwards only: find the last place from which the next checkpoint is
	// still small enough.
	var scanErr error
	next := func(from int64) int64 {
		for row, err := range s.kv.Scan(ctx, []byte{rowCheckpoint}, indexKey(rowCheckpoint, from)) {
			if err != nil {
				scanErr = err
				return newest
			}
			return int64(binary.BigEndian.Uint64(row.Key[1:]))
		}
		return newest
	}
	i := sort.Search(int(size), func(i int) bool { return next(size-int64(i)) <= size })
	if scanErr != nil {
		return 0, nil, storeError(scanErr)
	}
	if int64(i) == size {
		return 0, nil, fmt.Errorf("checkpoint of at most %d entries: %w", size, ErrNotFound)
	}
	at := next(size - int64(i))
	b, err := s.kv.Get(ctx, indexKey(rowCheckpoint, at), nil)
	if err != nil {
		return 0, nil, storeError(err)
	}
	if c, err := ledger.OpenCheckpoint(b, s.verifier); err != nil || c.Size != at {
		return 0, nil, fmt.Errorf("checkpoint of size %d: %w: %w", at, ErrCorrupt, err)
	}
	return at, b, nil
}
