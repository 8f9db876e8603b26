package fstree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
)

const nobody = 65534

var strangeNames = []string{
	"a", "a.b", "a-b", "ab", "a b", "A", "\n", "new\nline", "\xff\xfe", "\xc3\x28", "é", "e\u0301", "🙂", "-rf", "*", "?[",
	`back\slash`, `"quoted"`, "\x01\x7f", "~", ".hidden", "..dots", "...", " ", "$HOME", strings.Repeat("n", 255),
}

func TestWalkOrder(t *testing.T) {
	root := t.TempDir()
	want := []string{"/"}
	for i, name := range strangeNames {
		put(t, root, name, "")
		want = append(want, name)
		d := fmt.Sprintf("d%d%s", i, name[:min(len(name), 250)])
		for _, below := range []string{"", "/", "-", ".", "0", "\xff"} {
			if below == "/" {
				put(t, root, d+"/x", "")
				want = append(want, d+"/x", d+"/")
			} else if below != "" {
				put(t, root, d+below, "")
				want = append(want, d+below)
			}
		}
	}
	slices.Sort(want[1:])
	entries, _ := walk(t, root, Options{})
	if diff := cmp.Diff(want, paths(entries)); diff != "" {
		t.Error(diff)
	}
}

func TestWalkEntries(t *testing.T) {
	root := t.TempDir()
	mtime := time.Unix(-12345, 678901234).UTC()
	put(t, root, "dir/file", "content")
	target := strings.Repeat("t/", 2047) + "t" // 4095 bytes
	must(t, os.Symlink(target, root+"/long"))
	must(t, os.Symlink("dir", root+"/todir"))
	must(t, os.Symlink("todir", root+"/loop"))
	must(t, os.Mkdir(root+"/empty", 0o700))
	must(t, os.Chmod(root+"/dir/file", 0o751|os.ModeSetuid|os.ModeSticky))
	must(t, os.Chmod(root+"/empty", 0o1777&0o777|os.ModeSticky))
	must(t, os.Chmod(root, 0o755))
	for _, name := range []string{"/dir/file", "/todir", "/long", "/loop", "/dir", "/empty", ""} {
		ts := []unix.Timespec{{}, unix.NsecToTimespec(mtime.UnixNano())}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, root+name, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	attr := func(mode uint32) dag.Attr { return dag.Attr{Mode: mode, Mtime: mtime} }
	want := []Entry{
		{Path: "", Kind: dag.KindDir, Attr: attr(0o755)},
		{Path: "dir", Kind: dag.KindDir, Attr: attr(0o755)},
		{Path: "dir/file", Kind: dag.KindFile, Attr: attr(0o5751), Size: 7},
		{Path: "empty", Kind: dag.KindDir, Attr: attr(0o1777)},
		{Path: "long", Kind: dag.KindLink, Attr: attr(0o777), Target: target},
		{Path: "loop", Kind: dag.KindLink, Attr: attr(0o777), Target: "todir"},
		{Path: "todir", Kind: dag.KindLink, Attr: attr(0o777), Target: "dir"},
	}
	for _, times := range []bool{true, false} {
		got, skipped := walk(t, root, Options{Times: times})
		if len(got) != len(want) || len(skipped) != 0 {
			t.Fatalf("%d entries, skipped %v", len(got), skipped)
		}
		for i, e := range got {
			if e.Stamp.Mtime != mtime.UnixNano() || e.Stamp.Ino == 0 || e.Stamp.Ctime == 0 {
				t.Errorf("%q: stamp %+v", e.Path, e.Stamp)
			}
			e.Stamp = Stamp{}
			w := want[i]
			if !times {
				w.Attr.Mtime = time.Time{}
			}
			if diff := cmp.Diff(w, *e); diff != "" {
				t.Error(diff)
			}
		}
	}
}

func TestSpecialFiles(t *testing.T) {
	root := t.TempDir()
	put(t, root, "file", "")
	want := []string{"d/pipe", "socket"}
	must(t, os.Mkdir(root+"/d", 0o755))
	must(t, unix.Mkfifo(root+"/d/pipe", 0o644))
	must(t, unix.Mknod(root+"/socket", unix.S_IFSOCK|0o644, 0))
	if unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil { // root only
		want = append(want, "null")
	}
	entries, skipped := walk(t, root, Options{})
	if diff := cmp.Diff([]string{"/", "d/", "file"}, paths(entries)); diff != "" {
		t.Error(diff)
	}
	if len(skipped) != len(want) {
		t.Errorf("skipped %v, want %v", skipped, want)
	}
	for _, path := range want {
		isErr(t, skipped[path], ErrSpecial)
	}
	for _, path := range []string{root + "/d/pipe", root + "/socket", "/dev/null"} {
		isErr(t, walkErr(path, Options{}), ErrSpecial)
	}
}

func TestRoot(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "tree/file", "content")
	for link, target := range map[string]string{
		"totree": "tree", "tofile": "totree/file", "loop": "loop2", "loop2": "loop", "dangling": "nothing",
	} {
		must(t, os.Symlink(target, dir+"/"+link))
	}
	entries, _ := walk(t, dir+"/totree", Options{})
	if diff := cmp.Diff([]string{"/", "file"}, paths(entries)); diff != "" {
		t.Error(diff)
	}
	for _, file := range []string{"/tree/file", "/tofile"} {
		tree := open(t, dir+file, Options{})
		entries, _ := walk(t, dir+file, Options{})
		if len(entries) != 1 || entries[0].Path != "" || entries[0].Kind != dag.KindFile || entries[0].Size != 7 {
			t.Fatalf("%s: %+v", file, entries)
		}
		buf := make([]byte, 100)
		n, err := tree.Read(entries[0], buf)
		if string(buf[:n]) != "content" || err != nil {
			t.Errorf("%s: %q, %v", file, buf[:n], err)
		}
	}
	isErr(t, walkErr(dir+"/loop", Options{}), unix.ELOOP)
	isErr(t, walkErr(dir+"/dangling", Options{}), fs.ErrNotExist)
	isErr(t, walkErr(dir+"/none", Options{SkipUnreadable: true}), fs.ErrNotExist)
	if err := walkErr(dir, Options{Exclude: []string{"["}}); err == nil {
		t.Error("a malformed pattern is accepted")
	}
}

