package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// history returns the versions of a name as text.
func (h *harness) history(name string) (list []string) {
	h.t.Helper()
	for v, err := range h.s.History(h.ctx, name) {
		if err != nil {
			h.t.Fatal(err)
		}
		switch {
		case v.Dataset != nil && v.Removal == nil:
			list = append(list, fmt.Sprintf("%s@%d :%d", v.Dataset.Name, v.Dataset.Version, v.Dataset.Entry))
		case v.Removal != nil && v.Dataset == nil:
			list = append(list, fmt.Sprintf("%s@%d :%d removed", v.Removal.Name, v.Removal.Version, v.Removal.Entry))
		default:
			h.t.Errorf("version %+v", v)
		}
	}
	return list
}

func (h *harness) names() (list []string) {
	h.t.Helper()
	for d, err := range h.s.Datasets(h.ctx) {
		if err != nil {
			h.t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s@%d", d.Name, d.Version))
	}
	return list
}

func TestRemove(t *testing.T) {
	h := newHarness(t, store.Options{})
	one := h.mustPut(stream("x", []byte("one")))[0]
	two := h.mustPut(stream("x", []byte("two")), stream("y", []byte("why")))[0]
	r, err := h.s.Remove(h.ctx, "x", store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "x" || r.Version != 3 || r.Entry != 4 || r.Curator != two.Curator || r.Time.IsZero() {
		t.Errorf("removal %+v", r)
	}
	check := func() {
		t.Helper()
		for ref, want := range map[string]error{"x": store.ErrNotFound, "x/a": store.ErrNotFound, "x@3": store.ErrNotFound, "x@4": store.ErrNotFound, ":4": store.ErrInvalid} {
			if _, err := h.s.Resolve(h.ctx, ref); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", ref, err, want)
			} else if ref == "x" && !strings.Contains(err.Error(), ":4") {
				t.Errorf("%v does not say by which entry", err)
			}
		}
		for ref, want := range map[string]string{
			"x@1": "one", "x@2": "two", "x@-1": "two", "x@-2": "one", ":1": "one", ":2": "two", one.CID.String(): "one", two.EntryCID.String(): "two", "y": "why",
		} {
			if got := string(h.get(ref)); got != want {
				t.Errorf("%s holds %q, want %q", ref, got, want)
			}
		}
		if d := cmp.Diff([]string{"x@1 :1", "x@2 :2", "x@3 :4 removed"}, h.history("x")); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"y@1"}, h.names()); d != "" {
			t.Error(d)
		}
		h.verify("x@1", store.ProveOptions{})
		for name, want := range map[string]error{"x": store.ErrNotFound, "z": store.ErrNotFound, "a b": store.ErrInvalid, "": store.ErrInvalid} {
			if _, err := h.s.Remove(h.ctx, name, store.PutOptions{}); !errors.Is(err, want) {
				t.Errorf("remove %q: %v, want %v", name, err, want)
			}
		}
	}
	check()
	h.check()
	check() // of the store that was opened anew

	// A put under the name begins anew, though it be the data that was there.
	again := h.mustPut(stream("x", []byte("two")))[0]
	if again.Unchanged || again.Version != 4 || again.Previous != r.Entry || len(again.Parents) != 0 || again.NewBytes != 0 {
		t.Errorf("put after the removal: %+v", again)
	}
	if got := string(h.get("x")); got != "two" {
		t.Errorf("x holds %q", got)
	}
	if d := cmp.Diff([]string{"x@1 :1", "x@2 :2", "x@3 :4 removed", "x@4 :5"}, h.history("x")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"x@4", "y@1"}, h.names()); d != "" {
		t.Error(d)
	}
	h.check()
	totals, err := h.s.Totals(h.ctx)
	if err != nil || totals.Datasets != 4 || totals.TreeSize != 6 {
		t.Errorf("totals %+v, %v", totals, err)
	}
	if e, err := h.s.Resolve(h.ctx, ":5"); err != nil || e.Dataset.EntryCID != again.EntryCID {
		t.Errorf("%+v, %v", e, err)
	}
}

// A removal is an entry as any other: whoever replays the log sees it.
func TestRemovalIsAnEntry(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", []byte("one")))
	if _, err := h.s.Remove(h.ctx, "x", store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	var kinds []ledger.Kind
	for e, err := range h.s.Entries(h.ctx, 0, 10) {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Entry.Kind)
	}
	if d := cmp.Diff([]ledger.Kind{ledger.KindPolicy, ledger.KindDataset, ledger.KindRemoval}, kinds); d != "" {
		t.Error(d)
	}
}
