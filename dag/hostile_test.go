package dag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
)

// encode is the inverse of parseNode, by way of the fields alone.
func (n *node) encode() []byte {
	var b []byte
	for _, l := range n.links {
		b = appendLink(b, l.link, "", l.name)
	}
	var m []byte
	number := func(tag byte, v uint64) {
		if n.fields&field(int(tag)) != 0 {
			m = binary.AppendUvarint(append(m, tag), v)
		}
	}
	number(fsType, n.typ)
	if n.fields&field(fsData) != 0 {
		m = binary.AppendUvarint(append(m, fsData), uint64(len(n.data)))
		m = append(m, n.data...)
	}
	number(fsFilesize, n.filesize)
	for _, size := range n.blocksizes {
		m = binary.AppendUvarint(append(m, fsBlocksize), size)
	}
	number(fsHashType, n.hashType)
	number(fsFanout, n.fanout)
	number(fsMode, n.mode)
	m = appendAttr(m, Attr{Mode: DefaultFileMode, Mtime: n.mtime}, DefaultFileMode)
	return appendData(b, m)
}

func rawLink(size uint64) namedLink {
	return namedLink{link: link{codec: cid.Raw, digest: Digest{1}, tsize: size}}
}

func named(name string, l namedLink) namedLink {
	l.name = []byte(name)
	return l
}

func fileNode(sizes ...uint64) *node {
	n := &node{fsMessage: fsMessage{fields: field(fsType) | field(fsFilesize), typ: typeFile}}
	for _, s := range sizes {
		n.links = append(n.links, rawLink(s))
		n.blocksizes = append(n.blocksizes, s)
		n.filesize += s
		n.fields |= field(fsBlocksize)
	}
	return n
}

func dirNode(names ...string) *node {
	n := &node{fsMessage: fsMessage{fields: field(fsType), typ: typeDirectory}}
	for _, name := range names {
		n.links = append(n.links, named(name, rawLink(1)))
	}
	return n
}

func shardNode(bitfield []byte, names ...string) *node {
	n := dirNode(names...)
	n.fields |= field(fsData) | field(fsHashType) | field(fsFanout)
	n.typ, n.data, n.hashType, n.fanout = typeHAMT, bitfield, hamtHash, hamtWidth
	return n
}

func linkNode(target string) *node {
	return &node{fsMessage: fsMessage{fields: field(fsType) | field(fsData), typ: typeSymlink, data: []byte(target)}}
}

func change(n *node, f func(*node)) *node {
	f(n)
	return n
}