func TestWalkExcludes(t *testing.T) {
	root := t.TempDir()
	for _, path := range []string{"a/x.o", "a/x.c", "b/.git/config", "b/.gitignore", "build/out", "c/build/out"} {
		put(t, root, path, "")
	}
	entries, skipped := walk(t, root, Options{Exclude: []string{"*.o", ".git/", "/build"}})
	want := []string{"/", "a/", "a/x.c", "b/", "b/.gitignore", "c/", "c/build/", "c/build/out"}
	if diff := cmp.Diff(want, paths(entries)); diff != "" || len(skipped) != 0 {
		t.Error(diff, skipped)
	}
}

// deepTree makes depth directories in one another, and a file in the last. No
// path to it is short enough for the kernel, so it has to be done in steps.
func deepTree(t *testing.T, root, name string, depth int) {
	t.Helper()
	dir, err := os.OpenRoot(root)
	must(t, err)
	for range depth {
		must(t, dir.Mkdir(name, 0o755))
		next, err := dir.OpenRoot(name)
		must(t, err)
		dir.Close()
		dir = next
	}
	must(t, dir.WriteFile("ff", []byte("deep"), 0o644))
	dir.Close()
}

func TestDeepTrees(t *testing.T) {
	for name, depth := range map[string]int{"d": 2047, strings.Repeat("n", 254): 16} {
		root := t.TempDir()
		deepTree(t, root, name, depth)
		tree := open(t, root, Options{})
		var last *Entry
		entries := 0
		for e, err := range tree.Walk(t.Context()) {
			must(t, err)
			last = e
			entries++
		}
		if entries != depth+2 || len(last.Path)+len(root) < unix.PathMax {
			t.Fatalf("%d entries, the last path has %d bytes", entries, len(last.Path))
		}
		buf := make([]byte, 5)
		n, err := tree.Read(last, buf)
		if string(buf[:n]) != "deep" || err != nil {
			t.Errorf("read %q, %v", buf[:n], err)
		}
	}
}

