package extsort

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// A memFile is a temporary file in memory that counts and fails as it is told to.
type memFile struct {
	b              []byte
	writes, reads  int
	failWrite      int // fails from this write on, if not 0
	failRead       int
	damage         bool // flips a bit of what is read
	closed, opened int
}

func (f *memFile) scratch() (File, error) {
	f.opened++
	return f, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.writes++; f.failWrite > 0 && f.writes >= f.failWrite {
		return 0, &os.PathError{Op: "write", Path: "scratch", Err: syscall.ENOSPC}
	}
	if end := int(off) + len(p); end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if f.reads++; f.failRead > 0 && f.reads >= f.failRead {
		return 0, syscall.EIO
	}
	if int(off) >= len(f.b) {
		return 0, io.EOF
	}
	n := copy(p, f.b[off:])
	if f.damage {
		p[n/2] ^= 1
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Close() error {
	f.closed++
	return nil
}

func (r Record) String() string { return fmt.Sprintf("%q=%q", r.Key, r.Value) }

// compare orders records as the tests want them; of equal keys the order is free.
func (r Record) compare(o Record) int {
	if c := bytes.Compare(r.Key, o.Key); c != 0 {
		return c
	}
	return bytes.Compare(r.Value, o.Value)
}

func (r Record) clone() Record { return Record{bytes.Clone(r.Key), bytes.Clone(r.Value)} }

func add(tb testing.TB, s *Sorter, records ...Record) {
	tb.Helper()
	for _, r := range records {
		if err := s.Add(r.Key, r.Value); err != nil {
			tb.Fatal(err)
		}
	}
}

// collect takes up to n records and checks that they are in order.
func collect(tb rapid.TB, s *Sorter, n int) []Record {
	tb.Helper()
	var got []Record
	if n == 0 {
		return nil
	}
	for r, err := range s.Sorted() {
		if err != nil {
			tb.Fatal(err)
		}
		if k := len(got); k > 0 && bytes.Compare(got[k-1].Key, r.Key) > 0 {
			tb.Fatalf("%q after %q", r.Key, got[k-1].Key)
		}
		if got = append(got, r.clone()); len(got) == n {
			break
		}
	}
	return got
}

func wantRecords(tb rapid.TB, got, want []Record) {
	tb.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.SortFunc(got, Record.compare)
	slices.SortFunc(want, Record.compare)
	if !slices.EqualFunc(got, want, func(a, b Record) bool { return a.compare(b) == 0 }) {
		tb.Fatalf("got %d records, want %d, or they are not the same:\n%.500v\n%.500v", len(got), len(want), got, want)
	}
}

// check compares what the Space thinks it holds with what is there.
func (sp *Space) check(tb rapid.TB) {
	tb.Helper()
	used := unit*len(sp.units) + refSize*cap(sp.refs)
	blocks := len(sp.freed)
	for i, s := range slices.Concat(sp.live, sp.closed) {
		held := refSize * cap(s.refs)
		for _, seg := range s.segs {
			held += cap(seg)
		}
		for _, r := range s.merge {
			held += cap(r.buf)
			blocks += len(r.run)
		}
		for _, r := range s.runs {
			blocks += len(r)
		}
		if held != s.held || i < len(sp.live) && s.place != i {
			tb.Fatalf("sorter %d at place %d holds %d bytes, says %d", i, s.place, held, s.held)
		}
		used += held
	}
	if used != sp.used {
		tb.Fatalf("%d bytes in use, the space says %d", used, sp.used)
	}
	if blocks != int(sp.next) {
		tb.Fatalf("%d blocks are used or free, the file has %d", blocks, sp.next)
	}
}

var recordGen = rapid.Custom(func(t *rapid.T) Record {
	// Few different keys, many of which begin alike or differ by zeros.
	key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 255}), 0, 12).Draw(t, "key")
	pad := rapid.SampledFrom([]int{0, 0, 0, 3, 300, 5000}).Draw(t, "pad")
	return Record{Key: key, Value: append(rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(t, "value"), make([]byte, pad)...)}
})

