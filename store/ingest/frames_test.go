package ingest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

func newFrames(t testing.TB, o ingest.FrameOptions) *ingest.Frames {
	t.Helper()
	f, err := ingest.NewFrames(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// text compresses, random does not.
func text(seed byte, n int) []byte {
	return bytes.Repeat([]byte{'a' + seed%26, 'b', 'c', seed}, n/4+1)[:n]
}

func newChunk(b []byte) ingest.NewChunk {
	return ingest.NewChunk{Chunk: ingest.Chunk{Digest: sha256.Sum256(b), Size: uint32(len(b))}, Data: b}
}

// What goes into a Packer comes out of its frames, in order, once, within the limits.
func TestPacker(t *testing.T) {
	opener, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	defer opener.Close()
	frames := newFrames(t, ingest.FrameOptions{Size: 100_000, Sealers: 3})
	var want []ingest.NewChunk
	for i := range 200 {
		if i%3 == 0 {
			want = append(want, newChunk(random(uint64(i), 1+i*50)))
		} else {
			want = append(want, newChunk(text(byte(i), 1+i*300)))
		}
	}
	want = append(want, newChunk(random(1, 300_000))) // larger than a frame should be
	rest := want
	var codecs [2]int
	var busy atomic.Int32
	p := ingest.NewPacker(frames, func(f pack.Frame) error {
		if busy.Add(1) != 1 {
			t.Error("two frames are sent at once")
		}
		defer busy.Add(-1)
		plain, err := opener.Open(nil, f.Codec, f.Sealed, int(f.PlainSize))
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Chunks) > 1 && len(plain) > 100_000 {
			t.Errorf("a frame of %d chunks has %d bytes", len(f.Chunks), len(plain))
		}
		codecs[f.Codec]++
		for _, c := range f.Chunks {
			if len(rest) == 0 || c.Digest != rest[0].Digest || c.Size != rest[0].Size || !bytes.Equal(plain[:c.Size], rest[0].Data) {
				t.Fatal("another chunk than the next one")
			}
			plain, rest = plain[c.Size:], rest[1:]
		}
		return nil
	})
	for i, c := range want {
		if err := p.Add(t.Context(), []ingest.NewChunk{c, want[i/2]}, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(rest) > 0 || codecs[compress.Raw] == 0 || codecs[compress.Zstd] == 0 {
		t.Errorf("%d chunks are left; %v frames raw and zstd", len(rest), codecs)
	}
	if err := p.Flush(); err != nil {
		t.Error(err)
	}
}

// After send has failed nothing more is sent, and everything is given back.
func TestPackerFails(t *testing.T) {
	boom := errors.New("boom")
	frames := newFrames(t, ingest.FrameOptions{Size: 1000, Sealers: 1, Buffers: 2})
	for range 3 {
		calls := 0
		p := ingest.NewPacker(frames, func(pack.Frame) error {
			if calls++; calls == 2 {
				return boom
			}
			return nil
		})
		var err error
		for i := 0; err == nil; i++ {
			err = p.Add(t.Context(), []ingest.NewChunk{newChunk(random(uint64(i), 900))}, false)
		}
		if !errors.Is(err, boom) || !errors.Is(p.Flush(), boom) || calls != 2 {
			t.Errorf("%v after %d calls", err, calls)
		}
	}
}

// There are no more frames than buffers, and a context ends the wait for one.
func TestFramesBounded(t *testing.T) {
	frames := newFrames(t, ingest.FrameOptions{Size: 1000, Buffers: 2})
	a, err := frames.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b, err := frames.Take(ctx)
	if err != nil {
		t.Errorf("a frame was free: %v", err)
	}
	if _, err := frames.Take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	frames.Give(a)
	frames.Give(b)
	if a, err = frames.Take(ctx); err != nil || a.Size() != 0 || len(a.Chunks()) != 0 {
		t.Errorf("a frame that was given back has %d bytes, %v", a.Size(), err)
	}
	for i := range ingest.MaxFrameChunks + 1 {
		if ok := a.Add(ingest.Chunk{Size: 0}, nil); ok != (i < ingest.MaxFrameChunks) {
			t.Fatalf("chunk %d taken: %t", i, ok)
		}
	}
	frames.Give(a)
}

func TestFrameOptions(t *testing.T) {
	for _, o := range []ingest.FrameOptions{{Size: -1}, {Size: compress.MaxPlain + 1}, {Seal: compress.SealOptions{Level: 99}}} {
		if _, err := ingest.NewFrames(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
