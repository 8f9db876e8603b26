package store_test

import (
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/store"
)

// list collects what is listed, as text.
func list(t *testing.T, entries iter.Seq2[store.Entry, error], most int) (all []string, last string) {
	t.Helper()
	for e, err := range entries {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Info.SizeKnown && e.Info.Kind.String() == "file" {
			t.Errorf("the size of %q is not known", e.Path)
		}
		all, last = append(all, fmt.Sprintf("%q %v %v %04o %d %q", e.Path, e.CID, e.Info.Kind, e.Info.Attr.Mode, e.Info.Size, e.Info.Target)), e.Path
		if len(all) == most {
			break
		}
	}
	return all, last
}

// Pages of any size give what a listing in one go gives.
func TestListFrom(t *testing.T) {
	h := newHarness(t, store.Options{})
	files := []file{
		{name: "a/x", data: []byte("in a")}, {name: "a-b", data: []byte("before what is in a"), mode: 0o600}, {name: "a.c/", mode: 0o700},
		{name: "a0", link: "a/x"}, {name: "b/c/d/e", data: text(1, 200_000)}, {name: "b/c/d2/", mode: 0o755}, {name: "b/c.d", data: nil},
		{name: "\xff\n", data: []byte("odd")}, {name: "z", data: text(2, 70_000), mode: 0o755},
	}
	for i := range 30 {
		files = append(files, file{name: fmt.Sprintf("many/%02d", i), data: []byte{byte(i)}})
	}
	h.mustPut(store.Input{Name: "t", Path: makeTree(t, files...)})
	for _, ref := range []string{"t", "t/a", "t/b", "t/b/c", "t/b/c/d2", "t/many", "t/a.c"} {
		o := h.resolve(ref)
		want, _ := list(t, h.s.List(h.ctx, o), -1)
		for _, size := range []int{-1, 1, 2, 3, 7, 1000} {
			var got []string
			page, after := list(t, h.s.ListFrom(h.ctx, o, ""), size)
			for len(page) > 0 {
				got = append(got, page...)
				page, after = list(t, h.s.ListFrom(h.ctx, o, after), size)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s in pages of %d: %s", ref, size, d)
			}
		}
	}
	for ref, after := range map[string]string{"t": "nothing", "t/a": "y", "t/a-b": "x", "t/b": "c/d/", "t/many": "../a"} {
		_, err := first(h.s.ListFrom(h.ctx, h.resolve(ref), after))
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s after %q: %v", ref, after, err)
		}
	}
	if got, _ := list(t, h.s.ListFrom(h.ctx, h.resolve("t/z"), ""), -1); len(got) != 1 {
		t.Errorf("a file is listed as %q", got)
	}
}

func first[T any](seq iter.Seq2[T, error]) (v T, err error) {
	for v, err := range seq {
		return v, err
	}
	return v, nil
}

func TestPagesOfNames(t *testing.T) {
	h := newHarness(t, store.Options{})
	names := []string{"a", "a-b", "a.b", "aa", "b", "b0", "Z", "zz"}
	for i, n := range names {
		for v := range i%3 + 1 {
			h.mustPut(stream(n, []byte(fmt.Sprint(n, v))))
		}
	}
	for _, gone := range []string{"a.b", "zz"} {
		if _, err := h.s.Remove(h.ctx, gone, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := h.names()
	if len(want) != len(names)-2 {
		t.Fatalf("names %q", want)
	}
	for from := range want {
		var got []string
		after := ""
		if from > 0 {
			after = want[from-1][:len(want[from-1])-2]
		}
		for d, err := range h.s.DatasetsFrom(h.ctx, after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s@%d", d.Name, d.Version))
		}
		if d := cmp.Diff(want[from:], got); d != "" {
			t.Errorf("after %q: %s", after, d)
		}
	}
	// After a name that is not there, or no more.
	for after, want := range map[string]string{"a.b": "aa", "a.": "aa", "0": "Z", "z": ""} {
		if d, err := first(h.s.DatasetsFrom(h.ctx, after)); err != nil || d.Name != want {
			t.Errorf("after %q: %q, %v", after, d.Name, err)
		}
	}

	all := h.history("a.b")
	for after := range len(all) + 1 {
		var got []string
		for v, err := range h.s.HistoryFrom(h.ctx, "a.b", after) {
			if err != nil {
				t.Fatal(err)
			}
			if v.Removal != nil {
				got = append(got, fmt.Sprintf("%s@%d :%d removed", v.Removal.Name, v.Removal.Version, v.Removal.Entry))
			} else {
				got = append(got, fmt.Sprintf("%s@%d :%d", v.Dataset.Name, v.Dataset.Version, v.Dataset.Entry))
			}
		}
		if len(got) != len(all)-after || len(got) > 0 && got[0] != all[after] {
			t.Errorf("after version %d: %q of %q", after, got, all)
		}
	}
	if _, err := first(h.s.HistoryFrom(h.ctx, "nothing", 0)); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if _, err := first(h.s.HistoryFrom(h.ctx, "a", -1)); !errors.Is(err, store.ErrInvalid) {
		t.Error(err)
	}
}
