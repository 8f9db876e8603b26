package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

type proofs struct {
	scalev1.UnimplementedProofServiceServer
	*Server
}

// proofBytes is what a proof takes that has no manifest: its text, and what it is made from.
const proofBytes = 256 << 10

// largeProof is above what several at a time are held until they are sent.
const largeProof = 1 << 20

// Prove implements ProofServiceServer.
func (p *proofs) Prove(req *scalev1.ProveRequest, ss grpc.ServerStreamingServer[scalev1.ProveResponse]) error {
	ctx := ss.Context()
	o, err := p.resolve(ctx, req.GetRef(), req.GetPath())
	if err != nil {
		return err
	}
	isFile := o.Info.Kind == dag.KindFile
	switch {
	case req.GetRange() != nil && !isFile:
		return invalidf("range", "%s is a %v, not a file", o, o.Info.Kind)
	case req.GetWithData() && !isFile:
		return invalidf("with_data", "%s is a %v, not a file", o, o.Info.Kind)
	case req.GetManifest() && o.Path != "":
		return invalidf("manifest", "%s is inside a dataset, and only a whole one has a manifest", o)
	case req.GetManifest() && req.GetRange() != nil:
		return invalidf("manifest", "it does not go with a range")
	}
	opt := store.ProveOptions{Manifest: req.GetManifest()}
	if !isPrivate(ctx) { // the owner may want one all the same
		opt.ManifestBytes = uint64(p.lim.SendBytes)
	}
	if req.GetRange() != nil {
		r, err := byteRange(req.GetRange(), o.Info.Size)
		if err != nil {
			return err
		}
		opt.Range = &r
	}
	if opt.Manifest {
		wait, cancel := context.WithTimeoutCause(ctx, p.lim.WriteWait, &RetryAfter{
			Err: fmt.Errorf("%w: others prove with a manifest and take their time", ErrLimit), After: p.lim.WriteWait,
		})
		err := p.reads.names.enter(wait)
		cancel()
		if err != nil {
			return err
		}
	}
	leave := sync.OnceFunc(func() {
		if opt.Manifest {
			p.reads.names.leave()
		}
	})
	defer leave()
	if err := p.reserve(ctx, proofBytes); err != nil {
		return err
	}
	if err := p.reads.small.enter(ctx); err != nil {
		return err
	}
	text, covered, err := p.prove(ctx, o, opt)
	p.reads.small.leave()
	if err != nil {
		return err
	}
	// What is larger than most keeps its turn until it is sent.
	if len(text) > largeProof {
		accountOf(ctx).keep(len(text))
	} else if err := p.reserve(ctx, len(text)); err != nil {
		return err
	} else {
		leave()
	}
	if o.Info.Kind == dag.KindLink { // whose size is that of its target
		covered = store.Range{}
	}
	info := &scalev1.ProofInfo{
		Dataset: protoDataset(&o.Dataset), Start: covered.From, End: covered.To, ProofSize: uint64(len(text)),
	}
	if o.Path != "" {
		info.Entry = objectEntry(&o, o.Path)
	}
	first := true
	for first || len(text) > 0 {
		resp := &scalev1.ProveResponse{Proof: text[:min(len(text), p.lim.PieceBytes, pieceSize)]}
		if first {
			resp.Info, first = info, false
		}
		if err := ss.Send(resp); err != nil {
			return err
		}
		text = text[len(resp.Proof):]
	}
	if !req.GetWithData() || covered.From == covered.To {
		return nil
	}
	return p.sendFile(ctx, ss, o, covered, proveDataField)
}

// prove returns a proof file and what it covers.
func (p *proofs) prove(ctx context.Context, o store.Object, opt store.ProveOptions) ([]byte, store.Range, error) {
	covered := store.Range{To: o.Info.Size}
	make := p.store.Prove
	if p.opt.Anchors != nil {
		make = p.opt.Anchors.Prove
	}
	pr, err := make(ctx, o, opt)
	if err != nil {
		return nil, covered, err
	}
	if pr.Range != nil {
		covered = store.Range{From: pr.Range.Offset, To: pr.Range.Offset + pr.Range.Size()}
	}
	text, err := pr.Format()
	return text, covered, err
}

// Verify implements ProofServiceServer.
func (p *proofs) Verify(ctx context.Context, req *scalev1.VerifyRequest) (*scalev1.VerifyResponse, error) {
	trust, err := trustOf(req)
	if err != nil {
		return nil, err
	}
	resp := &scalev1.VerifyResponse{}
	v, err := verify(ctx, req, trust)
	if v != nil {
		describe(resp, v)
	}
	switch {
	case err == nil:
		resp.Valid = true
	case errors.Is(err, proof.ErrLarge): // says nothing against it
		return nil, err
	case errors.Is(err, proof.ErrRefused), errors.Is(err, proof.ErrFormat):
		resp.Refusal = strings.ToValidUTF8(err.Error(), "\uFFFD")
	default:
		return nil, err
	}
	return resp, nil
}

