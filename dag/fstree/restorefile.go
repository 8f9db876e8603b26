package fstree

import (
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

// A FileWriter is a file that is being restored. One goroutine may use it.
//
// It calls the system by itself: package os tries to wait for events of each file, in
// vain, which is a fifth of the calls that a small file takes.
type FileWriter struct {
	r    *Restore
	dir  *dir // nil: closed
	name string
	path string
	attr dag.Attr
	fd   int   // -1: not made yet
	err  error // sticky
}

func (w *FileWriter) Write(p []byte) (int, error) {
	w.create()
	if w.err != nil {
		return 0, w.err
	}
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Write(w.fd, p[done:]) })
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			w.err = w.r.fail(w.path, err)
			break
		}
		done += n
	}
	return done, w.err
}

// create makes the file. Its name is one component, and what is there already, be it a
// link, is refused.
func (w *FileWriter) create() {
	if w.fd >= 0 || w.err != nil {
		return
	}
	mode := w.r.o.bits(w.attr)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(w.dir.self.Fd()), w.name, flags, mode&0o777)
	})
	if err != nil {
		w.err = w.r.fail(w.path, err)
		return
	}
	w.fd = fd
	// Usually the mode is right already; a umask or a default ACL may have
	// changed it, and the special bits are not set this way.
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&0o7777 != mode {
		err = unix.Fchmod(fd, mode)
	}
	if err != nil {
		w.err = w.r.fail(w.path, err)
	}
}

// Close completes the file. It must be called; calls after the first do
// nothing.
func (w *FileWriter) Close() error {
	if w.dir == nil {
		return fs.ErrClosed
	}
	w.create()
	if w.err == nil {
		if err := setTime(w.dir.self, w.name, w.attr); err != nil {
			w.err = w.r.fail(w.path, err)
		}
	}
	if w.fd >= 0 {
		// Not repeated if it is interrupted: the descriptor is gone all the same.
		if err := unix.Close(w.fd); err != nil && err != unix.EINTR && w.err == nil {
			w.err = w.r.fail(w.path, err)
		}
	}
	w.r.leave(w.dir)
	w.r.mu.Lock()
	w.r.files--
	w.r.mu.Unlock()
	err := w.err
	w.dir, w.err = nil, fs.ErrClosed
	return err
}
