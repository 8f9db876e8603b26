package dag

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
)

// refRoot and refPath are RFC 6962, 2.1 and 2.1.1, to the letter.
func refRoot(d []Hash) Hash {
	switch len(d) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return d[0]
	}
	k := 1 << (bits.Len(uint(len(d)-1)) - 1)
	l, r := refRoot(d[:k]), refRoot(d[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
}

func refPath(m int, d []Hash) []Hash {
	if len(d) == 1 {
		return nil
	}
	k := 1 << (bits.Len(uint(len(d)-1)) - 1)
	if m < k {
		return append(refPath(m, d[:k]), refRoot(d[k:]))
	}
	return append(refPath(m-k, d[k:]), refRoot(d[:k]))
}

func refLeaf(data []byte) Hash { return sha256.Sum256(slices.Concat([]byte{0}, data)) }

func TestMerkleRoot(t *testing.T) {
	var leaves []Hash
	for n := range rowWidth + 1 {
		w, got := newRow(leaves)
		if want := refRoot(leaves); got != want {
			t.Fatalf("%d leaves: %v, want %v", n, got, want)
		}
		for height := uint(0); n>>height > 0; height++ {
			for i := range n >> height {
				if got, want := w.at(height, uint64(i)), refRoot(leaves[i<<height:(i+1)<<height]); got != want {
					t.Fatalf("%d leaves: subtree %d of height %d: %v, want %v", n, i, height, got, want)
				}
			}
		}
		leaves = append(leaves, refLeaf([]byte{byte(n), byte(n >> 8)}))
	}
}

// flatTree is a dataset of n leaves of all kinds.
func flatTree(tb testing.TB, m *memory, n int) (Tree, []FileLeaf) {
	tb.Helper()
	fb := NewFileBuilder(mustProfile(tb, DefaultProfile), m)
	entries := []entry{dirEntry("")}
	var leaves []FileLeaf
	for i := range n {
		path := fmt.Sprintf("%s%06d", []string{"a", "b/", "c"}[i*3/n], i)
		if i > 0 && i*3/n == 1 && (i-1)*3/n == 0 {
			entries = append(entries, dirEntry("b"))
		}
		switch i % 5 {
		case 0:
			entries = append(entries, entry{path: path, kind: KindLink, target: "to " + path})
			leaves = append(leaves, FileLeaf{Kind: KindLink, Path: path, Size: uint64(3 + len(path)), Target: "to " + path})
		case 1:
			entries = append(entries, dirEntry(path))
			leaves = append(leaves, FileLeaf{Kind: KindDir, Path: path + "/"})
		default:
			f := fakeFile(tb, fb, i%4, plain)
			entries = append(entries, entry{path: path, kind: KindFile, file: f})
			leaves = append(leaves, FileLeaf{Kind: KindFile, Path: path, Size: f.Size, Chunks: f.Chunks, ChunkRoot: f.ChunkRoot})
		}
	}
	if n == 0 {
		leaves = []FileLeaf{{Kind: KindDir, Path: "/"}}
	}
	return mustTree(tb, m, entries), leaves
}

func leafHashes(leaves []FileLeaf) []Hash {
	hashes := make([]Hash, len(leaves))
	for i, l := range leaves {
		hashes[i] = refLeaf(l.Marshal())
	}
	return hashes
}

// Every leaf of every small tree is read, found and proved; no other root,
// index, size or leaf passes with its proof, and no changed, missing or added
// hash.
func TestLeavesExhaustive(t *testing.T) {
	ctx := t.Context()
	for n := range 601 {
		m := newMemory()
		tree, leaves := flatTree(t, m, n)
		r, size := m.reader(), uint64(len(leaves))
		hashes := leafHashes(leaves)
		if want := refRoot(hashes); tree.Commitment != want || tree.Leaves != size {
			t.Fatalf("%d leaves: commitment %v over %d, want %v", n, tree.Commitment, tree.Leaves, want)
		}
		if got := collect(t, Leaves(ctx, r, tree.Commitment, size, 0)); !slices.Equal(got, leaves) {
			t.Fatalf("%d leaves: %s", n, cmp.Diff(leaves, got))
		}
		for i, l := range leaves {
			if n > 40 && n != 257 && i > 0 && i < n-1 && i != n/2 {
				continue // the shapes are those of the smaller ones and of 257
			}
			got, err := Leaf(ctx, r, tree.Commitment, size, uint64(i))
			if err != nil || got != l {
				t.Fatalf("leaf %d of %d: %+v, %v", i, n, got, err)
			}
			j, got, err := FindLeaf(ctx, r, tree.Commitment, size, l.Path)
			if err != nil || got != l || j != uint64(i) {
				t.Fatalf("find leaf %d of %d: %d, %+v, %v", i, n, j, got, err)
			}
			path, err := ProveLeaf(ctx, r, tree.Commitment, size, uint64(i))
			if err != nil || !slices.Equal(path, refPath(i, hashes)) {
				t.Fatalf("prove leaf %d of %d: %v, %v", i, n, path, err)
			}
			if err := CheckLeaf(tree.Commitment, size, uint64(i), l.Hash(), path); err != nil {
				t.Fatalf("check leaf %d of %d: %v", i, n, err)
			}
			if n <= 20 {
				corruptLeafProof(t, tree.Commitment, size, uint64(i), l.Hash(), path)
			}
		}
	}
}

func corruptLeafProof(t *testing.T, root Hash, n, i uint64, leaf Hash, path []Hash) {
	t.Helper()
	refuse := func(what string, root Hash, n, i uint64, leaf Hash, path []Hash) {
		t.Helper()
		if err := CheckLeaf(root, n, i, leaf, path); !errors.Is(err, ErrProof) {
			t.Errorf("leaf %d of %d: %s: %v", i, n, what, err)
		}
	}
	other := func(h Hash) Hash { h[7] ^= 4; return h }
	refuse("other root", other(root), n, i, leaf, path)
	refuse("other leaf", root, n, i, other(leaf), path)
	for j := range n + 3 {
		if j != i {
			refuse("other index", root, n, j, leaf, path)
		}
	}
	refuse("no tree", root, 0, i, leaf, path)
	for j := range path {
		p := slices.Clone(path)
		p[j] = other(p[j])
		refuse("changed hash", root, n, i, leaf, p)
		refuse("missing hash", root, n, i, leaf, slices.Delete(slices.Clone(path), j, j+1))
	}
	refuse("added hash", root, n, i, leaf, append(slices.Clone(path), leaf))
}

// Trees of more than one level of rows.
func TestLeavesLarge(t *testing.T) {
	ctx := t.Context()
	for _, n := range []int{65536, 65537, 66000} {
		m := newMemory()
		tree, leaves := flatTree(t, m, n)
		hashes := leafHashes(leaves)
		size := uint64(n)
		if want := refRoot(hashes); tree.Commitment != want {
			t.Fatalf("%d leaves: commitment %v, want %v", n, tree.Commitment, want)
		}
		for _, i := range []int{0, 1, 255, 256, 65535, n / 2, n - 2, n - 1} {
			path, err := ProveLeaf(ctx, m.reader(), tree.Commitment, size, uint64(i))
			if err != nil || !slices.Equal(path, refPath(i, hashes)) {
				t.Errorf("prove leaf %d of %d: %v, %v", i, n, path, err)
			}
			if j, l, err := FindLeaf(ctx, m.reader(), tree.Commitment, size, leaves[i].Path); err != nil || j != uint64(i) || l != leaves[i] {
				t.Errorf("find leaf %d of %d: %d, %+v, %v", i, n, j, l, err)
			}
		}
		from := n - 700
		if got := collect(t, Leaves(ctx, m.reader(), tree.Commitment, size, uint64(from))); !slices.Equal(got, leaves[from:]) {
			t.Errorf("leaves from %d of %d: %s", from, n, cmp.Diff(leaves[from:], got))
		}
	}
}

func TestLeafNotThere(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	tree, leaves := flatTree(t, m, 600)
	r, root := m.reader(), tree.Commitment
	for _, path := range []string{"", "/", "b", "b/", "zzz", "a000", "a000300", leaves[300].Path + "x", leaves[1].Path[:7]} {
		if i, l, err := FindLeaf(ctx, r, root, 600, path); !errors.Is(err, ErrNotFound) {
			t.Errorf("found %q: %d, %+v, %v", path, i, l, err)
		}
	}
	if _, err := Leaf(ctx, r, root, 600, 600); !errors.Is(err, ErrRange) {
		t.Errorf("leaf 600 of 600: %v", err)
	}
	if _, err := ProveLeaf(ctx, r, root, 600, 600); !errors.Is(err, ErrRange) {
		t.Errorf("prove leaf 600 of 600: %v", err)
	}
	for range Leaves(ctx, r, root, 600, 600) {
		t.Error("leaves from the end on")
	}
	// A tree of another size is not behind this root.
	for _, n := range []uint64{1, 256, 257, 599, 601, 65536, 65537, 1 << 62} {
		if err := firstError(Leaves(ctx, r, root, n, 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d leaves: %v", n, err)
		}
	}
	if _, err := Leaf(ctx, newMemory().reader(), root, 600, 0); !errors.Is(err, errMissing) {
		t.Errorf("leaf of an empty store: %v", err)
	}
}

// Whatever byte of whatever row changes, no leaf is read from it.
func TestRowsChecked(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	tree, _ := flatTree(t, m, 600)
	for name, row := range m.rows {
		for i := range row {
			if i > 400 && i%97 != 0 {
				continue // three rows of 9 KB
			}
			bad := bytes.Clone(row)
			bad[i] ^= 1
			m.rows[name] = bad
			if err := firstError(Leaves(ctx, m.reader(), tree.Commitment, 600, 0)); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("row %v with byte %d changed: %v", name, i, err)
			}
		}
		for _, bad := range [][]byte{nil, row[:1], row[:len(row)-1], append(bytes.Clone(row), 0), append(bytes.Clone(row), row[1:]...)} {
			m.rows[name] = bad
			if err := firstError(Leaves(ctx, m.reader(), tree.Commitment, 600, 0)); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("row %v of %d bytes instead of %d: %v", name, len(bad), len(row), err)
			}
		}
		m.rows[name] = row
	}
}

