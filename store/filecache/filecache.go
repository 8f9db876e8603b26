// Package filecache remembers what the files of a tree on disk were made of when they
// were last read, so that those that did not change since need not be read again.
//
// A cache belongs to one tree and one profile. It has a row for each file: its path, the
// [fstree.Stamp] that it had, and its chunks. The rows are in the order of a walk, so a
// walk and a cache are merged as streams: a [Reader] finds, a [Writer] records, and
// neither grows with the tree. FORMAT.md has the bytes.
//
// A file whose stamp is that of its row is taken to be what it was. What that trusts is
// the file system: each write must change the stamp. A write may leave it as it is when
// it comes within the resolution of the clock that stamps files, so a row is recorded
// only for a file that had been left alone for [Settled] before the reading began.
//
// A cache may be lost, damaged, cut short or of another version at any time: files
// without a sound row are read. It says what a file was made of, and not that these
// chunks are stored; who uses it looks that up.
package filecache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Settled is how long a file must have been left alone before a row is recorded. The
	// coarsest clock of a file system in use is that of FAT, 2 seconds.
	Settled = 2 * time.Second
	// worthBytes is what the files of a tree must come to: what is read within some
	// milliseconds is read again, and does not push out what is not. Opening a file
	// costs as much as reading fileBytes.
	worthBytes = 1 << 20
	fileBytes  = 16 << 10

	// maxFiles and maxBytes bound all caches in a directory.
	maxFiles = 256
	maxBytes = 2 << 30
	// leftover is the age at which a file that was never finished is that of a process
	// that died.
	leftover = 24 * time.Hour
)

// A Dir is a directory of caches. It is made when there is something to keep.
type Dir struct {
	Path string
	// Now is the clock that Settled is measured by; nil is time.Now.
	Now func() time.Time
	// Room, if not nil, returns an error if the file system should not take n bytes more.
	// The cache is then not written.
	Room func(n int64) error
}

// A Walk is what one walk through a tree does with its cache. The zero value does
// without.
type Walk struct {
	Past *Reader // what was recorded before
	Next *Writer // what is recorded now
}

// Begin begins a walk through the tree at root, before the tree is looked at. With rescan
// nothing that was recorded before is believed.
func (d Dir) Begin(root, profile string, rescan bool) Walk {
	if d.Path == "" || root == "" {
		return Walk{}
	}
	w := Walk{Next: d.create(root, profile)}
	if !rescan {
		w.Past = d.open(root, profile)
	}
	return w
}

// Close gives back what the walk holds. What Next did not commit is forgotten.
func (w Walk) Close() {
	w.Past.Close()
	w.Next.Abort()
}

// A key names a cache.
type key struct{ root, profile string }

func (d Dir) now() time.Time {
	if d.Now == nil {
		return time.Now()
	}
	return d.Now()
}

// keyOf returns the key of the tree at root, by whatever way root leads there.
func keyOf(root, profile string) (key, error) {
	abs, err := filepath.Abs(root)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	return key{abs, profile}, err
}

// file is the name of the cache in its directory.
func (k key) file() string {
	sum := sha256.Sum256([]byte(k.profile + "\x00" + k.root))
	return hex.EncodeToString(sum[:16])
}

// unfinished is in the names of files that are being written.
const unfinished = ".new-"

// ours reports whether the name is one that this package gives, and whether the file is
// a whole cache.
func ours(name string) (is, whole bool) {
	sum, rest, found := strings.Cut(name, unfinished)
	if b, err := hex.DecodeString(sum); err != nil || len(b) != 16 || found && rest == "" {
		return false, false
	}
	return true, !found
}

// prune removes the caches that were written longest ago, as many as there are too many,
// and what processes that died have left. The newest stays.
func (d Dir) prune(files int, bytes int64) error {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return err
	}
	var all []fs.FileInfo
	var errs []error
	remove := func(name string) {
		if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, e := range entries {
		is, whole := ours(e.Name())
		if !is || !e.Type().IsRegular() {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			continue // another process was faster
		}
		if whole {
			all = append(all, fi)
		} else if d.now().Sub(fi.ModTime()) > leftover {
			remove(e.Name())
		}
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for i, fi := range all {
		if bytes -= fi.Size(); i > 0 && (i >= files || bytes < 0) {
			remove(fi.Name())
		}
	}
	return errors.Join(errs...)
}

// openFile opens a file of the directory for reading, if it is one.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
