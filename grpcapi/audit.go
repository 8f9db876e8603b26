package grpcapi

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag/audit"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

type audits struct {
	scalev1.UnimplementedAuditServiceServer
	*Server
}

// sampleBytes is what a sample takes: a chunk and its proof. mostSamples is how many there
// are at a time, with those that are being sent.
const (
	sampleBytes = pieceSize + 32<<10
	mostSamples = 40
)

// Challenge implements AuditServiceServer.
func (a *audits) Challenge(req *scalev1.ChallengeRequest, ss grpc.ServerStreamingServer[scalev1.ChallengeResponse]) error {
	ctx := ss.Context()
	if n := len(req.GetSeed()); n < audit.MinSeed || n > audit.MaxSeed {
		return invalidf("seed", "%d bytes, must be %d to %d", n, audit.MinSeed, audit.MaxSeed)
	}
	if n := req.GetCount(); n < 1 || n > uint32(a.lim.ChallengeSamples) {
		return invalidf("count", "%d, must be 1 to %d", n, a.lim.ChallengeSamples)
	}
	o, err := a.resolveDataset(ctx, req.GetRef())
	if err != nil {
		return err
	}
	// The samples of a frame are made together.
	if err := a.reserve(ctx, min(int(req.GetCount())+3, mostSamples)*sampleBytes); err != nil {
		return err
	}
	c, err := a.store.Challenge(ctx, o, req.GetSeed(), int(req.GetCount()))
	if err != nil {
		return err
	}
	err = ss.Send(&scalev1.ChallengeResponse{Head: &scalev1.AuditHead{
		Dataset: protoDataset(&c.Dataset), Entry: c.Head.Entry, Checkpoint: a.checkpointOf(c.Head.Checkpoint),
	}})
	if err != nil {
		return err
	}
	next, stop := iter.Pull2(c.Samples)
	defer stop()
	for {
		s, ok, err := a.sample(ctx, next)
		if err != nil || !ok {
			return err
		}
		err = ss.Send(&scalev1.ChallengeResponse{Sample: &scalev1.AuditSample{
			Draw: uint32(s.Draw), Position: s.Position, Path: []byte(s.Path), FileStart: s.FileStart,
			ChunkStart: s.ChunkStart, Proof: s.Proof, Data: s.Data,
		}})
		if err != nil {
			return err
		}
	}
}

// sample reads the next sample. It has a place in the engine only that long, not while the
// sample is sent.
func (a *audits) sample(ctx context.Context, next func() (audit.Sample, error, bool)) (audit.Sample, bool, error) {
	if err := a.reads.small.enter(ctx); err != nil {
		return audit.Sample{}, false, err
	}
	defer a.reads.small.leave()
	s, err, ok := next()
	return s, ok, err
}
