package fstree

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/koii-network/scale/dag"
)

const benchFiles = 20_000

// benchTree makes 20,000 files of 1 to 16 KiB, 100 in a directory.
func benchTree(b *testing.B) (root string, size int64) {
	b.Helper()
	root = b.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 16<<10)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	for i := range benchFiles {
		dir := fmt.Sprintf("%s/%d/%d", root, i/1000, i/100)
		if i%100 == 0 {
			must(b, os.MkdirAll(dir, 0o755))
		}
		n := 1<<10 + rng.IntN(15<<10)
		must(b, os.WriteFile(fmt.Sprintf("%s/%d", dir, i), buf[:n], 0o644))
		size += int64(n)
	}
	return root, size
}

func perFile(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchFiles), "ns/file")
}

func BenchmarkWalk(b *testing.B) {
	root, _ := benchTree(b)
	tree := open(b, root, Options{})
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range tree.Walk(b.Context()) {
			must(b, err)
		}
	}
	perFile(b)
}

func BenchmarkRead(b *testing.B) {
	root, size := benchTree(b)
	tree := open(b, root, Options{})
	for _, readers := range []int{1, 2} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				files := make(chan *Entry, 256)
				var wg sync.WaitGroup
				for range readers {
					wg.Go(func() {
						buf := make([]byte, 1<<20)
						for e := range files {
							if _, err := tree.Read(e, buf); err != nil {
								b.Error(err)
							}
						}
					})
				}
				for e, err := range tree.Walk(b.Context()) {
					must(b, err)
					if e.Kind == dag.KindFile {
						files <- e
					}
				}
				close(files)
				wg.Wait()
			}
			perFile(b)
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	root, size := benchTree(b)
	to := b.TempDir()
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		must(b, copyTree(b, root, fmt.Sprintf("%s/%d", to, i), RestoreOptions{}))
	}
	perFile(b)
}
