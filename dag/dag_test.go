package dag

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

var errMissing = errors.New("missing")

// memory is a Sink and a Reader that checks what it is given.
type memory struct {
	nodes  map[Digest][]byte
	rows   map[Hash][]byte
	chunks map[Digest][]byte // filled by tests that need the content
}

func newMemory() *memory {
	return &memory{nodes: map[Digest][]byte{}, rows: map[Hash][]byte{}, chunks: map[Digest][]byte{EmptyDigest: {}}}
}

func (m *memory) Node(d Digest, block []byte) error {
	if sha256.Sum256(block) != d {
		return fmt.Errorf("node %v has another digest", d)
	}
	if _, ok := m.nodes[d]; !ok {
		m.nodes[d] = bytes.Clone(block)
	}
	return nil
}

func (m *memory) Row(h Hash, row []byte) error {
	if len(row) > MaxRow {
		return fmt.Errorf("row of %d bytes", len(row))
	}
	if old, ok := m.rows[h]; ok && !bytes.Equal(old, row) {
		return fmt.Errorf("two rows of the name %v", h)
	}
	m.rows[h] = bytes.Clone(row)
	return nil
}

// reader is the memory's other side: the method names are the same.
func (m *memory) reader() Reader { return memoryReader{m} }

type memoryReader struct{ m *memory }

func (r memoryReader) Node(ctx context.Context, d Digest) ([]byte, error) {
	if b, ok := r.m.nodes[d]; ok {
		return b, ctx.Err()
	}
	return nil, fmt.Errorf("node %v: %w", d, errMissing)
}

func (r memoryReader) Row(ctx context.Context, h Hash) ([]byte, error) {
	if b, ok := r.m.rows[h]; ok {
		return b, ctx.Err()
	}
	return nil, fmt.Errorf("row %v: %w", h, errMissing)
}

// stream returns bytes that any language can make: SHA-256 of the seed and a
// big-endian 64-bit counter, block after block.
func stream(seed string, size int) []byte {
	b := make([]byte, 0, size+sha256.Size)
	in := append([]byte(seed), make([]byte, 8)...)
	for i := uint64(0); len(b) < size; i++ {
		binary.BigEndian.PutUint64(in[len(seed):], i)
		h := sha256.Sum256(in)
		b = append(b, h[:]...)
	}
	return b[:size]
}

