package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/rowpack"
)

// unpackStore makes a store of an archive in testdata.
func unpackStore(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	f, err := os.Open(filepath.Join("testdata", archive))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err == nil && h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, h.FileInfo().Mode().Perm())
		} else if err == nil {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, h.FileInfo().Mode().Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func formatOf(t *testing.T, dir string) (format int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "scale.json"))
	if err != nil {
		t.Fatal(err)
	}
	conf := struct{ Format *int }{&format}
	if err := json.Unmarshal(b, &conf); err != nil {
		t.Fatal(err)
	}
	return format
}

// keepKV has a test look into the rows of the store that it opens.
func keepKV(into *kv.Store) store.Options {
	return store.Options{WrapKV: func(s kv.Store) kv.Store { *into = s; return s }}
}

// countPacked counts the rows with a prefix, and those that are packed.
func countPacked(t *testing.T, s kv.Store, prefix string) (all, packed int) {
	t.Helper()
	for r, err := range s.Scan(t.Context(), []byte(prefix), nil) {
		if err != nil {
			t.Fatal(err)
		}
		all++
		if len(r.Value) > 0 && r.Value[0] == rowpack.Mark && (prefix != "m" || r.Key[33] == 0) {
			packed++
		}
	}
	return all, packed
}

func numberedFiles(n int) store.Source {
	s := &source{{Kind: dag.KindDir, Attr: dag.Attr{Mode: 0o755}}, {Path: "dir", Kind: dag.KindDir, Attr: dag.Attr{Mode: 0o755}}}
	for i := range n {
		*s = append(*s, &store.SourceEntry{
			Path: fmt.Sprintf("dir/file-%03d", i), Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o644},
			Body: strings.NewReader(fmt.Sprintf("file %d\n", i)),
		})
	}
	return s
}

func lines(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintln(&b, i+1)
	}
	return b.Bytes()
}

// A store that the first release made is read, appended to and checked, and stays what that
// release can read.
func TestFormat1(t *testing.T) {
	var rows kv.Store
	h := &harness{t: t, ctx: t.Context(), dir: unpackStore(t, "format1.tar.gz"), opt: keepKV(&rows)}
	h.open()
	t.Cleanup(h.close)
	if err := h.s.Doubt(); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if got, want := h.get(fmt.Sprintf("tree/dir/file-%03d", i)), fmt.Sprintf("file %d\n", i); string(got) != want {
			t.Fatalf("file %d holds %q", i, got)
		}
	}
	old := lines(60_000)
	if !bytes.Equal(h.get("lines"), old) {
		t.Error("lines read back differently")
	}
	h.verify("tree/dir/file-042", store.ProveOptions{})
	h.verify("lines", store.ProveOptions{Range: &store.Range{From: 100_000, To: 100_000 + 1000}})
	before, _ := countPacked(t, rows, "d")

	for _, r := range h.mustPut(store.Input{Name: "tree", Source: numberedFiles(100)}, stream("lines", old)) {
		if !r.Unchanged {
			t.Errorf("the same data are a new version: %+v", r)
		}
	}
	h.mustPut(store.Input{Name: "tree", Source: numberedFiles(300)}, stream("lines", lines(90_000)))
	after, packed := countPacked(t, rows, "d")
	if after < before+3 || packed > 0 {
		t.Errorf("%d nodes, then %d, of them %d packed", before, after, packed)
	}
	if _, packed := countPacked(t, rows, "m"); packed > 0 {
		t.Errorf("%d commitment rows are packed", packed)
	}
	h.reopen()
	if got := h.get("lines"); !bytes.Equal(got, lines(90_000)) || !bytes.Equal(h.get("lines@1"), old) {
		t.Error("lines read back differently")
	}
	h.verify("tree/dir/file-299", store.ProveOptions{})
	if n := formatOf(t, h.dir); n != 1 {
		t.Errorf("format %d", n)
	}
	h.check() // which takes a packed row for damage
}

