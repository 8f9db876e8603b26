package ingest_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
)

// Whatever its length and however it arrives, a stream gives what dag makes of it.
func TestStream(t *testing.T) {
	p := ingest.NewPools(ingest.PoolOptions{})
	sizes := []int{0, 1, 326, 4095, 4096, 4097, 64 << 10, 128<<10 - 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 2<<20 - 7, 5<<20 + 11}
	readers := map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "with EOF": iotest.DataErrReader,
	}
	for _, name := range dag.ProfileNames() {
		for _, size := range sizes {
			data := random(uint64(size), size)
			want, err := dag.HashFile(t.Context(), profile(t, name), bytes.NewReader(data), nil, dag.Attr{Mode: dag.DefaultFileMode})
			if err != nil {
				t.Fatal(err)
			}
			for how, reader := range readers {
				n := newNode(t)
				res, err := run(t, p, n, &ingest.Input{Reader: reader(bytes.NewReader(data)), Profile: profile(t, name)})
				if err != nil || res.Kind != dag.KindFile || res.Tree.Root != want.CID || res.Tree.Chunks != want.Chunks {
					t.Errorf("%s, %d bytes, %s: %+v, %v, want %v", name, size, how, res, err, want.CID)
				}
				if len(n.manifest) != 1 || !bytes.Equal(n.bytes(n.manifest[0]), data) {
					t.Errorf("%s, %d bytes, %s: the manifest gives other bytes", name, size, how)
				}
			}
		}
	}
}

// Chunks that repeat the one before, or have its size alone, are what they are.
func TestRepeats(t *testing.T) {
	p := ingest.NewPools(ingest.PoolOptions{})
	zeros, ones, noise := make([]byte, 700<<10), bytes.Repeat([]byte{1}, 300<<10), random(1, 100<<10)
	data := slices.Concat(zeros, ones, noise, noise, noise, zeros, []byte{2}, zeros)
	for _, name := range dag.ProfileNames() {
		want, err := dag.HashFile(t.Context(), profile(t, name), bytes.NewReader(data), nil, dag.Attr{Mode: dag.DefaultFileMode})
		if err != nil {
			t.Fatal(err)
		}
		n := newNode(t)
		res, err := run(t, p, n, &ingest.Input{Reader: bytes.NewReader(data), Profile: profile(t, name)})
		if err != nil || res.Tree.Root != want.CID || !bytes.Equal(n.bytes(n.manifest[0]), data) {
			t.Errorf("%s: %v, %v, want %v, or other bytes", name, res.Tree.Root, err, want.CID)
		}
	}
}

// makeTree makes a tree of files of all sizes, links and directories.
func makeTree(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	write := func(path string, mode os.FileMode, b []byte) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 1500 { // more than the entries of two slabs
		write(fmt.Sprintf("small/%d/%d", i%7, i), 0o644, random(uint64(i%1000), r.IntN(3000)))
	}
	for i, size := range []int{0, 256 << 10, 256<<10 + 1, 1<<20 - 1, 1 << 20, 3<<20 + 5, 700 << 10, 700 << 10, 700 << 10} {
		write(fmt.Sprintf("large/%d", i), 0o755, random(uint64(size), size))
	}
	for path, target := range map[string]string{"link": "small/0", "small/dangling": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(root, path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "empty/er"), 0o700); err != nil {
		t.Fatal(err)
	}
	return root
}

// A tree is the same dataset whether it comes from disk, piece by piece, or by the
// digests of its chunks; and the manifest that it gives is the same.
func TestSourceIsPath(t *testing.T) {
	root := makeTree(t)
	for _, times := range []bool{false, true} {
		p := ingest.NewPools(ingest.PoolOptions{})
		disk := newNode(t)
		want, err := run(t, p, disk, &ingest.Input{Path: root, Times: times})
		if err != nil || want.Kind != dag.KindDir || want.Tree.Files != 1509 || want.Tree.Leaves != 1512 {
			t.Fatalf("%+v, %v", want, err)
		}
		for _, digests := range []bool{false, true} {
			n := newNode(t)
			if digests {
				maps.Copy(n.chunks, disk.chunks)
				n.onAdd = func(bool) { t.Error("a chunk was handed over") }
			}
			got, err := run(t, p, n, &ingest.Input{Source: disk.source(digests), Times: times})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.Tree, got.Tree, cmp.Comparer(func(a, b dag.Tree) bool { return a == b })); d != "" {
				t.Errorf("times %t, digests %t: (-disk +source)\n%s", times, digests, d)
			}
			if d := cmp.Diff(disk.manifest, n.manifest); d != "" {
				t.Errorf("times %t, digests %t: manifest (-disk +source)\n%s", times, digests, d)
			}
		}
	}
}

