package pack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/koii-network/scale/compress"
)

// randomFrame returns a frame of one size of chunk with a body of random bytes.
func randomFrame(rng *rand.ChaCha8, chunks, chunk, sealed int) Frame {
	f := Frame{Codec: compress.Zstd, PlainSize: uint32(chunks * chunk), Sealed: make([]byte, sealed)}
	for range chunks {
		c := Chunk{Size: uint32(chunk)}
		rng.Read(c.Digest[:])
		f.Chunks = append(f.Chunks, c)
	}
	rng.Read(f.Sealed)
	return f
}

func openFiles(tb testing.TB, dir string, o Options, tail Tail) *Files {
	tb.Helper()
	p, err := Open(dir, o, tail)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// BenchmarkAppend appends frames of a MiB that shrank to a third, with a sync at
// the end.
func BenchmarkAppend(b *testing.B) {
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 32, 32<<10, 350<<10)
	p := openFiles(b, b.TempDir(), Options{}, Tail{})
	b.SetBytes(int64(len(f.Sealed)))
	for b.Loop() {
		if _, err := p.Append(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFlush is what puts cost packs at least: one small frame and a sync.
func BenchmarkFlush(b *testing.B) {
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 1, 4096, 2000)
	p := openFiles(b, b.TempDir(), Options{}, Tail{})
	for b.Loop() {
		if _, err := p.Append(b.Context(), f); err != nil {
			b.Fatal(err)
		}
		if err := p.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadFrame(b *testing.B) {
	for _, sealed := range []int{2000, 350 << 10, 1 << 20} {
		b.Run(fmt.Sprint(sealed), func(b *testing.B) {
			f := randomFrame(rand.NewChaCha8([32]byte{1}), 32, 32<<10, sealed)
			p := openFiles(b, b.TempDir(), Options{}, Tail{})
			var locs []Loc
			for range 64 {
				loc, err := p.Append(b.Context(), f)
				if err != nil {
					b.Fatal(err)
				}
				locs = append(locs, loc)
			}
			b.SetBytes(int64(sealed))
			b.ReportAllocs()
			var buf []byte
			var err error
			i := 0
			for b.Loop() {
				if _, buf, err = p.ReadFrame(context.Background(), locs[i%len(locs)], buf); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 32, 32<<10, 350<<10)
	p := openFiles(b, b.TempDir(), Options{}, Tail{})
	for range 200 {
		if _, err := p.Append(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(p.Tail().End))
	for b.Loop() {
		for _, err := range p.Scan(b.Context(), 1) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