// refChunks is the model of a file of fake chunks.
func refChunks(n int) (refs []ChunkRef, hashes []Hash, size uint64) {
	for i := range n {
		d, s := fakeChunk(i)
		c := ChunkRef{Digest: d, Offset: size, Size: uint32(s)}
		refs, hashes = append(refs, c), append(hashes, ChunkLeafHash(c))
		size += uint64(s)
	}
	return refs, hashes, size
}

// Every run of chunks of every small file is found and proved, and a proof
// with anything changed is refused.
func TestChunksExhaustive(t *testing.T) {
	for n := 1; n <= 17; n++ {
		for _, a := range []Attr{plain, {Mode: 0o755}} {
			for first := range n {
				for last := first + 1; last <= n; last++ {
					checkRun(t, newFakeFile(t, n, a), first, last)
				}
			}
		}
	}
}

func TestChunksLarge(t *testing.T) {
	for _, n := range []int{255, 256, 257, 511, 512, 513, 600, 65535, 65536, 65537, 66049, 70000} {
		f := newFakeFile(t, n, plain)
		ends := []int{0, 1, 3, n / 3, 255, 256, 257, 65535, 65536, n - 1, n}
		for _, first := range ends {
			for _, last := range ends {
				if first < last && last <= n && (n < 1000 || last-first < 300 || first%256 == 0) {
					checkRun(t, f, first, last)
				}
			}
		}
	}
}

