package filecache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag/fstree"
)

// What is not a plain file is no cache, and is not waited for.
func TestPlainFile(t *testing.T) {
	d, root := newDir(t)
	path := record(t, d, root, smallFiles())
	if err := os.Rename(path, path+"-elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+"-elsewhere", path); err != nil {
		t.Fatal(err)
	}
	if w := d.Begin(root, "p", false); w.Past != nil {
		t.Error("a link was followed")
	}
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if w := d.Begin(root, "p", false); w.Past != nil {
		t.Error("a pipe was read")
	}
}

// A tree has one cache by whatever way one comes to it, and one for each profile.
func TestKey(t *testing.T) {
	d, root := newDir(t)
	record(t, d, root, smallFiles())
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	if w := d.Begin(link, "p", false); w.Past == nil {
		t.Error("by a link it is another one")
	} else {
		w.Close()
	}
	if w := d.Begin(root, "q", false); w.Past != nil {
		t.Error("another profile has the same")
	}
	if w := d.Begin(root, "p", true); w.Past != nil {
		t.Error("a rescan believes it")
	}
	if w := d.Begin(filepath.Join(root, "none"), "p", false); w.Past != nil || w.Next != nil {
		t.Error("what is not there has one")
	}
	if w := (Dir{}).Begin(root, "p", false); w != (Walk{}) {
		t.Error("no directory has one")
	}
}

// What is not committed leaves the cache before as it was, and nothing else.
func TestAbort(t *testing.T) {
	d, root := newDir(t)
	path := record(t, d, root, smallFiles())
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the cache has changed: %v", what, err)
		}
		if names := namesIn(t, d.Path); len(names) != 1 {
			t.Errorf("%s: there are %q", what, names)
		}
	}
	give := func(d Dir, n int) *Writer {
		w := d.Begin(root, "p", true)
		for _, f := range randomFiles(1, n) {
			w.Next.Begin(f.Path, f.Stamp)
			for _, c := range f.Chunks {
				w.Next.Chunk(c.Digest, c.Size)
			}
			w.Next.End(true)
		}
		return w.Next
	}
	give(d, 5).Abort()
	give(d, 2000).Abort()
	same("aborted")

	// Where there is no room it is not kept, early or late.
	full := errors.New("no room")
	for _, n := range []int{100, 2000} {
		for room := range 3 {
			d := d
			d.Room = func(int64) error {
				if room--; room < 0 {
					return full
				}
				return nil
			}
			if err := give(d, n).Commit(); !errors.Is(err, full) && room < 0 {
				t.Errorf("%d files: %v", n, err)
			} else if room < 0 {
				same("no room")
			}
		}
	}
	// What is read in no time is not recorded.
	record(t, d, t.TempDir(), []testFile{{Path: "a", Stamp: fstree.Stamp{Size: 3}, Chunks: []testChunk{{Size: 3}}}})
	same("a small tree")
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// The caches that were written longest ago go when there are too many or they are too
// large, and what processes that died have left. What others put there stays.
func TestPrune(t *testing.T) {
	name := func(i int) string { return fmt.Sprintf("%032x", i) }
	for _, c := range []struct {
		files int
		bytes int64
		want  int // caches of 100 bytes each that stay
	}{
		{10, 1 << 20, 5}, {5, 500, 5}, {3, 500, 3}, {5, 499, 4}, {5, 250, 2}, {5, 10, 1}, {0, 0, 1},
	} {
		d := Dir{Path: t.TempDir(), Now: func() time.Time { return later }}
		put := func(name string, size int, age time.Duration) {
			path, at := filepath.Join(d.Path, name), later.Add(-age)
			if err := errors.Join(os.WriteFile(path, make([]byte, size), 0o600), os.Chtimes(path, at, at)); err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for i := range 5 {
			put(name(i), 100, time.Duration(i)*time.Hour)
			if i < c.want {
				want = append(want, name(i))
			}
		}
		put(name(1)+unfinished+"123", 1000, leftover+time.Second)
		put(name(2)+unfinished+"456", 1000, leftover-time.Second)
		put("notes", 1<<20, 1000*time.Hour)
		if err := d.prune(c.files, c.bytes); err != nil {
			t.Fatal(err)
		}
		want = append(want, name(2)+unfinished+"456", "notes")
		slices.Sort(want)
		if diff := cmp.Diff(want, namesIn(t, d.Path)); diff != "" {
			t.Errorf("%d caches of %d bytes: %s", c.files, c.bytes, diff)
		}
	}
	if err := (Dir{Path: filepath.Join(t.TempDir(), "none")}).prune(1, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
