package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/mod/sumdb/tlog"
)

// TileHeight is the height of the C2SP tlog-tiles: a full tile has TileWidth hashes.
const (
	TileHeight = 8
	TileWidth  = 1 << TileHeight
)

// MaxSize bounds the size of a tree. tlog's arithmetic does not terminate far above it.
const MaxSize = 1 << 60

var errSize = errors.New("tree is larger than any log can be")

// TileReader reads the tree's tiles. Level 0 holds leaf hashes, level n+1 the
// roots of full tiles of level n.
type TileReader interface {
	// ReadTile returns the first width hashes of a tile, exactly 32*width
	// bytes, which the caller does not change. A wider tile of the same
	// coordinates may be cut down to answer.
	ReadTile(ctx context.Context, level int, index int64, width int) ([]byte, error)
}

// A Tile is one that Append made or made wider. Data has 32 bytes for each hash.
type Tile struct {
	Level int
	Index int64
	Data  []byte
}

// Width returns the number of hashes in the tile.
func (t Tile) Width() int { return len(t.Data) / tlog.HashSize }

// EmptyRoot returns the root of the empty tree.
func EmptyRoot() tlog.Hash {
	h, _ := tlog.TreeHash(0, nil)
	return h
}

// hashes serves the hashes of a tree of one size out of tiles, each read once.
type hashes struct {
	ctx   context.Context
	r     TileReader
	size  int64
	tiles map[tlog.Tile][]byte
	known *knownHashes // nil if nothing is kept
}

func newHashes(ctx context.Context, r TileReader, size int64) *hashes {
	return &hashes{ctx: ctx, r: r, size: size, tiles: make(map[tlog.Tile][]byte)}
}

// tile reads a tile as wide as it is in a tree of this size.
func (h *hashes) tile(level int, index int64) (tlog.Tile, []byte, error) {
	width := min(TileWidth, h.size>>(TileHeight*level)-index<<TileHeight)
	t := tlog.Tile{H: TileHeight, L: level, N: index, W: int(width)}
	if data, ok := h.tiles[t]; ok {
		return t, data, nil
	}
	data, err := h.r.ReadTile(h.ctx, level, index, t.W)
	if err != nil {
		return t, nil, fmt.Errorf("read tile %s: %w", TilePath(level, index, t.W), err)
	}
	if len(data) != t.W*tlog.HashSize {
		return t, nil, fmt.Errorf("%w: tile %s has %d bytes", ErrCorrupt, TilePath(level, index, t.W), len(data))
	}
	h.tiles[t] = data
	return t, data, nil
}

// ReadHashes implements tlog.HashReader.
func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if known, ok := h.known.get(x); ok {
			out[i] = known
			continue
		}
		at := tlog.TileForIndex(TileHeight, x)
		t, data, err := h.tile(at.L, at.N)
		if err != nil {
			return nil, err
		}
		if out[i], err = tlog.HashFromTile(t, data, x); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		h.known.put(x, out[i])
	}
	return out, nil
}

// Root computes the root of the first size entries from the tree's right edge.
func Root(ctx context.Context, r TileReader, size int64) (tlog.Hash, error) {
	if size < 0 || size > MaxSize {
		return tlog.Hash{}, fmt.Errorf("%w: tree of size %d", ErrFormat, size)
	}
	h, err := tlog.TreeHash(size, newHashes(ctx, r, size))
	if err != nil {
		return tlog.Hash{}, fmt.Errorf("root at size %d: %w", size, err)
	}
	return h, nil
}

