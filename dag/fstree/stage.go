package fstree

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

// A stage is the temporary name under which something is written, in the
// directory where it is wanted.
type stage struct {
	out  string // where it is wanted, as the caller said it
	o    RestoreOptions
	tree bool
	base *os.Root // the directory above out
	sync *os.File // the same; opened before anything is written, see commit
	want string   // name in base
	name string   // temporary name in base
	used bool     // a file has it from the beginning, as where none can be without a name
	done bool
}

func newStage(out string, o RestoreOptions, tree bool) (*stage, error) {
	abs, err := filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	s := &stage{out: out, o: o, tree: tree, want: filepath.Base(abs)}
	if s.base, err = os.OpenRoot(filepath.Dir(abs)); err != nil {
		return nil, s.explain(err)
	}
	err = s.checkWant()
	if err == nil {
		if s.sync, err = s.base.Open("."); err != nil {
			err = s.explain(err)
		}
	}
	if err != nil {
		s.base.Close()
		return nil, err
	}
	// 40 bytes are enough for the rest of the name.
	s.name = "." + s.want[:min(len(s.want), dag.MaxName-40)] + ".scale-" + strings.ToLower(rand.Text()[:12])
	return s, nil
}

// checkWant says whether what is at out may be replaced. Early, so that a
// long restore does not end with it. That nothing is replaced unasked for is
// up to the rename.
func (s *stage) checkWant() error {
	st, err := s.base.Lstat(s.want)
	switch {
	case s.want == "/":
		return fmt.Errorf("%q: %w", s.out, ErrExists)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return s.explain(err)
	case !s.o.Overwrite:
		return fmt.Errorf("%q: %w", s.out, ErrExists)
	case st.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeIrregular) != 0:
		return fmt.Errorf("%q is not replaced: %w", s.out, ErrSpecial)
	case st.IsDir() && !s.tree:
		return fmt.Errorf("%q is a directory, which a file does not replace: %w", s.out, unix.EISDIR)
	case !st.IsDir():
		return nil
	}
	// Replacing a directory removes all that was in it. The one that the
	// user stands in, or stands below, is hardly ever meant.
	if standsIn(st) {
		return fmt.Errorf("%q is not replaced: the current directory is in it", s.out)
	}
	return nil
}

// standsIn reports whether the current directory is d or below it.
func standsIn(d fs.FileInfo) bool {
	for path := "."; ; path += "/.." {
		here, err := os.Stat(path)
		if err != nil || os.SameFile(here, d) {
			return err == nil
		}
		above, err := os.Stat(path + "/..")
		if err != nil || os.SameFile(here, above) {
			return false
		}
	}
}

// mkdir makes the stage a directory.
func (s *stage) mkdir() (*os.Root, error) {
	if err := s.base.Mkdir(s.name, 0o700); err != nil {
		return nil, s.explain(err)
	}
	return s.base.OpenRoot(s.name)
}

// commit makes what was written durable and then visible, in this order: a
// crash leaves either what was there before or all of the new. (A file was
// synced by who wrote it.)
func (s *stage) commit() error {
	fd := int(s.sync.Fd())
	// One sync of the file system costs less than one for each of many
	// files. The descriptor is older than everything written, so that the
	// call reports if writing any of it back failed.
	if s.tree {
		if err := unix.Syncfs(fd); err != nil {
			return fmt.Errorf("sync %q: %w", s.out, err)
		}
	}
	replaced, err := s.rename(fd)
	if err != nil {
		return fmt.Errorf("put %q in place: %w", s.out, err)
	}
	s.done = !replaced // if so, the old one now has the temporary name
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("%q is in place, but may not outlast a crash: %w", s.out, err)
	}
	return nil
}

