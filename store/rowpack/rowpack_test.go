package rowpack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/rowpack"
)

func newPacker(t testing.TB) *rowpack.Packer {
	t.Helper()
	o, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	p, err := rowpack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rows are the nodes and commitment rows of a tree.
type rows struct{ nodes, rows [][]byte }

func (r *rows) Node(_ dag.Digest, block []byte) error {
	r.nodes = append(r.nodes, bytes.Clone(block))
	return nil
}

func (r *rows) Row(_ dag.Hash, row []byte) error {
	r.rows = append(r.rows, bytes.Clone(row))
	return nil
}

// build makes nodes and rows of all kinds: files of few and many chunks, directories, one
// of them sharded, links, rows of leaves and of hashes.
func build(t testing.TB) *rows {
	t.Helper()
	s := new(rows)
	p, err := dag.LookupProfile(dag.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	f, tree := dag.NewFileBuilder(p, s), dag.NewTreeBuilder(p, s)
	defer tree.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	n := 0
	file := func(chunks int, a dag.Attr) dag.File {
		for range chunks {
			n++
			must(f.AddChunk(sha256.Sum256(fmt.Append(nil, n)), 20_000+r.IntN(40_000)))
		}
		made, err := f.Finish(a)
		must(err)
		return made
	}
	dir, plain := dag.Attr{Mode: dag.DefaultDirMode}, dag.Attr{Mode: 0o644}
	must(tree.AddDir("", dir))
	must(tree.AddFile("big", file(70_000, dag.Attr{Mode: 0o600, Mtime: time.Unix(1e9, 5)})))
	must(tree.AddDir("dir", dir))
	for i := range 3000 {
		must(tree.AddFile(fmt.Sprintf("dir/file-%06d.go", i), file(i%3, plain)))
	}
	must(tree.AddDir("links", dir))
	for i := range 300 {
		must(tree.AddLink(fmt.Sprintf("links/%03d", i), strings.Repeat("../target", 1+i), dag.Attr{}))
	}
	must(tree.AddDir("none", dir))
	must(tree.AddDir("sharded", dir))
	for i := range 3000 {
		must(tree.AddFile(fmt.Sprintf("sharded/%0200d", i), file(1, plain)))
	}
	_, err = tree.Finish()
	must(err)
	return s
}

// packed returns what is stored of each of values, after it was opened again.
func packed(t testing.TB, p *rowpack.Packer, pack func(dst, value []byte) ([]byte, bool), values [][]byte, most int) (stored [][]byte) {
	t.Helper()
	var buf []byte
	for i, v := range values {
		was := bytes.Clone(v)
		var shrunk bool
		if buf, shrunk = pack(buf, v); !bytes.Equal(was, v) {
			t.Fatalf("value %d was changed", i)
		}
		out := v
		if shrunk {
			if out = bytes.Clone(buf); len(out) > len(v)-len(v)/8 {
				t.Errorf("%d bytes are packed to %d", len(v), len(out))
			}
		}
		got, err := p.Open([]byte("before"), out, most)
		if err != nil || string(got[:6]) != "before" || !bytes.Equal(got[6:], v) {
			t.Fatalf("value %d, %x, opens to other bytes, %v", i, v[:min(len(v), 100)], err)
		}
		stored = append(stored, out)
	}
	return stored
}

func size(values [][]byte) (n int) {
	for _, v := range values {
		n += len(v)
	}
	return n
}

func TestRoundTrip(t *testing.T) {
	s, p := build(t), newPacker(t)
	for _, c := range []struct {
		name   string
		pack   func(dst, value []byte) ([]byte, bool)
		values [][]byte
		most   int
		part   float64 // of the plain size, at most
	}{
		{"nodes", p.Node, s.nodes, dag.MaxBlock, 0.75}, {"rows", p.Row, s.rows, dag.MaxRow, 0.72},
		// What is of another form is not lost.
		{"nodes as rows", p.Row, s.nodes, dag.MaxBlock, 1}, {"rows as nodes", p.Node, s.rows, dag.MaxRow, 1},
	} {
		stored := packed(t, p, c.pack, c.values, c.most)
		part := float64(size(stored)) / float64(size(c.values))
		t.Logf("%s: %d, %.3f of their bytes", c.name, len(stored), part)
		if part > c.part {
			t.Errorf("%s take %.3f of their bytes, want at most %.3f", c.name, part, c.part)
		}
	}
	// A node of 256 chunks is mostly digests. There is little to save beyond the rest.
	chunks := s.nodes[0]
	if got := size(packed(t, p, p.Node, [][]byte{chunks}, dag.MaxBlock)); got > 256*38 {
		t.Errorf("a node of %d bytes and 256 links takes %d", len(chunks), got)
	}
	for _, v := range s.rows {
		if out, shrunk := p.Row(nil, v); v[0] == 1 && shrunk {
			t.Errorf("a row of hashes, %d bytes, takes %d", len(v), len(out))
		}
	}
}

// Every prefix of nodes and rows, and what changed somewhere, comes back as it was.
func TestMalformed(t *testing.T) {
	s, p := build(t), newPacker(t)
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		pack func(dst, value []byte) ([]byte, bool)
		v    []byte
	}{{p.Node, s.nodes[0]}, {p.Node, s.nodes[len(s.nodes)-1]}, {p.Row, slices.MaxFunc(s.rows, func(a, b []byte) int { return len(a) - len(b) })}} {
		v := c.v[:min(len(c.v), 1500)]
		var values [][]byte
		for n := range v {
			values = append(values, v[:n])
			changed := bytes.Clone(v)
			changed[n] ^= byte(1 + r.IntN(255))
			if changed[0] == rowpack.Mark {
				continue // no node and no row
			}
			values = append(values, changed)
		}
		packed(t, p, c.pack, values, dag.MaxRow)
	}
}

// frame is a zstd frame of one raw block.
func frame(plain string) string {
	n := len(plain)
	h := n<<3 | 1
	return "\x28\xb5\x2f\xfd\xa0" + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) + string([]byte{byte(h), byte(h >> 8), byte(h >> 16)}) + plain
}

