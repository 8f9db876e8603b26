package compress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// An Opener opens frames. It is safe for concurrent use.
type Opener struct {
	whole  *zstd.Decoder
	prefix sync.Pool // of *zstd.Decoder, which decode a stream without goroutines
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
	if err := checkFrame(c, sealed, size); err != nil {
		return dst, err
	}
	if c == Raw {
		return append(dst, sealed...), nil
	}
	dst = slices.Grow(dst, size)
	end := len(dst) + size
	plain, err := o.whole.DecodeAll(sealed, dst[len(dst):len(dst):end])
	if err != nil {
		return dst, fmt.Errorf("compress: open: %w: %w", ErrCorrupt, err)
	}
	if len(plain) != size {
		return dst, fmt.Errorf("compress: open: %w: %d bytes, declared %d", ErrCorrupt, len(plain), size)
	}
	copy(dst[len(dst):end], plain) // onto itself, unless the decoder moved it
	return dst[:end], nil
}

// OpenPrefix appends the first n of the size plain bytes to dst. Of a zstd
// frame only the blocks that hold them are decoded, so that damage behind
// them goes unnoticed.
func (o *Opener) OpenPrefix(dst []byte, c Codec, sealed []byte, size, n int) ([]byte, error) {
	if n < 0 || n > size {
		return dst, fmt.Errorf("compress: open: %w: %d bytes asked of %d", ErrCorrupt, n, size)
	}
	if err := checkFrame(c, sealed, size); err != nil {
		return dst, err
	}
	switch {
	case c == Raw:
		return append(dst, sealed[:n]...), nil
	case n == size:
		return o.Open(dst, c, sealed, size)
	}
	d, _ := o.prefix.Get().(*zstd.Decoder)
	if d == nil {
		var err error
		if d, err = newDecoder(1); err != nil {
			return dst, err
		}
	}
	defer o.prefix.Put(d)
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
// not part of the frame.
func checkFrame(c Codec, sealed []byte, size int) error {
	switch {
	case size < 0 || size > MaxPlain:
		return fmt.Errorf("compress: open: %w: declared size %d", ErrCorrupt, size)
	case c == Raw && len(sealed) != size:
		return fmt.Errorf("compress: open: %w: %d raw bytes, declared %d", ErrCorrupt, len(sealed), size)
	case c == Raw:
		return nil
	case c != Zstd:
		return fmt.Errorf("compress: open: %w: codec %d", ErrCorrupt, c)
	}
	var h zstd.Header
	if err := h.Decode(sealed); err != nil {
		return fmt.Errorf("compress: open: %w: %w", ErrCorrupt, err)
	}
	if h.Skippable || !h.SingleSegment || h.HasCheckSum || h.DictionaryID != 0 ||
		h.FrameContentSize != uint64(size) || blocksEnd(sealed, h.HeaderSize) != len(sealed) {
		return fmt.Errorf("compress: open: %w: %w", ErrCorrupt, errFrame)
	}
	return nil
}

// blocksEnd follows the block headers (RFC 8878, 3.1.1.2) from off on and
// returns where the last block ends, or -1 if that is beyond b.
func blocksEnd(b []byte, off int) int {
	for len(b)-off >= 3 {
		h := int(b[off]) | int(b[off+1])<<8 | int(b[off+2])<<16
		size := h >> 3
		if h>>1&3 == 1 { // one byte, repeated
			size = 1
		}
		off += 3 + size
		if h&1 == 1 && off <= len(b) {
			return off
		}
	}
	return -1
}
