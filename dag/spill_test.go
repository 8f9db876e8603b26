package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"

	"github.com/koii-network/scale/dag/extsort"
)

// A scratchFile is a temporary file in memory, which fails at its nth write or read
// if that is not 0, or gives back what was not written.
type scratchFile struct {
	b            []byte
	calls, fail  int
	made, closed int
}

func (f *scratchFile) options(limit int) extsort.Options {
	return extsort.Options{Memory: limit, Scratch: func() (extsort.File, error) {
		f.made++
		return f, nil
	}}
}

func (f *scratchFile) failing() bool {
	f.calls++
	return f.fail > 0 && f.calls >= f.fail
}

func (f *scratchFile) WriteAt(p []byte, off int64) (int, error) {
	if f.failing() {
		return 0, syscall.ENOSPC
	}
	if end := int(off) + len(p); end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

func (f *scratchFile) ReadAt(p []byte, off int64) (int, error) {
	if f.failing() {
		return 0, syscall.ENOSPC
	}
	if n := copy(p, f.b[off:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (f *scratchFile) Close() error {
	f.closed++
	return nil
}

// made keeps what a Sink was given, in its order.
type made struct{ list []string }

func (m *made) Node(d Digest, b []byte) error {
	m.list = append(m.list, fmt.Sprintf("node %v %x", d, b))
	return nil
}

func (m *made) Row(h Hash, b []byte) error {
	m.list = append(m.list, fmt.Sprintf("row %v %x", h, b))
	return nil
}

func walkAll(tb rapid.TB, w Walker, root cid.Cid) (list []string) {
	tb.Helper()
	for e, err := range w.Walk(context.Background(), root) {
		if err != nil {
			tb.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%q %v %d", e.Path, e.Info, e.Tsize))
	}
	for e, err := range w.List(context.Background(), root) {
		if err != nil {
			tb.Fatal(err)
		}
		list = append(list, fmt.Sprint(e))
	}
	return list
}

// checkSpill builds and reads a tree with little memory and with enough, and wants
// the same blocks, rows and entries.
// m has the nodes of the files.
func checkSpill(tb rapid.TB, m *memory, p *Profile, entries []entry, limit int) *scratchFile {
	tb.Helper()
	var want, got made
	wantTree, err := buildTree(p, &want, entries)
	if err != nil {
		tb.Fatal(err)
	}
	f := new(scratchFile)
	b := NewTreeBuilder(p, &got)
	b.Spill(f.options(limit))
	gotTree, err := addTree(b, entries)
	if err != nil {
		tb.Fatal(err)
	}
	if gotTree != wantTree {
		tb.Fatalf("with %d bytes the tree is %+v, want %+v", limit, gotTree, wantTree)
	}
	if !slices.Equal(got.list, want.list) {
		tb.Fatalf("with %d bytes other blocks or rows were made", limit)
	}
	if _, err := buildTree(p, m, entries); err != nil {
		tb.Fatal(err)
	}
	r := m.reader()
	all := walkAll(tb, Walker{Reader: r}, wantTree.Root)
	if diff := cmp.Diff(all, walkAll(tb, Walker{Reader: r, Sort: f.options(limit)}, wantTree.Root)); diff != "" {
		tb.Fatalf("with %d bytes: %s", limit, diff)
	}
	if f.made != f.closed || f.made > 3 {
		tb.Fatalf("%d files were made, %d closed", f.made, f.closed)
	}
	return f
}

func TestSpillAgainstMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		entries := drawTree(t, m)
		checkSpill(t, m, tiny, entries, rapid.SampledFrom([]int{1, 1000, 20_000}).Draw(t, "memory"))
	})
}

// Directories of thousands of random names, one after another and in one another,
// both with those that are sharded and those that are one node.
func TestSpillLarge(t *testing.T) {
	file := File{CID: RawCID(digestOf([]byte("x"))), Size: 1, Tsize: 1, Chunks: 1}
	rng := rand.New(rand.NewPCG(7, 8))
	entries := []entry{dirEntry("")}
	dirs := []string{""}
	for i := range 5 {
		dirs = append(dirs, strings.TrimPrefix(dirs[i]+"/"+string(rune('g'+i)), "/"))
		entries = append(entries, dirEntry(dirs[i+1]))
	}
	for _, dir := range dirs {
		for range 800 + rng.IntN(1500) {
			name := make([]byte, 8+rng.IntN(240))
			for i := range name {
				name[i] = byte(1 + rng.IntN(255))
			}
			name = bytes.ReplaceAll(name, []byte("/"), []byte("a"))
			entries = append(entries, entry{path: strings.TrimPrefix(dir+"/"+string(name), "/"), kind: KindFile, file: file})
		}
	}
	canonical(entries)
	if f := checkSpill(t, newMemory(), mustProfile(t, DefaultProfile), entries, 300_000); len(f.b) < 1<<20 {
		t.Errorf("only %d bytes were written", len(f.b))
	}
}

// Many directories that are one node each and lie in one another are not all held
// while they are read.
func TestSpillDeep(t *testing.T) {
	file := File{CID: RawCID(digestOf([]byte("x"))), Size: 1, Tsize: 1, Chunks: 1}
	entries := []entry{dirEntry("")}
	dir := ""
	for range 10 {
		for i := range maxLinks / 8 {
			entries = append(entries, entry{path: fmt.Sprintf("%sx%04d", dir, i), kind: KindFile, file: file})
		}
		dir += "d"
		entries = append(entries, dirEntry(dir))
		dir += "/"
	}
	canonical(entries)
	m := newMemory()
	tree := mustTree(t, m, entries)
	var f scratchFile
	i := 0
	for e, err := range (Walker{Reader: m.reader(), Sort: f.options(100_000)}).Walk(t.Context(), tree.Root) {
		if err != nil || e.Path != entries[i].path {
			t.Fatalf("entry %d is %q, %v; want %q", i, e.Path, err, entries[i].path)
		}
		i++
	}
	if i != len(entries) || f.made != 1 || f.closed != 1 {
		t.Errorf("%d entries of %d, %d files, %d closed", i, len(entries), f.made, f.closed)
	}
}

// Errors are the same as in memory, and the file is closed after each.
func TestSpillErrors(t *testing.T) {
	file := File{CID: RawCID(digestOf([]byte("x"))), Size: 1, Tsize: 1, Chunks: 1}
	twice := []entry{dirEntry("")}
	for i := range 120 {
		twice = append(twice, entry{path: fmt.Sprintf("a%d", i), kind: KindFile, file: file})
	}
	twice = canonical(append(twice, dirEntry("a100")))
	for _, p := range []*Profile{tiny, mustProfile(t, DefaultProfile)} {
		var f scratchFile
		b := NewTreeBuilder(p, discard{})
		b.Spill(f.options(1))
		if _, err := addTree(b, twice); !errors.Is(err, ErrOrder) || f.made != 1 || f.closed != 1 {
			t.Errorf("a name twice, limit %d: %v; %d files, %d closed", p.dirLimit, err, f.made, f.closed)
		}
	}

	entries := slices.DeleteFunc(twice, func(e entry) bool { return e.path != "" && e.kind == KindDir })
	m := newMemory()
	tree, err := buildTree(tiny, m, entries)
	if err != nil {
		t.Fatal(err)
	}
	build := func(f *scratchFile) error {
		b := NewTreeBuilder(tiny, discard{})
		b.Spill(f.options(1))
		_, err := addTree(b, entries)
		if _, again := b.Finish(); again == nil {
			t.Error("finished twice")
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		return err
	}
	walk := func(f *scratchFile) error {
		var last error
		for _, err := range (Walker{Reader: m.reader(), Sort: f.options(1)}).Walk(t.Context(), tree.Root) {
			last = err
		}
		return last
	}
	for name, do := range map[string]func(*scratchFile) error{"build": build, "walk": walk} {
		var ok scratchFile
		if err := do(&ok); err != nil || ok.calls < 10 {
			t.Fatalf("%s: %v, %d calls", name, err, ok.calls)
		}
		for i := 1; i <= ok.calls; i++ {
			f := scratchFile{fail: i}
			if err := do(&f); !errors.Is(err, extsort.ErrScratch) || !errors.Is(err, syscall.ENOSPC) || f.closed != f.made {
				t.Fatalf("%s: call %d of %d: %v; %d files, %d closed", name, i, ok.calls, err, f.made, f.closed)
			}
		}
	}

	var f scratchFile
	b := NewTreeBuilder(tiny, discard{})
	b.Spill(f.options(1))
	for _, e := range entries {
		if e.kind == KindDir {
			err = b.AddDir(e.path, e.attr)
		} else {
			err = b.AddFile(e.path, e.file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := b.Close(); err != nil || f.closed != 1 {
			t.Errorf("closed before its end: %v, %d", err, f.closed)
		}
	}
	if _, err := b.Finish(); err == nil {
		t.Error("finished after Close")
	}
	// A consumer that has had enough leaves no file open either.
	f = scratchFile{}
	for range (Walker{Reader: m.reader(), Sort: f.options(1)}).List(t.Context(), tree.Root) {
		break
	}
	if f.made != 1 || f.closed != 1 {
		t.Errorf("%d files, %d closed", f.made, f.closed)
	}
}
