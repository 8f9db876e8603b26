package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

// readCounter counts how often each frame is read.
type readCounter struct {
	pack.Store
	mu    sync.Mutex
	reads map[pack.Loc]int
}

func (c *readCounter) count(loc pack.Loc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads[loc]++
}

func (c *readCounter) ReadFrame(ctx context.Context, loc pack.Loc, buf []byte) (pack.Frame, []byte, error) {
	c.count(loc)
	return c.Store.ReadFrame(ctx, loc, buf)
}

func (c *readCounter) ReadPart(ctx context.Context, loc pack.Loc, from, to uint32, buf []byte) (pack.Frame, bool, []byte, error) {
	c.count(loc)
	return c.Store.ReadPart(ctx, loc, from, to, buf)
}

// edited returns b with some bytes changed in one place of every so many.
func edited(seed uint64, b []byte, every int) []byte {
	b = bytes.Clone(b)
	for i := every / 2; i < len(b); i += every {
		copy(b[i:], random(seed+uint64(i), 100))
	}
	return b
}

// versions is a dataset of text and random bytes, and two that share most of it: their
// chunks lie in the frames of all of them, in turn.
func versions() [][]byte {
	size := 18 << 20
	if testing.Short() {
		size = 14 << 20 // more than is planned at once
	}
	first := slices.Concat(text(1, size/2), random(2, size/4), text(3, size/4))
	second := edited(4, first, 300<<10)
	return [][]byte{first, second, edited(5, second, 500<<10)}
}

// A version whose chunks are scattered over the frames of those before comes back whole,
// and without reading frames again for each chunk, though only few can be kept.
func TestReadScattered(t *testing.T) {
	all := versions()
	for _, frame := range []int{128 << 10, store.MaxFrame} {
		packs := &readCounter{reads: map[pack.Loc]int{}}
		h := newHarness(t, store.Options{FrameSize: frame, Cache: 6 * store.MaxFrame, WrapPacks: func(p pack.Store) pack.Store {
			packs.Store = p
			return packs
		}})
		for _, b := range all {
			h.mustPut(stream("x", b))
		}
		for i, ref := range []string{"x@1", "x@2", "x@3"} {
			clear(packs.reads)
			if got := h.get(ref); !bytes.Equal(got, all[i]) {
				t.Fatalf("frames of %d: %s comes back different", frame, ref)
			}
			reads := 0
			for _, n := range packs.reads {
				reads += n
			}
			if frames := len(packs.reads); reads > 2*frames {
				t.Errorf("%s: %d frames of %d were read %d times", ref, frames, frame, reads)
			}
		}
	}
}

// Many who read at once, whole files and ranges, get what they ask for, also when hardly
// anything can be kept, and when some of them give up.
func TestReadTogether(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	all := versions()
	for _, cache := range []int64{1, 3 << 20, 64 << 20} {
		h := newHarness(t, store.Options{FrameSize: 1 << 20, Cache: cache})
		for _, b := range all {
			h.mustPut(stream("x", b))
		}
		objects := []store.Object{h.resolve("x@1"), h.resolve("x@2"), h.resolve("x@3")}
		var wg sync.WaitGroup
		for g := range 6 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(cache), uint64(g)))
				for i := range 12 {
					k := rng.IntN(len(all))
					r := store.Range{To: store.ToEnd}
					if i > 0 {
						r.From = rng.Uint64N(uint64(len(all[k])))
						r.To = r.From + rng.Uint64N(200<<10)
					}
					if i == 6 { // gives up in the middle
						if _, err := h.s.Get(h.ctx, objects[k], nil, &limitedWriter{n: 3 << 20}); !errors.Is(err, errLimit) {
							t.Errorf("%v, want the writer's error", err)
						}
						continue
					}
					var got bytes.Buffer
					want := all[k][r.From:min(r.To, uint64(len(all[k])))]
					if _, err := h.s.Get(h.ctx, objects[k], &r, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
						t.Errorf("version %d, %v: %d bytes, want %d, %v", k, r, got.Len(), len(want), err)
					}
				}
			})
		}
		wg.Wait()
		h.close()
	}
}

var errLimit = errors.New("enough")

type limitedWriter struct{ n int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errLimit
	}
	return len(p), nil
}