// Without Times, times that a source gives are not recorded.
func TestSourceTimes(t *testing.T) {
	p, disk := ingest.NewPools(ingest.PoolOptions{}), newNode(t)
	if _, err := run(t, p, disk, &ingest.Input{Path: makeTree(t), Times: true}); err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	if _, err := run(t, p, n, &ingest.Input{Source: disk.source(false)}); err != nil {
		t.Fatal(err)
	}
	for _, e := range n.manifest {
		if !e.Attr.Mtime.IsZero() {
			t.Fatalf("%q has the time %v", e.Path, e.Attr.Mtime)
		}
	}
}

// A file given by so many chunks that they take several slabs.
func TestManyDigests(t *testing.T) {
	p, n := ingest.NewPools(ingest.PoolOptions{}), newNode(t)
	c := ingest.NewChunk{Data: random(1, 20<<10)}
	c.Chunk = ingest.Chunk{Digest: digest(c.Data), Size: uint32(len(c.Data))}
	if err := n.Add(t.Context(), []ingest.NewChunk{c}, false); err != nil {
		t.Fatal(err)
	}
	const count = 10_000
	s := &slice{entries: []*ingest.SourceEntry{{Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o600}, Chunks: func(yield func(ingest.Chunk, error) bool) {
		for range count {
			if !yield(c.Chunk, nil) {
				return
			}
		}
	}}}}
	res, err := run(t, p, n, &ingest.Input{Source: s})
	if err != nil || res.Tree.Chunks != count || res.Tree.Size != count*20<<10 || res.Kind != dag.KindFile {
		t.Errorf("%+v, %v", res, err)
	}
}

// Readers that stall hold up nobody else, even if there is one slab for all.
func TestStalledReaders(t *testing.T) {
	p := ingest.NewPools(ingest.PoolOptions{Workers: 1, Slabs: 1})
	release := make(chan struct{})
	var stalled, wg sync.WaitGroup
	for i, before := range []int{0, 10, 300 << 10, 1 << 20, 2500 << 10} {
		wait := sync.OnceFunc(func() { stalled.Done(); <-release })
		stalled.Add(1)
		wg.Go(func() {
			r := io.MultiReader(bytes.NewReader(random(uint64(i), before)), reader(func([]byte) (int, error) { wait(); return 0, io.EOF }))
			in := &ingest.Input{Reader: r}
			if i%2 == 1 {
				in = &ingest.Input{Source: &slice{entries: bodyOf(r)}}
			}
			res, err := run(t, p, newNode(t), in)
			if err != nil || res.Tree.Size != uint64(before) {
				t.Errorf("stalled after %d bytes: %+v, %v", before, res, err)
			}
		})
	}
	stalled.Wait()
	for size := 1; size < 8<<20; size *= 3 {
		if _, err := run(t, p, newNode(t), &ingest.Input{Reader: bytes.NewReader(random(9, size))}); err != nil {
			t.Error(err)
		}
	}
	if _, err := run(t, p, newNode(t), &ingest.Input{Path: makeTree(t)}); err != nil {
		t.Error(err)
	}
	close(release)
	wg.Wait()
}

// Only a call with all of a dataset says that it is the last.
func TestLast(t *testing.T) {
	for size, want := range map[int][]bool{10: {true}, 1 << 20: {false, true}, 2500 << 10: {false, false, true}} {
		n := newNode(t)
		var got []bool
		n.onAdd = func(last bool) { got = append(got, last) }
		if _, err := run(t, ingest.NewPools(ingest.PoolOptions{}), n, &ingest.Input{Reader: bytes.NewReader(random(1, size))}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d bytes: last is %v, want %v", size, got, want)
		}
	}
}

// A file that cannot be read is left out of dataset and manifest, though it had begun.
func TestSkipped(t *testing.T) {
	root := makeTree(t)
	in := &ingest.Input{Path: root, SkipUnreadable: true}
	n := newNode(t)
	var once sync.Once
	n.onAdd = func(bool) {
		// large/5 has three slabs; when the first of the tree is handed over it is open
		// or about to be.
		once.Do(func() {
			if err := os.Truncate(filepath.Join(root, "large/5"), 10<<20); err != nil {
				t.Error(err)
			}
		})
	}
	res, err := run(t, ingest.NewPools(ingest.PoolOptions{Workers: 1, Slabs: 1}), n, in)
	if err != nil {
		t.Fatal(err)
	}
	listed := slices.IndexFunc(n.manifest, func(e entry) bool { return e.Path == "large/5" })
	switch len(res.Skipped) {
	case 0: // it was not open yet
		if listed < 0 || len(n.bytes(n.manifest[listed])) != 10<<20 {
			t.Error("a file that grew before it was opened is not there as it is now")
		}
	case 1:
		if listed >= 0 || res.Skipped[0].Path != "large/5" || res.Tree.Files != 1508 {
			t.Errorf("skipped %+v of %d files, listed at %d", res.Skipped, res.Tree.Files, listed)
		}
	default:
		t.Errorf("skipped %+v", res.Skipped)
	}
}
