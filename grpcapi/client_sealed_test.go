package grpcapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

const getMethod = scalev1.DatasetService_Get_FullMethodName

// mixedBytes returns some megabytes of which most compress: their chunks are in several
// frames, some of them in those of chunks that came before.
func mixedBytes() []byte {
	var text bytes.Buffer
	for i := 0; text.Len() < 10<<20; i++ {
		fmt.Fprintf(&text, "line %d is like the line before, but for %d\n", i, i*i%977)
	}
	b := text.Bytes()
	return slices.Concat(b, noiseBytes(1, 1<<20), b[3<<20:4<<20], noiseBytes(2, 50_000), b[1<<20:5<<20])
}

// startSealed starts a node that holds mixedBytes, and a client of it behind a proxy.
func startSealed(t *testing.T) (n *clientNode, proxy *grpcProxy, c *Client, o store.Object, b []byte) {
	t.Helper()
	n, b = startClientNode(t), mixedBytes()
	must(n.store.Put(t.Context(), []store.Input{{Name: "f", Reader: bytes.NewReader(b)}}, store.PutOptions{}))
	proxy = startGRPCProxy(t, n.addr)
	c = n.dial(proxy.addr)
	return n, proxy, c, must(c.Resolve(t.Context(), "f")), b
}

// TestClientGetSealed reads ranges of a file that lies in frames: what comes is what was put,
// and takes fewer bytes.
func TestClientGetSealed(t *testing.T) {
	n, proxy, c, o, b := startSealed(t)
	ctx := t.Context()
	wire := 0
	proxy.set(func(_ string, _ int, m []byte) ([][]byte, error) { wire += len(m); return [][]byte{m}, nil }, nil)
	size := uint64(len(b))
	for _, r := range []store.Range{{To: size}, {From: 1, To: size - 1}, {From: 5 << 20, To: 11 << 20}, {From: 9 << 20, To: size}, {From: 100, To: 400_000}} {
		var got bytes.Buffer
		wire = 0
		k, err := c.Get(ctx, o, &r, &got)
		if err != nil || uint64(k) != r.To-r.From || !bytes.Equal(got.Bytes(), b[r.From:r.To]) {
			t.Errorf("%v: %d bytes, %v", r, k, err)
		}
		if r.To == size && r.From == 0 && wire > len(b)/3 {
			t.Errorf("%d bytes came for %d", wire, size)
		}
	}
	failed := errors.New("failed")
	if _, err := c.Get(ctx, o, nil, failingAfter{new(int), failed}); !errors.Is(err, failed) {
		t.Errorf("%v, want what the writer says", err)
	}
	n.sound()
}

// failingAfter fails with the second write.
type failingAfter struct {
	writes *int
	err    error
}

func (f failingAfter) Write(p []byte) (int, error) {
	if *f.writes++; *f.writes > 1 {
		return 0, f.err
	}
	return len(p), nil
}

