package store_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/kv"
)

// The last version that a name can have is put and read as any other; none comes after it.
func TestLastVersion(t *testing.T) {
	const last = 1<<31 - 1
	var rows kv.Store
	h := newHarness(t, store.Options{WrapKV: func(s kv.Store) kv.Store { rows = s; return s }})
	newest := func(version uint32) {
		t.Helper()
		var b kv.Batch
		b.Set(binary.BigEndian.AppendUint32([]byte("nx\x00"), version), binary.BigEndian.AppendUint64(nil, 1))
		if err := rows.Commit(h.ctx, &b); err != nil {
			t.Fatal(err)
		}
		h.reopen()
	}
	one := h.mustPut(stream("x", []byte("one")))[0]
	newest(last - 1)
	if res := h.mustPut(stream("x", []byte("two")))[0]; res.Version != last {
		t.Errorf("%+v", res)
	}
	for ref, want := range map[string]int64{"x": one.Entry + 1, "x@2147483647": one.Entry + 1, "x@-1": one.Entry, "x@-2147483646": one.Entry} {
		if o := h.resolve(ref); o.Dataset.Entry != want {
			t.Errorf("%s is entry %d, want %d", ref, o.Dataset.Entry, want)
		}
	}
	if _, err := h.put(stream("x", []byte("three"))); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "which is the most") {
		t.Errorf("one more: %v", err)
	}
	if _, err := h.s.Remove(h.ctx, "x", store.PutOptions{}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a removal more: %v", err)
	}
	h.mustPut(stream("y", []byte("three")))
	for v, err := range h.s.HistoryFrom(h.ctx, "x", last) {
		t.Errorf("%+v, %v", v, err)
	}
	for _, err := range h.s.HistoryFrom(h.ctx, "x", last+1) {
		if !errors.Is(err, store.ErrInvalid) {
			t.Error(err)
		}
	}
	newest(last + 1)
	if o, err := h.s.Resolve(h.ctx, "x"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a row beyond: %v, %v", o, err)
	}
}
