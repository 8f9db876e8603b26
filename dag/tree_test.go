package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"

	"github.com/koii-network/scale/dag/chunk"
)

// tiny shards directories of more than a few entries, so that small random
// trees have all shapes.
var tiny = &Profile{Name: "test", splitter: chunk.Fixed(4), dirLimit: 300}

// drawTree draws a tree of which names are often prefixes of one another.
func drawTree(t *rapid.T, m *memory) []entry {
	name := rapid.StringOfN(rapid.SampledFrom([]rune{'a', 'b', '-', '.', '0', '\n', 'é', '!'}), 1, 3, -1)
	attr := rapid.Custom(func(t *rapid.T) Attr {
		a := Attr{Mode: rapid.SampledFrom([]uint32{0o644, 0o755, 0o600, 0, 0o7777, 0o4711}).Draw(t, "mode")}
		if rapid.Bool().Draw(t, "timed") {
			a.Mtime = time.Unix(rapid.Int64Range(minTime+1, maxTime).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
		}
		return a
	})
	entries := []entry{{kind: KindDir, attr: attr.Draw(t, "root")}}
	dirs := []string{""}
	seen := map[string]bool{"": true}
	for range rapid.IntRange(0, 40).Draw(t, "entries") {
		e := entry{path: name.Draw(t, "name"), kind: Kind(rapid.IntRange(1, 3).Draw(t, "kind"))}
		if dir := rapid.SampledFrom(dirs).Draw(t, "dir"); dir != "" {
			e.path = dir + "/" + e.path
		}
		if base := e.path[strings.LastIndexByte(e.path, '/')+1:]; seen[e.path] || base == "." || base == ".." {
			continue
		}
		seen[e.path] = true
		e.attr = attr.Draw(t, "attr")
		switch e.kind {
		case KindDir:
			dirs = append(dirs, e.path)
		case KindLink:
			e.target = rapid.StringN(1, 5, 20).Filter(func(s string) bool { return !strings.Contains(s, "\x00") }).Draw(t, "target")
		case KindFile:
			content := rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "content")
			var err error
			if e.file, err = HashFile(context.Background(), tiny, bytes.NewReader(content), m, e.attr); err != nil {
				t.Fatal(err)
			}
		}
		entries = append(entries, e)
	}
	return canonical(entries)
}

// wantWalk is what Walk should yield of e. CIDs of directories and links and
// Tsize are not modelled; raw leaves have no size.
func wantWalk(e entry) WalkEntry {
	w := WalkEntry{Path: e.path, Info: Info{Kind: e.kind, Attr: e.attr, SizeKnown: true, Target: e.target, Size: uint64(len(e.target))}}
	switch e.kind {
	case KindLink:
		w.Info.Attr.Mode = linkMode
	case KindFile:
		w.Info.CID, w.Info.Size = e.file.CID, e.file.Size
		if e.file.CID.Type() == cid.Raw {
			w.Info.Size, w.Info.SizeKnown = 0, e.file.Size == 0
		}
	}
	return w
}

func wantLeaves(entries []entry) []FileLeaf {
	var leaves []FileLeaf
	for i, e := range entries {
		switch e.kind {
		case KindFile:
			leaves = append(leaves, fileLeafOf(e.path, e.file))
		case KindLink:
			leaves = append(leaves, FileLeaf{Kind: KindLink, Path: e.path, Size: uint64(len(e.target)), Target: e.target})
		case KindDir:
			prefix := e.path + "/"
			if e.path == "" {
				prefix = ""
			}
			if i+1 == len(entries) || !strings.HasPrefix(entries[i+1].path, prefix) {
				leaves = append(leaves, FileLeaf{Kind: KindDir, Path: e.path + "/"})
			}
		}
	}
	return leaves
}

