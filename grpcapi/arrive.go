package grpcapi

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
)

// An arrival is a call that the transport has taken and that has not ended. The gate bounds
// those that run; on the way to it, and out again, there is a goroutine for each call of each
// connection, and on a busy machine they would be many.
type arrival struct {
	count *atomic.Int64
	over  atomic.Bool
	// lost ends it with the call's context, unless a handler has the call: not every call
	// reaches one.
	lost func() (stopped bool)
}

func (a *arrival) end() {
	if a.over.CompareAndSwap(false, true) {
		a.count.Add(-1)
	}
}

type arrivalKey struct{}

// arrivalsPerCall is how many times the calls that may run may have arrived.
const arrivalsPerCall = 4

// crowded reports whether as many calls have arrived as may.
func (s *Server) crowded() bool { return s.arrivals.Load() >= int64(arrivalsPerCall*s.lim.Calls) }

// arrive is called for every call before it has a goroutine. The reader of its connection
// waits for it.
func (s *Server) arrive(ctx context.Context, _ *tap.Info) (context.Context, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(routeInfo); ok && info.route != routeTCP {
			return ctx, nil // the owner's; the HTTP port counts its own
		}
	}
	if s.crowded() || s.answers.full() {
		if s.opt.OnRefused != nil {
			s.opt.OnRefused(errCrowded)
		}
		return ctx, errCrowded
	}
	s.arrivals.Add(1)
	a := &arrival{count: &s.arrivals}
	a.lost = context.AfterFunc(ctx, a.end)
	return context.WithValue(ctx, arrivalKey{}, a), nil
}

var errCrowded = toStatus(busy("more calls come at a time than the node takes, or more answers wait to be taken than it holds")).Err()

// handled is called when a call has reached its handler, and what it returns when that has
// ended.
func handled(ctx context.Context) (end func()) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return func() {}
	}
	a.lost()
	return a.end
}
