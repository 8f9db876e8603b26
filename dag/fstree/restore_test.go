package fstree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

var (
	dirAttr  = dag.Attr{Mode: 0o755}
	fileAttr = dag.Attr{Mode: 0o644}
)

// copyTree restores what it walks, with some goroutines writing the files.
func copyTree(t testing.TB, from, to string, o RestoreOptions) error {
	t.Helper()
	tree := open(t, from, Options{Times: true})
	r, err := Create(to, o)
	if err != nil {
		return err
	}
	type job struct {
		e *Entry
		w *FileWriter
	}
	jobs := make(chan job, 100)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for j := range jobs {
				n, err := tree.Read(j.e, buf)
				if err == nil && n > 0 {
					_, err = j.w.Write(buf[:n])
				}
				if err := errors.Join(err, j.w.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for e, err := range tree.Walk(t.Context()) {
		if err == nil {
			var w *FileWriter
			switch e.Kind {
			case dag.KindDir:
				err = r.Dir(e.Path, e.Attr)
			case dag.KindLink:
				err = r.Link(e.Path, e.Target, e.Attr)
			case dag.KindFile:
				if w, err = r.File(e.Path, e.Attr); err == nil {
					jobs <- job{e, w}
				}
			}
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	close(jobs)
	wg.Wait()
	return r.Commit()
}

// describe gives all of a tree that a restore should bring back.
func describe(t testing.TB, root string) map[string]string {
	t.Helper()
	tree := open(t, root, Options{Times: true})
	all := map[string]string{}
	for e, err := range tree.Walk(t.Context()) {
		must(t, err)
		s := fmt.Sprintf("%v %#o %v %s", e.Kind, e.Attr.Mode, e.Attr.Mtime, e.Target)
		if e.Kind == dag.KindFile && (e.Attr.Mode&0o400 != 0 || os.Geteuid() == 0) {
			buf := make([]byte, 1<<20)
			n, err := tree.Read(e, buf)
			must(t, err)
			s += string(buf[:n])
		}
		all[e.Path] = s
	}
	return all
}

// onlyIn fails if there is anything in dir but the names given.
func onlyIn(t testing.TB, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("in %s: %s", dir, diff)
	}
}

func TestRoundTrip(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for i, name := range strangeNames {
		put(t, from, name, name)
		put(t, from, fmt.Sprintf("dir%d/%s", i, name), "")
		must(t, os.Mkdir(filepath.Join(from, fmt.Sprintf("empty%d%.200s", i, name)), 0o755))
		must(t, os.Symlink(name, filepath.Join(from, "link"+name[:min(200, len(name))])))
	}
	must(t, os.MkdirAll(from+"/locked/in/it", 0o755))
	for i, path := range []string{"/locked/in/it", "/locked/in", "/locked", ""} {
		ts := unix.Timespec{Sec: int64(1e9 * i), Nsec: 987654321}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, from+path, []unix.Timespec{ts, ts}, 0))
		must(t, os.Chmod(from+path, 0o555))
		t.Cleanup(func() { os.Chmod(from+path, 0o755) })
		t.Cleanup(func() { os.Chmod(to+"/out"+path, 0o755) })
	}
	must(t, copyTree(t, from, to+"/out", RestoreOptions{}))
	if diff := cmp.Diff(describe(t, from), describe(t, to+"/out")); diff != "" {
		t.Error(diff)
	}
	onlyIn(t, to, "out")
}

// All modes of files, and some of directories, whatever the umask.
func TestModes(t *testing.T) {
	defer unix.Umask(unix.Umask(0o027))
	for _, setID := range []bool{false, true} {
		out := t.TempDir() + "/out"
		r, err := Create(out, RestoreOptions{SetID: setID})
		must(t, err)
		must(t, r.Dir("", dag.Attr{Mode: 0o1777}))
		for mode := range uint32(0o10000) {
			a := dag.Attr{Mode: mode}
			if mode%0o111 == 0 {
				must(t, r.Dir(fmt.Sprintf("%o.d", mode), a))
			}
			w, err := r.File(fmt.Sprintf("%o.f", mode), a)
			must(t, err)
			must(t, w.Close())
		}
		must(t, r.Commit())
		entries, _ := walk(t, out, Options{SkipUnreadable: true})
		for _, e := range entries[1:] {
			var want uint32
			_, err := fmt.Sscanf(e.Path, "%o.", &want)
			must(t, err)
			if !setID {
				want &^= 0o6000
			}
			if e.Attr.Mode != want {
				t.Errorf("%s: mode %#o", e.Path, e.Attr.Mode)
			}
		}
		must(t, removeOut(out))
	}
}

// removeOut removes a tree whose modes may forbid it.
func removeOut(out string) error {
	base, err := os.OpenRoot(filepath.Dir(out))
	if err != nil {
		return err
	}
	defer base.Close()
	return removeAll(base, filepath.Base(out))
}

func TestTimes(t *testing.T) {
	out := t.TempDir() + "/out"
	r, err := Create(out, RestoreOptions{})
	must(t, err)
	at := func(s int64) dag.Attr { return dag.Attr{Mode: 0o555, Mtime: time.Unix(s, 123456789)} }
	const year2400 = 13_600_000_000 // beyond what fits into nanoseconds
	want := map[string]int64{"": 1, "d": -1, "d/f": year2400, "d/l": 3}
	must(t, r.Dir("", at(want[""])))
	must(t, r.Dir("d", at(want["d"])))
	w, err := r.File("d/f", at(want["d/f"]))
	must(t, err)
	must(t, r.Link("d/l", "f", at(want["d/l"])))
	_, err = w.Write([]byte("x"))
	must(t, err)
	must(t, w.Close())
	must(t, r.Commit())
	t.Cleanup(func() { removeOut(out) })
	entries, _ := walk(t, out, Options{Times: true})
	for _, e := range entries {
		if !e.Attr.Mtime.Equal(at(want[e.Path]).Mtime) {
			t.Errorf("%q: %v", e.Path, e.Attr.Mtime)
		}
	}
}

func TestDeepRestore(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	deepTree(t, from, "d", 2047)
	must(t, copyTree(t, from, to+"/out", RestoreOptions{}))
	entries, _ := walk(t, to+"/out", Options{})
	if last := entries[len(entries)-1]; len(entries) != 2049 || len(last.Path) != dag.MaxPath {
		t.Errorf("%d entries, the last path has %d bytes", len(entries), len(last.Path))
	}
}

// Names and orders of entries that only a hostile dataset has.
func TestHostileTrees(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "victim/file", "mine")
	long := strings.Repeat("n", 256)
	for name, build := range map[string]func(r *Restore) error{
		"parent":          func(r *Restore) error { return file(r, "..") },
		"out of it":       func(r *Restore) error { return file(r, "../victim/file") },
		"down and out":    func(r *Restore) error { return errors.Join(r.Dir("d", dirAttr), file(r, "d/../../victim/new")) },
		"absolute":        func(r *Restore) error { return file(r, dir+"/victim/new") },
		"absolute dir":    func(r *Restore) error { return r.Dir("/", dirAttr) },
		"self":            func(r *Restore) error { return file(r, ".") },
		"no name":         func(r *Restore) error { return file(r, "") },
		"ends in slash":   func(r *Restore) error { return errors.Join(r.Dir("d", dirAttr), file(r, "d/")) },
		"two slashes":     func(r *Restore) error { return errors.Join(r.Dir("d", dirAttr), file(r, "d//f")) },
		"zero byte":       func(r *Restore) error { return file(r, "a\x00b") },
		"long name":       func(r *Restore) error { return file(r, long) },
		"long target":     func(r *Restore) error { return r.Link("l", strings.Repeat("t", 4096), fileAttr) },
		"empty target":    func(r *Restore) error { return r.Link("l", "", fileAttr) },
		"zero in target":  func(r *Restore) error { return r.Link("l", "a\x00b", fileAttr) },
		"no directory":    func(r *Restore) error { return file(r, "d/f") },
		"two roots":       func(r *Restore) error { return r.Dir("", dirAttr) },
		"twice":           func(r *Restore) error { return errors.Join(file(r, "f"), file(r, "f")) },
		"directory twice": func(r *Restore) error { return errors.Join(r.Dir("d", dirAttr), r.Dir("d", dirAttr)) },
		"link then file":  func(r *Restore) error { return errors.Join(r.Link("l", "../victim/new", fileAttr), file(r, "l")) },
		"link then dir":   func(r *Restore) error { return errors.Join(r.Link("l", "../victim", fileAttr), r.Dir("l", dirAttr)) },
		"through link":    func(r *Restore) error { return errors.Join(r.Link("l", dir+"/victim", fileAttr), file(r, "l/new")) },
		"through link in": func(r *Restore) error {
			return errors.Join(r.Dir("d", dirAttr), r.Link("l", "d", fileAttr), file(r, "l/f"))
		},
		"back into a dir":  func(r *Restore) error { return errors.Join(r.Dir("d", dirAttr), file(r, "e"), file(r, "d/f")) },
		"file as a dir":    func(r *Restore) error { return errors.Join(file(r, "f"), file(r, "f/g")) },
		"dir as a file":    func(r *Restore) error { return errors.Join(r.Dir("d", dirAttr), file(r, "d")) },
		"link over a file": func(r *Restore) error { return errors.Join(file(r, "f"), r.Link("f", "x", fileAttr)) },
	} {
		r, err := Create(dir+"/out", RestoreOptions{})
		must(t, err)
		must(t, r.Dir("", dirAttr))
		if err := build(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if err := r.Commit(); err == nil {
			t.Errorf("%s: committed", name)
		}
		onlyIn(t, dir, "victim")
		onlyIn(t, dir+"/victim", "file")
	}
}

func file(r *Restore, path string) error {
	w, err := r.File(path, fileAttr)
	if err != nil {
		return err
	}
	_, err = w.Write([]byte("hostile"))
	return errors.Join(err, w.Close())
}

// Someone who can write in the directory of OUT, or in the tree while it is
// built, cannot make the restore write elsewhere by putting links there.
func TestLinksPlantedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "victim/file", "mine")
	r, err := Create(dir+"/out", RestoreOptions{})
	must(t, err)
	stage := dir + "/" + r.stage.name
	must(t, r.Dir("", dirAttr))
	must(t, r.Dir("d", dirAttr))
	must(t, os.Rename(stage+"/d", stage+"/e"))
	must(t, os.Symlink(dir+"/victim", stage+"/d"))
	must(t, file(r, "d/file"))
	must(t, os.Symlink(dir+"/victim/file", stage+"/f"))
	isErr(t, file(r, "f"), fs.ErrExist)
	if err := r.Commit(); err == nil {
		t.Error("committed in spite of a failure")
	}
	onlyIn(t, dir, "victim")
	if got := describe(t, dir+"/victim")["file"]; !strings.HasSuffix(got, "mine") {
		t.Errorf("the file outside is now %q", got)
	}
}