// rename moves the stage to its place. If that left what was there before, it
// now has the temporary name.
func (s *stage) rename(fd int) (replaced bool, err error) {
	if s.o.Overwrite && !s.tree {
		return false, unix.Renameat(fd, s.name, fd, s.want)
	}
	err = unix.Renameat2(fd, s.name, fd, s.want, unix.RENAME_NOREPLACE)
	if err == unix.EEXIST && s.o.Overwrite {
		err = unix.Renameat2(fd, s.name, fd, s.want, unix.RENAME_EXCHANGE)
		replaced = err == nil
	}
	switch err {
	case unix.EINVAL, unix.ENOSYS: // not every file system can do that
		return s.renamePlain(fd)
	case unix.EEXIST:
		err = ErrExists
	}
	return replaced, err
}

// renamePlain does without the flags of renameat2. Two things are weaker then:
// something that appears at out at this very moment may be replaced, and a
// crash between the two renames leaves the old tree under a temporary name.
func (s *stage) renamePlain(fd int) (replaced bool, err error) {
	old := s.name + "-old"
	if _, err := s.base.Lstat(s.want); err == nil {
		if !s.o.Overwrite {
			return false, ErrExists
		}
		if err := unix.Renameat(fd, s.want, fd, old); err != nil {
			return false, err
		}
		replaced = true
	}
	if err := unix.Renameat(fd, s.name, fd, s.want); err != nil {
		if replaced {
			err = errors.Join(err, unix.Renameat(fd, old, fd, s.want))
		}
		return false, err
	}
	if replaced {
		s.name = old
	}
	return replaced, nil
}

// close removes what has the temporary name: the stage, if it was not
// committed, or what it replaced. Only the first call does something.
func (s *stage) close() error {
	if s.sync == nil {
		return nil
	}
	var err error
	if !s.done {
		if err = removeAll(s.base, s.name); err != nil {
			err = fmt.Errorf("%q cannot be removed, and has to be by hand: %w",
				filepath.Join(filepath.Dir(filepath.Clean(s.out)), s.name), err)
		}
	}
	s.sync.Close()
	s.base.Close()
	s.sync = nil
	return err
}

// explain says of an error of the directory above out what to do.
func (s *stage) explain(err error) error {
	above := filepath.Dir(filepath.Clean(s.out))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("write %q: the directory %q does not exist; make it first: %w", s.out, above, innermost(err))
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("write %q: the directory %q cannot be written to; name another place: %w", s.out, above, innermost(err))
	}
	return fmt.Errorf("write %q: %w", s.out, innermost(err))
}

// removeAll removes a tree even if its directories forbid it.
func removeAll(base *os.Root, name string) error {
	err := base.RemoveAll(name)
	if errors.Is(err, fs.ErrPermission) {
		unlock(base, name)
		err = base.RemoveAll(name)
	}
	return err
}

// unlock lets the owner of the directories in a tree write in them. It does
// what it can; whether it was enough shows later.
func unlock(above *os.Root, name string) {
	above.Chmod(name, 0o700)
	d, err := above.OpenRoot(name)
	if err != nil {
		return
	}
	defer d.Close()
	f, err := d.Open(".")
	if err != nil {
		return
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			if e.IsDir() {
				unlock(d, e.Name())
			}
		}
		if err != nil {
			return
		}
	}
}

// setMode sets the mode of f, unless it is right already.
func setMode(f *os.File, mode fs.FileMode) error {
	st, err := f.Stat()
	if err != nil || st.Mode() == mode {
		return err
	}
	return f.Chmod(mode)
}

// setTime sets the modification time of name in dir, if there is one to set.
// Root.Chtimes does not do: it follows links, and ends in the year 2262.
func setTime(dir *os.File, name string, a dag.Attr) error {
	if a.Mtime.IsZero() {
		return nil
	}
	return unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{
		{Nsec: unix.UTIME_OMIT},
		{Sec: a.Mtime.Unix(), Nsec: int64(a.Mtime.Nanosecond())},
	}, unix.AT_SYMLINK_NOFOLLOW)
}