// Random trees are read back as the plain model says.
func TestTreesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		m := newMemory()
		entries := drawTree(t, m)
		tree, err := buildTree(tiny, m, entries)
		if err != nil {
			t.Fatal(err)
		}
		r := m.reader()
		var want, got []WalkEntry
		count := Tree{}
		for _, e := range entries {
			want = append(want, wantWalk(e))
			if e.kind == KindFile {
				count.Files++
				count.Size += e.file.Size
				count.Chunks += e.file.Chunks
			}
		}
		cids := map[string]cid.Cid{}
		for e, err := range Walk(ctx, r, tree.Root) {
			if err != nil {
				t.Fatal(err)
			}
			cids[e.Path] = e.Info.CID
			if e.Info.Kind != KindFile {
				e.Info.CID = cid.Undef
			}
			e.Tsize = 0
			got = append(got, e)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(cid.Cid{})); diff != "" {
			t.Fatalf("walk: %s", diff)
		}
		var leaves []FileLeaf
		for l, err := range Leaves(ctx, r, tree.Commitment, tree.Leaves, 0) {
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, l)
		}
		if diff := cmp.Diff(wantLeaves(entries), leaves); diff != "" {
			t.Fatalf("leaves: %s", diff)
		}
		if !slices.IsSortedFunc(leaves, func(a, b FileLeaf) int { return strings.Compare(a.Path, b.Path) }) {
			t.Fatal("leaves are not in order")
		}
		if tree.Files != count.Files || tree.Size != count.Size || tree.Chunks != count.Chunks || tree.Leaves != uint64(len(leaves)) {
			t.Fatalf("tree %+v, want %+v", tree, count)
		}
		for path, want := range cids {
			if c, err := Lookup(ctx, r, tree.Root, path); err != nil || c != want {
				t.Fatalf("look up %q: %v, %v; want %v", path, c, err, want)
			}
			if _, err := Lookup(ctx, r, tree.Root, strings.TrimPrefix(path+"/zz", "/")); !errors.Is(err, ErrNotFound) {
				t.Fatalf("look up below %q: %v", path, err)
			}
		}
		for _, e := range entries {
			if e.kind == KindDir {
				checkList(t, r, cids, e.path)
			}
		}
	})
}

// checkList holds the listing of a directory against the walk.
func checkList(t *rapid.T, r Reader, cids map[string]cid.Cid, dir string) {
	want := map[string]cid.Cid{}
	for path, c := range cids {
		i := strings.LastIndexByte(path, '/')
		if path != "" && path[:max(i, 0)] == dir {
			want[path[i+1:]] = c
		}
	}
	last := ""
	for e, err := range List(context.Background(), r, cids[dir]) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Name <= last || want[e.Name] != e.CID {
			t.Fatalf("list %q: %+v after %q, want %v", dir, e, last, want[e.Name])
		}
		last = e.Name
		delete(want, e.Name)
	}
	if len(want) > 0 {
		t.Fatalf("list %q lacks %v", dir, want)
	}
}

// A consumer may stop at any entry.
func TestIterationStops(t *testing.T) {
	m := newMemory()
	fb := NewFileBuilder(tiny, m)
	entries := []entry{dirEntry("")}
	for i := range 30 {
		d := fmt.Sprintf("d%02d", i)
		entries = append(entries, dirEntry(d), entry{path: d + "/f", kind: KindLink, target: "x"})
	}
	for i := range 300 {
		if err := fb.AddChunk(Digest{byte(i)}, 1); err != nil {
			t.Fatal(err)
		}
	}
	f, err := fb.Finish(plain)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := buildTree(tiny, m, canonical(entries))
	if err != nil {
		t.Fatal(err)
	}
	ctx, r := t.Context(), m.reader()
	for n := range 61 {
		stopAfter(t, n, Walk(ctx, r, tree.Root))
		stopAfter(t, n%30, List(ctx, r, tree.Root))
		stopAfter(t, n%30, Leaves(ctx, r, tree.Commitment, tree.Leaves, 0))
		stopAfter(t, n*4, Chunks(ctx, r, f.CID, 0, 300))
	}
}

func stopAfter[T any](t *testing.T, n int, seq func(func(T, error) bool)) {
	t.Helper()
	for _, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if n--; n < 0 {
			return
		}
	}
	t.Fatal("ended too early")
}

// Every missing block or row is an error, whatever is read.
func TestMissing(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	fb := NewFileBuilder(tiny, m)
	for i := range 300 {
		if err := fb.AddChunk(Digest{byte(i)}, 1); err != nil {
			t.Fatal(err)
		}
	}
	f, err := fb.Finish(plain)
	if err != nil {
		t.Fatal(err)
	}
	entries := []entry{dirEntry("")}
	for i := range 300 {
		entries = append(entries, entry{path: fmt.Sprintf("d%03d", i), kind: KindFile, file: f})
	}
	tree, err := buildTree(tiny, m, entries)
	if err != nil {
		t.Fatal(err)
	}
	r := m.reader()
	for d, block := range m.nodes {
		delete(m.nodes, d)
		var all error
		for e := range 300 {
			if _, err := Lookup(ctx, r, tree.Root, fmt.Sprintf("d%03d", e)); err != nil {
				all = err
			}
		}
		for _, err := range []error{all, firstError(Walk(ctx, r, tree.Root)), firstError(Chunks(ctx, r, f.CID, 0, 300)), firstError(List(ctx, r, tree.Root))} {
			if err != nil && !errors.Is(err, errMissing) {
				t.Errorf("without node %v: %v", d, err)
			}
		}
		if firstError(Walk(ctx, r, tree.Root)) == nil && firstError(Chunks(ctx, r, f.CID, 0, 300)) == nil {
			t.Errorf("nothing needs node %v", d)
		}
		m.nodes[d] = block
	}
	leaf := fileLeafOf("", f)
	for h, row := range m.rows {
		delete(m.rows, h)
		_, _, err := ProveChunks(ctx, r, f.CID, leaf, 299, 300)
		if err == nil {
			err = firstError(Leaves(ctx, r, tree.Commitment, tree.Leaves, 0))
		}
		if !errors.Is(err, errMissing) {
			t.Errorf("without row %v: %v", h, err)
		}
		m.rows[h] = row
	}
}

