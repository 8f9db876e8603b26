package grpcapi

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

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