func mustProfile(tb testing.TB, name string) *Profile {
	tb.Helper()
	p, err := LookupProfile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// fakeChunk is a chunk of whose content only the digest matters.
func fakeChunk(i int) (Digest, int) {
	return sha256.Sum256([]byte(fmt.Sprint("chunk ", i))), 1 + i*7919%65536
}

// fakeFile builds a file of n chunks.
func fakeFile(tb testing.TB, b *FileBuilder, n int, a Attr) File {
	tb.Helper()
	for i := range n {
		if err := b.AddChunk(fakeChunk(i)); err != nil {
			tb.Fatal(err)
		}
	}
	f, err := b.Finish(a)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

var plain = Attr{Mode: DefaultFileMode}

// put hashes content and keeps the chunks.
func (m *memory) put(tb testing.TB, p *Profile, content []byte, a Attr) File {
	tb.Helper()
	f, err := HashFile(tb.Context(), p, bytes.NewReader(content), m, a)
	if err != nil {
		tb.Fatal(err)
	}
	start := 0
	for _, end := range p.Splitter().Split(nil, content, true) {
		m.chunks[sha256.Sum256(content[start:end])] = content[start:end]
		start = end
	}
	return f
}

// An entry is one of a plain model of a tree.
type entry struct {
	path   string
	kind   Kind
	attr   Attr
	file   File
	target string
}

func (e entry) key() string {
	if e.kind == KindDir {
		return e.path + "/"
	}
	return e.path
}

// canonical sorts entries; the root comes first.
func canonical(entries []entry) []entry {
	slices.SortFunc(entries, func(a, b entry) int {
		if (a.path == "") != (b.path == "") {
			return len(a.path) - len(b.path)
		}
		return strings.Compare(a.key(), b.key())
	})
	return entries
}

func buildTree(p *Profile, s Sink, entries []entry) (Tree, error) {
	return addTree(NewTreeBuilder(p, s), entries)
}

func addTree(b *TreeBuilder, entries []entry) (Tree, error) {
	for _, e := range entries {
		var err error
		switch e.kind {
		case KindDir:
			err = b.AddDir(e.path, e.attr)
		case KindFile:
			err = b.AddFile(e.path, e.file)
		case KindLink:
			err = b.AddLink(e.path, e.target, e.attr)
		}
		if err != nil {
			return Tree{}, err
		}
	}
	return b.Finish()
}

func mustTree(tb testing.TB, s Sink, entries []entry) Tree {
	tb.Helper()
	t, err := buildTree(mustProfile(tb, DefaultProfile), s, entries)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func dirEntry(path string) entry {
	return entry{path: path, kind: KindDir, attr: Attr{Mode: DefaultDirMode}}
}

func collect[T any](tb testing.TB, seq iter.Seq2[T, error]) []T {
	tb.Helper()
	var all []T
	for v, err := range seq {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func firstError[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCIDs(t *testing.T) {
	d := Digest(sha256.Sum256([]byte("x")))
	for _, c := range []cid.Cid{RawCID(d), NodeCID(d)} {
		if got, err := DigestOf(c); err != nil || got != d {
			t.Errorf("DigestOf(%v) = %v, %v", c, got, err)
		}
		if p := c.Prefix(); p.Version != 1 || p.MhType != 0x12 || p.MhLength != 32 {
			t.Errorf("%v has prefix %+v", c, p)
		}
	}
	if got := RawCID(EmptyDigest).String(); got != "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku" {
		t.Errorf("empty block is %s", got)
	}
	for _, s := range []string{
		"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", // version 0
		"bafkqaaa", // identity
		"bafk2bzacedhf5ymkgqmptlakcjkm4jnkpfcjpimr6zqoxq2bnhcvhgwbhq4ew", // blake2b
		"bagiacgza", // not a CID
	} {
		c, err := cid.Decode(s)
		if err != nil {
			continue
		}
		if _, err := DigestOf(c); !errors.Is(err, ErrFormat) {
			t.Errorf("DigestOf(%v) = %v", c, err)
		}
	}
	if _, err := DigestOf(cid.Undef); !errors.Is(err, ErrFormat) {
		t.Errorf("DigestOf(undefined) = %v", err)
	}
}

func TestProfiles(t *testing.T) {
	names := ProfileNames()
	if want := []string{"scale-1", "scale-fixed-1"}; !slices.Equal(names, want) {
		t.Fatalf("profiles %q, want %q", names, want)
	}
	for _, name := range names {
		if p := mustProfile(t, name); p.Name != name || p.Splitter().Max() > MaxBlock {
			t.Errorf("profile %q: %+v", name, p)
		}
	}
	if _, err := LookupProfile("scale-0"); !errors.Is(err, ErrProfile) {
		t.Errorf("unknown profile: %v", err)
	}
}

// The numbers of kinds are hashed and stored.
func TestNumbers(t *testing.T) {
	if KindFile != 1 || KindLink != 2 || KindDir != 3 || hashRow != 1 || leafRow != 2 || chunkLeaf != 1 || fileLeaf != 2 {
		t.Error("a number of the format has changed")
	}
}

func TestBuilderRefuses(t *testing.T) {
	p := mustProfile(t, DefaultProfile)
	file := fakeFile(t, NewFileBuilder(p, discard{}), 1, plain)
	huge := File{CID: file.CID, Size: maxFileSize, Chunks: maxFileSize}
	bulky := File{CID: file.CID, Tsize: 1<<63 - 1, Size: 1, Chunks: 1}
	long := strings.Repeat("n", MaxName)
	deep := strings.Repeat(long+"/", 15) + strings.Repeat("n", 127) + "/" + strings.Repeat("n", 128)
	var deepDirs []entry
	for i := range deep {
		if deep[i] == '/' {
			deepDirs = append(deepDirs, dirEntry(deep[:i]))
		}
	}
	for _, c := range []struct {
		name    string
		entries []entry
		want    error
	}{
		{"no root", []entry{{path: "a", kind: KindFile, file: file}}, ErrOrder},
		{"nothing", nil, ErrOrder},
		{"two roots", []entry{dirEntry(""), dirEntry("")}, ErrPath},
		{"dot", []entry{dirEntry(""), dirEntry(".")}, ErrPath},
		{"dot dot", []entry{dirEntry(""), dirEntry("..")}, ErrPath},
		{"absolute", []entry{dirEntry(""), {path: "/a", kind: KindFile, file: file}}, ErrPath},
		{"final slash", []entry{dirEntry(""), {path: "a/", kind: KindFile, file: file}}, ErrPath},
		{"empty name", []entry{dirEntry(""), {path: "", kind: KindFile, file: file}}, ErrPath},
		{"NUL", []entry{dirEntry(""), {path: "a\x00", kind: KindFile, file: file}}, ErrPath},
		{"longest name", []entry{dirEntry(""), {path: long, kind: KindFile, file: file}}, nil},
		{"name too long", []entry{dirEntry(""), {path: long + "n", kind: KindFile, file: file}}, ErrPath},
		{"longest path", append(append([]entry{dirEntry("")}, deepDirs...), entry{path: deep, kind: KindFile, file: file}), nil},
		{"path too long", append(append([]entry{dirEntry("")}, deepDirs...), entry{path: deep + "n", kind: KindFile, file: file}), ErrPath},
		{"no directory", []entry{dirEntry(""), {path: "a/b", kind: KindFile, file: file}}, ErrOrder},
		{"below a file", []entry{dirEntry(""), {path: "a", kind: KindFile, file: file}, {path: "a/b", kind: KindFile, file: file}}, ErrOrder},
		{"twice", []entry{dirEntry(""), {path: "a", kind: KindFile, file: file}, {path: "a", kind: KindLink, target: "x"}}, ErrOrder},
		{"file and directory of one name", []entry{dirEntry(""), {path: "a", kind: KindFile, file: file}, {path: "a.b", kind: KindFile, file: file}, dirEntry("a")}, ErrOrder},
		{"backwards", []entry{dirEntry(""), {path: "b", kind: KindFile, file: file}, {path: "a", kind: KindFile, file: file}}, ErrOrder},
		{"backwards by name, forwards by key", []entry{dirEntry(""), {path: "a.b", kind: KindFile, file: file}, dirEntry("a")}, nil},
		{"directory before its place", []entry{dirEntry(""), dirEntry("a"), {path: "a.b", kind: KindFile, file: file}}, ErrOrder},
		{"empty target", []entry{dirEntry(""), {path: "a", kind: KindLink}}, ErrPath},
		{"longest target", []entry{dirEntry(""), {path: "a", kind: KindLink, target: strings.Repeat("t", MaxTarget)}}, nil},
		{"target too long", []entry{dirEntry(""), {path: "a", kind: KindLink, target: strings.Repeat("t", MaxTarget+1)}}, ErrPath},
		{"target with NUL", []entry{dirEntry(""), {path: "a", kind: KindLink, target: "a\x00"}}, ErrPath},
		{"mode", []entry{{path: "", kind: KindDir, attr: Attr{Mode: 0o10000}}}, ErrAttr},
		{"time", []entry{{path: "", kind: KindDir, attr: Attr{Mtime: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}}, ErrAttr},
		{"file without CID", []entry{dirEntry(""), {path: "a", kind: KindFile, file: File{ChunkRoot: emptyRoot}}}, ErrFormat},
		{"file of a ledger entry's CID", []entry{dirEntry(""), {path: "a", kind: KindFile, file: File{CID: makeCID(cid.DagCBOR, Digest{}), ChunkRoot: emptyRoot}}}, ErrFormat},
		{"more bytes than can be counted", []entry{dirEntry(""), {path: "a", kind: KindFile, file: huge}, {path: "b", kind: KindFile, file: huge}}, ErrRange},
		{"more bytes of blocks than can be counted", []entry{dirEntry(""), {path: "a", kind: KindFile, file: bulky}, {path: "b", kind: KindFile, file: bulky}}, ErrRange},
		{"time of a link", []entry{dirEntry(""), {path: "a", kind: KindLink, target: "x", attr: Attr{Mtime: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)}}}, ErrAttr},
		{"file of no chunks with bytes", []entry{dirEntry(""), {path: "a", kind: KindFile, file: File{CID: file.CID, Size: 1}}}, ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := buildTree(p, newMemory(), c.entries); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestBuilderErrorsStay(t *testing.T) {
	b := NewTreeBuilder(mustProfile(t, DefaultProfile), discard{})
	if err := b.AddDir("", Attr{}); err != nil {
		t.Fatal(err)
	}
	first := b.AddDir("..", Attr{})
	if err := b.AddDir("a", Attr{}); err != first {
		t.Errorf("after %v: %v", first, err)
	}
	if _, err := b.Finish(); err != first {
		t.Errorf("after %v: %v", first, err)
	}

	b = NewTreeBuilder(mustProfile(t, DefaultProfile), discard{})
	if err := b.AddDir("", Attr{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := b.AddDir("", Attr{}); !errors.Is(err, ErrOrder) {
		t.Errorf("add after finish: %v", err)
	}
	if _, err := b.Finish(); !errors.Is(err, ErrOrder) {
		t.Errorf("finish twice: %v", err)
	}
}

func TestFileBuilderRefuses(t *testing.T) {
	p := mustProfile(t, DefaultProfile)
	b := NewFileBuilder(p, discard{})
	for _, size := range []int{-1, 0, p.Splitter().Max() + 1} {
		if err := b.AddChunk(Digest{}, size); !errors.Is(err, ErrRange) {
			t.Errorf("chunk of %d bytes: %v", size, err)
		}
	}
	b.size = maxFileSize
	if err := b.AddChunk(Digest{}, 1); !errors.Is(err, ErrRange) {
		t.Errorf("chunk beyond the largest file: %v", err)
	}
	if _, err := b.Finish(Attr{Mode: 1 << 31}); !errors.Is(err, ErrAttr) {
		t.Errorf("mode: %v", err)
	}
}

// failingSink fails at the n-th call.
type failingSink struct{ n int }

var errSink = errors.New("sink is full")

func (s *failingSink) tick() error {
	if s.n--; s.n < 0 {
		return errSink
	}
	return nil
}
func (s *failingSink) Node(Digest, []byte) error { return s.tick() }
func (s *failingSink) Row(Hash, []byte) error    { return s.tick() }

// An error of the sink, at whatever call, ends the build.
func TestSinkErrors(t *testing.T) {
	p := mustProfile(t, DefaultProfile)
	build := func(s Sink) error {
		fb := NewFileBuilder(p, s)
		for i := range 600 {
			if err := fb.AddChunk(fakeChunk(i)); err != nil {
				return err
			}
		}
		f, err := fb.Finish(plain)
		if err != nil {
			return err
		}
		entries := []entry{dirEntry("")}
		for i := range 260 {
			entries = append(entries, dirEntry(fmt.Sprintf("d%03d", i)), entry{path: fmt.Sprintf("d%03d/f", i), kind: KindFile, file: f})
		}
		_, err = buildTree(p, s, append(entries, entry{path: "link", kind: KindLink, target: "x"}))
		return err
	}
	for n := 0; ; n++ {
		err := build(&failingSink{n})
		if err == nil {
			if n < 260 {
				t.Errorf("built with %d calls", n)
			}
			return
		}
		if !errors.Is(err, errSink) {
			t.Fatalf("failing at call %d: %v", n, err)
		}
	}
}

func digestOf(b []byte) Digest { return sha256.Sum256(b) }

func digestOfCID(tb testing.TB, c cid.Cid) Digest {
	tb.Helper()
	d, err := DigestOf(c)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}
