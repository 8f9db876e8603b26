package grpcapi

import (
	"context"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Put implements DatasetServiceServer.
func (d *datasets) Put(ss grpc.ClientStreamingServer[scalev1.PutRequest, scalev1.PutResponse]) error {
	ctx := ss.Context()
	src := &putSource{lim: &d.lim, recv: ss.RecvMsg, order: treeOrder{lim: &d.lim}}
	defer src.close()
	in, err := d.putInput(ctx, src)
	if err != nil {
		return err
	}
	res, err := d.store.Put(ctx, []store.Input{in}, store.PutOptions{})
	if err != nil {
		return err
	}
	return ss.SendAndClose(&scalev1.PutResponse{Result: putResult(&res[0]), Checkpoint: d.checkpoint(d.store.Published())})
}

func putResult(r *store.PutResult) *scalev1.PutResult {
	return &scalev1.PutResult{Dataset: protoDataset(&r.Dataset), Unchanged: r.Unchanged}
}

// putInput reads the header and returns what it says is put.
func (d *datasets) putInput(ctx context.Context, src *putSource) (store.Input, error) {
	var none store.Input
	if err := src.next(); err == io.EOF || err == nil && src.m.header == nil {
		return none, invalidf("header", "the first message must be a header")
	} else if err != nil {
		return none, err
	}
	h := src.m.header
	src.m.header = nil
	in := store.Input{Name: h.GetName(), Profile: h.GetProfile(), Times: h.GetTimes()}
	if err := checkName("header.name", h.GetName()); err != nil {
		return none, err
	}
	if err := checkProfile("header.profile", h.GetProfile()); err != nil {
		return none, err
	}
	var err error
	if in.Parents, err = d.parents(ctx, h.GetParents()); err != nil {
		return none, err
	}
	if h.GetCid() != "" {
		if in.Root, err = cid.Decode(h.GetCid()); err != nil {
			return none, invalidf("header.cid", "%w", err)
		}
	}
	if src.size = h.Size; h.Size != nil && h.GetSize() > d.lim.DatasetBytes {
		return none, inField("header.size", fmt.Errorf("%w: %d bytes, must be at most %d", ErrLimit, h.GetSize(), d.lim.DatasetBytes))
	}
	kind, err := kindOf("header.kind", h.GetKind())
	switch {
	case err != nil:
		return none, err
	case kind == dag.KindLink:
		return none, invalidf("header.kind", "a dataset is a file or a directory")
	case kind == dag.KindDir && h.Mode != nil:
		return none, invalidf("header.mode", "it is of a file; send the root as an entry with a mode")
	case kind == dag.KindDir && h.Mtime != nil:
		return none, invalidf("header.mtime", "it is of a file; send the root as an entry with a time")
	case kind == dag.KindDir:
		in.Source = src
	case h.Mode == nil && h.Mtime == nil:
		in.Reader = &fileBody{src}
	default:
		attr, err := attributes(kind, h.Mode, h.GetMtime())
		if err != nil {
			return none, inMessage("header", err)
		}
		in.Source = &fileSource{&store.SourceEntry{Kind: kind, Attr: attr, Body: &fileBody{src}}}
	}
	return in, nil
}

// A fileSource is a dataset of one file.
type fileSource struct{ entry *store.SourceEntry }

func (f *fileSource) Next(context.Context) (*store.SourceEntry, error) {
	e := f.entry
	if f.entry = nil; e == nil {
		return nil, io.EOF
	}
	return e, nil
}

// A putSource is the tree that a put sends. It belongs to the goroutine that reads it.
type putSource struct {
	lim     *Limits
	recv    func(any) error
	size    *uint64 // of all files, if the caller said it
	total   uint64  // received
	order   treeOrder
	m       putMessage // the one that is being consumed
	piece   int        // bytes of data in it so far
	ended   bool       // the caller has sent all
	file    bool       // data belongs to a file
	pending []*store.SourceEntry
}

var _ store.Source = (*putSource)(nil)

// next goes on to the next entry of the message, or receives one. io.EOF is the end, with
// all that was to come.
func (p *putSource) next() error {
	if p.ended {
		return io.EOF
	}
	err := p.m.next()
	if err == io.EOF {
		p.piece = 0
		err = p.recv(&p.m)
	}
	if err == io.EOF {
		p.ended = true
		if p.size != nil && *p.size != p.total {
			return invalidf("header.size", "%d bytes were announced, %d came", *p.size, p.total)
		}
		return err
	}
	if err != nil {
		return err
	}
	if p.m.header == nil && p.m.entry == nil && !p.m.has {
		return invalidf("part", "a message without one")
	}
	n := p.m.data.len()
	if p.piece += n; p.piece > p.lim.PieceBytes {
		return fmt.Errorf("%w: a piece of %d bytes, must be at most %d", ErrLimit, p.piece, p.lim.PieceBytes)
	}
	if p.total += uint64(n); p.total > p.lim.DatasetBytes {
		return fmt.Errorf("%w: more than %d bytes", ErrLimit, p.lim.DatasetBytes)
	}
	if p.size != nil && p.total > *p.size {
		return invalidf("header.size", "%d bytes were announced, more came", *p.size)
	}
	return nil
}

func (p *putSource) close() { p.m.free() }

// Next implements store.Source.
func (p *putSource) Next(context.Context) (*store.SourceEntry, error) {
	if len(p.pending) == 0 {
		if err := p.entry(); err != nil {
			return nil, err
		}
	}
	e := p.pending[0]
	p.pending = p.pending[1:]
	return e, nil
}

// entry receives the next entry, and puts the directories before it that were not sent.
func (p *putSource) entry() error {
	for p.m.entry == nil {
		// What is left of a file is not read any more; what comes for none is an error.
		err := p.next()
		switch {
		case err == io.EOF && p.order.entries == 0:
			// An empty directory that nothing is said of.
			p.order.entries++
			p.pending = append(p.pending, impliedDir(""))
			return nil
		case err != nil:
			return err
		case p.m.header != nil:
			return invalidf("header", "only the first message is a header")
		case p.m.entry == nil && !p.file:
			return invalidf("data", "it follows no file")
		}
	}
	m := p.m.entry
	p.m.entry = nil
	kind, err := kindOf("entry.kind", m.GetKind())
	if err != nil {
		return err
	}
	e := &store.SourceEntry{Path: string(m.GetPath()), Kind: kind, Target: string(m.GetTarget())}
	if e.Attr, err = attributes(kind, m.Mode, m.GetMtime()); err != nil {
		return fmt.Errorf("%q: %w", e.Path, inMessage("entry", err))
	}
	if err := p.order.enter(e, &p.pending); err != nil {
		return inMessage("entry", err)
	}
	p.file = kind == dag.KindFile
	switch {
	case p.file:
		e.Body = &treeBody{p}
	case p.m.data.len() > 0:
		return invalidf("entry.data", "%q is not a file", e.Path)
	}
	if err := checkTarget(kind, e.Target); err != nil {
		return fmt.Errorf("%q: %w", e.Path, inMessage("entry", err))
	}
	return nil
}

// enter checks an entry of a tree and appends it, behind the directories that were left
// out before it.
func (t *treeOrder) enter(e *store.SourceEntry, to *[]*store.SourceEntry) error {
	if t.entries == 0 && e.Path != "" {
		if _, err := t.add("", dag.KindDir); err != nil {
			return err
		}
		*to = append(*to, impliedDir(""))
	}
	missing, err := t.add(e.Path, e.Kind)
	if err != nil {
		return err
	}
	for _, dir := range missing {
		*to = append(*to, impliedDir(dir))
	}
	*to = append(*to, e)
	return nil
}

func impliedDir(path string) *store.SourceEntry {
	return &store.SourceEntry{Path: path, Kind: dag.KindDir, Attr: dag.Attr{Mode: dag.DefaultDirMode}}
}

// A treeBody reads one file of a tree: up to the next entry.
type treeBody struct{ p *putSource }

func (b *treeBody) Read(buf []byte) (int, error) {
	p := b.p
	for {
		switch {
		case p.m.entry != nil: // its data is that of the next file
			return 0, io.EOF
		case p.m.header != nil:
			return 0, invalidf("header", "only the first message is a header")
		case p.m.data.len() > 0:
			return p.m.data.read(buf), nil
		}
		if err := p.next(); err != nil {
			return 0, err
		}
	}
}

// A fileBody reads the only file of a dataset.
type fileBody struct{ p *putSource }

func (b *fileBody) Read(buf []byte) (int, error) {
	p := b.p
	for p.m.data.len() == 0 {
		if err := p.next(); err != nil {
			return 0, err
		}
		if p.m.header != nil || p.m.entry != nil {
			return 0, invalidf("data", "of a file nothing but data follows the header")
		}
	}
	return p.m.data.read(buf), nil
}
