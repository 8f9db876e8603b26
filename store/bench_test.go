package store_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/koii-network/scale/store"
)

// BenchmarkTinyPuts makes durable datasets of 326 bytes, the size of a proof of real
// traffic, from 64 goroutines.
func BenchmarkTinyPuts(b *testing.B) {
	ctx := context.Background()
	dir := filepath.Join(b.TempDir(), "store")
	if err := store.Init(ctx, dir, store.InitOptions{}); err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var n atomic.Uint64
	b.SetParallelism(32) // of two processors
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			record := make([]byte, 326)
			rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}).Read(record)
			in := []store.Input{{Name: fmt.Sprintf("record.%d", i), Reader: bytes.NewReader(record)}}
			if _, err := s.Put(ctx, in, store.PutOptions{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
}