type fakeFileModel struct {
	m      *memory
	cid    cid.Cid
	leaf   FileLeaf
	refs   []ChunkRef
	hashes []Hash
}

func newFakeFile(t *testing.T, n int, a Attr) *fakeFileModel {
	t.Helper()
	f := &fakeFileModel{m: newMemory()}
	built := fakeFile(t, NewFileBuilder(mustProfile(t, DefaultProfile), f.m), n, a)
	var size uint64
	f.refs, f.hashes, size = refChunks(n)
	f.cid, f.leaf = built.CID, fileLeafOf("", built)
	if built.Size != size || built.Chunks != uint64(n) {
		t.Fatalf("file of %d chunks and %d bytes: %+v", n, size, built)
	}
	if n <= 1000 && built.ChunkRoot != refRoot(f.hashes) {
		t.Fatalf("file of %d chunks: root %v, want %v", n, built.ChunkRoot, refRoot(f.hashes))
	}
	return f
}

func checkRun(t *testing.T, f *fakeFileModel, first, last int) {
	t.Helper()
	ctx, r, root, n := t.Context(), f.m.reader(), f.leaf.ChunkRoot, uint64(len(f.refs))
	end := f.refs[last-1].Offset + uint64(f.refs[last-1].Size)
	want := Run{First: uint64(first), Last: uint64(last), Offset: f.refs[first].Offset, End: end}
	for _, b := range [][2]uint64{{want.Offset, end}, {want.Offset + uint64(f.refs[first].Size) - 1, end - uint64(f.refs[last-1].Size) + 1}} {
		if b[0] >= b[1] {
			continue
		}
		if got, err := FindChunks(ctx, r, f.cid, f.leaf, b[0], b[1]); err != nil || got != want {
			t.Fatalf("bytes %d to %d of %d chunks: %+v, %v; want %+v", b[0], b[1], n, got, err, want)
		}
	}
	chunks := collect(t, Chunks(ctx, r, f.cid, want.Offset, end))
	if n == 1 && chunks[0].Size == 0 {
		chunks[0].Size = f.refs[0].Size // a raw leaf does not tell
	}
	if !slices.Equal(chunks, f.refs[first:last]) {
		t.Fatalf("chunks %d to %d of %d: %v", first, last, n, chunks)
	}
	left, right, err := ProveChunks(ctx, r, f.cid, f.leaf, want.First, want.Last)
	if err != nil {
		t.Fatalf("prove chunks %d to %d of %d: %v", first, last, n, err)
	}
	run := f.hashes[first:last]
	if err := CheckChunks(root, n, want.First, run, left, right); err != nil {
		t.Fatalf("check chunks %d to %d of %d: %v", first, last, n, err)
	}
	if n > 20 {
		return
	}
	refuse := func(what string, root Hash, n, first uint64, run, left, right []Hash) {
		t.Helper()
		if err := CheckChunks(root, n, first, run, left, right); !errors.Is(err, ErrProof) {
			t.Fatalf("chunks %d to %d of %d: %s: %v", first, last, n, what, err)
		}
	}
	other := func(h []Hash, i int) []Hash { h = slices.Clone(h); h[i][31] ^= 128; return h }
	without := func(h []Hash, i int) []Hash { return slices.Delete(slices.Clone(h), i, i+1) }
	refuse("other root", other([]Hash{root}, 0)[0], n, want.First, run, left, right)
	for i := range run {
		refuse("changed chunk", root, n, want.First, other(run, i), left, right)
		refuse("missing chunk", root, n, want.First, without(run, i), left, right)
	}
	for i := range left {
		refuse("changed left", root, n, want.First, run, other(left, i), right)
		refuse("missing left", root, n, want.First, run, without(left, i), right)
	}
	for i := range right {
		refuse("changed right", root, n, want.First, run, left, other(right, i))
		refuse("missing right", root, n, want.First, run, left, without(right, i))
	}
	refuse("added left", root, n, want.First, run, append(slices.Clone(left), root), right)
	refuse("added right", root, n, want.First, run, left, append(slices.Clone(right), root))
	for i := range n + 3 {
		if i != want.First {
			refuse("other place", root, n, i, run, left, right)
		}
	}
	for _, size := range []uint64{0, 1 << 62, 1<<64 - 1} {
		refuse("other size", root, size, want.First, run, left, right)
	}
}

