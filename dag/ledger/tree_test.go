package ledger_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

// memTiles keeps the widest version of each tile.
type memTiles map[[2]int64][]byte

var errNoTile = errors.New("no such tile")

func (m memTiles) ReadTile(_ context.Context, level int, index int64, width int) ([]byte, error) {
	data := m[[2]int64{int64(level), index}]
	if len(data) < 32*width {
		return nil, errNoTile
	}
	return data[:32*width], nil
}

func (m memTiles) put(tiles []ledger.Tile) {
	for _, t := range tiles {
		m[[2]int64{int64(t.Level), t.Index}] = t.Data
	}
}

func leafHash(i int64) tlog.Hash {
	return tlog.RecordHash(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

func leafHashes(n int64) []tlog.Hash {
	list := make([]tlog.Hash, n)
	for i := range list {
		list[i] = leafHash(int64(i))
	}
	return list
}

// treeRoot is RFC 6962, section 2.1, as it is written.
func treeRoot(leaves []tlog.Hash) tlog.Hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(treeRoot(leaves[:k]), treeRoot(leaves[k:]))
}

// buildTree returns the tiles of the first n leaves.
func buildTree(t testing.TB, n int64) (memTiles, tlog.Hash) {
	t.Helper()
	m := memTiles{}
	root, tiles, err := ledger.Append(context.Background(), m, 0, ledger.EmptyRoot(), leafHashes(n))
	if err != nil {
		t.Fatal(err)
	}
	m.put(tiles)
	return m, root
}

// checkAppend appends and compares root and tiles with what tlog says must be
// published, and tile data with hashes computed from all leaves.
func checkAppend(t *testing.T, m memTiles, old, n int64) {
	t.Helper()
	ctx := context.Background()
	leaves := leafHashes(old + n)
	root, tiles, err := ledger.Append(ctx, m, old, treeRoot(leaves[:old]), leaves[old:])
	if err != nil {
		t.Fatalf("append %d to %d: %v", n, old, err)
	}
	if want := treeRoot(leaves); root != want {
		t.Fatalf("append %d to %d: root %v, want %v", n, old, root, want)
	}
	want := tlog.NewTiles(ledger.TileHeight, old, old+n)
	if len(tiles) != len(want) {
		t.Fatalf("append %d to %d: %d tiles, want %d", n, old, len(tiles), len(want))
	}
	for i, w := range want {
		got := tiles[i]
		if got.Level != w.L || got.Index != w.N || got.Width() != w.W {
			t.Fatalf("append %d to %d: tile %d is %d/%d width %d, want %+v", n, old, i, got.Level, got.Index, got.Width(), w)
		}
		for j := range w.W {
			span := int64(1) << (8 * w.L)
			at := (w.N<<8 + int64(j)) * span
			if h := treeRoot(leaves[at : at+span]); h != tlog.Hash(got.Data[32*j:32*j+32]) {
				t.Fatalf("append %d to %d: hash %d of tile %+v is wrong", n, old, j, w)
			}
		}
	}
	m.put(tiles)
	if got, err := ledger.Root(ctx, m, old+n); err != nil || got != root {
		t.Fatalf("root at %d: %v, %v, want %v", old+n, got, err, root)
	}
}

func TestAppendEverySize(t *testing.T) {
	t.Parallel()
	for _, batch := range []int64{1, 2, 3, 7, 100, 255, 256, 257, 600} {
		m := memTiles{}
		for size := int64(0); size <= 600; size += batch {
			checkAppend(t, m, size, batch)
		}
	}
	// From every size, by steps around the tile's width.
	for old := int64(0); old <= 520; old++ {
		m, _ := buildTree(t, old)
		for _, n := range []int64{0, 1, 255 - old%256, 256 - old%256, 257 - old%256, 512} {
			checkAppend(t, maps.Clone(m), old, max(n, 0))
		}
	}
}

func TestAppendThreeLevels(t *testing.T) {
	m := memTiles{}
	at := int64(0)
	for _, to := range []int64{65535, 65536, 65537, 66000, 131072, 131073} {
		checkAppend(t, m, at, to-at)
		at = to
	}
}

func TestAppendChecksTheRightEdge(t *testing.T) {
	ctx := context.Background()
	for _, size := range []int64{1, 2, 255, 256, 257, 300, 511, 512, 513, 600} {
		m, root := buildTree(t, size)
		// Every hash that a further append would build on.
		edge := map[[2]int64]int{}
		for level, n := int64(0), size; n > 0; level, n = level+1, n>>8 {
			if n%256 != 0 {
				edge[[2]int64{level, n >> 8}] = int(n % 256)
			}
		}
		for at, width := range edge {
			for i := range width {
				bad := maps.Clone(m)
				bad[at] = bytes.Clone(bad[at])
				bad[at][32*i+i%32] ^= 1
				_, tiles, err := ledger.Append(ctx, bad, size, root, leafHashes(3))
				if !errors.Is(err, ledger.ErrCorrupt) || tiles != nil {
					t.Fatalf("size %d: hash %d of tile %v changed: %d tiles, %v", size, i, at, len(tiles), err)
				}
			}
			lost := maps.Clone(m)
			delete(lost, at)
			if _, _, err := ledger.Append(ctx, lost, size, root, leafHashes(3)); !errors.Is(err, errNoTile) {
				t.Fatalf("size %d: tile %v lost: %v", size, at, err)
			}
		}
		if _, _, err := ledger.Append(ctx, m, size, ledger.EmptyRoot(), leafHashes(3)); !errors.Is(err, ledger.ErrCorrupt) {
			t.Fatalf("size %d, another root: %v", size, err)
		}
	}
	if _, _, err := ledger.Append(ctx, memTiles{}, 0, tlog.Hash{}, leafHashes(1)); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("empty tree with another root: %v", err)
	}
}

