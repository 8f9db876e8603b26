package fstree

import (
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

// small restores a tree of one file.
func small(out string, o RestoreOptions, meanwhile func()) error {
	r, err := Create(out, o)
	if err != nil {
		return err
	}
	if err := r.Dir("", dirAttr); err != nil {
		return err
	}
	if err := file(r, "new"); err != nil {
		return err
	}
	meanwhile()
	return r.Commit()
}

func nothing() {}

func TestOutExists(t *testing.T) {
	for name, make := range map[string]func(out string) error{
		"file":          func(out string) error { return os.WriteFile(out, []byte("theirs"), 0o600) },
		"directory":     func(out string) error { return os.Mkdir(out, 0o700) },
		"link":          func(out string) error { return os.Symlink("/", out) },
		"dangling link": func(out string) error { return os.Symlink("nowhere", out) },
	} {
		dir := t.TempDir()
		out := dir + "/out"
		must(t, make(out))
		before, err := os.Lstat(out)
		must(t, err)
		_, err = Create(out, RestoreOptions{})
		isErr(t, err, ErrExists)
		must(t, os.Remove(out))
		// It appears when the restore is almost done.
		isErr(t, small(out, RestoreOptions{}, func() { must(t, make(out)) }), ErrExists)
		after, err := os.Lstat(out)
		must(t, err)
		if after.Mode() != before.Mode() || after.Size() != before.Size() {
			t.Errorf("%s: was %v, is %v", name, before, after)
		}
		onlyIn(t, dir, "out")

		must(t, small(out, RestoreOptions{Overwrite: true}, nothing))
		onlyIn(t, out, "new")
		onlyIn(t, dir, "out")
		must(t, os.RemoveAll(out))
		must(t, small(out, RestoreOptions{Overwrite: true}, func() { must(t, make(out)) }))
		onlyIn(t, out, "new")
		onlyIn(t, dir, "out")
	}
}

func TestOverwriteFullDirectory(t *testing.T) {
	dir := openDir(t)
	must(t, os.Chmod(dir, 0o777))
	asNobody(t, func() {
		put(t, dir, "out/locked/in/file", "old")
		must(t, os.Symlink("/", dir+"/out/locked/link"))
		must(t, os.Chmod(dir+"/out/locked/in", 0o500))
		must(t, os.Chmod(dir+"/out/locked", 0))
		must(t, small(dir+"/out", RestoreOptions{Overwrite: true}, nothing))
		onlyIn(t, dir, "out")
		onlyIn(t, dir+"/out", "new")
	})
}

func TestNeverReplaced(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(dir+"/pipe", 0o644))
	must(t, os.MkdirAll(dir+"/here/below", 0o755))
	t.Chdir(dir + "/here/below")
	o := RestoreOptions{Overwrite: true}
	_, err := Create(dir+"/pipe", o)
	isErr(t, err, ErrSpecial)
	_, err = Create("/", o)
	isErr(t, err, ErrExists)
	for _, out := range []string{".", "..", "../..", dir + "/here", "../below/"} {
		if _, err := Create(out, o); err == nil || !strings.Contains(err.Error(), "current directory") {
			t.Errorf("%s: %v", out, err)
		}
	}
	onlyIn(t, dir, "here", "pipe")
	onlyIn(t, dir+"/here/below")
}

func TestNoPlace(t *testing.T) {
	dir := openDir(t)
	put(t, dir, "file", "")
	_, err := Create(dir+"/none/out", RestoreOptions{})
	isErr(t, err, fs.ErrNotExist)
	if _, err = Create(dir+"/file/out", RestoreOptions{}); err == nil {
		t.Error("a file was taken for a directory")
	}
	must(t, os.Chmod(dir, 0o555))
	asNobody(t, func() {
		_, err := Create(dir+"/out", RestoreOptions{})
		isErr(t, err, fs.ErrPermission)
		if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "another place") {
			t.Errorf("not helpful: %v", err)
		}
		err = WriteFile(dir+"/out", fileAttr, RestoreOptions{}, nil)
		isErr(t, err, fs.ErrPermission)
	})
	must(t, os.Chmod(dir, 0o755))
	onlyIn(t, dir, "file")
}

func TestLongestNames(t *testing.T) {
	dir := t.TempDir()
	out := strings.Repeat("\xff", dag.MaxName)
	must(t, small(dir+"/"+out, RestoreOptions{}, nothing))
	must(t, WriteFile(dir+"/"+out[1:], fileAttr, RestoreOptions{}, func(io.Writer) error { return nil }))
	onlyIn(t, dir, out[1:], out)
}

// Without renameat2, as on some network file systems.
func TestRenamePlain(t *testing.T) {
	for _, exists := range []bool{false, true} {
		for _, overwrite := range []bool{false, true} {
			dir := t.TempDir()
			s, err := newStage(dir+"/out", RestoreOptions{Overwrite: overwrite}, true)
			must(t, err)
			root, err := s.mkdir()
			must(t, err)
			root.Close()
			put(t, dir, s.name+"/new", "")
			if exists {
				put(t, dir, "out/old", "")
			}
			replaced, err := s.renamePlain(int(s.sync.Fd()))
			s.done = err == nil && !replaced
			must(t, s.close())
			onlyIn(t, dir, "out")
			if exists && !overwrite {
				isErr(t, err, ErrExists)
				onlyIn(t, dir+"/out", "old")
			} else {
				must(t, err)
				onlyIn(t, dir+"/out", "new")
			}
		}
	}
}
