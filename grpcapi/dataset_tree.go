package grpcapi

import (
	"context"
	"encoding/binary"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// GetTree implements DatasetServiceServer.
func (d *datasets) GetTree(req *scalev1.GetTreeRequest, ss grpc.ServerStreamingServer[scalev1.GetTreeResponse]) error {
	ctx := ss.Context()
	o, err := d.resolve(ctx, req.GetRef(), req.GetPath())
	if err != nil {
		return err
	}
	if err := d.reserve(ctx, streamBytes); err != nil {
		return err
	}
	w := &treeWriter{to: accountOf(ctx), rooted: len(req.GetAfter()) > 0, last: string(req.GetAfter())}
	return pump(ctx, ss, d.reads.large, func(ctx context.Context, push func(*encoded) error) error {
		w.push = push
		if err := d.finishFile(ctx, o, w); err != nil {
			return err
		}
		if !w.rooted {
			if err := d.store.GetTree(ctx, o, w); err != nil {
				return letGo(err)
			}
		} else if err := d.store.GetTreeFrom(ctx, o, w.last, w); err != nil {
			return letGo(err)
		}
		return w.flush()
	})
}

// finishFile sends the rest of a file in which a place was given up.
func (d *datasets) finishFile(ctx context.Context, tree store.Object, w *treeWriter) error {
	f := w.file
	if f == nil {
		return nil
	}
	if f.done < f.size {
		o := tree
		if f.path != "" {
			path := f.path
			if tree.Path != "" {
				path = tree.Path + "/" + path
			}
			var err error
			if o, err = d.resolve(ctx, entryRef(tree.Dataset.Entry), []byte(path)); err != nil {
				return err
			}
		}
		if _, err := d.store.Get(ctx, o, &store.Range{From: f.done, To: f.size}, f); err != nil {
			return letGo(err)
		}
	}
	return f.Close()
}

// A treeWriter turns a tree into messages: parts one behind the other, as many as one has
// room for. It knows where it is, so that the tree can be left and gone on with.
type treeWriter struct {
	push   func(*encoded) error
	to     *account
	buf    *lentBuffer
	rooted bool      // what was asked for has been given itself
	last   string    // the entry that was given last, whole
	file   *treeFile // the one under way, or nil
}

var _ store.Visitor = (*treeWriter)(nil)

// Dir implements store.Visitor.
func (w *treeWriter) Dir(path string, a dag.Attr) error {
	return w.entry(&scalev1.TreeEntry{Path: []byte(path), Kind: scalev1.Kind_KIND_DIRECTORY, Mode: a.Mode, Mtime: protoTime(a.Mtime)}, path)
}

// Link implements store.Visitor.
func (w *treeWriter) Link(path, target string, a dag.Attr) error {
	return w.entry(&scalev1.TreeEntry{Path: []byte(path), Kind: scalev1.Kind_KIND_LINK, Target: []byte(target), Mtime: protoTime(a.Mtime)}, path)
}

// File implements store.Visitor.
func (w *treeWriter) File(path string, a dag.Attr, size uint64) (io.WriteCloser, error) {
	f := &treeFile{w: w, path: path, size: size}
	return f, w.part(&scalev1.TreeEntry{Path: []byte(path), Kind: scalev1.Kind_KIND_FILE, Size: size, Mode: a.Mode, Mtime: protoTime(a.Mtime)}, func() { w.file = f })
}

// entry gives an entry that is whole with that.
func (w *treeWriter) entry(e *scalev1.TreeEntry, path string) error {
	return w.part(e, func() { w.rooted, w.last = true, path })
}

// part appends a part that begins an entry. given is called once it will be sent.
func (w *treeWriter) part(e *scalev1.TreeEntry, given func()) error {
	n := proto.Size(e)
	part := 1 + uvarintLen(n) + n
	if err := w.room(1 + uvarintLen(part) + part); err != nil {
		return err
	}
	b := fieldStart(w.buf.buf, treePartsField, part)
	b = fieldStart(b, partEntryField, n)
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, e)
	if err != nil {
		return err
	}
	w.buf.buf = b
	given()
	return nil
}

// room makes room for n bytes in the message.
func (w *treeWriter) room(n int) error {
	if w.buf != nil && len(w.buf.buf)+n > cap(w.buf.buf) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.buf == nil {
		w.buf = answers.take(pieceSize)
		w.buf.buf = w.buf.all[:0]
	}
	return nil
}

func (w *treeWriter) flush() error {
	if w.buf == nil {
		return nil
	}
	e := &encoded{mem.BufferSlice{w.to.send(w.buf, len(w.buf.buf))}}
	w.buf = nil
	return w.push(e)
}

// A treeFile gives the bytes of a file of the tree.
type treeFile struct {
	w    *treeWriter
	path string
	size uint64
	done uint64
}

// Write implements io.Writer. When it fails it has taken what it says.
func (f *treeFile) Write(p []byte) (int, error) {
	w, taken := f.w, 0
	for len(p) > 0 {
		// Not worth a part of its own: the head of one has up to 8 bytes.
		if err := w.room(min(len(p), 512) + partHead); err != nil {
			return taken, err
		}
		n := min(len(p), cap(w.buf.buf)-len(w.buf.buf)-partHead)
		b := fieldStart(w.buf.buf, treePartsField, 1+uvarintLen(n)+n)
		b = fieldStart(b, partDataField, n)
		w.buf.buf = append(b, p[:n]...)
		p, taken = p[n:], taken+n
		f.done += uint64(n)
	}
	return taken, nil
}

// Close implements io.Closer. The file is whole, or was left.
func (f *treeFile) Close() error {
	if f.w.file == f && f.done == f.size {
		f.w.rooted, f.w.last, f.w.file = true, f.path, nil
	}
	return nil
}

const (
	treePartsField = 1
	partEntryField = 1
	partDataField  = 2
	// partHead is the most that stands before the bytes of a part.
	partHead = 2 * (1 + 4)
)

func fieldStart(b []byte, field byte, n int) []byte {
	return binary.AppendUvarint(append(b, field<<3|2), uint64(n))
}

func uvarintLen(n int) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}
