package badgerkv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/dgraph-io/badger/v4"

	"github.com/koii-network/scale/store/kv"
)

// Get implements kv.Store.
func (s *KV) Get(ctx context.Context, key, dst []byte) ([]byte, error) {
	item, err := s.item(ctx, key)
	if err != nil {
		return dst, err
	}
	defer s.lk.calls.Done()
	return valueOf(item, key, dst)
}

func valueOf(item *badger.Item, key, dst []byte) ([]byte, error) {
	out, err := value(item, dst)
	if err != nil {
		return dst, fmt.Errorf("badgerkv: get %x: %w", key, err)
	}
	return out, nil
}

// Has implements kv.Store.
func (s *KV) Has(ctx context.Context, key []byte) (bool, error) {
	_, err := s.item(ctx, key)
	return has(err, &s.lk)
}

// has turns the outcome of looking an item up into that of Has.
func has(err error, l *lock) (bool, error) {
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	l.calls.Done()
	return true, nil
}

// item looks up key. If there is no error, the caller ends the call when it is
// done with the item.
func (s *KV) item(ctx context.Context, key []byte) (item *badger.Item, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("badgerkv: get: %w", err)
	}
	if err := kv.CheckKey(key); err != nil {
		return nil, err
	}
	if err := s.lk.enter(); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			item, err = nil, fmt.Errorf("badgerkv: get %x: %w", key, panicked(r))
		}
		if err != nil {
			s.lk.calls.Done()
		}
	}()
	if s.lookups.Add(1)%trimLookups == 0 {
		s.trim()
	}
	for {
		ts := s.committed.Load()
		item, err = s.itemAt(ts, key)
		if s.committed.Load() == ts {
			return item, err
		}
		// A compaction may have dropped the row as it was at ts.
	}
}

func (s *KV) itemAt(ts uint64, key []byte) (*badger.Item, error) {
	item, err := s.db.NewTransactionAt(ts, false).Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, kv.ErrNotFound // bare: a miss is common and must be cheap
	} else if err != nil {
		return nil, fmt.Errorf("badgerkv: get %x: %w: %w", key, kv.ErrCorrupt, err)
	}
	return item, nil
}

// value appends the value of item to dst.
func value(item *badger.Item, dst []byte) (_ []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked(r)
		}
	}()
	err = item.Value(func(v []byte) error {
		dst = append(dst, v...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kv.ErrCorrupt, err)
	}
	return dst, nil
}

// panicked turns what Badger panicked with into an error. It does so when a
// block is not what its index says.
func panicked(r any) error { return fmt.Errorf("%w: badger panicked: %v", kv.ErrCorrupt, r) }

// Scan implements kv.Store.
func (s *KV) Scan(ctx context.Context, prefix, from []byte) iter.Seq2[kv.Row, error] {
	return func(yield func(kv.Row, error) bool) {
		if err := s.lk.enter(); err != nil {
			yield(kv.Row{}, err)
			return
		}
		defer s.lk.calls.Done()
		scan(ctx, s, prefix, from, yield)
	}
}

// A cursorMaker gives cursors at the rows with a prefix, from seek on.
type cursorMaker interface {
	cursor(prefix, seek []byte, reverse bool) (*cursor, error)
}

func scan(ctx context.Context, m cursorMaker, prefix, from []byte, yield func(kv.Row, error) bool) {
	if bytes.Compare(from, prefix) < 0 {
		from = prefix
	}
	c, err := m.cursor(prefix, from, false)
	if err != nil {
		yield(kv.Row{}, err)
		return
	}
	defer c.close()
	for ; ; c.step(c.it.Next) {
		if err := ctx.Err(); err != nil {
			c.err = err
		}
		if c.err != nil {
			yield(kv.Row{}, fmt.Errorf("badgerkv: scan: %w", c.err))
			return
		}
		if !c.ok {
			return
		}
		if c.row.Key[0] == markKey[0] {
			continue // not a row of the caller's
		}
		if !yield(c.row, nil) {
			return
		}
	}
}

// Last implements kv.Store.
func (s *KV) Last(ctx context.Context, prefix []byte) (kv.Row, error) {
	if err := ctx.Err(); err != nil {
		return kv.Row{}, fmt.Errorf("badgerkv: last: %w", err)
	}
	if err := s.lk.enter(); err != nil {
		return kv.Row{}, err
	}
	defer s.lk.calls.Done()
	return last(s, prefix)
}

func last(m cursorMaker, prefix []byte) (kv.Row, error) {
	// Behind every key with the prefix, which is at most kv.MaxKey long.
	from := append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, kv.MaxKey+1-min(len(prefix), kv.MaxKey))...)
	c, err := m.cursor(prefix, from, true)
	if err != nil {
		return kv.Row{}, err
	}
	defer c.close()
	switch {
	case c.err != nil:
		return kv.Row{}, fmt.Errorf("badgerkv: last: %w", c.err)
	case !c.ok:
		return kv.Row{}, kv.ErrNotFound
	}
	return kv.Row{Key: bytes.Clone(c.row.Key), Value: bytes.Clone(c.row.Value)}, nil
}

// A cursor walks the rows of one moment.
type cursor struct {
	txn *badger.Txn
	it  *badger.Iterator
	buf []byte

	row kv.Row
	ok  bool // there is a row
	err error
}

// cursor returns a cursor at the newest rows.
func (s *KV) cursor(prefix, seek []byte, reverse bool) (*cursor, error) {
	for {
		ts := s.committed.Load()
		c, err := s.cursorAt(ts, prefix, reverse)
		if err != nil {
			return nil, err
		}
		if s.committed.Load() == ts {
			// From here on it holds the tables that make up that moment.
			c.step(func() { c.it.Seek(seek) })
			return c, nil
		}
		c.close()
	}
}

func (s *KV) cursorAt(ts uint64, prefix []byte, reverse bool) (c *cursor, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("badgerkv: scan: %w", panicked(r))
		}
	}()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Reverse = reverse
	o.Prefix = bytes.Clone(prefix)
	txn := s.db.NewTransactionAt(ts, false)
	return &cursor{txn: txn, it: txn.NewIterator(o)}, nil
}

// step moves and takes over the row.
func (c *cursor) step(move func()) {
	defer func() {
		if r := recover(); r != nil {
			c.ok, c.err = false, panicked(r)
		}
	}()
	move()
	if c.ok = c.it.Valid(); !c.ok {
		return
	}
	item := c.it.Item()
	if c.buf, c.err = value(item, c.buf[:0]); c.err == nil {
		c.row = kv.Row{Key: item.Key(), Value: c.buf}
	}
}

func (c *cursor) close() {
	c.it.Close()
	c.txn.Discard()
}
