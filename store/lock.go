package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A Lock is the ownership of a store directory. The kernel gives it up when the
// process ends, however it ends.
type Lock struct{ f *os.File }

type lockOwner struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// lockPoll is how often a waiting process looks again. flock(2) cannot be waited
// for with a time-out.
const lockPoll = 20 * time.Millisecond

// AcquireLock takes ownership of the store in dir, waiting up to wait for the
// process that has it. The error is a *LockedError when that time passes.
func AcquireLock(ctx context.Context, dir string, wait time.Duration, command string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("store %s: %w", dir, ErrNotFound)
		}
		if errors.Is(err, unix.ELOOP) {
			return nil, fmt.Errorf("lock store: %s is a symbolic link: %w", filepath.Join(dir, lockFile), ErrCorrupt)
		}
		return nil, fmt.Errorf("lock store: %w", err)
	}
	// A store may come from a stranger: nothing but a file of its own is written to.
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("lock store: %s is not a regular file: %w", f.Name(), ErrCorrupt)
	}
	if err := flock(ctx, f, wait); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock store %s: %w", dir, err)
		}
		var o lockOwner
		// Best effort: the owner may be writing its name just now.
		if b, rerr := os.ReadFile(f.Name()); rerr == nil && json.Unmarshal(b, &o) != nil {
			o = lockOwner{}
		}
		return nil, &LockedError{Dir: dir, PID: o.PID, Command: o.Command}
	}
	// Only to tell others who has it: a full disk must not keep readers out.
	if b, err := json.Marshal(lockOwner{PID: os.Getpid(), Command: command}); err == nil {
		if f.Truncate(0) == nil {
			f.WriteAt(b, 0)
		}
	}
	return &Lock{f}, nil
}

func flock(ctx context.Context, f *os.File, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !time.Now().Before(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// Release gives the ownership up.
func (l *Lock) Release() error { return l.f.Close() }
