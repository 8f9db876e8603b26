package chunk

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stream returns size bytes that SPEC.md says how to make: SHA-256 of the
// seed and a counter, each byte ANDed with and.
func stream(seed string, and byte, size int) []byte {
	p := make([]byte, 0, size+sha256.Size)
	for i := uint64(0); len(p) < size; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(seed), i))
		p = append(p, sum[:]...)
	}
	p = p[:size]
	for i := range p {
		p[i] &= and
	}
	return p
}

// arriving splits p as it comes from a reader: read returns how many bytes
// come next, what Split leaves over is carried, and the end of the stream is
// known only when nothing more comes.
func arriving(s Splitter, p []byte, read func() int) []int {
	var ends []int
	start, have := 0, 0
	for final := false; !final; {
		final = have == len(p)
		have = min(len(p), have+read())
		n := len(ends)
		ends = s.Split(ends, p[start:have], final)
		for i := n; i < len(ends); i++ {
			ends[i] += start
		}
		if len(ends) > n {
			start = ends[len(ends)-1]
		}
		if !final && have-start >= s.Max() {
			panic(fmt.Sprintf("%d bytes left uncut, maximum %d", have-start, s.Max()))
		}
	}
	return ends
}

func TestArrival(t *testing.T) {
	data := append(stream("a", 0xff, 600<<10), stream("b", 3, 500<<10)...)
	data = append(data, make([]byte, 300<<10+7)...)
	for name, s := range map[string]Splitter{"scale-1": Scale1(), "small": Gear(64, 6, 1024), "fixed": Fixed(64 << 10)} {
		want := s.Split(nil, data, true)
		for _, size := range []int{1000, 4096, 16<<10 - 1, 64 << 10, 128 << 10, 128<<10 + 1, 1 << 20, 4 << 20} {
			got := arriving(s, data, func() int { return size })
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s, slabs of %d:\n%s", name, size, d)
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 20 {
			got := arriving(s, data, func() int { return r.IntN(200 << 10) })
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s, random slabs:\n%s", name, d)
			}
		}
	}
}

// Split appends to what it is given and leaves it as it is.
func TestSplitAppends(t *testing.T) {
	for name, s := range map[string]Splitter{"gear": Gear(2, 1, 4), "fixed": Fixed(3)} {
		got := s.Split([]int{-7}, make([]byte, 10), false)
		if len(got) < 2 || got[0] != -7 || got[1] > s.Max() {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFixed(t *testing.T) {
	s := Fixed(3)
	for _, c := range []struct {
		size  int
		final bool
		want  []int
	}{
		{0, false, nil}, {0, true, nil}, {2, false, nil}, {2, true, []int{2}},
		{3, false, []int{3}}, {3, true, []int{3}}, {7, false, []int{3, 6}}, {7, true, []int{3, 6, 7}},
	} {
		if got := s.Split(nil, make([]byte, c.size), c.final); !cmp.Equal(got, c.want) {
			t.Errorf("%d bytes, final %t: %v, want %v", c.size, c.final, got, c.want)
		}
	}
	if s.Min() != 3 || s.Max() != 3 {
		t.Errorf("bounds %d to %d", s.Min(), s.Max())
	}
}

func TestBadParameters(t *testing.T) {
	for name, make := range map[string]func(){
		"size 0":        func() { Fixed(0) },
		"min 0":         func() { Gear(0, 1, 4) },
		"max below min": func() { Gear(4, 1, 4) },
		"no bits":       func() { Gear(4, 0, 8) },
		"65 bits":       func() { Gear(4, 65, 8) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			make()
		})
	}
}

func ExampleSplitter() {
	data := make([]byte, 300<<10)
	fmt.Println(Scale1().Split(nil, data, true))
	fmt.Println(Scale1().Split(nil, data, false)) // the rest waits for more
	// Output:
	// [131072 262144 307200]
	// [131072 262144]
}

func BenchmarkChunk(b *testing.B) {
	for _, in := range []struct {
		name string
		data []byte
	}{{"random", stream("bench", 0xff, 16<<20)}, {"letters", stream("bench", 0x0f, 16<<20)}, {"zeros", make([]byte, 16<<20)}} {
		b.Run(in.name, func(b *testing.B) {
			s := Scale1()
			ends := make([]int, 0, 4096)
			b.SetBytes(int64(len(in.data)))
			b.ReportAllocs()
			for b.Loop() {
				ends = s.Split(ends[:0], in.data, true)
			}
			b.ReportMetric(float64(len(in.data))/float64(len(ends))/1024, "KiB/chunk")
		})
	}
}
