package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/store/kv"
)

// TestKV checks that stores keep the contract of kv.Store. Open opens the store
// in a directory, which is empty the first time.
func TestKV(t *testing.T, open func(dir string) (kv.Store, error)) {
	for _, c := range []struct {
		name string
		run  func(*kvSuite)
	}{
		{"Rows", (*kvSuite).rows},
		{"Limits", (*kvSuite).limits},
		{"Scan", (*kvSuite).scan},
		{"Snapshot", (*kvSuite).snapshot},
		{"View", (*kvSuite).view},
		{"Context", (*kvSuite).context},
		{"Closed", (*kvSuite).closed},
		{"CloseWaits", (*kvSuite).closeWaits},
		{"Concurrent", (*kvSuite).concurrent},
		{"History", (*kvSuite).history},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &kvSuite{T: t, ctx: t.Context(), dir: t.TempDir()}
			s.open = func() {
				t.Helper()
				var err error
				if s.kv, err = open(s.dir); err != nil {
					t.Fatal(err)
				}
			}
			s.open()
			defer func() {
				if err := s.kv.Close(); err != nil {
					t.Error(err)
				}
			}()
			c.run(s)
		})
	}
}

type kvSuite struct {
	*testing.T
	ctx  context.Context
	dir  string
	open func()
	kv   kv.Store
}

func (s *kvSuite) reopen() {
	s.Helper()
	if err := s.kv.Close(); err != nil {
		s.Fatal(err)
	}
	s.open()
}

// commit sets pairs of keys and values; a key that begins with '-' is deleted
// and takes no value.
func (s *kvSuite) commit(rows ...string) {
	s.Helper()
	var b kv.Batch
	for len(rows) > 0 {
		if k := rows[0]; k[0] == '-' {
			b.Delete([]byte(k[1:]))
			rows = rows[1:]
		} else {
			b.Set([]byte(k), []byte(rows[1]))
			rows = rows[2:]
		}
	}
	if err := s.kv.Commit(s.ctx, &b); err != nil {
		s.Fatal(err)
	}
}

// want checks one key in every way it can be read.
func (s *kvSuite) want(key, value string, there bool) {
	s.Helper()
	got, err := s.kv.Get(s.ctx, []byte(key), []byte("before "))
	switch {
	case there && (err != nil || string(got) != "before "+value):
		s.Errorf("Get(%q) = %q, %v, want %q behind what was there", key, got, err, value)
	case !there && (!errors.Is(err, kv.ErrNotFound) || string(got) != "before "):
		s.Errorf("Get(%q) = %q, %v, want ErrNotFound and what was there", key, got, err)
	}
	if has, err := s.kv.Has(s.ctx, []byte(key)); err != nil || has != there {
		s.Errorf("Has(%q) = %v, %v, want %v", key, has, err, there)
	}
	if row, err := s.kv.Last(s.ctx, []byte(key)); there && (err != nil || string(row.Key) < key) {
		s.Errorf("Last(%q) = %q, %v", key, row.Key, err)
	}
}

// wantScan checks the keys that a scan yields.
func (s *kvSuite) wantScan(prefix, from string, want ...string) {
	s.Helper()
	var f []byte
	if from != "" {
		f = []byte(from)
	}
	var got []string
	for row, err := range s.kv.Scan(s.ctx, []byte(prefix), f) {
		if err != nil {
			s.Fatal(err)
		}
		got = append(got, string(row.Key))
	}
	if d := cmp.Diff(want, got); d != "" {
		s.Errorf("Scan(%q, %q): (-want +got)\n%s", prefix, from, d)
	}
}

func (s *kvSuite) rows() {
	s.want("a", "", false)
	s.commit()
	s.commit("a", "1", "b", "", "-never")
	for range 2 {
		s.want("a", "1", true)
		s.want("b", "", true)
		s.want("ab", "", false)
		s.want("never", "", false)
		s.reopen()
	}
	s.commit("a", "2", "-b", "c", "x", "-c", "d", "old", "d", "new", "-e", "e", "back")
	for range 2 {
		s.want("a", "2", true)
		s.want("b", "", false)
		s.want("c", "", false)
		s.want("d", "new", true)
		s.want("e", "back", true)
		s.reopen()
	}
	if n, err := s.kv.Size(); err != nil || n <= 0 {
		s.Errorf("Size() = %d, %v", n, err)
	}

	// The batch stays the caller's.
	key, value := []byte("key"), []byte("value")
	var b kv.Batch
	b.Set(key, value)
	key[0], value[0] = 'X', 'X'
	if err := s.kv.Commit(s.ctx, &b); err != nil {
		s.Fatal(err)
	}
	b.Reset()
	b.Set([]byte("other"), []byte("thing"))
	s.want("key", "value", true)
	s.want("other", "", false)
}

