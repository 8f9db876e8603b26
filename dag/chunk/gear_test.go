package chunk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	"github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"
	"github.com/google/go-cmp/cmp"
)

// plainSplit cuts as SPEC.md says it, a byte at a time.
func plainSplit(g *gear, p []byte) []int {
	var ends []int
	for start := 0; start < len(p); {
		end, h := min(start+g.min, len(p)), uint64(0)
		for end < len(p) && end < start+g.max {
			h = h<<1 + g.table[p[end]]
			if h&g.mask == 0 {
				break
			}
			end++
		}
		ends = append(ends, end)
		start = end
	}
	return ends
}

type vectors struct {
	Gear []string
	Cuts []struct {
		Name     string
		Segments []struct {
			Seed string
			And  byte
			Size int
		}
		Ends []int
	}
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/cuts.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The cuts of scale-1 are part of every CID ever given out: a failure here is
// never mended by changing the vectors.
func TestGolden(t *testing.T) {
	v := readVectors(t)
	var table []string
	for _, w := range gearTable {
		table = append(table, fmt.Sprintf("%016x", w))
	}
	if d := cmp.Diff(v.Gear, table); d != "" {
		t.Fatalf("gear table:\n%s", d)
	}
	if len(v.Cuts) < 10 {
		t.Fatalf("only %d vectors", len(v.Cuts))
	}
	for _, c := range v.Cuts {
		var data []byte
		for _, s := range c.Segments {
			data = append(data, stream(s.Seed, s.And, s.Size)...)
		}
		if d := cmp.Diff(c.Ends, append([]int{}, Scale1().Split(nil, data, true)...)); d != "" {
			t.Errorf("%s:\n%s", c.Name, d)
		}
		got := arriving(Scale1(), data, func() int { return 50_000 })
		if d := cmp.Diff(c.Ends, append([]int{}, got...)); d != "" {
			t.Errorf("%s, arriving in slabs:\n%s", c.Name, d)
		}
	}
}

// A run of one byte brings the hash to a fixed value, minus that byte's word.
// If that were a cut, such a run would fall into chunks of the smallest size.
func TestRunsDoNotCut(t *testing.T) {
	mask := Scale1().(*gear).mask
	for b, w := range gearTable {
		if -w&mask == 0 {
			t.Errorf("runs of byte %#x are cut", b)
		}
	}
}

// Every stream of up to 32 bytes of two kinds, cut with small bounds, whole
// and in two slabs parted at every place.
func TestExhaustiveSmall(t *testing.T) {
	data := append(stream("small", 0xff, 16), stream("small", 1, 16)...)
	for _, lo := range []int{1, 2, 3, 5, 8} {
		for hi := lo + 1; hi < lo+10; hi++ {
			for bits := 1; bits <= 3; bits++ {
				g := Gear(lo, bits, hi).(*gear)
				for size := range len(data) + 1 {
					p := data[:size]
					want := plainSplit(g, p)
					if got := g.Split(nil, p, true); !slices.Equal(want, got) {
						t.Fatalf("Gear(%d, %d, %d), %d bytes: %v, want %v", lo, bits, hi, size, got, want)
					}
					for at := range size + 1 {
						slab := at
						got := arriving(g, p, func() int {
							n := slab
							slab = size - at
							return n
						})
						if !slices.Equal(want, got) {
							t.Fatalf("Gear(%d, %d, %d), %d bytes, slabs parted at %d: %v, want %v", lo, bits, hi, size, at, got, want)
						}
					}
				}
			}
		}
	}
}

// What repeats itself is cut as if each byte were looked at, also where it ceases to.
func TestRepeats(t *testing.T) {
	for period := 1; period <= 40; period++ {
		p := bytes.Repeat(stream(fmt.Sprint(period), 0xff, period), 200/period+1)
		for _, hi := range []int{4, 7, 16, 31} {
			g := Gear(3, 2, hi).(*gear)
			for at := range p {
				p[at] ^= 1
				if want, got := plainSplit(g, p), g.Split(nil, p, true); !slices.Equal(want, got) {
					t.Fatalf("Gear(3, 2, %d), period %d, another byte at %d: %v, want %v", hi, period, at, got, want)
				}
				p[at] ^= 1
			}
		}
	}
}

// Zeros, and runs of other bytes, are cut as if each byte were looked at, also where the hash
// of zeros is a cut, and wherever they begin and cease.
func TestHoles(t *testing.T) {
	holes := 0
	for bits := 1; bits <= 12; bits++ {
		for _, hi := range []int{4, 31, 100} {
			g := Gear(3, bits, hi).(*gear)
			if g.holes {
				holes++
			}
			for b := range byte(4) {
				p := bytes.Repeat([]byte{b}, 3*hi+5)
				for at := range p {
					p[at] = 9
					for size := at; size <= len(p); size += hi {
						if want, got := plainSplit(g, p[:size]), g.Split(nil, p[:size], true); !slices.Equal(want, got) {
							t.Fatalf("Gear(3, %d, %d), %d bytes %d but for the one at %d: %v, want %v", bits, hi, size, b, at, got, want)
						}
					}
					p[at] = b
				}
			}
		}
	}
	if holes == 0 || holes == 12*3 || !Scale1().(*gear).holes {
		t.Errorf("zeros are cut at the largest size by %d of %d splitters", holes, 12*3)
	}
}

// The library's FastCDC, left at its zero value, does not normalise; given
// the same table it must make the same cuts.
func TestSameCutsAsLibrary(t *testing.T) {
	data := append(stream("library", 0xff, 8<<20), stream("library", 7, 2<<20)...)
	for name, table := range map[string]*[256]uint64{"our table": &gearTable, "its table": &fastcdc.G} {
		for _, bits := range []int{12, 13, 15} {
			g := Gear(16<<10, bits, 128<<10).(*gear)
			g.table = table
			got := g.Split(nil, data, true)

			o := chunkers.ChunkerOpts{MinSize: g.min, NormalSize: 1 << bits, MaxSize: g.max}
			var c fastcdc.FastCDC
			if err := c.Setup(&o); err != nil {
				t.Fatal(err)
			}
			c.G = table
			var want []int
			for end := 0; end < len(data); {
				end += c.Algorithm(&o, data[end:], len(data)-end)
				want = append(want, end)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s, %d bits:\n%s", name, bits, d)
			}
		}
	}
}

// An edit changes the chunks around it and no others.
func TestResync(t *testing.T) {
	data := stream("resync", 0xff, 4<<20)
	at := 1 << 20
	edited := append(append(append([]byte{}, data[:at]...), "inserted"...), data[at:]...)
	old := make(map[string]bool)
	each(Scale1(), data, func(chunk []byte) { old[string(chunk)] = true })
	fresh := 0
	each(Scale1(), edited, func(chunk []byte) {
		if !old[string(chunk)] {
			fresh += len(chunk)
		}
	})
	if fresh == 0 || fresh > 256<<10 {
		t.Errorf("%d bytes of new chunks after an edit of 8", fresh)
	}
}

func each(s Splitter, p []byte, f func(chunk []byte)) {
	start := 0
	for _, end := range s.Split(nil, p, true) {
		f(p[start:end])
		start = end
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("the quick brown fox jumps over the lazy dog"), byte(2), byte(2), byte(9), byte(5))
	f.Add(make([]byte, 100), byte(0), byte(0), byte(0), byte(0))
	f.Fuzz(func(t *testing.T, p []byte, lo, bits, span, slab byte) {
		g := Gear(1+int(lo), 1+int(bits)%12, 2+int(lo)+int(span)).(*gear)
		want := plainSplit(g, p)
		if got := g.Split(nil, p, true); !cmp.Equal(want, got) {
			t.Fatalf("%v, want %v", got, want)
		}
		if got := arriving(g, p, func() int { return 1 + int(slab) }); !cmp.Equal(want, got) {
			t.Fatalf("in slabs of %d: %v, want %v", 1+int(slab), got, want)
		}
		start := 0
		for i, end := range want {
			if n := end - start; n > g.max || n < g.min && i != len(want)-1 {
				t.Fatalf("chunk of %d bytes, bounds %d to %d", n, g.min, g.max)
			}
			start = end
		}
		if start != len(p) {
			t.Fatalf("cut %d of %d bytes", start, len(p))
		}
	})
}

// BenchmarkLibrary is the library's loop on what BenchmarkChunk/random cuts.
func BenchmarkLibrary(b *testing.B) {
	data := stream("bench", 0xff, 16<<20)
	o := chunkers.ChunkerOpts{MinSize: 16 << 10, NormalSize: 8 << 10, MaxSize: 128 << 10}
	b.Run("not normalised", func(b *testing.B) {
		var c fastcdc.FastCDC
		if err := c.Setup(&o); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			for p := data; len(p) > 0; {
				p = p[c.Algorithm(&o, p, len(p)):]
			}
		}
	})
	b.Run("fastcdc-v1.0.0", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			o := chunkers.ChunkerOpts{MinSize: 8 << 10, NormalSize: 16 << 10, MaxSize: 128 << 10}
			c, err := chunkers.NewChunkerBuffer("fastcdc-v1.0.0", inPlace{}, &o, data)
			if err != nil {
				b.Fatal(err)
			}
			for err == nil {
				_, err = c.Next()
			}
		}
	})
}

// inPlace "reads" the bytes that already lie in the buffer, so that nothing
// is copied.
type inPlace struct{}

func (inPlace) Read(p []byte) (int, error) { return len(p), io.EOF }