// Append extends a tree of size old. Before anything is built on the stored
// right edge it must give oldRoot, else the error is ErrCorrupt. It returns the
// new root and every tile that is new or wider than before, level by level,
// each level in ascending order, the last tile of a level perhaps partial.
func Append(ctx context.Context, r TileReader, old int64, oldRoot tlog.Hash, leaves []tlog.Hash) (tlog.Hash, []Tile, error) {
	if old < 0 || old > MaxSize-int64(len(leaves)) {
		return tlog.Hash{}, nil, fmt.Errorf("%w: append %d entries to a tree of size %d", ErrFormat, len(leaves), old)
	}
	stored := newHashes(ctx, r, old)
	root, err := tlog.TreeHash(old, stored)
	if err != nil {
		return tlog.Hash{}, nil, fmt.Errorf("right edge at size %d: %w", old, err)
	}
	if root != oldRoot {
		return tlog.Hash{}, nil, fmt.Errorf("%w: stored tiles of size %d have root %v, the signed root is %v", ErrCorrupt, old, root, oldRoot)
	}
	// What the old root covers is not read a second time.
	fresh := &hashes{ctx: ctx, r: r, size: old + int64(len(leaves)), tiles: maps.Clone(stored.tiles)}
	var tiles []Tile
	for level, add := 0, leaves; len(add) > 0; level++ {
		var up []tlog.Hash
		have := old >> (TileHeight * level)
		t := Tile{Level: level, Index: have >> TileHeight}
		if have%TileWidth != 0 {
			// All hashes of a partial tile on the right edge went into the root above.
			_, data, err := stored.tile(level, t.Index)
			if err != nil {
				return tlog.Hash{}, nil, err
			}
			t.Data = append(t.Data, data...)
		}
		for len(add) > 0 {
			n := min(len(add), TileWidth-t.Width())
			for _, h := range add[:n] {
				t.Data = append(t.Data, h[:]...)
			}
			add = add[n:]
			tiles = append(tiles, t)
			at := tlog.Tile{H: TileHeight, L: level, N: t.Index, W: t.Width()}
			fresh.tiles[at] = t.Data
			if at.W < TileWidth {
				break
			}
			h, err := tileRoot(at, t.Data)
			if err != nil {
				return tlog.Hash{}, nil, err
			}
			up = append(up, h)
			t = Tile{Level: level, Index: t.Index + 1}
		}
		add = up
	}
	if root, err = tlog.TreeHash(fresh.size, fresh); err != nil {
		return tlog.Hash{}, nil, fmt.Errorf("root at size %d: %w", fresh.size, err)
	}
	return root, tiles, nil
}

// tileRoot returns the root of a full tile.
func tileRoot(t tlog.Tile, data []byte) (tlog.Hash, error) {
	left, err := tlog.HashFromTile(t, data, tlog.StoredHashIndex(TileHeight*t.L+TileHeight-1, 2*t.N))
	if err != nil {
		return tlog.Hash{}, err
	}
	right, err := tlog.HashFromTile(t, data, tlog.StoredHashIndex(TileHeight*t.L+TileHeight-1, 2*t.N+1))
	if err != nil {
		return tlog.Hash{}, err
	}
	return tlog.NodeHash(left, right), nil
}

// ProveInclusion proves entry index in the tree of the given size. The tiles
// are not authenticated: check the proof against a root before it is given away.
func ProveInclusion(ctx context.Context, r TileReader, size, index int64) (tlog.RecordProof, error) {
	return proveInclusion(newHashes(ctx, r, size), index)
}

func proveInclusion(h *hashes, index int64) (tlog.RecordProof, error) {
	size := h.size
	if index < 0 || index >= size || size > MaxSize {
		return nil, fmt.Errorf("%w: no entry %d in a tree of size %d", ErrProof, index, size)
	}
	p, err := tlog.ProveRecord(size, index, h)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d at size %d: %w", index, size, err)
	}
	return p, nil
}

// CheckInclusion checks that the entry with that leaf hash is number index of
// the tree with that size and root.
func CheckInclusion(p tlog.RecordProof, size int64, root tlog.Hash, index int64, leaf tlog.Hash) error {
	err := errSize
	if size <= MaxSize {
		err = tlog.CheckRecord(p, size, root, index, leaf)
	}
	if err != nil {
		return fmt.Errorf("%w: entry %d in a tree of size %d with root %v: %w", ErrProof, index, size, root, err)
	}
	return nil
}

// ProveConsistency proves that the tree of size from is a prefix of the tree
// of size to. The empty tree is a prefix of every tree, by an empty proof.
func ProveConsistency(ctx context.Context, r TileReader, from, to int64) (tlog.TreeProof, error) {
	if from < 0 || from > to || to > MaxSize {
		return nil, fmt.Errorf("%w: no tree of size %d within one of size %d", ErrProof, from, to)
	}
	if from == 0 {
		return tlog.TreeProof{}, nil
	}
	p, err := tlog.ProveTree(to, from, newHashes(ctx, r, to))
	if err != nil {
		return nil, fmt.Errorf("prove size %d within size %d: %w", from, to, err)
	}
	return p, nil
}

// CheckConsistency checks such a proof against both roots.
func CheckConsistency(p tlog.TreeProof, from int64, fromRoot tlog.Hash, to int64, toRoot tlog.Hash) error {
	var err error
	switch {
	case to > MaxSize:
		err = errSize
	case from < 0 || from > to:
		err = fmt.Errorf("sizes out of order")
	case from == 0 && (len(p) != 0 || fromRoot != EmptyRoot()):
		err = fmt.Errorf("the empty tree has root %v and an empty proof", EmptyRoot())
	case from == to && fromRoot != toRoot:
		err = fmt.Errorf("two roots for one size")
	case to > 0 && from > 0:
		err = tlog.CheckTree(p, to, toRoot, from, fromRoot)
	}
	if err != nil {
		return fmt.Errorf("%w: size %d with root %v within size %d with root %v: %w", ErrProof, from, fromRoot, to, toRoot, err)
	}
	return nil
}
