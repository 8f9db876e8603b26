package proof

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/koii-network/scale/dag"
)

// A manifest whose paths have more bytes than the format allows is not valid; one that takes
// more memory than the reader allows may be.
func TestManifestLimit(t *testing.T) {
	p := Proof{EntryBlock: []byte("entry"), Checkpoint: []byte("checkpoint"), Manifest: []dag.FileLeaf{
		{Kind: dag.KindDir, Path: "0123456789/"},
		{Kind: dag.KindDir, Path: "0123456789/a/"},
		{Kind: dag.KindDir, Path: "0123456789/b/"},
	}}
	b, err := p.Format()
	if err != nil {
		t.Fatal(err)
	}
	const size = 37 // of all paths
	for _, test := range []struct {
		lim  limits
		want error
	}{
		{limits{paths: size, memory: math.MaxInt}, nil},
		{limits{paths: size - 1, memory: math.MaxInt}, ErrFormat},
		{limits{paths: 13, memory: math.MaxInt}, ErrFormat},
		{limits{paths: size - 1, memory: size - 1}, ErrFormat},
		{limits{paths: size, memory: size}, nil},
		{limits{paths: size, memory: size - 1}, ErrLarge},
		{limits{paths: size, memory: size + 3*100, leaf: 100}, nil},
		{limits{paths: size, memory: size + 3*100 - 1, leaf: 100}, ErrLarge},
		{limits{paths: size, memory: 3*100 - 1, leaf: 100}, ErrLarge},
	} {
		got, err := parse(b, test.lim)
		if !errors.Is(err, test.want) || err != nil && errors.Is(err, ErrFormat) == errors.Is(err, ErrLarge) || err == nil && len(got.Manifest) != 3 {
			t.Errorf("%+v: %v, want %v", test.lim, err, test.want)
		}
	}
	// A path that no file has is not unfolded.
	long := decoder{b: appendManifest(nil, []dag.FileLeaf{{Kind: dag.KindDir, Path: strings.Repeat("x", dag.MaxPath+2)}})}
	if got := long.manifest(limits{paths: MaxProof, memory: math.MaxInt}); got != nil || long.err == nil {
		t.Errorf("a long path: %v", long.err)
	}
}

// Leaves take memory however short their paths are.
func TestParseWithinManyLeaves(t *testing.T) {
	p := Proof{EntryBlock: []byte("entry"), Checkpoint: []byte("checkpoint")}
	const leaves = 10_000
	for i := range leaves {
		p.Manifest = append(p.Manifest, dag.FileLeaf{Kind: dag.KindDir, Path: fmt.Sprintf("%04d/", i)})
	}
	b, err := p.Format()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > leaves*20 {
		t.Fatalf("a proof of %d bytes", len(b))
	}
	for most, want := range map[int]error{leaves * 20: ErrLarge, leaves * 80: ErrLarge, leaves * 100: nil} {
		if got, err := ParseWithin(b, most); !errors.Is(err, want) || err == nil && len(got.Manifest) != leaves {
			t.Errorf("within %d bytes: %v, want %v", most, err, want)
		}
	}
	if _, err := Parse(b); err != nil {
		t.Error(err)
	}
}
