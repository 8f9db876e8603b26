// Package fstree reads directory trees from disk and writes them back.
//
// [Open] gives a [Tree], whose Walk yields the entries in the canonical order
// of a dataset and whose Read and Open read the files. Symbolic links below
// the root are entries of their own and are never followed, whatever happens
// to the tree meanwhile; nothing but regular files is ever read. A file that
// does not hold still while it is read is an error ([ErrChanged]), because
// what was read may never have existed.
//
// [Create] gives a [Restore], which builds a tree beside the place where it is
// wanted and renames it there when it is complete, and [WriteFile] does the
// same for one file. What was there is replaced only on demand, all at once.
// Paths come from datasets of strangers: they are checked, directories are
// entered through [os.Root], and no link is followed.
//
// Owners, access control lists, extended attributes, hard links as such and
// holes are not kept. The package needs Linux.
package fstree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
)

var (
	// ErrChanged reports that a tree or a file changed while it was read.
	ErrChanged = errors.New("changed while it was read")
	// ErrSpecial reports a device, a socket or a pipe.
	ErrSpecial = errors.New("not a file, a directory or a symbolic link")
	// ErrExists reports that the place to write to is taken.
	ErrExists = errors.New("exists already; name another place, or ask for it to be replaced")
)

// An Entry is a file, a link or a directory of a Tree.
type Entry struct {
	Path   string // relative to the root, with slashes; the root is ""
	Kind   dag.Kind
	Attr   dag.Attr
	Size   int64  // of a file, in bytes
	Target string // of a link
	Stamp  Stamp
}

// A Stamp tells versions of a file apart. While it stays the same, so do the
// content and the attributes, unless someone wrote within the resolution of
// the file system's clock (some milliseconds) or through a memory map that is
// not synced yet.
type Stamp struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds since 1970
}

// set takes over what the system says of an entry.
func (e *Entry) set(st *unix.Stat_t, times bool) {
	e.Attr = dag.Attr{Mode: st.Mode & 0o7777}
	if times {
		e.Attr.Mtime = time.Unix(st.Mtim.Unix()).UTC()
	}
	e.Stamp = stampOf(st)
	if e.Kind == dag.KindFile {
		e.Size = st.Size
	}
}

func stampOf(st *unix.Stat_t) Stamp {
	return Stamp{Dev: st.Dev, Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

// retry repeats a system call that a signal interrupted, as calls to network
// and user-space file systems may be.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// ours reports whether err says something of this process, not of a file, so
// that skipping the file would only hide it.
func ours(err error) bool {
	for _, e := range []error{context.Canceled, context.DeadlineExceeded, fs.ErrClosed,
		unix.EMFILE, unix.ENFILE, unix.ENOMEM, extsort.ErrScratch} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explain adds to what the system said of a file what it means here and what
// can be done.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, extsort.ErrScratch): // what else it says is not about the file
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR):
		return fmt.Errorf("%q: %w: it was moved, removed or replaced", path, ErrChanged)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV): // what a socket or a dead device says to open
		return fmt.Errorf("%q: %w", path, ErrSpecial)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%q: %w; make it readable, exclude it, or skip what cannot be read", path, err)
	}
	return fmt.Errorf("%q: %w", path, err)
}
