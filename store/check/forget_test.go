package check_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
)

// What cannot be read is mended by forgetting it and putting the data again.
func TestForget(t *testing.T) {
	data := prose(4, 700_000)
	src := tree(t)
	put := func() []store.Input { return []store.Input{stream("stream", data), {Name: "tree", Path: src}} }
	for name, damage := range map[string]func(testing.TB, string){
		"frame":            changeFile(packOne, flip(3000)),
		"header":           changeFile(packOne, flip(30)),
		"pack cut":         changeFile(packOne, func(b []byte) []byte { return b[:len(b)/2] }),
		"two rows":         func(t testing.TB, dir string) { changeRow("b", 0, flip(2))(t, dir); changeRow("b", 5, flip(0))(t, dir) },
		"row is none":      changeRow("b", 5, func([]byte) []byte { return nil }),
		"node":             changeRow("d", 2, flip(0)),
		"commitment row":   changeRow("m", 0, flip(3)),
		"missing row":      deleteRow("b", 7),
		"missing node":     deleteRow("d", 3),
		"missing row of m": deleteRow("m", 1),
	} {
		t.Run(name, func(t *testing.T) {
			dir := newStore(t, put())
			before, err := readAll(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			if _, sum := run(t, dir, check.Options{ReadData: true}); sum.Sound() || sum.Forgotten != 0 {
				t.Errorf("damaged, but %+v", sum)
			}
			if _, sum := run(t, dir, check.Options{ReadData: true, Forget: true}); sum.Sound() {
				t.Errorf("damaged, but %+v", sum)
			}
			putAll(t, dir, put())
			found, sum := run(t, dir, check.Options{ReadData: true})
			if !sum.Sound() || sum.Warnings > 1 {
				t.Errorf("after a put: %+v", found)
			}
			if after, err := readAll(t.Context(), dir); err != nil || after != before {
				t.Errorf("what is read is not what was put: %v", err)
			}
		})
	}
}

// Forgetting removes nothing from a sound store, and not the whole index when
// the packs are somewhere else.
func TestForgetNothing(t *testing.T) {
	dir := copySmall(t)
	if _, sum := run(t, dir, check.Options{ReadData: true, Forget: true}); sum.Forgotten != 0 || !sum.Sound() {
		t.Errorf("summary %+v", sum)
	}
	onDisk(func(dir string) error { return removeContents(dir + "/packs") })(t, dir)
	if _, sum := run(t, dir, check.Options{ReadData: true, Forget: true}); sum.Forgotten != 0 || sum.Sound() {
		t.Errorf("summary %+v", sum)
	}
}

// However much is damaged, what is reported stays bounded.
func TestManyFindings(t *testing.T) {
	dir := copySmall(t)
	edit(t, dir, func(db kv.Store, b *kv.Batch) {
		for i := range 1000 {
			b.Set(fmt.Appendf(nil, "w%d", i), nil)
		}
		for _, r := range rowsOf(t, db, "b") {
			b.Set(r.Key, bytes.Repeat([]byte{1}, 5))
		}
	})
	found, sum := run(t, dir, check.Options{})
	if sum.Errors < 1000 || len(found) > 100 {
		t.Errorf("%d findings reported of %+v", len(found), sum)
	}
	for _, f := range found {
		if len(f.Affected) > 10 {
			t.Errorf("%q lists %d", f.What, len(f.Affected))
		}
	}
}
