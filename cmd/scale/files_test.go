package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

// TestRestoreHostileNames restores trees with names that no dataset made by this
// program has. None of them may write outside of OUT or leave anything behind.
func TestRestoreHostileNames(t *testing.T) {
	attr := dag.Attr{Mode: 0o755}
	long := strings.Repeat("x", 256)
	for _, path := range []string{
		"..", ".", "/", "//", "/absolute", "../beside", "../../above", "dir/../../beside", "dir/..", "dir/.", "dir//x", "dir/",
		"link/through", "nul\x00", long, "not/there/yet",
	} {
		for _, kind := range []string{"dir", "file", "big", "link"} {
			t.Run(fmt.Sprintf("%s %.20q", kind, path), func(t *testing.T) {
				top := t.TempDir()
				victim := filepath.Join(top, "victim")
				if err := os.Mkdir(victim, 0o755); err != nil {
					t.Fatal(err)
				}
				r, err := fstree.Create(filepath.Join(top, "out"), fstree.RestoreOptions{})
				if err != nil {
					t.Fatal(err)
				}
				v := newRestorer(r, func(uint64) {})
				for _, step := range []func() error{
					func() error { return v.Dir("", attr) },
					func() error { return v.Dir("dir", attr) },
					func() error { return v.Link("link", victim, attr) },
				} {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				switch kind {
				case "dir":
					err = v.Dir(path, attr)
				case "link":
					err = v.Link(path, "target", attr)
				default:
					size := 10
					if kind == "big" {
						size = smallFileSize + 1
					}
					err = restoreFile(v, path, size)
				}
				if werr := v.wait(); err == nil {
					err = werr
				}
				if err == nil {
					t.Error("accepted")
				}
				if err := r.Abort(); err != nil {
					t.Error(err)
				}
				left, err := filepath.Glob(filepath.Join(top, "*"))
				if err != nil {
					t.Fatal(err)
				}
				inside, err := os.ReadDir(victim)
				if err != nil {
					t.Fatal(err)
				}
				if len(left) != 1 || len(inside) != 0 {
					t.Errorf("left behind: %q, in the directory beside: %v", left, inside)
				}
			})
		}
	}
}

func restoreFile(v *restorer, path string, size int) error {
	w, err := v.File(path, dag.Attr{Mode: 0o644}, uint64(size))
	if err != nil {
		return err
	}
	if _, err := w.Write(bytes.Repeat([]byte("x"), size)); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

// Every file gets its own bytes and mode, however files are collected: more than one
// goroutine gets, of more bytes, empty ones, large ones in between, in several directories.
func TestRestoreManyFiles(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r, err := fstree.Create(out, fstree.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v := newRestorer(r, func(uint64) {})
	content := func(d, i int) []byte {
		size := (d*1000 + i*37) % 5000
		switch {
		case i%50 == 7:
			size = 0
		case i%50 == 9:
			size = smallFileSize - i
		case i == 100:
			size = smallFileSize + 1
		}
		return bytes.Repeat([]byte(fmt.Sprintf("%d/%d.", d, i)), size/4+1)[:size]
	}
	mode := func(i int) uint32 { return []uint32{0o644, 0o600, 0o1755}[i%3] }
	if err := v.Dir("", dag.Attr{Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	const dirs, files = 3, 2*smallCount + 20
	for d := range dirs {
		if err := v.Dir(fmt.Sprint(d), dag.Attr{Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		for i := range files {
			data := content(d, i)
			w, err := v.File(fmt.Sprintf("%d/%03d", d, i), dag.Attr{Mode: mode(i)}, uint64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			for len(data) > 0 { // in pieces
				n := min(len(data), 60_000)
				if _, err := w.Write(data[:n]); err != nil {
					t.Fatal(err)
				}
				data = data[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := v.wait(); err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	for d := range dirs {
		for i := range files {
			path := filepath.Join(out, fmt.Sprint(d), fmt.Sprintf("%03d", i))
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, content(d, i)) {
				t.Fatalf("%s: %d bytes, %v", path, len(got), err)
			}
			fi, err := os.Stat(path)
			if err != nil || fi.Mode().Perm() != os.FileMode(mode(i)&0o777) || (fi.Mode()&os.ModeSticky != 0) != (mode(i)&0o1000 != 0) {
				t.Fatalf("%s: %v, %v", path, fi.Mode(), err)
			}
		}
	}
}
