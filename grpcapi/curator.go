package grpcapi

import (
	"context"

	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

type curators struct {
	scalev1.UnimplementedCuratorServiceServer
	*Server
}

// ListCurators implements CuratorServiceServer.
func (c *curators) ListCurators(ctx context.Context, _ *scalev1.ListCuratorsRequest) (*scalev1.ListCuratorsResponse, error) {
	p, err := c.store.Policy(ctx)
	if err != nil {
		return nil, err
	}
	return &scalev1.ListCuratorsResponse{Policy: protoPolicy(&p)}, nil
}

// AddCurator implements CuratorServiceServer.
func (c *curators) AddCurator(ctx context.Context, req *scalev1.AddCuratorRequest) (*scalev1.AddCuratorResponse, error) {
	key, err := curatorKey("curator", req.GetCurator())
	if err != nil {
		return nil, err
	}
	p, changed, err := c.change(ctx, key, req.GetSignedEntry(), c.store.AddCurator)
	if err != nil {
		return nil, err
	}
	return &scalev1.AddCuratorResponse{Policy: protoPolicy(&p), Unchanged: !changed, Checkpoint: c.checkpoint(c.store.Published())}, nil
}

// RemoveCurator implements CuratorServiceServer.
func (c *curators) RemoveCurator(ctx context.Context, req *scalev1.RemoveCuratorRequest) (*scalev1.RemoveCuratorResponse, error) {
	key, err := curatorBytes("curator", req.GetCurator()) // what is no key can go
	if err != nil {
		return nil, err
	}
	p, changed, err := c.change(ctx, key, req.GetSignedEntry(), c.store.RemoveCurator)
	if err != nil {
		return nil, err
	}
	return &scalev1.RemoveCuratorResponse{Policy: protoPolicy(&p), Unchanged: !changed, Checkpoint: c.checkpoint(c.store.Published())}, nil
}

func (c *curators) change(ctx context.Context, key ledger.CuratorKey, block []byte,
	change func(context.Context, ledger.CuratorKey, store.Signer) (store.PolicyInfo, bool, error)) (store.PolicyInfo, bool, error) {
	sig, err := signer("signed_entry", block)
	if err != nil {
		return store.PolicyInfo{}, false, err
	}
	return change(ctx, key, sig)
}
