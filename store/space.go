package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dustin/go-humanize"

	"github.com/koii-network/scale/store/filecache"
)

// defaultFloor is the free space kept for what a commit and a clean close may still
// write: two memtables with their logs, the tables they are flushed to, one pack
// write in flight. Badger maps its logs, so running into the end of the disk there
// is a SIGBUS and not an error: the floor is checked before anything is written.
const defaultFloor = 32 << 20

// ballastSize is what can be given up when a full disk would otherwise keep the
// store from being opened for reading: Badger wants 1.3 MB for the log and the table
// that even a process writes that only reads.
const ballastSize = 3 << 19

// checkSpace fails with ErrNoSpace when writing n more bytes would pass the floor.
func (s *Store) checkSpace(n int64) error {
	free, err := freeSpace(s.dir)
	if err != nil {
		return err
	}
	if free-n < s.opt.Floor {
		return fmt.Errorf("store %s: %s free on its file system, %s are kept back: %w; free some space and put again",
			s.dir, humanize.IBytes(uint64(max(free, 0))), humanize.IBytes(uint64(s.opt.Floor)), ErrNoSpace)
	}
	return nil
}

// FileCache returns a directory of caches that leaves the file system the room that a
// store keeps back. An empty path is none.
func FileCache(path string) filecache.Dir {
	return filecache.Dir{Path: path, Room: func(n int64) error {
		free, err := freeSpace(path)
		if err == nil && free-n < defaultFloor {
			err = ErrNoSpace
		}
		return err
	}}
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// trimBallast makes the ballast when there is room for it and gives it up when
// there is not, so that opening has a little space to work with.
func trimBallast(dir string, floor int64) error {
	path := filepath.Join(dir, ballastFile)
	free, err := freeSpace(dir)
	if err != nil {
		return err
	}
	fi, err := os.Stat(path)
	have := err == nil && fi.Size() > 0
	switch {
	case have && free < ballastSize:
		return os.Remove(path)
	case !have && free > floor+2*ballastSize:
		return makeBallast(path)
	}
	return nil
}

func makeBallast(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ballast: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("ballast: %w", err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, ballastSize)
	if errors.Is(err, unix.EOPNOTSUPP) {
		// A file system without fallocate gets the bytes themselves.
		_, err = f.Write(make([]byte, ballastSize))
	}
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("ballast: %w", err)
	}
	return nil
}

// diskUsage is the sum of the blocks allocated below dir, in bytes.
func diskUsage(dir string) (uint64, error) {
	var sum uint64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // Badger removes tables while it compacts
		}
		if err != nil {
			return err
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			sum += uint64(st.Blocks) * 512
		}
		return nil
	})
	return sum, err
}