// Several sorters of one Space, filled and read in turns like directories inside
// of one another, give what slices.Sort gives, whatever the memory.
func TestAgainstSlices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f memFile
		o := Options{Memory: rapid.SampledFrom([]int{1, 3000, 200_000, 0}).Draw(t, "memory"), Scratch: f.scratch}
		if rapid.Bool().Draw(t, "without") {
			o.Scratch = nil
		}
		sp := New(o)
		type model struct {
			s       *Sorter
			want    []Record
			reading bool
			got     []Record
		}
		var open []*model
		top := func() *model { return open[len(open)-1] }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(open) == 0 {
				open = append(open, &model{s: sp.Sorter()})
			}
			switch m := top(); rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1:
				open = append(open, &model{s: sp.Sorter()})
			case 2:
				wantAll := rapid.Bool().Draw(t, "all")
				if wantAll {
					m.got = append(m.got, collect(t, m.s, -1)...)
					wantRecords(t, m.got, m.want)
				}
				m.s.Close()
				open = open[:len(open)-1]
			case 3, 4:
				m.reading = true
				m.got = append(m.got, collect(t, m.s, rapid.IntRange(0, 20).Draw(t, "n"))...)
			default:
				if m.reading {
					continue
				}
				for range rapid.SampledFrom([]int{1, 10, 100}).Draw(t, "times") {
					r := recordGen.Draw(t, "record")
					if err := m.s.Add(r.Key, r.Value); err != nil {
						t.Fatal(err)
					}
					m.want = append(m.want, r)
				}
			}
			sp.check(t)
		}
		for len(open) > 0 {
			m := top()
			m.got = append(m.got, collect(t, m.s, -1)...)
			wantRecords(t, m.got, m.want)
			m.s.Close()
			open = open[:len(open)-1]
		}
		sp.check(t)
		if len(sp.freed) != int(sp.next) {
			t.Fatalf("%d blocks of %d are free at the end", len(sp.freed), sp.next)
		}
		if err := sp.Close(); err != nil || f.closed != f.opened || f.opened > 1 {
			t.Fatalf("%v; opened %d times, closed %d", err, f.opened, f.closed)
		}
	})
}

func randomRecords(n int) []Record {
	rng := rand.New(rand.NewPCG(3, 4))
	list := make([]Record, n)
	for i := range list {
		list[i].Key = make([]byte, 1+rng.IntN(30))
		for j := range list[i].Key {
			list[i].Key[j] = byte(rng.Uint32())
		}
		list[i].Value = fmt.Append(nil, i)
	}
	return list
}

// More runs than are merged at once, and memory that stays within its bound.
func TestManyRuns(t *testing.T) {
	var f memFile
	sp := New(Options{Memory: 512 << 10, Scratch: f.scratch})
	records := randomRecords(150_000)
	s := sp.Sorter()
	most := 0
	for _, r := range records {
		add(t, s, r)
		most = max(most, sp.used)
	}
	if len(s.runs) <= 3*sp.fan {
		t.Fatalf("only %d runs", len(s.runs))
	}
	written := sp.next
	var got []Record
	for r, err := range s.Sorted() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.clone())
		most = max(most, sp.used)
	}
	slices.SortStableFunc(records, func(a, b Record) int { return bytes.Compare(a.Key, b.Key) })
	for i := range got {
		if !bytes.Equal(got[i].Key, records[i].Key) {
			t.Fatalf("record %d: %v, want %v", i, got[i], records[i])
		}
	}
	wantRecords(t, got, records)
	if most > 512<<10+2*unit {
		t.Errorf("held %d bytes", most)
	}
	// Blocks are used again as they are read.
	if sp.next > written+2*uint32(sp.fan) {
		t.Errorf("%d blocks to sort, %d after the merge", written, sp.next)
	}
	sp.check(t)
}

// A thousand directories inside of one another, each with more than its share.
func TestDeep(t *testing.T) {
	const depth, names, limit = 1000, 40, 200_000
	var f memFile
	sp := New(Options{Memory: limit, Scratch: f.scratch})
	var open []*Sorter
	most := 0
	for d := range depth {
		s := sp.Sorter()
		for i := range names {
			add(t, s, Record{Key: fmt.Appendf(nil, "%x", (i*7919+d)%names), Value: make([]byte, 50)})
			most = max(most, sp.used)
		}
		// Half of it is given before the one inside is begun.
		if n := len(collect(t, s, names/2)); n != names/2 {
			t.Fatalf("%d records", n)
		}
		open = append(open, s)
	}
	for i := len(open) - 1; i >= 0; i-- {
		if n := len(collect(t, open[i], -1)); n != names-names/2 {
			t.Fatalf("%d records were left", n)
		}
		open[i].Close()
		most = max(most, sp.used)
	}
	sp.check(t)
	if most > limit+2*unit {
		t.Errorf("held %d bytes", most)
	}
}

