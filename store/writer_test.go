package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

// sourceOf gives files, which must be in order, as a Source.
func sourceOf(files ...file) store.Source {
	s := &source{{Kind: dag.KindDir, Attr: dag.Attr{Mode: 0o755}}}
	for _, f := range files {
		*s = append(*s, &store.SourceEntry{Path: f.name, Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o644}, Body: bytes.NewReader(f.data)})
	}
	return s
}

// A source is a store.Source.
type source []*store.SourceEntry

func (s *source) Next(context.Context) (*store.SourceEntry, error) {
	if len(*s) == 0 {
		return nil, io.EOF
	}
	e := (*s)[0]
	*s = (*s)[1:]
	return e, nil
}

// A reader that stalls holds up nobody else, and nothing of its dataset is seen.
func TestManyPuts(t *testing.T) {
	h := newHarness(t, store.Options{})
	size := 1 << 20
	if testing.Short() {
		size = 200 << 10
	}
	release, stalled := make(chan struct{}), make(chan struct{})
	var slow, wg sync.WaitGroup
	slow.Go(func() {
		r := io.MultiReader(bytes.NewReader(random(1, 3*size)), readerFunc(func([]byte) (int, error) {
			close(stalled)
			<-release
			return 0, io.EOF
		}))
		if _, err := h.put(store.Input{Name: "stalled", Reader: r}); err != nil {
			t.Error(err)
		}
	})
	<-stalled
	for i := range 64 {
		wg.Go(func() {
			b := text(uint64(i), size+i)
			if i%2 == 0 {
				b = random(uint64(100+i), i*i)
			}
			name := fmt.Sprintf("n%d", i)
			if _, err := h.put(stream(name, b)); err != nil {
				t.Error(err)
			} else if !bytes.Equal(h.get(name), b) {
				t.Errorf("%s reads back differently", name)
			}
		})
	}
	wg.Wait()
	if _, err := h.s.Resolve(h.ctx, "stalled"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a dataset that is not complete: %v, want ErrNotFound", err)
	}
	close(release)
	slow.Wait()
	if got := h.get("stalled"); !bytes.Equal(got, random(1, 3*size)) {
		t.Error("stalled reads back differently")
	}
	h.check()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What a put handed in before it was broken off is there for the next one, even
// if the store is closed at once.
func TestBrokenPutKeepsChunks(t *testing.T) {
	boom := errors.New("boom")
	for size, reopen := range map[int]bool{700 << 10: true, 5 << 20: false} {
		for name, breakOff := range map[string]func(ctx context.Context, cancel func(), b []byte) store.Input{
			"reader": func(_ context.Context, _ func(), b []byte) store.Input {
				return store.Input{Reader: io.MultiReader(bytes.NewReader(b), iotest.ErrReader(boom))}
			},
			"cancel": func(ctx context.Context, cancel func(), b []byte) store.Input {
				return store.Input{Reader: io.MultiReader(bytes.NewReader(b), readerFunc(func([]byte) (int, error) { cancel(); return 0, ctx.Err() }))}
			},
			"source": func(_ context.Context, _ func(), b []byte) store.Input {
				s := sourceOf(file{name: "a", data: b}, file{name: "b"}).(*source)
				(*s)[2].Body = iotest.ErrReader(boom)
				return store.Input{Source: s}
			},
		} {
			t.Run(fmt.Sprintf("%d/%s/%t", size, name, reopen), func(t *testing.T) {
				h := newHarness(t, store.Options{})
				b := random(1, size)
				ctx, cancel := context.WithCancel(h.ctx)
				defer cancel()
				in := breakOff(ctx, cancel, b[:size-100])
				in.Name = "x"
				if _, err := h.s.Put(ctx, []store.Input{in}, store.PutOptions{}); !errors.Is(err, boom) && !errors.Is(err, context.Canceled) {
					t.Fatalf("%v, want boom or that it was canceled", err)
				}
				if got := h.s.Published().Size; got != 1 {
					t.Errorf("the ledger has %d entries, want entry 0 alone", got)
				}
				if reopen {
					h.reopen()
				}
				if res := h.mustPut(stream("x", b))[0]; res.NewBytes > 256<<10 {
					t.Errorf("%d of %d bytes are stored anew", res.NewBytes, size)
				}
				if !bytes.Equal(h.get("x"), b) {
					t.Error("x reads back differently")
				}
				h.check()
			})
		}
	}
}

// A root that is expected and not met records nothing.
func TestExpectedRoot(t *testing.T) {
	h := newHarness(t, store.Options{})
	b := text(1, 300_000)
	x := h.mustPut(stream("x", b))[0]
	y := stream("y", b)
	y.Root = x.CID
	if res := h.mustPut(y)[0]; res.CID != x.CID {
		t.Errorf("root %v, want %v", res.CID, x.CID)
	}
	before := h.s.Published().Size
	z := stream("z", b[1:])
	z.Root = x.CID
	_, err := h.put(stream("w", b), z)
	if !errors.Is(err, store.ErrMismatch) || !bytes.Contains([]byte(err.Error()), []byte(x.CID.String())) {
		t.Errorf("%v, want ErrMismatch that names both roots", err)
	}
	if got := h.s.Published().Size; got != before {
		t.Errorf("%d entries, want %d", got, before)
	}
	h.check()
}

// What a source says wrong is the caller's fault, and the store goes on.
func TestInvalidSource(t *testing.T) {
	h := newHarness(t, store.Options{})
	for name, s := range map[string]store.Source{
		"order": sourceOf(file{name: "b"}, file{name: "a"}), "twice": sourceOf(file{name: "a"}, file{name: "a"}),
		"dots": sourceOf(file{name: "../a"}), "nothing": &source{},
	} {
		if _, err := h.put(store.Input{Name: "x", Source: s}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if _, err := h.put(store.Input{Name: "x", Source: &source{}, Reader: bytes.NewReader(nil)}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("two ways at once: %v, want ErrInvalid", err)
	}
	h.mustPut(store.Input{Name: "x", Source: sourceOf(file{name: "a", data: []byte("a")})})
	if got := h.get("x/a"); string(got) != "a" {
		t.Errorf("x/a reads %q", got)
	}
}

// Frames hold chunks of several datasets, but a large put keeps its frames while small
// ones come and go.
func TestLargeFramesStayLarge(t *testing.T) {
	var mu sync.Mutex
	var sizes []int
	h := newHarness(t, store.Options{
		WrapPacks: func(s pack.Store) pack.Store {
			return watchPacks{s, func(f pack.Frame) {
				mu.Lock()
				defer mu.Unlock()
				sizes = append(sizes, int(f.PlainSize))
			}}
		},
	})
	const size = 10 << 20
	b, small := random(1, size), 0
	r := &pacedReader{data: b, step: 1 << 20, each: func() {
		h.mustPut(stream(fmt.Sprintf("small%d", small), []byte(fmt.Sprint(small))))
		small++
	}}
	h.mustPut(store.Input{Name: "large", Reader: r})
	slices.Sort(sizes)
	if n := len(sizes); n != small+3 || sizes[n-2] < 3900<<10 {
		t.Errorf("%d small puts and one of %d bytes made frames of %v", small, size, sizes)
	}
}

type watchPacks struct {
	pack.Store
	seen func(pack.Frame)
}

func (w watchPacks) Append(ctx context.Context, f pack.Frame) (pack.Loc, error) {
	w.seen(f)
	return w.Store.Append(ctx, f)
}

// A pacedReader calls each after every step bytes.
type pacedReader struct {
	data []byte
	step int
	each func()
	n    int
}

func (r *pacedReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	if r.n == r.step {
		r.each()
		r.n = 0
	}
	n := copy(p, r.data[:min(len(r.data), r.step-r.n)])
	r.data, r.n = r.data[n:], r.n+n
	return n, nil
}
