package fstree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

// WriteFile writes one file to out, beside it first: write gets a writer, and
// if it returns nil the file is synced and renamed into place. Until then out
// is what it was, and after a failure nothing is left: nor when the process is
// killed, where the file system can make files without a name, as those of Linux
// can. A device such as /dev/null, or a pipe, is written to as it is.
func WriteFile(out string, a dag.Attr, o RestoreOptions, write func(w io.Writer) error) error {
	if st, err := os.Stat(out); err == nil && st.Mode()&(fs.ModeCharDevice|fs.ModeNamedPipe) != 0 {
		f, err := os.OpenFile(out, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	s, err := newStage(out, o, false)
	if err != nil {
		return err
	}
	return errors.Join(s.file(a, write), s.close())
}

func (s *stage) file(a dag.Attr, write func(w io.Writer) error) error {
	f, err := s.nameless()
	unnamed := f != nil
	if err == nil && !unnamed {
		f, err = s.base.OpenFile(s.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return s.explain(err)
	}
	err = write(f)
	if err == nil {
		err = setMode(f, s.o.mode(a))
	}
	if err == nil && unnamed {
		// It has a temporary name only from here to the rename, so this comes first.
		if err = f.Sync(); err == nil {
			err = unix.Linkat(unix.AT_FDCWD, procPath(f), int(s.sync.Fd()), s.name, unix.AT_SYMLINK_FOLLOW)
		}
	}
	if err == nil {
		err = setTime(s.sync, s.name, a)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %q: %w", s.out, err)
	}
	return s.commit()
}

// nameless makes a file that has no name yet. It returns nil where that cannot be.
func (s *stage) nameless() (*os.File, error) {
	if s.used {
		return nil, nil
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(s.sync.Fd()), ".", unix.O_WRONLY|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	})
	switch err {
	case nil:
	case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL, unix.ENOSYS: // of the file system, or the kernel
		return nil, nil
	default:
		return nil, err
	}
	f := os.NewFile(uintptr(fd), s.out)
	var st unix.Stat_t
	if err := unix.Stat(procPath(f), &st); err != nil { // there is no /proc to name it by
		return nil, f.Close()
	}
	return f, nil
}

func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
