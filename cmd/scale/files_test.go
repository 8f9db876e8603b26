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