func TestChunksOutside(t *testing.T) {
	ctx := t.Context()
	f := newFakeFile(t, 300, plain)
	r := f.m.reader()
	for _, b := range [][2]uint64{{0, 0}, {5, 4}, {f.leaf.Size, f.leaf.Size + 1}, {1<<64 - 1, 1<<64 - 1}} {
		if _, err := FindChunks(ctx, r, f.cid, f.leaf, b[0], b[1]); !errors.Is(err, ErrRange) {
			t.Errorf("bytes %d to %d: %v", b[0], b[1], err)
		}
		if got := collect(t, Chunks(ctx, r, f.cid, b[0], b[1])); len(got) != 0 {
			t.Errorf("bytes %d to %d: %v", b[0], b[1], got)
		}
	}
	if run, err := FindChunks(ctx, r, f.cid, f.leaf, f.leaf.Size-1, 1<<64-1); err != nil || run.Last != 300 || run.End != f.leaf.Size {
		t.Errorf("last byte and beyond: %+v, %v", run, err)
	}
	for _, b := range [][2]uint64{{0, 0}, {5, 4}, {0, 301}, {300, 301}} {
		if _, _, err := ProveChunks(ctx, r, f.cid, f.leaf, b[0], b[1]); !errors.Is(err, ErrRange) {
			t.Errorf("chunks %d to %d: %v", b[0], b[1], err)
		}
	}
	// A leaf that is not the file's.
	for _, change := range []func(*FileLeaf){
		func(l *FileLeaf) { l.Size++ },
		func(l *FileLeaf) { l.Chunks++ },
		func(l *FileLeaf) { l.Chunks-- },
		func(l *FileLeaf) { l.Chunks = 1; l.Size = 1 },
		func(l *FileLeaf) { l.Chunks = 1 << 62; l.Size = 1 << 62 },
		func(l *FileLeaf) { l.Chunks = 0 },
	} {
		l := f.leaf
		change(&l)
		if _, err := FindChunks(ctx, r, f.cid, l, l.Size-1, l.Size); !errors.Is(err, ErrFormat) {
			t.Errorf("find with leaf %+v: %v", l, err)
		}
	}
	l := f.leaf
	l.ChunkRoot[0] ^= 1
	if _, _, err := ProveChunks(ctx, r, f.cid, l, 3, 5); !errors.Is(err, errMissing) {
		t.Errorf("prove with another chunk root: %v", err)
	}
	wrapped := newFakeFile(t, 2, plain)
	wrapped.leaf.ChunkRoot[0] ^= 1
	if _, _, err := ProveChunks(ctx, wrapped.m.reader(), wrapped.cid, wrapped.leaf, 0, 1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("prove with another chunk root: %v", err)
	}
}
