package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/kv"
)

// benchChunk returns the digest and size of the i-th chunk of a store that is filled.
func benchChunk(i int) ingest.Chunk {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(i))
	c := ingest.Chunk{Size: 20_000 + uint32(i)%20_000}
	rand.NewChaCha8(seed).Read(c.Digest[:])
	return c
}

// filledStore makes a store whose index has rows of so many chunks, and nodes of their
// files, besides a dataset. It is closed.
func filledStore(b *testing.B, blocks int) (dir string) {
	b.Helper()
	ctx := context.Background()
	dir = filepath.Join(b.TempDir(), "store")
	if err := Init(ctx, dir, InitOptions{}); err != nil {
		b.Fatal(err)
	}
	s, err := Open(ctx, dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	content := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(content)
	if _, err := s.Put(ctx, []Input{{Name: "dataset", Reader: bytes.NewReader(content)}}, PutOptions{}); err != nil {
		b.Fatal(err)
	}
	loc := s.packs.Tail()
	var rows kv.Batch
	commit := func() {
		if err := s.kv.Commit(ctx, &rows); err != nil {
			b.Fatal(err)
		}
		rows.Reset()
	}
	node, key := make([]byte, 12_000), [32]byte{}
	random := rand.NewChaCha8([32]byte{2})
	for i := range blocks {
		c := benchChunk(i)
		r := chunkRow{Start: uint32(i % 128 * 32_000), Size: c.Size}
		r.Loc.Pack, r.Loc.Off, r.Loc.Len = loc.Pack, 0, uint32(loc.End)
		if i%256 == 255 {
			random.Read(key[:])
			random.Read(node)
			rows.Set(digestKey(rowNode, key), node)
		}
		rows.Set(digestKey(rowChunk, c.Digest), r.append(nil))
		if !rows.Fits(2, 2*len(node)) {
			commit()
		}
	}
	commit()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkOpenStore opens and closes stores of a few blocks and of a million.
func BenchmarkOpenStore(b *testing.B) {
	for _, blocks := range []int{1, 1_000_000} {
		b.Run(fmt.Sprintf("blocks=%d", blocks), func(b *testing.B) {
			dir := filledStore(b, blocks)
			b.ReportAllocs()
			for b.Loop() {
				s, err := Open(b.Context(), dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLookup looks chunks of 32 KiB up as a put does, 32 at a time.
func BenchmarkLookup(b *testing.B) {
	const blocks = 1_000_000
	dir := filledStore(b, blocks)
	s, err := Open(b.Context(), dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		data string
		from int
	}{{"new", blocks}, {"stored", 0}} {
		b.Run(c.data, func(b *testing.B) {
			chunks, known := make([]ingest.Chunk, 32), make([]bool, 32)
			d := s.writer.newDeposit(b.Context())
			random := rand.New(rand.NewPCG(1, 2))
			b.SetBytes(int64(len(chunks)) * 32 << 10)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for i := range chunks {
					chunks[i] = benchChunk(c.from + random.IntN(blocks))
				}
				clear(known)
				b.StartTimer()
				if err := d.Known(b.Context(), chunks, known); err != nil {
					b.Fatal(err)
				}
			}
			if known[0] != (c.data == "stored") {
				b.Errorf("chunks are known: %t", known[0])
			}
		})
	}
}
