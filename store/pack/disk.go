package pack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// writeAt writes the buffers one after the other at off, as one write where
// the system takes it as one.
func writeAt(f *os.File, off int64, bufs ...[]byte) error {
	for {
		for len(bufs) > 0 && len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
		if len(bufs) == 0 {
			return nil
		}
		n, err := unix.Pwritev(int(f.Fd()), bufs, off)
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return &os.PathError{Op: "pwritev", Path: f.Name(), Err: err}
		}
		off += int64(n)
		for i := range bufs { // bufs is the caller's variadic slice, made for this call
			took := min(n, len(bufs[i]))
			bufs[i], n = bufs[i][took:], n-took
		}
	}
}

// syncFiles makes the data of all files durable, and closes those in full.
func syncFiles(full []*os.File, w *os.File) error {
	var errs []error
	for _, f := range append(full, w) {
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			errs = append(errs, &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err})
		}
	}
	for _, f := range full {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// noSpace marks the errors of a full file system with ErrNoSpace.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// writebackStep is how many bytes are appended between two hints. With one
// step on its way to the disk and one being filled, a Sync has little to wait
// for and few pages are dirty.
const writebackStep = 8 << 20

// A writeback has the kernel write appended bytes to the disk before a sync
// asks for it. It does not make anything durable.
type writeback struct {
	begun uint64 // writing was asked for up to here
	done  uint64 // and waited for up to here
}

// wrote says that f was appended to up to end.
func (wb *writeback) wrote(f *os.File, end uint64) error {
	if end-wb.begun < writebackStep {
		return nil
	}
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := syncRange(f, wb.begun, end, unix.SYNC_FILE_RANGE_WRITE)
	if err == nil {
		err = syncRange(f, wb.done, wb.begun, wait)
	}
	wb.done, wb.begun = wb.begun, end
	return err
}

// syncRange calls sync_file_range. An error that it reports is one that
// fdatasync may not report again, so it must stop appending just as well.
func syncRange(f *os.File, from, to uint64, flags int) error {
	if from == to {
		return nil
	}
	for {
		err := unix.SyncFileRange(int(f.Fd()), int64(from), int64(to-from), flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil, errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ESPIPE), errors.Is(err, unix.EOPNOTSUPP):
			return nil // it is a hint: not every file system takes it
		}
		return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
	}
}
