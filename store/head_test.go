package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

func TestHead(t *testing.T) {
	h := newHarness(t, store.Options{})
	want := func(name string, policy, newest int64) {
		t.Helper()
		head, err := h.s.Head(h.ctx, name)
		if err != nil || head.Policy != policy || head.Newest != newest || head.VerifierKey != h.s.VerifierKey() {
			t.Errorf("head of %q: %+v, %v; want policy %d, newest %d", name, head, err, policy, newest)
		}
		if d := cmp.Diff(h.s.Published(), head.Published); d != "" {
			t.Error(d)
		}
	}
	want("x", 0, -1)
	h.mustPut(stream("x", []byte("1")))
	h.mustPut(stream("x2", []byte("1")))
	want("x", 0, 1)
	h.mustPut(stream("x", []byte("2")))
	want("x", 0, 3)
	if _, err := h.s.Remove(h.ctx, "x", store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	h.admit("a")
	want("x", 5, 4)
	want("x2", 5, 2)
	want("", 5, -1)
	if _, err := h.s.Head(h.ctx, "no name"); !errors.Is(err, store.ErrInvalid) {
		t.Error(err)
	}
}

func TestInclusion(t *testing.T) {
	h := newHarness(t, store.Options{})
	for i := range 6 {
		h.mustPut(stream("x", []byte{byte(i)}))
	}
	size := h.s.Published().Size
	for n := int64(1); n <= size; n++ {
		root, err := h.s.RootAt(h.ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range h.s.Entries(h.ctx, 0, n) {
			if err != nil {
				t.Fatal(err)
			}
			p, err := h.s.Inclusion(h.ctx, e.Index, n)
			if err != nil || p.Root != root || p.Leaf != ledger.LeafHash(e.Block) {
				t.Fatalf("entry %d of %d: %+v, %v", e.Index, n, p, err)
			}
			if err := ledger.CheckInclusion(p.Hashes, n, root, e.Index, p.Leaf); err != nil {
				t.Error(err)
			}
		}
	}
	if root, err := h.s.RootAt(h.ctx, 0); err != nil || root != ledger.EmptyRoot() {
		t.Errorf("%v, %v", root, err)
	}
	if root, err := h.s.RootAt(h.ctx, size); err != nil || [32]byte(root) != h.s.Published().Root {
		t.Errorf("%v, %v", root, err)
	}
	for _, c := range [][2]int64{{0, 0}, {-1, 3}, {3, 3}, {0, size + 1}, {size, size}} {
		if _, err := h.s.Inclusion(h.ctx, c[0], c[1]); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("entry %d of %d: %v", c[0], c[1], err)
		}
	}
	for _, n := range []int64{-1, size + 1} {
		if _, err := h.s.RootAt(h.ctx, n); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("root at %d: %v", n, err)
		}
	}
}

// Every follower sees every entry once, in order, as soon as it is published and not
// before.
func TestFollow(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("first", []byte("x")))
	const puts, followers = 40, 3
	var wg sync.WaitGroup
	for from := range int64(followers) {
		wg.Go(func() {
			next := from
			for e, err := range h.s.Follow(h.ctx, from) {
				if err != nil {
					t.Error(err)
					return
				}
				if e.Index != next || e.Index >= h.s.Published().Size {
					t.Errorf("entry %d, want %d of %d", e.Index, next, h.s.Published().Size)
				}
				if next++; next == 2+puts {
					return
				}
			}
			t.Error("ended by itself")
		})
	}
	for i := range puts {
		wg.Go(func() {
			if _, err := h.put(stream(fmt.Sprintf("n%d", i%7), text(uint64(i), 100))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	last := h.s.Published().Size
	var seen []int64
	var end error
	for e, err := range h.s.Follow(ctx, last-2) {
		if end = err; err != nil {
			break
		}
		if seen = append(seen, e.Index); len(seen) == 2 {
			cancel()
		}
	}
	if d := cmp.Diff([]int64{last - 2, last - 1}, seen); d != "" || !errors.Is(end, context.Canceled) {
		t.Errorf("%s %v", d, end)
	}
	for _, from := range []int64{-1, last + 1} {
		for _, err := range h.s.Follow(h.ctx, from) {
			if !errors.Is(err, store.ErrInvalid) {
				t.Errorf("from %d: %v", from, err)
			}
		}
	}
}

// What comes over the wire as files is what is exported to a directory.
func TestLogFiles(t *testing.T) {
	h := newHarness(t, store.Options{})
	var in []store.Input
	for i := range 300 {
		in = append(in, stream(fmt.Sprintf("n%d", i), []byte{byte(i), byte(i >> 8)}))
	}
	h.mustPut(in...)
	direct, wire := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "log")
	if err := h.s.ExportLog(h.ctx, direct); err != nil {
		t.Fatal(err)
	}
	var files []store.LogFile
	for f, err := range h.s.LogFiles(h.ctx) {
		if err != nil {
			t.Fatal(err)
		}
		f.Data = bytes.Clone(f.Data)
		files = append(files, f)
	}
	if err := store.WriteLog(wire, each(files...)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(readTree(t, direct), readTree(t, wire)); d != "" {
		t.Error(d)
	}
	if last := files[len(files)-1]; last.Path != "checkpoint" || !bytes.Equal(last.Data, h.s.Published().Checkpoint) {
		t.Errorf("the last file is %s: %q", last.Path, last.Data)
	}
	for what, c := range map[string]struct {
		files []store.LogFile
		want  error
	}{
		"nothing":            {nil, store.ErrCorrupt},
		"without checkpoint": {files[:len(files)-1], store.ErrCorrupt},
		"path that leaves":   {[]store.LogFile{{Path: "tile/../../evil"}, files[len(files)-1]}, store.ErrInvalid},
		"path not clean":     {[]store.LogFile{{Path: "tile/../evil"}, files[len(files)-1]}, store.ErrInvalid},
		"absolute path":      {[]store.LogFile{{Path: "/tmp/evil"}, files[len(files)-1]}, store.ErrInvalid},
		"another file":       {[]store.LogFile{{Path: ".profile"}, files[len(files)-1]}, store.ErrInvalid},
	} {
		if err := store.WriteLog(filepath.Join(t.TempDir(), "log"), each(c.files...)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := store.WriteLog(wire, each(files...)); !errors.Is(err, store.ErrExists) {
		t.Errorf("over another: %v", err)
	}
}

func each(files ...store.LogFile) iter.Seq2[store.LogFile, error] {
	return func(yield func(store.LogFile, error) bool) {
		for _, f := range files {
			if !yield(f, nil) {
				return
			}
		}
	}
}

func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
