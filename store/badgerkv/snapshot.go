package badgerkv

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/koii-network/scale/store/kv"
)

// A snapshot reads at a timestamp that compactions leave alone.
type snapshot struct {
	s      *KV
	ts     uint64
	closed atomic.Bool
}

// Snapshot implements kv.Store.
func (s *KV) Snapshot() (kv.Snapshot, error) {
	if err := s.lk.enter(); err != nil {
		return nil, err
	}
	defer s.lk.calls.Done()
	// Behind the lock no commit is between its timestamp and the discarding of what
	// it replaced.
	s.mu.Lock()
	defer s.mu.Unlock()
	ts := s.committed.Load()
	if s.pinned == nil {
		s.pinned = make(map[uint64]int)
	}
	s.pinned[ts]++
	return &snapshot{s: s, ts: ts}, nil
}

// discard lets compactions drop what no reader can see any more. The caller holds mu.
func (s *KV) discard() {
	ts := s.committed.Load()
	for pinned := range s.pinned {
		ts = min(ts, pinned)
	}
	s.db.SetDiscardTs(ts)
}

// Close implements kv.Snapshot.
func (v *snapshot) Close() {
	if v.closed.Swap(true) || v.s.lk.enter() != nil {
		return
	}
	defer v.s.lk.calls.Done()
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.s.pinned[v.ts]--; v.s.pinned[v.ts] == 0 {
		delete(v.s.pinned, v.ts)
	}
	v.s.discard()
}

// enter begins a call, which ends with lk.calls.Done.
func (v *snapshot) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("badgerkv: snapshot: %w", err)
	}
	if v.closed.Load() {
		return fmt.Errorf("badgerkv: snapshot: %w", kv.ErrClosed)
	}
	return v.s.lk.enter()
}

// item looks up key. If there is no error, the caller ends the call when it is done with
// the item.
func (v *snapshot) item(ctx context.Context, key []byte) (item *badger.Item, err error) {
	if err := kv.CheckKey(key); err != nil {
		return nil, err
	}
	if err := v.enter(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			item, err = nil, fmt.Errorf("badgerkv: get %x: %w", key, panicked(r))
		}
		if err != nil {
			v.s.lk.calls.Done()
		}
	}()
	if v.s.lookups.Add(1)%trimLookups == 0 {
		v.s.trim()
	}
	return v.s.itemAt(v.ts, key)
}

// Get implements kv.Reader.
func (v *snapshot) Get(ctx context.Context, key, dst []byte) ([]byte, error) {
	item, err := v.item(ctx, key)
	if err != nil {
		return dst, err
	}
	defer v.s.lk.calls.Done()
	return valueOf(item, key, dst)
}

// Has implements kv.Reader.
func (v *snapshot) Has(ctx context.Context, key []byte) (bool, error) {
	_, err := v.item(ctx, key)
	return has(err, &v.s.lk)
}

// Scan implements kv.Reader.
func (v *snapshot) Scan(ctx context.Context, prefix, from []byte) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		if err := v.enter(ctx); err != nil {
			yield(kv.Row{}, err)
			return
		}
		defer v.s.lk.calls.Done()
		scan(ctx, v, prefix, from, yield)
	}
}

// Last implements kv.Reader.
func (v *snapshot) Last(ctx context.Context, prefix []byte) (kv.Row, error) {
	if err := v.enter(ctx); err != nil {
		return kv.Row{}, err
	}
	defer v.s.lk.calls.Done()
	return last(v, prefix)
}

func (v *snapshot) cursor(prefix, seek []byte, reverse bool) (*cursor, error) {
	c, err := v.s.cursorAt(v.ts, prefix, reverse)
	if err == nil {
		c.step(func() { c.it.Seek(seek) })
	}
	return c, err
}
