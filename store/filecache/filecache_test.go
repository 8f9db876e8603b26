package filecache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

// later is the time of a test: all its files have settled.
var later = time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)

type testChunk struct {
	Digest dag.Digest
	Size   uint32
}

// A testFile is a row that is wanted.
type testFile struct {
	Path   string
	Stamp  fstree.Stamp
	Chunks []testChunk
	void   bool // given up after its chunks
}

func newDir(t *testing.T) (d Dir, root string) {
	return Dir{Path: filepath.Join(t.TempDir(), "caches"), Now: func() time.Time { return later }}, t.TempDir()
}

// record writes a cache and returns the path of its file.
func record(t *testing.T, d Dir, root string, files []testFile) string {
	t.Helper()
	w := d.Begin(root, "p", true)
	defer w.Close()
	for _, f := range files {
		w.Next.Begin(f.Path, f.Stamp)
		for _, c := range f.Chunks {
			w.Next.Chunk(c.Digest, c.Size)
		}
		w.Next.End(!f.void)
	}
	if err := w.Next.Commit(); err != nil {
		t.Fatal(err)
	}
	k, err := keyOf(root, "p")
	if err != nil {
		t.Fatal(err)
	}
	return d.path(k)
}

// find returns the file as a cache has it, or nil.
func find(r *Reader, path string, s fstree.Stamp) *testFile {
	if !r.Find(path, s) {
		return nil
	}
	f := &testFile{Path: path, Stamp: s}
	for left := s.Size; left > 0; {
		d, size, ok := r.Chunk()
		if !ok {
			return nil
		}
		f.Chunks = append(f.Chunks, testChunk{d, size})
		left -= int64(size)
	}
	return f
}

// randomFiles makes files in the order of a walk: with long paths, without bytes, and
// with more chunks than a block takes.
func randomFiles(seed uint64, n int) []testFile {
	r := rand.New(rand.NewPCG(seed, 1))
	files := make([]testFile, n)
	for i := range files {
		f := &files[i]
		f.Path = fmt.Sprintf("dir-%03d/%s%06d", i/50, strings.Repeat("x", r.IntN(4)*r.IntN(60)), i)
		if r.IntN(50) == 0 {
			f.Path += strings.Repeat("/long", 800-len(f.Path)/5)
		}
		f.Stamp = fstree.Stamp{Dev: r.Uint64(), Ino: r.Uint64(), Mtime: r.Int64N(2e18) - 1e17, Ctime: r.Int64N(2e18)}
		if r.IntN(3) > 0 {
			f.Stamp.Dev, f.Stamp.Ino = 2049, uint64(i)
		}
		chunks := r.IntN(3)
		if r.IntN(30) == 0 {
			chunks = r.IntN(6000)
		}
		for range chunks {
			var c testChunk
			for i := 0; i < len(c.Digest); i += 8 {
				binary.BigEndian.PutUint64(c.Digest[i:], r.Uint64())
			}
			c.Size = 1 + r.Uint32N(1<<17)
			f.Chunks = append(f.Chunks, c)
			f.Stamp.Size += int64(c.Size)
		}
		f.void = r.IntN(20) == 0
	}
	slices.SortFunc(files, func(a, b testFile) int { return strings.Compare(a.Path, b.Path) })
	return files
}

func (f testFile) Equal(o testFile) bool {
	return f.Path == o.Path && f.Stamp == o.Stamp && slices.Equal(f.Chunks, o.Chunks)
}

// What was recorded is found, whatever of it is asked for, and nothing else is.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(8) {
		d, root := newDir(t)
		files := randomFiles(seed, 600)
		record(t, d, root, files)
		r := rand.New(rand.NewPCG(seed, 2))
		for _, share := range []int{1, 2, 20} {
			w := d.Begin(root, "p", false)
			if w.Past == nil {
				t.Fatal("no cache")
			}
			for _, f := range files {
				switch r.IntN(4 * share) {
				case 0:
					if got := find(w.Past, f.Path, f.Stamp); (got == nil) != f.void || got != nil && !got.Equal(f) {
						t.Fatalf("found %v, want %v", got, f)
					}
				case 1: // changed, and not asked for its chunks
					s := f.Stamp
					s.Ctime++
					if w.Past.Find(f.Path, s) {
						t.Fatalf("%q found with another stamp", f.Path)
					}
				case 2: // there is none
					if got := find(w.Past, f.Path[:len(f.Path)-1], f.Stamp); got != nil {
						t.Fatalf("found %v", got)
					}
				case 3: // found, and given up
					if !f.void && w.Past.Find(f.Path, f.Stamp) && len(f.Chunks) > 0 {
						w.Past.Chunk()
					}
				}
			}
			w.Close()
		}
	}
}