func TestAbort(t *testing.T) {
	dir := openDir(t)
	must(t, os.Chmod(dir, 0o777))
	before := descriptors(t)
	asNobody(t, func() {
		r, err := Create(dir+"/out", RestoreOptions{})
		must(t, err)
		must(t, r.Dir("", dag.Attr{Mode: 0}))
		for _, path := range []string{"a", "a/b", "a/b/c", "d"} {
			must(t, r.Dir(path, dag.Attr{Mode: 0o400})) // cannot be emptied as they are
			must(t, file(r, path+"/f"))
		}
		w, err := r.File("d/unfinished", fileAttr)
		must(t, err)
		_, err = w.Write([]byte("x"))
		must(t, err)
		must(t, r.Abort())
		onlyIn(t, dir)
		w.Close()
		isErr(t, w.Close(), fs.ErrClosed)
		must(t, r.Abort())
		if err := r.Commit(); err == nil {
			t.Error("commit after abort")
		}
	})
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors open, before %d", after, before)
	}
}

func TestCommitRefuses(t *testing.T) {
	for name, build := range map[string]func(r *Restore){
		"no root": func(r *Restore) {},
		"file not closed": func(r *Restore) {
			r.Dir("", dirAttr)
			r.File("f", fileAttr)
		},
		"full disk": func(r *Restore) {
			r.Dir("", dirAttr)
			w, err := r.File("f", fileAttr)
			must(t, err)
			w.fd, err = unix.Open("/dev/full", unix.O_WRONLY, 0)
			must(t, err)
			_, err = w.Write([]byte("x"))
			isErr(t, err, unix.ENOSPC)
			_, again := w.Write([]byte("x"))
			isErr(t, again, unix.ENOSPC)
			isErr(t, w.Close(), unix.ENOSPC)
		},
	} {
		dir := t.TempDir()
		r, err := Create(dir+"/out", RestoreOptions{})
		must(t, err)
		build(r)
		if err := r.Commit(); err == nil {
			t.Errorf("%s: committed", name)
		}
		onlyIn(t, dir)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	write := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	content := func(want string, mode fs.FileMode) {
		t.Helper()
		got, err := os.ReadFile(dir + "/f")
		st, err2 := os.Lstat(dir + "/f")
		must(t, errors.Join(err, err2))
		if string(got) != want || st.Mode() != mode {
			t.Errorf("%q, mode %v", got, st.Mode())
		}
	}
	a := dag.Attr{Mode: 0o4751, Mtime: time.Unix(1, 0)}
	must(t, WriteFile(dir+"/f", a, RestoreOptions{}, write("one")))
	content("one", 0o751)
	isErr(t, WriteFile(dir+"/f", a, RestoreOptions{}, write("two")), ErrExists)
	content("one", 0o751)
	failed := errors.New("failed")
	fail := func(w io.Writer) error { return errors.Join(write("partial")(w), failed) }
	isErr(t, WriteFile(dir+"/f", a, RestoreOptions{Overwrite: true}, fail), failed)
	isErr(t, WriteFile(dir+"/g", a, RestoreOptions{}, fail), failed)
	content("one", 0o751)
	appears := func(w io.Writer) error { return os.WriteFile(dir+"/g", []byte("theirs"), 0o644) }
	isErr(t, WriteFile(dir+"/g", a, RestoreOptions{}, appears), ErrExists)
	onlyIn(t, dir, "f", "g")
	must(t, WriteFile(dir+"/f", a, RestoreOptions{Overwrite: true, SetID: true}, write("three")))
	content("three", 0o751|fs.ModeSetuid)

	// A link is replaced, not followed.
	must(t, os.Remove(dir+"/f"))
	must(t, os.Symlink("g", dir+"/f"))
	isErr(t, WriteFile(dir+"/f", a, RestoreOptions{}, write("x")), ErrExists)
	must(t, WriteFile(dir+"/f", fileAttr, RestoreOptions{Overwrite: true}, write("four")))
	content("four", 0o644)

	must(t, os.Mkdir(dir+"/d", 0o755))
	isErr(t, WriteFile(dir+"/d", a, RestoreOptions{Overwrite: true}, write("x")), unix.EISDIR)
	must(t, os.Remove(dir+"/d"))
	isErr(t, WriteFile(dir+"/none/f", a, RestoreOptions{}, write("x")), fs.ErrNotExist)

	// What is not a file is written to as it is.
	must(t, WriteFile("/dev/null", a, RestoreOptions{}, write("x")))
	isErr(t, WriteFile("/dev/full", a, RestoreOptions{}, write("x")), unix.ENOSPC)
	must(t, unix.Mkfifo(dir+"/pipe", 0o644))
	got := make(chan string)
	go func() {
		b, _ := os.ReadFile(dir + "/pipe")
		got <- string(b)
	}()
	must(t, WriteFile(dir+"/pipe", a, RestoreOptions{}, write("through a pipe")))
	if s := <-got; s != "through a pipe" {
		t.Errorf("the pipe gave %q", s)
	}
	onlyIn(t, dir, "f", "g", "pipe")
}

// While a file is written there is nothing that would be left of it if the process were
// killed, where the file system lets that be.
func TestWriteFileLeavesNothing(t *testing.T) {
	for _, named := range []bool{false, true} {
		dir := t.TempDir()
		s, err := newStage(dir+"/f", RestoreOptions{}, false)
		must(t, err)
		s.used = named
		f, err := s.nameless()
		must(t, err)
		names := 1
		if f != nil {
			must(t, f.Close())
			names = 0
		}
		write := func(w io.Writer) error {
			_, err := io.WriteString(w, "whole")
			entries, rerr := os.ReadDir(dir)
			if len(entries) != names {
				t.Errorf("there is %v", entries)
			}
			return errors.Join(err, rerr)
		}
		must(t, errors.Join(s.file(dag.Attr{Mode: 0o640, Mtime: time.Unix(1, 0)}, write), s.close()))
		onlyIn(t, dir, "f")
		got, err := os.ReadFile(dir + "/f")
		st, err2 := os.Stat(dir + "/f")
		must(t, errors.Join(err, err2))
		if string(got) != "whole" || st.Mode() != 0o640 || !st.ModTime().Equal(time.Unix(1, 0)) {
			t.Errorf("%q, %v", got, st)
		}
	}
}
