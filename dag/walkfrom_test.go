package dag

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// From every entry of random trees, and below every directory of them, WalkFrom goes on
// as Walk would.
func TestWalkFromAgainstWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx, m := context.Background(), newMemory()
		entries := drawTree(t, m)
		tree, err := buildTree(tiny, m, entries)
		if err != nil {
			t.Fatal(err)
		}
		r := m.reader()
		sizes := map[string]uint64{}
		for _, e := range entries {
			sizes[e.path] = e.file.Size
		}
		var all []WalkEntry
		for e, err := range Walk(ctx, r, tree.Root) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Info.Kind == KindFile {
				e.Info.Size, e.Info.SizeKnown = sizes[e.Path], true
			}
			all = append(all, e)
		}
		for _, dir := range all {
			if dir.Info.Kind != KindDir {
				continue
			}
			var below []WalkEntry
			for _, e := range all[1:] {
				path, ok := strings.CutPrefix(e.Path, dir.Path+"/")
				if dir.Path == "" {
					path, ok = e.Path, true
				}
				if ok {
					e.Path = path
					below = append(below, e)
				}
			}
			for i := range len(below) + 1 {
				at := Place{Below: dir.Path}
				if i > 0 {
					at.After = below[i-1].Path
				}
				var got []WalkEntry
				for e, err := range WalkFrom(ctx, r, tree.Root, tree.Commitment, tree.Leaves, at) {
					if err != nil {
						t.Fatalf("%+v: %v", at, err)
					}
					got = append(got, e)
				}
				if diff := cmp.Diff(below[i:], got, cmpopts.EquateComparable(cid.Cid{}), cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("%+v: %s", at, diff)
				}
			}
		}
	})
}

func TestWalkFromRefuses(t *testing.T) {
	m := newMemory()
	entries := canonical([]entry{
		dirEntry(""), dirEntry("a"), {path: "a/link", kind: KindLink, target: "x"}, dirEntry("b"), {path: "c", kind: KindLink, target: "y"},
	})
	tree := mustTree(t, m, entries)
	ctx, r := t.Context(), m.reader()
	walk := func(r Reader, commitment Hash, at Place) error {
		return firstError(WalkFrom(ctx, r, tree.Root, commitment, tree.Leaves, at))
	}
	for _, after := range []string{"0", "a/", "b/", "a/k", "a/link/x", "aa", "b/x", "d", "/", "a//link"} {
		if err := walk(r, tree.Commitment, Place{After: after}); !errors.Is(err, ErrNotFound) {
			t.Errorf("after %q: %v", after, err)
		}
	}
	// A commitment of another tree names what the directories do not have.
	other := mustTree(t, m, canonical([]entry{
		dirEntry(""), {path: "a", kind: KindLink, target: "x"}, dirEntry("b"), {path: "z", kind: KindLink, target: "y"},
	}))
	if err := walk(r, other.Commitment, Place{}); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
		t.Errorf("another tree's commitment: %v", err)
	}
	if err := walk(r, other.Commitment, Place{After: "b"}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another tree's commitment, after b: %v", err)
	}
	for n := range 4 {
		stopAfter(t, n, WalkFrom(ctx, r, tree.Root, tree.Commitment, tree.Leaves, Place{}))
	}
}

// Going on in a tree takes a few reads, whatever its size.
func TestWalkFromReadsLittle(t *testing.T) {
	m := newMemory()
	entries := []entry{dirEntry(""), dirEntry("dir")}
	const n = 5000
	for i := range n {
		entries = append(entries, entry{path: fmt.Sprintf("dir/%06d", i), kind: KindLink, target: "x"})
	}
	tree, err := buildTree(tiny, m, canonical(entries))
	if err != nil {
		t.Fatal(err)
	}
	r := &countingReader{Reader: m.reader()}
	next := 0
	for e, err := range WalkFrom(t.Context(), r, tree.Root, tree.Commitment, tree.Leaves, Place{After: "dir/003000"}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("dir/%06d", 3001+next); e.Path != want {
			t.Fatalf("%q, want %q", e.Path, want)
		}
		if next++; next == 10 {
			break
		}
	}
	if r.reads > 70 {
		t.Errorf("%d reads for 10 entries of %d", r.reads, n)
	}
}

type countingReader struct {
	Reader
	reads int
}

func (c *countingReader) Node(ctx context.Context, d Digest) ([]byte, error) {
	c.reads++
	return c.Reader.Node(ctx, d)
}

func (c *countingReader) Row(ctx context.Context, h Hash) ([]byte, error) {
	c.reads++
	return c.Reader.Row(ctx, h)
}
