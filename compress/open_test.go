package compress

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

var shortPlain = []byte(strings.Repeat("SCALE seals frames. ", 200))

// shortFrames are frames of shortPlain: written by the first version of this
// package, and by libzstd 1.5 (zstd -19 --no-check). Both must open for ever.
var shortFrames = map[string]string{
	"version 1": "28b52ffd60a00ef5000044015343414c45207365616c73206672616d65732e20015412042f127f01",
	"libzstd":   "28b52ffd60a00ee50000a05343414c45207365616c73206672616d65732e200100127ffe6402",
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenOldFrames(t *testing.T) {
	o := newOpener(t)
	for name, frame := range shortFrames {
		got, err := o.Open(nil, Zstd, unhex(t, frame), len(shortPlain))
		if err != nil || !bytes.Equal(got, shortPlain) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// block returns a zstd block: kind 0 is raw, 1 a byte to repeat, 2 compressed.
func block(last bool, kind, size int, body ...byte) []byte {
	h := size<<3 | kind<<1
	if last {
		h |= 1
	}
	return append([]byte{byte(h), byte(h >> 8), byte(h >> 16)}, body...)
}

// frame returns a single segment that declares size, with these blocks.
func frame(size int, blocks ...[]byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, byte(size), byte(size >> 8), byte(size >> 16), byte(size >> 24)}
	return append(b, slices.Concat(blocks...)...)
}

func TestCorrupt(t *testing.T) {
	good := unhex(t, shortFrames["version 1"])
	size := len(shortPlain)
	encode := func(plain []byte, o ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(plain, nil)
	}
	change := func(i int, to byte) []byte {
		b := slices.Clone(good)
		b[i] = to
		return b
	}
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}
	empty := frame(0, block(true, 0, 0))
	for name, c := range map[string]struct {
		codec  Codec
		sealed []byte
		size   int
	}{
		"nothing":                  {Zstd, nil, size},
		"nothing of nothing":       {Zstd, nil, 0},
		"size too small":           {Zstd, good, size - 1},
		"size too large":           {Zstd, good, size + 1},
		"size negative":            {Zstd, good, -1},
		"size above the limit":     {Zstd, good, MaxPlain + 1},
		"trailing byte":            {Zstd, append(slices.Clone(good), 0), size},
		"two frames":               {Zstd, append(slices.Clone(good), good...), size},
		"two frames, size of both": {Zstd, append(slices.Clone(good), good...), 2 * size},
		"empty frame after":        {Zstd, append(slices.Clone(good), empty...), size},
		"empty frame before":       {Zstd, append(slices.Clone(empty), good...), size},
		"skippable frame after":    {Zstd, append(slices.Clone(good), skippable...), size},
		"skippable frame before":   {Zstd, append(slices.Clone(skippable), good...), size},
		"skippable frame alone":    {Zstd, skippable, 0},
		"other magic":              {Zstd, change(0, 0x27), size},
		"reserved bit":             {Zstd, change(4, good[4]|8), size},
		"with checksum":            {Zstd, encode(shortPlain, zstd.WithSingleSegment(true)), size},
		"with window":              {Zstd, encode(shortPlain, zstd.WithSingleSegment(false), zstd.WithEncoderCRC(false)), size},
		"no last block":            {Zstd, frame(4, block(false, 0, 4, 'a', 'b', 'c', 'd')), 4},
		"blocks too short":         {Zstd, frame(4, block(true, 0, 3, 'a', 'b', 'c')), 4},
		"blocks too long":          {Zstd, frame(4, block(true, 0, 5, 'a', 'b', 'c', 'd', 'e')), 4},
		"reserved block":           {Zstd, frame(4, block(true, 3, 4, 'a', 'b', 'c', 'd')), 4},
		"block beyond the limit":   {Zstd, frame(1<<20, block(true, 1, 1<<20, 'a')), 1 << 20},
		"raw, shorter":             {Raw, good, len(good) + 1},
		"raw, longer":              {Raw, good, len(good) - 1},
		"raw above the limit":      {Raw, make([]byte, MaxPlain+1), MaxPlain + 1},
		"unknown codec":            {2, good, size},
		"plain as zstd":            {Zstd, shortPlain, size},
	} {
		t.Run(name, func(t *testing.T) { mustRefuse(t, c.codec, c.sealed, c.size) })
	}
	for n := range good {
		mustRefuse(t, Zstd, good[:n], size)
	}
}

func mustRefuse(t *testing.T, c Codec, sealed []byte, size int) {
	t.Helper()
	o := newOpener(t)
	dst := append(make([]byte, 0, 100), "before"...)
	for what, open := range map[string]func() ([]byte, error){
		"Open":       func() ([]byte, error) { return o.Open(dst, c, sealed, size) },
		"OpenPrefix": func() ([]byte, error) { return o.OpenPrefix(dst, c, sealed, size, size) },
	} {
		got, err := open()
		if !errors.Is(err, ErrCorrupt) || string(got) != "before" {
			t.Errorf("%s of %d bytes: %q, %v", what, len(sealed), got, err)
		}
	}
}

func TestOpenPrefixBounds(t *testing.T) {
	o := newOpener(t)
	good := unhex(t, shortFrames["version 1"])
	for _, n := range []int{-1, len(shortPlain) + 1} {
		if _, err := o.OpenPrefix(nil, Zstd, good, len(shortPlain), n); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// Frames that a Sealer makes can be cut short behind every block, so that no prefix of
// them takes the slow way.
func TestShortFrames(t *testing.T) {
	o := newOpener(t)
	const size = 5*Block + 1000
	for _, level := range []Level{Fast, Default, Best} {
		for _, in := range inputs {
			plain := in.make(size)
			c, sealed, err := newSealer(t, SealOptions{Level: level}).Seal(nil, plain)
			if err != nil {
				t.Fatal(err)
			}
			if c == Raw {
				continue
			}
			header, err := checkFrame(c, sealed, size)
			if err != nil {
				t.Fatal(err)
			}
			for blocks := 1; blocks <= 6; blocks++ {
				short := appendShort(nil, sealed, header, blocks)
				if blocks == 6 { // the whole of it, in which the last block is not full
					if len(short) > 0 {
						t.Errorf("%v, %s: cut short behind its end", level, in.name)
					}
					continue
				}
				got, err := o.Open(nil, Zstd, short, blocks*Block)
				if err != nil || !bytes.Equal(got, plain[:blocks*Block]) {
					t.Errorf("%v, %s: %d blocks: %v", level, in.name, blocks, err)
				}
			}
		}
	}
}

// Frames of others have blocks of any size. Prefixes of theirs open too, and those that
// are damaged do not.
func TestOpenPrefixUnevenBlocks(t *testing.T) {
	o := newOpener(t)
	run := func(last bool, size int, c byte) []byte { return block(last, 1, size, c) }
	for name, c := range map[string]struct {
		sealed []byte
		size   int
		bad    int // prefixes from this size on do not open; 0: all do
	}{
		"short first":      {frame(2*Block, run(false, 1000, 'a'), run(false, Block, 'b'), run(true, Block-1000, 'c')), 2 * Block, 0},
		"short second":     {frame(3*Block, run(false, Block, 'a'), run(false, 1, 'b'), run(false, Block, 'c'), run(true, Block-1, 'd')), 3 * Block, 0},
		"empty first":      {frame(2*Block, run(false, 0, 'a'), run(false, Block, 'b'), run(true, Block, 'c')), 2 * Block, 0},
		"all small":        {frame(Block+3, run(false, Block/2, 'a'), run(false, Block/2, 'b'), run(true, 3, 'c')), Block + 3, 0},
		"ends early":       {frame(3*Block, run(false, Block, 'a'), run(true, Block, 'b')), 3 * Block, Block + 1},
		"too large second": {frame(3*Block, run(false, Block, 'a'), run(false, Block+1, 'b'), run(true, Block-1, 'c')), 3 * Block, Block + 1},
		"reserved second":  {frame(3*Block, run(false, Block, 'a'), block(false, 3, 1, 'b'), run(true, Block, 'c')), 3 * Block, Block + 1},
	} {
		var whole []byte
		if c.bad == 0 {
			var err error
			if whole, err = o.Open(nil, Zstd, c.sealed, c.size); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for _, n := range []int{0, 1, 999, 1001, Block - 1, Block, Block + 1, 2*Block - 1, 2 * Block, 2*Block + 1, c.size - 1} {
			if n >= c.size {
				continue
			}
			got, err := o.OpenPrefix([]byte("before"), Zstd, c.sealed, c.size, n)
			switch {
			case c.bad > 0 && n >= c.bad:
				if !errors.Is(err, ErrCorrupt) || string(got) != "before" {
					t.Errorf("%s, %d bytes: %d bytes, %v", name, n, len(got), err)
				}
			case err != nil || len(got) != 6+n || whole != nil && !bytes.Equal(got[6:], whole[:n]):
				t.Errorf("%s, %d bytes: %d bytes, %v", name, n, len(got), err)
			}
		}
	}
}

// Every byte of a frame changed to every value: whatever opens has the size
// that was declared. (There is no checksum: other bytes may come out.)
func TestChangedBytes(t *testing.T) {
	o := newOpener(t)
	for _, h := range shortFrames {
		b := unhex(t, h)
		for i := range b {
			was := b[i]
			for v := range 256 {
				b[i] = byte(v)
				got, err := o.Open(nil, Zstd, b, len(shortPlain))
				if err == nil && len(got) != len(shortPlain) || err != nil && !errors.Is(err, ErrCorrupt) {
					t.Fatalf("byte %d as %#x: %d bytes, %v", i, v, len(got), err)
				}
			}
			b[i] = was
		}
	}
}

// Open writes no further than the declared size, and OpenPrefix than a little behind
// the block's end, though dst has room: there may be another frame's bytes.
func TestOpenStaysInPlace(t *testing.T) {
	o := newOpener(t)
	s := newSealer(t, SealOptions{})
	for _, in := range inputs {
		const size = 300_000
		c, sealed, err := s.Seal(nil, in.make(size))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{size, size - 1, size / 2, 0} {
			buf := bytes.Repeat([]byte{0xee}, 2*size)
			most := min(size, (n+Block-1)/Block*Block) + Slack
			var got []byte
			if n == size {
				most = size
				got, err = o.Open(buf[:100], c, sealed, size)
			} else {
				got, err = o.OpenPrefix(buf[:100], c, sealed, size, n)
			}
			if err != nil || &got[0] != &buf[0] {
				t.Fatalf("%s: moved, or %v", in.name, err)
			}
			if rest := buf[100+most:]; bytes.Count(rest, []byte{0xee}) != len(rest) {
				t.Errorf("%s: bytes behind the first %d were written", in.name, most)
			}
		}
	}
}

// What is allocated follows the declared size, whatever the frame says.
func TestBoundedMemory(t *testing.T) {
	const fixed = 2 << 20 // decoders' own buffers
	bomb := make([][]byte, 0, 1001)
	for range 1000 {
		bomb = append(bomb, block(false, 1, 128<<10, 'a')) // 128 MB in 4 KB
	}
	bomb = append(bomb, block(true, 0, 0))
	giant := frame(0, block(true, 1, 128<<10, 'a'))
	giant = append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0}, giant[9:]...) // declares 1 TiB
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 0xa0, 1, 0, 0, 0}                           // 1 GiB window, content of 1
	window = append(window, block(true, 0, 1, 'a')...)
	for name, c := range map[string]struct {
		sealed []byte
		size   int
	}{
		"declares 1 TiB":         {giant, MaxPlain},
		"declares 1 TiB, agreed": {giant, 1 << 40},
		"declares the window":    {window, 1},
		"bomb":                   {frame(1000, bomb...), 1000},
		"bomb of the limit":      {frame(MaxPlain, bomb...), MaxPlain},
	} {
		for what, n := range map[string]int{"whole": c.size, "prefix": c.size - 1} {
			o := newOpener(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := o.OpenPrefix(nil, Zstd, c.sealed, c.size, n)
			runtime.ReadMemStats(&after)
			if what == "whole" && !errors.Is(err, ErrCorrupt) || len(got) > n {
				t.Errorf("%s, %s: %d bytes, %v", name, what, len(got), err)
			}
			most := fixed + 4*min(uint64(c.size), MaxPlain)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > most {
				t.Errorf("%s, %s: %d bytes were allocated", name, what, grown)
			}
		}
	}
}

func TestOpenConcurrently(t *testing.T) {
	o := newOpener(t)
	const size = 400_000
	var wg sync.WaitGroup
	for i, in := range inputs {
		plain := in.make(size)
		c, sealed, err := newSealer(t, SealOptions{Level: Fast}).Seal(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			wg.Go(func() {
				n := size - n*(i+1)*1000
				got, err := o.OpenPrefix(nil, c, sealed, size, n)
				if err != nil || !bytes.Equal(got, plain[:n]) {
					t.Errorf("%s: %v", in.name, err)
				}
			})
		}
	}
	wg.Wait()
}

func FuzzOpen(f *testing.F) {
	for _, h := range shortFrames {
		f.Add(byte(Zstd), unhex(f, h), len(shortPlain), 1000)
	}
	f.Add(byte(Raw), []byte("plain"), 5, 3)
	f.Add(byte(Zstd), frame(200_000, block(false, 1, 100_000, 'a'), block(true, 1, 100_000, 'b')), 200_000, 150_000)
	f.Add(byte(Zstd), frame(4, block(true, 0, 4, 'a', 'b', 'c', 'd')), 4, 4)
	f.Add(byte(7), []byte{}, 0, 0)
	o := newOpener(f)
	f.Fuzz(func(t *testing.T, codec byte, sealed []byte, size, n int) {
		whole, err := o.Open([]byte("before"), Codec(codec), sealed, size)
		if err != nil && (!errors.Is(err, ErrCorrupt) || string(whole) != "before") {
			t.Fatalf("%q, %v", whole, err)
		}
		if err == nil && len(whole) != len("before")+size {
			t.Fatalf("%d bytes, declared %d", len(whole), size)
		}
		part, partErr := o.OpenPrefix([]byte("before"), Codec(codec), sealed, size, n)
		switch {
		case partErr != nil:
			if !errors.Is(partErr, ErrCorrupt) || string(part) != "before" {
				t.Fatalf("prefix: %q, %v", part, partErr)
			}
			if err == nil && n >= 0 && n <= size {
				t.Fatalf("opens, but not its prefix of %d: %v", n, partErr)
			}
		case len(part) != len("before")+n:
			t.Fatalf("%d bytes, asked for %d", len(part), n)
		case err == nil && !bytes.HasPrefix(whole, part):
			t.Fatal("the prefix differs")
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	const size = 1 << 20
	o := newOpener(b)
	for _, in := range inputs[:2] {
		c, sealed, err := newSealer(b, SealOptions{}).Seal(nil, in.make(size))
		if err != nil {
			b.Fatal(err)
		}
		for name, n := range map[string]int{"64K of 1M": 64 << 10, "512K of 1M": 512 << 10, "1M": size} {
			b.Run(in.name+"/"+name, func(b *testing.B) {
				dst := make([]byte, 0, size)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := o.OpenPrefix(dst, c, sealed, size, n); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(in.name+"/"+name+", streamed", func(b *testing.B) {
				dst := make([]byte, 0, size)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := o.stream(dst, sealed, n); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