// A new store packs nodes and rows of leaves, however they come, and what it gives back is
// the same.
func TestPackedRows(t *testing.T) {
	var rows kv.Store
	h := newHarness(t, keepKV(&rows))
	if n := formatOf(t, h.dir); n != 2 || store.Format != 2 {
		t.Errorf("format %d, new stores have %d", n, store.Format)
	}
	// Paths that make a row of leaves longer than a part.
	var long []file
	for i := range 300 {
		long = append(long, file{name: fmt.Sprintf("%03d-%x", i, random(uint64(i), 100)), data: []byte{byte(i)}})
	}
	big := random(5, 9<<20)
	h.mustPut(store.Input{Name: "tree", Source: numberedFiles(600)}, store.Input{Name: "long", Source: sourceOf(long...)}, stream("big", big))
	for _, prefix := range []string{"d", "m"} {
		if _, packed := countPacked(t, rows, prefix); packed < 3 {
			t.Errorf("%d rows %s are packed", packed, prefix)
		}
	}
	p, plain, stored := newPacker(t), 0, 0
	for r, err := range rows.Scan(h.ctx, []byte("d"), nil) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.Open(nil, r.Value, dag.MaxBlock)
		if err != nil || sha256.Sum256(b) != [32]byte(r.Key[1:]) {
			t.Errorf("node %x does not open to what it is named after, %v", r.Key[1:], err)
		}
		plain, stored = plain+len(b), stored+len(r.Value)
	}
	if stored*4 > plain*3 {
		t.Errorf("nodes of %d bytes take %d", plain, stored)
	}
	h.reopen()
	if !bytes.Equal(h.get("big"), big) || string(h.get("tree/dir/file-599")) != "file 599\n" || !bytes.Equal(h.get("long/"+long[7].name), long[7].data) {
		t.Error("reads back differently")
	}
	h.verify("tree/dir/file-599", store.ProveOptions{})
	h.verify("long/"+long[299].name, store.ProveOptions{})
	h.verify("big", store.ProveOptions{Range: &store.Range{From: 8 << 20, To: 8<<20 + 5000}})
	var car bytes.Buffer
	if err := h.s.ExportCAR(h.ctx, h.resolve("tree"), &car); err != nil || !bytes.Contains(car.Bytes(), []byte("\x12\x08file-599\x18\x09")) {
		t.Errorf("export: %d bytes, %v", car.Len(), err)
	}
	h.check()
}

// A packed row that was damaged is corrupt, and the error says what to do.
func TestDamagedPackedRow(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"digest changed": func(b []byte) []byte { b[10] ^= 1; return b },
		"cut short":      func(b []byte) []byte { return b[:len(b)-1] },
		"huge":           func(b []byte) []byte { return append([]byte("\xc0\x00\xff\xff\xff\xff\x7f"), b...) },
		"mark changed":   func(b []byte) []byte { b[0] = 0xc1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			var rows kv.Store
			h := newHarness(t, keepKV(&rows))
			h.mustPut(store.Input{Name: "tree", Source: numberedFiles(600)})
			for _, prefix := range []string{"d", "m"} {
				var b kv.Batch
				for r, err := range rows.Scan(h.ctx, []byte(prefix), nil) {
					if err != nil {
						t.Fatal(err)
					}
					if len(r.Value) > 0 && r.Value[0] == rowpack.Mark {
						b.Set(r.Key, change(bytes.Clone(r.Value)))
					}
				}
				if err := rows.Commit(h.ctx, &b); err != nil {
					t.Fatal(err)
				}
			}
			h.reopen()
			err := h.s.GetTree(h.ctx, h.resolve("tree"), treeMap{})
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "--forget-damaged") {
				t.Errorf("get: %v", err)
			}
			found := 0
			o := check.Options{ReadData: true, Forget: true, Report: func(f check.Finding) { found++ }}
			h.close()
			if sum, err := check.Run(h.ctx, h.dir, o); err != nil || sum.Sound() || found == 0 || sum.Forgotten < 2 {
				t.Errorf("check: %+v, %v", sum, err)
			}
			h.open()
			h.mustPut(store.Input{Name: "tree", Source: numberedFiles(600)})
			if string(h.get("tree/dir/file-001")) != "file 1\n" {
				t.Error("reads back differently after it was put again")
			}
			h.check()
		})
	}
}
