package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/koii-network/scale/compress"
)

// ReadFrame implements Store.
func (p *Files) ReadFrame(ctx context.Context, loc Loc, buf []byte) (Frame, []byte, error) {
	var f Frame
	err := p.withPack(ctx, loc, func(h *handle) error {
		buf = sized(buf[:0], int(loc.Len))
		if err := h.readAt(buf, loc.Off); err != nil {
			return err
		}
		var err error
		f, err = parseFrame(buf, loc.Pack, loc.Off)
		return err
	})
	if err != nil {
		return Frame{}, buf, err
	}
	return f, buf, nil
}

// headerGuess holds the headers of most frames.
const headerGuess = 8 << 10

// ReadPart implements Store.
func (p *Files) ReadPart(ctx context.Context, loc Loc, from, to uint32, buf []byte) (f Frame, part bool, _ []byte, err error) {
	err = p.withPack(ctx, loc, func(h *handle) error {
		// The table is at the start of buf, and the body or the part of it behind.
		pre, err := h.begin(loc, &buf)
		if err != nil {
			return err
		}
		part = pre.codec == compress.Raw && pre.sealed == pre.plain && pre.frameLen() == int(loc.Len)
		end := int(loc.Len)
		if part {
			end = pre.headerLen()
		}
		if err := h.reach(loc, &buf, end); err != nil {
			return err
		}
		if !part {
			f, err = parseFrame(buf, loc.Pack, loc.Off)
			return err
		}
		if to = min(to, pre.plain); from > to {
			return fmt.Errorf("a frame of %d bytes has none from %d on: %w", pre.plain, from, ErrCorrupt)
		}
		var chunks []Chunk
		if pre, chunks, err = parseHeader(buf[:end], loc.Pack, loc.Off); err != nil {
			return err
		}
		buf = sized(buf, end+int(to-from))
		f = Frame{Codec: pre.codec, PlainSize: pre.plain, Chunks: chunks, Sealed: buf[end:]}
		return h.readAt(f.Sealed, loc.Off+uint64(end)+uint64(from))
	})
	if err != nil {
		return Frame{}, false, buf, err
	}
	return f, part, buf, nil
}

// ReadList implements Store.
func (p *Files) ReadList(ctx context.Context, loc Loc, buf []byte) (chunks []Chunk, _ []byte, err error) {
	err = p.withPack(ctx, loc, func(h *handle) error {
		pre, err := h.begin(loc, &buf)
		if err == nil && pre.frameLen() != int(loc.Len) {
			err = fmt.Errorf("frame of %d bytes in a place of %d: %w", pre.frameLen(), loc.Len, ErrCorrupt)
		}
		if err != nil {
			return err
		}
		if err := h.reach(loc, &buf, pre.headerLen()); err != nil {
			return err
		}
		_, chunks, err = parseHeader(buf, loc.Pack, loc.Off)
		return err
	})
	return chunks, buf, err
}

// withPack calls f with the pack of a place where there can be a frame.
func (p *Files) withPack(ctx context.Context, loc Loc, f func(*handle) error) error {
	err := ctx.Err()
	if err == nil && (loc.Len < minFrame || loc.Len > MaxFrame || loc.Off < fileHeader || loc.Off > 1<<62) {
		err = fmt.Errorf("no frame has %d bytes there: %w", loc.Len, ErrCorrupt)
	}
	if err == nil {
		var h *handle
		if h, err = p.r.get(loc.Pack); err == nil {
			defer p.r.put(h)
			err = f(h)
		}
	}
	if err != nil {
		return fmt.Errorf("pack: read frame at %d of %s: %w", loc.Off, Name(loc.Pack), err)
	}
	return nil
}

// begin reads the start of a frame, with all of most headers, and the fixed part of its header.
func (h *handle) begin(loc Loc, buf *[]byte) (prefix, error) {
	*buf = sized((*buf)[:0], min(int(loc.Len), headerGuess))
	if err := h.readAt(*buf, loc.Off); err != nil {
		return prefix{}, err
	}
	return parsePrefix(*buf)
}

// reach reads on until buf holds so many bytes of the frame.
func (h *handle) reach(loc Loc, buf *[]byte, end int) error {
	at := len(*buf)
	if end <= at {
		return nil
	}
	*buf = sized(*buf, end)
	return h.readAt((*buf)[at:], loc.Off+uint64(at))
}

// readAt fills b from the pack.
func (h *handle) readAt(b []byte, off uint64) error {
	_, err := h.f.ReadAt(b, int64(off))
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the pack ends before it: %w", ErrCorrupt)
	}
	return err
}

// sized returns a buffer of n bytes that begins as b does: b itself if it has the room.
func sized(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return append(slices.Grow(b[:0:0], n), b...)[:n]
}
