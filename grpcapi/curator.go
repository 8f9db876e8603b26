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
	p, changed, err := c.change(ctx, req.GetCurator(), req.GetSignedEntry(), c.store.AddCurator)
	if err != nil {
		return nil, err
	}
	return &scalev1.AddCuratorResponse{Policy: protoPolicy(&p), Unchanged: !changed, Checkpoint: c.checkpoint(c.store.Published())}, nil
}

// RemoveCurator implements CuratorServiceServer.
func (c *curators) RemoveCurator(ctx context.Context, req *scalev1.RemoveCuratorRequest) (*scalev1.RemoveCuratorResponse, error) {
	p, changed, err := c.change(ctx, req.GetCurator(), req.GetSignedEntry(), c.store.RemoveCurator)
	if err != nil {
		return nil, err
	}
	return &scalev1.RemoveCuratorResponse{Policy: protoPolicy(&p), Unchanged: !changed, Checkpoint: c.checkpoint(c.store.Published())}, nil
}

func (c *curators) change(ctx context.Context, key, block []byte,
	change func(context.Context, ledger.CuratorKey, store.Signer) (store.PolicyInfo, bool, error)) (store.PolicyInfo, bool, error) {
	k, err := curatorKey("curator", key)
	if err != nil {
		return store.PolicyInfo{}, false, err
	}
	sig, err := signer("signed_entry", block)
	if err != nil {
		return store.PolicyInfo{}, false, err
	}
	return change(ctx, k, sig)
}
