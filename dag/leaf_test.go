package dag

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseLeaf(t *testing.T) {
	deepest := strings.Repeat(strings.Repeat("n", MaxName)+"/", 15) + strings.Repeat("n", 127) + "/" + strings.Repeat("n", 128)
	good := append(someLeaves(),
		FileLeaf{Kind: KindDir, Path: "/"},
		FileLeaf{Kind: KindFile, ChunkRoot: emptyRoot},
		FileLeaf{Kind: KindDir, Path: deepest + "/"},
		FileLeaf{Kind: KindLink, Path: deepest, Size: MaxTarget, Target: strings.Repeat("t", MaxTarget)},
		FileLeaf{Kind: KindFile, Path: "largest", Size: maxFileSize, Chunks: maxFileSize / MaxBlock},
	)
	for _, l := range good {
		b := l.Marshal()
		if got, err := ParseFileLeaf(b); err != nil || got != l {
			t.Errorf("%.40q: %+v, %v", l.Path, got, err)
		}
		for i := range b {
			if _, err := ParseFileLeaf(b[:i]); !errors.Is(err, ErrFormat) {
				t.Errorf("%.40q, %d bytes of %d: %v", l.Path, i, len(b), err)
			}
		}
		if _, err := ParseFileLeaf(append(b, 0)); !errors.Is(err, ErrFormat) {
			t.Errorf("%.40q and a byte: %v", l.Path, err)
		}
	}
	for why, l := range badLeaves() {
		if _, err := ParseFileLeaf(l.Marshal()); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", why, err)
		}
	}
	b := good[0].Marshal()
	b[0] = chunkLeaf
	if _, err := ParseFileLeaf(b); !errors.Is(err, ErrFormat) {
		t.Errorf("leaf of another tree: %v", err)
	}
}

func badLeaves() map[string]FileLeaf {
	return map[string]FileLeaf{
		"kind 0":                          {Kind: 0, Path: "a"},
		"kind 4":                          {Kind: 4, Path: "a"},
		"absolute path":                   {Kind: KindFile, Path: "/a", ChunkRoot: emptyRoot},
		"path with final slash":           {Kind: KindFile, Path: "a/", ChunkRoot: emptyRoot},
		"path with an empty name":         {Kind: KindFile, Path: "a//b", ChunkRoot: emptyRoot},
		"path with dot":                   {Kind: KindFile, Path: "a/./b", ChunkRoot: emptyRoot},
		"path with dot dot":               {Kind: KindFile, Path: "../b", ChunkRoot: emptyRoot},
		"path with NUL":                   {Kind: KindFile, Path: "a\x00", ChunkRoot: emptyRoot},
		"name too long":                   {Kind: KindFile, Path: strings.Repeat("n", 256), ChunkRoot: emptyRoot},
		"path too long":                   {Kind: KindFile, Path: strings.Repeat("n/", 2048) + "n", ChunkRoot: emptyRoot},
		"bytes without chunks":            {Kind: KindFile, Path: "a", Size: 1, ChunkRoot: emptyRoot},
		"chunks without bytes":            {Kind: KindFile, Path: "a", Chunks: 1},
		"more chunks than bytes":          {Kind: KindFile, Path: "a", Size: 1, Chunks: 2},
		"chunks of more than 2 MiB":       {Kind: KindFile, Path: "a", Size: MaxBlock + 1, Chunks: 1},
		"more than the largest file":      {Kind: KindFile, Path: "a", Size: maxFileSize + 1, Chunks: maxFileSize},
		"empty file with a chunk root":    {Kind: KindFile, Path: "a", ChunkRoot: Hash{1}},
		"link without a path":             {Kind: KindLink, Target: "x", Size: 1},
		"link without a target":           {Kind: KindLink, Path: "a"},
		"link with NUL":                   {Kind: KindLink, Path: "a", Target: "\x00", Size: 1},
		"link of another size":            {Kind: KindLink, Path: "a", Target: "x", Size: 2},
		"link with chunks":                {Kind: KindLink, Path: "a", Target: "x", Size: 1, Chunks: 1},
		"link too long":                   {Kind: KindLink, Path: "a", Target: strings.Repeat("t", 4096), Size: 4096},
		"directory without final slash":   {Kind: KindDir, Path: "a"},
		"directory without a path":        {Kind: KindDir},
		"directory with two slashes":      {Kind: KindDir, Path: "a//"},
		"directory of a slash and a name": {Kind: KindDir, Path: "/a/"},
		"directory with a size":           {Kind: KindDir, Path: "a/", Size: 1},
		"directory with chunks":           {Kind: KindDir, Path: "a/", Chunks: 1},
	}
}

