package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/koii-network/scale/store/pack"
)

// put puts a frame of n bytes in and releases it.
func (c *frameCache) fill(t *testing.T, off uint64, n int, keep bool) *cachedFrame {
	t.Helper()
	loc := pack.Loc{Pack: 1, Off: off, Len: 100}
	if f, _, err := c.take(t.Context(), loc, n); err != nil || f != nil {
		t.Fatalf("frame %d is there, or %v", off, err)
	}
	defer c.done(loc)
	buf := c.buffer(n)
	f := &cachedFrame{loc: loc, plain: buf[:n], buf: buf}
	c.add(f)
	if keep {
		c.release(f, true)
	}
	return f
}

// has takes and releases a frame, and reports whether it is there.
func (c *frameCache) has(t *testing.T, off uint64, n int) bool {
	t.Helper()
	loc := pack.Loc{Pack: 1, Off: off, Len: 100}
	f, _, err := c.take(t.Context(), loc, n)
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		c.done(loc)
		return false
	}
	c.release(f, false)
	return true
}

func TestFrameCache(t *testing.T) {
	const n = 64 << 10
	each := int64(bufferClass(n))
	c := newFrameCache(3 * each)
	for off := range uint64(4) {
		c.fill(t, off, n, true)
	}
	if c.has(t, 0, n) || !c.has(t, 1, n) || !c.has(t, 3, n) || c.size != 3*each {
		t.Error("not the least recently used frame went")
	}
	if !c.has(t, 2, n/2) || c.has(t, 2, n+1) {
		t.Error("a prefix is taken for more, or less, than it is")
	}
	// What is in use stays, whatever else comes.
	used := c.fill(t, 10, n, false)
	copy(used.plain, "in use")
	for off := range uint64(5) {
		c.fill(t, 20+off, n, true)
	}
	if string(used.plain[:6]) != "in use" || !c.has(t, 10, n) {
		t.Error("a frame in use was given away")
	}
	// A longer prefix takes its place, and whoever has the shorter one keeps it.
	longer := c.fill(t, 10, 2*n, false)
	c.release(longer, true)
	c.fill(t, 30, n, true)
	if string(used.plain[:6]) != "in use" {
		t.Error("the shorter prefix was given away")
	}
	c.release(used, true)
	// One that is not to be kept makes room at once.
	last := c.fill(t, 40, n, false)
	c.release(last, false)
	if c.has(t, 40, n) {
		t.Error("a frame that nobody wants again was kept")
	}
	if again := c.buffer(n); &again[0] != &last.buf[0] {
		t.Error("its memory is not used again")
	} else {
		c.give(again)
	}
	c.checkIdle(t)
}

// checkIdle checks that nobody uses anything, and that the sizes add up.
func (c *frameCache) checkIdle(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := int64(0)
	for _, b := range c.free {
		sum += int64(len(b))
	}
	for e := c.idle.Front(); e != nil; e = e.Next() {
		f := e.Value.(*cachedFrame)
		if sum += int64(len(f.buf)); f.users != 0 || c.byLoc[f.loc] != f {
			t.Errorf("frame %v is idle and has %d users", f.loc, f.users)
		}
	}
	if sum != c.size || c.size > c.max || len(c.byLoc) != c.idle.Len() || len(c.busy) != 0 {
		t.Errorf("%d bytes counted, %d there, %d allowed; %d frames, %d idle, %d busy", c.size, sum, c.max, len(c.byLoc), c.idle.Len(), len(c.busy))
	}
}

func TestBufferClass(t *testing.T) {
	seen := map[int]bool{}
	for n := 0; n < 10<<20; n += 1 + n/100 {
		c := bufferClass(n)
		seen[c] = true
		if c < n || n > 5<<10 && c > 2*n+n/8 {
			t.Fatalf("%d bytes get %d", n, c)
		}
	}
	if len(seen) > 13 {
		t.Errorf("%d classes", len(seen))
	}
}

// However a read ends, nothing of what it had planned stays in use.
func TestReadGivesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(t.Context(), dir, InitOptions{FrameSize: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := new(bytes.Buffer)
	for i := 0; data.Len() < 16<<20; i++ {
		fmt.Fprintf(data, "line %d of many, %x\n", i, i*i*i*7919)
	}
	if _, err := s.Put(t.Context(), []Input{{Name: "x", Reader: bytes.NewReader(data.Bytes())}}, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	o, err := s.Resolve(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	for _, most := range []int{0, 1, 100 << 10, 5 << 20, 15 << 20} {
		for _, how := range []string{"error", "cancel"} {
			ctx, cancel := context.WithCancel(t.Context())
			w := &stopWriter{left: most, stop: func() error {
				if how == "error" {
					return enough
				}
				cancel()
				return nil
			}}
			if _, err := s.Get(ctx, o, nil, w); err == nil || how == "error" && !errors.Is(err, enough) {
				t.Errorf("%s after %d bytes: %v", how, most, err)
			}
			cancel()
			s.frames.checkIdle(t)
		}
	}
	var got bytes.Buffer
	if _, err := s.Get(t.Context(), o, nil, &got); err != nil || !bytes.Equal(got.Bytes(), data.Bytes()) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	s.frames.checkIdle(t)
}

// A stopWriter calls stop instead of writing once it has had enough.
type stopWriter struct {
	left int
	stop func() error
}

func (w *stopWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return len(p), w.stop()
	}
	return len(p), nil
}
