package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

// missingStep is how many digests one goroutine looks up at a time.
const missingStep = 256

// Missing returns the indexes of those digests whose chunks are not stored, ascending.
// A chunk that another put or upload has just handed in counts as stored, though it
// may yet be lost if that cannot be written: a dataset that names it by its digest
// waits for it, and is refused if it does not come.
func (s *Store) Missing(ctx context.Context, digests []dag.Digest) ([]int, error) {
	s.remember()
	known := make([]bool, len(digests))
	var g errgroup.Group
	g.SetLimit(ingest.Workers())
	for from := 0; from < len(digests); from += missingStep {
		if ctx.Err() != nil {
			break
		}
		part := known[from:min(from+missingStep, len(digests))]
		g.Go(func() error {
			for i := range part {
				size, err := s.storedSize(ctx, digests[from+i])
				if err != nil {
					return err
				}
				part[i] = size > 0
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var missing []int
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	for i, d := range digests {
		if _, pending := s.writer.chunks[d]; !known[i] && !pending {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

// An Upload takes frames that somebody else has sealed. It may be used by several
// goroutines, and again after Finish.
type Upload struct {
	s     *Store
	d     *deposit
	added tally // guarded by writer.mu
}

// NewUpload begins an upload.
func (s *Store) NewUpload() *Upload {
	u := &Upload{s: s, d: s.writer.newDeposit(context.Background())}
	u.d.count(&u.added)
	return u
}

// A FrameResult says what became of the chunks of a frame.
type FrameResult struct {
	Chunks    int    // in the frame
	Duplicate int    // of them that were stored already, or come twice
	NewBytes  uint64 // plain bytes of the others
}

// openers says how many frames of strangers may be open at a time, each with
// compress.MaxPlain bytes.
type openers struct {
	slots chan struct{}
	plain sync.Pool // of *[]byte
}

// Add verifies a frame and stores those of its chunks that are new: size, codec and
// count are within the limits, it opens to just the size that it declares, and every
// chunk has its digest. What does not hold is ErrInvalid, bytes of another digest and those
// that do not open are ErrMismatch as well, and nothing of the frame is stored. Add waits while too many frames
// are being opened, or while too much is waiting for the disk. It does not keep the frame,
// and what it added is durable only after Finish.
func (u *Upload) Add(ctx context.Context, f pack.Frame) (FrameResult, error) {
	res := FrameResult{Chunks: len(f.Chunks)}
	if err := u.s.writable(); err != nil {
		return res, err
	}
	if err := checkFrame(&f); err != nil {
		return res, fmt.Errorf("frame: %w: %w", ErrInvalid, err)
	}
	select {
	case u.s.openers.slots <- struct{}{}:
	case <-ctx.Done():
		return res, context.Cause(ctx)
	}
	defer func() { <-u.s.openers.slots }()
	plain := f.Sealed
	if f.Codec != compress.Raw || len(plain) != int(f.PlainSize) {
		buf, ok := u.s.openers.plain.Get().(*[]byte)
		if !ok {
			buf = new([]byte)
		}
		defer u.s.openers.plain.Put(buf)
		var err error
		if plain, err = u.s.opener.Open((*buf)[:0], f.Codec, f.Sealed, int(f.PlainSize)); err != nil {
			return res, fmt.Errorf("frame: %w: %w: %w", ErrInvalid, ErrMismatch, err)
		}
		*buf = plain[:0]
	}
	chunks, err := checkChunks(&f, plain)
	if err != nil {
		return res, fmt.Errorf("frame: %w: %w", ErrInvalid, err)
	}
	fresh, err := u.fresh(chunks, &res)
	if err != nil || res.Duplicate == res.Chunks {
		return res, err
	}
	return res, u.store(ctx, f, plain, chunks, fresh, res.NewBytes)
}

// checkFrame checks what can be known of a frame before it is opened.
func checkFrame(f *pack.Frame) error {
	if n := len(f.Chunks); n < 1 || n > pack.MaxChunks {
		return fmt.Errorf("%d chunks, must be 1 to %d", n, pack.MaxChunks)
	}
	if f.PlainSize < 1 || f.PlainSize > compress.MaxPlain || len(f.Sealed) > pack.MaxSealed {
		return fmt.Errorf("%d bytes, %d sealed, must be at most %d and %d", f.PlainSize, len(f.Sealed), compress.MaxPlain, pack.MaxSealed)
	}
	sum := uint64(0)
	for i, c := range f.Chunks {
		if c.Size < 1 || c.Size > dag.MaxBlock {
			return fmt.Errorf("chunk %d has %d bytes, must have 1 to %d", i, c.Size, dag.MaxBlock)
		}
		sum += uint64(c.Size)
	}
	if sum != uint64(f.PlainSize) {
		return fmt.Errorf("its chunks have %d bytes together, it declares %d", sum, f.PlainSize)
	}
	return nil
}

// checkChunks compares every chunk with its digest.
func checkChunks(f *pack.Frame, plain []byte) ([]ingest.Chunk, error) {
	chunks := make([]ingest.Chunk, len(f.Chunks))
	for i, c := range f.Chunks {
		if sha256.Sum256(plain[:c.Size]) != c.Digest {
			return nil, fmt.Errorf("%w: chunk %d does not have the digest %x", ErrMismatch, i, c.Digest)
		}
		plain = plain[c.Size:]
		chunks[i] = ingest.Chunk{Digest: c.Digest, Size: c.Size}
	}
	return chunks, nil
}

// fresh says which chunks are neither stored nor come earlier in the frame.
func (u *Upload) fresh(chunks []ingest.Chunk, res *FrameResult) ([]bool, error) {
	known := make([]bool, len(chunks))
	if err := u.d.Known(u.d.ctx, chunks, known); err != nil {
		return nil, err
	}
	seen := make(map[dag.Digest]struct{}, len(chunks))
	for i, c := range chunks {
		if _, twice := seen[c.Digest]; twice {
			known[i] = true
		}
		seen[c.Digest] = struct{}{}
		if known[i] {
			res.Duplicate++
		} else {
			res.NewBytes += uint64(c.Size)
		}
		known[i] = !known[i]
	}
	return known, nil
}

// store keeps a verified frame as it is, or only its new chunks if they are the
// smaller part, or if the store is to have smaller frames.
func (u *Upload) store(ctx context.Context, f pack.Frame, plain []byte, chunks []ingest.Chunk, fresh []bool, size uint64) error {
	if size*2 >= uint64(f.PlainSize) && int(f.PlainSize) <= u.s.opt.FrameSize {
		if len(f.Sealed) >= int(f.PlainSize) { // it is not worth opening it again and again
			f.Codec, f.Sealed = compress.Raw, plain
		}
		return u.d.addFrame(ctx, f, fresh)
	}
	news := make([]ingest.NewChunk, 0, len(chunks))
	for i, c := range chunks {
		if fresh[i] {
			news = append(news, ingest.NewChunk{Chunk: c, Data: plain[:c.Size]})
		}
		plain = plain[c.Size:]
	}
	return u.d.Add(ctx, news, false)
}

// Finish waits until all that was added is durable and indexed. If ctx ends it becomes
// so all the same.
func (u *Upload) Finish(ctx context.Context) error { return u.d.wait(ctx) }

// Added returns the plain bytes that were new in all that was added, and what they take in
// packs. It is complete after Finish.
func (u *Upload) Added() (plain, stored uint64) {
	u.s.writer.mu.Lock()
	defer u.s.writer.mu.Unlock()
	return u.added.Plain, u.added.Packed
}
