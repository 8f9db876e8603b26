package store

import (
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/koii-network/scale/dag"
)

// BenchmarkCommit appends datasets, whose blocks are taken to be stored, from 64
// goroutines: the ledger's part of many small puts.
func BenchmarkCommit(b *testing.B) {
	ctx := b.Context()
	s := newStore(b)
	for _, names := range []int{1 << 30, 64} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			var n atomic.Int64
			b.SetParallelism(32) // of two processors
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := n.Add(1)
					content := sha256.Sum256(fmt.Append(nil, names, i))
					d := draft{
						name: fmt.Sprintf("n%d.%d", names, int(i)%names), profile: dag.DefaultProfile, kind: dag.KindFile,
						tree: dag.Tree{Root: dag.RawCID(content), Commitment: content, Size: 326, Files: 1, Leaves: 1, Chunks: 1},
					}
					curator, err := s.curator()
					if err == nil {
						_, err = s.commit(ctx, &commitRequest{curator: curator, drafts: []draft{d}})
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
