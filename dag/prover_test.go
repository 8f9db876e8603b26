package dag

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
)

// A Prover that keeps much, little or nothing gives what the functions give, to many
// callers at a time, and stays within its bytes.
func TestProver(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	tree, leaves := flatTree(t, m, 3000)
	f := fakeFile(t, NewFileBuilder(mustProfile(t, DefaultProfile), m), 1500, plain)
	leaf := fileLeafOf("f", f)
	r, root, n := m.reader(), tree.Commitment, tree.Leaves
	sharded, names := flatTree(t, m, 12000)
	if l, err := linkTo(sharded.Root); err != nil {
		t.Fatal(err)
	} else if dir, err := loadDir(ctx, r, l); err != nil || dir.typ != typeHAMT {
		t.Fatalf("the directory is not sharded: %v", err)
	}
	for _, limit := range []int64{0, 60 << 10, 400 << 10, 1 << 30} {
		p := NewProver(r, limit)
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for i := uint64(w); i < n; i += 151 {
					j, l, err := p.FindLeaf(ctx, root, n, leaves[i].Path)
					if err != nil || j != i || l != leaves[i] {
						t.Errorf("%d bytes: leaf %d: %d, %+v, %v", limit, i, j, l, err)
						return
					}
					path, err := p.ProveLeaf(ctx, root, n, i)
					want, wantErr := ProveLeaf(ctx, r, root, n, i)
					if err != nil || wantErr != nil || !slices.Equal(path, want) {
						t.Errorf("%d bytes: leaf %d: %v, %v", limit, i, err, wantErr)
						return
					}
				}
				for i := w; i < len(names); i += 151 {
					path := strings.TrimSuffix(names[i].Path, "/")
					got, err := p.Lookup(ctx, sharded.Root, path)
					want, wantErr := Lookup(ctx, r, sharded.Root, path)
					if err != nil || wantErr != nil || got != want {
						t.Errorf("%d bytes: %s: %v, %v", limit, path, err, wantErr)
						return
					}
					if _, err := p.Lookup(ctx, sharded.Root, path+"x"); !errors.Is(err, ErrNotFound) {
						t.Errorf("%d bytes: %sx: %v", limit, path, err)
						return
					}
				}
				for _, c := range []cid.Cid{f.CID, sharded.Root, tree.Root} {
					got, err := p.Stat(ctx, c)
					want, wantErr := Stat(ctx, r, c)
					if err != nil || wantErr != nil || got != want {
						t.Errorf("%d bytes: %v: %+v, %v", limit, c, got, err)
						return
					}
				}
				for at := uint64(w); at < f.Size; at += f.Size / 11 {
					want, _ := FindChunks(ctx, r, f.CID, leaf, at, at+5000)
					run, err := p.FindChunks(ctx, f.CID, leaf, at, at+5000)
					if err != nil || run != want {
						t.Errorf("%d bytes: byte %d: %+v, %v", limit, at, run, err)
						return
					}
					wantLeft, wantRight, _ := ProveChunks(ctx, r, f.CID, leaf, run.First, run.Last)
					left, right, err := p.ProveChunks(ctx, f.CID, leaf, run.First, run.Last)
					if err != nil || !slices.Equal(left, wantLeft) || !slices.Equal(right, wantRight) {
						t.Errorf("%d bytes: byte %d: %v", limit, at, err)
						return
					}
					chunks := collect(t, p.Chunks(ctx, f.CID, run.Offset, run.End))
					if want := collect(t, Chunks(ctx, r, f.CID, run.Offset, run.End)); !slices.Equal(chunks, want) {
						t.Errorf("%d bytes: byte %d: chunks %v, want %v", limit, at, chunks, want)
					}
				}
			})
		}
		wg.Wait()
		var sum int64
		for e := p.kept.order.Front(); e != nil; e = e.Next() {
			sum += e.Value.(*keptItem).size
		}
		if sum != p.kept.size || sum > limit || p.kept.order.Len() != len(p.kept.items) {
			t.Errorf("%d bytes: %d of %d items are said to take %d, and take %d", limit, len(p.kept.items), p.kept.order.Len(), p.kept.size, sum)
		}
		if limit == 1<<30 && len(p.kept.items) < 20 {
			t.Errorf("%d items are kept", len(p.kept.items))
		}
	}
}

// What is kept of one tree says nothing of another that claims the same root.
func TestProverOfOtherTree(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	tree, leaves := flatTree(t, m, 600)
	p := NewProver(m.reader(), 1<<30)
	for i := range leaves {
		if _, _, err := p.FindLeaf(ctx, tree.Commitment, 600, leaves[i].Path); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []uint64{1, 256, 257, 599, 601, 65536, 65537, 1 << 62} {
		if i, l, err := p.FindLeaf(ctx, tree.Commitment, n, leaves[0].Path); n != 599 && n != 601 && err == nil {
			t.Errorf("leaf of a tree of %d: %d, %+v", n, i, l)
		}
		if _, err := p.ProveLeaf(ctx, tree.Commitment, n, n-1); n > 1 && err == nil {
			t.Errorf("the last leaf of a tree of %d was proven", n)
		}
	}
}

// A row that is damaged on the way to a leaf may be in the way, and never makes a leaf
// that is there one that is not.
func TestFindLeafPastDamage(t *testing.T) {
	ctx := t.Context()
	m := newMemory()
	tree, leaves := flatTree(t, m, 1200)
	root, n := tree.Commitment, tree.Leaves
	var found, refused int
	for name, sound := range m.rows {
		if sound[0] != leafRow {
			continue
		}
		for _, first := range []string{"\x00", "a0", "b/", "zzz", ""} {
			row := append([]byte{leafRow, 0, byte(len(first))}, first...)
			m.rows[name] = append(row, sound[len(sound)-50:]...)
			p := NewProver(m.reader(), 1<<20)
			for i := 0; i < len(leaves); i += 131 {
				for _, r := range []func() (uint64, FileLeaf, error){
					func() (uint64, FileLeaf, error) { return FindLeaf(ctx, m.reader(), root, n, leaves[i].Path) },
					func() (uint64, FileLeaf, error) { return p.FindLeaf(ctx, root, n, leaves[i].Path) },
				} {
					switch j, l, err := r(); {
					case err == nil && j == uint64(i) && l == leaves[i]:
						found++
					case err != nil && errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound):
						refused++
					default:
						t.Fatalf("leaf %d with %q in a damaged row: %d, %+v, %v", i, first, j, l, err)
					}
				}
			}
		}
		m.rows[name] = bytes.Clone(sound)
	}
	if found == 0 || refused == 0 {
		t.Errorf("found %d, refused %d", found, refused)
	}
	for _, bad := range [][]byte{{}, {leafRow}, {leafRow, 0}, {leafRow, 1, 1, 'a'}, {hashRow, 0, 1, 'a'}, {leafRow, 0, 0xff, 0xff, 0xff, 0x7f, 'a'}} {
		short := newMemory()
		name := Hash{1}
		short.rows[name] = bad
		if path, err := (&Prover{r: short.reader()}).firstPath(ctx, name); !errors.Is(err, ErrCorrupt) {
			t.Errorf("row %s begins with %q, %v", fmt.Sprintf("%x", bad), path, err)
		}
	}
}