func TestParseRows(t *testing.T) {
	leaves := someLeaves()
	row, name := leafRowOf(leaves)
	if got, err := parseLeafRow(row); err != nil || !slices.Equal(got, leaves) {
		t.Errorf("row of %d leaves: %+v, %v", len(leaves), got, err)
	}
	if want := refRoot(leafHashes(leaves)); name != want {
		t.Errorf("row has the name %v, want %v", name, want)
	}
	var many []FileLeaf
	for i := range rowWidth {
		many = append(many, FileLeaf{Kind: KindDir, Path: string([]byte{'a', byte('0' + i/16), byte('a' + i%16), '/'})})
	}
	full, _ := leafRowOf(many)
	if _, err := parseLeafRow(full); err != nil {
		t.Errorf("full row: %v", err)
	}
	for why, row := range badLeafRows(full) {
		if _, err := parseLeafRow(row); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", why, err)
		}
	}
	for why, l := range badLeaves() {
		if l.Kind == KindLink && l.Size != uint64(len(l.Target)) || l.Kind == KindFile && l.Chunks == 0 && l.ChunkRoot != emptyRoot ||
			l.Kind != KindFile && l.Chunks != 0 || l.Kind == KindDir && l.Size != 0 {
			continue // what a row cannot say
		}
		row, _ := leafRowOf([]FileLeaf{l})
		if _, err := parseLeafRow(row); !errors.Is(err, ErrFormat) {
			t.Errorf("row with %s: %v", why, err)
		}
	}
	for why, row := range badHashRows() {
		if _, err := parseHashRow(row); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", why, err)
		}
	}
	if h, err := parseHashRow(append([]byte{hashRow}, make([]byte, 64)...)); err != nil || len(h) != 2 {
		t.Errorf("row of two hashes: %v, %v", h, err)
	}
}

func badLeafRows(full []byte) map[string][]byte {
	return map[string][]byte{
		"nothing":                 nil,
		"no leaves":               {leafRow},
		"row of hashes":           append([]byte{hashRow}, make([]byte, 64)...),
		"257 leaves":              append(bytes.Clone(full), "\x00\x02b/\x03"...),
		"prefix before the first": []byte("\x02\x01\x02b/\x03"),
		"prefix not used":         []byte("\x02\x00\x02a/\x03\x00\x03ab/\x03"),
		"prefix too long":         []byte("\x02\x00\x02a/\x03\x03\x02b/\x03"),
		"twice":                   []byte("\x02\x00\x02a/\x03\x02\x00\x03"),
		"out of order":            []byte("\x02\x00\x02b/\x03\x00\x02a/\x03"),
		"cut after the path":      []byte("\x02\x00\x02a/"),
		"path cut short":          []byte("\x02\x00\x03a/"),
		"number in two bytes":     []byte("\x02\x80\x00\x02a/\x03"),
		"file without chunk root": []byte("\x02\x00\x01a\x01\x01\x01"),
		"target cut short":        []byte("\x02\x00\x01a\x02\x02x"),
		"too long":                make([]byte, MaxRow+1),
	}
}

func badHashRows() map[string][]byte {
	return map[string][]byte{
		"nothing":         nil,
		"no hashes":       {hashRow},
		"one hash":        append([]byte{hashRow}, make([]byte, 32)...),
		"a hash too many": append([]byte{hashRow}, make([]byte, 257*32)...),
		"hash cut short":  append([]byte{hashRow}, make([]byte, 65)...),
		"row of leaves":   append([]byte{leafRow}, make([]byte, 64)...),
	}
}

// A row of the largest leaves is within MaxRow.
func TestLargestRow(t *testing.T) {
	path := strings.Repeat(strings.Repeat("n", MaxName)+"/", 15) + strings.Repeat("n", 127) + "/" + strings.Repeat("n", 128)
	l := FileLeaf{Kind: KindLink, Path: path, Size: MaxTarget, Target: strings.Repeat("t", MaxTarget)}
	if err := l.check(); err != nil || len(path) != MaxPath {
		t.Fatal(err)
	}
	row, _ := leafRowOf([]FileLeaf{l})
	if 1+rowWidth*(len(row)-1) > MaxRow || len(l.Marshal()) > maxLeaf {
		t.Errorf("a leaf of %d bytes can take %d of a row", len(l.Marshal()), len(row)-1)
	}
}
