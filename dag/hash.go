package dag

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// A Hasher computes what a put of the same bytes would, from bytes at hand.
// It is what verification recomputes a file with. It holds one buffer and is
// for one goroutine.
type Hasher struct {
	p    *Profile
	b    *FileBuilder
	buf  []byte
	ends []int
}

// NewHasher returns a Hasher. What it builds goes to s, which may be nil.
func NewHasher(p *Profile, s Sink) *Hasher {
	if s == nil {
		s = discard{}
	}
	// Four of the largest chunks, so that little is carried over.
	return &Hasher{p: p, b: NewFileBuilder(p, s), buf: make([]byte, max(1<<20, 4*p.splitter.Max()))}
}

// File reads a file to its end. After an error the Hasher cannot be used
// again.
func (h *Hasher) File(ctx context.Context, r io.Reader, a Attr) (File, error) {
	for n, final := 0, false; !final; {
		if err := ctx.Err(); err != nil {
			return File{}, err
		}
		m, err := io.ReadFull(r, h.buf[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			final = true
		case err != nil:
			return File{}, fmt.Errorf("read: %w", err)
		}
		h.ends = h.p.splitter.Split(h.ends[:0], h.buf[:n], final)
		start := 0
		for _, end := range h.ends {
			if err := h.b.AddChunk(sha256.Sum256(h.buf[start:end]), end-start); err != nil {
				return File{}, err
			}
			start = end
		}
		n = copy(h.buf, h.buf[start:n])
	}
	return h.b.Finish(a)
}

// HashFile is Hasher.File for one file.
func HashFile(ctx context.Context, p *Profile, r io.Reader, s Sink, a Attr) (File, error) {
	return NewHasher(p, s).File(ctx, r, a)
}
