package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
)

func TestInvalidSources(t *testing.T) {
	dir := func(path string) *ingest.SourceEntry {
		return &ingest.SourceEntry{Path: path, Kind: dag.KindDir, Attr: dag.Attr{Mode: 0o755}}
	}
	file := func(path string) *ingest.SourceEntry {
		return &ingest.SourceEntry{Path: path, Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o644}, Body: strings.NewReader("x")}
	}
	with := func(e *ingest.SourceEntry, f func(*ingest.SourceEntry)) *ingest.SourceEntry { f(e); return e }
	chunks := func(sizes ...uint32) func(*ingest.SourceEntry) {
		return func(e *ingest.SourceEntry) {
			e.Body = nil
			e.Chunks = func(yield func(ingest.Chunk, error) bool) {
				for _, size := range sizes {
					if !yield(ingest.Chunk{Size: size}, nil) {
						return
					}
				}
			}
		}
	}
	long := strings.Repeat("d/", 3000)
	for name, c := range map[string]struct {
		want    error
		entries []*ingest.SourceEntry
	}{
		"nothing":            {ingest.ErrInvalid, nil},
		"no root":            {ingest.ErrInvalid, []*ingest.SourceEntry{dir("a")}},
		"root a link":        {ingest.ErrInvalid, []*ingest.SourceEntry{{Kind: dag.KindLink, Target: "x"}}},
		"kind":               {ingest.ErrInvalid, []*ingest.SourceEntry{dir(""), {Path: "a", Kind: 9}}},
		"kind zero":          {ingest.ErrInvalid, []*ingest.SourceEntry{dir(""), {Path: "a"}}},
		"two files":          {ingest.ErrInvalid, []*ingest.SourceEntry{file(""), file("a")}},
		"a file twice":       {ingest.ErrInvalid, []*ingest.SourceEntry{file(""), file("")}},
		"body of a dir":      {ingest.ErrInvalid, []*ingest.SourceEntry{with(dir(""), func(e *ingest.SourceEntry) { e.Body = strings.NewReader("") })}},
		"target of a file":   {ingest.ErrInvalid, []*ingest.SourceEntry{dir(""), with(file("a"), func(e *ingest.SourceEntry) { e.Target = "x" })}},
		"both":               {ingest.ErrInvalid, []*ingest.SourceEntry{with(file(""), func(e *ingest.SourceEntry) { b := e.Body; chunks(1)(e); e.Body = b })}},
		"long path":          {ingest.ErrInvalid, []*ingest.SourceEntry{dir(""), dir(long)}},
		"empty chunk":        {ingest.ErrInvalid, []*ingest.SourceEntry{with(file(""), chunks(0))}},
		"large chunk":        {ingest.ErrInvalid, []*ingest.SourceEntry{with(file(""), chunks(128<<10+1))}},
		"short chunk inside": {ingest.ErrInvalid, []*ingest.SourceEntry{with(file(""), chunks(20<<10, 100, 20<<10))}},
		"root twice":         {dag.ErrPath, []*ingest.SourceEntry{dir(""), dir("")}},
		"twice":              {dag.ErrOrder, []*ingest.SourceEntry{dir(""), file("a"), file("a")}},
		"order":              {dag.ErrOrder, []*ingest.SourceEntry{dir(""), file("b"), file("a")}},
		"orphan":             {dag.ErrOrder, []*ingest.SourceEntry{dir(""), file("a/b")}},
		"dot dot":            {dag.ErrPath, []*ingest.SourceEntry{dir(""), dir("..")}},
		"dot":                {dag.ErrPath, []*ingest.SourceEntry{dir(""), file(".")}},
		"absolute":           {dag.ErrPath, []*ingest.SourceEntry{dir(""), file("/etc")}},
		"zero byte":          {dag.ErrPath, []*ingest.SourceEntry{dir(""), file("a\x00")}},
		"no target":          {dag.ErrPath, []*ingest.SourceEntry{dir(""), {Path: "a", Kind: dag.KindLink}}},
		"mode":               {dag.ErrAttr, []*ingest.SourceEntry{dir(""), with(file("a"), func(e *ingest.SourceEntry) { e.Attr.Mode = 1 << 12 })}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, ingest.NewPools(ingest.PoolOptions{}), newNode(t), &ingest.Input{Source: &slice{entries: c.entries}})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// Chunks that are missing are listed, each once and not too many, and nothing is built
// of what names them.
func TestMissing(t *testing.T) {
	p := ingest.NewPools(ingest.PoolOptions{})
	for _, count := range []int{1, 999, 1000, 5000} {
		n := newNode(t)
		entries := []*ingest.SourceEntry{{Kind: dag.KindDir, Attr: dag.Attr{Mode: 0o755}}}
		for i := range count {
			c := ingest.Chunk{Digest: dag.Digest{byte(i), byte(i >> 8)}, Size: 5}
			entries = append(entries, &ingest.SourceEntry{
				Path: fmt.Sprintf("%08d", i), Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o600},
				Chunks: func(yield func(ingest.Chunk, error) bool) { yield(c, nil) },
			})
		}
		entries = append(entries, entries[1]) // which would not be in order
		_, err := run(t, p, n, &ingest.Input{Source: &slice{entries: entries}})
		var missing *ingest.MissingError
		if !errors.As(err, &missing) || !errors.Is(err, ingest.ErrMissing) || len(missing.Digests) != min(count, ingest.MaxMissing) ||
			!slices.Equal(missing.Sizes, slices.Repeat([]uint32{5}, len(missing.Digests))) {
			t.Fatalf("%d missing: %v", count, err)
		}
		for i, d := range missing.Digests {
			if d != (dag.Digest{byte(i), byte(i >> 8)}) {
				t.Fatalf("missing chunk %d is %v", i, d)
			}
		}
		if len(n.nodes) != 0 {
			t.Errorf("%d nodes were made", len(n.nodes))
		}
	}
}

