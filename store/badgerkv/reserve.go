package badgerkv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store/kv"
)

// Badger writes its logs through memory maps of sparse files. When somebody else fills
// the disk between a commit's look at it (see room) and the write, there is no error: the
// process dies of SIGBUS. So blocks are allocated before Badger writes: for the log that
// takes commits, and for the next one, which Badger begins in the middle of a commit. It
// takes a file that is there and empty for a new one, and extends it without giving up
// blocks that lie behind its end.
//
// Tables cannot be helped like that: Badger makes and fills each in one step, in
// goroutines of its own. For them there is room alone.

// logBytes is what is written to a log at most: Badger begins the next one when this has
// the size of a memtable, and a commit besides is one batch with at most 32 bytes more
// for each row.
const logBytes = memTable + kv.MaxBatchBytes + 32*kv.MaxBatchRows + 64<<10

// reserve allocates blocks for the log that takes commits and for the next one, unless
// that was done. Under mu.
func (s *KV) reserve() error {
	if !s.reserved {
		f, err := os.OpenFile(logPath(s.dir, s.log), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := allocate(f, 0); err != nil {
			return err
		}
		s.reserved = true
	}
	if s.next {
		return nil
	}
	path := logPath(s.dir, s.log+1)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if err := errors.Join(allocate(f, unix.FALLOC_FL_KEEP_SIZE), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	s.next = true
	return nil
}

// allocate allocates the blocks of a log. Where a file system cannot, it stays as it is.
func allocate(f *os.File, mode uint32) error {
	for {
		err := unix.Fallocate(int(f.Fd()), mode, 0, logBytes)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		}
		return fmt.Errorf("allocate %s: %w", f.Name(), noSpace(err))
	}
}

// unreserve removes the next log if Badger has not begun it. Under mu, or alone.
func (s *KV) unreserve() error {
	if !s.next {
		return nil
	}
	s.next = false
	path := logPath(s.dir, s.log+1)
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || fi.Size() > 0 {
		return err
	}
	return os.Remove(path)
}

// syncNewLog makes the name of the log durable if the commit began a new one,
// which Badger leaves to chance. (The log that it makes when it opens has its name
// synced by a later step of the open.) A commit begins one at most.
func (s *KV) syncNewLog() error {
	fi, err := os.Lstat(logPath(s.dir, s.log+1))
	if err != nil {
		return err
	}
	if fi.Size() == 0 {
		return nil
	}
	s.log++
	s.next = false
	return syncDir(s.dir)
}
