package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/compress"
)

func mustAppend(t *testing.T, p *Files, f Frame) Loc {
	t.Helper()
	loc, err := p.Append(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// wantFrame checks that f is at loc.
func wantFrame(t *testing.T, p *Files, loc Loc, f Frame) {
	t.Helper()
	got, _, err := p.ReadFrame(t.Context(), loc, nil)
	if err != nil || !slices.Equal(got.Chunks, f.Chunks) || !bytes.Equal(got.Sealed, f.Sealed) {
		t.Errorf("frame at %+v: %v", loc, err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir  string
		o    Options
		tail Tail
		want error
	}{
		{dir: filepath.Join(dir, "none"), want: fs.ErrNotExist},
		{dir: file, want: unix.ENOTDIR},
		{dir: dir, o: Options{Target: -1}, want: fs.ErrInvalid},
		{dir: dir, tail: Tail{Pack: 1}, want: fs.ErrInvalid},
		{dir: dir, tail: Tail{End: 100}, want: fs.ErrInvalid},
	} {
		if _, err := Open(c.dir, c.o, c.tail); !errors.Is(err, c.want) {
			t.Errorf("Open(%q, %+v, %+v) = %v, want %v", c.dir, c.o, c.tail, err, c.want)
		}
	}
}

// TestReadOnly has packs open without a change to their files, torn tail and
// all.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	rng := rand.NewChaCha8([32]byte{1})
	f := randomFrame(rng, 2, 100, 150)
	p := openFiles(t, dir, Options{Target: 500}, Tail{})
	loc := mustAppend(t, p, f)
	tail := p.Tail()
	for range 4 {
		mustAppend(t, p, f)
	}
	size, err := p.Size()
	if err != nil {
		t.Fatal(err)
	}
	ro := openFiles(t, dir, Options{ReadOnly: true}, tail)
	if _, err := ro.Append(t.Context(), f); err == nil {
		t.Error("appended")
	}
	wantFrame(t, ro, loc, f)
	if err := ro.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(slices.Collect(keys(ro, t, 1))); n != 1 {
		t.Errorf("a scan finds %d frames before the tail, want 1", n)
	}
	if after, err := ro.Size(); err != nil || after != size {
		t.Errorf("the packs took %d bytes and take %d, %v", size, after, err)
	}
}

// keys yields where the frames of a pack are.
func keys(p *Files, t *testing.T, n uint32) func(yield func(Loc) bool) {
	return func(yield func(Loc) bool) {
		for s, err := range p.Scan(t.Context(), n) {
			if err != nil {
				t.Error(err)
			}
			if !yield(s.Loc) {
				return
			}
		}
	}
}

// TestNoSpace has the disk full in the middle of a frame: the frame is not
// there, the ones around it are.
func TestNoSpace(t *testing.T) {
	p := openFiles(t, t.TempDir(), Options{}, Tail{})
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 2, 100, 150)
	first := mustAppend(t, p, f)
	tail := p.Tail()
	real := p.w
	var err error
	if p.w, err = os.OpenFile("/dev/full", os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	defer p.w.Close()
	if _, err := p.Append(t.Context(), f); !errors.Is(err, ErrNoSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Append = %v, want ErrNoSpace", err)
	}
	if got := p.Tail(); got != tail {
		t.Errorf("the tail went from %+v to %+v", tail, got)
	}
	p.w = real
	second := mustAppend(t, p, f)
	if err := p.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	wantFrame(t, p, first, f)
	wantFrame(t, p, second, f)
}

// TestSyncFails has a sync fail, after which nothing is appended or synced.
func TestSyncFails(t *testing.T) {
	p := openFiles(t, t.TempDir(), Options{}, Tail{})
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 2, 100, 150)
	loc := mustAppend(t, p, f)
	real := p.w
	r, w, err := os.Pipe() // which cannot be synced
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p.w = w
	if err := p.Sync(t.Context()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Sync = %v", err)
	}
	p.w = real
	if err := p.Sync(t.Context()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the next Sync = %v", err)
	}
	if _, err := p.Append(t.Context(), f); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the next Append = %v", err)
	}
	wantFrame(t, p, loc, f)
}

