package ingest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A node is all that an Output needs, and remembers everything.
type node struct {
	t testing.TB

	mu       sync.Mutex
	chunks   map[dag.Digest][]byte
	nodes    map[dag.Digest]bool
	lookups  int
	manifest []entry
	open     bool // between Begin and End

	failKnown, failAdd, failNode, failEntry error
	onAdd                                   func(last bool)
}

// An entry is what the manifest was told of one.
type entry struct {
	ingest.Entry
	Chunks []ingest.Chunk
}

func newNode(t testing.TB) *node {
	return &node{t: t, chunks: map[dag.Digest][]byte{}, nodes: map[dag.Digest]bool{}}
}

func (n *node) output() *ingest.Output {
	return &ingest.Output{Index: n, Chunks: n, Nodes: n, Manifest: n}
}

func (n *node) Known(_ context.Context, chunks []ingest.Chunk, known []bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookups++
	if len(chunks) != len(known) || len(chunks) > ingest.MaxLookup || slices.Contains(known, true) {
		n.t.Errorf("Known of %d chunks with %d answers", len(chunks), len(known))
	}
	for i, c := range chunks {
		b, ok := n.chunks[c.Digest]
		known[i] = ok && len(b) == int(c.Size)
	}
	return n.failKnown
}

func (n *node) Add(_ context.Context, chunks []ingest.NewChunk, last bool) error {
	if n.onAdd != nil {
		n.onAdd(last)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range chunks {
		if len(c.Data) != int(c.Size) {
			n.t.Errorf("chunk of %d bytes with %d", c.Size, len(c.Data))
		}
		n.chunks[c.Digest] = bytes.Clone(c.Data)
	}
	return n.failAdd
}

// Node refuses a node that names a chunk or a node that is not there.
func (n *node) Node(d dag.Digest, block []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[d] = true
	if n.failNode != nil {
		return n.failNode
	}
	pb, err := merkledag.DecodeProtobuf(block)
	if err != nil {
		return err
	}
	for _, l := range pb.Links() {
		d, err := dag.DigestOf(l.Cid)
		if err != nil {
			return err
		}
		there := n.nodes[d] || d == dag.EmptyDigest
		if l.Cid.Prefix().Codec == cid.Raw {
			_, there = n.chunks[d]
			there = there || d == dag.EmptyDigest
		}
		if !there {
			return fmt.Errorf("a node names %v, which is not there", l.Cid)
		}
	}
	return nil
}

func (n *node) Row(dag.Hash, []byte) error { return n.failNode }

func (n *node) Begin(e ingest.Entry) error {
	if n.open {
		n.t.Errorf("%q begins inside another entry", e.Path)
	}
	n.open = true
	n.manifest = append(n.manifest, entry{Entry: e})
	return n.failEntry
}

func (n *node) Chunk(c ingest.Chunk) error {
	if !n.open {
		n.t.Error("a chunk of no entry")
	}
	e := &n.manifest[len(n.manifest)-1]
	e.Chunks = append(e.Chunks, c)
	return nil
}

func (n *node) End(keep bool) error {
	n.open = false
	if !keep {
		n.manifest = n.manifest[:len(n.manifest)-1]
	}
	return nil
}

// bytes gives an entry's bytes back.
func (n *node) bytes(e entry) []byte {
	var b []byte
	for _, c := range e.Chunks {
		b = append(b, n.chunks[c.Digest]...)
	}
	return b
}

// source replays the manifest, by the chunks' digests or by their bytes.
func (n *node) source(digests bool) *slice {
	s := &slice{}
	for _, e := range n.manifest {
		se := &ingest.SourceEntry{Path: e.Path, Kind: e.Kind, Attr: e.Attr, Target: e.Target}
		if e.Kind == dag.KindFile && digests {
			se.Chunks = func(yield func(ingest.Chunk, error) bool) {
				for _, c := range e.Chunks {
					if !yield(c, nil) {
						return
					}
				}
			}
		} else if e.Kind == dag.KindFile {
			se.Body = iotest.HalfReader(bytes.NewReader(n.bytes(e)))
		}
		s.entries = append(s.entries, se)
	}
	return s
}

// A slice is a Source.
type slice struct {
	entries []*ingest.SourceEntry
	err     error // instead of io.EOF
}

func (s *slice) Next(context.Context) (*ingest.SourceEntry, error) {
	if len(s.entries) == 0 && s.err != nil {
		return nil, s.err
	}
	if len(s.entries) == 0 {
		return nil, io.EOF
	}
	e := s.entries[0]
	s.entries = s.entries[1:]
	return e, nil
}

func profile(t testing.TB, name string) *dag.Profile {
	t.Helper()
	p, err := dag.LookupProfile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func run(t testing.TB, p *ingest.Pools, n *node, in *ingest.Input) (ingest.Result, error) {
	t.Helper()
	if in.Profile == nil {
		in.Profile = profile(t, dag.DefaultProfile)
	}
	return p.Run(t.Context(), in, n.output())
}

func digest(b []byte) dag.Digest { return sha256.Sum256(b) }

type lazy struct{}

func (lazy) Read([]byte) (int, error) { return 0, nil }

func failing(data []byte, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(data), iotest.ErrReader(err))
}

func treeOf(data []byte) []*ingest.SourceEntry {
	return []*ingest.SourceEntry{
		{Kind: dag.KindDir, Attr: dag.Attr{Mode: 0o755}},
		{Path: "a", Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o644}, Body: bytes.NewReader(data)},
	}
}

func bodyOf(r io.Reader) []*ingest.SourceEntry {
	e := treeOf(nil)
	e[1].Body = r
	return e
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
