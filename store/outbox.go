package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/koii-network/scale/store/kv"
)

// An Outbox keeps what the anchoring worker must not forget: a row for each chain and
// tree size, which the store does not look into, and the bodies of transactions under
// way, in files. Its methods may be called concurrently; those that write are durable
// when they return, and are refused, with ErrNoSpace, before the disk is full.
type Outbox struct{ s *Store }

// Outbox returns the store's outbox of anchors.
func (s *Store) Outbox() *Outbox { return &Outbox{s} }

// MaxOutboxRow is the largest row of the outbox in bytes, MaxOutboxBody the largest body.
const (
	MaxOutboxRow  = 64 << 10
	MaxOutboxBody = 256 << 20
)

// Kinds of outbox rows: the rows by size, the same sizes in descending order, and those
// that are open.
const (
	outboxRow  = 'r'
	outboxBack = 'v'
	outboxOpen = 'o'
)

func outboxPrefix(chain string, kind byte) []byte {
	return append(append([]byte{rowAnchor}, chain...), 0, kind)
}

func outboxKey(chain string, kind byte, size int64) []byte {
	n := uint64(size)
	if kind == outboxBack {
		n = math.MaxUint64 - n
	}
	return binary.BigEndian.AppendUint64(outboxPrefix(chain, kind), n)
}

// checkOutbox refuses names that could not be told apart in keys and files.
func checkOutbox(chain string, size int64) error {
	ok := len(chain) >= 1 && len(chain) <= 32 && size >= 1
	for _, c := range chain {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
	}
	if !ok {
		return fmt.Errorf("outbox of chain %q, size %d: %w", chain, size, ErrInvalid)
	}
	return nil
}

// Get returns a row, nil where there is none.
func (o *Outbox) Get(ctx context.Context, chain string, size int64) ([]byte, error) {
	if err := checkOutbox(chain, size); err != nil {
		return nil, err
	}
	b, err := o.s.kv.Get(ctx, outboxKey(chain, outboxRow, size), []byte{})
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	return b, storeError(err)
}

// Put stores a row. Those with open set are what OpenRows yields.
func (o *Outbox) Put(ctx context.Context, chain string, size int64, row []byte, open bool) error {
	if err := checkOutbox(chain, size); err != nil {
		return err
	}
	if len(row) == 0 || len(row) > MaxOutboxRow {
		return fmt.Errorf("outbox row of %d bytes: %w", len(row), ErrInvalid)
	}
	if err := o.s.checkSpace(kv.MaxBatchBytes); err != nil {
		return err
	}
	var b kv.Batch
	b.Set(outboxKey(chain, outboxRow, size), row)
	b.Set(outboxKey(chain, outboxBack, size), nil)
	if key := outboxKey(chain, outboxOpen, size); open {
		b.Set(key, nil)
	} else {
		b.Delete(key)
	}
	return storeError(o.s.kv.Commit(ctx, &b))
}

// Delete removes a row and its body.
func (o *Outbox) Delete(ctx context.Context, chain string, size int64) error {
	if err := checkOutbox(chain, size); err != nil {
		return err
	}
	var b kv.Batch
	for _, kind := range []byte{outboxRow, outboxBack, outboxOpen} {
		b.Delete(outboxKey(chain, kind, size))
	}
	if err := o.s.kv.Commit(ctx, &b); err != nil {
		return storeError(err)
	}
	return o.DeleteBody(ctx, chain, size)
}

// Rows yields the rows of a chain whose size is at least from, in ascending order.
func (o *Outbox) Rows(ctx context.Context, chain string, from int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if err := checkOutbox(chain, max(from, 1)); err != nil {
			yield(nil, err)
			return
		}
		for row, err := range o.s.kv.Scan(ctx, outboxPrefix(chain, outboxRow), outboxKey(chain, outboxRow, max(from, 1))) {
			if !yield(row.Value, storeError(err)) || err != nil {
				return
			}
		}
	}
}

// Back yields the rows of a chain whose size is at most from, in descending order.
func (o *Outbox) Back(ctx context.Context, chain string, from int64) iter.Seq2[[]byte, error] {
	return o.listed(ctx, chain, outboxBack, outboxKey(chain, outboxBack, max(from, 1)))
}

// OpenRows yields the open rows of a chain in ascending order.
func (o *Outbox) OpenRows(ctx context.Context, chain string) iter.Seq2[[]byte, error] {
	return o.listed(ctx, chain, outboxOpen, nil)
}

// listed yields the rows whose sizes are listed under a kind, all as they were when the
// first was asked for: another goroutine may delete them meanwhile.
func (o *Outbox) listed(ctx context.Context, chain string, kind byte, from []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if err := checkOutbox(chain, 1); err != nil {
			yield(nil, err)
			return
		}
		rows, err := o.s.kv.Snapshot()
		if err != nil {
			yield(nil, storeError(err))
			return
		}
		defer rows.Close()
		prefix := outboxPrefix(chain, kind)
		for row, err := range rows.Scan(ctx, prefix, from) {
			var b []byte
			if err = storeError(err); err == nil {
				if len(row.Key) != len(prefix)+8 {
					err = fmt.Errorf("outbox key of %d bytes: %w", len(row.Key), ErrCorrupt)
				} else {
					n := binary.BigEndian.Uint64(row.Key[len(prefix):])
					if kind == outboxBack {
						n = math.MaxUint64 - n
					}
					b, err = rows.Get(ctx, binary.BigEndian.AppendUint64(outboxPrefix(chain, outboxRow), n), nil)
					if err = storeError(err); errors.Is(err, ErrNotFound) {
						err = fmt.Errorf("outbox of %s lists size %d, which has no row: %w", chain, n, ErrCorrupt)
					}
				}
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

func (o *Outbox) bodyFile(chain string, size int64) string {
	return filepath.Join(o.s.dir, extensionsDir, chain+"-"+strconv.FormatInt(size, 10))
}

const extensionsDir = "extensions"

// PutBody stores the body of a row's transaction.
func (o *Outbox) PutBody(_ context.Context, chain string, size int64, body []byte) error {
	if err := checkOutbox(chain, size); err != nil {
		return err
	}
	if len(body) > MaxOutboxBody {
		return fmt.Errorf("body of %d bytes, at most %d: %w", len(body), MaxOutboxBody, ErrInvalid)
	}
	if err := o.s.checkSpace(int64(len(body))); err != nil {
		return err
	}
	dir := filepath.Join(o.s.dir, extensionsDir)
	err := os.Mkdir(dir, 0o700)
	switch {
	case err == nil:
		err = syncDir(o.s.dir)
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err != nil {
		return noSpace(err)
	}
	return noSpace(replaceFileSync(o.bodyFile(chain, size), body))
}

// Body returns a body, which has exactly n bytes.
func (o *Outbox) Body(_ context.Context, chain string, size, n int64) ([]byte, error) {
	if err := checkOutbox(chain, size); err != nil {
		return nil, err
	}
	if n < 0 || n > MaxOutboxBody {
		return nil, fmt.Errorf("body of %d bytes: %w", n, ErrInvalid)
	}
	path := o.bodyFile(chain, size)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() || st.Size() != n {
		return nil, fmt.Errorf("%s has %d bytes, the outbox says %d: %w", path, st.Size(), n, ErrCorrupt)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(f, b)
	return b, err
}

// DeleteBody removes a body, if it is there.
func (o *Outbox) DeleteBody(_ context.Context, chain string, size int64) error {
	if err := checkOutbox(chain, size); err != nil {
		return err
	}
	if err := os.Remove(o.bodyFile(chain, size)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