func digest(b byte) string { return strings.Repeat(string(b), 32) }

// The bytes are pinned: FORMAT.md says them, and what was written opens for ever.
func TestPinned(t *testing.T) {
	p := newPacker(t)
	for name, c := range map[string]struct{ packed, plain string }{
		"no digest":   {"\xc0\x00\x05" + frame("hello"), "hello"},
		"two digests": {"\xc0\x02\x0a" + digest('A') + digest('B') + frame("\x03\x02abcdefgh"), "abc" + digest('A') + "de" + digest('B') + "fgh"},
		"at the ends": {"\xc0\x02\x04" + digest('A') + digest('B') + frame("\x00\x02xy"), digest('A') + "xy" + digest('B')},
		// By the first version of this package: ten links.
		"version 1": {version1(t), links(10)},
	} {
		got, err := p.Open(nil, []byte(c.packed), len(c.plain))
		if err != nil || string(got) != c.plain {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := p.Open(nil, []byte(c.packed), len(c.plain)-1); !errors.Is(err, rowpack.ErrCorrupt) {
			t.Errorf("%s: where less is allowed: %v", name, err)
		}
	}
	out, shrunk := p.Node(nil, []byte(links(10)))
	if got, err := p.Open(nil, out, 1000); !shrunk || err != nil || string(got) != links(10) {
		t.Errorf("ten links: %t, %q, %v", shrunk, got, err)
	}
}

// links are those of a node of chunks whose digests are "00…", "11…" and so on.
func links(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("\x12\x2c\x0a\x24\x01\x55\x12\x20" + digest(byte('0'+i)) + "\x12\x00\x18\xd5\x8b\x01")
	}
	return b.String()
}

// version1 is what the first version of this package made of ten links.
func version1(t testing.TB) string {
	t.Helper()
	sealed, err := hex.DecodeString("28b52ffd2096d500000401080e122c0a2401551220120018d58b0102003b6652bc0e0b")
	if err != nil {
		t.Fatal(err)
	}
	b := "\xc0\x0a\x96\x01"
	for i := range 10 {
		b += digest(byte('0' + i))
	}
	return b + string(sealed)
}

