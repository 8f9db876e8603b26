package grpcapi

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Challenge asks for samples of a dataset, as store.Store.Challenge does. What the node
// answers is bounded and handed on: package audit says whether it holds. The call ends when
// the samples have been consumed, or with ctx.
func (c *Client) Challenge(ctx context.Context, o store.Object, seed []byte, count int) (*store.Challenge, error) {
	if o.Path != "" || len(seed) < audit.MinSeed || len(seed) > audit.MaxSeed || count < 1 || count > audit.MaxCount {
		return nil, fmt.Errorf("challenge of %s: needs a whole dataset, a seed of %d to %d bytes and 1 to %d samples: %w",
			o, audit.MinSeed, audit.MaxSeed, audit.MaxCount, store.ErrInvalid)
	}
	ref, _ := place(o)
	a := &answer{o: o, left: count}
	a.ctx, a.idle = watchIdle(ctx)
	err := a.begin(c, &scalev1.ChallengeRequest{Ref: ref, Seed: seed, Count: uint32(count)})
	if err != nil {
		a.idle.stop()
		return nil, fmt.Errorf("challenge of %s: %w", o, err)
	}
	return &store.Challenge{Dataset: o.Dataset, Head: a.head, Samples: a.samples}, nil
}

// An answer is the stream that answers a challenge.
type answer struct {
	ctx    context.Context // of the call, which goes on behind Challenge
	idle   *idleWatch
	stream grpc.ServerStreamingClient[scalev1.ChallengeResponse]
	o      store.Object
	head   audit.Head
	first  *scalev1.AuditSample // came with the head
	left   int
}

// begin makes the call and takes its first message, which has the head.
func (a *answer) begin(c *Client, req *scalev1.ChallengeRequest) (err error) {
	if a.stream, err = c.audits.Challenge(a.ctx, req); err != nil {
		return callError(a.ctx, a.idle.cause(err))
	}
	r, err := a.stream.Recv()
	if err == io.EOF {
		return nodeErrorf("the answer is empty")
	}
	if err != nil {
		return callError(a.ctx, a.idle.cause(err))
	}
	a.idle.pause()
	a.first = r.GetSample()
	a.head = audit.Head{Entry: r.GetHead().GetEntry(), Checkpoint: r.GetHead().GetCheckpoint().GetNote()}
	if len(a.head.Entry) > ledger.MaxEntry || len(a.head.Checkpoint) > ledger.MaxCheckpoint {
		return nodeErrorf("a head that is too long")
	}
	if id := ledger.EntryCID(a.head.Entry); id != a.o.Dataset.EntryCID {
		return nodeErrorf("the answer is of entry %v", id)
	}
	return nil
}

func (a *answer) samples(yield func(audit.Sample, error) bool) {
	defer a.idle.stop()
	for {
		s := a.first
		a.first = nil // only the first message may come without
		if s == nil {
			a.idle.wait()
			r, err := a.stream.Recv()
			if err == io.EOF {
				if a.left > 0 {
					yield(audit.Sample{}, nodeErrorf("%d samples of %s did not come", a.left, a.o))
				}
				return
			}
			if err != nil {
				yield(audit.Sample{}, fmt.Errorf("challenge of %s: %w", a.o, callError(a.ctx, a.idle.cause(err))))
				return
			}
			a.idle.pause()
			if s = r.GetSample(); s == nil {
				yield(audit.Sample{}, errNothing)
				return
			}
		}
		if a.left--; a.left < 0 {
			yield(audit.Sample{}, nodeErrorf("more samples of %s came than were asked for", a.o))
			return
		}
		ok := yield(audit.Sample{
			Draw: int(s.GetDraw()), Position: s.GetPosition(), Path: string(s.GetPath()), FileStart: s.GetFileStart(),
			ChunkStart: s.GetChunkStart(), Proof: s.GetProof(), Data: s.GetData(),
		}, nil)
		if !ok {
			return
		}
	}
}