// longTiles answers with more than was asked for.
type longTiles struct{ memTiles }

func (m longTiles) ReadTile(ctx context.Context, level int, index int64, width int) ([]byte, error) {
	b, err := m.memTiles.ReadTile(ctx, level, index, width)
	return append(bytes.Clone(b), 0), err
}

func TestBadReaderAndSizes(t *testing.T) {
	ctx := context.Background()
	m, root := buildTree(t, 5)
	_, err := ledger.Root(ctx, longTiles{m}, 5)
	wantErr(t, "long tile", err, ledger.ErrCorrupt)
	for _, size := range []int64{-1, ledger.MaxSize + 1, 1<<63 - 1} {
		_, err := ledger.Root(ctx, m, size)
		wantErr(t, "root", err, ledger.ErrFormat)
		_, _, err = ledger.Append(ctx, m, size, root, leafHashes(1))
		wantErr(t, "append", err, ledger.ErrFormat)
		_, err = ledger.ProveInclusion(ctx, m, size, size-1)
		wantErr(t, "prove inclusion", err, ledger.ErrProof)
		_, err = ledger.ProveConsistency(ctx, m, size-1, size)
		wantErr(t, "prove consistency", err, ledger.ErrProof)
		wantErr(t, "check inclusion", ledger.CheckInclusion(nil, size, root, size-1, root), ledger.ErrProof)
		wantErr(t, "check consistency", ledger.CheckConsistency(nil, size-1, root, size, root), ledger.ErrProof)
	}
	if got, err := ledger.Root(ctx, memTiles{}, 0); err != nil || got != ledger.EmptyRoot() {
		t.Errorf("empty tree: %v, %v", got, err)
	}
}

func TestInclusionEverySize(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const limit = 600
	m, _ := buildTree(t, limit)
	leaves := leafHashes(limit)
	for size := int64(0); size <= limit; size++ {
		root := treeRoot(leaves[:size])
		step := int64(1)
		if size > 70 {
			step = 37 // every index of small trees, a sample of the others
		}
		for i := int64(0); i < size; i += step {
			p, err := ledger.ProveInclusion(ctx, m, size, i)
			if err != nil {
				t.Fatal(err)
			}
			if err := ledger.CheckInclusion(p, size, root, i, leaves[i]); err != nil {
				t.Fatal(err)
			}
			bad := func(what string, p tlog.RecordProof, size, i int64, leaf tlog.Hash) {
				t.Helper()
				if err := ledger.CheckInclusion(p, size, root, i, leaf); !errors.Is(err, ledger.ErrProof) {
					t.Fatalf("entry %d of %d, %s: %v", i, size, what, err)
				}
			}
			for j := range p {
				q := append(tlog.RecordProof{}, p...)
				q[j][int(i)%32] ^= 1 << (j % 8)
				bad("hash changed", q, size, i, leaves[i])
				bad("hash left out", append(append(tlog.RecordProof{}, p[:j]...), p[j+1:]...), size, i, leaves[i])
			}
			bad("hash too many", append(append(tlog.RecordProof{}, p...), root), size, i, leaves[i])
			bad("another leaf", p, size, i, leafHash(-1))
			bad("index of no entry", p, size, size, leaves[i])
			if size > 1 {
				bad("another index", p, size, (i+1)%size, leaves[i])
			}
		}
		if _, err := ledger.ProveInclusion(ctx, m, size, size); !errors.Is(err, ledger.ErrProof) {
			t.Fatalf("entry %d of %d: %v", size, size, err)
		}
	}
}

func TestConsistencyEveryPair(t *testing.T) {
	ctx := context.Background()
	var pairs [][2]int64
	for to := int64(0); to <= 64; to++ {
		for from := int64(0); from <= to; from++ {
			pairs = append(pairs, [2]int64{from, to})
		}
	}
	around := []int64{100, 255, 256, 257, 300, 511, 512, 513, 600}
	for i, to := range around {
		for _, from := range around[:i+1] {
			pairs = append(pairs, [2]int64{from, to})
		}
	}
	m, _ := buildTree(t, 600)
	leaves := leafHashes(600)
	for _, pair := range pairs {
		from, to := pair[0], pair[1]
		a, b := treeRoot(leaves[:from]), treeRoot(leaves[:to])
		p, err := ledger.ProveConsistency(ctx, m, from, to)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.CheckConsistency(p, from, a, to, b); err != nil {
			t.Fatal(err)
		}
		bad := func(what string, p tlog.TreeProof, from, to int64, a, b tlog.Hash) {
			t.Helper()
			if err := ledger.CheckConsistency(p, from, a, to, b); !errors.Is(err, ledger.ErrProof) {
				t.Fatalf("%d within %d, %s: %v", from, to, what, err)
			}
		}
		for j := range p {
			q := append(tlog.TreeProof{}, p...)
			q[j][int(to)%32] ^= 1 << (j % 8)
			bad("hash changed", q, from, to, a, b)
			bad("hash left out", append(append(tlog.TreeProof{}, p[:j]...), p[j+1:]...), from, to, a, b)
		}
		bad("hash too many", append(append(tlog.TreeProof{}, p...), a), from, to, a, b)
		bad("another old root", p, from, to, leafHash(-1), b)
		bad("sizes swapped", p, to+1, from, b, a)
		if from > 0 {
			bad("another new root", p, from, to, a, leafHash(-1))
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 256, 4096} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, root := buildTree(b, 100_000)
			leaves := leafHashes(int64(n))
			for b.Loop() {
				if _, _, err := ledger.Append(context.Background(), m, 100_000, root, leaves); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
