package store

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A keyCache keeps the store's keys, so that a commit does not read and expand them
// each time. Before each use the file is looked at: a key that was replaced, taken away or
// opened to others is noticed as if there were no cache.
type keyCache struct {
	mu      sync.Mutex
	log     cachedKey[note.Signer]
	curator cachedKey[Signer]
}

// A cachedKey is what a file held when it looked like that.
type cachedKey[T any] struct {
	file keyStat
	key  T
}

// A keyStat tells one state of a file from another. Any write, chmod or rename changes it.
type keyStat struct {
	dev, ino     uint64
	size         int64
	mode         uint32
	mtime, ctime syscall.Timespec
}

// clockTick is longer than any that the times of files are counted by.
const clockTick = 100 * time.Millisecond

func statKey(path string) (keyStat, bool) {
	fi, err := os.Stat(path)
	if err != nil {
		return keyStat{}, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return keyStat{}, false
	}
	return keyStat{dev: st.Dev, ino: st.Ino, size: st.Size, mode: st.Mode, mtime: st.Mtim, ctime: st.Ctim}, true
}

// get returns the key of the file, from the cache if the file is the same.
func (c *cachedKey[T]) get(path string, load func() (T, error)) (T, error) {
	file, ok := statKey(path)
	if ok && file == c.file {
		return c.key, nil
	}
	key, err := load()
	if err != nil {
		return key, err
	}
	// A file that changed while it was read is read again the next time, and one that
	// changed just before too: another change may get the same time.
	settled := time.Since(time.Unix(file.ctime.Unix())) > clockTick
	if after, same := statKey(path); ok && same && settled && after == file {
		c.file, c.key = file, key
	}
	return key, nil
}

// logKey returns what signs checkpoints.
func (s *Store) logKey() (note.Signer, error) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	return s.keys.log.get(filepath.Join(s.dir, keysDir, logKeyFile), func() (note.Signer, error) { return loadLogKey(s.dir, s.vkey) })
}

// curator returns the store's own curator key.
func (s *Store) curator() (Signer, error) {
	path := filepath.Join(s.dir, keysDir, curatorFile)
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	return s.keys.curator.get(path, func() (Signer, error) { return LoadCurator(path) })
}
