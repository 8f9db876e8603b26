package fstree

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag/extsort"
)

// Scratch makes temporary files in dir, for extsort.Options. They have no name, so
// that nothing is left of them even after a crash. On a file system that cannot do
// that they have one for a moment, ".scale-scratch-RANDOM".
func Scratch(dir string) extsort.Scratch {
	return func() (extsort.File, error) { return scratchFile(dir) }
}

func scratchFile(dir string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDWR|unix.O_TMPFILE|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	})
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), dir+"/(temporary file)"), nil
	case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL, unix.ENOSYS: // of the file system, or the kernel
		return namedScratch(dir)
	}
	return nil, fmt.Errorf("in %q: %w", dir, err)
}

func namedScratch(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".scale-scratch-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
