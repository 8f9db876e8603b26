package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store/kv"
)

// Chains returns the names of the chains that the outbox has rows of, ascending.
func (o *Outbox) Chains(ctx context.Context) ([]string, error) {
	var names []string
	from := []byte{rowAnchor}
	for {
		name := ""
		for row, err := range o.s.kv.Scan(ctx, []byte{rowAnchor}, from) {
			if err != nil {
				return nil, storeError(err)
			}
			n := bytes.IndexByte(row.Key, 0)
			if n < 2 {
				return nil, fmt.Errorf("outbox key %q: %w", row.Key, ErrCorrupt)
			}
			name = string(row.Key[1:n])
			break
		}
		if name == "" {
			return names, nil
		}
		names = append(names, name)
		from = append(append([]byte{rowAnchor}, name...), 1)
	}
}

// anchored returns the largest tree that the outbox knows of, and its chain. It costs a
// few look-ups for each chain. Rows are made of checkpoints that were signed and
// published, so the state of a row does not matter.
func (s *Store) anchored(ctx context.Context) (size int64, chain string, err error) {
	chains, err := s.Outbox().Chains(ctx)
	if err != nil {
		return 0, "", err
	}
	for _, c := range chains {
		row, err := s.kv.Last(ctx, outboxPrefix(c, outboxRow))
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, "", storeError(err)
		}
		if n := len(row.Key) - 8; n > 0 {
			if at := int64(binary.BigEndian.Uint64(row.Key[n:])); at > size {
				size, chain = at, c
			}
		}
	}
	return size, chain, nil
}

// checkAnchored compares the ledger with what the outbox anchored of it.
func (s *Store) checkAnchored(ctx context.Context, have int64) error {
	size, chain, err := s.anchored(ctx)
	if err != nil {
		return s.doubtf("its outbox of anchors cannot be read: %v", err)
	}
	if size > have {
		return behind(have, size, chain)
	}
	return nil
}

// behind is why a ledger does not append that is smaller than one that its key signed.
func behind(have, size int64, chain string) error {
	return fmt.Errorf("%w: its ledger has %d entries, but a checkpoint of %d was signed for %s: entries were lost, or an old copy was put in place; reading goes on. "+
		"Bring the newest copy of the directory back, or rebuild the ledger in an empty directory with scale restore; if that has fewer entries too, begin a new log that names this one: scale init --successor",
		ErrReadOnly, have, size, chain)
}

// closedFile says that the process that appended last closed the store. It holds what
// tells this very file from a copy of it, so that a backup that was put back counts
// like a crash: either way the directory may be older than the ledger.
const closedFile = "closed"

// closedMark is the content of the file at path, if it is the file that Close made.
func closedMark(path string) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d.%d %d %d.%09d\n", st.Dev_major, st.Dev_minor, st.Ino, st.Btime.Sec, st.Btime.Nsec), nil
}

// closedCleanly says whether the store in dir is as the last one that appended left it.
func closedCleanly(dir string) bool {
	path := filepath.Join(dir, closedFile)
	b, err := os.ReadFile(path)
	if err != nil || len(b) > 256 {
		return false
	}
	mark, err := closedMark(path)
	return err == nil && string(b) == mark
}

// markClosed writes the file. It is made in place: after a crash in between it is cut
// short, and then says nothing.
func markClosed(dir string) error {
	path := filepath.Join(dir, closedFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	mark, err := closedMark(path)
	if err == nil {
		_, err = f.WriteString(mark)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), syncDir(dir))
}

// seenWait bounds how long the first append waits for the chains.
const seenWait = 10 * time.Second

// beforeAppend is called with commitMu held before anything is appended. The first time
// it takes the mark of a clean close away, and if there was none it asks the chains
// whether more was signed than is here.
func (s *Store) beforeAppend(ctx context.Context) error {
	if s.begun {
		return nil
	}
	if !s.clean && s.opt.Seen != nil {
		have := s.published.Load().checkpoint.Size
		ctx, cancel := context.WithTimeout(ctx, seenWait)
		defer cancel()
		size, err := s.opt.Seen(ctx)
		switch {
		case size > have:
			err := behind(have, size, "a chain")
			s.behind.Store(&err)
			return err
		case err != nil:
			s.log.Warn("this store was not closed, or is a copy; whether a larger ledger was signed could not be asked", "entries", have, "err", err)
		}
	}
	if err := os.Remove(filepath.Join(s.dir, closedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("store %s: %w", s.dir, err)
	}
	if s.clean {
		if err := syncDir(s.dir); err != nil {
			return fmt.Errorf("store %s: %w", s.dir, err)
		}
	}
	s.begun = true
	return nil
}
