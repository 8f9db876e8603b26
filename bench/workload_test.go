package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A cycle is an endless text that holds one byte.
type cycle byte

func (c cycle) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

// sources makes a small tree of source files.
func sources(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for name, data := range map[string]string{"a/one.go": "package one // Zebra 1\n", "empty.go": "", "two.go": "package two\n"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	slices.Sort(files)
	return files
}

func TestSourceTar(t *testing.T) {
	var b bytes.Buffer
	if err := sourceTar(&b, &text{files: sources(t), plain: true, seed: 7}, 2000); err != nil {
		t.Fatal(err)
	}
	if b.Len() < 2000 || b.Len() > 5000 {
		t.Errorf("%d bytes for 2000", b.Len())
	}
	want := []string{"go-0/a/one.go", "go-0/two.go", "go-1/a/one.go"}
	var got []string
	for in := tar.NewReader(&b); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the archive holds %q, want %q", got, want)
	}
}

func TestText(t *testing.T) {
	files := sources(t)
	read := func(plain bool) string {
		b, err := io.ReadAll(io.LimitReader(&text{files: files, plain: plain, seed: 7}, 4*35))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	got := read(true)
	turns := []string{got[:35], got[35:70], got[70:105], got[105:]}
	if !strings.Contains(turns[0], "package two\n") || !strings.Contains(turns[0], "Zebra 1") {
		t.Errorf("the first turn changed the text: %q", turns[0])
	}
	shape := func(s string) string {
		return strings.Map(func(r rune) rune {
			switch {
			case 'a' <= r && r <= 'z':
				return 'a'
			case 'A' <= r && r <= 'Z':
				return 'A'
			}
			return r
		}, s)
	}
	for i, turn := range turns[1:] {
		if turn == turns[i] {
			t.Errorf("turn %d repeats the one before", i+1)
		}
		if shape(turn) != shape(turns[0]) {
			t.Errorf("turn %d is not a permutation of letters: %q", i+1, turn)
		}
	}
	if again := read(true); again != got {
		t.Errorf("the same seed gives other text")
	}
	if read(false)[:35] == turns[0] {
		t.Errorf("the first turn is plain though not asked to be")
	}
}

func TestJSONLines(t *testing.T) {
	var a, b bytes.Buffer
	for _, w := range []io.Writer{&a, &b} {
		if err := jsonLines(w, 9, 100_000); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same seed gives other lines")
	}
	if a.Len() < 100_000 || a.Len() > 101_000 {
		t.Errorf("%d bytes for 100000", a.Len())
	}
	signatures := make(map[string]bool)
	lines := 0
	for in := bufio.NewScanner(&a); in.Scan(); lines++ {
		var line struct{ Signature []byte }
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", in.Bytes(), err)
		}
		if len(line.Signature) != 64 {
			t.Fatalf("a signature of %d bytes", len(line.Signature))
		}
		signatures[string(line.Signature)] = true
	}
	if len(signatures) != lines {
		t.Errorf("%d signatures on %d lines", len(signatures), lines)
	}
}

func TestSmallFiles(t *testing.T) {
	dir := t.TempDir()
	if err := smallFiles(dir, &text{files: sources(t), seed: 3}, 3, 250); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "part-00/dir-0[012]/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	small := 0
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if size := info.Size(); size < 1<<10 || size > 16<<10 {
			t.Errorf("%s has %d bytes", name, size)
		} else if size < 4<<10 {
			small++
		}
	}
	if len(files) != 250 || small < 100 || small > 150 {
		t.Errorf("%d files, %d of them below 4 KiB; want 250 and about half", len(files), small)
	}
}

func TestEdit(t *testing.T) {
	const size, length = 10_000_000, 1000
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	if err := os.WriteFile(src, bytes.Repeat([]byte{'o'}, size), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := edit(dst, src, cycle('n'), 1, length); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dst)
	if err != nil {
		t.Fatal(err)
	}
	added := bytes.Count(got, []byte("n"))
	if added < size*18/1000 || added > size*22/1000 {
		t.Errorf("%d of %d bytes are new, want 2 %%", added, size)
	}
	if kept := bytes.Count(got, []byte("o")); kept < size*97/100 || kept == size-added {
		t.Errorf("%d of %d bytes kept, %d added: nothing was shifted", kept, size, added)
	}
	if runs := bytes.Count(got, []byte("on")); runs < 180 || runs > 200 {
		t.Errorf("%d edits, want about 200", runs)
	}
}
