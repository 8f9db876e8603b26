package ingest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store/filecache"
	"github.com/koii-network/scale/store/ingest"
)

// newPast returns a directory of caches, to which all files have settled.
func newPast(t *testing.T) filecache.Dir {
	return filecache.Dir{Path: t.TempDir(), Now: func() time.Time { return time.Now().Add(time.Hour) }}
}

// again runs a tree with its cache, which it replaces.
func again(t *testing.T, d filecache.Dir, n *node, in ingest.Input) ingest.Result {
	t.Helper()
	in.Profile = profile(t, dag.DefaultProfile)
	w := d.Begin(in.Path, in.Profile.Name, false)
	defer w.Close()
	in.Files = w.Past
	n.manifest = nil
	out := n.output()
	out.Files = w.Next
	last := ingest.Progress{}
	out.Progress = func(p ingest.Progress) { last = p }
	res, err := ingest.NewPools(ingest.PoolOptions{}).Run(t.Context(), &in, out)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Skipped) == 0 && (last.Bytes != res.Tree.Size || last.Files != res.Tree.Files || last.Unread != res.Unread) {
		t.Errorf("progress at the end: %+v of %+v", last, res)
	}
	if err := w.Next.Commit(); err != nil {
		t.Fatal(err)
	}
	return res
}

// opens notes which files below root are opened, until the function that it returns is
// called, which gives their paths.
func opens(t *testing.T, root string) func() []string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[int32]string{}
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		wd, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN)
		dirs[int32(wd)] = path
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() (paths []string) {
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, buf)
			if err == unix.EAGAIN {
				slices.Sort(paths)
				return slices.Compact(paths)
			}
			if err != nil {
				t.Fatal(err)
			}
			for b := buf[:n]; len(b) > 0; {
				wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
				size := binary.NativeEndian.Uint32(b[12:])
				name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:][:size], []byte{0})
				b = b[unix.SizeofInotifyEvent+size:]
				if mask&unix.IN_Q_OVERFLOW != 0 {
					t.Fatal("too many files were opened to count them")
				}
				if mask&unix.IN_ISDIR == 0 {
					rel, err := filepath.Rel(root, filepath.Join(dirs[wd], string(name)))
					if err != nil {
						t.Fatal(err)
					}
					paths = append(paths, rel)
				}
			}
		}
	}
}

func sameTree(t *testing.T, want, got ingest.Result) {
	t.Helper()
	if got.Tree != want.Tree {
		t.Errorf("got %+v, want %+v", got.Tree, want.Tree)
	}
}

// A tree that did not change gives the same dataset, and no file is opened.
func TestUnchanged(t *testing.T) {
	root, d, n := makeTree(t), newPast(t), newNode(t)
	want := again(t, d, n, ingest.Input{Path: root})
	if want.Unread != 0 {
		t.Errorf("%d bytes unread though nothing was known", want.Unread)
	}
	manifest := n.manifest
	n.onAdd = func(bool) { t.Error("a chunk was handed over") }
	for range 2 { // from what was read, and from what was not
		opened := opens(t, root)
		got := again(t, d, n, ingest.Input{Path: root})
		if paths := opened(); len(paths) != 0 {
			t.Errorf("opened %q", paths)
		}
		if sameTree(t, want, got); got.Unread != want.Tree.Size {
			t.Errorf("%d bytes of %d unread", got.Unread, want.Tree.Size)
		}
		if diff := cmp.Diff(manifest, n.manifest); diff != "" {
			t.Error(diff)
		}
	}
	// Without its bytes a file can have another time or mode recorded.
	timed := again(t, d, n, ingest.Input{Path: root, Times: true})
	if timed.Unread != want.Tree.Size || timed.Tree.Root == want.Tree.Root || timed.Tree.Commitment != want.Tree.Commitment {
		t.Errorf("with times: %+v", timed)
	}
	// Some of it is left out, and the rest is unchanged still.
	opened := opens(t, root)
	part := again(t, d, n, ingest.Input{Path: root, Exclude: []string{"large/"}})
	if paths := opened(); len(paths) != 0 || part.Unread != part.Tree.Size || part.Tree.Files != 1500 {
		t.Errorf("a part: %+v, opened %q", part, paths)
	}
}

