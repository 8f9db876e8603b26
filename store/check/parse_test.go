package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// Every tree of up to a few rows has the root that x/mod's tlog computes, at
// each step of its growth.
func TestFold(t *testing.T) {
	var stored []tlog.Hash
	f := fold{full: func(level int, i uint64, h []hash) {
		if len(h) != width {
			t.Errorf("run %d of level %d has %d hashes", i, level, len(h))
		}
	}}
	for n := range int64(1500) {
		root, err := tlog.TreeHash(n, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			var h []tlog.Hash
			for _, i := range indexes {
				h = append(h, stored[i])
			}
			return h, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			root = sha256.Sum256(nil)
		}
		if got := tlog.Hash(f.root(nil)); got != root {
			t.Fatalf("root of %d leaves is %v, want %v", n, got, root)
		}
		data := fmt.Append(nil, n)
		hashes, err := tlog.StoredHashes(n, data, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			var h []tlog.Hash
			for _, i := range indexes {
				h = append(h, stored[i])
			}
			return h, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		f.push(leafHash(data))
	}
}

// A sink keeps what the builders of package dag make.
type sink struct {
	rows  map[dag.Hash][]byte
	nodes [][]byte
}

func (s *sink) Node(_ dag.Digest, block []byte) error {
	s.nodes = append(s.nodes, bytes.Clone(block))
	return nil
}

func (s *sink) Row(h dag.Hash, row []byte) error {
	s.rows[h] = bytes.Clone(row)
	return nil
}

// build makes rows and nodes of all kinds.
func build(t testing.TB) *sink {
	t.Helper()
	s := &sink{rows: map[dag.Hash][]byte{}}
	p, err := dag.LookupProfile(dag.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	f, tree := dag.NewFileBuilder(p, s), dag.NewTreeBuilder(p, s)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(chunks int, mode uint32) dag.File {
		for i := range chunks {
			must(f.AddChunk(sha256.Sum256(fmt.Append(nil, i)), 1000+i%7))
		}
		made, err := f.Finish(dag.Attr{Mode: mode})
		must(err)
		return made
	}
	dir := dag.Attr{Mode: dag.DefaultDirMode}
	must(tree.AddDir("", dir))
	must(tree.AddFile("big", file(700, 0o600)))
	must(tree.AddDir("dir", dir))
	must(tree.AddLink("dir/link", "../target", dag.Attr{}))
	must(tree.AddFile("dir/one", file(1, 0o644)))
	must(tree.AddDir("none", dir))
	for i := range 2000 {
		must(tree.AddFile(fmt.Sprintf("s%0200d", i), file(i%2, 0o644)))
	}
	_, err = tree.Finish()
	must(err)
	return s
}

// What package dag writes is read here, with the same names.
func TestParse(t *testing.T) {
	s := build(t)
	types := map[byte]int{}
	for name, row := range s.rows {
		typ, got, err := parseRow(row)
		if err != nil || got != hash(name) {
			t.Fatalf("row %v reads as %x, %v", name, got, err)
		}
		types[typ]++
	}
	if types[leafRow] != 8 || types[hashRow] != 2 {
		t.Errorf("rows of types %v", types)
	}
	kinds := map[string]int{}
	for _, b := range s.nodes {
		n, ok := parseNode(b)
		if !ok {
			t.Fatalf("node %x is refused", b)
		}
		kinds[fmt.Sprint(n.kind, n.shard != nil)]++
	}
	if len(kinds) != 4 {
		t.Errorf("nodes of kinds %v", kinds)
	}
}

func FuzzParseRow(f *testing.F) {
	for _, row := range build(f).rows {
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := parseRow(b); err == nil && (len(b) < 2 || len(b) > maxRow) {
			t.Errorf("%d bytes are a row", len(b))
		}
	})
}

func FuzzParseNode(f *testing.F) {
	seen := map[string]bool{}
	for _, b := range build(f).nodes {
		n, _ := parseNode(b)
		if kind := fmt.Sprint(n.kind, n.shard != nil, len(n.links)); !seen[kind] {
			seen[kind] = true
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := parseNode(b); ok && n.kind == kindFile && len(n.sizes) != len(n.links) {
			t.Errorf("%x is a file of %d sizes and %d links", b, len(n.sizes), len(n.links))
		}
	})
}

func FuzzChunkRow(f *testing.F) {
	f.Add([]byte{1, 24, 100, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseChunkRow(b)
		if !ok {
			return
		}
		var again []byte
		for _, v := range []uint64{uint64(r.pack), r.off, uint64(r.length), uint64(r.start), uint64(r.size)} {
			again = binary.AppendUvarint(again, v)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x and %x are one row", b, again)
		}
	})
}

// newPack writes a pack of a few frames with package pack.
func newPack(t testing.TB, frames int) (path string, locs []pack.Loc) {
	t.Helper()
	dir := t.TempDir()
	p, err := pack.Open(dir, pack.Options{}, pack.Tail{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range frames {
		data := bytes.Repeat([]byte{byte(i)}, 100+i)
		loc, err := p.Append(t.Context(), pack.Frame{
			PlainSize: uint32(len(data)), Sealed: data,
			Chunks: []pack.Chunk{{Digest: sha256.Sum256(data[:10]), Size: 10}, {Digest: sha256.Sum256(data[10:]), Size: uint32(len(data) - 10)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		locs = append(locs, loc)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, pack.Name(1)), locs
}

// Frames are found as package pack wrote them, and behind damage as well.
func TestFrames(t *testing.T) {
	path, locs := newPack(t, 5)
	for at := int64(packHeader); at < int64(locs[4].Off); at++ {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[at] ^= 0x10
		damaged := filepath.Join(t.TempDir(), pack.Name(1))
		if err := os.WriteFile(damaged, b, 0o644); err != nil {
			t.Fatal(err)
		}
		got := findFrames(t, damaged)
		for i, loc := range locs {
			header := at >= int64(loc.Off) && at < int64(loc.Off)+frameFixed+2*chunkEntry
			if found := got[int64(loc.Off)] == int64(loc.Len); found == header {
				t.Fatalf("with byte %d changed, frame %d is found: %t", at, i, found)
			}
		}
	}
}

// findFrames returns the lengths of the frames in a pack by their offsets.
func findFrames(t testing.TB, path string) map[int64]int64 {
	t.Helper()
	p, err := openPack(filepath.Dir(path), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.checkStart(); err != nil {
		t.Fatal(err)
	}
	found := map[int64]int64{}
	var f frame
	for off := int64(packHeader); off < p.end; {
		_, err := p.readHeader(&f, off, nil)
		if err == nil {
			found[off] = f.length()
			off += f.length()
			continue
		}
		if off, err = p.search(off + 1); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func FuzzFrame(f *testing.F) {
	path, _ := newPack(f, 3)
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &packFile{ReaderAt: bytes.NewReader(b), number: 1, end: int64(len(b))}
		var fr frame
		for off := int64(packHeader); off < p.end; {
			_, err := p.readHeader(&fr, off, nil)
			if err == nil {
				off += fr.length()
				continue
			}
			if !isDamage(err) {
				t.Fatal(err)
			}
			next, err := p.search(off + 1)
			if err != nil || next <= off {
				t.Fatal(off, next, err)
			}
			off = next
		}
	})
}

func TestNameKey(t *testing.T) {
	for _, name := range []string{"a", "a.b-c_d"} {
		for _, v := range []uint64{1, 255, 1<<31 - 1} {
			n, got, ok := splitNameKey(nameKey(name, v))
			if n != name || uint64(got) != v || !ok {
				t.Errorf("%s@%d reads as %s@%d, %t", name, v, n, got, ok)
			}
		}
	}
	for _, k := range []string{"n", "n\x00\x00\x00\x00\x01", "na\x00\x00\x00\x00\x00", "na\x00\x80\x00\x00\x00", "na\x01\x00\x00\x00\x01", "na/b\x00\x00\x00\x00\x01"} {
		if _, _, ok := splitNameKey([]byte(k)); ok {
			t.Errorf("%q is a name's key", k)
		}
	}
	if isDamage(errors.New("of the disk")) || !isDamage(fmt.Errorf("wrapped: %w", damage("of bytes"))) {
		t.Error("damage is not told from errors of the disk")
	}
}
