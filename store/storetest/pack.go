package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store/pack"
)

// TestPacks checks that packs keep the contract of pack.Store. Open opens the
// packs in a directory, which is empty the first time; they should grow to some
// tens of KiB, so that there are several.
func TestPacks(t *testing.T, open func(dir string, tail pack.Tail) (pack.Store, error)) {
	for _, c := range []struct {
		name string
		run  func(*packSuite)
	}{
		{"Frames", (*packSuite).frames},
		{"Limits", (*packSuite).limits},
		{"TornTail", (*packSuite).tornTail},
		{"Lost", (*packSuite).lost},
		{"Damage", (*packSuite).damage},
		{"Places", (*packSuite).places},
		{"Closed", (*packSuite).closed},
		{"Concurrent", (*packSuite).concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &packSuite{T: t, ctx: t.Context(), dir: t.TempDir(), rng: rand.New(rand.NewPCG(1, 2))}
			s.open = func(tail pack.Tail) {
				t.Helper()
				var err error
				if s.p, err = open(s.dir, tail); err != nil {
					t.Fatal(err)
				}
			}
			s.open(pack.Tail{})
			defer s.close()
			c.run(s)
		})
	}
}

type packSuite struct {
	*testing.T
	ctx  context.Context
	dir  string
	open func(pack.Tail)
	p    pack.Store
	rng  *rand.Rand

	locs []pack.Loc
	all  []pack.Frame
}

func (s *packSuite) close() {
	s.Helper()
	if err := s.p.Close(); err != nil {
		s.Fatal(err)
	}
}

func (s *packSuite) reopen(tail pack.Tail) {
	s.Helper()
	s.close()
	s.open(tail)
}

// frame returns a frame of random chunks and bytes.
func frame(rng *rand.Rand, chunks, maxChunk int) pack.Frame {
	var f pack.Frame
	random := func(b []byte) {
		for len(b) > 0 {
			b = b[copy(b, binary.NativeEndian.AppendUint64(nil, rng.Uint64())):]
		}
	}
	for range chunks {
		c := pack.Chunk{Size: 1 + uint32(rng.IntN(maxChunk))}
		random(c.Digest[:])
		f.Chunks = append(f.Chunks, c)
		f.PlainSize += c.Size
	}
	f.Sealed = make([]byte, f.PlainSize)
	if rng.IntN(2) == 0 {
		f.Codec = compress.Zstd
		f.Sealed = make([]byte, 1+rng.IntN(int(f.PlainSize)))
	}
	random(f.Sealed)
	return f
}

// diff compares frames, and shows the difference only if there is one: showing
// is slow.
func diff(want, got pack.Frame) string {
	if want.Codec == got.Codec && want.PlainSize == got.PlainSize &&
		slices.Equal(want.Chunks, got.Chunks) && bytes.Equal(want.Sealed, got.Sealed) {
		return ""
	}
	return cmp.Diff(want, got)
}

// diffPart compares what ReadPart gave with the frame.
func diffPart(want, got pack.Frame, part bool, from, to uint32) string {
	if part != (want.Codec == compress.Raw) {
		return "read as a part or not, against its codec"
	}
	if part {
		want.Sealed = want.Sealed[from:min(to, want.PlainSize)]
	}
	return diff(want, got)
}

// append appends n random frames, each of which must lie behind the one before.
func (s *packSuite) append(n int) {
	s.Helper()
	for range n {
		f := frame(s.rng, 1+s.rng.IntN(20), 500)
		before := s.p.Tail()
		loc, err := s.p.Append(s.ctx, f)
		if err != nil {
			s.Fatal(err)
		}
		after := s.p.Tail()
		if loc.Pack < before.Pack || loc.Pack == before.Pack && loc.Off < before.End || loc.Len == 0 ||
			after != (pack.Tail{Pack: loc.Pack, End: loc.Off + uint64(loc.Len)}) {
			s.Fatalf("a frame came to %+v, the tail from %+v to %+v", loc, before, after)
		}
		s.locs, s.all = append(s.locs, loc), append(s.all, f)
	}
}

func (s *packSuite) sync() pack.Tail {
	s.Helper()
	tail := s.p.Tail()
	if err := s.p.Sync(s.ctx); err != nil {
		s.Fatal(err)
	}
	return tail
}

