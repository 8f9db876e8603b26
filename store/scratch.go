package store

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/dag/fstree"
)

// sorting says where a put sorts the names of directories that are too large for
// memory: in files without a name in the store's directory. They keep the floor, so
// that a full disk is ErrNoSpace like anything else that would pass it.
func (s *Store) sorting() extsort.Options {
	return extsort.Options{Memory: s.opt.SortMemory, Scratch: func() (extsort.File, error) {
		if err := s.checkSpace(0); err != nil {
			return nil, err
		}
		f, err := fstree.Scratch(s.dir)()
		if err != nil {
			return nil, noSpace(err)
		}
		return scratch{f, s}, nil
	}}
}

// walker reads trees. It sorts in the store's directory too, but where there is little
// room it goes to Options.TempDir: a full disk does not keep anyone from reading.
func (s *Store) walker() dag.Walker {
	o := s.sorting()
	here := o.Scratch
	o.Scratch = func() (extsort.File, error) {
		if s.opt.TempDir == "" || s.checkSpace(scratchRoom) == nil {
			return here()
		}
		ours, err := freeSpace(s.dir)
		if err != nil {
			return nil, err
		}
		if other, err := freeSpace(s.opt.TempDir); err != nil || other <= ours-s.opt.Floor {
			return here()
		}
		f, err := fstree.Scratch(s.opt.TempDir)()
		if err != nil {
			return nil, noSpace(err)
		}
		return f, nil
	}
	return dag.Walker{Reader: s, Sort: o}
}

// scratchRoom is the room above the floor that a large directory is sorted in without
// looking for another place: it takes five million long names.
const scratchRoom = 1 << 30

// scratch is a temporary file that keeps the floor.
type scratch struct {
	extsort.File
	s *Store
}

func (f scratch) WriteAt(p []byte, off int64) (int, error) {
	if err := f.s.checkSpace(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, off)
	return n, noSpace(err)
}

// noSpace gives what the system says of a full disk our words.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
