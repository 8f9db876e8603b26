package grpcapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/store"
)

// A call is one that is under way.
type call struct {
	s      *Server
	name   string
	method method
	who    Identity
	peer   net.Addr
	began  time.Time
	ctx    context.Context // of the call, and of nothing else; ends with it
	cancel context.CancelCauseFunc
	killed chan struct{} // closed when the node ends the call
	heavy  bool          // the handler has the turn of a heavy request

	account *account     // of its answers
	conn    *limitedConn // nil if it is not known

	mu    sync.Mutex
	why   error         // of killed; guarded by mu, as is all below
	waits waitKind      // what it waits for now
	since time.Time     // when it began to
	slack time.Duration // how much longer its caller may keep it waiting
	bytes int64         // received and sent
}

type waitKind uint8

const (
	waitsNot  waitKind = iota
	waitsRecv          // for a message of its caller
	waitsSend          // for its caller to take what was sent
)

// end ends the call for a reason of the node's. Its handler finds its context at an end, and
// so do reading and writing; see Server.run for when the caller is told.
func (c *call) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = why
		close(c.killed)
		c.cancel(why)
	}
}

func (c *call) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// wait says that the call waits for its caller now. It returns why it must not: a call that
// was ended reads no more, and writes only what it has done.
func (c *call) wait(k waitKind) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil && (k == waitsRecv || !c.method.lasting) {
		return c.why
	}
	c.waits, c.since = k, c.s.now()
	return nil
}

// settles reports whether the handler of a call that was ended comes to an end by itself,
// and may have done by then what it was called for.
func (c *call) settles() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.method.lasting && c.waits != waitsRecv
}

// moved says that the call waits no more, and that n bytes were moved.
func (c *call) moved(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.s.lim
	c.slack -= c.s.now().Sub(c.since)
	c.slack = min(c.slack+time.Duration(n)*time.Second/time.Duration(l.MinRate), l.IdleTime)
	c.waits = waitsNot
	c.bytes += int64(n)
}

// overdue says why the call is to be ended at that time, or nil.
func (c *call) overdue(now time.Time) error {
	l := &c.s.lim
	if now.Sub(c.began) > l.TotalTime {
		return fmt.Errorf("%w: the call has taken more than %v", ErrTooSlow, l.TotalTime)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits == waitsNot || now.Sub(c.since) <= c.slack {
		return nil
	}
	what := "the caller sends"
	if c.waits == waitsSend {
		what = "the caller takes what is sent"
	}
	return fmt.Errorf("%w: %s too slowly; %d bytes in all, no message for %v", ErrTooSlow, what, c.bytes, now.Sub(c.since).Truncate(time.Millisecond))
}

// receivesSince reports since when the call waits for a message of its caller.
func (c *call) receivesSince() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since, c.waits == waitsRecv && c.why == nil
}

// A stream is a call's stream as handlers have it. Errors of the transport come out of it
// as those of the API.
type stream struct {
	grpc.ServerStream
	c *call
}

func (s *stream) Context() context.Context { return s.c.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *stream) RecvMsg(m any) error {
	var r received
	if err := s.c.wait(waitsRecv); err != nil {
		return err
	}
	err := s.ServerStream.RecvMsg(&r)
	s.c.moved(r.data.Len())
	defer r.data.Free()
	if err != nil {
		return s.c.transportError(err)
	}
	// Not before the message is here: a caller who sends none would keep others from their
	// turns. What waits counts as received.
	if s.c.method.heavy && !s.c.heavy {
		if err := s.c.s.heavy.Acquire(s.c.ctx, 1); err != nil {
			return context.Cause(s.c.ctx)
		}
		s.c.heavy = true // until the call ends
	}
	most := s.c.method.request
	if most == 0 {
		most = maxRequest
	}
	return decode(r.data, min(most, s.c.s.lim.MessageBytes), m)
}

// SendMsg implements grpc.ServerStream.
func (s *stream) SendMsg(m any) error {
	e, err := encode(s.c.ctx, s.c.account, m, s.c.s.lim.MessageBytes, !s.c.method.lasting)
	if err != nil {
		return err
	}
	n := e.data.Len()
	if err := s.c.wait(waitsSend); err != nil {
		e.data.Free()
		return err
	}
	err = s.ServerStream.SendMsg(e)
	s.c.moved(n)
	if err != nil {
		e.data.Free() // none if it was taken
		return s.c.transportError(err)
	}
	return nil
}

// transportError gives an error of the transport the class it has here.
func (c *call) transportError(err error) error {
	if err == io.EOF {
		return err
	}
	if why := c.cause(); why != nil {
		return why
	}
	st := status.Convert(err)
	switch st.Code() {
	case codes.Canceled, codes.Unavailable:
		return fmt.Errorf("the caller has gone: %w", context.Canceled)
	case codes.DeadlineExceeded:
		return fmt.Errorf("the caller's deadline: %w", context.DeadlineExceeded)
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: %s", ErrLimit, st.Message())
	case codes.Unimplemented:
		return err
	}
	return fmt.Errorf("%w: %s", store.ErrInvalid, st.Message())
}
