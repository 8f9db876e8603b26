// Package pack keeps frames in pack files: append-only files of a bounded size
// named NNNNNNNN.pack, numbered from 1. FORMAT.md beside this file specifies
// their bytes.
//
// A frame is a run of chunks sealed together, with a header that lists their
// digests and sizes, so that an index can be rebuilt from packs alone. Header
// and body carry checksums, and a header is bound to its pack and offset.
//
// The end of the packs is not in the packs: the caller remembers the Tail that
// was durable when it recorded where its frames are, and gives it back to Open.
// What lies beyond was being appended when the process died and is cut off by
// the next append; what is missing before it reads as ErrCorrupt.
//
// The package does not decode bodies and does not check chunks against their
// digests; its caller does.
package pack

import (
	"context"
	"errors"
	"iter"

	"github.com/koii-network/scale/compress"
)

var (
	// ErrCorrupt reports packs that do not hold what was appended to them.
	ErrCorrupt = errors.New("pack is corrupt")
	// ErrNoSpace reports a file system that is full. Nothing was appended, and
	// Append may be called again once there is room.
	ErrNoSpace = errors.New("no space left for packs")
	// ErrTooLarge reports a frame beyond the limits of the format.
	ErrTooLarge = errors.New("frame is beyond the limits of packs")
	// ErrClosed reports packs that were closed.
	ErrClosed = errors.New("packs are closed")
)

// Limits of a frame.
const (
	MaxChunks = 16384             // chunks in one frame
	MaxSealed = compress.MaxPlain // bytes of its body: sealing never grows it
	MaxFrame  = maxHeader + MaxSealed
)

// A Loc says where a frame lies. Its zero value is no place.
type Loc struct {
	Pack uint32 // number of the pack, from 1
	Off  uint64 // of the frame's first byte in the pack
	Len  uint32 // bytes of the frame, header included
}

// A Tail is the place where the next frame goes, unless it starts a new pack.
// The zero Tail is that of packs to which nothing was appended.
type Tail struct {
	Pack uint32
	End  uint64
}

// A Chunk is one entry of a frame's table.
type Chunk struct {
	Digest [32]byte // sha2-256 of its plain bytes
	Size   uint32   // plain bytes, at least 1
}

// A Frame is a run of chunks sealed together. The sizes of its chunks add up
// to PlainSize, and Sealed is never longer than that.
type Frame struct {
	Codec     compress.Codec
	PlainSize uint32
	Chunks    []Chunk
	Sealed    []byte
}

// A Store is what the engine needs of packs. Files implements it.
type Store interface {
	// Append adds a frame behind the ones before and returns where it lies. It
	// does not keep the frame. The frame can be read at once but is durable only
	// when a later Sync has returned nil. Calls are serialised.
	Append(ctx context.Context, f Frame) (Loc, error)

	// Sync makes every frame whose Append returned before the call durable. Once
	// a sync has failed, what became of those frames is unknown, and Append and
	// Sync return that error until the packs are opened anew.
	Sync(ctx context.Context) error

	// Tail returns the place behind the last frame appended.
	Tail() Tail

	// ReadFrame reads the frame at loc into buf, which is grown when it is too
	// small and returned for the next call. The frame's header and body have
	// passed their checksums; Sealed aliases the returned buffer. Safe for
	// concurrent use.
	ReadFrame(ctx context.Context, loc Loc, buf []byte) (Frame, []byte, error)

	// ReadPart reads of the frame at loc what the plain bytes [from, to) are made of; a to
	// beyond its end is the end. If the frame is one that is stored as it is, Sealed is just
	// these bytes, part is true, and they have passed no checksum, only the header has: the
	// caller compares chunks with their digests. Any other frame is read as ReadFrame does.
	ReadPart(ctx context.Context, loc Loc, from, to uint32, buf []byte) (f Frame, part bool, _ []byte, err error)

	// ReadList reads only which chunks the frame at loc holds, in order, and checks the
	// header's checksum; buf is for its own use, as ReadFrame's. Safe for concurrent use.
	ReadList(ctx context.Context, loc Loc, buf []byte) ([]Chunk, []byte, error)

	// Holds says whether the pack of loc is there and reaches to the frame's end,
	// without reading it. It is cheap. Safe for concurrent use.
	Holds(loc Loc) bool

	// List returns the numbers of the packs, ascending.
	List() ([]uint32, error)

	// Scan yields the frames of a pack by reading it from its start to its end or
	// to the Tail. See ScanFile.
	Scan(ctx context.Context, pack uint32) iter.Seq2[Scanned, error]

	// Size returns the bytes that the packs allocate on disk.
	Size() (int64, error)

	// Close frees the packs. It does not sync.
	Close() error
}
