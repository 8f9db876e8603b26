package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// An Opener opens frames. It is safe for concurrent use.
type Opener struct {
	whole   *zstd.Decoder
	short   sync.Pool // of *[]byte, for frames cut short
	streams sync.Pool // of *zstd.Decoder, which decode a stream without goroutines
}

// NewOpener returns an Opener.
func NewOpener() (*Opener, error) {
	d, err := newDecoder(0)
	if err != nil {
		return nil, err
	}
	return &Opener{whole: d}, nil
}

func newDecoder(concurrency int) (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(concurrency),
		zstd.WithDecoderMaxMemory(MaxPlain), zstd.WithDecoderMaxWindow(MaxPlain))
	if err != nil {
		return nil, fmt.Errorf("compress: new decoder: %w", err)
	}
	return d, nil
}

// Close frees the decoders. The Opener must not be used again.
func (o *Opener) Close() { o.whole.Close() }

// Open appends the size plain bytes of a frame to dst, or fails with
// ErrCorrupt and returns dst as it was. It allocates no more than size and
// writes to dst no further than that.
func (o *Opener) Open(dst []byte, c Codec, sealed []byte, size int) ([]byte, error) {
	if _, err := checkFrame(c, sealed, size); err != nil {
		return dst, err
	}
	if c == Raw {
		return append(dst, sealed...), nil
	}
	return o.decode(dst, sealed, size, 0)
}

// decode appends what a zstd frame that was checked opens to. It writes up to slack bytes
// beyond that.
func (o *Opener) decode(dst, sealed []byte, size, slack int) ([]byte, error) {
	dst = slices.Grow(dst, size)
	end := len(dst) + size
	plain, err := o.whole.DecodeAll(sealed, dst[len(dst):len(dst):min(cap(dst), end+slack)])
	if err != nil {
		return dst, fmt.Errorf("compress: open: %w: %w", ErrCorrupt, err)
	}
	if len(plain) != size {
		return dst, fmt.Errorf("compress: open: %w: %d bytes, declared %d", ErrCorrupt, len(plain), size)
	}
	copy(dst[len(dst):end], plain) // onto itself, unless the decoder moved it
	return dst[:end], nil
}

// OpenPrefix appends the first n of the size plain bytes to dst. In the room of
// dst it writes further, if there is so much: to the end of the Block that the
// last of them is in, and Slack bytes more. Of a zstd frame only the blocks that
// hold them are decoded, so that damage behind them goes unnoticed.
func (o *Opener) OpenPrefix(dst []byte, c Codec, sealed []byte, size, n int) ([]byte, error) {
	if n < 0 || n > size {
		return dst, fmt.Errorf("compress: open: %w: %d bytes asked of %d", ErrCorrupt, n, size)
	}
	header, err := checkFrame(c, sealed, size)
	if err != nil {
		return dst, err
	}
	if c == Raw || n == 0 {
		return append(dst, sealed[:n]...), nil
	}
	blocks := (n + Block - 1) / Block
	if blocks*Block >= size {
		plain, err := o.decode(dst, sealed, size, Slack)
		return plain[:min(len(plain), len(dst)+n)], err
	}
	short, _ := o.short.Get().(*[]byte)
	if short == nil {
		short = new([]byte)
	}
	defer o.short.Put(short)
	if *short = appendShort((*short)[:0], sealed, header, blocks); len(*short) > 0 {
		if plain, err := o.decode(dst, *short, blocks*Block, Slack); err == nil {
			return plain[:len(dst)+n], nil
		}
	}
	return o.stream(dst, sealed, n)
}

// appendShort appends a frame of the first blocks of a sealed one, if each of
// them holds a whole Block, as all but the last do that a Sealer makes. It
// appends nothing if there are not as many.
//
// What a block decodes to depends on the blocks before it alone, and the short
// frame opens only if its blocks decode to what it declares, the most that they
// can: so they are the same bytes.
func appendShort(dst, sealed []byte, header, blocks int) []byte {
	end, last := header, 0
	for range blocks {
		last = end
		h := blockHeader(sealed[last:])
		if end += h.size; h.last {
			return dst
		}
	}
	const singleSegment, size32 = 1 << 5, 2 << 6 // of the frame header's descriptor
	dst = append(dst, sealed[:4]...)
	dst = append(dst, singleSegment|size32)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(blocks*Block))
	last += len(dst) - header
	dst = append(dst, sealed[header:end]...)
	dst[last] |= 1
	return dst
}

// stream opens a prefix of any frame. From half a megabyte on it takes a tenth to a
// third longer: the decoder keeps its history apart.
func (o *Opener) stream(dst, sealed []byte, n int) ([]byte, error) {
	d, _ := o.streams.Get().(*zstd.Decoder)
	if d == nil {
		var err error
		if d, err = newDecoder(1); err != nil {
			return dst, err
		}
	}
	defer o.streams.Put(d)
	if err := d.Reset(bytes.NewReader(sealed)); err != nil {
		return dst, fmt.Errorf("compress: open: %w", err)
	}
	defer d.Reset(nil) // lets go of sealed
	dst = slices.Grow(dst, n)
	if _, err := io.ReadFull(d, dst[len(dst):len(dst)+n]); err != nil {
		return dst, fmt.Errorf("compress: open: %w: %w", ErrCorrupt, err)
	}
	return dst[:len(dst)+n], nil
}

var errFrame = errors.New("not one zstd frame of this form and size")

// checkFrame checks all that can be known of a frame without decoding it, so
// that the decoder never sees a size that was not declared, nor bytes that are
// not part of the frame. It returns the size of a zstd frame's header.
func checkFrame(c Codec, sealed []byte, size int) (header int, err error) {
	switch {
	case size < 0 || size > MaxPlain:
		return 0, fmt.Errorf("compress: open: %w: declared size %d", ErrCorrupt, size)
	case c == Raw && len(sealed) != size:
		return 0, fmt.Errorf("compress: open: %w: %d raw bytes, declared %d", ErrCorrupt, len(sealed), size)
	case c == Raw:
		return 0, nil
	case c != Zstd:
		return 0, fmt.Errorf("compress: open: %w: codec %d", ErrCorrupt, c)
	}
	var h zstd.Header
	if err := h.Decode(sealed); err != nil {
		return 0, fmt.Errorf("compress: open: %w: %w", ErrCorrupt, err)
	}
	if h.Skippable || !h.SingleSegment || h.HasCheckSum || h.DictionaryID != 0 ||
		h.FrameContentSize != uint64(size) || blocksEnd(sealed, h.HeaderSize) != len(sealed) {
		return 0, fmt.Errorf("compress: open: %w: %w", ErrCorrupt, errFrame)
	}
	return h.HeaderSize, nil
}

// A blockInfo is what the header of a block says (RFC 8878, 3.1.1.2).
type blockInfo struct {
	size int // in the frame, with its header
	last bool
}

// blockHeader reads the header of the block that b, of 3 bytes at least, begins with.
func blockHeader(b []byte) blockInfo {
	h := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	size := h >> 3
	if h>>1&3 == 1 { // one byte, repeated
		size = 1
	}
	return blockInfo{size: 3 + size, last: h&1 == 1}
}

// blocksEnd follows the block headers from off on and returns where the last
// block ends, or -1 if that is beyond b.
func blocksEnd(b []byte, off int) int {
	for len(b)-off >= 3 {
		h := blockHeader(b[off:])
		off += h.size
		if h.last && off <= len(b) {
			return off
		}
	}
	return -1
}
