package grpcapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// ExportCAR writes the DAG of o as a CARv1, as store.Store.ExportCAR does. Every block has
// been compared with its CID, and the CID with the links that lead to it from o, before it
// is written: what is written whole is what o.CID names, whatever the node is.
func (c *Client) ExportCAR(ctx context.Context, o store.Object, w io.Writer) error {
	req := &scalev1.ExportCarRequest{}
	req.Ref, req.Path = place(o)
	p := patience{c: c}
	out := &skippingWriter{w: w}
	car := newCarChecker(o.CID, out)
	for whole := false; ; {
		if whole {
			out.at, car = 0, newCarChecker(o.CID, out)
		}
		req.Offset = car.received
		began := out.done
		callErr, err := c.receive(ctx, scalev1.DatasetService_ExportCar_FullMethodName, req, func(m *wireMessage) error {
			if len(m.b) == 0 {
				return errNothing
			}
			before := out.done
			err := m.fields(func(n protowire.Number, data []byte) error {
				if n != 1 {
					return nil
				}
				return car.take(data)
			})
			if out.done > before {
				p.progress()
			}
			return err
		})
		if callErr == nil && err == nil {
			err = car.end()
		}
		switch {
		case callErr == nil && err == nil:
			return nil
		case req.Offset > 0 && out.done == began && (errors.Is(err, ErrNode) || errors.Is(callErr, ErrUnreachable)):
			// A node of an older version, which begins at the beginning; or one that says
			// nothing for too long while it reads up to there.
			whole = true
		case callErr == nil:
			return fmt.Errorf("export %s: %w", o, err)
		default:
			// The same object always gives the same bytes, so what was written stays.
			if err := p.again(ctx, callErr); err != nil {
				return fmt.Errorf("export %s: %w", o, err)
			}
		}
	}
}

// A skippingWriter leaves out what it has written before.
type skippingWriter struct {
	w    io.Writer
	at   int64 // in the stream
	done int64 // written to w
}

func (s *skippingWriter) Write(b []byte) (int, error) {
	n := len(b)
	skip := min(max(s.done-s.at, 0), int64(n))
	s.at += int64(n)
	if b = b[skip:]; len(b) == 0 {
		return n, nil
	}
	k, err := s.w.Write(b)
	s.done += int64(k)
	if err != nil {
		return int(skip) + k, err
	}
	return n, nil
}

// A carChecker lets a CAR pass whose blocks are those of a DAG, each once, in depth-first
// order. It holds one block, and remembers the CIDs that it has seen and those to come.
type carChecker struct {
	received uint64 // bytes, those of buf too

	w    io.Writer
	buf  []byte // of a section that is not complete
	head bool   // the header has passed
	root cid.Cid
	next []cid.Cid // to come, the last one first
	seen map[cid.Cid]struct{}
}

func newCarChecker(root cid.Cid, w io.Writer) *carChecker {
	return &carChecker{w: w, root: root, next: []cid.Cid{root}, seen: map[cid.Cid]struct{}{}}
}

// maxSection bounds a section: a CID and a block.
const maxSection = 64 + dag.MaxBlock

func (c *carChecker) take(data []byte) error {
	c.received += uint64(len(data))
	c.buf = append(c.buf, data...)
	at := 0
	for at < len(c.buf) {
		size, n := binary.Uvarint(c.buf[at:])
		if n < 0 || n > 4 || n > 0 && (size == 0 || size > maxSection) {
			return nodeErrorf("a section of a CAR that is too long, or empty")
		}
		if n == 0 || len(c.buf)-at-n < int(size) {
			if n == 0 && len(c.buf)-at >= 4 {
				return nodeErrorf("a section of a CAR that is too long")
			}
			break
		}
		end := at + n + int(size)
		if err := c.section(c.buf[at+n : end]); err != nil {
			return err
		}
		if _, err := c.w.Write(c.buf[at:end]); err != nil {
			return err
		}
		at = end
	}
	c.buf = append(c.buf[:0], c.buf[at:]...)
	return nil
}

func (c *carChecker) section(b []byte) error {
	if !c.head {
		c.head = true
		if !bytes.Equal(b, store.CARHeader(c.root)) {
			return nodeErrorf("the header of the CAR does not name %v alone", c.root)
		}
		return nil
	}
	want := c.pop()
	if !want.Defined() {
		return nodeErrorf("the CAR goes on behind the last block of %v", c.root)
	}
	block, ok := bytes.CutPrefix(b, want.Bytes())
	if !ok {
		return nodeErrorf("the CAR does not have block %v in its place", want)
	}
	d, err := dag.DigestOf(want)
	if err != nil {
		return nodeErrorf("block %v: %w", want, err)
	}
	if sha256.Sum256(block) != d {
		return nodeErrorf("block %v: %w", want, store.ErrMismatch)
	}
	if want.Prefix().Codec == cid.Raw {
		return nil
	}
	node, err := merkledag.DecodeProtobuf(block)
	if err != nil {
		return nodeErrorf("block %v: %w", want, err)
	}
	links := node.Links()
	for i := len(links) - 1; i >= 0; i-- {
		c.next = append(c.next, links[i].Cid)
	}
	return nil
}

// pop returns the next block that has to come.
func (c *carChecker) pop() cid.Cid {
	for n := len(c.next); n > 0; n = len(c.next) {
		id := c.next[n-1]
		c.next = c.next[:n-1]
		if _, ok := c.seen[id]; !ok {
			c.seen[id] = struct{}{}
			return id
		}
	}
	return cid.Undef
}

func (c *carChecker) end() error {
	if want := c.pop(); want.Defined() || !c.head || len(c.buf) > 0 {
		return nodeErrorf("the CAR of %v ends early", c.root)
	}
	return nil
}
