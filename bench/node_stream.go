package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// What is here uses a node as a foreign client does, which sends all bytes and has the
// node cut and hash them.

// pieceBytes is the most that the API takes at once.
const pieceBytes = 1 << 20

// streamPut puts a file, or a tree of files and directories.
func streamPut(ctx context.Context, conn grpc.ClientConnInterface, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	kind := scalev1.Kind_KIND_FILE
	if info.IsDir() {
		kind = scalev1.Kind_KIND_DIRECTORY
	}
	s, err := scalev1.NewDatasetServiceClient(conn).Put(ctx)
	if err != nil {
		return err
	}
	err = s.Send(&scalev1.PutRequest{Part: &scalev1.PutRequest_Header{Header: &scalev1.PutHeader{Name: name, Kind: kind}}})
	buf := make([]byte, pieceBytes)
	switch {
	case err != nil:
	case info.IsDir():
		err = streamTree(s, path, buf)
	default:
		err = streamFile(s, f, buf)
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the answer says why
		return err
	}
	_, err = s.CloseAndRecv()
	return err
}

type putStream = grpc.ClientStreamingClient[scalev1.PutRequest, scalev1.PutResponse]

// streamTree sends a tree whose directories hold either files or directories, so that the
// order of WalkDir is that of the API. Small files share messages.
func streamTree(s putStream, root string, buf []byte) error {
	w := treeWriter{s: s, buf: buf}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return w.add(&scalev1.PutEntry{Path: []byte(rel), Kind: scalev1.Kind_KIND_DIRECTORY}, nil)
		}
		return w.file(name, &scalev1.PutEntry{Path: []byte(rel), Kind: scalev1.Kind_KIND_FILE})
	})
	if err != nil {
		return err
	}
	return w.flush()
}

// A treeWriter collects entries until there are enough for a message.
type treeWriter struct {
	s       putStream
	entries []*scalev1.PutEntry
	buf     []byte // their data
	used    int
}

// entriesPerMessage keeps messages well below the limit however long the paths are.
const entriesPerMessage = 500

// add adds an entry with its data, which is in buf behind that of the others.
func (w *treeWriter) add(e *scalev1.PutEntry, data []byte) error {
	e.Data = data
	w.used += len(data)
	if w.entries = append(w.entries, e); len(w.entries) >= entriesPerMessage {
		return w.flush()
	}
	return nil
}

func (w *treeWriter) flush() error {
	if len(w.entries) == 0 {
		return nil
	}
	all := &scalev1.PutEntries{Entries: w.entries}
	w.entries, w.used = w.entries[:0], 0
	return w.s.Send(&scalev1.PutRequest{Part: &scalev1.PutRequest_Entries{Entries: all}})
}

// file adds a file.
func (w *treeWriter) file(name string, e *scalev1.PutEntry) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if w.used > len(w.buf)/2 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	room := w.buf[w.used:]
	n, err := io.ReadFull(f, room)
	if aerr := w.add(e, room[:n]); aerr != nil {
		return aerr
	}
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	case err != nil:
		return err
	}
	// There may be more of it.
	if err := w.flush(); err != nil {
		return err
	}
	return streamFile(w.s, f, w.buf)
}

// streamFile sends what is left of a file.
func streamFile(s putStream, f io.Reader, buf []byte) error {
	for {
		n, err := io.ReadFull(f, buf)
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return err
		}
		if n > 0 {
			if err := s.Send(&scalev1.PutRequest{Part: &scalev1.PutRequest_Data{Data: buf[:n]}}); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// streamGet reads a dataset of one file.
func streamGet(ctx context.Context, conn grpc.ClientConnInterface, ref string, w io.Writer) error {
	s, err := scalev1.NewDatasetServiceClient(conn).Get(ctx, &scalev1.GetRequest{Ref: ref})
	for err == nil {
		var m *scalev1.GetResponse
		if m, err = s.Recv(); err == nil {
			_, err = w.Write(m.GetData())
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// streamGetTree writes a tree to a directory that does not exist.
func streamGetTree(ctx context.Context, conn grpc.ClientConnInterface, ref, dir string) (err error) {
	s, err := scalev1.NewDatasetServiceClient(conn).GetTree(ctx, &scalev1.GetTreeRequest{Ref: ref})
	if err != nil {
		return err
	}
	var f *os.File
	w := bufio.NewWriterSize(nil, 64<<10)
	finish := func() error {
		if f == nil {
			return nil
		}
		err := errors.Join(w.Flush(), f.Close())
		f = nil
		return err
	}
	defer func() { err = errors.Join(err, finish()) }()
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, part := range m.GetParts() {
			if e := part.GetEntry(); e != nil {
				if err := finish(); err != nil {
					return err
				}
				name := filepath.Join(dir, string(e.GetPath()))
				switch e.GetKind() {
				case scalev1.Kind_KIND_DIRECTORY:
					err = os.Mkdir(name, 0o755)
				case scalev1.Kind_KIND_FILE:
					f, err = os.Create(name)
					w.Reset(f)
				default:
					err = fmt.Errorf("%q is a %v", e.GetPath(), e.GetKind())
				}
				if err != nil {
					return err
				}
			}
			if _, err := w.Write(part.GetData()); err != nil {
				return err
			}
		}
	}
}
