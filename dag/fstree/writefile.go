package fstree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/koii-network/scale/dag"
)

// WriteFile writes one file to out, beside it first: write gets a writer, and
// if it returns nil the file is synced and renamed into place. Until then out
// is what it was, and after a failure nothing is left. A device such as
// /dev/null, or a pipe, is written to as it is.
func WriteFile(out string, a dag.Attr, o RestoreOptions, write func(w io.Writer) error) error {
	if st, err := os.Stat(out); err == nil && st.Mode()&(fs.ModeCharDevice|fs.ModeNamedPipe) != 0 {
		f, err := os.OpenFile(out, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	s, err := newStage(out, o, false)
	if err != nil {
		return err
	}
	return errors.Join(s.file(a, write), s.close())
}

func (s *stage) file(a dag.Attr, write func(w io.Writer) error) error {
	f, err := s.base.OpenFile(s.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return s.explain(err)
	}
	err = write(f)
	if err == nil {
		err = errors.Join(setMode(f, s.o.mode(a)), setTime(s.sync, s.name, a))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %q: %w", s.out, err)
	}
	return s.commit()
}