// A cancelled context ends every iteration.
func TestCancelled(t *testing.T) {
	m := newMemory()
	tree, _ := flatTree(t, m, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range []error{
		firstError(Walk(ctx, m.reader(), tree.Root)),
		firstError(List(ctx, m.reader(), tree.Root)),
		firstError(Leaves(ctx, m.reader(), tree.Commitment, tree.Leaves, 0)),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	if _, err := HashFile(ctx, tiny, strings.NewReader("x"), nil, plain); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A single stream is a dataset of one leaf with an empty path.
func TestSingleFile(t *testing.T) {
	for _, n := range []int{0, 1, 2, 300} {
		m := newMemory()
		f := fakeFile(t, NewFileBuilder(mustProfile(t, DefaultProfile), m), n, plain)
		tree, err := SingleFile(f, m)
		if err != nil {
			t.Fatal(err)
		}
		leaf := fileLeafOf("", f)
		want := Tree{Root: f.CID, Size: f.Size, Tsize: f.Tsize, Files: 1, Leaves: 1, Chunks: f.Chunks, Commitment: leaf.Hash()}
		if tree != want {
			t.Errorf("%d chunks: %+v, want %+v", n, tree, want)
		}
		if i, l, err := FindLeaf(t.Context(), m.reader(), tree.Commitment, 1, ""); err != nil || i != 0 || l != leaf {
			t.Errorf("%d chunks: leaf %d %+v, %v", n, i, l, err)
		}
		if path, err := ProveLeaf(t.Context(), m.reader(), tree.Commitment, 1, 0); err != nil || len(path) != 0 || CheckLeaf(tree.Commitment, 1, 0, leaf.Hash(), path) != nil {
			t.Errorf("%d chunks: proof %v, %v", n, path, err)
		}
		if walked := collect(t, Walk(t.Context(), m.reader(), tree.Root)); len(walked) != 1 || walked[0].Path != "" || walked[0].Info.CID != f.CID {
			t.Errorf("%d chunks: walked %+v", n, walked)
		}
	}
	if _, err := SingleFile(File{Size: 1}, discard{}); !errors.Is(err, ErrFormat) {
		t.Errorf("file of a byte without chunks: %v", err)
	}
}

// Hashing does not depend on how the bytes arrive, and fails as its reader.
func TestHashFile(t *testing.T) {
	for _, name := range ProfileNames() {
		p := mustProfile(t, name)
		for _, size := range []int{0, 1, p.Splitter().Max(), 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 12345} {
			content := stream("hash", size)
			want := NewFileBuilder(p, discard{})
			start := 0
			for _, end := range p.Splitter().Split(nil, content, true) {
				if err := want.AddChunk(digestOf(content[start:end]), end-start); err != nil {
					t.Fatal(err)
				}
				start = end
			}
			f, err := want.Finish(plain)
			if err != nil {
				t.Fatal(err)
			}
			h := NewHasher(p, nil)
			for range 2 { // a Hasher is used again
				if got, err := h.File(t.Context(), &dribble{b: content}, plain); err != nil || got != f {
					t.Errorf("%s, %d bytes: %+v, %v; want %+v", name, size, got, err, f)
				}
			}
		}
		if _, err := HashFile(t.Context(), p, &dribble{b: make([]byte, 100), err: errSink}, nil, plain); !errors.Is(err, errSink) {
			t.Errorf("reader that fails: %v", err)
		}
	}
}

// dribble gives its bytes in pieces of all sizes, and then err.
type dribble struct {
	b   []byte
	n   int
	err error
}

func (d *dribble) Read(p []byte) (int, error) {
	if len(d.b) == 0 {
		if d.err == nil {
			d.err = io.EOF
		}
		return 0, d.err
	}
	d.n = (d.n*7 + 1) % 300_000
	n := copy(p, d.b[:min(d.n, len(d.b))])
	d.b = d.b[n:]
	return n, nil
}