// check reads every frame in random order, and scans all packs.
func (s *packSuite) check() {
	s.Helper()
	var buf []byte
	for _, i := range s.rng.Perm(len(s.locs)) {
		var f pack.Frame
		var err error
		f, buf, err = s.p.ReadFrame(s.ctx, s.locs[i], buf)
		if err != nil {
			s.Fatalf("frame %d: %v", i, err)
		}
		if d := diff(s.all[i], f); d != "" {
			s.Fatalf("frame %d: (-want +got)\n%s", i, d)
		}
		from := s.rng.Uint32N(f.PlainSize + 1)
		to := from + s.rng.Uint32N(f.PlainSize-from+1)
		if s.rng.IntN(4) == 0 {
			to = f.PlainSize + s.rng.Uint32()>>1
		}
		if f, part, _, err := s.p.ReadPart(s.ctx, s.locs[i], from, to, buf[:s.rng.IntN(2)]); err != nil || diffPart(s.all[i], f, part, from, to) != "" {
			s.Fatalf("frame %d from %d to %d: %v %s", i, from, to, err, diffPart(s.all[i], f, part, from, to))
		}
		if list, _, err := s.p.ReadList(s.ctx, s.locs[i], buf[:s.rng.IntN(2)]); err != nil || !slices.Equal(list, s.all[i].Chunks) {
			s.Fatalf("frame %d lists %v, %v; want %v", i, list, err, s.all[i].Chunks)
		}
	}
	packs, err := s.p.List()
	if err != nil {
		s.Fatal(err)
	}
	i := 0
	for _, n := range packs {
		for got, err := range s.p.Scan(s.ctx, n) {
			if err != nil {
				s.Fatalf("scan: %v", err)
			}
			if i == len(s.all) {
				s.Fatalf("the scan finds one more: %+v", got.Loc)
			}
			if d := diff(s.all[i], got.Frame); d != "" || got.Loc != s.locs[i] {
				s.Fatalf("the scan finds frame %d at %+v, want %+v: (-want +got)\n%s", i, got.Loc, s.locs[i], d)
			}
			i++
		}
	}
	if i != len(s.all) {
		s.Fatalf("the scan finds %d frames of %d", i, len(s.all))
	}
}

func (s *packSuite) frames() {
	if tail := s.p.Tail(); tail != (pack.Tail{}) {
		s.Errorf("new packs have the tail %+v", tail)
	}
	s.sync()
	s.check()
	for range 4 {
		s.append(20)
		s.check()
		tail := s.sync()
		s.sync()
		s.check()
		s.reopen(tail)
		if got := s.p.Tail(); got != tail {
			s.Errorf("reopened with the tail %+v, want %+v", got, tail)
		}
		s.check()
	}
	packs, err := s.p.List()
	if err != nil || len(packs) < 2 || packs[0] != 1 || int(packs[len(packs)-1]) != len(packs) {
		s.Errorf("packs %v, %v, want several from 1 on", packs, err)
	}
	stored := 0
	for _, loc := range s.locs {
		stored += int(loc.Len)
	}
	if n, err := s.p.Size(); err != nil || n < int64(stored) || n > int64(stored+len(packs)*8192) {
		s.Errorf("Size() = %d, %v, for frames of %d bytes", n, err, stored)
	}
}