// TestClientGetSealedLies changes what comes of frames. Bytes that do not match are asked for
// again, as plain ones; what makes no sense is the node's error.
func TestClientGetSealedLies(t *testing.T) {
	n, proxy, c, o, b := startSealed(t)
	ctx := t.Context()
	get := func() ([]byte, error) {
		var got bytes.Buffer
		_, err := c.Get(ctx, o, nil, &got)
		return got.Bytes(), err
	}
	// onFrames changes the frames of a call.
	onFrames := func(change func(f *scalev1.FrameRange)) tamper {
		return onlyThat(t, getMethod, func(_ int, m *scalev1.GetResponse) {
			if m.Frame != nil && m.Frame.Frame != nil {
				change(m.Frame)
			}
		})
	}
	onBack := func(change func(f *scalev1.FrameRange)) tamper {
		return onlyThat(t, getMethod, func(_ int, m *scalev1.GetResponse) {
			if m.Frame != nil && m.Frame.Frame == nil {
				change(m.Frame)
			}
		})
	}
	for what, lie := range map[string]tamper{
		"a digest":     onFrames(func(f *scalev1.FrameRange) { f.Frame.Chunks[1].Digest[3] ^= 1 }),
		"sizes":        onFrames(func(f *scalev1.FrameRange) { f.Frame.Chunks[0].Size--; f.Frame.Chunks[1].Size++ }),
		"a codec":      onFrames(func(f *scalev1.FrameRange) { f.Frame.Codec = scalev1.Codec_CODEC_RAW }),
		"sealed bytes": flippedOnce(getMethod, 1),
	} {
		proxy.set(lie, nil)
		if got, err := get(); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
	}
	for what, lie := range map[string]tamper{
		"a start beyond the end":   onFrames(func(f *scalev1.FrameRange) { f.Start = f.End }),
		"an end beyond the frame":  onFrames(func(f *scalev1.FrameRange) { f.End = f.Frame.PlainSize + 1 }),
		"an end far beyond":        onFrames(func(f *scalev1.FrameRange) { f.End = 1 << 31 }),
		"too large a frame":        onFrames(func(f *scalev1.FrameRange) { f.Frame.PlainSize = 1 << 31 }),
		"larger than its chunks":   onFrames(func(f *scalev1.FrameRange) { f.Frame.PlainSize++ }),
		"a sealed form too large":  onFrames(func(f *scalev1.FrameRange) { f.Frame.SealedSize = f.Frame.PlainSize + 1 }),
		"no sealed form":           onFrames(func(f *scalev1.FrameRange) { f.Frame.SealedSize = 0 }),
		"more than was sealed":     onFrames(func(f *scalev1.FrameRange) { f.Frame.SealedSize-- }),
		"less than was sealed":     onFrames(func(f *scalev1.FrameRange) { f.Frame.SealedSize++ }),
		"no chunks":                onFrames(func(f *scalev1.FrameRange) { f.Frame.Chunks, f.Frame.PlainSize = nil, 0 }),
		"an odd codec":             onFrames(func(f *scalev1.FrameRange) { f.Frame.Codec = 77 }),
		"a short digest":           onFrames(func(f *scalev1.FrameRange) { f.Frame.Chunks[0].Digest = []byte{1} }),
		"no frame":                 onFrames(func(f *scalev1.FrameRange) { f.Frame = nil }),
		"a frame before the first": onBack(func(f *scalev1.FrameRange) { f.Back = store.SealedBack }),
		"a range of one before":    onBack(func(f *scalev1.FrameRange) { f.End = 5 << 20 }),
		"a frame twice":            doubled(getMethod, 0),
		"a frame in a frame":       repeatedFirst(getMethod),
		"an end in a frame":        ended(getMethod, 1),
	} {
		proxy.set(lie, nil)
		got, err := get()
		if !errors.Is(err, ErrNode) || !bytes.HasPrefix(b, got) {
			t.Errorf("%s: %d bytes, %v, want ErrNode", what, len(got), err)
		}
	}
	proxy.set(nil, nil)
	if got, err := get(); err != nil || !bytes.Equal(got, b) {
		t.Errorf("the truth: %d bytes, %v", len(got), err)
	}
	n.sound()
}

// A sealed form that is larger than its frame is refused where it is announced, before there
// is memory for it.
func TestClientGetSealedTooLarge(t *testing.T) {
	for size, ok := range map[uint32]bool{100: true, 101: false, 1 << 31: false} {
		b := must(proto.Marshal(&scalev1.FrameRange{End: 100, Frame: &scalev1.Frame{
			PlainSize: 100, SealedSize: size, Codec: scalev1.Codec_CODEC_RAW,
			Chunks: []*scalev1.Chunk{{Digest: make([]byte, 32), Size: 100}},
		}}))
		g := newGetter(io.Discard, 0, 100)
		if err := g.frame(b); (err == nil) != ok || !ok && !errors.Is(err, ErrNode) || (g.cur != nil) != ok {
			t.Errorf("%d bytes for a frame of 100: %v", size, err)
		}
	}
}

// repeatedFirst sends the first message once more after itself.
func repeatedFirst(method string) tamper {
	var first []byte
	return func(called string, n int, b []byte) ([][]byte, error) {
		if called == method && n == 0 {
			first = bytes.Clone(b)
		}
		if called == method && n == 1 {
			return [][]byte{first, b}, nil
		}
		return [][]byte{b}, nil
	}
}

// flippedOnce flips a bit in the middle of a message, the first time that it comes.
func flippedOnce(method string, at int) tamper {
	done := false
	return func(called string, n int, b []byte) ([][]byte, error) {
		if called == method && n == at && !done {
			done = true
			b = bytes.Clone(b)
			b[len(b)/2] ^= 1
		}
		return [][]byte{b}, nil
	}
}

