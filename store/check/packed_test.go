package check

import (
	"bytes"
	"slices"
	"testing"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/rowpack"
)

func newUnpacker(t testing.TB) (*checker, *rowpack.Packer) {
	t.Helper()
	o, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	p, err := rowpack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &checker{opener: o}, p
}

// packedRows are nodes and rows of leaves as they are stored.
func packedRows(t testing.TB, p *rowpack.Packer) (packed, plain [][]byte) {
	t.Helper()
	s := build(t)
	for _, b := range s.nodes {
		if out, shrunk := p.Node(nil, b); shrunk {
			packed, plain = append(packed, out), append(plain, b)
		}
	}
	for _, b := range s.rows {
		if out, shrunk := p.Row(nil, b); shrunk {
			packed, plain = append(packed, out), append(plain, b)
		}
	}
	if len(packed) < 10 {
		t.Fatalf("%d rows are packed", len(packed))
	}
	return packed, plain
}

// What package rowpack packs is read here, and nothing that it refuses: with any byte
// changed or missing both say the same.
func TestUnpack(t *testing.T) {
	c, p := newUnpacker(t)
	packed, plain := packedRows(t, p)
	for i := range packed {
		if got, err := c.unpack(packed[i], maxRow); err != nil || !bytes.Equal(got, plain[i]) {
			t.Errorf("row of %d bytes: %v", len(plain[i]), err)
		}
		if _, err := c.unpack(packed[i], uint64(len(plain[i])-1)); err == nil {
			t.Errorf("row of %d bytes, where less is allowed", len(plain[i]))
		}
	}
	shortest := slices.MinFunc(packed, func(a, b []byte) int { return len(a) - len(b) })
	for i := range shortest {
		changed := bytes.Clone(shortest)
		changed[i] ^= 0x11
		agree(t, c, p, changed)
		agree(t, c, p, shortest[:i])
	}
	if got, err := c.unpack(plain[0], maxRow); err != nil || !bytes.Equal(got, plain[0]) {
		t.Error(err)
	}
}

func agree(t *testing.T, c *checker, p *rowpack.Packer, b []byte) {
	t.Helper()
	want, wantErr := p.Open(nil, b, dag.MaxRow)
	got, err := c.unpack(b, maxRow)
	if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Errorf("%x: %d bytes, %v; the engine reads %d, %v", b[:min(len(b), 100)], len(got), err, len(want), wantErr)
	}
}

func FuzzUnpack(f *testing.F) {
	c, p := newUnpacker(f)
	packed, _ := packedRows(f, p)
	slices.SortFunc(packed, func(a, b []byte) int { return len(a) - len(b) })
	for _, b := range packed[:3] {
		f.Add(b)
	}
	f.Add([]byte("\xc0\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { agree(t, c, p, b) })
}
