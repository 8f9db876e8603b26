package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
)

// manyFiles is a source of a flat tree of small files.
type manyFiles struct{ next, n int }

func manyName(i int) string { return fmt.Sprintf("record-%07d.json", i) }

func (m *manyFiles) Next(context.Context) (*store.SourceEntry, error) {
	i := m.next
	m.next++
	switch {
	case i == 0:
		return &store.SourceEntry{Kind: dag.KindDir, Attr: dag.Attr{Mode: dag.DefaultDirMode}}, nil
	case i > m.n:
		return nil, io.EOF
	}
	body := fmt.Appendf(nil, `{"record":%d}`, i-1)
	return &store.SourceEntry{Path: manyName(i - 1), Kind: dag.KindFile, Attr: dag.Attr{Mode: dag.DefaultFileMode}, Body: bytes.NewReader(body)}, nil
}

// BenchmarkProve proves in a ledger of 1,000 entries, each time another file, or another
// byte of a file.
func BenchmarkProve(b *testing.B) {
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
	put := func(in ...store.Input) {
		b.Helper()
		if _, err := s.Put(ctx, in, store.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	const few, many, large = 64, 100_000, 256 << 20
	put(store.Input{Name: "few", Source: &manyFiles{n: few}}, store.Input{Name: "many", Source: &manyFiles{n: many}})
	content := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(content)
	var parts []io.Reader
	for range large / len(content) {
		parts = append(parts, bytes.NewReader(content))
	}
	put(store.Input{Name: "large", Reader: io.MultiReader(parts...)})
	var rest []store.Input
	for i := range 996 {
		rest = append(rest, store.Input{Name: fmt.Sprint("n", i), Reader: bytes.NewReader([]byte{byte(i), byte(i >> 8)})})
	}
	put(rest...)

	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name string
		ref  func() (string, store.ProveOptions)
	}{
		{"dataset", func() (string, store.ProveOptions) { return "large", store.ProveOptions{} }},
		{"file-of-64", func() (string, store.ProveOptions) { return "few/" + manyName(r.IntN(few)), store.ProveOptions{} }},
		{"file-of-100000", func() (string, store.ProveOptions) { return "many/" + manyName(r.IntN(many)), store.ProveOptions{} }},
		{"range", func() (string, store.ProveOptions) {
			at := r.Uint64N(large)
			return "large", store.ProveOptions{Range: &store.Range{From: at, To: at + 1}}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				ref, opt := c.ref()
				o, err := s.Resolve(ctx, ref)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := s.Prove(ctx, o, opt); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"-resolve", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ref, _ := c.ref()
				if _, err := s.Resolve(ctx, ref); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