func (s *kvSuite) limits() {
	long := func(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }
	var b kv.Batch
	for name, fill := range map[string]func(){
		"no key":         func() { b.Set(nil, []byte("v")) },
		"reserved key":   func() { b.Set([]byte("!k"), []byte("v")) },
		"long key":       func() { b.Set(long(kv.MaxKey+1), []byte("v")) },
		"delete no key":  func() { b.Delete(nil) },
		"long value":     func() { b.Set([]byte("k"), long(kv.MaxValue+1)) },
		"too many rows":  func() { fillRows(&b, kv.MaxBatchRows+1) },
		"too many bytes": func() { fillBytes(&b, kv.MaxBatchBytes+1) },
	} {
		b.Reset()
		b.Set([]byte("first"), []byte("v"))
		fill()
		if err := s.kv.Commit(s.ctx, &b); !errors.Is(err, kv.ErrTooLarge) {
			s.Errorf("%s: Commit = %v, want ErrTooLarge", name, err)
		}
		s.want("first", "", false)
	}
	for _, key := range [][]byte{nil, []byte("!k"), long(kv.MaxKey + 1)} {
		if _, err := s.kv.Get(s.ctx, key, nil); !errors.Is(err, kv.ErrTooLarge) {
			s.Errorf("Get(%q) = %v, want ErrTooLarge", key, err)
		}
	}

	// The largest of everything is taken, one after the other.
	longest := string(long(kv.MaxKey))
	b.Reset()
	b.Set([]byte(longest), long(kv.MaxValue))
	for range 3 {
		if err := s.kv.Commit(s.ctx, &b); err != nil {
			s.Fatalf("largest row: %v", err)
		}
	}
	for _, fill := range []func(*kv.Batch, int){fillRows, fillBytes} {
		b.Reset()
		fill(&b, kv.MaxBatchRows)
		if b.Len() < kv.MaxBatchRows {
			b.Reset()
			fill(&b, kv.MaxBatchBytes)
		}
		if !b.Fits(0, 0) || b.Fits(kv.MaxBatchRows, kv.MaxBatchBytes) {
			s.Error("Fits is wrong about a full batch")
		}
		for range 20 {
			if err := s.kv.Commit(s.ctx, &b); err != nil {
				s.Fatalf("largest batch: %v", err)
			}
		}
	}
	for range 2 {
		s.want(longest, string(long(kv.MaxValue)), true)
		if row, err := s.kv.Last(s.ctx, nil); err != nil || string(row.Key) != longest {
			s.Errorf("Last = %x, %v, want the longest key", row.Key, err)
		}
		s.want("bytes0", string(long(kv.MaxValue)), true)
		s.want("row00000000", "v", true)
		s.reopen()
	}
}

// fillRows adds small rows until the batch has n.
func fillRows(b *kv.Batch, n int) {
	for i := 0; b.Len() < n; i++ {
		b.Set(fmt.Appendf(nil, "row%08d", i), []byte("v"))
	}
}

// fillBytes adds large rows until the batch has n bytes.
func fillBytes(b *kv.Batch, n int) {
	for i := 0; b.Bytes() < n; i++ {
		key := fmt.Appendf(nil, "bytes%x", i)
		b.Set(key, bytes.Repeat([]byte{0xff}, min(kv.MaxValue, max(0, n-b.Bytes()-len(key)))))
	}
}

