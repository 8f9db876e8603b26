package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
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

// commit has the node record the datasets. It may be repeated: what has been recorded
// already is then found unchanged.
func (p *clientPut) commit() ([]store.PutResult, error) {
	pt := patience{c: p.c}
	doubt := false // a try told the node all, and the node did not tell what it did
	for {
		t := p.commitOnce()
		err := t.err
		if err == nil && t.callErr == nil {
			return t.res, nil
		}
		if t.told && !saidByNode(t.callErr) {
			doubt = !p.sets[0].in.Heal
			if t.callErr != nil {
				t.callErr = broken(t.callErr)
			}
		}
		if t.callErr != nil {
			if err = pt.again(p.ctx, t.callErr); err == nil {
				continue
			}
		}
		if doubt {
			err = fmt.Errorf("%w: %w", ErrOutcome, err)
		}
		return nil, err
	}
}

// A commitTry is what became of a try to commit.
type commitTry struct {
	res     []store.PutResult
	told    bool  // to the end, so that the node may have recorded it
	callErr error // what the call ended with
	err     error // without the call, or after its answer
}

func (p *clientPut) commitOnce() (t commitTry) {
	ctx, idle := watchIdle(p.ctx)
	defer idle.stop()
	s, err := p.c.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, scalev1.BlockService_Commit_FullMethodName, grpc.ForceCodecV2(wireCodec{}))
	if err != nil {
		return commitTry{callErr: idle.cause(err)}
	}
	err = p.sendSets(s, idle)
	if err != nil && err != io.EOF { // of EOF, RecvMsg has the reason
		return commitTry{err: err}
	}
	if err == nil {
		t.told = true
		if err := s.CloseSend(); err != nil {
			t.callErr = idle.cause(err)
			return t
		}
	}
	idle.wait()
	var r scalev1.CommitResponse
	if err := s.RecvMsg(&r); err != nil {
		t.callErr = idle.cause(err)
		return t
	}
	t.res, t.err = p.results(&r)
	return t
}

// sendSets sends the datasets. io.EOF says that the call has ended.
func (p *clientPut) sendSets(s grpc.ClientStream, idle *idleWatch) error {
	send := func(b []byte) error {
		idle.wait()
		err := s.SendMsg(&wireMessage{b})
		idle.pause()
		return err
	}
	for _, set := range p.sets {
		b, err := proto.Marshal(&scalev1.CommitRequest{Part: &scalev1.CommitRequest_Header{Header: set.header()}})
		if err != nil {
			return err
		}
		if err := send(b); err != nil {
			return err
		}
		if !set.known {
			if err := set.list.messages(send); err != nil {
				return err
			}
		}
		if set.signer == nil {
			continue
		}
		block, err := p.signed(set)
		if err != nil {
			return err
		}
		if err := send(protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), block)); err != nil {
			return err
		}
	}
	return nil
}

func (s *clientSet) header() *scalev1.CommitHeader {
	h := &scalev1.CommitHeader{
		Name: s.in.Name, Profile: s.profile.Name, Times: s.in.Times, Known: s.known,
		NewBytes: s.added.new.Load(), StoredBytes: s.added.stored.Load(), Heal: s.in.Heal,
	}
	for _, i := range s.in.Parents {
		h.Parents = append(h.Parents, fmt.Sprintf(":%d", i))
	}
	if s.in.Known.Defined() {
		h.Cid = s.in.Known.String()
	} else {
		h.Cid = s.result.Tree.Root.String()
	}
	return h
}

// signed returns the entry of a dataset, signed at this end.
func (p *clientPut) signed(s *clientSet) ([]byte, error) {
	t := s.result.Tree
	if s.in.Known.Defined() {
		o, err := p.c.Resolve(p.ctx, s.in.Known.String())
		if err != nil {
			return nil, err
		}
		d := &o.Dataset
		t = dag.Tree{Root: d.CID, Size: d.Size, Files: d.Files, Leaves: d.Leaves, Chunks: d.Chunks, Commitment: d.Commitment}
	}
	return p.c.signDataset(p.ctx, s.signer, s.in, s.profile.Name, &t)
}

// results checks what the node says that it has recorded.
func (p *clientPut) results(r *scalev1.CommitResponse) ([]store.PutResult, error) {
	var q parser
	at := q.checkpoint(r.GetCheckpoint())
	if q.err == nil {
		q.err = p.c.checkSigned(at)
	}
	if len(r.GetResults()) != len(p.sets) {
		q.failf("%d results of %d datasets", len(r.GetResults()), len(p.sets))
		return nil, q.err
	}
	res := make([]store.PutResult, len(p.sets))
	for i, m := range r.GetResults() {
		s, d := p.sets[i], q.dataset(m.GetDataset())
		want := s.in.Known
		if !want.Defined() {
			want = s.result.Tree.Root
			if d.Commitment != s.result.Tree.Commitment {
				q.failf("dataset %s has another commitment", s.in.Name)
			}
		}
		name := s.in.Name
		if s.in.Heal && name == "" {
			name = d.Name
		}
		if s.in.Heal && !m.GetUnchanged() {
			q.failf("blocks of %s were to be given back, and an entry was appended", d.Name)
		}
		if d.Name != name || d.CID != want || d.Profile != s.profile.Name || d.Entry >= at.Size {
			q.failf("put %s with root %v, got %s with root %v, entry :%d of %d", s.in.Name, want, d.Name, d.CID, d.Entry, at.Size)
		}
		if s.signer != nil && d.Curator != s.signer.Curator() {
			q.failf("dataset %s was to be signed by %v, and is by %v", d.Name, s.signer.Curator(), d.Curator)
		}
		res[i] = store.PutResult{Dataset: d, Unchanged: m.GetUnchanged(), TreeSize: at.Size, Unread: s.result.Unread}
		if res[i].Unchanged && !s.in.Known.Defined() {
			res[i].NewBytes, res[i].Stored = s.added.new.Load(), s.added.stored.Load()
		}
		for _, sk := range s.result.Skipped {
			res[i].Skipped = append(res[i].Skipped, store.Skipped{Path: sk.Path, Why: sk.Why, Special: errors.Is(sk.Why, fstree.ErrSpecial)})
		}
	}
	return res, q.err
}
