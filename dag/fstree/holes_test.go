package fstree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A part of a sparse file that holds bytes.
type part struct{ at, size int }

// fill makes f a file of size bytes with holes between the parts, and of an old time, so that
// any change shows.
func fill(t *testing.T, f *os.File, size int, parts []part) []byte {
	t.Helper()
	want := make([]byte, size)
	must(t, f.Truncate(int64(size)))
	for _, p := range parts {
		b := want[p.at : p.at+p.size]
		for i := range b {
			b[i] = byte(1 + i%251)
		}
		_, err := f.WriteAt(b, int64(p.at))
		must(t, err)
	}
	old := []unix.Timeval{{Sec: 1}, {Sec: 1}}
	must(t, unix.Futimes(int(f.Fd()), old))
	return want
}

// memory makes a file on a file system that is known to tell holes.
func memory(t *testing.T) (f *os.File, path string) {
	t.Helper()
	fd, err := unix.MemfdCreate("holes", unix.MFD_CLOEXEC)
	must(t, err)
	f = os.NewFile(uintptr(fd), "holes")
	t.Cleanup(func() { f.Close() })
	return f, fmt.Sprintf("/proc/self/fd/%d", fd)
}

func openFile(t *testing.T, path string) *File {
	t.Helper()
	tree := open(t, path, Options{})
	f, err := tree.Open(entry(t, tree, ""))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// readDirty reads all of r into a buffer that holds other bytes each time.
func readDirty(r io.Reader, size int) (got []byte, err error) {
	buf := make([]byte, size)
	for err == nil {
		for i := range buf {
			buf[i] = 0xff
		}
		var n int
		n, err = r.Read(buf)
		got = append(got, buf[:n]...)
	}
	return got, err
}

func TestHoles(t *testing.T) {
	const page, ask = 64 << 10, askEvery
	for name, tc := range map[string]struct {
		size  int
		parts []part
	}{
		"nothing else":    {5 * ask, nil},
		"odd size":        {5*ask + 12345, nil},
		"bytes first":     {3 * ask, []part{{0, page}}},
		"bytes last":      {3*ask + 77, []part{{3*ask - page, page + 77}}},
		"one byte":        {3 * ask, []part{{2*ask + 5, 1}}},
		"here and there":  {9*ask + 1, []part{{page, 10}, {ask, ask}, {4*ask - 1, 2}, {8 * ask, ask + 1}}},
		"bytes as far as": {5 * ask, []part{{0, ask}, {2 * ask, ask}, {4 * ask, ask}}},
		"small holes":     {2 * ask, []part{{page, page}, {3 * page, page}, {5 * page, page}, {ask + page, page}}},
		"no hole":         {2 * ask, []part{{0, 2 * ask}}},
		"a small hole":    {2 * ask, []part{{0, ask}, {ask + page, ask - page}}},
	} {
		t.Run(name, func(t *testing.T) {
			onDisk, err := os.Create(filepath.Join(t.TempDir(), "f"))
			must(t, err)
			defer onDisk.Close()
			inMemory, path := memory(t)
			for f, path := range map[*os.File]string{onDisk: onDisk.Name(), inMemory: path} {
				want := fill(t, f, tc.size, tc.parts)
				for _, size := range []int{1000, 3 * ask} {
					if got, err := readDirty(openFile(t, path), size); err != io.EOF || !bytes.Equal(got, want) {
						t.Errorf("%s, %d at a time: %d other bytes, %v", path, size, len(got), err)
					}
				}
			}
		})
	}
}

// A hole is passed over, to where bytes come, and files without are not searched.
func TestHolesAreNotRead(t *testing.T) {
	file, path := memory(t)
	fill(t, file, 9*askEvery, []part{{2 * askEvery, 100}})
	f := openFile(t, path)
	for _, from := range []int64{0, 3 * askEvery} {
		end := map[int64]int64{0: 2 * askEvery, 3 * askEvery: 9 * askEvery}[from]
		n, err := io.CopyN(io.Discard, f, from+1-f.n)
		if err != nil || f.data != end {
			t.Errorf("%d bytes more, %v: the hole ends at %d, want %d", n, err, f.data, end)
		}
	}
	must(t, file.Truncate(0))
	fill(t, file, 100<<10, []part{{0, 100 << 10}})
	if f := openFile(t, path); f.sparse {
		t.Error("a file without holes is searched for some")
	}
}

// Whatever happens to a file of which a hole was passed over, it shows.
func TestHolesChangedWhileRead(t *testing.T) {
	const size = 8 * askEvery
	write := func(at int64) func(f *os.File) error {
		return func(f *os.File) error {
			_, err := f.WriteAt([]byte("filled"), at)
			return err
		}
	}
	cut := func(sizes ...int64) func(f *os.File) error {
		return func(f *os.File) (err error) {
			for _, n := range sizes {
				err = errors.Join(err, f.Truncate(n))
			}
			return err
		}
	}
	for name, change := range map[string]func(f *os.File) error{
		"filled before":     write(5),
		"filled behind":     write(2 * askEvery),
		"filled at the end": write(size - 6),
		"grows":             write(size),
		"grows far":         cut(100 * size),
		"grows, bytes far":  write(3 * size),
		"shrinks":           cut(size - 1),
		"emptied":           cut(0),
		"shrinks below":     cut(askEvery),
		"cut and restored":  cut(0, size),
	} {
		file, path := memory(t)
		fill(t, file, size, []part{{4 * askEvery, 10}})
		f := openFile(t, path)
		_, err := io.CopyN(io.Discard, f, askEvery+1)
		must(t, err)
		must(t, change(file))
		got, err := readDirty(f, 10_000)
		isErr(t, err, ErrChanged)
		if more := len(got) - (size - askEvery - 1); more > 0 {
			t.Errorf("%s: %d bytes more than the file had", name, more)
		}
	}
}

// What cannot be searched for holes is read.
func TestHolesUnknown(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	_, err = w.WriteString("content")
	must(t, err)
	f := &File{t: &Tree{}, e: &Entry{Size: 100}, f: r, sparse: true}
	defer f.Close()
	got := make([]byte, 7)
	if _, err := io.ReadFull(f, got); err != nil || string(got) != "content" || f.sparse {
		t.Errorf("%q, %v, sparse %t", got, err, f.sparse)
	}
}