// TestAppendFails has a write fail for another reason than room.
func TestAppendFails(t *testing.T) {
	p := openFiles(t, t.TempDir(), Options{}, Tail{})
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 2, 100, 150)
	loc := mustAppend(t, p, f)
	real := p.w
	ro, err := os.Open(real.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	p.w = ro
	if _, err := p.Append(t.Context(), f); !errors.Is(err, unix.EBADF) {
		t.Errorf("Append = %v", err)
	}
	p.w = real
	if _, err := p.Append(t.Context(), f); !errors.Is(err, unix.EBADF) {
		t.Errorf("the next Append = %v", err)
	}
	if err := p.Sync(t.Context()); !errors.Is(err, unix.EBADF) {
		t.Errorf("the next Sync = %v", err)
	}
	wantFrame(t, p, loc, f)
}

// TestMany appends enough for hints to the kernel and for more packs than are
// kept open.
func TestMany(t *testing.T) {
	p := openFiles(t, t.TempDir(), Options{}, Tail{})
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 1, compress.MaxPlain, directMin/2)
	var locs []Loc
	for range 3 * writebackStep / (directMin / 2) {
		locs = append(locs, mustAppend(t, p, f))
	}
	if p.wb.begun == 0 || p.wb.done == 0 || p.wb.done == p.wb.begun {
		t.Errorf("hints were given up to %+v", p.wb)
	}
	p.opt.Target = 1
	f = randomFrame(rand.NewChaCha8([32]byte{1}), 1, 10, 10)
	for range 2 * maxHandles {
		locs = append(locs, mustAppend(t, p, f))
	}
	if err := p.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(p.full) > 0 {
		t.Errorf("%d full packs are still open for writing", len(p.full))
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(locs)) {
		if _, _, err := p.ReadFrame(t.Context(), locs[i], nil); err != nil {
			t.Error(err)
		}
	}
	if len(p.r.open) > maxHandles {
		t.Errorf("%d packs are kept open for reading, want %d", len(p.r.open), maxHandles)
	}
}

// TestList has other files among the packs.
func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1.pack", "00000000.pack", "00000002.pack", "00000003.pac", "000000004.pack", "99999999999.pack", "4294967295.pack", "+0000005.pack", "00000006.pack.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := List(dir); err != nil || !slices.Equal(got, []uint32{2, 4294967295}) {
		t.Errorf("List = %v, %v", got, err)
	}
}

// TestScanDamage has a scan find its way behind long damage.
func TestScanDamage(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{1})
	const window = 1 << 20
	magic := []byte{0xf5, 0xca, 0x1e, 0x5a}
	for _, gap := range []int{1, 27, 1000, window - 3, window - 2, window - 1, window, window + 1, 2*window + 17} {
		t.Run(fmt.Sprint(gap), func(t *testing.T) {
			junk := make([]byte, gap)
			rng.Read(junk)
			for at := 0; at+len(magic) <= len(junk); at += 1 + len(junk)/20 { // looks like frames
				copy(junk[at:], magic)
			}
			b := append(appendFileHeader(nil, 7), junk...)
			f := randomFrame(rng, 3, 100, 200)
			off := len(b)
			b = appendHeader(b, &f, 7, uint64(off))
			b = append(b, f.Sealed...)
			var good, bad []Loc
			for s, err := range ScanFile(t.Context(), bytes.NewReader(b), int64(len(b)), 7) {
				if err == nil {
					good = append(good, s.Loc)
				} else if bad = append(bad, s.Loc); !errors.Is(err, ErrCorrupt) {
					t.Fatal(err)
				}
			}
			wantGood := []Loc{{Pack: 7, Off: uint64(off), Len: uint32(len(b) - off)}}
			wantBad := []Loc{{Pack: 7, Off: fileHeader, Len: uint32(gap)}}
			if !slices.Equal(good, wantGood) || !slices.Equal(bad, wantBad) {
				t.Errorf("found %+v and %+v, want %+v and %+v", good, bad, wantGood, wantBad)
			}
		})
	}
}

// TestPlace checks that a frame is one nowhere else.
func TestPlace(t *testing.T) {
	f := randomFrame(rand.NewChaCha8([32]byte{1}), 3, 100, 200)
	b := append(appendHeader(nil, &f, 7, 1000), f.Sealed...)
	if _, err := parseFrame(b, 7, 1000); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		second(parseFrame(b, 8, 1000)),
		second(parseFrame(b, 7, 1001)),
		second(parseFrame(b[:len(b)-1], 7, 1000)),
		second(parseFrame(append(b, 0), 7, 1000)),
	} {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("a frame in another place: %v", err)
		}
	}
}

func second(_ Frame, err error) error { return err }
