package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
)

// Scanned is what a scan met at one place: a frame, or a stretch of damage.
type Scanned struct {
	Loc // for damage of more than 4 GiB, Len is the largest that fits
	// Frame is the frame at that place. With an error it holds no more than the
	// header told: the codec, sizes and chunks of a frame with a damaged body,
	// nothing where the header is damaged. Sealed is valid until the next step.
	Frame
}

// ScanFile yields the frames of pack number n, which is size bytes of r, in
// order, by reading it from the start. What is not a sound frame is yielded
// with an error that wraps ErrCorrupt, and the scan goes on behind it: after a
// body that does not match its checksum with the next frame, after a damaged
// header with the next place that holds a sound one. Any other error ends it.
func ScanFile(ctx context.Context, r io.ReaderAt, size int64, n uint32) iter.Seq2[Scanned, error] {
	return func(yield func(Scanned, error) bool) {
		s := scanner{r: r, size: size, pack: n}
		s.run(ctx, yield)
	}
}

type scanner struct {
	r    io.ReaderAt
	size int64
	pack uint32
	buf  []byte
}

// at reads n bytes at off, less at the end of the pack.
func (s *scanner) at(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.size-off))
	s.buf = slices.Grow(s.buf[:0], n)
	b := s.buf[:n]
	got, err := s.r.ReadAt(b, off)
	if got < n && err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("pack %d: read at %d: %w", s.pack, off, err)
	}
	return b[:got], nil
}

func (s *scanner) run(ctx context.Context, yield func(Scanned, error) bool) {
	b, err := s.at(0, fileHeader)
	if err != nil {
		yield(Scanned{}, err)
		return
	}
	if err := checkFileHeader(b, s.pack); err != nil {
		if !yield(Scanned{Loc: s.loc(0, min(s.size, fileHeader))}, err) {
			return
		}
	}
	for off := int64(fileHeader); off < s.size; {
		if err := ctx.Err(); err != nil {
			yield(Scanned{}, err)
			return
		}
		next, ok := s.step(off, yield)
		if !ok {
			return
		}
		off = next
	}
}

// step yields what lies at off and returns where to go on.
func (s *scanner) step(off int64, yield func(Scanned, error) bool) (next int64, ok bool) {
	p, err := s.header(off)
	if err == nil {
		var b []byte
		if b, err = s.at(off, p.frameLen()); err == nil {
			var f Frame
			f, err = parseFrame(b, s.pack, uint64(off))
			next = off + int64(len(b))
			if err != nil {
				err = fmt.Errorf("pack %d at %d: %w", s.pack, off, err)
			}
			return next, yield(Scanned{Loc: s.loc(off, int64(len(b))), Frame: f}, err)
		}
	}
	if !errors.Is(err, ErrCorrupt) {
		yield(Scanned{}, err)
		return 0, false
	}
	next, serr := s.search(off + 1)
	if serr != nil {
		yield(Scanned{}, serr)
		return 0, false
	}
	return next, yield(Scanned{Loc: s.loc(off, next-off)}, fmt.Errorf("pack %d at %d: %w", s.pack, off, err))
}

// header returns the fixed part of the frame header at off if all of the
// header is sound.
func (s *scanner) header(off int64) (prefix, error) {
	b, err := s.at(off, frameFixed)
	if err != nil {
		return prefix{}, err
	}
	if len(b) == frameFixed {
		p, err := parsePrefix(b)
		if err != nil {
			return prefix{}, err
		}
		if b, err = s.at(off, p.headerLen()); err != nil {
			return prefix{}, err
		}
	}
	p, _, err := parseHeader(b, s.pack, uint64(off))
	return p, err
}

// search returns the first offset from off on with a sound frame header, or
// the end of the pack.
func (s *scanner) search(off int64) (int64, error) {
	magic := binary.BigEndian.AppendUint32(nil, frameMagic)
	window := make([]byte, min(1<<20, max(0, s.size-off)))
	for off < s.size {
		n, err := s.r.ReadAt(window[:min(int64(len(window)), s.size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("pack %d: read at %d: %w", s.pack, off, err)
		}
		b := window[:n]
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], magic)
			if i < 0 {
				break
			}
			at += i
			// Most are none, and the window shows it.
			if rest := b[at:]; len(rest) >= frameFixed {
				if _, err := parsePrefix(rest); err != nil {
					continue
				}
			}
			if _, err := s.header(off + int64(at)); err == nil {
				return off + int64(at), nil
			} else if !errors.Is(err, ErrCorrupt) {
				return 0, err
			}
		}
		if off+int64(n) >= s.size || n < len(magic) {
			break
		}
		off += int64(n - len(magic) + 1) // the magic may straddle two windows
	}
	return s.size, nil
}

func (s *scanner) loc(off, n int64) Loc {
	return Loc{Pack: s.pack, Off: uint64(off), Len: uint32(min(n, 1<<32-1))}
}
