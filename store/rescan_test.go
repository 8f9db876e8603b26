package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store"
)

// settled is a clock by which all files of a test were left alone for long.
func settled() time.Time { return time.Now().Add(time.Hour) }

// cached are options with a place for caches, and that clock.
func cached(t *testing.T) store.Options {
	return store.Options{Now: settled, FileCache: filepath.Join(t.TempDir(), "made", "when needed")}
}

// scanTree is a tree of small and large files that is worth a cache.
func scanTree(t *testing.T) string {
	files := []file{
		{name: "large", data: random(1, 3<<20)}, {name: "deep/er/and/deeper/file", data: text(2, 5000)},
		{name: "empty"}, {name: "none/"}, {name: "link", link: "large"},
	}
	for i := range 300 {
		files = append(files, file{name: fmt.Sprintf("dir-%d/%03d", i%7, i), data: text(uint64(i), i*20)})
	}
	return makeTree(t, files...)
}

// putTree puts a tree, of whose bytes so many are not to be read, and compares what is
// stored with what is on disk.
func (h *harness) putTree(root string, read int64) store.PutResult {
	h.t.Helper()
	res := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	if got := int64(res.Size) - int64(res.Unread); got != read {
		h.t.Errorf("%d bytes of %d were read, want %d", got, res.Size, read)
	}
	h.sameAsDisk(root)
	return res
}

