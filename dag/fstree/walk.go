package fstree

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
)

// Options say what of a tree is read. The zero value is the whole of it.
type Options struct {
	// Times asks for modification times.
	Times bool
	// Exclude are patterns of what is left out; of a directory that matches,
	// all that is in it. A pattern without a slash matches names at any
	// depth. One with a slash matches the path from the root on, with or
	// without a slash in front. A slash at the end: only directories. Within
	// a path element the syntax is that of path.Match, and the element "**"
	// stands for any number of elements, none included.
	Exclude []string
	// SkipUnreadable passes over what cannot be read or changes while it is
	// read, instead of failing. The root must always be readable.
	SkipUnreadable bool
	// Skipped, if not nil, is told what is passed over and why: what
	// SkipUnreadable asks for, and always the devices, sockets and pipes
	// (ErrSpecial). Calls come from Walk's goroutine and those of Tree.Skip.
	Skipped func(path string, why error)
	// Sort bounds the memory for the names of the directories that Walk is in.
	// The zero value holds them in memory, however many there are.
	Sort extsort.Options
}

// A Tree is a directory tree on disk, or a single file. Its methods may be
// used by several goroutines.
type Tree struct {
	root    string // as it was given to Open
	fd      int    // the root directory; -1 if the root is a file
	o       Options
	exclude []pattern
}

// Open opens the tree at root, following root itself if it is a symbolic
// link. A file is a tree of one entry with an empty path.
func Open(root string, o Options) (*Tree, error) {
	exclude, err := compilePatterns(o.Exclude)
	if err != nil {
		return nil, err
	}
	t := &Tree{root: root, fd: -1, o: o, exclude: exclude}
	st, err := os.Stat(root)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%q: its symbolic links lead in a circle: %w", root, unix.ELOOP)
	case err != nil:
		return nil, err
	case st.Mode().IsRegular():
		return t, nil
	case !st.IsDir():
		return nil, fmt.Errorf("%q: %w", root, ErrSpecial)
	}
	t.fd, err = retry(func() (int, error) { return unix.Open(root, dirFlags&^unix.O_NOFOLLOW, 0) })
	if err != nil {
		return nil, explain(root, err)
	}
	return t, nil
}

// Close gives the root's descriptor back. Nothing may use the tree any more;
// files that were opened stay open.
func (t *Tree) Close() error {
	if t.fd < 0 {
		return nil
	}
	return unix.Close(t.fd)
}

// Skip decides what becomes of an entry that could not be read. It returns
// nil if the entry is to be passed over, and has then told Options.Skipped;
// otherwise it returns err. The root and troubles of this process, such as a
// lack of descriptors or a context that ended, are never passed over.
func (t *Tree) Skip(path string, err error) error {
	if !t.o.SkipUnreadable || path == "" || ours(err) {
		return err
	}
	t.skipped(path, err)
	return nil
}

func (t *Tree) skipped(path string, why error) {
	if t.o.Skipped != nil {
		t.o.Skipped(path, why)
	}
}

// disk returns where an entry is, for messages.
func (t *Tree) disk(path string) string { return filepath.Join(t.root, path) }

// Walk yields the entries of the tree in the canonical order of a dataset:
// the root first, then bytewise by path, that of a directory with a slash
// behind it. Each entry is the consumer's to keep and may be read in any
// goroutine and at any time until the tree is closed. An error ends the walk.
//
// Walk keeps a descriptor for every level of directories that it is in, and the
// names in them, at 20 bytes and their length each, in memory up to what
// Options.Sort says. If the temporary file fails, the error is
// extsort.ErrScratch, which SkipUnreadable does not pass over.
func (t *Tree) Walk(ctx context.Context) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		w := walker{t: t, yield: yield}
		var err error
		if t.fd < 0 {
			err = w.rootFile()
		} else {
			w.buf = make([]byte, 64<<10)
			w.space = extsort.New(t.o.Sort)
			defer w.space.Close()
			err = w.dir(ctx, t.fd, ".", "")
		}
		if err != nil && err != errStop {
			yield(nil, err)
		}
	}
}

