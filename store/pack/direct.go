package pack

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// directMin is the size from which frames bypass the page cache. To copy a
// gigabyte into it costs 0.3 to 1.3 s of CPU on the machines measured, to write
// it directly 0.2 s. What is smaller waits less for the cache than for the disk.
const directMin = 256 << 10

// directAlign is what offsets, lengths and addresses of direct writes are
// multiples of: the page size, which is enough for every file system that takes
// such writes.
const directAlign = 4 << 10

// A direct writes the whole pages of frames past the page cache. The pages at
// both ends, which frames share, go through it, so that no page is ever written
// both ways.
type direct struct {
	f   *os.File // the active pack once more; nil until the first large frame
	mem []byte   // mapped, because Go aligns nothing to pages; nil before the first
	buf []byte   // mem: room for the largest frame, and a page to align it in
	off bool     // the file system does not take direct writes
}

// begin makes d ready for the pack that w is open on, and says whether it is.
func (d *direct) begin(w *os.File) bool {
	if d.off {
		return false
	}
	if d.f != nil {
		return true
	}
	f, err := os.OpenFile(w.Name(), os.O_WRONLY|unix.O_DIRECT|unix.O_NOFOLLOW, 0)
	if err == nil {
		err = sameFile(f, w)
	}
	if err == nil && d.mem == nil {
		d.mem, err = unix.Mmap(-1, 0, MaxFrame+directAlign, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		d.buf = d.mem
	}
	if err != nil {
		// Whatever it is, the page cache does as well.
		if f != nil {
			f.Close()
		}
		d.off = true
		return false
	}
	d.f = f
	return true
}

// sameFile is an error if a is open on another file than b: the name leads elsewhere by now.
func sameFile(a, b *os.File) error {
	was, err := b.Stat()
	if err != nil {
		return err
	}
	if is, err := a.Stat(); err != nil || !os.SameFile(is, was) {
		return errors.Join(err, errors.New("another file has its name"))
	}
	return nil
}

// end lets go of the pack.
func (d *direct) end() {
	if d.f != nil {
		d.f.Close() // written through without a buffer, and synced by the other descriptor
		d.f = nil
	}
}

// close frees the buffer too. d must not be used again.
func (d *direct) close() error {
	d.end()
	d.off = true
	if d.mem == nil {
		return nil
	}
	mem := d.mem
	d.mem, d.buf = nil, nil
	return unix.Munmap(mem)
}

// writeAt writes header and body at off of w, which begin was called for.
func (d *direct) writeAt(w *os.File, off int64, header, body []byte) error {
	first := (off + directAlign - 1) &^ (directAlign - 1)
	end := off + int64(len(header)+len(body))
	last := end &^ (directAlign - 1)
	if first >= last {
		return writeAt(w, off, header, body)
	}
	// Laid out so that the first whole page begins at the buffer's second.
	at := directAlign - int(first-off)
	frame := d.buf[at : at+int(end-off)]
	copy(frame[copy(frame, header):], body)
	if err := writeAt(w, off, frame[:first-off]); err != nil {
		return err
	}
	for pages, to := d.buf[directAlign:directAlign+int(last-first)], first; len(pages) > 0; {
		n, err := unix.Pwrite(int(d.f.Fd()), pages, to)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL):
			// It was opened, but is not taken: for its alignment, or by a layer between.
			d.end()
			d.off = true
			return writeAt(w, to, frame[to-off:])
		case err != nil:
			return &os.PathError{Op: "pwrite", Path: d.f.Name(), Err: err}
		}
		n &^= directAlign - 1
		if n == 0 {
			return &os.PathError{Op: "pwrite", Path: d.f.Name(), Err: io.ErrShortWrite}
		}
		pages, to = pages[n:], to+int64(n)
	}
	return writeAt(w, last, frame[last-off:])
}
