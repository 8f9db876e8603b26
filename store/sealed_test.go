package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

// A frameOpener takes a file in frames, as a client does, and counts what was given.
type frameOpener struct {
	t              *testing.T
	opener         *compress.Opener
	got            bytes.Buffer
	plain, sealed  int
	frames, backed int
	recent         [][]byte
}

func newFrameOpener(t *testing.T) *frameOpener {
	t.Helper()
	o, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return &frameOpener{t: t, opener: o}
}

func (f *frameOpener) Write(p []byte) (int, error) {
	f.plain += len(p)
	return f.got.Write(p)
}

func (f *frameOpener) Sealed(r *store.SealedRun) error {
	if len(r.Frame.Chunks) == 0 {
		if r.Back < 0 || r.Back >= min(len(f.recent), store.SealedBack) {
			f.t.Errorf("a run of the frame %d before the last", r.Back)
			return io.ErrUnexpectedEOF
		}
		f.backed++
	} else {
		plain, err := f.opener.Open(nil, r.Frame.Codec, r.Frame.Sealed, int(r.Frame.PlainSize))
		if err != nil {
			return err
		}
		at := uint32(0)
		for _, c := range r.Frame.Chunks {
			if sha256.Sum256(plain[at:at+c.Size]) != c.Digest {
				f.t.Error("a chunk does not have its digest")
			}
			at += c.Size
		}
		f.recent = append(f.recent, plain)
		f.sealed += len(r.Frame.Sealed)
		f.frames++
	}
	f.got.Write(f.recent[len(f.recent)-1-r.Back][r.Start:r.End])
	return nil
}

// What is given in frames is what Get gives, whole and in ranges, and takes a part of the
// bytes if it compresses.
func TestGetSealed(t *testing.T) {
	h := newHarness(t, store.Options{})
	all := versions()
	for _, b := range all {
		h.mustPut(stream("x", b))
	}
	for i, ref := range []string{"x@1", "x@2", "x@3"} {
		o, b := h.resolve(ref), all[i]
		n := uint64(len(b))
		for _, r := range []store.Range{{From: 0, To: n}, {From: 1, To: n - 1}, {From: n/2 - 100_000, To: n/2 + 100_000}, {From: n / 3, To: n/3 + 9<<20}, {From: 5, To: 6}, {From: n, To: n}} {
			f := newFrameOpener(t)
			if err := h.s.GetSealed(h.ctx, o, r, pack.Loc{}, f); err != nil || !bytes.Equal(f.got.Bytes(), b[r.From:r.To]) {
				t.Errorf("%s %v: %d bytes, %v", ref, r, f.got.Len(), err)
			}
			if r.To-r.From != n {
				continue
			}
			// A quarter of it does not compress, and what is new in a version is one chunk here
			// and there.
			if most := len(b) / 10 * 6; f.plain+f.sealed > most {
				t.Errorf("%s: %d bytes plain, %d in %d frames, want at most %d", ref, f.plain, f.sealed, f.frames, most)
			}
			if i == 2 && f.backed == 0 {
				t.Errorf("%s: no run is of a frame that came before", ref)
			}
		}
	}
	o := h.resolve("x@1")
	for _, r := range []store.Range{{From: 2, To: 1}, {From: 0, To: o.Info.Size + 1}} {
		if err := h.s.GetSealed(h.ctx, o, r, pack.Loc{}, newFrameOpener(t)); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%v: %v, want ErrInvalid", r, err)
		}
	}
	failed := errors.New("failed")
	if err := h.s.GetSealed(h.ctx, o, store.Range{To: o.Info.Size}, pack.Loc{}, refusing{failed}); !errors.Is(err, failed) {
		t.Errorf("%v, want what the writer says", err)
	}
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error)     { return 0, r.err }
func (r refusing) Sealed(*store.SealedRun) error { return r.err }

// changedPacks are packs of which frames read otherwise than they are.
type changedPacks struct {
	pack.Store
	change func(f *pack.Frame) error // nil: nothing
}

func (c *changedPacks) ReadFrame(ctx context.Context, loc pack.Loc, buf []byte) (pack.Frame, []byte, error) {
	f, buf, err := c.Store.ReadFrame(ctx, loc, buf)
	if err == nil && c.change != nil {
		err = c.change(&f)
	}
	return f, buf, err
}

// A frame whose chunks are not those that the file names is not given. What can be read
// of it is given as plain bytes, and what cannot is told as Get tells it.
func TestGetSealedDamage(t *testing.T) {
	packs := &changedPacks{}
	h := newHarness(t, store.Options{WrapPacks: func(p pack.Store) pack.Store {
		packs.Store = p
		return packs
	}})
	b := text(1, 9<<20)
	h.mustPut(stream("x", b))
	o := h.resolve("x")
	get := func() (*frameOpener, error) {
		f := newFrameOpener(t)
		return f, h.s.GetSealed(h.ctx, o, store.Range{To: uint64(len(b))}, pack.Loc{}, f)
	}
	for what, change := range map[string]func(f *pack.Frame) error{
		"digest": func(f *pack.Frame) error { f.Chunks[len(f.Chunks)-1].Digest[0] ^= 1; return nil },
		"size":   func(f *pack.Frame) error { f.Chunks[0].Size--; f.Chunks[1].Size++; return nil },
		"fewer":  func(f *pack.Frame) error { f.Chunks = f.Chunks[:len(f.Chunks)-1]; return nil },
	} {
		packs.change = change
		if f, err := get(); err != nil || f.frames > 0 || !bytes.Equal(f.got.Bytes(), b) {
			t.Errorf("%s: %d bytes, %d frames, %v", what, f.got.Len(), f.frames, err)
		}
	}
	h.reopen() // nothing is in memory
	var n atomic.Int32
	packs.change = func(*pack.Frame) error {
		if n.Add(1) > 1 {
			return store.ErrCorrupt
		}
		return nil
	}
	f, err := get()
	if !errors.Is(err, store.ErrCorrupt) || f.frames != 1 || !bytes.HasPrefix(b, f.got.Bytes()) {
		t.Errorf("%d bytes, %d frames, %v, want the first frame and ErrCorrupt", f.got.Len(), f.frames, err)
	}
}
