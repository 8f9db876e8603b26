package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/filecache"
	"github.com/koii-network/scale/store/ingest"
)

// clientPools are what all puts of a client share. They are made by the first.
type clientPools struct {
	get func() (*ingest.Pools, *ingest.Frames, error)
}

func (p *clientPools) init(o DialOptions) error {
	// An unknown level is better told now.
	if _, err := compress.ParseLevel(o.Level.String()); err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	type pools struct {
		slabs  *ingest.Pools
		frames *ingest.Frames
	}
	made := sync.OnceValues(func() (pools, error) {
		f, err := ingest.NewFrames(ingest.FrameOptions{Seal: compress.SealOptions{Level: o.Level}})
		// More slabs than processors hide the way to the node.
		return pools{ingest.NewPools(ingest.PoolOptions{Slabs: 4 * ingest.Workers()}), f}, err
	})
	p.get = func() (*ingest.Pools, *ingest.Frames, error) {
		m, err := made()
		return m.slabs, m.frames, err
	}
	return nil
}

// Put stores datasets, as store.Store.Put does: all in one commit. It cuts and hashes them
// at this end, asks the node which chunks it lacks, sends these, compressed, and then the
// list of what the datasets are made of. The node builds them anew and must come to the
// same CID.
//
// A Path under a name that the node has is hashed before anything is sent: if that very
// dataset is there, nothing else is.
//
// Broken connections are made again, and only what has not arrived is sent once more. If
// that does not help, the node keeps what it has for the next put of the same data.
func (c *Client) Put(ctx context.Context, in []store.Input, o store.PutOptions) ([]store.PutResult, error) {
	sets := make([]*clientSet, len(in))
	for i := range in {
		s, err := newClientSet(&in[i], o)
		if err != nil {
			return nil, err
		}
		if sets[i] = s; in[i].Heal != in[0].Heal || in[i].Heal && (in[i].Known.Defined() || len(in[i].Parents) > 0) {
			return nil, fmt.Errorf("a put that gives blocks back needs the data, and appends nothing: %w", store.ErrInvalid)
		}
	}
	for _, s := range sets {
		if s.signer == nil {
			continue
		}
		if err := c.checkSigner(ctx, s.signer); err != nil {
			return nil, err
		}
		break // it is one signer as a rule, and the node looks at each
	}
	p := &clientPut{c: c, ctx: ctx, opt: o, sets: sets}
	defer p.free()
	for try := 1; ; try++ {
		res, err := p.run()
		if err == nil {
			p.remember()
			return res, nil
		}
		// A node that lost chunks which it had, or said so, gets them again.
		if !errors.Is(err, store.ErrMissing) || try == 3 || !p.repeatable() {
			return nil, p.keptError(err)
		}
		c.log.Warn("putting again", "after", err)
	}
}

// A clientSet is one input on its way.
type clientSet struct {
	in      *store.Input
	signer  store.Signer
	profile *dag.Profile
	known   bool // the node has this dataset, and nothing but its CID is sent
	result  ingest.Result
	list    *manifest // what is committed, unless known
	files   filecache.Walk
	added   *uploadTally
}

func newClientSet(in *store.Input, o store.PutOptions) (*clientSet, error) {
	if err := ledger.CheckName(in.Name); err != nil && (!in.Heal || in.Name != "") {
		return nil, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	given := 0
	for _, is := range []bool{in.Reader != nil, in.Path != "", in.Source != nil, in.Known.Defined()} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, fmt.Errorf("dataset %s needs one of a reader, a path, a source and a known dataset: %w", in.Name, store.ErrInvalid)
	}
	name := in.Profile
	if name == "" {
		name = dag.DefaultProfile
	}
	p, err := dag.LookupProfile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	s := &clientSet{in: in, profile: p, signer: o.Curator}
	if in.Curator != nil {
		s.signer = in.Curator
	}
	if in.Heal { // nothing is appended
		s.signer = nil
	}
	return s, nil
}

// A clientPut is one Put.
type clientPut struct {
	c    *Client
	ctx  context.Context // of the call
	opt  store.PutOptions
	sets []*clientSet
	sent atomic.Uint64
}

func (p *clientPut) free() {
	for _, s := range p.sets {
		s.files.Close()
		s.files = filecache.Walk{}
		if s.list != nil {
			s.list.free()
			s.list = nil
		}
	}
}

// remember keeps what the files were made of for the next put.
func (p *clientPut) remember() {
	for _, s := range p.sets {
		if err := s.files.Next.Commit(); err != nil {
			p.c.log.Warn("what was put is read again the next time", "err", err)
		}
	}
}

// keptError adds to an error what became of what was sent.
func (p *clientPut) keptError(err error) error {
	if p.sent.Load() == 0 {
		return err
	}
	for _, s := range p.sets {
		if s.added != nil && s.added.new.Load() > 0 {
			return fmt.Errorf("%w; %w", err, errKept)
		}
	}
	return fmt.Errorf("%w; %w", err, errSent)
}

// repeatable reports whether the inputs can be read again.
func (p *clientPut) repeatable() bool {
	for _, s := range p.sets {
		if s.in.Reader != nil || s.in.Source != nil {
			return false
		}
	}
	return true
}

