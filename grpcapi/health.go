package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/koii-network/scale/store"
)

// A node serves as long as its store appends, or at least reads. A store that is read-only
// serves, and NodeService.GetInfo says so; one that has stopped, after a commit of which
// nobody knows whether it was recorded, does not: it wants a restart.

// healths is the health service. It looks before it answers.
type healths struct {
	*health.Server
	s *Server
}

var _ healthpb.HealthServer = healths{}

func (h healths) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	h.s.checkHealth()
	return h.Server.Check(ctx, req)
}

func (h healths) List(ctx context.Context, req *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	h.s.checkHealth()
	return h.Server.List(ctx, req)
}

func (h healths) Watch(req *healthpb.HealthCheckRequest, ss grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	h.s.checkHealth()
	return h.Server.Watch(req, ss)
}

// checkHealth sets the status of all services.
func (s *Server) checkHealth() {
	st := healthpb.HealthCheckResponse_SERVING
	if s.store.Stopped() != nil {
		st = healthpb.HealthCheckResponse_NOT_SERVING
	}
	s.health.SetServingStatus("", st)
	for name := range s.grpc.GetServiceInfo() {
		if strings.HasPrefix(name, "scale.") {
			s.health.SetServingStatus(name, st)
		}
	}
}

// readOnly returns why the store does not append, or nil.
func (s *Server) readOnly() error { return errors.Join(s.store.Doubt(), s.store.Stopped()) }

// A told error is one whose words leave the node's own paths out.
type toldError struct {
	text string
	err  error
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.err }

// tellable returns the error as callers may see it: without the places of the store's
// files on the node.
func (s *Server) tellable(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	if errors.As(err, &path) || errors.As(err, &link) {
		if c, ok := classOf(err); ok {
			return &toldError{c.err.Error(), err} // the rest is in the log
		}
	}
	told := strings.ReplaceAll(err.Error(), s.store.Dir(), "STORE")
	if told == err.Error() {
		return err
	}
	return &toldError{told, err}
}

func notFoundf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), store.ErrNotFound)
}
