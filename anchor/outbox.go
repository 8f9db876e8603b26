package anchor

import (
	"context"
	"fmt"
	"iter"
)

// An Outbox keeps rows and bodies across crashes; the store is one. Its methods may be
// called concurrently.
type Outbox interface {
	// Get returns a row, nil where there is none.
	Get(ctx context.Context, chain string, size int64) ([]byte, error)
	// Put stores a row, durable when it returns. Rows with open set are those that OpenRows
	// yields.
	Put(ctx context.Context, chain string, size int64, row []byte, open bool) error
	// Delete removes a row and its body.
	Delete(ctx context.Context, chain string, size int64) error
	// Rows yields the rows of a chain whose size is at least from, in ascending order.
	Rows(ctx context.Context, chain string, from int64) iter.Seq2[[]byte, error]
	// Back yields the rows of a chain whose size is at most from, in descending order.
	Back(ctx context.Context, chain string, from int64) iter.Seq2[[]byte, error]
	// OpenRows yields the open rows of a chain in ascending order.
	OpenRows(ctx context.Context, chain string) iter.Seq2[[]byte, error]
	// PutBody stores the body of a row's transaction, durable when it returns.
	PutBody(ctx context.Context, chain string, size int64, body []byte) error
	// Body returns it, of exactly n bytes.
	Body(ctx context.Context, chain string, size, n int64) ([]byte, error)
	// DeleteBody removes it, if it is there.
	DeleteBody(ctx context.Context, chain string, size int64) error
}

// rows decodes what an outbox yields.
func rows(seq iter.Seq2[[]byte, error]) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for b, err := range seq {
			var r *Row
			if err == nil {
				r, err = DecodeRow(b)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// collect returns the rows of a sequence that is known to be short.
func collect(seq iter.Seq2[*Row, error], most int) ([]*Row, error) {
	var out []*Row
	for r, err := range seq {
		if err != nil {
			return nil, err
		}
		if out = append(out, r); len(out) == most {
			break
		}
	}
	return out, nil
}

// ChainRows yields the rows of a chain from a size on.
func ChainRows(ctx context.Context, o Outbox, chain string, from int64) iter.Seq2[*Row, error] {
	return rows(o.Rows(ctx, chain, from))
}

// NewestRows returns at most most rows of a chain, the newest first.
func NewestRows(ctx context.Context, o Outbox, chain string, most int) ([]*Row, error) {
	return collect(rows(o.Back(ctx, chain, 1<<62)), most)
}

// NewestFinal returns the largest row of a chain that is final, or nil.
func NewestFinal(ctx context.Context, o Outbox, chain string) (*Row, error) {
	for r, err := range rows(o.Back(ctx, chain, 1<<62)) {
		if err != nil || r.State == Final {
			return r, err
		}
	}
	return nil, nil
}

// Covering returns the smallest anchor on a chain that covers an entry: final if there
// is a final one, else seen, else nil.
func Covering(ctx context.Context, o Outbox, chain string, entry int64) (*Row, error) {
	var seen *Row
	for r, err := range rows(o.Rows(ctx, chain, entry+1)) {
		switch {
		case err != nil:
			return nil, fmt.Errorf("anchors of entry :%d on %s: %w", entry, chain, err)
		case r.State == Final:
			return r, nil
		case r.State == Seen && seen == nil:
			seen = r
		}
	}
	return seen, nil
}