// Each part of the stamp counts.
func TestStamp(t *testing.T) {
	d, root := newDir(t)
	f := testFile{Path: "a", Stamp: fstree.Stamp{Dev: 1, Ino: 2, Size: 2 << 20, Mtime: 4, Ctime: 5},
		Chunks: []testChunk{{Size: 1 << 20}, {Size: 1 << 20}}}
	record(t, d, root, []testFile{f})
	for i, change := range []func(*fstree.Stamp){
		func(*fstree.Stamp) {},
		func(s *fstree.Stamp) { s.Dev++ }, func(s *fstree.Stamp) { s.Ino++ }, func(s *fstree.Stamp) { s.Size++ },
		func(s *fstree.Stamp) { s.Mtime++ }, func(s *fstree.Stamp) { s.Ctime++ },
	} {
		s := f.Stamp
		change(&s)
		w := d.Begin(root, "p", false)
		if found := w.Past.Find("a", s); found != (i == 0) {
			t.Errorf("change %d: found: %t", i, found)
		}
		w.Close()
	}
}

// A file that had not settled when the walk began is not recorded: another write may
// leave its stamp as it is.
func TestSettled(t *testing.T) {
	now := int64(1_700_000_000_000_000_000)
	edge := now - Settled.Nanoseconds()
	for _, c := range []struct {
		mtime, ctime int64
		want         bool
	}{
		{edge - 1, edge - 1, true}, {0, 0, true}, {edge, edge - 1, false}, {edge - 1, edge, false}, {edge - 1, now + 5, false}, {1 << 62, 0, false},
	} {
		d, root := newDir(t)
		d.Now = func() time.Time { return time.Unix(0, now) }
		old := testFile{Path: "a", Stamp: fstree.Stamp{Size: 2 << 20}, Chunks: []testChunk{{Size: 1 << 20}, {Size: 1 << 20}}}
		f := testFile{Path: "b", Stamp: fstree.Stamp{Size: 3, Mtime: c.mtime, Ctime: c.ctime}, Chunks: []testChunk{{Size: 3}}}
		record(t, d, root, []testFile{old, f})
		w := d.Begin(root, "p", false)
		if !w.Past.Find("a", old.Stamp) {
			t.Error("the old file is not there")
		}
		if got := w.Past.Find("b", f.Stamp); got != c.want {
			t.Errorf("mtime %d, ctime %d of %d: recorded: %t", c.mtime, c.ctime, now, got)
		}
		w.Close()
	}
}

// smallFiles is a cache of few bytes, which is worth keeping.
func smallFiles() []testFile {
	files := []testFile{
		{Path: "a", Stamp: fstree.Stamp{Dev: 2049, Ino: 77, Size: 5, Mtime: 1_700_000_000_000_000_000, Ctime: 1_700_000_000_000_000_001}},
		{Path: "a/b", Stamp: fstree.Stamp{Dev: 2049, Ino: 76, Mtime: -5, Ctime: 1_600_000_000_000_000_000}},
		{Path: "a/bc", Stamp: fstree.Stamp{Dev: 1, Ino: 1 << 63, Size: 1<<20 + 300}},
	}
	chunk := func(i int, s string, size uint32) {
		files[i].Chunks = append(files[i].Chunks, testChunk{sha256.Sum256([]byte(s)), size})
	}
	chunk(0, "hello", 5)
	chunk(2, "large", 1<<20)
	chunk(2, "the rest", 300)
	return files
}