func TestCorrupt(t *testing.T) {
	p := newPacker(t)
	for name, packed := range map[string]string{
		"mark alone":             "\xc0",
		"no size":                "\xc0\x00",
		"number in a long form":  "\xc0\x80\x00\x05" + frame("hello"),
		"size in a long form":    "\xc0\x00\x85\x00" + frame("hello"),
		"endless number":         "\xc0" + strings.Repeat("\xff", 12),
		"no frame":               "\xc0\x00\x05",
		"another size":           "\xc0\x00\x04" + frame("hello"),
		"size beyond the limit":  "\xc0\x00\xe9\x07" + frame(strings.Repeat("x", 1001)),
		"huge size":              "\xc0\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + frame("hello"),
		"huge count":             "\xc0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x05" + frame("hello"),
		"digest missing":         "\xc0\x02\x04" + digest('A') + frame("\x00\x02xy"),
		"bytes too many":         "\xc0\x00\x05" + frame("hello") + "x",
		"gap missing":            "\xc0\x01\x00" + digest('A') + frame(""),
		"gap in a long form":     "\xc0\x01\x03" + digest('A') + frame("\x80\x00x"),
		"gap too long":           "\xc0\x01\x03" + digest('A') + frame("\x03xy"),
		"second gap too long":    "\xc0\x02\x06" + digest('A') + digest('B') + frame("\x02\x03wxyz"),
		"gaps wrap around":       "\xc0\x02\x15" + digest('A') + digest('B') + frame("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x03wxyzwxyzwx"),
		"more than the limit":    "\xc0\x1f\x3e" + strings.Repeat("A", 31*32) + frame(strings.Repeat("\x00", 31)+strings.Repeat("x", 31)),
		"frame with a checksum":  "\xc0\x00\x05" + strings.Replace(frame("hello"), "\xa0", "\xa4", 1) + "abcd",
		"frame that is not zstd": "\xc0\x00\x05hello",
	} {
		got, err := p.Open([]byte("before"), []byte(packed), 1000)
		if !errors.Is(err, rowpack.ErrCorrupt) || string(got) != "before" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// What does not begin with the mark is as it is.
	for _, plain := range []string{"", "\x12", "\x0a\x00", "\x01\xc0"} {
		if got, err := p.Open(nil, []byte(plain), 1000); err != nil || string(got) != plain {
			t.Errorf("%q: %q, %v", plain, got, err)
		}
	}
}

// What does not open again is stored as it is.
func TestCompared(t *testing.T) {
	o, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	p, err := rowpack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, shrunk := p.Node(nil, []byte(links(10))); !shrunk {
		t.Error("ten links are not packed")
	}
	o.Close()
	if _, shrunk := p.Node(nil, []byte(links(10))); shrunk {
		t.Error("ten links are packed, and cannot be opened")
	}
}

// One Packer serves many goroutines.
func TestConcurrent(t *testing.T) {
	s, p := build(t), newPacker(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { packed(t, p, p.Node, s.nodes[:50], dag.MaxBlock) })
		wg.Go(func() { packed(t, p, p.Row, s.rows, dag.MaxRow) })
	}
	wg.Wait()
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("\xc0\x02\x0a" + digest('A') + digest('B') + frame("\x03\x02abcdefgh")))
	f.Add([]byte("\xc0\x00\x05" + frame("hello")))
	f.Add([]byte(version1(f)))
	p := newPacker(f)
	const most = 1 << 16
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := p.Open([]byte("before"), b, most)
		switch {
		case err != nil && (!errors.Is(err, rowpack.ErrCorrupt) || string(got) != "before"):
			t.Errorf("%q, %v", got, err)
		case err == nil && len(b) > 0 && b[0] == rowpack.Mark && len(got) > most+6:
			t.Errorf("%d bytes open to %d", len(b), len(got))
		}
	})
}

func FuzzPack(f *testing.F) {
	s := build(f)
	f.Add(s.nodes[0][:600])
	f.Add(s.nodes[len(s.nodes)-1][:60])
	f.Add(s.rows[0][:min(600, len(s.rows[0]))])
	p := newPacker(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > dag.MaxBlock || len(b) > 0 && b[0] == rowpack.Mark {
			return
		}
		// Long enough to be packed, with what repeats itself.
		for _, v := range [][]byte{b, slices.Concat(b, bytes.Repeat([]byte("0123456789"), 100))} {
			packed(t, p, p.Node, [][]byte{v}, dag.MaxBlock+1000)
			packed(t, p, p.Row, [][]byte{v}, dag.MaxBlock+1000)
		}
	})
}

func benchRows(b *testing.B) (p *rowpack.Packer, node, leaves []byte) {
	s := build(b)
	return newPacker(b), s.nodes[0], slices.MaxFunc(s.rows, func(a, b []byte) int { return int(a[0]) - int(b[0]) })
}

func BenchmarkPack(b *testing.B) {
	p, node, leaves := benchRows(b)
	var buf []byte
	b.Run("node", func(b *testing.B) {
		b.SetBytes(int64(len(node)))
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = p.Node(buf, node)
		}
	})
	b.Run("leaves", func(b *testing.B) {
		b.SetBytes(int64(len(leaves)))
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = p.Row(buf, leaves)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	p, node, leaves := benchRows(b)
	for name, v := range map[string][]byte{"node": node, "leaves": leaves} {
		pack := p.Node
		if name == "leaves" {
			pack = p.Row
		}
		packed, shrunk := pack(nil, v)
		if !shrunk {
			b.Fatal("it is not packed")
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(v)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Open(nil, packed, dag.MaxRow); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
