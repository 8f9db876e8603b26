package badgerkv

import (
	"context"
	"fmt"

	"github.com/koii-network/scale/store/kv"
)

// Commit implements kv.Store.
func (s *KV) Commit(ctx context.Context, b *kv.Batch) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("badgerkv: commit: %w", err)
	}
	if err := b.Check(); err != nil {
		return fmt.Errorf("badgerkv: commit: %w", err)
	}
	if err := s.lk.enter(); err != nil {
		return err
	}
	defer s.lk.calls.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	if b.Len() == 0 {
		return nil
	}
	if err := s.room.check(s.room.forCommit(int64(b.Bytes()))); err != nil {
		return fmt.Errorf("badgerkv: commit: %w", err)
	}
	if err := s.reserve(); err != nil {
		return fmt.Errorf("badgerkv: commit: %w", err)
	}
	ts := s.committed.Load() + 1
	if err := s.commit(b, ts); err != nil {
		// As text: kv.ErrNoSpace would say that nothing was written.
		s.broken = fmt.Errorf("badgerkv: commit: outcome unknown until the store is reopened: %v", err)
		return s.broken
	}
	// From here on readers see the commit. Only then may compactions drop what
	// it replaced: readers look at committed again after they have read.
	s.committed.Store(ts)
	s.discard()
	before := s.room.written
	s.room.written += int64(b.Bytes())
	if before/trimBytes != s.room.written/trimBytes {
		s.trim()
	}
	return nil
}

// commit writes the batch as one transaction and syncs it.
func (s *KV) commit(b *kv.Batch, ts uint64) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked(r)
		}
	}()
	txn := s.db.NewTransactionAt(ts, true)
	defer txn.Discard()
	for row, deleted := range b.Rows() {
		if deleted {
			err = txn.Delete(row.Key)
		} else {
			err = txn.Set(row.Key, row.Value)
		}
		if err != nil {
			return err
		}
	}
	// A row of our own, so that the newest commit always has a row and Badger
	// knows its timestamp after a reopen, though all else were deletes that a
	// compaction dropped.
	if err := txn.Set(markKey, nil); err != nil {
		return err
	}
	if err := txn.CommitAt(ts, nil); err != nil {
		return systemError(err)
	}
	return s.syncNewLog()
}

var markKey = []byte("!commit")
