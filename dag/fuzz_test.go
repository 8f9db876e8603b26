package dag

import (
	"bytes"
	"errors"
	"testing"
)

func FuzzNode(f *testing.F) {
	for _, n := range []*node{fileNode(), fileNode(1, 2), dirNode("a", "b"), shardNode([]byte{0x80, 0x01}, "00a", "0Fb"), linkNode("x")} {
		f.Add(n.encode())
		f.Add(change(n, func(n *node) { n.fields |= field(fsMode); n.mode = 0o4755; n.mtime = someTime }).encode())
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		n, err := parseNode(block)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if got := n.encode(); !bytes.Equal(got, block) {
			t.Errorf("%x parsed and encoded is %x", block, got)
		}
		checkAgainstBoxo(t, block, n)
	})
}

func someLeaves() []FileLeaf {
	return []FileLeaf{
		{Kind: KindFile, Path: "a", ChunkRoot: emptyRoot},
		{Kind: KindFile, Path: "ab", Size: 3 << 20, Chunks: 2, ChunkRoot: Hash{1}},
		{Kind: KindDir, Path: "ab.d/"},
		{Kind: KindLink, Path: "b/c", Size: 4, Target: "../a"},
		{Kind: KindFile, Path: "b/\xff\n", Size: 1, Chunks: 1, ChunkRoot: Hash{2}},
	}
}

func leafRowOf(leaves []FileLeaf) ([]byte, Hash) {
	var b leafRowBuilder
	for i := range leaves {
		b.add(&leaves[i])
	}
	h, _ := b.flush(discard{})
	return b.row, h
}

func FuzzFileLeaf(f *testing.F) {
	for _, l := range append(someLeaves(), FileLeaf{Kind: KindDir, Path: "/"}, FileLeaf{Kind: KindFile, ChunkRoot: emptyRoot}) {
		f.Add(l.Marshal())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseFileLeaf(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if got := l.Marshal(); !bytes.Equal(got, b) {
			t.Errorf("%x parsed and marshalled is %x", b, got)
		}
	})
}

func FuzzLeafRow(f *testing.F) {
	row, _ := leafRowOf(someLeaves())
	f.Add(row)
	row, _ = leafRowOf([]FileLeaf{{Kind: KindDir, Path: "/"}})
	f.Add(row)
	f.Fuzz(func(t *testing.T, b []byte) {
		leaves, err := parseLeafRow(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if got, _ := leafRowOf(leaves); !bytes.Equal(got, b) {
			t.Errorf("%x parsed and encoded is %x", b, got)
		}
		for i := 1; i < len(leaves); i++ {
			if leaves[i-1].Path >= leaves[i].Path {
				t.Errorf("%q before %q", leaves[i-1].Path, leaves[i].Path)
			}
		}
	})
}

func FuzzHashRow(f *testing.F) {
	f.Add(append([]byte{hashRow}, make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		hashes, err := parseHashRow(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		got := []byte{hashRow}
		for _, h := range hashes {
			got = append(got, h[:]...)
		}
		if !bytes.Equal(got, b) {
			t.Errorf("%x parsed and encoded is %x", b, got)
		}
	})
}
