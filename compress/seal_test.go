package compress

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// The numbers and names are on disk and on command lines.
func TestNumbersAndNames(t *testing.T) {
	if Raw != 0 || Zstd != 1 {
		t.Errorf("codecs are %d and %d", Raw, Zstd)
	}
	for name, want := range map[string]Level{"default": Default, "fast": Fast, "best": Best} {
		got, err := ParseLevel(name)
		if err != nil || got != want || got.String() != name {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "Fast", "9"} {
		if _, err := ParseLevel(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	if _, err := NewSealer(SealOptions{Level: 99}); err == nil || !strings.Contains(err.Error(), "Level(99)") {
		t.Errorf("level 99: %v", err)
	}
}

func TestRoundTrip(t *testing.T) {
	defer goleak.VerifyNone(t)
	o, err := NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for _, l := range levels {
		s := newSealer(t, SealOptions{Level: l, Check: true})
		var buf []byte
		for _, in := range inputs {
			for _, size := range []int{0, 1, 2, 255, 256, 1023, 1024, 1025, 64 << 10, 128<<10 - 1, 128<<10 + 1, 700_001, MaxPlain} {
				if l == Best && size > 128<<10+1 {
					continue // slow, and no other path
				}
				plain := in.make(size)
				c, sealed, err := s.Seal(buf, plain)
				if err != nil {
					t.Fatalf("%v, %s, %d bytes: %v", l, in.name, size, err)
				}
				if len(sealed) > size {
					t.Errorf("%v, %s: %d bytes grew to %d", l, in.name, size, len(sealed))
				}
				for _, n := range []int{0, 1, size / 3, size - 1, size} {
					if n < 0 || n > size {
						continue
					}
					got, err := o.OpenPrefix([]byte("before"), c, sealed, size, n)
					if err != nil || !bytes.Equal(got, append([]byte("before"), plain[:n]...)) {
						t.Fatalf("%v, %s, %d of %d bytes: %v", l, in.name, n, size, err)
					}
				}
				got, err := o.Open([]byte("before"), c, sealed, size)
				if err != nil || !bytes.Equal(got, append([]byte("before"), plain...)) {
					t.Fatalf("%v, %s, %d bytes: %v", l, in.name, size, err)
				}
				if c == Zstd {
					buf = sealed
				}
			}
		}
	}
}

// What does not shrink comes back as it is: the same bytes in the same place. No encoder
// is tried on it.
func TestRawAliases(t *testing.T) {
	for _, l := range levels {
		s := newSealer(t, SealOptions{Level: l})
		for _, size := range []int{1, 100, 100_000, 1 << 20, MaxPlain} {
			plain := random(size)
			c, sealed, err := s.Seal(make([]byte, 0, 2<<20), plain)
			if err != nil || c != Raw || len(sealed) != size || &sealed[0] != &plain[0] {
				t.Errorf("%v, %d random bytes: codec %d, %d bytes, %v", l, size, c, len(sealed), err)
			}
			if s.every != 0 { // no trial of the default's encoders
				t.Errorf("%v: %d random bytes were encoded", l, size)
			}
		}
	}
}

// Data that is compressible only here and there, or only by entropy coding, is
// not taken for random.
func TestPartlyCompressible(t *testing.T) {
	const size = 1 << 20
	text := source(256 << 10)
	at := func(part []byte, places ...int) []byte {
		p := random(size)
		for _, i := range places {
			copy(p[i:], part)
		}
		return p
	}
	for name, c := range map[string]struct {
		plain []byte
		most  float64 // of its size
	}{
		"text first":              {at(text, 0), 0.85},
		"text in the middle":      {at(text, 300_000), 0.88},
		"text last":               {at(text, size-len(text)), 0.85},
		"zeros in the middle":     {at(make([]byte, 100_000), 500_000), 0.92},
		"short repeats":           {bytes.Repeat(random(5_000), 200), 0.05},
		"base64":                  {base64Text(size), 0.77},
		"base64 in the middle":    {at(base64Text(256<<10), 256<<10), 0.95},
		"seven bits":              {sevenBits(size), 0.89},
		"pages with text headers": {pages(size), 0.97},
		// Frames of four times that size.
		"large, short repeats":      {bytes.Repeat(random(5_000), 800), 0.05},
		"large, long repeats":       {bytes.Repeat(random(100_000), 40), 0.05},
		"large, repeats at the end": {append(random(3<<20), bytes.Repeat(random(5_000), 200)...), 0.80},
		"large, pages":              {pages(MaxPlain), 0.97},
		// At best 0.07, 0.25 and 0.75: what comes first is random.
		"repeats after 304 KiB": {recurringPages(MaxPlain, 304<<10), 0.12},
		"repeats after 1 MiB":   {recurringPages(MaxPlain, 1<<20), 0.27},
		"repeats after 3 MiB":   {recurringPages(MaxPlain, 3<<20), 0.77},
	} {
		for _, l := range levels {
			codec, sealed, err := newSealer(t, SealOptions{Level: l}).Seal(nil, c.plain)
			if err != nil {
				t.Fatal(err)
			}
			if got := float64(len(sealed)) / float64(len(c.plain)); codec != Zstd || got > c.most {
				t.Errorf("%s, %v: codec %d, %.3f of its size, want %.2f", name, l, codec, got, c.most)
			}
		}
	}
}

func sevenBits(size int) []byte {
	p := random(size)
	for i := range p {
		p[i] &= 0x7f
	}
	return p
}

func pages(size int) []byte {
	p := random(size)
	for i := 0; i < size; i += 4096 {
		copy(p[i:], "page of table users, sorted by name, compressed with a codec of its own; ")
		copy(p[i+73:], "flags: 0000000000000000000000000000000000000000000000000000000000000000000")
	}
	return p
}

// recurringPages are random pages of 8 KiB that come again after period bytes, each time but
// for the first bytes.
func recurringPages(size, period int) []byte {
	fresh := random(size)
	p := bytes.Repeat(fresh[:period], size/period+1)[:size]
	for i := 0; i < size; i += 8 << 10 {
		copy(p[i:i+16], fresh[i:])
	}
	return p
}

func TestRandomIsNotUneven(t *testing.T) {
	wrong := 0
	p := random(16 << 20)
	for i := 0; i < len(p); i += 64 << 10 {
		if uneven(p[i : i+64<<10]) {
			wrong++
		}
	}
	if wrong > 2 {
		t.Errorf("%d of %d parts of random bytes", wrong, len(p)>>16)
	}
}

// Where the fastest encoder does as well, Default takes it, and comes back
// from that when the data change.
func TestTrial(t *testing.T) {
	s := newSealer(t, SealOptions{})
	size := func(frames int, plain []byte) (total int) {
		for range frames {
			_, sealed, err := s.Seal(nil, plain)
			if err != nil {
				t.Fatal(err)
			}
			total += len(sealed)
		}
		return total
	}
	size(trialFirst+1, jsonLines(256<<10))
	if !s.lean {
		t.Error("JSON lines with signatures take the slow encoder")
	}
	size(2*trialFirst, source(512<<10)) // the second trial is as long after the first
	if s.lean {
		t.Error("source code takes the fast encoder")
	}
	_, fast, err := newSealer(t, SealOptions{Level: Fast}).Seal(nil, source(512<<10))
	if err != nil {
		t.Fatal(err)
	}
	if got := size(trialFirst, source(512<<10)) / trialFirst; got > len(fast)*96/100 {
		t.Errorf("Default makes %d bytes, Fast %d", got, len(fast))
	}
	if size(4*trialMost, []byte(`{"a":"b"}`)); s.every != trialMost {
		t.Errorf("trials are %d frames apart when nothing changes, want %d", s.every, trialMost)
	}
}

// What the default encoder saves has to be worth its time: 2 % more is not, 3 % is.
func TestWorth(t *testing.T) {
	for n, lean := range map[int]bool{128 << 10: true, 256 << 10: false} {
		s := newSealer(t, SealOptions{})
		plain := slices.Concat(jsonLines(256<<10), source(512 << 10)[:n])
		fast, slow := len(s.fast.Encode(nil, plain)), len(s.slow.Encode(nil, plain))
		if more := float64(fast-slow) / float64(slow); more < 0.01 || more > 0.04 {
			t.Fatalf("the fastest encoder makes %.3f more of the data of the test", more)
		}
		_, sealed, err := s.Seal(nil, plain)
		if want := map[bool]int{true: fast, false: slow}[lean]; err != nil || s.lean != lean || len(sealed) != want {
			t.Errorf("%d bytes of source code: %d bytes, want %d; lean %t, %v", n, len(sealed), want, s.lean, err)
		}
	}
}

func TestSealTooLarge(t *testing.T) {
	if _, _, err := newSealer(t, SealOptions{}).Seal(nil, make([]byte, MaxPlain+1)); err == nil {
		t.Error("accepted")
	}
}

func TestSealKeepsBuffer(t *testing.T) {
	s := newSealer(t, SealOptions{})
	buf := make([]byte, 0, 1<<20+1024)
	for _, in := range inputs {
		c, sealed, err := s.Seal(buf, in.make(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		if c == Zstd && &sealed[0] != &buf[:1][0] {
			t.Errorf("%s: the buffer grew", in.name)
		}
	}
}

func FuzzSeal(f *testing.F) {
	f.Add([]byte("the quick brown fox jumps over the lazy dog"), uint16(1), byte(0))
	f.Add([]byte{0}, uint16(1000), byte(1))
	f.Add([]byte{}, uint16(0), byte(2))
	var sealers []*Sealer
	for _, l := range []Level{Default, Fast} {
		s, err := NewSealer(SealOptions{Level: l})
		if err != nil {
			f.Fatal(err)
		}
		sealers = append(sealers, s)
	}
	o := newOpener(f)
	f.Fuzz(func(t *testing.T, unit []byte, times uint16, level byte) {
		if len(unit)*int(times) > 1<<20 {
			times = 1
		}
		plain := bytes.Repeat(unit, int(times))
		c, sealed, err := sealers[int(level)%len(sealers)].Seal(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.Open(nil, c, sealed, len(plain))
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes as codec %d: %v", len(plain), c, err)
		}
		if _, err := o.Open(nil, c, sealed, len(plain)+1); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("with another size: %v", err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	benchSeal(b, false)
}

func BenchmarkSealCheck(b *testing.B) {
	benchSeal(b, true)
}

func benchSeal(b *testing.B, check bool) {
	const frame = 1 << 20
	for _, in := range inputs {
		plain := in.make(8 * frame)
		for _, l := range levels {
			b.Run(in.name+"/"+l.String(), func(b *testing.B) {
				s := newSealer(b, SealOptions{Level: l, Check: check})
				dst := make([]byte, 0, frame+1024)
				b.SetBytes(int64(len(plain)))
				b.ReportAllocs()
				stored := 0
				for b.Loop() {
					stored = 0
					for i := 0; i < len(plain); i += frame {
						_, sealed, err := s.Seal(dst, plain[i:i+frame])
						if err != nil {
							b.Fatal(err)
						}
						stored += len(sealed)
					}
				}
				b.ReportMetric(float64(len(plain))/float64(stored), "ratio")
			})
		}
	}
}

func BenchmarkUneven(b *testing.B) {
	p := random(1 << 20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		uneven(p)
	}
}