func trustOf(req *scalev1.VerifyRequest) (proof.Trust, error) {
	var t proof.Trust
	policy := strings.TrimSpace(req.GetPolicy())
	var err error
	switch {
	case policy == "":
		return t, inField("policy", proof.ErrNoKey)
	case len(policy) > maxRequest:
		return t, invalidf("policy", "%d bytes, must be at most %d", len(policy), maxRequest)
	case strings.ContainsAny(policy, " \n"):
		t.Policy, err = proof.ParsePolicy([]byte(req.GetPolicy()))
	default:
		t.Policy, err = proof.TrustKey(policy)
	}
	if err != nil {
		return t, invalidf("policy", "%w", err)
	}
	for i, b := range req.GetCurators() {
		k, err := curatorKey(fmt.Sprintf("curators[%d]", i), b)
		if err != nil {
			return t, err
		}
		t.Curators = append(t.Curators, k)
	}
	return t, nil
}

// verifyBytes bounds what the manifest of a proof takes in memory that is verified for a
// caller. A proof of 3 MiB has some 60,000 files, which take a fifth of it.
const verifyBytes = 32 << 20

// verify checks a proof, and what it is said to be of. What was proven is returned also
// if the data is not that.
func verify(ctx context.Context, req *scalev1.VerifyRequest, trust proof.Trust) (*proof.Verified, error) {
	pr, err := proof.ParseWithin(req.GetProof(), verifyBytes)
	if errors.Is(err, proof.ErrLarge) {
		return nil, inField("proof", err)
	}
	if err != nil {
		return nil, err
	}
	v, err := pr.Verify(trust)
	if err != nil {
		return nil, err
	}
	switch what := req.GetWhat().(type) {
	case *scalev1.VerifyRequest_Data:
		return v, checkData(ctx, v, what.Data)
	case *scalev1.VerifyRequest_Cid:
		c, err := cid.Decode(what.Cid)
		if err != nil {
			return nil, invalidf("cid", "%w", err)
		}
		return v, v.CheckRoot(c)
	}
	return v, nil
}

// checkData compares data with what was proven.
func checkData(ctx context.Context, v *proof.Verified, data []byte) error {
	if v.Scope == proof.ScopeEntry {
		return fmt.Errorf("%w: the proof is of an entry of kind %v, which has no data", proof.ErrRefused, v.Entry.Kind)
	}
	if v.File != nil && v.File.Leaf.Kind == dag.KindLink {
		return v.CheckLink(string(data))
	}
	whole := *v
	if v.Scope == proof.ScopeRange {
		if n := uint64(len(data)); n == v.Range.Size() || n != v.File.Leaf.Size {
			return v.CheckRange(bytes.NewReader(data))
		}
		whole.Scope = proof.ScopeFile // its leaf is in the proof of the range
	}
	profile, err := dag.LookupProfile(v.Entry.Profile)
	if err != nil {
		return fmt.Errorf("%w: %w", proof.ErrRefused, err)
	}
	f, err := dag.HashFile(ctx, profile, bytes.NewReader(data), nil, dag.Attr{Mode: dag.DefaultFileMode})
	if err != nil {
		return err
	}
	return whole.CheckFile(f)
}

func describe(resp *scalev1.VerifyResponse, v *proof.Verified) {
	e := v.Entry
	resp.Scope, resp.Name, resp.Entry, resp.Origin = v.Scope.String(), e.Name, v.Index, v.Checkpoint.Origin
	resp.ClaimedTime, resp.Curator, resp.CuratorTrusted = protoTime(e.Time), e.Curator[:], v.CuratorTrusted
	if e.Root.Defined() {
		resp.Cid = e.Root.String()
	}
	resp.End = e.Size
	if v.File != nil {
		l := v.File.Leaf
		resp.Path, resp.End = []byte(strings.TrimSuffix(l.Path, "/")), l.Size
		if l.Kind != dag.KindFile {
			resp.Scope, resp.End = kindWord(l.Kind), 0
		}
	}
	if r := v.Range; r != nil {
		resp.Start, resp.End = r.Offset, r.Offset+r.Size()
	}
}

func kindWord(k dag.Kind) string {
	if k == dag.KindLink {
		return "link"
	}
	return "directory"
}
