package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/badgerkv"
	"github.com/koii-network/scale/store/kv"
)

// A store that does not know where its packs end must not cut them off.
func TestLostTail(t *testing.T) {
	h := newHarness(t, store.Options{})
	b := text(1, 300_000)
	h.mustPut(stream("x", b))
	h.close()
	db, err := badgerkv.Open(h.dir+"/kv", badgerkv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var batch kv.Batch
	batch.Delete([]byte("p"))
	if err := errors.Join(db.Commit(h.ctx, &batch), db.Close()); err != nil {
		t.Fatal(err)
	}
	h.open()
	if _, err := h.put(stream("y", []byte("y"))); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
	if got := h.get("x"); string(got) != string(b) {
		t.Error("x reads back differently")
	}
}

// Nor must one that knows an older end.
func TestOlderTail(t *testing.T) {
	h := newHarness(t, store.Options{})
	older := func() []byte {
		h.close()
		db, err := badgerkv.Open(h.dir+"/kv", badgerkv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		b, err := db.Get(h.ctx, []byte("p"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	h.mustPut(stream("x", text(1, 300_000)))
	end := older()
	h.open()
	h.mustPut(stream("y", text(2, 300_000)))
	h.close()
	db, err := badgerkv.Open(h.dir+"/kv", badgerkv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var batch kv.Batch
	batch.Set([]byte("p"), end)
	if err := errors.Join(db.Commit(h.ctx, &batch), db.Close()); err != nil {
		t.Fatal(err)
	}
	h.open()
	if _, err := h.put(stream("z", []byte("z"))); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
	if got := h.get("y"); string(got) != string(text(2, 300_000)) {
		t.Error("y reads back differently")
	}
}

func TestLongestName(t *testing.T) {
	h := newHarness(t, store.Options{})
	name := strings.Repeat("n", 128)
	h.mustPut(stream(name, []byte("1")))
	if d := h.mustPut(stream(name, []byte("2")))[0]; d.Version != 2 {
		t.Errorf("version %d", d.Version)
	}
	if _, err := h.put(stream(name+"n", nil)); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("129 bytes: %v, want ErrInvalid", err)
	}
	h.check()
}