// What a source says in the middle, and what fails behind it, ends the dataset.
func TestErrors(t *testing.T) {
	boom := errors.New("boom")
	data := random(1, 3<<20)
	for name, c := range map[string]struct {
		edit func(n *node)
		in   func() *ingest.Input
	}{
		"look up":   {edit: func(n *node) { n.failKnown = boom }},
		"add":       {edit: func(n *node) { n.failAdd = boom }},
		"node":      {edit: func(n *node) { n.failNode = boom }},
		"manifest":  {edit: func(n *node) { n.failEntry = boom }},
		"reader":    {in: func() *ingest.Input { return &ingest.Input{Reader: failing(data, boom)} }},
		"source":    {in: func() *ingest.Input { return &ingest.Input{Source: &slice{entries: treeOf(data), err: boom}} }},
		"body":      {in: func() *ingest.Input { return &ingest.Input{Source: &slice{entries: bodyOf(failing(data, boom))}} }},
		"no Read":   {in: func() *ingest.Input { return &ingest.Input{Reader: lazy{}} }},
		"small add": {edit: func(n *node) { n.failAdd = boom }, in: func() *ingest.Input { return &ingest.Input{Reader: strings.NewReader("x")} }},
		"small":     {in: func() *ingest.Input { return &ingest.Input{Reader: iotest.ErrReader(boom)} }},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			if c.edit != nil {
				c.edit(n)
			}
			in := &ingest.Input{Reader: bytes.NewReader(data)}
			if c.in != nil {
				in = c.in()
			}
			_, err := run(t, ingest.NewPools(ingest.PoolOptions{}), n, in)
			if !errors.Is(err, boom) && !(name == "no Read" && errors.Is(err, io.ErrNoProgress)) {
				t.Errorf("%v, want boom", err)
			}
		})
	}
}

// Whole chunks that were read before a reader failed, or the put was called off, are
// handed over; what is left behind the last cut is not.
func TestKept(t *testing.T) {
	boom := errors.New("boom")
	for _, size := range []int{100, 200 << 10, 1 << 20, 3<<20 + 1} {
		data := random(uint64(size), size)
		var want []dag.Digest
		ends := profile(t, dag.DefaultProfile).Splitter().Split(nil, data, false)
		for i, end := range ends {
			start := 0
			if i > 0 {
				start = ends[i-1]
			}
			want = append(want, digest(data[start:end]))
		}
		ctx, cancel := context.WithCancel(t.Context())
		for name, in := range map[string]*ingest.Input{
			"reader":  {Reader: failing(data, boom)},
			"called":  {Reader: io.MultiReader(bytes.NewReader(data), reader(func([]byte) (int, error) { cancel(); return 0, context.Canceled }))},
			"body":    {Source: &slice{entries: bodyOf(failing(data, boom))}},
			"stopped": {Reader: io.MultiReader(bytes.NewReader(data), reader(func(b []byte) (int, error) { cancel(); return 0, nil }))},
		} {
			n := newNode(t)
			in.Profile = profile(t, dag.DefaultProfile)
			p := ingest.NewPools(ingest.PoolOptions{Workers: 1, Slabs: 1})
			if _, err := p.Run(ctx, in, n.output()); err == nil {
				t.Errorf("%s: no error", name)
			}
			if len(n.chunks) != len(want) {
				t.Errorf("%s, %d bytes: %d chunks were handed over, %d were whole", name, size, len(n.chunks), len(want))
			}
			for _, d := range want {
				if _, ok := n.chunks[d]; !ok {
					t.Errorf("%s, %d bytes: chunk %v is lost", name, size, d)
				}
			}
			ctx, cancel = context.WithCancel(t.Context())
		}
		cancel()
	}
}
