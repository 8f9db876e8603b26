package main

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSame(t *testing.T) {
	tree := func(files map[string]string) string {
		dir := t.TempDir()
		for name, data := range files {
			name = filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	long := strings.Repeat("x", 1<<17)
	want := tree(map[string]string{"a": long, "d/b": "b"})
	for name, c := range map[string]struct {
		files map[string]string
		same  bool
	}{
		"equal":     {map[string]string{"a": long, "d/b": "b"}, true},
		"missing":   {map[string]string{"a": long}, false},
		"extra":     {map[string]string{"a": long, "d/b": "b", "d/c": ""}, false},
		"renamed":   {map[string]string{"a": long, "d/c": "b"}, false},
		"changed":   {map[string]string{"a": long[1:] + "y", "d/b": "b"}, false},
		"cut short": {map[string]string{"a": long[:1<<16], "d/b": "b"}, false},
		"longer":    {map[string]string{"a": long + "x", "d/b": "b"}, false},
	} {
		if err := same(want, tree(c.files)); (err == nil) != c.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// archive writes a tar archive of the files, each below a prefix.
func archive(t *testing.T, prefix string, files ...[2]string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "archive.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, file := range files {
		if err := w.WriteHeader(&tar.Header{Name: prefix + file[0], Mode: 0o600, Size: int64(len(file[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(file[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestSameTar(t *testing.T) {
	want := t.TempDir()
	if err := os.Mkdir(filepath.Join(want, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"a": "1", "d/b": "2"} {
		if err := os.WriteFile(filepath.Join(want, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		archive string
		same    bool
	}{
		"equal":          {archive(t, "", [2]string{"a", "1"}, [2]string{"d/b", "2"}), true},
		"other order":    {archive(t, "", [2]string{"d/b", "2"}, [2]string{"a", "1"}), true},
		"prefix":         {archive(t, "x/y/", [2]string{"a", "1"}, [2]string{"d/b", "2"}), true},
		"missing":        {archive(t, "", [2]string{"a", "1"}), false},
		"extra":          {archive(t, "", [2]string{"a", "1"}, [2]string{"d/b", "2"}, [2]string{"d/c", "3"}), false},
		"twice":          {archive(t, "", [2]string{"a", "1"}, [2]string{"a", "1"}, [2]string{"d/b", "2"}), false},
		"changed":        {archive(t, "", [2]string{"a", "1"}, [2]string{"d/b", "3"}), false},
		"other prefixes": {archive(t, "", [2]string{"x/a", "1"}, [2]string{"d/b", "2"}), false},
		"empty":          {archive(t, ""), false},
	} {
		if err := sameTar(want, c.archive); (err == nil) != c.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	c := shell(`cat; printf %s "$1"`, "after")
	c.feed = func(w io.Writer) error {
		_, err := io.WriteString(w, "fed, then ")
		return err
	}
	c.out = out
	s, err := run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "fed, then after" {
		t.Errorf("it wrote %q, %v", got, err)
	}
	if s.Wall <= 0 || s.Peak <= 0 {
		t.Errorf("nothing was measured: %+v", s)
	}

	// A child's child writes. Where the directory is in memory nothing goes to a disk.
	const size = 4 << 20
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	least := int64(size)
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		least = 0
	}
	s, err = run(t.Context(), shell(`(dd if=/dev/zero "of=$1" bs=1M count=4 conv=fsync); true`, filepath.Join(dir, "zeros")))
	if err != nil {
		t.Fatal(err)
	}
	if s.Written < least || s.Written > size+1<<20 {
		t.Errorf("%d bytes written, want %d and little more", s.Written, least)
	}
	if n, err := unsynced(filepath.Join(dir, "zeros")); err != nil || n > 0 && least > 0 {
		t.Errorf("%d bytes are unsynced after a sync: %v", n, err)
	}
}