// A tree that is a file.
func TestUnchangedFile(t *testing.T) {
	for _, size := range []int{1 << 20, 9<<20 + 1} {
		root, d, n := filepath.Join(t.TempDir(), "file"), newPast(t), newNode(t)
		if err := os.WriteFile(root, random(1, size), 0o600); err != nil {
			t.Fatal(err)
		}
		want := again(t, d, n, ingest.Input{Path: root})
		got := again(t, d, n, ingest.Input{Path: root})
		if sameTree(t, want, got); got.Unread != uint64(size) {
			t.Errorf("%d bytes unread", got.Unread)
		}
	}
}

// A file of which a chunk is not stored is read, and no other.
func TestUnchangedMissing(t *testing.T) {
	root, d, n := makeTree(t), newPast(t), newNode(t)
	want := again(t, d, n, ingest.Input{Path: root})
	manifest := slices.Clone(n.manifest)
	lost := []string{"large/2", "large/3", "large/5", "small/0/7", "small/3/1417"}
	size := uint64(0)
	for _, e := range n.manifest {
		if at := slices.Index(lost, e.Path); at >= 0 {
			c := e.Chunks[at*(len(e.Chunks)-1)/(len(lost)-1)] // the first, the last, one between
			delete(n.chunks, c.Digest)
			size += uint64(len(readFile(t, filepath.Join(root, e.Path))))
		}
	}
	opened := opens(t, root)
	got := again(t, d, n, ingest.Input{Path: root})
	if diff := cmp.Diff(lost, opened()); diff != "" {
		t.Errorf("opened: %s", diff)
	}
	if sameTree(t, want, got); got.Unread != want.Tree.Size-size {
		t.Errorf("%d bytes of %d unread, %d are of files that had lost something", got.Unread, want.Tree.Size, size)
	}
	if diff := cmp.Diff(manifest, n.manifest); diff != "" {
		t.Error(diff)
	}
	for _, e := range n.manifest {
		if e.Kind == dag.KindFile && !bytes.Equal(n.bytes(e), readFile(t, filepath.Join(root, e.Path))) {
			t.Errorf("%s has other bytes", e.Path)
		}
	}
	got = again(t, d, n, ingest.Input{Path: root})
	if sameTree(t, want, got); got.Unread != want.Tree.Size {
		t.Errorf("then %d bytes unread", got.Unread)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A file of more chunks than a slab takes. Where its row goes wrong, early or late, the
// file is read: a chunk that is not stored, or a row that no run would have recorded.
func TestUnchangedManyChunks(t *testing.T) {
	p := profile(t, dag.DefaultProfile)
	least, most := uint32(p.Splitter().Min()), uint32(p.Splitter().Max())
	const count = 6500
	size := int64(count) * int64(least)
	root := t.TempDir()
	for _, name := range []string{"before", "sparse", "then"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing but zeros: truncated to nothing and back.
	if err := errors.Join(os.Truncate(filepath.Join(root, "sparse"), 0), os.Truncate(filepath.Join(root, "sparse"), size)); err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	want := again(t, newPast(t), n, ingest.Input{Path: root})
	manifest := n.manifest
	zeros := func(size uint32) ingest.Chunk { return ingest.Chunk{Digest: digest(make([]byte, size)), Size: size} }
	whole := zeros(least)
	for _, size := range []uint32{least - 1, least, most + 1} {
		n.chunks[zeros(size).Digest] = make([]byte, size)
	}
	places := []int{0, 3072, 6490}
	if testing.Short() {
		places = places[1:2]
	}
	for name, bad := range map[string]ingest.Chunk{
		"sound": zeros(least), "not stored": {Digest: dag.Digest{1}, Size: least},
		"too small": zeros(least - 1), "too large": zeros(most + 1), "cut short": {},
	} {
		for _, at := range places {
			d := newPast(t)
			w := d.Begin(root, p.Name, true)
			for _, e := range entriesOf(t, root) {
				w.Next.Begin(e.Path, e.Stamp)
				left := int64(1)
				if e.Path == "sparse" {
					left = size
				}
				for i := 0; left > 0; i++ {
					c := whole
					if i == at {
						c = bad
					} else if left < int64(least) {
						c = zeros(uint32(left))
					}
					if c.Size == 0 || left == 1 {
						break
					}
					w.Next.Chunk(c.Digest, c.Size)
					left -= int64(c.Size)
				}
				w.Next.End(left == 0)
			}
			if err := w.Next.Commit(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			res := again(t, d, n, ingest.Input{Path: root})
			if name != "sound" {
				if sameTree(t, want, res); res.Unread != 0 {
					t.Errorf("%s at %d: %d bytes unread", name, at, res.Unread)
				}
				if !reflect.DeepEqual(manifest, n.manifest) {
					t.Errorf("%s at %d: another manifest", name, at)
				}
			} else if res.Unread != uint64(size) || res.Tree.Size != want.Tree.Size || res.Tree.Chunks != count+2 || len(n.manifest[2].Chunks) != count {
				t.Errorf("%s: %d bytes unread, %+v", name, res.Unread, res.Tree)
			}
		}
	}
}

// entriesOf returns the files of a tree as a walk gives them.
func entriesOf(t *testing.T, root string) (files []*fstree.Entry) {
	t.Helper()
	tree, err := fstree.Open(root, fstree.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for e, err := range tree.Walk(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == dag.KindFile {
			files = append(files, e)
		}
	}
	return files
}

// A small file whose row has chunks of sizes that no run gives is read.
func TestUnchangedBadSizes(t *testing.T) {
	root, d, n := makeTree(t), newPast(t), newNode(t)
	want := again(t, d, n, ingest.Input{Path: root})
	w := d.Begin(root, dag.DefaultProfile, true)
	defer w.Close()
	bad := ingest.Chunk{Digest: digest([]byte{0}), Size: 1}
	n.chunks[bad.Digest] = []byte{0}
	for _, e := range entriesOf(t, root) {
		w.Next.Begin(e.Path, e.Stamp)
		rest := make([]byte, max(e.Size-1, 1))
		n.chunks[digest(rest)] = rest
		w.Next.Chunk(bad.Digest, bad.Size)
		w.Next.Chunk(digest(rest), uint32(len(rest)))
		w.Next.End(e.Size > 1)
	}
	if err := w.Next.Commit(); err != nil {
		t.Fatal(err)
	}
	got := again(t, d, n, ingest.Input{Path: root})
	if sameTree(t, want, got); got.Unread != 0 {
		t.Errorf("%d bytes unread", got.Unread)
	}
}

// A file that changes while it is read is not recorded.
func TestChangingIsNotRecorded(t *testing.T) {
	root, d, n := makeTree(t), newPast(t), newNode(t)
	path := filepath.Join(root, "large/5") // of three slabs
	find := func() fstree.Stamp {
		files := entriesOf(t, root)
		return files[slices.IndexFunc(files, func(e *fstree.Entry) bool { return e.Path == "large/5" })].Stamp
	}
	before := find()
	var once sync.Once
	p := ingest.NewPools(ingest.PoolOptions{Workers: 1, Slabs: 1})
	w := d.Begin(root, dag.DefaultProfile, false)
	defer w.Close()
	out := n.output()
	out.Files = w.Next
	out.Progress = func(now ingest.Progress) {
		// There is one slab in circulation and one that the reader fills, so it is in the
		// middle of the file when the first part of that comes here, behind 2.5 MiB.
		if now.Bytes > 5<<19 {
			once.Do(func() {
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for find() == before { // until the clock of the file system goes on
					if _, err := f.WriteAt([]byte("changed"), 100); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	res, err := p.Run(t.Context(), &ingest.Input{Path: root, Profile: profile(t, dag.DefaultProfile), SkipUnreadable: true}, out)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Next.Commit(); err != nil {
		t.Fatal(err)
	}
	got := again(t, d, n, ingest.Input{Path: root})
	if len(res.Skipped) != 1 || got.Unread != got.Tree.Size-uint64(before.Size) {
		t.Errorf("skipped %+v, then %d bytes of %d unread", res.Skipped, got.Unread, got.Tree.Size)
	}
	if i := slices.IndexFunc(n.manifest, func(e entry) bool { return e.Path == "large/5" }); !bytes.Equal(n.bytes(n.manifest[i]), readFile(t, path)) {
		t.Error("it was recorded with other bytes")
	}
}