func TestPathTooLong(t *testing.T) {
	root := t.TempDir()
	deepTree(t, root, strings.Repeat("n", 255), 17)
	put(t, root, "zz", "")
	isErr(t, walkErr(root, Options{}), dag.ErrPath)
	entries, skipped := walk(t, root, Options{SkipUnreadable: true})
	if len(entries) != 1+16+1 || len(skipped) != 1 {
		t.Errorf("%d entries, skipped %v", len(entries), skipped)
	}
}

func TestUnreadable(t *testing.T) {
	root := openDir(t)
	put(t, root, "dir/file", "")
	put(t, root, "file", "")
	put(t, root, "nosearch/file", "")
	for path, mode := range map[string]os.FileMode{"/dir": 0o300, "/file": 0, "/nosearch": 0o444} {
		must(t, os.Chmod(root+path, mode))
		t.Cleanup(func() { os.Chmod(root+path, 0o700) })
	}
	asNobody(t, func() {
		err := walkErr(root, Options{})
		isErr(t, err, fs.ErrPermission)
		if !strings.Contains(err.Error(), "exclude it") || !strings.Contains(err.Error(), root+"/dir") {
			t.Errorf("not helpful: %v", err)
		}
		entries, skipped := walk(t, root, Options{SkipUnreadable: true})
		if diff := cmp.Diff([]string{"/", "file", "nosearch/"}, paths(entries)); diff != "" {
			t.Error(diff)
		}
		if len(skipped) != 2 {
			t.Errorf("skipped %v", skipped)
		}
		isErr(t, skipped["dir"], fs.ErrPermission)
		isErr(t, skipped["nosearch/file"], fs.ErrPermission)

		tree := open(t, root, Options{SkipUnreadable: true})
		_, err = tree.Read(entries[1], make([]byte, 10))
		isErr(t, err, fs.ErrPermission)
		must(t, tree.Skip("file", err))
		isErr(t, walkErr(root+"/dir", Options{SkipUnreadable: true}), fs.ErrPermission)
	})
}

func TestSkip(t *testing.T) {
	failed := errors.New("failed")
	strict, lenient := &Tree{}, &Tree{o: Options{SkipUnreadable: true}}
	isErr(t, strict.Skip("a", failed), failed)
	must(t, lenient.Skip("a", failed))
	isErr(t, lenient.Skip("", failed), failed)
	for _, err := range []error{context.Canceled, unix.EMFILE, fmt.Errorf("open: %w", unix.ENFILE)} {
		isErr(t, lenient.Skip("a", err), err)
	}
}