func (s *packSuite) limits() {
	s.append(1)
	tail := s.p.Tail()
	good := frame(s.rng, 3, 10)
	for name, spoil := range map[string]func(f *pack.Frame){
		"no chunks":            func(f *pack.Frame) { f.Chunks, f.PlainSize = nil, 0 },
		"an empty chunk":       func(f *pack.Frame) { f.Chunks = append(f.Chunks, pack.Chunk{}) },
		"chunks of other size": func(f *pack.Frame) { f.PlainSize++ },
		"chunks that wrap":     func(f *pack.Frame) { f.Chunks = append(f.Chunks, pack.Chunk{Size: 1 << 31}, pack.Chunk{Size: 1 << 31}) },
		"no body":              func(f *pack.Frame) { f.Sealed = nil },
		"a body that grew":     func(f *pack.Frame) { f.Sealed = make([]byte, f.PlainSize+1) },
		"too many chunks":      func(f *pack.Frame) { *f = frame(s.rng, pack.MaxChunks+1, 1) },
		"too large": func(f *pack.Frame) {
			f.Chunks = []pack.Chunk{{Size: compress.MaxPlain + 1}}
			f.PlainSize = compress.MaxPlain + 1
		},
	} {
		f := good
		f.Chunks = slices.Clone(good.Chunks)
		spoil(&f)
		if _, err := s.p.Append(s.ctx, f); !errors.Is(err, pack.ErrTooLarge) {
			s.Errorf("a frame with %s: %v, want ErrTooLarge", name, err)
		}
	}
	if got := s.p.Tail(); got != tail {
		s.Errorf("the tail went from %+v to %+v", tail, got)
	}
	for _, f := range []pack.Frame{
		frame(s.rng, pack.MaxChunks, 1),
		{Chunks: []pack.Chunk{{Size: compress.MaxPlain}}, PlainSize: compress.MaxPlain, Sealed: make([]byte, pack.MaxSealed)},
		{Chunks: []pack.Chunk{{Size: 1}}, PlainSize: 1, Sealed: make([]byte, 1)},
	} {
		loc, err := s.p.Append(s.ctx, f)
		if err != nil {
			s.Fatal(err)
		}
		s.locs, s.all = append(s.locs, loc), append(s.all, f)
	}
	s.check()
}

func (s *packSuite) closed() {
	s.append(1)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	try := func(ctx context.Context, want error) {
		s.Helper()
		_, app := s.p.Append(ctx, s.all[0])
		_, _, read := s.p.ReadFrame(ctx, s.locs[0], nil)
		_, _, _, part := s.p.ReadPart(ctx, s.locs[0], 0, 1, nil)
		_, _, list := s.p.ReadList(ctx, s.locs[0], nil)
		scan := errors.New("the scan ended without an error")
		for _, scan = range s.p.Scan(ctx, 1) {
			break
		}
		for name, err := range map[string]error{"Append": app, "ReadFrame": read, "ReadPart": part, "ReadList": list, "Scan": scan, "Sync": s.p.Sync(ctx)} {
			if !errors.Is(err, want) {
				s.Errorf("%s = %v, want %v", name, err, want)
			}
		}
	}
	try(ctx, context.Canceled)
	tail := s.sync()
	s.close()
	try(s.ctx, pack.ErrClosed)
	s.close()
	s.open(tail)
	s.check()
}

// concurrent appends, syncs and reads at once.
func (s *packSuite) concurrent() {
	var mu sync.Mutex
	var done sync.WaitGroup
	for g := range 4 {
		done.Go(func() {
			rng := rand.New(rand.NewPCG(3, uint64(g)))
			var buf []byte
			for range 60 {
				f := frame(rng, 1+rng.IntN(20), 500)
				loc, err := s.p.Append(s.ctx, f)
				if err != nil {
					s.Error(err)
					return
				}
				mu.Lock()
				s.locs, s.all = append(s.locs, loc), append(s.all, f)
				i := rng.IntN(len(s.locs))
				loc, want := s.locs[i], s.all[i]
				mu.Unlock()
				if rng.IntN(5) == 0 {
					if err := s.p.Sync(s.ctx); err != nil {
						s.Error(err)
					}
				}
				var got pack.Frame
				if got, buf, err = s.p.ReadFrame(s.ctx, loc, buf); err != nil || diff(want, got) != "" {
					s.Errorf("frame at %+v: %v", loc, err)
				}
			}
		})
	}
	done.Wait()
	order := s.rng.Perm(len(s.locs))
	slices.SortFunc(order, func(i, j int) int {
		a, b := s.locs[i], s.locs[j]
		if a.Pack != b.Pack {
			return int(a.Pack) - int(b.Pack)
		}
		return int(a.Off) - int(b.Off)
	})
	locs, all := s.locs, s.all
	s.locs, s.all = nil, nil
	for _, i := range order {
		s.locs, s.all = append(s.locs, locs[i]), append(s.all, all[i])
	}
	s.check()
	s.reopen(s.sync())
	s.check()
}
