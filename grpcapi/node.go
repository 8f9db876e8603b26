package grpcapi

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store/check"
)

type nodes struct {
	scalev1.UnimplementedNodeServiceServer
	*Server
}

// GetInfo implements NodeServiceServer.
func (n *nodes) GetInfo(context.Context, *scalev1.GetInfoRequest) (*scalev1.GetInfoResponse, error) {
	resp := &scalev1.GetInfoResponse{
		Version: n.opt.Version, Origin: n.store.Origin(), Vkey: n.store.VerifierKey(),
		Profiles: dag.ProfileNames(), Limits: n.lim.proto(),
	}
	if err := n.readOnly(); err != nil {
		resp.ReadOnly = errorText(n.tellable(err))
	}
	return resp, nil
}

// GetTotals implements NodeServiceServer.
func (n *nodes) GetTotals(ctx context.Context, _ *scalev1.GetTotalsRequest) (*scalev1.GetTotalsResponse, error) {
	// It walks every dataset.
	if err := n.reads.totals.enter(ctx); err != nil {
		return nil, err
	}
	t, err := n.store.Totals(ctx)
	n.reads.totals.leave()
	if err != nil {
		return nil, err
	}
	return &scalev1.GetTotalsResponse{
		Datasets: t.Datasets, Logical: t.Logical, Unique: t.Unique, Packed: t.Packed, Stored: t.Stored,
		Reclaimable: t.Reclaimable, Chunks: t.Chunks, TreeSize: t.TreeSize,
	}, nil
}

// Check implements NodeServiceServer.
func (n *nodes) Check(req *scalev1.CheckRequest, ss grpc.ServerStreamingServer[scalev1.CheckResponse]) error {
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	if err := n.reads.check.enter(ctx); err != nil {
		return err
	}
	defer n.reads.check.leave()
	view, err := n.store.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer view.Close()
	send := func(m *scalev1.CheckResponse) {
		if err := ss.Send(m); err != nil {
			cancel(err)
		}
	}
	sum, err := check.Run(ctx, view.Dir, check.Options{
		ReadData: req.GetReadData(),
		Live:     &check.Live{Rows: view.Rows, HighWater: view.HighWater},
		Sort:     view.Sort,
		Report: func(f check.Finding) {
			send(&scalev1.CheckResponse{Part: &scalev1.CheckResponse_Finding{Finding: n.finding(&f)}})
		},
		Progress: func(p check.Progress) {
			send(&scalev1.CheckResponse{Part: &scalev1.CheckResponse_Progress{Progress: &scalev1.CheckProgress{Stage: p.Stage, Done: p.Done, Total: p.Total}}})
		},
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return ss.Send(&scalev1.CheckResponse{Part: &scalev1.CheckResponse_Summary{Summary: &scalev1.CheckSummary{
		Errors: sum.Errors, Warnings: sum.Warnings, Notes: sum.Notes, Entries: sum.Entries, Datasets: sum.Datasets, Rows: sum.Rows,
		Packs: uint64(sum.Packs), Frames: sum.Frames, Chunks: sum.Chunks, Plain: sum.Plain, Garbage: sum.Garbage, Read: sum.Read,
	}}})
}

func (n *nodes) finding(f *check.Finding) *scalev1.CheckFinding {
	p := &scalev1.CheckFinding{Severity: f.Severity.String(), What: text(f.What), More: f.More, Do: text(f.Do)}
	for _, a := range f.Affected {
		p.Affected = append(p.Affected, text(a))
	}
	return p
}

// text makes a string one that protobuf can carry.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (n *nodes) tokens() (TokenStore, error) {
	if n.opt.Tokens == nil {
		return nil, status.Error(codes.Unimplemented, "this node keeps no tokens")
	}
	return n.opt.Tokens, nil
}

func protoToken(t *Token) *scalev1.Token {
	return &scalev1.Token{Name: t.Name, Scope: t.Scope, Created: protoTime(t.Created), Expires: protoTime(t.Expires)}
}

// CreateToken implements NodeServiceServer.
func (n *nodes) CreateToken(_ context.Context, req *scalev1.CreateTokenRequest) (*scalev1.CreateTokenResponse, error) {
	ts, err := n.tokens()
	if err != nil {
		return nil, err
	}
	if err := CheckTokenName(req.GetName()); err != nil {
		return nil, invalidf("name", "%w", err)
	}
	expires, err := timeOf("expires", req.GetExpires())
	if err != nil {
		return nil, err
	}
	t, secret, err := ts.Create(req.GetName(), req.GetScope(), expires)
	if err != nil {
		return nil, err
	}
	return &scalev1.CreateTokenResponse{Token: protoToken(&t), Secret: secret}, nil
}

// ListTokens implements NodeServiceServer.
func (n *nodes) ListTokens(context.Context, *scalev1.ListTokensRequest) (*scalev1.ListTokensResponse, error) {
	ts, err := n.tokens()
	if err != nil {
		return nil, err
	}
	list, err := ts.List()
	if err != nil {
		return nil, err
	}
	resp := &scalev1.ListTokensResponse{}
	for i := range list {
		resp.Tokens = append(resp.Tokens, protoToken(&list[i]))
	}
	return resp, nil
}

// RevokeToken implements NodeServiceServer.
func (n *nodes) RevokeToken(_ context.Context, req *scalev1.RevokeTokenRequest) (*scalev1.RevokeTokenResponse, error) {
	ts, err := n.tokens()
	if err != nil {
		return nil, err
	}
	if err := CheckTokenName(req.GetName()); err != nil {
		return nil, invalidf("name", "%w", err)
	}
	if err := ts.Revoke(req.GetName()); err != nil {
		return nil, err
	}
	n.endVoid()
	n.store.Settle()
	return &scalev1.RevokeTokenResponse{}, nil
}
