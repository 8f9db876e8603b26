package grpcapi

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koii-network/scale/dag"
	dagproof "github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// proofBound is the most bytes that a proof of o can have.
func proofBound(o store.Object, opt store.ProveOptions) int {
	// The entry, the paths and the checkpoint are some kilobytes, a range has the size of
	// each chunk and a manifest every leaf, its path and its target.
	n := float64(1 << 20)
	if opt.Range != nil {
		n += 16 * float64(o.Dataset.Chunks)
	}
	if opt.Manifest {
		n += 2 * float64(o.Dataset.Leaves) * (dag.MaxPath + dag.MaxTarget + 128)
	}
	return int(min(n, dagproof.MaxProof))
}

// Prove returns a proof that o is in the node's ledger, as store.Store.Prove does. It is a
// proof of what was asked for, and it holds for the key that the node says is its log's.
func (c *Client) Prove(ctx context.Context, o store.Object, opt store.ProveOptions) (*dagproof.Proof, error) {
	p, err := c.prove(ctx, o, opt)
	if err != nil {
		return nil, fmt.Errorf("prove %s: %w", o, err)
	}
	return p, nil
}

func (c *Client) prove(ctx context.Context, o store.Object, opt store.ProveOptions) (*dagproof.Proof, error) {
	req := &scalev1.ProveRequest{Manifest: opt.Manifest}
	req.Ref, req.Path = place(o)
	if opt.Range != nil {
		req.Range = &scalev1.ByteRange{Start: opt.Range.From, End: &opt.Range.To}
	}
	pt, most := patience{c: c}, proofBound(o, opt)
	for {
		var b []byte
		callErr, takeErr := c.receive(ctx, scalev1.ProofService_Prove_FullMethodName, req, func(m *wireMessage) error {
			if len(m.b) == 0 {
				return errNothing
			}
			return m.fields(func(n protowire.Number, part []byte) error {
				if n != 2 {
					return nil // what it covers, the proof says itself
				}
				if len(b)+len(part) > most {
					return nodeErrorf("a proof of more than %d bytes", most)
				}
				b = append(b, part...)
				return nil
			})
		})
		switch {
		case takeErr != nil:
			return nil, takeErr
		case callErr != nil:
			if err := pt.again(ctx, callErr); err != nil {
				return nil, err
			}
		default:
			return c.checkProof(b, o, opt)
		}
	}
}

// checkProof parses a proof and checks that it is what was asked for.
func (c *Client) checkProof(b []byte, o store.Object, opt store.ProveOptions) (*dagproof.Proof, error) {
	p, err := dagproof.Parse(b)
	if err != nil {
		return nil, nodeErrorf("%w", err)
	}
	policy, err := dagproof.TrustKey(c.info.VKey)
	if err != nil {
		return nil, nodeErrorf("the log's key: %w", err)
	}
	v, err := p.Verify(dagproof.Trust{Policy: policy})
	if err != nil {
		return nil, nodeErrorf("%w", err)
	}
	if v.Index != o.Dataset.Entry || v.CID != o.Dataset.EntryCID || v.Entry.Root != o.Dataset.CID {
		return nil, nodeErrorf("the proof is of entry :%d %v", v.Index, v.CID)
	}
	scope := dagproof.ScopeDataset
	switch {
	case opt.Range != nil:
		scope = dagproof.ScopeRange
	case o.Path != "":
		scope = dagproof.ScopeFile
	}
	if v.Scope != scope || v.HasManifest != opt.Manifest {
		return nil, nodeErrorf("the proof is of a %v, not of a %v", v.Scope, scope)
	}
	if v.File != nil {
		want := o.Path
		if o.Info.Kind == dag.KindDir {
			want += "/"
		}
		if l := v.File.Leaf; l.Path != want || l.Kind != o.Info.Kind || l.Kind == dag.KindFile && l.Size != o.Info.Size {
			return nil, nodeErrorf("the proof is of %.300q", l.Path)
		}
	}
	if r := v.Range; r != nil && (r.Offset > opt.Range.From || r.Offset+r.Size() < min(opt.Range.To, o.Info.Size)) {
		return nil, nodeErrorf("the proof is of bytes %d to %d", r.Offset, r.Offset+r.Size())
	}
	return p, nil
}
