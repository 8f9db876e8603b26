package badgerkv

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/koii-network/scale/store/kv"
)

// indexRow returns a row like those of the engine's index: a digest and a few
// numbers.
func indexRow(i int) (key, value []byte) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	key = append([]byte{'c'}, sum[:]...)
	value = binary.AppendUvarint(nil, uint64(i>>14))
	value = binary.AppendUvarint(value, uint64(i)*10007%(512<<20))
	value = binary.AppendUvarint(value, uint64(300_000+i%100_000))
	value = binary.AppendUvarint(value, uint64(i%32))
	return key, binary.AppendUvarint(value, uint64(30_000+i%9_000))
}

// fill commits n index rows in batches.
func fill(tb testing.TB, s *KV, from, n int) {
	tb.Helper()
	var b kv.Batch
	for i := from; i < from+n; i++ {
		key, value := indexRow(i)
		b.Set(key, value)
		if b.Len() == 8000 || i == from+n-1 {
			if err := s.Commit(tb.Context(), &b); err != nil {
				tb.Fatal(err)
			}
			b.Reset()
		}
	}
}

func open(tb testing.TB, dir string) *KV {
	tb.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func shut(tb testing.TB, s *KV) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkProcess is what a short command does: open, three small commits,
// close.
func BenchmarkProcess(b *testing.B) {
	for _, rows := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			dir := b.TempDir()
			if rows > 0 {
				s := open(b, dir)
				fill(b, s, 0, rows)
				shut(b, s)
			}
			n := rows
			for b.Loop() {
				s := open(b, dir)
				for range 3 {
					fill(b, s, n, 10)
					n += 10
				}
				shut(b, s)
			}
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, rows := range []int{1, 100, 8000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			s := open(b, b.TempDir())
			defer shut(b, s)
			n := 0
			for b.Loop() {
				fill(b, s, n, rows)
				n += rows
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkMillion measures a store of a million rows.
func BenchmarkMillion(b *testing.B) {
	const rows = 1_000_000
	dir := b.TempDir()
	s := open(b, dir)
	fill(b, s, 0, rows)
	shut(b, s)
	size, err := s.Size()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Open", func(b *testing.B) {
		b.ReportMetric(float64(size)/rows, "B/row")
		for b.Loop() {
			shut(b, open(b, dir))
		}
	})
	s = open(b, dir)
	defer shut(b, s)
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i], _ = indexRow(rand.IntN(rows))
	}
	var dst []byte
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if dst, err = s.Get(b.Context(), keys[i%len(keys)], dst[:0]); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("GetParallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			var dst []byte
			var err error
			i := rand.IntN(len(keys))
			for pb.Next() {
				if dst, err = s.Get(b.Context(), keys[i%len(keys)], dst[:0]); err != nil {
					b.Error(err)
				}
				i++
			}
		})
	})
	for i := range keys {
		keys[i], _ = indexRow(rows + rand.IntN(rows))
	}
	b.Run("HasMiss", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if has, err := s.Has(b.Context(), keys[i%len(keys)]); has || err != nil {
				b.Fatal(has, err)
			}
			i++
		}
	})
	b.Run("Scan", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, err := range s.Scan(b.Context(), []byte("c"), nil) {
				if err != nil {
					b.Fatal(err)
				}
				if n++; n == 100_000 {
					break
				}
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/100_000*1e9, "ns/row")
	})
}