// The bytes of version 1.
func TestVector(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "caches"), Now: func() time.Time { return later }}
	w := d.create("/", "scale-1")
	w.nonce = [nonceSize]byte([]byte("0123456789abcdef"))
	for _, f := range smallFiles() {
		w.Begin(f.Path, f.Stamp)
		for _, c := range f.Chunks {
			w.Chunk(c.Digest, c.Size)
		}
		w.End(true)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	const name = "fb9ef557efb5a30628f2069e521fccdd"
	got, err := os.ReadFile(filepath.Join(d.Path, name))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/version-1.hex")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(got); got != strings.ReplaceAll(string(want), "\n", "") {
		t.Errorf("got %s", got)
	}
}

// Whatever becomes of its bytes, a cache gives what was recorded or nothing.
func TestDamage(t *testing.T) {
	d, root := newDir(t)
	files := smallFiles()
	path := record(t, d, root, files)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	look := func(b []byte, what string, args ...any) (found int) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		w := d.Begin(root, "p", false)
		defer w.Close()
		for _, f := range files {
			got := find(w.Past, f.Path, f.Stamp)
			if got != nil && !got.Equal(f) {
				t.Errorf("%s: found %v", fmt.Sprintf(what, args...), got)
			}
			if got != nil {
				found++
			}
		}
		return found
	}
	if n := look(sound, "sound"); n != len(files) {
		t.Fatalf("%d of %d found", n, len(files))
	}
	for i := range sound {
		for bit := range 8 {
			b := slices.Clone(sound)
			b[i] ^= 1 << bit
			if n := look(b, "bit %d of byte %d", bit, i); n != 0 {
				t.Errorf("bit %d of byte %d: %d rows", bit, i, n)
			}
		}
		look(sound[:i], "%d bytes", i)
	}
	// Another version, and the cache of another tree, are none.
	other := bytes.Replace(sound, []byte("filecache 1"), []byte("filecache 2"), 1)
	if n := look(other, "version 2"); n != 0 || bytes.Equal(other, sound) {
		t.Errorf("version 2: %d rows", n)
	}
	foreign, err := os.ReadFile(record(t, d, t.TempDir(), files))
	if err != nil {
		t.Fatal(err)
	}
	if n := look(foreign, "of another tree"); n != 0 {
		t.Errorf("of another tree: %d rows", n)
	}
}

// A block is only good where it was written.
func TestBlocksInPlace(t *testing.T) {
	d, root := newDir(t)
	files := randomFiles(3, 3000)
	path := record(t, d, root, files)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	starts := blockStarts(b)
	if len(starts) < 6 {
		t.Fatalf("%d blocks", len(starts))
	}
	twice := slices.Concat(b[:starts[3]], b[starts[2]:]) // block 2 comes again in place of block 3
	record(t, d, root, files)                            // the same in everything but its nonce
	fresh, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mixed := slices.Concat(fresh[:starts[3]], b[starts[3]:])
	for name, bad := range map[string][]byte{"twice": twice, "mixed": mixed} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		w := d.Begin(root, "p", false)
		for w.Past.next() {
		}
		if w.Past.n != 3 {
			t.Errorf("%s: %d blocks were believed", name, w.Past.n)
		}
		w.Close()
	}
}

func blockStarts(b []byte) (starts []int) {
	for at := len(magic); at < len(b); at += frameSize + int(binary.BigEndian.Uint32(b[at:])) {
		starts = append(starts, at)
	}
	return starts
}

// Neither side holds more of a large tree than of a small one.
func TestMemory(t *testing.T) {
	d, root := newDir(t)
	n := 400_000
	if testing.Short() {
		n = 40_000
	}
	stamp := func(i int) fstree.Stamp { return fstree.Stamp{Dev: 1, Ino: uint64(i), Size: 7, Ctime: int64(i)} }
	paths := make([]string, n)
	for i := range paths {
		paths[i] = fmt.Sprintf("some/directory/with a name that is not short/and others in it/%09d", i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := d.Begin(root, "p", true)
	for i, path := range paths {
		w.Next.Begin(path, stamp(i))
		w.Next.Chunk(dag.Digest{byte(i)}, 7)
		w.Next.End(true)
	}
	if err := w.Next.Commit(); err != nil {
		t.Fatal(err)
	}
	r := d.Begin(root, "p", false).Past
	defer r.Close()
	for i, path := range paths {
		if !r.Find(path, stamp(i)) {
			t.Fatalf("%s not found", path)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 2<<20 {
		t.Errorf("%d bytes were allocated for %d files", got, n)
	}
}
