package fstree

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

// readBoth reads a file in both ways, which must agree, as it was listed when
// entry was made.
func readBoth(t *testing.T, tree *Tree, entry *Entry) ([]byte, error) {
	t.Helper()
	small, big := *entry, *entry
	buf := make([]byte, 1<<20)
	n, err := tree.Read(&small, buf)
	f, err2 := tree.Open(&big)
	if err2 == nil {
		var content []byte
		content, err2 = io.ReadAll(f)
		f.Close()
		if err == nil && !bytes.Equal(content, buf[:n]) {
			t.Errorf("%q: Read gives %d bytes, Open %d others", entry.Path, n, len(content))
		}
	}
	if (err == nil) != (err2 == nil) || errors.Is(err, ErrChanged) != errors.Is(err2, ErrChanged) {
		t.Errorf("%q: Read: %v; Open: %v", entry.Path, err, err2)
	}
	if small != big {
		t.Errorf("%q: Read updates to %v, Open to %v", entry.Path, small, big)
	}
	*entry = small
	return buf[:n], err
}

// entry lists the tree and returns the entry at path.
func entry(t *testing.T, tree *Tree, path string) *Entry {
	t.Helper()
	for e, err := range tree.Walk(t.Context()) {
		must(t, err)
		if e.Path == path {
			return e
		}
	}
	t.Fatalf("no %q", path)
	return nil
}

func TestRead(t *testing.T) {
	root := t.TempDir()
	for _, name := range strangeNames {
		put(t, root, "d/"+name, "content of "+name)
	}
	put(t, root, "empty", "")
	put(t, root, "big", strings.Repeat("0123456789", 100_000))
	tree := open(t, root, Options{})
	before := descriptors(t)
	for e, err := range tree.Walk(t.Context()) {
		must(t, err)
		if e.Kind != dag.KindFile {
			if _, err := tree.Open(e); err == nil {
				t.Errorf("a %v is opened", e.Kind)
			}
			continue
		}
		listed := *e
		got, err := readBoth(t, tree, e)
		must(t, err)
		want, err := os.ReadFile(root + "/" + e.Path)
		must(t, err)
		if !bytes.Equal(got, want) || *e != listed {
			t.Errorf("%q: read %d bytes, want %d", e.Path, len(got), len(want))
		}
	}
	f, err := tree.Open(entry(t, tree, "big"))
	must(t, err)
	defer f.Close()
	must(t, iotest.TestReader(f, []byte(strings.Repeat("0123456789", 100_000))))
	f.Close()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors open, before %d", after, before)
	}
}

func TestReadShortBuffer(t *testing.T) {
	root := t.TempDir()
	put(t, root, "f", "12345")
	tree := open(t, root, Options{})
	e := entry(t, tree, "f")
	for size := range 8 {
		n, err := tree.Read(e, make([]byte, size))
		if size <= 5 {
			isErr(t, err, io.ErrShortBuffer)
		} else if n != 5 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
}

// What takes the place of a file between listing and opening it is read if it
// is a file, and refused if it is not.
func TestReplacedBeforeOpen(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "secret", "secret")
	for name, tc := range map[string]struct {
		replace func(dir string) error // of dir/file
		want    error
	}{
		"link": {func(dir string) error { return os.Symlink(outside+"/secret", dir+"/file") }, ErrChanged},
		"pipe": {func(dir string) error { return unix.Mkfifo(dir+"/file", 0o644) }, ErrChanged},
		"socket": {func(dir string) error {
			return unix.Mknod(dir+"/file", unix.S_IFSOCK|0o644, 0)
		}, ErrSpecial},
		"directory": {func(dir string) error { return os.Mkdir(dir+"/file", 0o755) }, ErrChanged},
		"nothing":   {func(dir string) error { return nil }, ErrChanged},
		"link above": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Symlink(outside, dir), os.WriteFile(outside+"/file", nil, 0o644))
		}, ErrChanged},
		"longer file": {func(dir string) error { return os.WriteFile(dir+"/file", []byte("another content"), 0o600) }, nil},
	} {
		root := t.TempDir()
		put(t, root, "dir/file", "content")
		tree := open(t, root, Options{})
		e := entry(t, tree, "dir/file")
		must(t, os.Remove(root+"/dir/file"))
		must(t, tc.replace(root+"/dir"))
		got, err := readBoth(t, tree, e)
		if tc.want != nil {
			isErr(t, err, tc.want)
		} else if string(got) != "another content" || err != nil || e.Size != 15 || e.Attr.Mode != 0o600 {
			t.Errorf("%s: %q, %v, entry %+v", name, got, err, e)
		}
		if fd, err := openSteps(tree.fd, "dir/file"); name == "link above" && err == nil {
			t.Errorf("a link was followed to descriptor %d", fd)
		}
	}
}

func TestChangedWhileRead(t *testing.T) {
	content := strings.Repeat("0123456789", 10)
	for name, change := range map[string]func(path string) error{
		"grows":     func(path string) error { return appendTo(path, "x") },
		"grows far": func(path string) error { return os.Truncate(path, 1<<30) },
		"shrinks":   func(path string) error { return os.Truncate(path, 99) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"rewritten": func(path string) error { return errors.Join(os.Truncate(path, 0), appendTo(path, content)) },
		"mode":      touchMode,
	} {
		root := t.TempDir()
		put(t, root, "f", content)
		// An old time, so that any change shows at any resolution of clocks.
		path := filepath.Join(root, "f")
		must(t, unix.Utimes(path, []unix.Timeval{{Sec: 1}, {Sec: 1}}))
		tree := open(t, root, Options{})
		f, err := tree.Open(entry(t, tree, "f"))
		must(t, err)
		if _, err := io.CopyN(io.Discard, f, 50); err != nil {
			t.Fatal(err)
		}
		must(t, change(path))
		n, err := io.Copy(io.Discard, f)
		isErr(t, err, ErrChanged)
		if n > 50 {
			t.Errorf("%s: %d bytes more than the file had", name, n-50)
		}
		if _, again := f.Read(make([]byte, 10)); again != err {
			t.Errorf("%s: first %v, then %v", name, err, again)
		}
		must(t, f.Close())
	}
}

// touchMode changes only the mode of a file, until the clock of the file
// system has moved on and the change shows.
func touchMode(path string) error {
	var before, st unix.Stat_t
	err := unix.Stat(path, &before)
	for st = before; err == nil && st.Ctim == before.Ctim; {
		err = errors.Join(os.Chmod(path, 0o600), unix.Stat(path, &st))
	}
	return err
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

// Files of /proc have a size of 0 and a content all the same. Recording them
// as empty would be wrong.
func TestFilesWithoutSize(t *testing.T) {
	tree := open(t, "/proc/self/status", Options{})
	for e, err := range tree.Walk(t.Context()) {
		must(t, err)
		_, err = readBoth(t, tree, e)
		isErr(t, err, ErrChanged)
	}
}