// errStop ends a walk whose consumer wants no more.
var errStop = errors.New("stop")

type walker struct {
	t     *Tree
	yield func(*Entry, error) bool
	space *extsort.Space
	buf   []byte // for getdents
	key   []byte
}

func (w *walker) emit(e *Entry) error {
	if !w.yield(e, nil) {
		return errStop
	}
	return nil
}

func (w *walker) rootFile() error {
	var st unix.Stat_t
	if err := unix.Stat(w.t.root, &st); err != nil {
		return explain(w.t.root, err)
	}
	e := &Entry{Kind: dag.KindFile}
	e.set(&st, w.t.o.Times)
	return w.emit(e)
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// dir yields the directory that is called name in the directory parent, and
// all that is in it.
func (w *walker) dir(ctx context.Context, parent int, name, path string) error {
	fd, err := retry(func() (int, error) { return unix.Openat(parent, name, dirFlags, 0) })
	if err != nil {
		return w.t.Skip(path, explain(w.t.disk(path), err))
	}
	defer unix.Close(fd)
	names := w.space.Sorter()
	defer names.Close()
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = w.list(fd, names)
	}
	if err != nil {
		return w.t.Skip(path, explain(w.t.disk(path), err))
	}
	e := &Entry{Path: path, Kind: dag.KindDir}
	e.set(&st, w.t.o.Times)
	if err := w.emit(e); err != nil {
		return err
	}
	prefix := path
	if path != "" {
		prefix += "/"
	}
	var last string // and the type that it had
	var lastType uint8
	for n, err := range names.Sorted() {
		if err != nil {
			return fmt.Errorf("list %q: %w", w.t.disk(path), err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name, typ, ok := listed(n)
		if !ok {
			return fmt.Errorf("list %q: a name in the %w is malformed", w.t.disk(path), extsort.ErrScratch)
		}
		if string(name) == last && (typ == unix.DT_DIR) == (lastType == unix.DT_DIR) {
			continue // the directory changed while it was listed
		}
		path := prefix + string(name)
		last, lastType = path[len(prefix):], typ
		if err := w.entry(ctx, fd, path, last, typ); err != nil {
			return err
		}
	}
	return nil
}

// entry yields what is called name in the directory fd.
func (w *walker) entry(ctx context.Context, fd int, path, name string, typ uint8) error {
	if w.t.excluded(path, name, typ == unix.DT_DIR) {
		return nil
	}
	if len(path) > dag.MaxPath || len(name) > dag.MaxName {
		return w.t.Skip(path, fmt.Errorf("%q: path of %d bytes: %w", w.t.disk(path), len(path), dag.ErrPath))
	}
	if typ == unix.DT_DIR {
		return w.dir(ctx, fd, name, path)
	}
	e := &Entry{Path: path}
	switch typ {
	case unix.DT_REG:
		e.Kind = dag.KindFile
	case unix.DT_LNK:
		e.Kind = dag.KindLink
	default:
		w.t.skipped(path, fmt.Errorf("%q: %w", w.t.disk(path), ErrSpecial))
		return nil
	}
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && typeOf(&st) != typ {
		err = unix.ENOENT // what was listed is gone
	}
	if err == nil && typ == unix.DT_LNK {
		e.Target, err = readlink(fd, name)
	}
	if err != nil {
		return w.t.Skip(path, explain(w.t.disk(path), err))
	}
	e.set(&st, w.t.o.Times)
	return w.emit(e)
}

func readlink(fd int, name string) (string, error) {
	var buf [dag.MaxTarget + 1]byte
	n, err := retry(func() (int, error) { return unix.Readlinkat(fd, name, buf[:]) })
	switch {
	case err == unix.EINVAL: // no longer a link
		return "", unix.ENOENT
	case err != nil:
		return "", err
	case n == 0 || n > dag.MaxTarget:
		return "", fmt.Errorf("link target of %d bytes: %w", n, dag.ErrPath)
	}
	return string(buf[:n]), nil
}
