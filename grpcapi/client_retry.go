package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/store"
)

// callError returns the error that a call ended with, of the classes that Client names. A
// context that has ended comes before anything else.
func callError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	failed := fromStatus(err)
	switch {
	case errors.Is(failed, ErrClosing), errors.Is(failed, store.ErrStopped):
	case status.Code(err) == codes.Unavailable:
		// Of the transport: the node itself says why.
		return fmt.Errorf("%w: %w", ErrUnreachable, failed)
	case status.Code(err) == codes.Internal && len(status.Convert(err).Details()) == 0:
		// Of the transport too: what came broke the protocol.
		return nodeErrorf("%w", failed)
	}
	return failed
}

// saidByNode reports whether the error of a call is the node's own, which knows what it has
// done: the transport, or somebody on the way, does not.
func saidByNode(err error) bool {
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return false
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return true
		}
	}
	return st.Code() == codes.Unimplemented // of a node that does not know the call
}

// broken makes of an error that is not the node's own that the connection broke, which it did
// somewhere, whatever its code.
func broken(err error) error {
	if errors.Is(err, ErrUnreachable) || status.Code(err) == codes.Unavailable {
		return err
	}
	return fmt.Errorf("%w: %v", ErrUnreachable, err)
}

// A patience decides how often a call is repeated.
type patience struct {
	c     *Client
	tries int       // since something came of it
	since time.Time // when the first of them had failed
	met   bool      // the node has said that it is closing
}

// The most tries in a row that bring nothing, and the pauses between them: they grow from
// the first to the last, and each takes between a half and the whole of its length. A node
// that was there is waited for instead: what its callers have under way is worth it.
const (
	defaultPatience = time.Minute

	maxTries   = 6
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
	// With DialOptions.Revive it is that which decides how long.
	revivePause = 10 * time.Millisecond
)

// progress says that the last try brought something.
func (p *patience) progress() { p.tries = 0 }

// again waits, and returns nil if a call that ended with err is worth repeating, or else
// the error to give up with.
func (p *patience) again(ctx context.Context, err error) error {
	failed := callError(ctx, err)
	if ctx.Err() != nil {
		return failed
	}
	gone := errors.Is(failed, ErrUnreachable) || errors.Is(failed, ErrClosing)
	var later *RetryAfter
	errors.As(failed, &later)
	switch {
	case gone, later != nil:
	case errors.Is(failed, ErrTooSlow) && p.tries == 0:
		// Whoever takes the bytes from here was slow, and has now gone on.
	default:
		return failed
	}
	if p.tries++; p.tries == 1 {
		p.since = time.Now()
	}
	p.met = p.met || p.c.met || errors.Is(failed, ErrClosing)
	p.c.log.Debug("a call to the node failed", "err", failed, "tries", p.tries)
	if gone && p.c.opt.Revive != nil {
		if err := p.c.opt.Revive(ctx, p.since); err != nil {
			return err
		}
		p.c.conn.ResetConnectBackoff()
		return sleep(ctx, revivePause)
	}
	if p.tries >= maxTries && later != nil && !gone {
		return fmt.Errorf("%w: %w (tried %d times)", ErrLater, failed, p.tries)
	}
	if waits := gone && p.met; waits && time.Since(p.since) >= p.c.opt.Patience || !waits && p.tries >= maxTries {
		return fmt.Errorf("%w (tried %d times)", failed, p.tries)
	}
	pause := min(firstPause<<min(p.tries-1, maxTries), lastPause)
	if later != nil {
		pause = min(later.After, lastPause)
	}
	pause = pause/2 + rand.N(pause/2+1)
	p.c.log.Warn("a call to the node is repeated", "after", failed, "pause", pause)
	return sleep(ctx, pause)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const (
	// quick is how long a call may take that the node answers from what it has at hand,
	// longer one for which it may have to read or wait.
	quick  = time.Minute
	longer = 10 * time.Minute
)

// A clientCall is one of the generated clients that has one answer.
type clientCall[Req, Resp any] func(context.Context, Req, ...grpc.CallOption) (Resp, error)

// ask makes a call that can be repeated, and repeats it if it is worth it.
func ask[Req, Resp any](ctx context.Context, c *Client, call clientCall[Req, Resp], req Req) (Resp, error) {
	return askFor(ctx, c, quick, call, req)
}

// askFor is ask with another limit of time for each try; 0 is none.
func askFor[Req, Resp any](ctx context.Context, c *Client, limit time.Duration, call clientCall[Req, Resp], req Req) (Resp, error) {
	p := patience{c: c}
	for {
		resp, err := tryFor(ctx, limit, call, req)
		if err == nil {
			return resp, nil
		}
		if err := p.again(ctx, err); err != nil {
			return resp, err
		}
	}
}

// tryFor makes a call once, for at most that long.
func tryFor[Req, Resp any](ctx context.Context, limit time.Duration, call clientCall[Req, Resp], req Req) (Resp, error) {
	if limit == 0 {
		return call(ctx, req)
	}
	timed, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: no answer for %v", ErrUnreachable, limit))
	defer cancel()
	resp, err := call(timed, req)
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		err = context.Cause(timed)
	}
	return resp, err
}

// once makes a call that must not be carried out twice. It is repeated only if the node
// said that it was not.
func once[Req, Resp any](ctx context.Context, c *Client, call clientCall[Req, Resp], req Req) (Resp, error) {
	p := patience{c: c}
	for {
		resp, err := tryFor(ctx, longer, call, req)
		if err == nil {
			return resp, nil
		}
		if !saidByNode(err) {
			return resp, fmt.Errorf("%w: %w", ErrOutcome, callError(ctx, broken(err)))
		}
		if err := p.again(ctx, err); err != nil {
			return resp, err
		}
	}
}