func (p *clientPut) run() ([]store.PutResult, error) {
	p.free()
	if err := p.upload(); err != nil {
		return nil, err
	}
	var res []store.PutResult
	var signer store.Signer
	for _, s := range p.sets {
		if s.signer != nil {
			signer = s.signer
		}
	}
	err := signing(signer, func() (err error) {
		res, err = p.commit()
		return err
	})
	return res, err
}

// upload reads the inputs and brings to the node what it lacks.
func (p *clientPut) upload() error {
	u := newUploader(p.ctx, p.c, &p.sent)
	ctx := u.ctx // what is under way ends when it fails
	var before ingest.Progress
	for _, s := range p.sets {
		if s.in.Known.Defined() {
			s.known, s.added = true, &uploadTally{}
			continue
		}
		var last ingest.Progress
		progress := func(now ingest.Progress) {
			if last = now; p.opt.Progress != nil {
				p.opt.Progress(store.Progress{
					Bytes: before.Bytes + now.Bytes, Files: before.Files + now.Files, Unread: before.Unread + now.Unread, Sent: p.sent.Load(),
				})
			}
		}
		err := p.look(ctx, s, progress)
		if err == nil && !s.known {
			last = ingest.Progress{}
			err = p.dataset(ctx, u, s, progress)
		}
		if err == nil && s.in.Root.Defined() && s.in.Root != s.result.Tree.Root {
			err = fmt.Errorf("its root is %v, not %v: %w", s.result.Tree.Root, s.in.Root, store.ErrMismatch)
		}
		if err != nil {
			u.fail(err)
			u.wait()
			return fmt.Errorf("put %s: %w", s.in.Name, err)
		}
		before = ingest.Progress{Bytes: before.Bytes + last.Bytes, Files: before.Files + last.Files, Unread: before.Unread + last.Unread}
	}
	return u.wait()
}

// input begins to read an input, or to read it again.
func (p *clientPut) input(s *clientSet) *ingest.Input {
	s.files.Close()
	s.files = p.c.opt.FileCache.Begin(s.in.Path, s.profile.Name, s.in.Rescan || s.in.Heal)
	return &ingest.Input{
		Reader: s.in.Reader, Path: s.in.Path, Source: s.in.Source, Profile: s.profile, Times: s.in.Times,
		Exclude: s.in.Exclude, SkipUnreadable: s.in.SkipUnreadable, Sort: extsort.Options{Scratch: p.scratch()},
		Files: s.files.Past,
	}
}

func (p *clientPut) scratch() extsort.Scratch {
	dir := p.c.opt.TempDir
	if dir == "" {
		dir = os.TempDir()
	}
	return fstree.Scratch(dir)
}

// look hashes an input that can be read twice, and finds out whether the node has it.
func (p *clientPut) look(ctx context.Context, s *clientSet, progress func(ingest.Progress)) error {
	s.added = &uploadTally{}
	if s.in.Path == "" || s.in.Heal { // the entry is there, and says nothing of the blocks
		return nil
	}
	newest, err := p.c.Resolve(ctx, s.in.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if d := &newest.Dataset; d.Profile != s.profile.Name || d.Times != s.in.Times {
		return nil
	}
	slabs, _, err := p.c.pools.get()
	if err != nil {
		return err
	}
	in := p.input(s)
	s.result, err = slabs.Run(ctx, in, &ingest.Output{
		Index: everything{}, Chunks: nothing{}, Nodes: discard{}, Files: s.files.Next, Progress: progress,
	})
	if err != nil {
		return err
	}
	// An older version, or another name, is as good.
	t := &s.result.Tree
	if newest.Dataset.CID != t.Root {
		newest, err = p.c.Resolve(ctx, t.Root.String())
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	d := &newest.Dataset
	s.known = d.CID == t.Root && d.Commitment == t.Commitment && d.Profile == s.profile.Name && d.Times == s.in.Times
	return nil
}

// everything is an index that knows all chunks, and nothing takes none.
type (
	everything struct{}
	nothing    struct{}
)

func (everything) Known(_ context.Context, _ []ingest.Chunk, known []bool) error {
	for i := range known {
		known[i] = true
	}
	return nil
}

func (nothing) Add(context.Context, []ingest.NewChunk, bool) error { return nil }

// dataset reads an input and sends the chunks that the node lacks.
func (p *clientPut) dataset(ctx context.Context, u *uploader, s *clientSet, progress func(ingest.Progress)) error {
	slabs, frames, err := p.c.pools.get()
	if err != nil {
		return err
	}
	s.list = &manifest{scratch: p.scratch()}
	s.added = u.begin()
	packer := ingest.NewPacker(frames, u.send)
	in := p.input(s)
	s.result, err = slabs.Run(ctx, in, &ingest.Output{
		Index: lookup{p.c}, Chunks: packer, Nodes: discard{}, Manifest: s.list, Files: s.files.Next, Progress: progress,
	})
	if ferr := packer.Flush(); err == nil {
		err = ferr
	}
	return err
}