func TestInMemory(t *testing.T) {
	called := false
	sp := New(Options{Scratch: func() (File, error) {
		called = true
		return nil, errors.New("not wanted")
	}})
	for range 3 {
		s := sp.Sorter()
		add(t, s, randomRecords(20_000)...)
		if n := len(collect(t, s, -1)); n != 20_000 {
			t.Errorf("%d records", n)
		}
		s.Close()
		sp.check(t)
	}
	if called {
		t.Error("a file was made for a small directory")
	}
	s := sp.Sorter()
	if err := s.Add(make([]byte, MaxRecord), []byte{1}); err == nil {
		t.Error("a record that is too long was taken")
	}
	add(t, s, Record{Key: make([]byte, MaxRecord)}, Record{})
	if n := len(collect(t, s, -1)); n != 2 {
		t.Errorf("%d records", n)
	}
	if err := s.Add(nil, nil); err == nil {
		t.Error("a record was taken after the last one")
	}
}

// What fails is said, and stays.
func TestScratchErrors(t *testing.T) {
	records := randomRecords(20_000)
	run := func(scratch Scratch) error {
		sp := New(Options{Memory: 100_000, Scratch: scratch})
		s := sp.Sorter()
		var err error
		for _, r := range records {
			if err = s.Add(r.Key, r.Value); err != nil {
				break
			}
		}
		if err == nil {
			for _, err = range s.Sorted() {
				if err != nil {
					break
				}
			}
		}
		if err != nil {
			if err2 := s.Add([]byte("more"), nil); err2 == nil {
				t.Error("records are taken after an error")
			}
			for _, err2 := range s.Sorted() {
				if err2 == nil {
					t.Error("records are given after an error")
				}
			}
		}
		s.Close()
		if err2 := sp.Close(); err2 != nil {
			t.Error(err2)
		}
		return err
	}
	var ok memFile
	if err := run(ok.scratch); err != nil || ok.closed != 1 {
		t.Fatalf("%v, closed %d times", err, ok.closed)
	}
	for i := 1; i <= ok.writes; i++ {
		f := memFile{failWrite: i}
		if err := run(f.scratch); !errors.Is(err, ErrScratch) || !errors.Is(err, syscall.ENOSPC) || f.closed != 1 {
			t.Fatalf("write %d: %v, closed %d times", i, err, f.closed)
		}
	}
	for i := 1; i <= ok.reads; i++ {
		f := memFile{failRead: i}
		if err := run(f.scratch); !errors.Is(err, ErrScratch) || !errors.Is(err, syscall.EIO) || f.closed != 1 {
			t.Fatalf("read %d: %v, closed %d times", i, err, f.closed)
		}
	}
	f := memFile{damage: true}
	if err := run(f.scratch); !errors.Is(err, ErrScratch) {
		t.Errorf("damage: %v", err)
	}
	none := errors.New("no such place")
	if err := run(func() (File, error) { return nil, none }); !errors.Is(err, ErrScratch) || !errors.Is(err, none) {
		t.Errorf("no file: %v", err)
	}
}

func TestClosed(t *testing.T) {
	sp := New(Options{})
	s := sp.Sorter()
	add(t, s, Record{Key: []byte("a")})
	for range 2 {
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(nil, nil); !errors.Is(err, ErrScratch) {
		t.Error(err)
	}
	s.Close()
}

// What a block holds is our own, but parsing it must not depend on that.
func FuzzParseRecord(f *testing.F) {
	f.Add([]byte{1, 1, 'k', 'v'})
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 'k'})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			r, n, ok := parseRecord(b)
			if !ok {
				return
			}
			if n < 2 || n > len(b) || len(r.Key)+len(r.Value) > n-2 {
				t.Fatalf("record of %d and %d bytes in %d of %d", len(r.Key), len(r.Value), n, len(b))
			}
			b = b[n:]
		}
	})
}

func BenchmarkSort(b *testing.B) {
	records := randomRecords(100_000)
	for _, memory := range []int{0, 1 << 20} {
		b.Run(fmt.Sprintf("memory=%d", memory), func(b *testing.B) {
			var f memFile
			sp := New(Options{Memory: memory, Scratch: f.scratch})
			b.ReportAllocs()
			for b.Loop() {
				s := sp.Sorter()
				add(b, s, records...)
				n := 0
				for _, err := range s.Sorted() {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != len(records) {
					b.Fatal(n)
				}
				s.Close()
			}
		})
	}
}
