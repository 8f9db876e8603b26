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
	info, err := os.Stat(path)
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
		err = streamFile(s, path, buf, nil)
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the answer says why
		return err
	}
	_, err = s.CloseAndRecv()
	return err
}

type putStream = grpc.ClientStreamingClient[scalev1.PutRequest, scalev1.PutResponse]

// streamTree sends a tree whose directories hold either files or directories, so that the
// order of WalkDir is that of the API.
func streamTree(s putStream, root string, buf []byte) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		entry := &scalev1.PutEntry{Path: []byte(rel), Kind: scalev1.Kind_KIND_DIRECTORY}
		if d.IsDir() {
			return s.Send(&scalev1.PutRequest{Part: &scalev1.PutRequest_Entry{Entry: entry}})
		}
		entry.Kind = scalev1.Kind_KIND_FILE
		return streamFile(s, name, buf, entry)
	})
}

// streamFile sends the bytes of a file, the first of them in its entry if there is one.
func streamFile(s putStream, name string, buf []byte, entry *scalev1.PutEntry) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		n, err := io.ReadFull(f, buf)
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return err
		}
		m := &scalev1.PutRequest{Part: &scalev1.PutRequest_Data{Data: buf[:n]}}
		if entry != nil {
			entry.Data = buf[:n]
			m.Part, entry = &scalev1.PutRequest_Entry{Entry: entry}, nil
		} else if n == 0 {
			return nil
		}
		if err := s.Send(m); err != nil || ended {
			return err
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
