package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// GetTree gives everything at or below o to v, as store.Store.GetTree does. Paths, their
// order and sizes are checked before v sees them. After a broken connection it goes on
// where it was, v notices nothing.
func (c *Client) GetTree(ctx context.Context, o store.Object, v store.Visitor) error {
	t := &treeReader{o: o, v: v, order: newReceivedOrder(o)}
	err := c.getTree(ctx, t)
	if t.file != nil {
		err = errors.Join(err, t.file.Close())
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", o, err)
	}
	return nil
}

func (c *Client) getTree(ctx context.Context, t *treeReader) error {
	p := patience{c: c}
	for {
		if err := c.finishFile(ctx, t); err != nil {
			return err
		}
		if t.order.begun && t.o.Info.Kind != dag.KindDir {
			return nil
		}
		callErr, takeErr := c.receive(ctx, scalev1.DatasetService_GetTree_FullMethodName, t.request(), func(m *wireMessage) error {
			p.progress()
			return t.take(m)
		})
		if takeErr != nil {
			return takeErr
		}
		if callErr == nil {
			return t.end()
		}
		if err := p.again(ctx, callErr); err != nil {
			return err
		}
	}
}

// finishFile gets what is left of a file in whose middle the connection broke.
func (c *Client) finishFile(ctx context.Context, t *treeReader) error {
	if t.file == nil {
		return nil
	}
	o := t.o
	if t.last.Path != "" {
		o.Path = joinPath(o.Path, t.last.Path)
	}
	o.CID, o.Info = t.last.CID, t.last.Info
	r := &store.Range{From: t.last.Info.Size - t.left, To: t.last.Info.Size}
	n, err := c.Get(ctx, o, r, t.file)
	t.left -= uint64(n)
	if err != nil {
		return err
	}
	return t.closeFile()
}

func joinPath(dir, path string) string {
	if dir == "" {
		return path
	}
	return dir + "/" + path
}

// A treeReader takes a tree from the parts in which it comes.
type treeReader struct {
	o     store.Object
	v     store.Visitor
	order *receivedOrder
	last  store.Entry
	file  io.WriteCloser // of last, until all of it came
	left  uint64         // bytes of file that are to come
}

// request asks for the tree, or what is left of it.
func (t *treeReader) request() proto.Message {
	ref, path := place(t.o)
	return &scalev1.GetTreeRequest{Ref: ref, Path: path, After: []byte(t.last.Path)}
}

func (t *treeReader) take(m *wireMessage) error {
	if len(m.b) == 0 {
		return errNothing
	}
	return m.fields(func(n protowire.Number, part []byte) error {
		if n != 1 {
			return nil
		}
		if len(part) == 0 {
			return errNothing
		}
		came, empty := false, false
		err := wireFields(part, func(n protowire.Number, value []byte) error {
			if n == 2 && len(value) == 0 { // the same as none
				empty = true
				return nil
			}
			came = true
			switch n {
			case 1:
				var e scalev1.TreeEntry
				if err := proto.Unmarshal(value, &e); err != nil {
					return nodeErrorf("an entry that is no protobuf: %w", err)
				}
				return t.entry(&e)
			case 2:
				return t.data(value)
			}
			return nil
		})
		if err == nil && empty && !came {
			err = errNothing
		}
		return err
	})
}

func (t *treeReader) entry(te *scalev1.TreeEntry) error {
	if t.file != nil {
		return nodeErrorf("%d bytes of %.300q did not come", t.left, t.last.Path)
	}
	var p parser
	e := p.entry(te, false)
	if p.err != nil {
		return p.err
	}
	if e.Path == "" {
		e.CID = t.o.CID
	}
	if e.Path == "" && t.order.begun && t.last.Path == "" {
		return nil // the connection broke behind the root, which has come again
	}
	if err := t.order.next(e); err != nil {
		return err
	}
	t.last = e
	switch e.Info.Kind {
	case dag.KindDir:
		return t.v.Dir(e.Path, e.Info.Attr)
	case dag.KindLink:
		return t.v.Link(e.Path, e.Info.Target, e.Info.Attr)
	}
	var err error
	if t.file, err = t.v.File(e.Path, e.Info.Attr, e.Info.Size); err != nil {
		t.file = nil
		return err
	}
	if t.left = e.Info.Size; t.left == 0 {
		return t.closeFile()
	}
	return nil
}

func (t *treeReader) data(b []byte) error {
	if t.file == nil || uint64(len(b)) > t.left {
		return nodeErrorf("more bytes of %.300q came than it has", t.last.Path)
	}
	n, err := t.file.Write(b)
	t.left -= uint64(n)
	if err != nil || t.left > 0 {
		return err
	}
	return t.closeFile()
}

func (t *treeReader) closeFile() error {
	f := t.file
	t.file = nil
	return f.Close()
}

// end checks that nothing is missing.
func (t *treeReader) end() error {
	if t.file != nil {
		return nodeErrorf("%d bytes of %.300q did not come", t.left, t.last.Path)
	}
	return t.order.end()
}
