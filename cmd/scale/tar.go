package main

import (
	"archive/tar"
	"context"
	"io"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
)

// writeTar writes an object as a tar stream. The same object always gives the same
// bytes: PAX headers, canonical order, owner 0, and the time 0 unless one was recorded.
func writeTar(ctx context.Context, s engine, o store.Object, w io.Writer) error {
	t := &tarVisitor{w: tar.NewWriter(w), name: nameOf(o)}
	if err := s.GetTree(ctx, o, t); err != nil {
		return err
	}
	return t.w.Close()
}

type tarVisitor struct {
	w    *tar.Writer
	name string // of an object that is not a directory
}

func (t *tarVisitor) header(typ byte, path string, a dag.Attr) *tar.Header {
	return &tar.Header{Typeflag: typ, Name: path, Mode: int64(a.Mode), ModTime: a.Mtime, Format: tar.FormatPAX}
}

func (t *tarVisitor) Dir(path string, a dag.Attr) error {
	if path == "" {
		path = "."
	}
	return t.w.WriteHeader(t.header(tar.TypeDir, path+"/", a))
}

func (t *tarVisitor) Link(path, target string, a dag.Attr) error {
	if path == "" {
		path = t.name
	}
	a.Mode = 0o777
	h := t.header(tar.TypeSymlink, path, a)
	h.Linkname = target
	return t.w.WriteHeader(h)
}

func (t *tarVisitor) File(path string, a dag.Attr, size uint64) (io.WriteCloser, error) {
	if path == "" {
		path = t.name
	}
	h := t.header(tar.TypeReg, path, a)
	h.Size = int64(size)
	if err := t.w.WriteHeader(h); err != nil {
		return nil, err
	}
	return tarFile{t.w}, nil
}

// A tarFile is the file whose header was written last.
type tarFile struct{ *tar.Writer }

// Close checks that all of the file was written, and leaves the archive open.
func (f tarFile) Close() error { return f.Flush() }
