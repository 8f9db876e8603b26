// Package compress seals runs of bytes into frames and opens them again: one
// zstd frame each, or the bytes as they are where that is not worth it.
//
// Sealed bytes are not canonical: the same bytes may be sealed differently
// another time. A frame carries no checksum and not its own size: who stores
// it keeps codec, plain size and a checksum beside it. Opening is bounded by
// the declared size whatever the frame holds.
package compress

import (
	"errors"
	"fmt"
)

// A Codec says what a frame is. The numbers are written to disk and are
// append-only.
type Codec uint8

const (
	// Raw is the plain bytes themselves.
	Raw Codec = 0
	// Zstd is one zstd frame (RFC 8878) that is a single segment, records
	// its content size, and has neither checksum nor dictionary.
	Zstd Codec = 1
)

// A Level trades time for size. The zero value is the production default.
type Level uint8

const (
	// Default takes zenc's double search, or its single one as long as trials say that
	// this does as well.
	Default Level = iota
	// Fast takes the single search.
	Fast
	// Best gives the smallest frames and takes ten times as long: it is the best level of
	// the zstd package.
	Best
)

var levelNames = [...]string{Default: "default", Fast: "fast", Best: "best"}

// ParseLevel returns the level of that name: "fast", "default" or "best".
func ParseLevel(s string) (Level, error) {
	for l, name := range levelNames {
		if s == name {
			return Level(l), nil
		}
	}
	return 0, fmt.Errorf("compress: unknown level %q, want fast, default or best", s)
}

func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// MaxPlain is the largest plain size of a frame in bytes.
const MaxPlain = 4 << 20

// Block is by how many plain bytes a prefix of a frame is decoded.
const Block = 128 << 10

// Slack is how much room behind them lets the decoder copy in words up to the
// last byte. Without, the last Block takes 1.4 times as long of source code, and
// 1.03 of JSON lines.
const Slack = 16

// ErrCorrupt reports a frame that does not open to what was declared.
var ErrCorrupt = errors.New("corrupt frame")