func (h *harness) sameAsDisk(root string) {
	h.t.Helper()
	stored := h.tree("tree")
	files := 0
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err != nil || !fi.Mode().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		rel := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		if _, content, _ := strings.Cut(strings.TrimPrefix(stored[rel], "file "), " "); content != string(b) {
			h.t.Errorf("%s is stored with other bytes", rel)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for path, what := range stored {
		if strings.HasPrefix(what, "file ") {
			if files--; files < 0 {
				h.t.Errorf("there are more files stored than on disk, %s for one", path)
				return
			}
		}
	}
}

// rewrite changes what a file holds until the file system's clock has gone on, and sets
// its modification time back.
func rewrite(t *testing.T, path string, b []byte) {
	t.Helper()
	stat := func() (st unix.Stat_t) {
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	before := stat()
	for stat().Ctim == before.Ctim {
		err := os.WriteFile(path, b, 0o600)
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{before.Atim, before.Mtim}, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if after := stat(); after.Mtim != before.Mtim || after.Size != before.Size || after.Ino != before.Ino {
		t.Fatalf("the change shows in more than the time of change: %+v, %+v", before, after)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// What changed in a tree is read, by whatever it shows; what did not is not.
func TestRescan(t *testing.T) {
	h := newHarness(t, cached(t))
	root := scanTree(t)
	at := func(name string) string { return filepath.Join(root, name) }
	first := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	if first.Unread != 0 {
		t.Errorf("%d bytes unread of what was never put", first.Unread)
	}
	for range 2 {
		if res := h.putTree(root, 0); !res.Unchanged || res.CID != first.CID || res.Entry != first.Entry {
			t.Errorf("the same again: %+v, was %+v", res, first)
		}
		h.reopen() // another process
	}
	// All is read when that is asked for, and then remembered.
	if res := h.mustPut(store.Input{Name: "tree", Path: root, Rescan: true})[0]; res.Unread != 0 || !res.Unchanged {
		t.Errorf("rescan: %+v", res)
	}
	if res := h.mustPut(store.Input{Name: "tree", Path: root, Heal: true})[0]; res.Unread != 0 {
		t.Errorf("heal: %+v", res)
	}
	h.putTree(root, 0)

	// The same size and modification time, but not the same time of change.
	rewrite(t, at("large"), random(9, 3<<20))
	rewrite(t, at("dir-3/003"), bytes.Repeat([]byte("x"), 60))
	if res := h.putTree(root, 3<<20+60); res.Unchanged {
		t.Error("a change with the modification time set back was not seen")
	}
	h.putTree(root, 0)

	// Another file in its place, with the same times as far as one can set them.
	fi, err := os.Stat(at("large"))
	must(t, err, os.WriteFile(at("other"), random(10, 3<<20), 0o644), os.Chtimes(at("other"), fi.ModTime(), fi.ModTime()),
		os.Rename(at("other"), at("large")))
	h.putTree(root, 3<<20)

	// Moved to another name a file is read again, though its bytes are stored.
	must(t, os.Rename(at("large"), at("zarge")), os.Rename(at("dir-0/007"), at("dir-0/0007")))
	if res := h.putTree(root, 3<<20+7*20); res.NewBytes != 0 {
		t.Errorf("%d bytes of files that were renamed are new", res.NewBytes)
	}
	// A directory that was moved, one that is gone, new files before and behind the others.
	must(t, os.Rename(at("dir-5"), at("dir-50")), os.RemoveAll(at("dir-1")),
		os.WriteFile(at("!"), []byte("first"), 0o600), os.WriteFile(at("~"), []byte("last"), 0o600))
	moved := int64(0)
	for i := range 300 {
		if i%7 == 5 {
			moved += int64(i * 20)
		}
	}
	h.putTree(root, moved+5+4)
	// A mode is recorded without the bytes; the time of change tells of it, so they are read.
	must(t, os.Chmod(at("zarge"), 0o755))
	h.putTree(root, 3<<20)
	h.putTree(root, 0)

	// A file in the place of a directory, and the other way round.
	must(t, os.RemoveAll(at("dir-2")), os.WriteFile(at("dir-2"), []byte("file"), 0o600), os.Remove(at("!")), os.Mkdir(at("!"), 0o755),
		os.WriteFile(at("!/in"), []byte("in"), 0o600))
	h.putTree(root, 6)
	h.putTree(root, 0)
	h.check()
	h.putTree(root, 0)
}

// A file that had changed within two seconds before it was put may change again without
// a trace, so it is read the next time.
func TestRescanRacy(t *testing.T) {
	var now time.Time
	h := newHarness(t, store.Options{Now: func() time.Time { return now }, FileCache: cached(t).FileCache})
	root := scanTree(t)
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(root, "large"), &st))
	// As if the put came right behind the last write to one of the files.
	now = time.Unix(0, st.Ctim.Nano()).Add(1999 * time.Millisecond)
	first := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	res := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	if left := res.Size - res.Unread; left < 3<<20 {
		t.Errorf("only %d bytes were read again", left)
	}
	if !res.Unchanged || res.CID != first.CID {
		t.Errorf("%+v, was %+v", res, first)
	}
	now = settled()
	h.mustPut(store.Input{Name: "tree", Path: root})
	h.putTree(root, 0)
}

// cacheOf returns the file cache of a store that has one.
func (h *harness) cacheOf() string {
	h.t.Helper()
	names, err := filepath.Glob(filepath.Join(h.opt.FileCache, "*"))
	if err != nil || len(names) != 1 {
		h.t.Fatalf("file caches: %q, %v", names, err)
	}
	return names[0]
}

// Whatever becomes of the cache, the dataset is the same and nothing fails.
func TestRescanCacheLost(t *testing.T) {
	h := newHarness(t, cached(t))
	root := scanTree(t)
	first := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	cache := h.cacheOf()
	sound, err := os.ReadFile(cache)
	must(t, err)
	edit := func(change func(b []byte) []byte) func() error {
		return func() error { return os.WriteFile(cache, change(bytes.Clone(sound)), 0o600) }
	}
	for name, lose := range map[string]func() error{
		"removed":           func() error { return os.Remove(cache) },
		"directory removed": func() error { return os.RemoveAll(filepath.Dir(cache)) },
		"empty":             edit(func([]byte) []byte { return nil }),
		"cut short":         edit(func(b []byte) []byte { return b[:len(b)/2] }),
		"of another kind":   edit(func([]byte) []byte { return random(1, 100_000) }),
		"damaged":           edit(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }),
		"another version":   edit(func(b []byte) []byte { return bytes.Replace(b, []byte("cache 1\n"), []byte("cache 2\n"), 1) }),
		"a directory":       func() error { return errors.Join(os.Remove(cache), os.MkdirAll(filepath.Join(cache, "x"), 0o700)) },
		// A process that was killed while it wrote leaves a part of a new one.
		"left by a crash": func() error { return os.WriteFile(cache+".new-1", sound[:len(sound)/2], 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.RemoveAll(cache), os.MkdirAll(filepath.Dir(cache), 0o700), os.WriteFile(cache, sound, 0o600))
			must(t, lose())
			res := h.mustPut(store.Input{Name: "tree", Path: root})[0]
			if res.CID != first.CID || !res.Unchanged || (res.Unread > 0) != (name == "left by a crash") {
				t.Errorf("%+v", res)
			}
			h.sameAsDisk(root)
			if name == "a directory" { // it is in the way
				must(t, os.RemoveAll(cache))
				return
			}
			h.putTree(root, 0)
			os.Remove(cache + ".new-1")
		})
	}
	h.check()
}

// Chunks that are not stored any more are read again, and stored.
func TestRescanLostChunks(t *testing.T) {
	h := newHarness(t, store.Options{Now: settled, FileCache: cached(t).FileCache, FrameSize: 64 << 10})
	root := scanTree(t)
	first := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	h.close()
	pack := filepath.Join(h.dir, "packs", "00000001.pack")
	must(t, os.Truncate(pack, 50_000)) // in the middle of the small files
	h.open()
	res := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	if res.CID != first.CID || res.Unread == 0 || res.Size-res.Unread <= 3<<20 || res.NewBytes != res.Size-res.Unread {
		t.Errorf("%+v", res)
	}
	h.sameAsDisk(root)
	h.putTree(root, 0)
}

// A cache means nothing to a store that has not the chunks.
func TestRescanOtherStore(t *testing.T) {
	a, b := newHarness(t, cached(t)), newHarness(t, cached(t))
	root := scanTree(t)
	first := a.mustPut(store.Input{Name: "tree", Path: root})[0]
	must(t, os.CopyFS(b.opt.FileCache, os.DirFS(a.opt.FileCache)))
	if res := b.putTree(root, int64(first.Size)); res.CID != first.CID {
		t.Errorf("%+v", res)
	}
	b.putTree(root, 0)
	b.check()
}

// A put that fails leaves the cache as it was, and one that leaves something out records
// the rest.
func TestRescanAfterFailure(t *testing.T) {
	h := newHarness(t, cached(t))
	root := scanTree(t)
	h.mustPut(store.Input{Name: "tree", Path: root})
	before, err := os.ReadFile(h.cacheOf())
	must(t, err)
	must(t, os.Mkdir(filepath.Join(root, strings.Repeat("n", 255)), 0o755))
	long := filepath.Join(root, strings.Repeat("n", 255))
	deep, err := os.OpenRoot(long)
	must(t, err)
	for range 16 { // a path that is too long to be recorded
		must(t, deep.Mkdir(strings.Repeat("n", 255), 0o755))
		next, err := deep.OpenRoot(strings.Repeat("n", 255))
		must(t, err, deep.Close())
		deep = next
	}
	must(t, deep.Close())
	if _, err := h.put(store.Input{Name: "tree", Path: root}); err == nil {
		t.Error("a path of more than 4096 bytes was put")
	}
	if after, err := os.ReadFile(h.cacheOf()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the cache has changed: %v", err)
	}
	in := store.Input{Name: "tree", Path: root, SkipUnreadable: true}
	if res := h.mustPut(in)[0]; len(res.Skipped) != 1 || res.Unread != res.Size {
		t.Errorf("%+v", res)
	}
}

// Puts of one tree at a time, into one store, leave one sound cache.
func TestRescanTogether(t *testing.T) {
	h := newHarness(t, cached(t))
	root := scanTree(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if _, err := h.s.Put(h.ctx, []store.Input{{Name: fmt.Sprint("tree-", i), Path: root}}, store.PutOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.cacheOf()
	h.putTree(root, 0)
}

// A directory of many files and a deep one.
func TestRescanShapes(t *testing.T) {
	h := newHarness(t, store.Options{Now: settled, FileCache: cached(t).FileCache, SortMemory: 64 << 10})
	n := 6_000
	if testing.Short() {
		n = 2_000
	}
	root := t.TempDir()
	for i := range n {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("%x", i*7919)), []byte{byte(i), byte(i >> 8)}, 0o600))
	}
	dir := root
	for i := range 200 {
		dir = filepath.Join(dir, "d")
		must(t, os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "f"), text(uint64(i), 5000), 0o600))
	}
	first := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	if res := h.putTree(root, 0); !res.Unchanged || res.CID != first.CID {
		t.Errorf("%+v, was %+v", res, first)
	}
}