func TestWalkStops(t *testing.T) {
	root := t.TempDir()
	for i := range 10 {
		put(t, root, fmt.Sprintf("%d/file", i), "")
	}
	tree := open(t, root, Options{})
	before := descriptors(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, last = range tree.Walk(ctx) {
		cancel()
	}
	isErr(t, last, context.Canceled)
	for range tree.Walk(t.Context()) {
		break
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors open, before %d", after, before)
	}
}

// The tree changes after a directory was listed, and before the walk comes to
// what is in it.
func TestTreeChangesDuringWalk(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "secret", "")
	for name, change := range map[string]func(dir string) error{
		"dir becomes a link": func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/d"), os.Symlink(outside, dir+"/d"))
		},
		"dir becomes a pipe": func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/d"), unix.Mkfifo(dir+"/d", 0o644))
		},
		"dir is removed":  func(dir string) error { return os.RemoveAll(dir + "/d") },
		"file is removed": func(dir string) error { return os.Remove(dir + "/f") },
		"file becomes a link": func(dir string) error {
			return errors.Join(os.Remove(dir+"/f"), os.Symlink("d", dir+"/f"))
		},
		"link becomes a file": func(dir string) error {
			return errors.Join(os.Remove(dir+"/l"), os.WriteFile(dir+"/l", nil, 0o644))
		},
	} {
		for _, skip := range []bool{false, true} {
			root := t.TempDir()
			put(t, root, "d/file", "")
			put(t, root, "f", "")
			must(t, os.Symlink("f", root+"/l"))
			var last error
			var skipped []error
			o := Options{SkipUnreadable: skip, Skipped: func(_ string, why error) { skipped = append(skipped, why) }}
			for e, err := range open(t, root, o).Walk(t.Context()) {
				if last = err; err == nil && e.Path == "" {
					must(t, change(root))
				}
				if err == nil && e.Path == "d/secret" {
					t.Errorf("%s: the walk left the tree", name)
				}
			}
			switch {
			case !skip:
				isErr(t, last, ErrChanged)
			case last != nil || len(skipped) != 1:
				t.Errorf("%s: %v, skipped %v", name, last, skipped)
			default:
				isErr(t, skipped[0], ErrChanged)
			}
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(d)
}

// A tree whose names do not fit into memory is walked as one whose names do.
func TestWalkSpills(t *testing.T) {
	root := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 6))
	name := func() string {
		b := make([]byte, 1+rng.IntN(60))
		for i := range b {
			b[i] = "ab-.0\xff\n"[rng.IntN(7)]
		}
		return string(b)
	}
	dir := root
	for range 4 { // of large directories inside of one another
		for range 600 {
			path := filepath.Join(dir, name())
			if rng.IntN(10) == 0 {
				os.Mkdir(path, 0o755) // may exist: there is no shortage of names
			} else {
				os.Symlink("x", path)
			}
		}
		dir = filepath.Join(dir, "a-deep")
		must(t, os.MkdirAll(dir, 0o755))
	}
	walk := func(o Options) (paths []string) {
		for e, err := range open(t, root, o).Walk(t.Context()) {
			must(t, err)
			paths = append(paths, fmt.Sprint(e.Kind, e.Path))
		}
		return paths
	}
	want := walk(Options{})
	if len(want) < 2000 {
		t.Fatalf("only %d entries", len(want))
	}
	fds := descriptors(t)
	files := 0
	o := Options{Sort: extsort.Options{Memory: 20_000, Scratch: func() (extsort.File, error) {
		files++
		return scratchFile(root)
	}}}
	if diff := cmp.Diff(want, walk(o)); diff != "" {
		t.Error(diff)
	}
	if got := descriptors(t); files != 1 || got > fds+1 { // the tree itself is open until the end
		t.Errorf("%d files were made; %d descriptors, there were %d", files, got, fds)
	}
	// A full disk is not something that can be skipped.
	o.SkipUnreadable = true
	o.Sort.Scratch = func() (extsort.File, error) { return nil, unix.ENOSPC }
	var last error
	for _, err := range open(t, root, o).Walk(t.Context()) {
		last = err
	}
	isErr(t, last, extsort.ErrScratch)
	isErr(t, last, unix.ENOSPC)
}

func TestScratch(t *testing.T) {
	dir := t.TempDir()
	for _, create := range []func(string) (*os.File, error){scratchFile, namedScratch} {
		f, err := create(dir)
		must(t, err)
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			t.Errorf("%v in the directory, %v", names, err)
		}
		_, err = f.WriteAt([]byte("abc"), 100_000)
		must(t, err)
		b := make([]byte, 4)
		if n, err := f.ReadAt(b, 99_999); n != 4 || err != nil || string(b) != "\x00abc" {
			t.Errorf("read %q, %d, %v", b, n, err)
		}
		must(t, f.Close())
		if _, err := create(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none") {
			t.Errorf("without a directory: %v", err)
		}
	}
}
