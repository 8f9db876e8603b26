package kv

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func show(b *Batch) []string {
	var rows []string
	for r, deleted := range b.Rows() {
		rows = append(rows, fmt.Sprintf("%s=%s %t", r.Key, r.Value, deleted))
	}
	return rows
}

func TestBatch(t *testing.T) {
	var b Batch
	if got := show(&b); got != nil || b.Len() != 0 || b.Bytes() != 0 || b.Check() != nil {
		t.Errorf("the zero batch holds %q, %d rows, %d bytes", got, b.Len(), b.Bytes())
	}
	key, value := []byte("key"), []byte("value")
	b.Set(key, value)
	b.Delete([]byte("gone"))
	b.Set([]byte("k"), nil)
	key[0], value[0] = 'X', 'X'
	want := []string{"key=value false", "gone= true", "k= false"}
	if got := show(&b); !slices.Equal(got, want) || b.Len() != 3 || b.Bytes() != 13 || b.Check() != nil {
		t.Errorf("the batch holds %q, %d rows, %d bytes, want %q", got, b.Len(), b.Bytes(), want)
	}
	for r := range b.Rows() {
		// What a caller appends to a row must not run into the next.
		_ = append(r.Key, "!!!!"...)
		_ = append(r.Value, "!!!!"...)
	}
	if got := show(&b); !slices.Equal(got, want) {
		t.Errorf("the batch holds %q, want %q", got, want)
	}
	for range b.Rows() {
		break
	}
	b.Reset()
	if got := show(&b); got != nil || b.Len() != 0 || b.Bytes() != 0 {
		t.Errorf("an emptied batch holds %q, %d rows, %d bytes", got, b.Len(), b.Bytes())
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		key, value int
		good       bool
	}{
		{0, 0, false}, {1, 0, true}, {MaxKey, MaxValue, true}, {MaxKey + 1, 0, false}, {1, MaxValue + 1, false},
	} {
		var b Batch
		b.Set([]byte(strings.Repeat("k", c.key)), make([]byte, c.value))
		if err := b.Check(); (err == nil) != c.good || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("a key of %d and a value of %d: %v", c.key, c.value, err)
		}
	}
	var b Batch
	for b.Fits(1, 1) {
		b.Delete([]byte("k"))
	}
	if b.Len() != MaxBatchRows || b.Check() != nil {
		t.Errorf("%d rows fit: %v", b.Len(), b.Check())
	}
	if b.Delete([]byte("k")); !errors.Is(b.Check(), ErrTooLarge) {
		t.Errorf("a row more: %v", b.Check())
	}
	b.Reset()
	for b.Fits(1, 1+MaxValue) {
		b.Set([]byte("k"), make([]byte, MaxValue))
	}
	if n := MaxBatchBytes - b.Bytes(); n > MaxValue || !b.Fits(0, n) || b.Fits(0, n+1) {
		t.Errorf("%d bytes fit", b.Bytes())
	}
}
