package ledger

import (
	"fmt"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

// TilePath returns where C2SP tlog-tiles puts a tile: tile/<L>/<N>[.p/<W>].
func TilePath(level int, index int64, width int) string {
	return torchwood.TilePath(tlog.Tile{H: TileHeight, L: level, N: index, W: width})
}

// BundlePath returns where C2SP tlog-tiles puts an entry bundle:
// tile/entries/<N>[.p/<W>].
func BundlePath(index int64, width int) string { return TilePath(-1, index, width) }

// AppendBundle appends an entry to an entry bundle: its length as two bytes,
// big-endian, and its block.
func AppendBundle(dst, block []byte) ([]byte, error) {
	if len(block) > MaxEntry {
		return nil, fmt.Errorf("%w: entry of %d bytes, limit %d", ErrFormat, len(block), MaxEntry)
	}
	return torchwood.AppendTileEntry(dst, block)
}

// ParseBundle returns the blocks of an entry bundle, which alias b. They are
// not parsed. A bundle holds 1 to TileWidth entries.
func ParseBundle(b []byte) ([][]byte, error) {
	var blocks [][]byte
	for rest := b; len(rest) > 0 || len(blocks) == 0; {
		block, more, err := torchwood.ReadTileEntry(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: entry bundle: %w", ErrFormat, err)
		}
		if len(blocks) == TileWidth || len(block) > MaxEntry {
			return nil, fmt.Errorf("%w: entry bundle of more than %d entries, or an entry of %d bytes", ErrFormat, TileWidth, len(block))
		}
		blocks, rest = append(blocks, block), more
	}
	return blocks, nil
}