func TestParseNode(t *testing.T) {
	good := map[string]*node{
		"empty file": fileNode(),
		"file":       fileNode(1, 2, MaxBlock),
		"largest file": change(fileNode(1), func(n *node) {
			n.blocksizes[0] = maxFileSize
			n.filesize = maxFileSize
			n.links[0].codec = cid.DagProtobuf
		}),
		"full node":       fileNode(make1s(256)...),
		"no permissions":  change(fileNode(), func(n *node) { n.fields |= field(fsMode) }),
		"all permissions": change(fileNode(), func(n *node) { n.fields |= field(fsMode); n.mode = 0o7777 }),
		"time":            change(fileNode(), func(n *node) { n.mtime = someTime }),
		"empty directory": dirNode(),
		"directory":       dirNode("a", "a\n", "b", "\xff"),
		"shard":           shardNode([]byte{0x80, 0x01}, "00a", "0Fb"),
		"link":            linkNode("../a/./b//"),
	}
	for name, n := range good {
		block := n.encode()
		got, err := parseNode(block)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(got.encode(), block) {
			t.Errorf("%s: %x parsed and encoded is %x", name, block, got.encode())
		}
		for i := range block {
			if _, err := parseNode(block[:i]); !errors.Is(err, ErrFormat) {
				t.Errorf("%s, %d bytes of %d: %v", name, i, len(block), err)
			}
		}
		if _, err := parseNode(append(block, 0)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s and a byte: %v", name, err)
		}
	}
	for name, n := range badNodes() {
		if _, err := parseNode(n.encode()); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseNode(make([]byte, MaxBlock+1)); !errors.Is(err, ErrFormat) {
		t.Errorf("block too large: %v", err)
	}
}

func badNodes() map[string]*node {
	set := func(tag int) func(*node) { return func(n *node) { n.fields |= field(tag) } }
	clear := func(tag int) func(*node) { return func(n *node) { n.fields &^= field(tag) } }
	return map[string]*node{
		"type 0":                    change(fileNode(), func(n *node) { n.typ = 0 }),
		"metadata":                  change(fileNode(), func(n *node) { n.typ = 3 }),
		"type 6":                    change(fileNode(), func(n *node) { n.typ = 6 }),
		"file with data":            change(fileNode(), func(n *node) { n.fields |= field(fsData); n.data = []byte("x") }),
		"file without size":         change(fileNode(), clear(fsFilesize)),
		"file with fan-out":         change(fileNode(), set(fsFanout)),
		"file of another size":      change(fileNode(1, 2), func(n *node) { n.filesize++ }),
		"file with a size too many": change(fileNode(1, 2), func(n *node) { n.blocksizes = append(n.blocksizes, 1); n.filesize++ }),
		"file with a size too few":  change(fileNode(1, 2), func(n *node) { n.blocksizes = n.blocksizes[:1]; n.filesize = 1 }),
		"file of 257 links":         fileNode(make1s(257)...),
		"file with an empty chunk":  fileNode(1, 0),
		"file with a named link":    change(fileNode(1), func(n *node) { n.links[0].name = []byte("x") }),
		"file of chunks and nodes":  change(fileNode(1, 1), func(n *node) { n.links[1].codec = cid.DagProtobuf }),
		"chunk too large":           fileNode(MaxBlock + 1),
		"file too large": change(fileNode(1), func(n *node) {
			n.blocksizes[0]++
			n.blocksizes[0] = maxFileSize + 1
			n.filesize = maxFileSize + 1
			n.links[0].codec = cid.DagProtobuf
		}),
		"sizes that overflow": change(fileNode(1, 1), func(n *node) {
			n.blocksizes[0] = 1<<64 - 1
			n.filesize = 0
			n.links[0].codec = cid.DagProtobuf
			n.links[1].codec = cid.DagProtobuf
		}),
		"mode with more bits":         change(fileNode(), func(n *node) { n.fields |= field(fsMode); n.mode = 0o100644 }),
		"directory with a size":       change(dirNode(), set(fsFilesize)),
		"directory with data":         change(dirNode(), set(fsData)),
		"name dot":                    dirNode("."),
		"name dot dot":                dirNode(".."),
		"no name":                     dirNode(""),
		"name with a slash":           dirNode("a/b"),
		"name with NUL":               dirNode("a\x00"),
		"name too long":               dirNode(strings.Repeat("n", 256)),
		"names out of order":          dirNode("b", "a"),
		"names twice":                 dirNode("a", "a"),
		"shard without bitfield":      shardNode(nil),
		"shard with leading zero":     shardNode([]byte{0, 1}, "00a"),
		"bitfield too long":           shardNode(append([]byte{1}, make([]byte, 32)...), "00a"),
		"shard with a link missing":   shardNode([]byte{3}, "00a"),
		"shard with a link too many":  shardNode([]byte{1}, "00a", "01b"),
		"shard with another slot":     shardNode([]byte{1}, "01a"),
		"shard with small hex":        shardNode([]byte{4, 0}, "0aa"),
		"shard with a short name":     shardNode([]byte{1}, "0"),
		"shard with a bad name":       shardNode([]byte{1}, "00.."),
		"shard with a chunk as shard": shardNode([]byte{1}, "00"),
		"shard of another hash":       change(shardNode([]byte{1}, "00a"), func(n *node) { n.hashType = 0x23 }),
		"shard of another fan-out":    change(shardNode([]byte{1}, "00a"), func(n *node) { n.fanout = 16 }),
		"shard with a size":           change(shardNode([]byte{1}, "00a"), set(fsFilesize)),
		"link to nothing":             linkNode(""),
		"link with NUL":               linkNode("a\x00"),
		"link too long":               linkNode(strings.Repeat("x", 4096)),
		"link with a size":            change(linkNode("x"), set(fsFilesize)),
		"link with a child":           change(linkNode("x"), func(n *node) { n.links = append(n.links, rawLink(1)) }),
		"codec dag-cbor":              change(dirNode("a"), func(n *node) { n.links[0].codec = cid.DagCBOR }),
	}
}

func make1s(n int) []uint64 {
	s := make([]uint64, n)
	for i := range s {
		s[i] = 1
	}
	return s
}

// Encodings that protobuf allows, or not even that.
func badBlocks() map[string]string {
	return map[string]string{
		"nothing":                     "",
		"no data":                     "\x12\x00",
		"data before links":           "\x0a\x02\x08\x01\x12\x00",
		"type in two bytes":           "\x0a\x03\x08\x81\x00",
		"length in two bytes":         "\x0a\x82\x00\x08\x01",
		"type twice":                  "\x0a\x04\x08\x01\x08\x01",
		"fields out of order":         "\x0a\x04\x18\x00\x08\x02",
		"unknown field":               "\x0a\x04\x08\x01\x48\x00",
		"packed sizes":                "\x0a\x06\x08\x02\x18\x00\x22\x00",
		"type as bytes":               "\x0a\x02\x0a\x00",
		"endless number":              "\x0a\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"time without seconds":        "\x0a\x04\x08\x01\x42\x00",
		"time with nanos 0":           "\x0a\x0b\x08\x01\x42\x07\x08\x01\x15\x00\x00\x00\x00",
		"time with nanos 1e9":         "\x0a\x0b\x08\x01\x42\x07\x08\x01\x15\x00\xca\x9a\x3b",
		"time with something else":    "\x0a\x08\x08\x01\x42\x04\x08\x01\x18\x01",
		"time before the year 1":      "\x0a\x0f\x08\x01\x42\x0b\x08\xff\x91\xb8\xc3\x98\xfe\xff\xff\xff\x01",
		"time that is zero":           "\x0a\x0f\x08\x01\x42\x0b\x08\x80\x92\xb8\xc3\x98\xfe\xff\xff\xff\x01",
		"time after the year 9999":    "\x0a\x0b\x08\x01\x42\x07\x08\x80\x83\xd1\xff\xaf\x07",
		"link without hash":           "\x12\x04\x12\x00\x18\x00\x0a\x02\x08\x01",
		"link with a short hash":      "\x12\x0a\x0a\x04\x01\x55\x12\x20\x12\x00\x18\x00\x0a\x02\x08\x01",
		"link of identity":            "\x12\x0a\x0a\x04\x01\x55\x00\x00\x12\x00\x18\x00\x0a\x02\x08\x01",
		"link longer than the block":  "\x12\xff\xff\xff\xff\x0f",
		"data longer than the block":  "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"something after the message": "\x0a\x02\x08\x01\x0a\x00",
	}
}

func TestParseNodeBytes(t *testing.T) {
	for name, block := range badBlocks() {
		if _, err := parseNode([]byte(block)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := appendLink(nil, rawLink(7).link, "", []byte("n"))
	data := "\x0a\x02\x08\x01"
	if _, err := parseNode(append(bytes.Clone(good), data...)); err != nil {
		t.Fatal(err)
	}
	noSize := bytes.Clone(good[:len(good)-2])
	noSize[1] -= 2
	if _, err := parseNode(append(noSize, data...)); !errors.Is(err, ErrFormat) {
		t.Errorf("link without size: %v", err)
	}
	noName := append(bytes.Clone(good[:len(good)-5]), good[len(good)-2:]...)
	noName[1] -= 3
	if _, err := parseNode(append(noName, data...)); !errors.Is(err, ErrFormat) {
		t.Errorf("link without name: %v", err)
	}
	v0 := bytes.Clone(good)
	v0[4] = 0
	if _, err := parseNode(append(v0, data...)); !errors.Is(err, ErrFormat) {
		t.Errorf("link with a CID of version 0: %v", err)
	}
}

// add stores a node however wrong it is.
func (m *memory) add(tb testing.TB, n *node) namedLink {
	tb.Helper()
	block := n.encode()
	d := digestOf(block)
	if err := m.Node(d, block); err != nil {
		tb.Fatal(err)
	}
	return namedLink{link: link{codec: cid.DagProtobuf, digest: d, tsize: uint64(len(block))}}
}

// over puts n over a node of a file.
func over(child namedLink, size uint64) *node {
	n := fileNode(size)
	n.links[0] = child
	return n
}

// Trees whose nodes are each well formed and do not fit together.
func TestHostileTrees(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	r := m.reader()
	file := m.add(t, fileNode(1, 1))
	deep := file
	for range maxFileHeight {
		deep = m.add(t, over(deep, 2))
	}
	for name, root := range map[string]namedLink{
		"another size below": m.add(t, over(file, 3)),
		"a directory below":  m.add(t, over(m.add(t, dirNode("a")), 1)),
		"a link below":       m.add(t, over(m.add(t, linkNode("a")), 1)),
		"a shard below":      m.add(t, over(m.add(t, shardNode([]byte{1}, "00a")), 1)),
		"too deep":           deep,
		"not a file":         m.add(t, dirNode("a")),
	} {
		if err := firstError(Chunks(ctx, r, root.cid(), 0, 10)); !errors.Is(err, ErrFormat) {
			t.Errorf("chunks of a file with %s: %v", name, err)
		}
		leaf := FileLeaf{Kind: KindFile, Size: 2, Chunks: 2}
		if _, err := FindChunks(ctx, r, root.cid(), leaf, 0, 1); !errors.Is(err, ErrFormat) {
			t.Errorf("find in a file with %s: %v", name, err)
		}
	}
	unbalanced := m.add(t, fileNode(1))
	two := over(unbalanced, 1)
	two.links = append(two.links, unbalanced)
	two.blocksizes = append(two.blocksizes, 1)
	two.filesize++
	if _, err := FindChunks(ctx, r, m.add(t, two).cid(), FileLeaf{Kind: KindFile, Size: 2, Chunks: 2}, 0, 1); !errors.Is(err, ErrFormat) {
		t.Errorf("find in an unbalanced file: %v", err)
	}

	slot := func(name string, level int) byte { return hamtSlot(hamtHashOf([]byte(name)), level) }
	bitfield := func(slot byte) []byte {
		b := make([]byte, slot/8+1)
		b[0] = 1 << (slot % 8)
		return b
	}
	shard := func(slot byte, l namedLink) *node {
		n := shardNode(bitfield(slot))
		l.name = []byte(slotNames[slot] + string(l.name))
		n.links = append(n.links, l)
		return n
	}
	right := m.add(t, shard(slot("x", 0), named("x", rawLink(1))))
	if got := collect(t, List(ctx, r, right.cid())); len(got) != 1 || got[0].Name != "x" {
		t.Fatalf("a shard of one name: %v", got)
	}
	chain := m.add(t, shard(slot("x", 7), named("x", rawLink(1))))
	for level := 6; level >= 0; level-- {
		chain = m.add(t, shard(slot("x", level), chain))
	}
	if c, err := Lookup(ctx, r, chain.cid(), "x"); err != nil || c != rawLink(1).cid() {
		t.Errorf("the deepest shard: %v, %v", c, err)
	}
	tooDeep := chain
	for level := 7; level >= 0; level-- {
		tooDeep = m.add(t, shard(slot("x", level), tooDeep))
	}
	for name, root := range map[string]namedLink{
		"a name in the wrong slot":  m.add(t, shard(slot("x", 0)+1, named("x", rawLink(1)))),
		"a shard in the wrong slot": m.add(t, shard(slot("x", 0)+1, m.add(t, shard(slot("x", 1), named("x", rawLink(1)))))),
		"a shard too deep":          tooDeep,
		"a directory as shard":      m.add(t, shard(slot("x", 0), m.add(t, dirNode("x")))),
		"a file as shard":           m.add(t, shard(slot("x", 0), file)),
	} {
		if err := firstError(List(ctx, r, root.cid())); !errors.Is(err, ErrFormat) {
			t.Errorf("list a directory with %s: %v", name, err)
		}
		if err := firstError(Walk(ctx, r, root.cid())); !errors.Is(err, ErrFormat) {
			t.Errorf("walk a directory with %s: %v", name, err)
		}
		if _, err := Lookup(ctx, r, root.cid(), "x"); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrNotFound) {
			t.Errorf("look up in a directory with %s: %v", name, err)
		}
	}

	// A directory inside itself cannot be made, but a chain of any length can.
	nested := m.add(t, dirNode())
	for range 20 {
		n := dirNode()
		n.links = append(n.links, named(strings.Repeat("n", MaxName), nested))
		nested = m.add(t, n)
	}
	if err := firstError(Walk(ctx, r, nested.cid())); !errors.Is(err, ErrFormat) {
		t.Errorf("walk a chain of directories: %v", err)
	}
	for _, path := range []string{"/", "a/", "/a", "a//b", ".", "a/../b", strings.Repeat("a/", 2048) + "a"} {
		if _, err := Lookup(ctx, r, nested.cid(), path); !errors.Is(err, ErrPath) {
			t.Errorf("look up %q: %v", path, err)
		}
	}
	v0 := cid.MustParse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
	for _, err := range []error{firstError(Walk(ctx, r, v0)), firstError(List(ctx, r, v0)), firstError(Chunks(ctx, r, v0, 0, 1))} {
		if !errors.Is(err, ErrFormat) {
			t.Errorf("CID of version 0: %v", err)
		}
	}
}

// Two names of one hash cannot both be in a sharded directory. The pair was
// made by running MurmurHash3 backwards.
func TestHAMTCollision(t *testing.T) {
	const a, b = "ieqh524yng5by1a2rogubbb8ayn1b7o2", "59owoo3sb09glshv\x8b\x04\xbd\xff\xc6\x43\x59\x10\xb6\xc3\x29\xe3\x4c\xf0\x12\x25"
	entries := []entry{dirEntry(""), {path: a, kind: KindLink, target: "x"}, {path: b, kind: KindLink, target: "x"}}
	if _, err := buildTree(mustProfile(t, DefaultProfile), newMemory(), canonical(entries)); err != nil {
		t.Errorf("small directory: %v", err)
	}
	for i := range 10 {
		entries = append(entries, entry{path: fmt.Sprintf("filler %d", i), kind: KindLink, target: "x"})
	}
	if _, err := buildTree(tiny, newMemory(), canonical(entries)); !errors.Is(err, ErrPath) {
		t.Errorf("sharded directory: %v", err)
	}
}

// boxo agrees on what a node that we accept says.
func checkAgainstBoxo(t *testing.T, block []byte, n *node) {
	t.Helper()
	pn, err := merkledag.DecodeProtobuf(block)
	if err != nil {
		t.Fatalf("boxo refuses %x: %v", block, err)
	}
	fs, err := unixfs.FSNodeFromBytes(pn.Data())
	if err != nil {
		t.Fatalf("boxo refuses the data of %x: %v", block, err)
	}
	if uint64(fs.Type()) != n.typ || fs.Fanout() != n.fanout || fs.HashType() != n.hashType || !bytes.Equal(fs.Data(), n.data) || !fs.ModTime().Equal(n.mtime) {
		t.Errorf("boxo reads %x as %+v, we as %+v", block, fs, n)
	}
	if n.typ == typeFile && fs.FileSize() != n.filesize {
		t.Errorf("boxo reads a size of %d, we %d", fs.FileSize(), n.filesize)
	}
	links := pn.Links()
	if len(links) != len(n.links) {
		t.Fatalf("boxo reads %d links, we %d", len(links), len(n.links))
	}
	for i, l := range n.links {
		if links[i].Name != string(l.name) || links[i].Cid != l.cid() || links[i].Size != l.tsize {
			t.Errorf("boxo reads link %d as %+v, we as %+v", i, links[i], l)
		}
	}
}