func (s *kvSuite) scan() {
	s.wantScan("", "")
	s.commit("a", "", "b", "", "b\x00", "", "b\x00\xff", "", "ba", "", "b\xff", "", "b\xff\xff", "", "c", "")
	s.commit("-ba", "bb", "")
	for range 2 {
		s.wantScan("", "", "a", "b", "b\x00", "b\x00\xff", "bb", "b\xff", "b\xff\xff", "c")
		s.wantScan("b", "", "b", "b\x00", "b\x00\xff", "bb", "b\xff", "b\xff\xff")
		s.wantScan("b", "a", "b", "b\x00", "b\x00\xff", "bb", "b\xff", "b\xff\xff")
		s.wantScan("b", "b\x00\x01", "b\x00\xff", "bb", "b\xff", "b\xff\xff")
		s.wantScan("b", "b\xff\xff\xff")
		s.wantScan("b", "c")
		s.wantScan("d", "")
		s.wantScan("\xff", "")
		for prefix, want := range map[string]string{"": "c", "a": "a", "b": "b\xff\xff", "b\x00": "b\x00\xff", "bb": "bb"} {
			if row, err := s.kv.Last(s.ctx, []byte(prefix)); err != nil || string(row.Key) != want {
				s.Errorf("Last(%q) = %q, %v, want %q", prefix, row.Key, err, want)
			}
		}
		for _, prefix := range []string{"ba", "d", "\xff"} {
			if row, err := s.kv.Last(s.ctx, []byte(prefix)); !errors.Is(err, kv.ErrNotFound) {
				s.Errorf("Last(%q) = %q, %v, want ErrNotFound", prefix, row.Key, err)
			}
		}
		s.reopen()
	}
	for range s.kv.Scan(s.ctx, nil, nil) {
		break // must not leave anything that keeps Close waiting
	}
}

// snapshot checks that a scan sees one moment while its body commits.
func (s *kvSuite) snapshot() {
	s.commit("k1", "old", "k2", "old", "k3", "old")
	n := 0
	for row, err := range s.kv.Scan(s.ctx, []byte("k"), nil) {
		if err != nil {
			s.Fatal(err)
		}
		if string(row.Value) != "old" {
			s.Errorf("the scan sees %s = %s", row.Key, row.Value)
		}
		n++
		s.commit("k1", "new", "k2", "new", "-k3", fmt.Sprintf("k4%d", n), "new")
		s.want("k3", "", false)
		s.want("k2", "new", true)
	}
	if n != 3 {
		s.Errorf("the scan yielded %d rows, want 3", n)
	}
	s.wantScan("k", "", "k1", "k2", "k41", "k42", "k43")
}

func (s *kvSuite) context() {
	s.commit("a", "1", "b", "2")
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	n := 0
	for _, err := range s.kv.Scan(ctx, nil, nil) {
		if n++; n == 1 {
			cancel()
		} else if !errors.Is(err, context.Canceled) {
			s.Errorf("canceled scan: %v", err)
		}
	}
	if n != 2 {
		s.Errorf("a scan that was canceled took %d steps", n)
	}
	var b kv.Batch
	b.Set([]byte("a"), []byte("2"))
	if err := s.kv.Commit(ctx, &b); !errors.Is(err, context.Canceled) {
		s.Errorf("canceled commit: %v", err)
	}
	if _, err := s.kv.Get(ctx, []byte("a"), nil); !errors.Is(err, context.Canceled) {
		s.Errorf("canceled get: %v", err)
	}
	if _, err := s.kv.Last(ctx, []byte("a")); !errors.Is(err, context.Canceled) {
		s.Errorf("canceled last: %v", err)
	}
	s.want("a", "1", true)
	s.commit("a", "3")
}

func (s *kvSuite) closed() {
	s.commit("a", "1")
	if err := s.kv.Close(); err != nil {
		s.Fatal(err)
	}
	var b kv.Batch
	b.Set([]byte("a"), []byte("2"))
	_, get := s.kv.Get(s.ctx, []byte("a"), nil)
	_, has := s.kv.Has(s.ctx, []byte("a"))
	_, last := s.kv.Last(s.ctx, []byte("a"))
	for name, err := range map[string]error{"Get": get, "Has": has, "Last": last, "Commit": s.kv.Commit(s.ctx, &b)} {
		if !errors.Is(err, kv.ErrClosed) {
			s.Errorf("%s after Close = %v, want ErrClosed", name, err)
		}
	}
	for _, err := range s.kv.Scan(s.ctx, nil, nil) {
		if !errors.Is(err, kv.ErrClosed) {
			s.Errorf("Scan after Close = %v, want ErrClosed", err)
		}
	}
	if err := s.kv.Close(); err != nil {
		s.Errorf("second Close = %v", err)
	}
	s.open()
	s.want("a", "1", true)
}
