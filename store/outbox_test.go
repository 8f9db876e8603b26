package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/koii-network/scale/store"
)

// texts collects rows.
func texts(t *testing.T, seq iter.Seq2[[]byte, error]) string {
	t.Helper()
	var out []string
	for b, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return strings.Join(out, " ")
}

func TestOutbox(t *testing.T) {
	h := newHarness(t, store.Options{})
	sizes := []int64{1, 2, 255, 256, 70000, 1 << 40, math.MaxInt64}
	for i, n := range sizes {
		for _, chain := range []string{"k2", "k", "k22", "arweave"} {
			if err := h.s.Outbox().Put(h.ctx, chain, n, fmt.Appendf(nil, "%s/%d", chain, n), i%2 == 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func() {
		t.Helper()
		o := h.s.Outbox()
		for _, chain := range []string{"k2", "k", "k22", "arweave"} {
			want := func(keep func(i int, n int64) bool, back bool) string {
				var out []string
				for i, n := range sizes {
					if keep(i, n) {
						out = append(out, fmt.Sprintf("%s/%d", chain, n))
					}
				}
				if back {
					slices.Reverse(out)
				}
				return strings.Join(out, " ")
			}
			if got, want := texts(t, o.OpenRows(h.ctx, chain)), want(func(i int, _ int64) bool { return i%2 == 0 }, false); got != want {
				t.Errorf("open: %s, want %s", got, want)
			}
			for _, from := range []int64{math.MinInt64, 0, 1, 2, 3, 256, 257, 1 << 62, math.MaxInt64} {
				if got, want := texts(t, o.Rows(h.ctx, chain, from)), want(func(_ int, n int64) bool { return n >= from }, false); got != want {
					t.Errorf("from %d: %s, want %s", from, got, want)
				}
				if got, want := texts(t, o.Back(h.ctx, chain, from)), want(func(_ int, n int64) bool { return n <= from }, true); got != want && from >= 1 {
					t.Errorf("back from %d: %s, want %s", from, got, want)
				}
			}
			if b, err := o.Get(h.ctx, chain, 256); err != nil || string(b) != chain+"/256" {
				t.Errorf("%q, %v", b, err)
			}
			if b, err := o.Get(h.ctx, chain, 3); err != nil || b != nil {
				t.Errorf("%q, %v", b, err)
			}
		}
		if got := texts(t, o.Rows(h.ctx, "other", 1)) + texts(t, o.Back(h.ctx, "other", math.MaxInt64)) + texts(t, o.OpenRows(h.ctx, "other")); got != "" {
			t.Errorf("another chain has %s", got)
		}
	}
	check()
	h.reopen()
	check()

	// A row is replaced, and closed.
	o := h.s.Outbox()
	if err := o.Put(h.ctx, "k2", 1, []byte("new"), false); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, o.Rows(h.ctx, "k2", 1)); !strings.HasPrefix(got, "new k2/2 ") {
		t.Error(got)
	}
	if got := texts(t, o.OpenRows(h.ctx, "k2")); !strings.HasPrefix(got, "k2/255 ") {
		t.Error(got)
	}
	// And removed, twice.
	for range 2 {
		if err := o.Delete(h.ctx, "k2", 255); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(t, o.OpenRows(h.ctx, "k2")) + texts(t, o.Rows(h.ctx, "k2", 1)) + texts(t, o.Back(h.ctx, "k2", 1<<62)); strings.Contains(got, "k2/255") {
		t.Error(got)
	}
	// An iteration that is left early leaves nothing open.
	for range o.Rows(h.ctx, "k2", 1) {
		break
	}
}

// Rows that are deleted while others are read are no damage, and are as they were.
func TestOutboxWhileDeleted(t *testing.T) {
	h := newHarness(t, store.Options{})
	o := h.s.Outbox()
	for name, walk := range map[string]func() iter.Seq2[[]byte, error]{
		"back": func() iter.Seq2[[]byte, error] { return o.Back(h.ctx, "k2", 9) },
		"open": func() iter.Seq2[[]byte, error] { return o.OpenRows(h.ctx, "k2") },
	} {
		for _, n := range []int64{1, 2, 3} {
			if err := o.Put(h.ctx, "k2", n, []byte{byte('0' + n)}, true); err != nil {
				t.Fatal(err)
			}
		}
		got := texts(t, func(yield func([]byte, error) bool) {
			for b, err := range walk() {
				for _, n := range []int64{1, 2, 3} {
					if err := o.Delete(h.ctx, "k2", n); err != nil {
						t.Fatal(err)
					}
				}
				if !yield(b, err) {
					return
				}
			}
		})
		if got != "3 2 1" && got != "1 2 3" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestOutboxBody(t *testing.T) {
	h := newHarness(t, store.Options{})
	o := h.s.Outbox()
	body := random(1, 300_000)
	if err := o.PutBody(h.ctx, "arweave", 5, body); err != nil {
		t.Fatal(err)
	}
	if err := o.PutBody(h.ctx, "arweave", 6, body[:10]); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	o = h.s.Outbox()
	if got, err := o.Body(h.ctx, "arweave", 5, int64(len(body))); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, n := range []int64{int64(len(body)) - 1, int64(len(body)) + 1, 0} {
		if _, err := o.Body(h.ctx, "arweave", 5, n); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("asked for %d bytes: %v", n, err)
		}
	}
	for _, n := range []int64{-1, store.MaxOutboxBody + 1} {
		if _, err := o.Body(h.ctx, "arweave", 5, n); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("asked for %d bytes: %v", n, err)
		}
	}
	err := filepath.WalkDir(filepath.Join(h.dir, "extensions"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err == nil && i.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", path, i.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// It is replaced as a whole, and removed with its row.
	if err := o.PutBody(h.ctx, "arweave", 5, []byte("short")); err != nil {
		t.Fatal(err)
	}
	if got, err := o.Body(h.ctx, "arweave", 5, 5); err != nil || string(got) != "short" {
		t.Errorf("%q, %v", got, err)
	}
	if err := o.Delete(h.ctx, "arweave", 5); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Body(h.ctx, "arweave", 5, 5); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for range 2 {
		if err := o.DeleteBody(h.ctx, "arweave", 6); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(filepath.Join(h.dir, "extensions"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestOutboxRefuses(t *testing.T) {
	h := newHarness(t, store.Options{})
	o := h.s.Outbox()
	for _, at := range []struct {
		chain string
		size  int64
	}{{"", 1}, {"k2", 0}, {"k2", -1}, {"K2", 1}, {"k/2", 1}, {"..", 1}, {"k\x00r", 1}, {strings.Repeat("k", 33), 1}} {
		errs := []error{
			o.Put(h.ctx, at.chain, at.size, []byte("row"), true), o.Delete(h.ctx, at.chain, at.size),
			o.PutBody(h.ctx, at.chain, at.size, nil), o.DeleteBody(h.ctx, at.chain, at.size),
		}
		_, err := o.Get(h.ctx, at.chain, at.size)
		errs = append(errs, err)
		_, err = o.Body(h.ctx, at.chain, at.size, 1)
		errs = append(errs, err)
		if at.size == 1 {
			for _, seq := range []iter.Seq2[[]byte, error]{o.Rows(h.ctx, at.chain, 1), o.Back(h.ctx, at.chain, 1), o.OpenRows(h.ctx, at.chain)} {
				err = nil
				for _, err = range seq {
					break
				}
				errs = append(errs, err)
			}
		}
		for i, err := range errs {
			if !errors.Is(err, store.ErrInvalid) {
				t.Errorf("%q, %d: call %d: %v", at.chain, at.size, i, err)
			}
		}
	}
	for _, n := range []int{0, store.MaxOutboxRow + 1} {
		if err := o.Put(h.ctx, "k2", 1, make([]byte, n), true); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("row of %d bytes: %v", n, err)
		}
	}
	if err := o.Put(h.ctx, "k2", 1, make([]byte, store.MaxOutboxRow), true); err != nil {
		t.Error(err)
	}
}

// Every size has the checkpoint of the largest tree that fits; entries that were
// committed together share one.
func TestCheckpointAt(t *testing.T) {
	h := newHarness(t, store.Options{})
	notes := map[int64][]byte{}
	size, note, _ := h.s.Newest() // the curator's entry, of init
	notes[size] = bytes.Clone(note)
	for i, n := range []int{1, 3, 1, 2} {
		_, _, changed := h.s.Newest()
		var in []store.Input
		for j := range n {
			name := fmt.Sprintf("entry-%d-%d", i, j)
			in = append(in, stream(name, []byte(name)))
		}
		h.mustPut(in...)
		<-changed
		size, note, _ := h.s.Newest()
		notes[size] = bytes.Clone(note)
	}
	check := func() {
		t.Helper()
		want := int64(0)
		for n := range int64(12) {
			if notes[n] != nil {
				want = n
			}
			size, note, err := h.s.CheckpointAt(h.ctx, n)
			switch {
			case want == 0 && !errors.Is(err, store.ErrNotFound):
				t.Errorf("at %d: %v", n, err)
			case want > 0 && (err != nil || size != want || !bytes.Equal(note, notes[want])):
				t.Errorf("at %d: size %d, want %d, %v", n, size, want, err)
			}
		}
	}
	check()
	h.reopen()
	check()
	if _, _, err := h.s.CheckpointAt(h.ctx, -1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("at -1: %v", err)
	}
}
