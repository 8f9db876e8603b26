package fstree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

// open opens the file of e for reading and brings e up to date with it: what
// counts from here on is the file as it was opened, not as it was listed. It
// neither follows links nor waits for the other end of a pipe.
func (t *Tree) open(e *Entry) (fd int, err error) {
	if e.Kind != dag.KindFile {
		return -1, fmt.Errorf("%q: not a file but a %v", t.disk(e.Path), e.Kind)
	}
	if t.fd < 0 {
		fd, err = retry(func() (int, error) { return unix.Open(t.root, fileFlags&^unix.O_NOFOLLOW, 0) })
	} else {
		fd, err = openBelow(t.fd, e.Path)
	}
	if err != nil {
		return -1, explain(t.disk(e.Path), err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err != nil {
		err = explain(t.disk(e.Path), err)
	} else if typeOf(&st) != unix.DT_REG {
		err = explain(t.disk(e.Path), unix.ENOENT) // the file that was listed is gone
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	e.set(&st, t.o.Times)
	return fd, nil
}

const fileFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// openBelow opens the file at path below the directory root without following
// any link on the way. The kernel does it in one call; it has to be done step
// by step if the kernel is older than 5.6, if a sandbox hides the call, or if
// the path is longer than the kernel takes.
func openBelow(root int, path string) (int, error) {
	how := unix.OpenHow{Flags: fileFlags, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := retry(func() (int, error) { return unix.Openat2(root, path, &how) })
	if err != unix.ENOSYS && err != unix.EPERM && err != unix.ENAMETOOLONG {
		return fd, err
	}
	return openSteps(root, path)
}

func openSteps(root int, path string) (int, error) {
	dir := root
	for {
		name, rest, more := strings.Cut(path, "/")
		flags := fileFlags
		if more {
			flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := retry(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
		if dir != root {
			unix.Close(dir)
		}
		if err != nil || !more {
			return fd, err
		}
		dir, path = fd, rest
	}
}

// check says whether the file is still what it was when e was brought up to
// date, n of its bytes having been read.
func (t *Tree) check(fd int, e *Entry, n int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return explain(t.disk(e.Path), err)
	}
	switch now := stampOf(&st); {
	case now.Size != e.Size:
		return fmt.Errorf("%q: %w: its size was %d bytes and is now %d", t.disk(e.Path), ErrChanged, e.Size, now.Size)
	case n != e.Size: // changed and changed back, or a file of /proc
		return fmt.Errorf("%q: %w: its size is %d bytes, but %d were read", t.disk(e.Path), ErrChanged, e.Size, n)
	case now != e.Stamp:
		return fmt.Errorf("%q: %w: someone wrote to it", t.disk(e.Path), ErrChanged)
	}
	return nil
}

// Read reads the whole of a small file into buf and returns its size. buf
// must be longer than the file by at least one byte, so that its end can be
// seen; otherwise the error is io.ErrShortBuffer, and Open is the way.
//
// Read brings e up to date with the file as it is now: attributes, size and
// stamp. If the file changes while it is read the error is ErrChanged.
func (t *Tree) Read(e *Entry, buf []byte) (int, error) {
	fd, err := t.open(e)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if e.Size >= int64(len(buf)) {
		return 0, fmt.Errorf("%q of %d bytes: %w", t.disk(e.Path), e.Size, io.ErrShortBuffer)
	}
	n := 0
	for int64(n) <= e.Size {
		m, err := retry(func() (int, error) { return unix.Read(fd, buf[n:e.Size+1]) })
		if err != nil {
			return 0, explain(t.disk(e.Path), err)
		}
		n += m
		// A file that holds still ends where a read comes short.
		if m == 0 || int64(n) == e.Size {
			break
		}
	}
	return n, t.check(fd, e, int64(n))
}

// Open opens a file for reading from its start to its end. It brings e up to
// date as Read does; e must not be used otherwise until the file is closed.
func (t *Tree) Open(e *Entry) (*File, error) {
	fd, err := t.open(e)
	if err != nil {
		return nil, err
	}
	return &File{t: t, e: e, f: os.NewFile(uintptr(fd), t.disk(e.Path)), sparse: hasHoles(fd)}, nil
}

// hasHoles says whether a file has fewer blocks than bytes, on one of the file systems that are
// known to tell a hole from bytes that are not on disk yet (OpenZFS was not, see its issue 15526).
func hasHoles(fd int) bool {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Blocks*512 >= st.Size {
		return false
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false
	}
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// A File is an open file of a Tree. It is an io.Reader that gives io.EOF only
// if the file is the same then as when it was opened, and else ErrChanged; it
// does not give more bytes than the file had. Holes are not read: one that is filled
// meanwhile changes the file. One goroutine may use it.
type File struct {
	t   *Tree
	e   *Entry
	f   *os.File
	n   int64 // bytes read
	err error // sticky

	sparse bool  // holes are looked for
	data   int64 // where the hole at n ends, if that is behind n
	ask    int64 // from where on to look for a hole again
}

// askEvery is how many bytes are read, with the small holes between them, before a hole is
// looked for again: no file takes many calls more than it did.
const askEvery = 1 << 20

// hole returns how many bytes from f.n on are in a hole, none if that is not positive. The file
// itself is read behind it next.
func (f *File) hole() int64 {
	if f.sparse && f.n >= f.ask {
		at, err := f.f.Seek(f.n, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // none up to the end
			at, err = f.f.Seek(f.e.Size, io.SeekStart)
		}
		if err != nil {
			f.sparse = false
			return 0
		}
		f.data, f.ask = min(at, f.e.Size), at+askEvery
	}
	return f.data - f.n
}

func (f *File) Read(p []byte) (int, error) {
	if f.err != nil || len(p) == 0 {
		return 0, f.err
	}
	if hole := f.hole(); hole > 0 {
		p = p[:min(int64(len(p)), hole)]
		clear(p)
		f.n += int64(len(p))
		return len(p), nil
	}
	n, err := f.f.Read(p)
	if left := f.e.Size - f.n; int64(n) > left {
		f.err = f.t.check(int(f.f.Fd()), f.e, f.n+int64(n))
		n = int(left)
	}
	f.n += int64(n)
	switch {
	case f.err != nil:
	case err == io.EOF:
		if f.err = f.t.check(int(f.f.Fd()), f.e, f.n); f.err == nil {
			f.err = io.EOF
		}
	case err != nil:
		f.err = err
	}
	return n, f.err
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
