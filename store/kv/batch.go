package kv

import (
	"fmt"
	"iter"
)

// A Batch collects the sets and deletes of one commit. Later ones for the same
// key win. The zero value is empty and ready for use. A Batch has one owner at
// a time.
type Batch struct {
	buf []byte // keys and values, in the order of ops
	ops []op
}

type op struct {
	key, value int // lengths in buf
	deleted    bool
}

// Set makes key hold value. Both are copied.
func (b *Batch) Set(key, value []byte) {
	b.buf = append(append(b.buf, key...), value...)
	b.ops = append(b.ops, op{key: len(key), value: len(value)})
}

// Delete makes key absent; it need not be there. The key is copied.
func (b *Batch) Delete(key []byte) {
	b.buf = append(b.buf, key...)
	b.ops = append(b.ops, op{key: len(key), deleted: true})
}

// Len returns how many sets and deletes the batch holds.
func (b *Batch) Len() int { return len(b.ops) }

// Bytes returns how many bytes of keys and values the batch holds.
func (b *Batch) Bytes() int { return len(b.buf) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.buf, b.ops = b.buf[:0], b.ops[:0] }

// Fits says whether a batch that holds these rows besides its own stays within
// the limits of one commit.
func (b *Batch) Fits(rows, bytes int) bool {
	return len(b.ops)+rows <= MaxBatchRows && len(b.buf)+bytes <= MaxBatchBytes
}

// Rows yields what the batch holds in the order it was added, and whether the
// row is a delete (then its value is nil). Rows are valid until the batch
// changes.
func (b *Batch) Rows() iter.Seq2[Row, bool] {
	return func(yield func(Row, bool) bool) {
		rest := b.buf
		for _, o := range b.ops {
			r := Row{Key: rest[:o.key:o.key]}
			if !o.deleted {
				r.Value = rest[o.key : o.key+o.value : o.key+o.value]
			}
			rest = rest[o.key+o.value:]
			if !yield(r, o.deleted) {
				return
			}
		}
	}
}

// Check returns an error that wraps ErrTooLarge if the batch or one of its
// rows is beyond the limits, or a key is one that no store accepts.
func (b *Batch) Check() error {
	if len(b.ops) > MaxBatchRows || len(b.buf) > MaxBatchBytes {
		return fmt.Errorf("kv: batch of %d rows and %d bytes: %w", len(b.ops), len(b.buf), ErrTooLarge)
	}
	for r := range b.Rows() {
		if err := CheckKey(r.Key); err != nil {
			return err
		}
		if len(r.Value) > MaxValue {
			return fmt.Errorf("kv: value of %d bytes for key %x: %w", len(r.Value), r.Key, ErrTooLarge)
		}
	}
	return nil
}

// CheckKey returns an error that wraps ErrTooLarge if no store accepts key.
func CheckKey(key []byte) error {
	if len(key) == 0 || len(key) > MaxKey || key[0] == '!' {
		return fmt.Errorf("kv: key %q of %d bytes: %w", key, len(key), ErrTooLarge)
	}
	return nil
}
