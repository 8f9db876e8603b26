package ledger_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

// A Prover proves as ProveInclusion does, in every size of a log that grows, and of one
// larger than what it keeps.
func TestProver(t *testing.T) {
	ctx := t.Context()
	r := memTiles{}
	p := ledger.NewProver(r)
	var size int64
	root := ledger.EmptyRoot()
	leafOf := func(i int64) tlog.Hash { return tlog.Hash(sha256.Sum256(fmt.Append(nil, i))) }
	steps := []int64{1, 2, 3, 255, 256, 257, 700, 66_000}
	if testing.Short() {
		steps = steps[:len(steps)-1]
	}
	for _, n := range steps {
		var leaves []tlog.Hash
		for i := size; i < n; i++ {
			leaves = append(leaves, leafOf(i))
		}
		var tiles []ledger.Tile
		var err error
		if root, tiles, err = ledger.Append(ctx, r, size, root, leaves); err != nil {
			t.Fatal(err)
		}
		for _, tile := range tiles {
			r[[2]int64{int64(tile.Level), tile.Index}] = tile.Data
		}
		size = n
		var wg sync.WaitGroup
		for w := range int64(2) {
			wg.Go(func() {
				for i := w; i < n; i += 1 + n/300 {
					got, err := p.Inclusion(ctx, n, i)
					want, wantErr := ledger.ProveInclusion(ctx, r, n, i)
					if err != nil || wantErr != nil || !slices.Equal(got, want) {
						t.Errorf("entry %d of %d: %v, %v", i, n, err, wantErr)
						return
					}
					if err := ledger.CheckInclusion(got, n, root, i, leafOf(i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	// A tree that it was larger than before.
	old, err := p.Inclusion(ctx, 300, 7)
	want, err2 := ledger.ProveInclusion(ctx, r, 300, 7)
	if err != nil || err2 != nil || !slices.Equal(old, want) {
		t.Errorf("%v, %v", err, err2)
	}
	for _, at := range [][2]int64{{0, 0}, {5, 5}, {5, -1}, {1 << 61, 1}} {
		_, err := p.Inclusion(ctx, at[0], at[1])
		wantErr(t, fmt.Sprint(at), err, ledger.ErrProof)
	}
}
