package dag

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	unixfsio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
)

// The tests of this file hold what we write against boxo, the reference
// implementation: the same chunks and entries give the same blocks, and it
// reads them back.

func newDAGService() (ipld.DAGService, blockstore.Blockstore) {
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	return merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs))), bs
}

// dagService gives boxo what m holds.
func (m *memory) dagService(tb testing.TB) ipld.DAGService {
	tb.Helper()
	ds, bs := newDAGService()
	put := func(c cid.Cid, b []byte) {
		block, err := blocks.NewBlockWithCid(b, c)
		if err == nil {
			err = bs.Put(tb.Context(), block)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	for d, b := range m.nodes {
		put(NodeCID(d), b)
	}
	for d, b := range m.chunks {
		put(RawCID(d), b)
	}
	return ds
}

// cutter is a boxo splitter that gives n chunks as fakeContent makes them.
type cutter struct{ i, n int }

func fakeContent(i int) []byte { return fmt.Appendf(nil, "%0*d", 1+i%7, i) }

func (c *cutter) Reader() io.Reader { return nil }
func (c *cutter) NextBytes() ([]byte, error) {
	if c.i == c.n {
		return nil, io.EOF
	}
	c.i++
	return fakeContent(c.i - 1), nil
}

// contentFile builds the file of the same chunks, and keeps them.
func contentFile(tb testing.TB, m *memory, n int, a Attr) File {
	tb.Helper()
	b := NewFileBuilder(mustProfile(tb, DefaultProfile), m)
	for i := range n {
		c := fakeContent(i)
		d := digestOf(c)
		m.chunks[d] = c
		if err := b.AddChunk(d, len(c)); err != nil {
			tb.Fatal(err)
		}
	}
	f, err := b.Finish(a)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// fileCounts are sizes around every change of shape.
var fileCounts = []int{0, 1, 2, 3, 255, 256, 257, 258, 511, 512, 513, 65536, 65537}

var someTime = time.Date(2026, 11, 20, 12, 34, 56, 789_012_345, time.UTC)

func TestFileAsBoxo(t *testing.T) {
	ds, _ := newDAGService()
	for _, n := range fileCounts {
		for _, a := range []Attr{plain, {Mode: 0o600}, {Mode: 0o4755, Mtime: someTime}, {Mode: 0o644, Mtime: someTime.Truncate(time.Second)}} {
			if a != plain && (n < 2 || n > 1000) {
				continue // boxo puts the small ones without their mode; see TestWrapped
			}
			f := contentFile(t, newMemory(), n, a)
			params := helpers.DagBuilderParams{Maxlinks: 256, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix(), Dagserv: ds, FileModTime: a.Mtime}
			if a.Mode != DefaultFileMode {
				params.FileMode = files.UnixPermsToModePerms(a.Mode)
			}
			h, err := params.New(&cutter{n: n})
			if err != nil {
				t.Fatal(err)
			}
			want, err := balanced.Layout(h)
			if err != nil {
				t.Fatal(err)
			}
			if size, err := want.Size(); err != nil || f.CID != want.Cid() || f.Tsize != size {
				t.Errorf("%d chunks, %+v: got %v of %d, boxo %v of %d, %v", n, a, f.CID, f.Tsize, want.Cid(), size, err)
			}
			if f.Chunks != uint64(n) {
				t.Errorf("%d chunks: counted %d", n, f.Chunks)
			}
		}
	}
}

// A file that would be a raw leaf is wrapped when it has a mode or time.
func TestWrapped(t *testing.T) {
	for _, n := range []int{0, 1} {
		for _, a := range []Attr{{Mode: 0o600}, {Mode: 0o4755}, {Mode: 0}, {Mode: 0o644, Mtime: someTime}} {
			fs := unixfs.NewFSNode(unixfs.TFile)
			nd := new(merkledag.ProtoNode)
			if err := nd.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				leaf, err := merkledag.NewRawNodeWPrefix(fakeContent(i), merkledag.V1CidPrefix())
				if err != nil {
					t.Fatal(err)
				}
				if err := nd.AddNodeLink("", leaf); err != nil {
					t.Fatal(err)
				}
				fs.AddBlockSize(uint64(len(fakeContent(i))))
			}
			if a.Mode != DefaultFileMode {
				fs.SetModeFromUnixPermissions(a.Mode)
			}
			fs.SetModTime(a.Mtime)
			data, err := fs.GetBytes()
			if err != nil {
				t.Fatal(err)
			}
			if a.Mode == 0 { // boxo cannot say "no permissions at all"
				data = append(data, fsMode, 0)
			}
			nd.SetData(data)
			if f := contentFile(t, newMemory(), n, a); f.CID != nd.Cid() {
				t.Errorf("%d chunks, %+v: got %v, boxo %v", n, a, f.CID, nd.Cid())
			}
		}
	}
}

func boxoDirectory(t *testing.T, ds ipld.DAGService, a Attr) unixfsio.Directory {
	t.Helper()
	mode := os.FileMode(0)
	if a.Mode != DefaultDirMode {
		mode = files.UnixPermsToModePerms(a.Mode)
	}
	dir, err := unixfsio.NewDirectory(ds, unixfsio.WithCidBuilder(merkledag.V1CidPrefix()), unixfsio.WithStat(mode, a.Mtime),
		unixfsio.WithSizeEstimationMode(unixfsio.SizeEstimationBlock))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Directories of every size up to and beyond the threshold are as boxo makes
// them. The threshold is met exactly by the length of the last name.
func TestDirectoryAsBoxo(t *testing.T) {
	ds, _ := newDAGService()
	p := mustProfile(t, DefaultProfile)
	m := newMemory()
	f := contentFile(t, m, 1, plain)
	leaf, err := merkledag.NewRawNodeWPrefix(fakeContent(0), merkledag.V1CidPrefix())
	if err != nil {
		t.Fatal(err)
	}
	names := func(n, last int) []string {
		s := make([]string, n)
		for i := range s {
			s[i] = fmt.Sprintf("name-%09d", i)
		}
		if n > 0 {
			s[n-1] += string(bytes.Repeat([]byte("x"), last))
		}
		return s
	}
	cases := [][]string{names(0, 0), names(1, 0), names(2, 0), names(1000, 0), names(9000, 0)}
	l := link{codec: cid.Raw, tsize: f.Tsize}
	const short = len("name-000000000")
	count := (p.dirLimit-dataSize(2))/l.size(short) - 1
	for last := range MaxName - short + 1 {
		size := (count-1)*l.size(short) + l.size(short+last) + dataSize(2)
		if size >= p.dirLimit-1 && size <= p.dirLimit+1 {
			cases = append(cases, names(count, last))
		}
	}
	sharded := 0
	for _, names := range cases {
		for _, a := range []Attr{{Mode: DefaultDirMode}, {Mode: 0o1777, Mtime: someTime}} {
			dir := boxoDirectory(t, ds, a)
			entries := []entry{{kind: KindDir, attr: a}}
			for _, name := range names {
				if err := dir.AddChild(t.Context(), name, leaf); err != nil {
					t.Fatal(err)
				}
				entries = append(entries, entry{path: name, kind: KindFile, file: f})
			}
			want, err := dir.GetNode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := buildTree(p, m, entries)
			if err != nil {
				t.Fatal(err)
			}
			if size, err := want.Size(); err != nil || got.Root != want.Cid() || got.Tsize != size {
				t.Errorf("%d entries, %+v: got %v of %d, boxo %v of %d, %v", len(names), a, got.Root, got.Tsize, want.Cid(), size, err)
			}
			if n, err := parseNode(m.nodes[digestOfCID(t, got.Root)]); err != nil {
				t.Error(err)
			} else if n.typ == typeHAMT {
				sharded++
			}
		}
	}
	if sharded != 6 { // 9000 and one byte above the limit; with attributes also the limit and one below
		t.Errorf("%d directories were sharded", sharded)
	}
}

// A directory that is sharded three levels deep is as boxo's hamt makes it.
func TestHAMTAsBoxo(t *testing.T) {
	ds, _ := newDAGService()
	p := mustProfile(t, DefaultProfile)
	m := newMemory()
	leaf, err := merkledag.NewRawNodeWPrefix(fakeContent(0), merkledag.V1CidPrefix())
	if err != nil {
		t.Fatal(err)
	}
	shard, err := hamt.NewShard(ds, 256)
	if err != nil {
		t.Fatal(err)
	}
	shard.SetCidBuilder(merkledag.V1CidPrefix())
	shard.SetStat(0o700, someTime)
	f := contentFile(t, m, 1, plain)
	entries := []entry{{kind: KindDir, attr: Attr{Mode: 0o700, Mtime: someTime}}}
	for i := range 20000 {
		// Names that are neither text nor of one length.
		name := fmt.Sprintf("\xff%x\n\xfe", i*i)
		entries = append(entries, entry{path: name, kind: KindFile, file: f})
		if err := shard.Set(t.Context(), name, leaf); err != nil {
			t.Fatal(err)
		}
	}
	want, err := shard.Node()
	if err != nil {
		t.Fatal(err)
	}
	got, err := buildTree(p, m, canonical(entries))
	if err != nil {
		t.Fatal(err)
	}
	if size, err := want.Size(); err != nil || got.Root != want.Cid() || got.Tsize != size {
		t.Errorf("got %v of %d, boxo %v of %d, %v", got.Root, got.Tsize, want.Cid(), size, err)
	}
	if n := len(collect(t, List(t.Context(), m.reader(), got.Root))); n != 20000 {
		t.Errorf("listed %d entries", n)
	}
}

// boxoEntry is what boxo reads of an entry.
type boxoEntry struct {
	Kind    Kind
	Mode    os.FileMode
	Mtime   time.Time
	Content string
}

// readBoxo reads a whole tree through boxo.
func readBoxo(ctx context.Context, ds ipld.DAGService, c cid.Cid, path string, into map[string]boxoEntry) error {
	nd, err := ds.Get(ctx, c)
	if err != nil {
		return err
	}
	fs := new(unixfs.FSNode)
	if pn, ok := nd.(*merkledag.ProtoNode); ok {
		if fs, err = unixfs.FSNodeFromBytes(pn.Data()); err != nil {
			return err
		}
	}
	e := boxoEntry{Kind: KindFile, Mode: fs.Mode(), Mtime: fs.ModTime().UTC()}
	if dir, err := unixfsio.NewDirectoryFromNode(ds, nd); err == nil {
		e.Kind = KindDir
		into[path] = e
		return dir.ForEachLink(ctx, func(l *ipld.Link) error {
			return readBoxo(ctx, ds, l.Cid, path+"/"+l.Name, into)
		})
	}
	if fs.Type() == unixfs.TSymlink {
		e.Kind, e.Content = KindLink, string(fs.Data())
		into[path] = e
		return nil
	}
	r, err := unixfsio.NewDagReader(ctx, nd, ds)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	e.Content = string(b)
	into[path] = e
	return err
}

// boxo reads our trees back: content, modes, times, links and names.
func TestBoxoReads(t *testing.T) {
	m := newMemory()
	p := mustProfile(t, "scale-fixed-1")
	big := stream("big", 300*65536+1)
	file := func(content []byte, a Attr) File { return m.put(t, p, content, a) }
	entries := []entry{
		{kind: KindDir, attr: Attr{Mode: 0o700, Mtime: someTime}},
		dirEntry("empty"),
		{path: "empty file", kind: KindFile, file: file(nil, plain)},
		{path: "empty file 0600", kind: KindFile, file: file(nil, Attr{Mode: 0o600})},
		{path: "one", kind: KindFile, file: file([]byte("1"), plain)},
		{path: "setuid", kind: KindFile, file: file([]byte("s"), Attr{Mode: 0o4755, Mtime: someTime})},
		{path: "big", kind: KindFile, file: file(big, Attr{Mode: 0o600})},
		{path: "link", kind: KindLink, target: "../\xff", attr: Attr{Mtime: someTime}},
		{path: "new\nline \xff", kind: KindFile, file: file([]byte("x"), plain)},
		dirEntry("many"),
	}
	want := map[string]boxoEntry{
		"":                 {Kind: KindDir, Mode: os.ModeDir | 0o700, Mtime: someTime},
		"/empty":           {Kind: KindDir},
		"/empty file":      {Kind: KindFile},
		"/empty file 0600": {Kind: KindFile, Mode: 0o600},
		"/one":             {Kind: KindFile, Content: "1"},
		"/setuid":          {Kind: KindFile, Content: "s", Mode: os.ModeSetuid | 0o755, Mtime: someTime},
		"/big":             {Kind: KindFile, Content: string(big), Mode: 0o600},
		"/link":            {Kind: KindLink, Content: "../\xff", Mtime: someTime},
		"/new\nline \xff":  {Kind: KindFile, Content: "x"},
		"/many":            {Kind: KindDir},
	}
	for i := range 5000 {
		name := fmt.Sprintf("%0*d", 1+i%30, i)
		content := []byte{byte(i)}
		entries = append(entries, entry{path: "many/" + name, kind: KindFile, file: file(content, plain)})
		want["/many/"+name] = boxoEntry{Kind: KindFile, Content: string(content)}
	}
	tree, err := buildTree(p, m, canonical(entries))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]boxoEntry{}
	if err := readBoxo(t.Context(), m.dagService(t), tree.Root, "", got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