// TestClientGetSealedBroken breaks a get at every place for a while: it goes on with the
// byte that it had come to. One that never brings a whole frame is given up.
func TestClientGetSealedBroken(t *testing.T) {
	_, proxy, c, o, b := startSealed(t)
	ctx := t.Context()
	gone := status.Error(codes.Unavailable, "broken by the test")
	calls := 0
	proxy.set(func(method string, i int, m []byte) ([][]byte, error) {
		if method != getMethod {
			return [][]byte{m}, nil
		}
		if i == 0 {
			calls++
		}
		if calls < 6 && i == 1+calls {
			return nil, gone
		}
		return [][]byte{m}, nil
	}, nil)
	var got bytes.Buffer
	if k, err := c.Get(ctx, o, nil, &got); err != nil || k != int64(len(b)) || !bytes.Equal(got.Bytes(), b) || calls != 6 {
		t.Errorf("%d bytes, %v, after %d calls", k, err, calls)
	}
	c = must(Dial(ctx, proxy.addr, DialOptions{TempDir: t.TempDir(), Patience: time.Millisecond}))
	defer c.Close()
	calls = 0
	proxy.set(func(method string, i int, m []byte) ([][]byte, error) {
		if method != getMethod {
			return [][]byte{m}, nil
		}
		if i == 0 {
			calls++
			return [][]byte{m}, nil
		}
		return nil, gone
	}, nil)
	if k, err := c.Get(ctx, o, nil, io.Discard); !errors.Is(err, ErrUnreachable) || k != 0 || calls > 2*maxTries {
		t.Errorf("%d bytes, %v, after %d calls", k, err, calls)
	}
}

// TestClientGetSealedDamage has a node whose disk has changed: the client gets what is
// before the damage, and is told what is damaged.
func TestClientGetSealedDamage(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	b := mixedBytes()
	must(n.store.Put(ctx, []store.Input{{Name: "f", Reader: bytes.NewReader(b)}}, store.PutOptions{}))
	n.stop()
	packs := must(filepath.Glob(filepath.Join(n.dir, "packs", "*")))
	if len(packs) == 0 {
		t.Fatal("no packs")
	}
	f := must(os.OpenFile(packs[0], os.O_RDWR, 0))
	size := must(f.Stat()).Size()
	at := size - size/8 // noise is in the middle
	one := make([]byte, 1)
	must(f.ReadAt(one, at))
	one[0] ^= 1
	must(f.WriteAt(one, at))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	n.start("127.0.0.1:0")
	c := n.dial(n.addr)
	var got bytes.Buffer
	_, err := c.Get(ctx, must(c.Resolve(ctx, "f")), nil, &got)
	if !errors.Is(err, store.ErrCorrupt) || got.Len() == 0 || !bytes.HasPrefix(b, got.Bytes()) {
		t.Errorf("%d bytes, %v, want ErrCorrupt", got.Len(), err)
	}
}

// TestSealedWriterLetGo gives the place in the engine up after every message, in the middle of
// frames too: what comes is the same.
func TestSealedWriterLetGo(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	b := mixedBytes()
	must(n.store.Put(ctx, []store.Input{{Name: "f", Reader: bytes.NewReader(b)}}, store.PutOptions{}))
	o := must(n.store.Resolve(ctx, "f"))
	for _, every := range []int{1, 2, 3, 7} {
		var got bytes.Buffer
		g := newGetter(&got, 0, uint64(len(b)))
		w := &sealedWriter{piece: pieceWriter{field: getDataField}}
		messages, rounds := 0, 0
		w.piece.push = func(e *encoded) error {
			m := wireMessage{e.data.Materialize()}
			e.data.Free()
			if err := g.take(&m); err != nil {
				return err
			}
			if messages++; messages%every == 0 {
				return errLetGo
			}
			return nil
		}
		for {
			rounds++
			err := n.store.GetSealed(ctx, o, store.Range{From: w.given, To: uint64(len(b))}, w.run.loc, w)
			if err == nil {
				err = w.piece.flush()
			}
			if letGo(err) == errLetGo && rounds < 10_000 {
				continue
			}
			if err == nil {
				err = g.flush()
			}
			if err != nil || !bytes.Equal(got.Bytes(), b) {
				t.Errorf("every %d: %d bytes, %v", every, got.Len(), err)
			}
			break
		}
		g.close()
		if rounds < messages/every {
			t.Errorf("every %d: %d rounds of %d messages", every, rounds, messages)
		}
	}
	// What was under way is elsewhere now.
	w := &sealedWriter{run: frameRun{loc: pack.Loc{Pack: 1}, start: 1, end: 2}}
	if _, err := w.Write([]byte("x")); err != errMoved {
		t.Errorf("%v, want errMoved", err)
	}
	if err := w.Sealed(&store.SealedRun{Loc: pack.Loc{Pack: 2}, Start: 1, End: 2}); err != errMoved {
		t.Errorf("%v, want errMoved", err)
	}
}