// No byte of a chunk can change without being noticed, whichever of a frame's chunks it is
// in: not where chunks are read as they lie in the pack, and not where a frame opens to
// other bytes than were sealed. What was given before it is right.
func TestReadDamage(t *testing.T) {
	packs := &changedPacks{}
	h := newHarness(t, store.Options{Cache: 1, WrapPacks: func(p pack.Store) pack.Store {
		packs.Store = p
		return packs
	}})
	refused := func(ref string, want []byte, changed int) {
		t.Helper()
		var got bytes.Buffer
		_, err := h.s.Get(h.ctx, h.resolve(ref), nil, &got)
		if !errors.Is(err, store.ErrCorrupt) || !bytes.HasPrefix(want, got.Bytes()) {
			t.Errorf("%s, byte %d of the frame changed: %d bytes, %v, want ErrCorrupt", ref, changed, got.Len(), err)
		}
	}
	const step = 16<<10 - 1 // no chunk but the last is as short

	raw := random(1, 700<<10)
	h.mustPut(stream("raw", raw))
	file, err := os.OpenFile(filepath.Join(h.dir, "packs", "00000001.pack"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stored, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.Index(stored, raw)
	if start < 0 {
		t.Fatal("random bytes are not stored as they are")
	}
	write := func(at int, b byte) {
		if _, err := file.WriteAt([]byte{b}, int64(start+at)); err != nil {
			t.Fatal(err)
		}
	}
	for at := 0; at < len(raw); at += step {
		write(at, raw[at]^1)
		refused("raw", raw, at)
		write(at, raw[at])
	}

	// The empty part is one chunk, which is wanted several times in a row.
	sealed := slices.Concat(text(2, 300<<10), make([]byte, 400<<10), text(3, 300<<10))
	h.mustPut(stream("sealed", sealed))
	opener, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	defer opener.Close()
	frame := 0 // how much there is in it
	for at := 0; at == 0 || at < frame; at += step {
		packs.change = func(f *pack.Frame) error {
			plain, err := opener.Open(nil, f.Codec, f.Sealed, int(f.PlainSize))
			if err != nil {
				return err
			}
			frame = len(plain)
			plain[at] ^= 1
			f.Codec, f.Sealed = compress.Raw, plain
			return nil
		}
		refused("sealed", sealed, at)
	}
	packs.change = nil
	if !bytes.Equal(h.get("raw"), raw) || !bytes.Equal(h.get("sealed"), sealed) {
		t.Error("what was mended comes back different")
	}
	if frame < 600<<10 {
		t.Errorf("only a frame of %d bytes was looked at", frame)
	}
}

// A store keeps the size of frames that it was made with, also for frames that come
// sealed and larger.
func TestFrameSizeOfStore(t *testing.T) {
	const size = 128 << 10
	for _, bad := range []int{-1, store.MinFrame - 1, store.MaxFrame + 1} {
		if err := store.Init(t.Context(), filepath.Join(t.TempDir(), "x"), store.InitOptions{FrameSize: bad}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("frames of %d: %v", bad, err)
		}
	}
	h := &harness{t: t, ctx: t.Context(), dir: filepath.Join(t.TempDir(), "store")}
	if err := store.Init(h.ctx, h.dir, store.InitOptions{FrameSize: size}); err != nil {
		t.Fatal(err)
	}
	h.open()
	t.Cleanup(h.close)
	b := text(1, 1<<20)
	h.mustPut(stream("x", b))
	h.reopen()
	b = append(b, text(2, 1<<20)...)
	h.mustPut(stream("x", b))
	if got := h.get("x"); !bytes.Equal(got, b) {
		t.Error("it comes back different")
	}
	u := h.s.NewUpload()
	large := text(3, 1<<20)
	var chunks [][]byte
	for c := range slices.Chunk(large, 32<<10) {
		chunks = append(chunks, c)
	}
	if _, err := u.Add(h.ctx, sealed(t, chunks...)); err != nil {
		t.Fatal(err)
	}
	if err := u.Finish(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.check()
	h.close()
	frames := 0
	packs, err := pack.Open(filepath.Join(h.dir, "packs"), pack.Options{ReadOnly: true}, pack.Tail{Pack: 1, End: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	defer packs.Close()
	for f, err := range packs.Scan(h.ctx, 1) {
		if err != nil {
			t.Fatal(err)
		}
		frames++
		if f.Frame.PlainSize > size || f.Frame.Codec != compress.Zstd {
			t.Errorf("a frame of %d bytes, codec %d", f.Frame.PlainSize, f.Frame.Codec)
		}
	}
	if frames < 3<<20/size {
		t.Errorf("%d frames", frames)
	}
}

// BenchmarkRange reads 64 KiB at random offsets of a file that is eight times what the
// cache of decoded frames may hold, while the page cache has all of it. What a range costs
// is decoding what is before it in its frame.
func BenchmarkRange(b *testing.B) {
	const size, cache, span = 256 << 20, 32 << 20, 64 << 10
	for name, data := range map[string][]byte{"text": text(1, size), "random": random(1, size)} {
		for _, frame := range []struct {
			name string
			size int
		}{{"512K", 512 << 10}, {"1M", 1 << 20}, {"4M", 4 << 20}} {
			b.Run(name+"/"+frame.name, func(b *testing.B) {
				dir := filepath.Join(b.TempDir(), "store")
				if err := store.Init(b.Context(), dir, store.InitOptions{FrameSize: frame.size}); err != nil {
					b.Fatal(err)
				}
				var mu sync.Mutex
				frames, hits := 0, 0
				s, err := store.Open(b.Context(), dir, store.Options{Cache: cache, Observer: store.Observer{Frame: func(hit bool) {
					mu.Lock()
					defer mu.Unlock()
					if frames++; hit {
						hits++
					}
				}}})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				if _, err := s.Put(b.Context(), []store.Input{stream("x", data)}, store.PutOptions{}); err != nil {
					b.Fatal(err)
				}
				o, err := s.Resolve(b.Context(), "x")
				if err != nil {
					b.Fatal(err)
				}
				rng := rand.New(rand.NewPCG(1, 2))
				var took []time.Duration
				for b.Loop() {
					from := rng.Uint64N(size - span)
					start := time.Now()
					if _, err := s.Get(b.Context(), o, &store.Range{From: from, To: from + span}, io.Discard); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
				b.ReportMetric(float64(hits)/float64(max(1, frames)), "hits")
			})
		}
	}
}
