package fstree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

// RestoreOptions say how a tree or a file is written.
type RestoreOptions struct {
	// Overwrite replaces what is there, as a whole: nothing is merged. A
	// directory is replaced only by a tree, a symbolic link as such, without
	// regard to where it leads. Devices, sockets and pipes are never
	// replaced.
	Overwrite bool
	// SetID restores the set-user-ID and set-group-ID bits. They are dropped
	// otherwise, even for root, because what is restored belongs to whoever
	// restores it, and not to the one that the bits were set for.
	SetID bool
}

// A Restore writes a tree. Dir, Link and File are called by one goroutine in
// the canonical order of a dataset, so that a directory comes before what is
// in it and is finished when the next path leaves it; the files that File
// returns may be written and closed by others, in any order. Nothing appears
// at the place of the tree before Commit. After an error only Abort helps.
//
// Modes come out exactly as given, SetID apart, whatever the umask. Those of
// directories are set when all that is in them is written. Owners are those
// of the process.
type Restore struct {
	stage *stage
	root  *os.Root // until Dir takes it
	o     RestoreOptions
	open  []*dir // from the root to the directory of the last path

	mu    sync.Mutex
	err   error // the first of any goroutine; Commit refuses to hide it
	files int   // not closed yet
}

// Create begins a tree that Commit will put at out. The directory above out
// must exist and be writable; the tree is built in it under the name
// ".NAME.scale-RANDOM", with mode 0700 until it is complete.
func Create(out string, o RestoreOptions) (*Restore, error) {
	s, err := newStage(out, o, true)
	if err != nil {
		return nil, err
	}
	root, err := s.mkdir()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &Restore{stage: s, root: root, o: o}, nil
}

// A dir is a directory that is being written. It lives as long as something
// in it is: it is in Restore.open, or a directory or a file below it is alive.
type dir struct {
	parent *dir // nil: the root
	path   string
	attr   dag.Attr
	root   *os.Root
	self   *os.File // root as a file, for what a Root cannot do

	users int // guarded by Restore.mu
}

// Dir makes a directory. The first call is for the root, path "".
func (r *Restore) Dir(path string, a dag.Attr) error {
	d := &dir{path: path, attr: a, users: 1}
	if path == "" {
		if r.root == nil {
			return r.fail(path, fmt.Errorf("a second root: %w", dag.ErrOrder))
		}
		d.root, r.root = r.root, nil
	} else {
		parent, name, err := r.enter(path)
		if err != nil {
			return err
		}
		if err = parent.root.Mkdir(name, 0o700); err == nil {
			d.root, err = parent.root.OpenRoot(name)
		}
		if err != nil {
			r.leave(parent)
			return r.fail(path, err)
		}
		d.parent = parent
	}
	r.open = append(r.open, d)
	var err error
	if d.self, err = d.root.Open("."); err != nil {
		return r.fail(path, err)
	}
	return nil
}

// Link makes a symbolic link. Where it leads is of no concern: nothing is
// ever written through it.
func (r *Restore) Link(path, target string, a dag.Attr) error {
	if n := len(target); n == 0 || n > dag.MaxTarget || strings.IndexByte(target, 0) >= 0 {
		return r.fail(path, fmt.Errorf("link target of %d bytes: %w", n, dag.ErrPath))
	}
	d, name, err := r.enter(path)
	if err != nil {
		return err
	}
	defer r.leave(d)
	if err := d.root.Symlink(target, name); err != nil {
		return r.fail(path, err)
	}
	if err := setTime(d.self, name, a); err != nil {
		return r.fail(path, err)
	}
	return nil
}

// File begins a file. It costs next to nothing: the file is made by the first
// Write or by Close, in the goroutine that calls it. Every file must be
// closed before Commit.
func (r *Restore) File(path string, a dag.Attr) (*FileWriter, error) {
	d, name, err := r.enter(path)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.files++
	r.mu.Unlock()
	return &FileWriter{r: r, dir: d, name: name, path: path, attr: a, fd: -1}, nil
}

// enter goes from the last path to a new one. It returns the directory that
// the new one is in, with one more user, and its name there.
//
// The directory is one that Dir made and has kept open ever since, so a link
// that has the name of a directory on the way cannot lead anywhere else.
func (r *Restore) enter(path string) (*dir, string, error) {
	above, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		above, name = path[:i], path[i+1:]
	}
	if strings.HasPrefix(path, "/") || len(path) > dag.MaxPath || len(name) > dag.MaxName || name == "" || name == "." || name == ".." ||
		strings.IndexByte(name, 0) >= 0 {
		return nil, "", r.fail(path, dag.ErrPath)
	}
	for len(r.open) > 0 {
		d := r.open[len(r.open)-1]
		if d.path == above {
			r.mu.Lock()
			d.users++
			r.mu.Unlock()
			return d, name, nil
		}
		r.pop()
	}
	return nil, "", r.fail(path, fmt.Errorf("its directory did not come before it: %w", dag.ErrOrder))
}

func (r *Restore) pop() {
	last := len(r.open) - 1
	r.leave(r.open[last])
	r.open = r.open[:last]
}

// leave takes a user from d, and finishes d and then the directories above it
// if it was the last one.
func (r *Restore) leave(d *dir) {
	for ; d != nil; d = d.parent {
		r.mu.Lock()
		d.users--
		last := d.users == 0
		r.mu.Unlock()
		if !last {
			return
		}
		if err := r.finish(d); err != nil {
			r.fail(d.path, err)
		}
	}
}

// finish gives d its time and then its mode, which may forbid to enter it.
func (r *Restore) finish(d *dir) error {
	return errors.Join(
		setTime(d.self, ".", d.attr),
		d.self.Chmod(r.o.mode(d.attr)),
		d.self.Close(),
		d.root.Close())
}

// fail remembers the first error and gives it words.
func (r *Restore) fail(path string, err error) error {
	err = fmt.Errorf("restore %q in %q: %w", path, r.stage.out, innermost(err))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	return err
}

// innermost takes off what package os says of a system call: it names files
// relative to some directory, which tells the reader nothing.
func innermost(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// bits returns the mode that is restored for a, as the system has it.
func (o RestoreOptions) bits(a dag.Attr) uint32 {
	if o.SetID {
		return a.Mode & 0o7777
	}
	return a.Mode & 0o1777
}

// mode returns the mode that is restored for a.
func (o RestoreOptions) mode(a dag.Attr) fs.FileMode {
	bits := o.bits(a)
	m := fs.FileMode(bits & 0o777)
	if bits&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if bits&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if bits&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// Commit puts the tree in its place. When it returns nil, the tree is there
// and durable: the file system that holds it is synced once as a whole. If it
// fails before, nothing is left, as after Abort.
func (r *Restore) Commit() error {
	for len(r.open) > 0 {
		r.pop()
	}
	r.mu.Lock()
	err, files := r.err, r.files
	r.mu.Unlock()
	switch {
	case err != nil:
	case r.root != nil:
		err = fmt.Errorf("restore %q: no root: %w", r.stage.out, dag.ErrOrder)
	case files > 0:
		err = fmt.Errorf("restore %q: %d files are not closed", r.stage.out, files)
	}
	if err == nil {
		err = r.stage.commit()
	}
	return errors.Join(err, r.Abort())
}

// Abort removes what was written. No other goroutine may be writing any more;
// files that are still open should be closed too. After Commit it does
// nothing.
func (r *Restore) Abort() error {
	for len(r.open) > 0 {
		r.pop()
	}
	if r.root != nil {
		r.root.Close()
	}
	return r.stage.close()
}
