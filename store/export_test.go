package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/koii-network/scale/store"
)

// A CAR goes on at any offset with what the whole of it has there.
func TestExportFrom(t *testing.T) {
	h := newHarness(t, store.Options{})
	files := []file{{name: "big", data: random(1, 300<<10)}, {name: "empty"}, {name: "link", link: "big"}, {name: "again", data: random(1, 300<<10)}}
	for i := range 300 { // more than one node links to
		files = append(files, file{name: fmt.Sprintf("d/%03d", i), data: fmt.Append(nil, i)})
	}
	h.mustPut(store.Input{Name: "tree", Path: makeTree(t, files...)})
	o := h.resolve("tree")
	var whole bytes.Buffer
	if err := h.s.ExportCAR(h.ctx, o, &whole); err != nil {
		t.Fatal(err)
	}
	all := whole.Bytes()
	from := []int{0, 1, len(all) - 1, len(all)}
	for i := 2; i < 400; i++ {
		from = append(from, i)
	}
	for at := 400; at < len(all); at += 997 {
		from = append(from, at)
	}
	for _, at := range from {
		var got bytes.Buffer
		if err := h.s.ExportCARFrom(h.ctx, o, uint64(at), &got); err != nil || !bytes.Equal(got.Bytes(), all[at:]) {
			t.Fatalf("from %d: %d bytes, want %d, %v", at, got.Len(), len(all)-at, err)
		}
	}
	var got bytes.Buffer
	for _, more := range []uint64{1, 1 << 62} {
		if err := h.s.ExportCARFrom(h.ctx, o, uint64(len(all))+more, &got); !errors.Is(err, store.ErrInvalid) || got.Len() > 0 {
			t.Errorf("%d beyond the end: %d bytes, %v", more, got.Len(), err)
		}
	}
}
