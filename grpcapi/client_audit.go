package grpcapi

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// AuditOptions says what an audit asks, and what it believes.
type AuditOptions struct {
	audit.Challenge
	Trust    proof.Trust
	Manifest *proof.Proof // proves which file each sample is from; nil without that
	// Progress, if set, is told of the bytes of the samples that have come. They begin at 0
	// again when the challenge has to be repeated.
	Progress func(bytes uint64)
}

// Audit challenges the node, as Challenge does, and verifies what it answers, as audit.Verify
// does. After a broken connection it asks the same again: what the node has signed by then
// may be another checkpoint, so that samples that came before would not go with those that
// come.
func (c *Client) Audit(ctx context.Context, o store.Object, q AuditOptions) (*audit.Result, error) {
	p := patience{c: c}
	most := 0
	for {
		r, n, callErr, err := c.auditOnce(ctx, o, q)
		if callErr == nil {
			return r, err
		}
		if n > most {
			most = n
			p.progress()
		}
		if err := p.again(ctx, callErr); err != nil {
			return nil, fmt.Errorf("challenge of %s: %w", o, err)
		}
	}
}

// auditOnce returns how many samples have come as well.
func (c *Client) auditOnce(ctx context.Context, o store.Object, q AuditOptions) (r *audit.Result, n int, callErr, err error) {
	a, err := c.challenge(ctx, o, q.Seed, q.Count)
	if a == nil {
		return nil, 0, nil, err
	}
	defer a.idle.stop() // an answer that does not hold is not heard to its end
	if err == nil {
		bytes := uint64(0)
		r, err = audit.Verify(q.Challenge, a.head, func(yield func(audit.Sample, error) bool) {
			for s, err := range a.samples {
				if err == nil {
					n++
				}
				if bytes += uint64(len(s.Data)); q.Progress != nil {
					q.Progress(bytes)
				}
				if !yield(s, err) {
					return
				}
			}
		}, q.Trust, q.Manifest)
	}
	return r, n, a.callErr, err
}

// Challenge asks for samples of a dataset, as store.Store.Challenge does. What the node
// answers is bounded and handed on: package audit says whether it holds. The call ends when
// the samples have been consumed, or with ctx.
func (c *Client) Challenge(ctx context.Context, o store.Object, seed []byte, count int) (*store.Challenge, error) {
	a, err := c.challenge(ctx, o, seed, count)
	if err != nil {
		if a != nil {
			a.idle.stop()
		}
		return nil, err
	}
	return &store.Challenge{Dataset: o.Dataset, Head: a.head, Samples: a.samples}, nil
}

// challenge begins a challenge. An answer that it returns has to be stopped, also one that
// comes with an error.
func (c *Client) challenge(ctx context.Context, o store.Object, seed []byte, count int) (*answer, error) {
	if o.Path != "" || len(seed) < audit.MinSeed || len(seed) > audit.MaxSeed || count < 1 || count > audit.MaxCount {
		return nil, fmt.Errorf("challenge of %s: needs a whole dataset, a seed of %d to %d bytes and 1 to %d samples: %w",
			o, audit.MinSeed, audit.MaxSeed, audit.MaxCount, store.ErrInvalid)
	}
	ref, _ := place(o)
	a := &answer{o: o, left: count}
	a.ctx, a.idle = watchIdle(ctx)
	if err := a.begin(c, &scalev1.ChallengeRequest{Ref: ref, Seed: seed, Count: uint32(count)}); err != nil {
		return a, fmt.Errorf("challenge of %s: %w", o, err)
	}
	return a, nil
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
	// callErr is what the call has ended with, if it was not in good order.
	callErr error
}

// failed notes that the call has ended, and returns why.
func (a *answer) failed(err error) error {
	a.callErr = a.idle.cause(err)
	return callError(a.ctx, a.callErr)
}

// begin makes the call and takes its first message, which has the head.
func (a *answer) begin(c *Client, req *scalev1.ChallengeRequest) (err error) {
	if a.stream, err = c.audits.Challenge(a.ctx, req); err != nil {
		return a.failed(err)
	}
	r, err := a.stream.Recv()
	if err == io.EOF {
		return nodeErrorf("the answer is empty")
	}
	if err != nil {
		return a.failed(err)
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
				yield(audit.Sample{}, fmt.Errorf("challenge of %s: %w", a.o, a.failed(err)))
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
