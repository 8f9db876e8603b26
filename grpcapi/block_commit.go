package grpcapi

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/ipfs/go-cid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Commit implements BlockServiceServer.
func (b *blocks) Commit(ss grpc.ClientStreamingServer[scalev1.CommitRequest, scalev1.CommitResponse]) error {
	ctx := ss.Context()
	batch, err := b.store.NewBatch()
	if err != nil {
		return err
	}
	src := &commitSource{lim: &b.lim, recv: ss.RecvMsg}
	defer src.close()
	for n := 0; ; n++ {
		more, err := b.commitOne(ctx, src, batch)
		if err != nil {
			return fmt.Errorf("dataset %d: %w", n, err)
		}
		if !more {
			break
		}
	}
	res, err := batch.Commit(ctx)
	if err != nil {
		return err
	}
	resp := &scalev1.CommitResponse{Checkpoint: b.checkpoint(b.store.Published())}
	for i := range res {
		resp.Results = append(resp.Results, putResult(&res[i]))
	}
	return ss.SendAndClose(resp)
}

// commitOne adds the next dataset to the batch. It reports false at the end of the commit.
func (b *blocks) commitOne(ctx context.Context, src *commitSource, batch *store.Batch) (bool, error) {
	if src.m.header == nil { // otherwise it came when the dataset before ended
		if err := src.next(); err == io.EOF {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	h := src.m.header
	if h == nil {
		return false, invalidf("header", "a dataset begins with a header")
	}
	src.begin()
	in := store.Input{Name: h.GetName(), Profile: h.GetProfile(), Times: h.GetTimes(), Heal: h.GetHeal()}
	if in.Name != "" || !in.Heal {
		if err := checkName("header.name", h.GetName()); err != nil {
			return false, err
		}
	}
	if err := checkProfile("header.profile", h.GetProfile()); err != nil {
		return false, err
	}
	var err error
	if in.Parents, err = b.parents(ctx, h.GetParents()); err != nil {
		return false, err
	}
	var root cid.Cid
	if h.GetCid() != "" {
		if root, err = cid.Decode(h.GetCid()); err != nil {
			return false, invalidf("header.cid", "%w", err)
		}
	}
	switch {
	case in.Heal && (h.GetKnown() || len(in.Parents) > 0):
		return false, invalidf("header.heal", "nothing is appended, so the dataset is not \"known\" and has no parents")
	case h.GetKnown() && !root.Defined():
		return false, invalidf("header.cid", "a dataset that is known needs one")
	case h.GetKnown():
		in.Known = root
	default:
		in.Source, in.Root = src, root
	}
	if err := batch.Add(ctx, in, store.Uploaded{New: h.GetNewBytes(), Stored: h.GetStoredBytes()}); err != nil {
		return false, err
	}
	sig, err := src.finish()
	if err != nil || sig == nil {
		return true, err
	}
	if in.Heal {
		return false, invalidf("signed_entry", "nothing is appended, so nothing is signed")
	}
	batch.Sign(sig)
	return true, nil
}

// A commitSource is the datasets of a commit, one after the other.
type commitSource struct {
	lim     *Limits
	recv    func(any) error
	m       commitMessage // the one that is being consumed
	ended   bool          // the caller has sent all
	order   treeOrder     // of the dataset under way, as is all below
	single  bool          // it is one file
	file    bool          // chunks belong to a file
	total   uint64        // bytes of its files
	pending []*store.SourceEntry
}

var _ store.Source = (*commitSource)(nil)

// begin makes ready for the entries behind a header.
func (c *commitSource) begin() {
	c.m.header = nil
	c.order, c.single, c.file, c.total, c.pending = treeOrder{lim: c.lim}, false, false, 0, nil
}

// next receives a message.
func (c *commitSource) next() error {
	if c.ended {
		return io.EOF
	}
	c.m.free()
	err := c.recv(&c.m)
	if err == io.EOF {
		c.ended = true
	}
	return err
}

func (c *commitSource) close() { c.m.free() }

// over reports whether the dataset under way has no more entries.
func (c *commitSource) over() bool { return c.ended || c.m.header != nil || c.m.signed != nil }

// finish receives what follows the entries of a dataset: the end, another header, or the
// entry that the caller has signed.
func (c *commitSource) finish() (store.Signer, error) {
	if !c.over() {
		if err := c.next(); err != nil && err != io.EOF {
			return nil, err
		}
	}
	switch {
	case c.m.signed != nil:
		sig, err := signer("signed_entry", c.m.signed)
		c.m.free()
		return sig, err
	case c.over():
		return nil, nil
	}
	return nil, invalidf("entries", "of a dataset that is known, or is whole already, no more come")
}

// Next implements store.Source.
func (c *commitSource) Next(context.Context) (*store.SourceEntry, error) {
	for len(c.pending) == 0 {
		if err := c.entry(); err != nil {
			return nil, err
		}
	}
	e := c.pending[0]
	c.pending = c.pending[1:]
	return e, nil
}

// entry takes the next entry, and puts the directories before it that were not sent.
func (c *commitSource) entry() error {
	b, err := c.entryBytes()
	if err != nil {
		return err
	}
	m := &scalev1.CommitEntry{}
	has := false
	head, err := split(b, entryChunksField, func([]byte) error { has = true; return nil })
	if err == nil {
		err = unmarshal(head, m)
	}
	if err != nil {
		return inField("entries", err)
	}
	kind, err := kindOf("entries.kind", m.GetKind())
	if err != nil {
		return err
	}
	e := &store.SourceEntry{Path: string(m.GetPath()), Kind: kind, Target: string(m.GetTarget())}
	if e.Attr, err = attributes(kind, m.Mode, m.GetMtime()); err != nil {
		return fmt.Errorf("%q: %w", e.Path, inMessage("entries", err))
	}
	if c.order.entries == 0 && e.Path == "" && kind == dag.KindFile {
		c.single = true
		c.order.entries++
		c.pending = append(c.pending, e)
	} else if c.single {
		return invalidf("entries", "a dataset of one file has no other entry")
	} else if err := c.order.enter(e, &c.pending); err != nil {
		return inMessage("entries", err)
	}
	c.file = kind == dag.KindFile
	switch {
	case c.file:
		e.Chunks = c.chunks(b)
	case has:
		return invalidf("entries.chunks", "%q is not a file", e.Path)
	}
	if err := checkTarget(kind, e.Target); err != nil {
		return fmt.Errorf("%q: %w", e.Path, inMessage("entries", err))
	}
	return nil
}

// entryBytes returns the next CommitEntry. io.EOF is the end of the dataset.
func (c *commitSource) entryBytes() ([]byte, error) {
	for {
		if v, ok, err := nextField(&c.m.entries, entriesField); ok || err != nil {
			return v, err
		}
		// What is left of a file's chunks is not read any more.
		if !c.over() {
			if err := c.next(); err != nil && err != io.EOF {
				return nil, err
			}
		}
		switch {
		case c.over() && c.order.entries == 0:
			return nil, invalidf("entries", "a dataset has at least one")
		case c.over():
			return nil, io.EOF
		case c.m.chunks != nil && !c.file:
			return nil, invalidf("chunks", "they follow no file")
		}
	}
}

// chunks yields the chunks of a file: those of its CommitEntry, and those in messages of
// chunks that follow.
func (c *commitSource) chunks(entry []byte) iter.Seq2[store.Chunk, error] {
	return func(yield func(store.Chunk, error) bool) {
		give := func(v []byte) bool {
			ch, err := decodeChunk(v)
			if err == nil {
				if c.total += uint64(ch.Size); c.total > c.lim.DatasetBytes {
					err = fmt.Errorf("%w: more than %d bytes", ErrLimit, c.lim.DatasetBytes)
				}
			} else {
				err = inField("chunks", err)
			}
			return yield(ch, err) && err == nil
		}
		// list gives the chunks in a message, and reports whether to go on.
		list := func(b *[]byte, num protowire.Number) bool {
			for {
				v, ok, err := nextField(b, num)
				if err != nil {
					yield(store.Chunk{}, inField("chunks", err))
					return false
				}
				if !ok {
					return true
				}
				if !give(v) {
					return false
				}
			}
		}
		if !list(&entry, entryChunksField) {
			return
		}
		for len(c.m.entries) == 0 && !c.over() {
			if !list(&c.m.chunks, listChunksField) {
				return
			}
			if err := c.next(); err != nil && err != io.EOF {
				yield(store.Chunk{}, err)
				return
			}
		}
	}
}

// nextField takes the next field num from b, and skips others.
func nextField(b *[]byte, num protowire.Number) (v []byte, ok bool, err error) {
	for len(*b) > 0 {
		n, typ, head := protowire.ConsumeTag(*b)
		if head < 0 {
			return nil, false, malformed(protowire.ParseError(head))
		}
		size := protowire.ConsumeFieldValue(n, typ, (*b)[head:])
		if size < 0 {
			return nil, false, malformed(protowire.ParseError(size))
		}
		raw := (*b)[head : head+size]
		*b = (*b)[head+size:]
		if n != num {
			continue
		}
		if typ != protowire.BytesType {
			return nil, false, wrongType("a field")
		}
		v, _ = protowire.ConsumeBytes(raw)
		return v, true, nil
	}
	return nil, false, nil
}

// A commitMessage is a CommitRequest. What it holds lies in a buffer that free gives back.
type commitMessage struct {
	header  *scalev1.CommitHeader
	entries []byte // of CommitEntries, what is not consumed
	chunks  []byte // of a ChunkList, what is not consumed; not nil if that is what it is
	signed  []byte
	buf     mem.Buffer
}

func (m *commitMessage) free() {
	if m.buf != nil {
		m.buf.Free()
	}
	*m = commitMessage{}
}

func (m *commitMessage) decode(data mem.BufferSlice) error {
	*m = commitMessage{buf: data.MaterializeToBuffer(mem.DefaultBufferPool())}
	has := false
	err := eachField(m.buf.ReadOnlyData(), func(num protowire.Number, typ protowire.Type, v, _ []byte) error {
		if num > commitSignedField {
			return nil
		}
		if typ != protowire.BytesType {
			return wrongType("a part of a commit")
		}
		has = true
		m.header, m.entries, m.chunks, m.signed = nil, nil, nil, nil // of several the last counts
		switch num {
		case commitHeaderField:
			if len(v) > maxHead {
				return tooLong("header", len(v))
			}
			m.header = &scalev1.CommitHeader{}
			return unmarshal(v, m.header)
		case commitEntriesField:
			m.entries = v
		case commitChunksField:
			m.chunks = v[:len(v):len(v)]
			if m.chunks == nil {
				m.chunks = []byte{}
			}
		case commitSignedField:
			if len(v) == 0 {
				return invalidf("signed_entry", "it is empty")
			}
			m.signed = v
		}
		return nil
	})
	if err == nil && !has {
		err = invalidf("part", "a message without one")
	}
	if err != nil {
		m.free()
	}
	return err
}
