package grpcapi

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// knownByName takes the metadata "name" for who calls.
func knownByName(ctx context.Context) (Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("name"); len(v) == 1 {
		return Identity{Name: v[0], Scope: read}, nil
	}
	return Identity{}, ErrToken
}

// Callers who have not said who they are can ask for the node's health, and keep nobody out
// by it.
func TestStrangersKeepNobodyOut(t *testing.T) {
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = knownByName
		n.opt.Limits.Calls = 16
		n.opt.Logger = slog.New(slog.NewTextHandler(n.log, nil))
	})
	strangers := healthpb.NewHealthClient(n.dial().conn)
	watch := func(ctx context.Context) error {
		w, err := strangers.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		return err
	}
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	for i := range 2 { // an eighth
		if err := watch(ctx); err != nil {
			t.Fatalf("watch %d: %v", i, err)
		}
	}
	for range 20 {
		if err := watch(ctx); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one too many: %v", err)
		}
		if _, err := strangers.Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one too many: %v", err)
		}
		if _, err := n.node.GetInfo(ctx, &scalev1.GetInfoRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("info for a stranger: %v", err)
		}
	}
	if text := n.log.String(); strings.Contains(text, "Health") || strings.Contains(text, "GetInfo") {
		t.Errorf("strangers write the log:\n%s", text)
	}
	for i := range 8 {
		ctx := metadata.AppendToOutgoingContext(ctx, "name", fmt.Sprint("caller ", i))
		if err := watch(ctx); err != nil {
			t.Errorf("watch of a caller who is known: %v", err)
		}
		if _, err := n.node.GetInfo(ctx, &scalev1.GetInfoRequest{}); err != nil {
			t.Errorf("info for a caller who is known: %v", err)
		}
	}
}
