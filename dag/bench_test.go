package dag

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"
)

func BenchmarkBuild(b *testing.B) {
	fb := NewFileBuilder(mustProfile(b, DefaultProfile), discard{})
	d, _ := fakeChunk(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := fb.AddChunk(d, 32<<10); err != nil {
			b.Fatal(err)
		}
	}
}

// One file of a chunk, from its digest to its leaf.
func BenchmarkSmallFiles(b *testing.B) {
	p := mustProfile(b, DefaultProfile)
	for _, a := range []Attr{plain, {Mode: 0o755}} {
		b.Run(fmt.Sprintf("%#o", a.Mode), func(b *testing.B) {
			fb, tb := NewFileBuilder(p, discard{}), NewTreeBuilder(p, discard{})
			if err := tb.AddDir("", Attr{Mode: DefaultDirMode}); err != nil {
				b.Fatal(err)
			}
			d, _ := fakeChunk(1)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if i%100 == 0 {
					if err := tb.AddDir(fmt.Sprintf("dir%09d", i/100), Attr{Mode: DefaultDirMode}); err != nil {
						b.Fatal(err)
					}
				}
				if err := fb.AddChunk(d, 4096); err != nil {
					b.Fatal(err)
				}
				f, err := fb.Finish(a)
				if err != nil {
					b.Fatal(err)
				}
				if err := tb.AddFile(fmt.Sprintf("dir%09d/file%02d", i/100, i%100), f); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// A directory of a million names; its memory is reported.
func BenchmarkMillionNames(b *testing.B) {
	p := mustProfile(b, DefaultProfile)
	f := fakeFile(b, NewFileBuilder(p, discard{}), 1, plain)
	for b.Loop() {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tb := NewTreeBuilder(p, discard{})
		if err := tb.AddDir("", Attr{Mode: DefaultDirMode}); err != nil {
			b.Fatal(err)
		}
		for i := range 1_000_000 {
			if err := tb.AddFile(fmt.Sprintf("some-file-%07d.json", i), f); err != nil {
				b.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-before-finish")
		if _, err := tb.Finish(); err != nil {
			b.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapSys)/1e6, "MB-heap")
	}
}

func BenchmarkHash(b *testing.B) {
	content := stream("bench", 16<<20)
	for _, name := range ProfileNames() {
		b.Run(name, func(b *testing.B) {
			h := NewHasher(mustProfile(b, name), nil)
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				if _, err := h.File(context.Background(), bytes.NewReader(content), plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLeaves(b *testing.B) {
	ctx := context.Background()
	m := newMemory()
	tree, leaves := flatTree(b, m, 100_000)
	r, root, n := m.reader(), tree.Commitment, tree.Leaves
	b.Run("prove", func(b *testing.B) {
		i := uint64(0)
		for b.Loop() {
			i = (i + 7919) % n
			if _, err := ProveLeaf(ctx, r, root, n, i); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check", func(b *testing.B) {
		path, err := ProveLeaf(ctx, r, root, n, 12345)
		if err != nil {
			b.Fatal(err)
		}
		h := leaves[12345].Hash()
		for b.Loop() {
			if err := CheckLeaf(root, n, 12345, h, path); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("find", func(b *testing.B) {
		i := uint64(0)
		for b.Loop() {
			i = (i + 7919) % n
			if _, _, err := FindLeaf(ctx, r, root, n, leaves[i].Path); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range Leaves(ctx, r, root, n, 0) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("walk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range Walk(ctx, r, tree.Root) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkProveChunks(b *testing.B) {
	ctx := context.Background()
	m := newMemory()
	f := fakeFile(b, NewFileBuilder(mustProfile(b, DefaultProfile), m), 200_000, plain)
	leaf := fileLeafOf("", f)
	at := uint64(0)
	for b.Loop() {
		at = (at + 104729*4096) % (f.Size - 1)
		run, err := FindChunks(ctx, m.reader(), f.CID, leaf, at, at+1)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := ProveChunks(ctx, m.reader(), f.CID, leaf, run.First, run.Last); err != nil {
			b.Fatal(err)
		}
	}
}
