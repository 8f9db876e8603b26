package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/store"
)

// A registrar registers services so that every method, be it of one message or of a
// stream, goes through Server.handle before a byte of its messages is read.
type registrar struct{ s *Server }

var _ grpc.ServiceRegistrar = registrar{}

// GetServiceInfo is for the reflection service.
func (r registrar) GetServiceInfo() map[string]grpc.ServiceInfo { return r.s.grpc.GetServiceInfo() }

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := grpc.ServiceDesc{ServiceName: desc.ServiceName, HandlerType: desc.HandlerType, Metadata: desc.Metadata}
	add := func(sd grpc.StreamDesc) {
		name := "/" + desc.ServiceName + "/" + sd.StreamName
		inner := sd.Handler
		info := &grpc.StreamServerInfo{FullMethod: name, IsClientStream: sd.ClientStreams, IsServerStream: sd.ServerStreams}
		sd.Handler = func(srv any, ss grpc.ServerStream) error { return r.s.handle(srv, ss, info, inner) }
		d.Streams = append(d.Streams, sd)
	}
	for _, m := range desc.Methods {
		add(grpc.StreamDesc{StreamName: m.MethodName, Handler: func(srv any, ss grpc.ServerStream) error {
			resp, err := m.Handler(srv, ss.Context(), ss.RecvMsg, nil)
			if err != nil {
				return err
			}
			return ss.SendMsg(resp)
		}})
	}
	for _, sd := range desc.Streams {
		add(sd)
	}
	r.s.grpc.RegisterService(&d, impl)
}

// handle carries out one call. It returns a status.
func (s *Server) handle(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	defer handled(ss.Context())()
	c := &call{s: s, name: info.FullMethod, began: s.now(), killed: make(chan struct{}), slack: s.lim.IdleTime}
	c.peer, c.conn = callerAddr(ss.Context()), callerConn(ss.Context())
	c.account = s.webAccount(ss.Context())
	if c.account == nil {
		c.account = &account{b: s.answers, conn: c.conn}
		if isPrivate(ss.Context()) {
			c.account.conn, c.account.free = nil, true
		}
	}
	c.ctx, c.cancel = context.WithCancelCause(context.WithValue(ss.Context(), accountKey{}, c.account))
	defer c.cancel(nil)
	var leave func()
	err := protect(func() (err error) {
		leave, err = s.admit(c)
		return err
	})
	if err == nil {
		defer c.from().enter()()
		if !c.account.web {
			c.account.who = c.key()
		}
		err = s.run(c, leave, func() error { return s.recover(srv, &stream{ss, c}, info, handler) })
	}
	if errors.Is(err, errCertificate) {
		c.from().forget()
	}
	return s.finish(c, err)
}

// from returns the connection that the call came by: that of the HTTP request, where there is
// one.
func (c *call) from() *limitedConn {
	if c.account.web {
		return c.account.conn
	}
	return c.conn
}

// key is whom the call counts for.
func (c *call) key() string {
	address := ""
	if c.peer != nil {
		address = c.peer.String()
	}
	return c.who.key(address)
}

// key is whom calls of a caller from an address count for.
func (id *Identity) key(address string) string {
	switch {
	case id.Scope == none:
		return stranger
	case id.Anonymous && address != "": // only the address tells them apart
		return id.Name + " " + hostOf(address)
	}
	return id.Name
}

// admit decides whether the call may begin. If it may, leave ends what admit began.
func (s *Server) admit(c *call) (leave func(), err error) {
	var ok bool
	if c.method, ok = methods[c.name]; !ok {
		return nil, fmt.Errorf("%s is not offered: %w", c.name, ErrScope)
	}
	// Who calls what anyone may call is asked too, and need not be known.
	if c.who, err = s.opt.Authenticate(c.ctx); err == nil {
		// Now, and not once there is room: whom a full node knows it treats better.
		c.from().known(c.who)
	}
	if errors.Is(err, errCertificate) {
		return nil, err // whoever has no good one could not connect either
	}
	if c.method.scope != none {
		if err != nil {
			if _, ok := classOf(err); !ok {
				err = fmt.Errorf("%w: %w", ErrToken, err)
			}
			return nil, err
		}
		if c.method.private && !isPrivate(c.ctx) {
			return nil, errPrivate
		}
		if c.who.Scope < c.method.scope {
			return nil, scopeError(c.method, c.who)
		}
	}
	if c.method.kind != kindShort && (s.pool.full() || s.heap.high.Load()) {
		return nil, busy("the node has as much data in memory as it may")
	}
	who := c.key()
	exit, err := s.gate.enter(who, c.method.kind, isPrivate(c.ctx))
	if err != nil {
		return nil, err
	}
	if err := s.begin(c); err != nil {
		exit()
		return nil, err
	}
	if c.method.kind != kindWrite {
		return func() { s.end(c); exit() }, nil
	}
	endWrite, err := s.gate.begin(c.ctx, who)
	if err != nil {
		s.end(c)
		exit()
		return nil, err
	}
	return func() { endWrite(); s.end(c); exit() }, nil
}

// begin enters the call into the list of those under way.
func (s *Server) begin(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return ErrClosing
	}
	if v := c.who.Void; v != nil && v.Err() != nil {
		return context.Cause(v) // since he was asked who he is; see endVoid
	}
	s.calls[c] = struct{}{}
	s.running.Add(1)
	return nil
}

func (s *Server) end(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, c)
	if s.closing.Load() && len(s.calls) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
	s.running.Done()
}

// run calls the handler. When the node ends the call the caller is told without waiting
// for the handler, which finds that it can neither read nor write any more; but where it may
// be recording something he is told what became of that.
func (s *Server) run(c *call, leave func(), handler func() error) error {
	if c.who.Void != nil {
		stop := context.AfterFunc(c.who.Void, func() { c.end(context.Cause(c.who.Void)) })
		defer stop()
	}
	done := make(chan error, 1)
	go func() {
		err := handler() // does not panic
		if c.heavy {
			s.heavy.Release(1)
		}
		c.account.release()
		leave()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-c.killed:
		if c.settles() {
			return <-done
		}
		return c.cause()
	}
}

// endVoid ends the calls of those who are not let in any more. When it returns none of them is
// under way with its context, which Identity.Void does not promise.
func (s *Server) endVoid() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.calls {
		if v := c.who.Void; v != nil && v.Err() != nil {
			c.end(context.Cause(v))
		}
	}
}

// A panicError is a fault of ours: callers are told its number, the log has the stack.
type panicError struct {
	value any
	stack []byte
}

func newPanicError(p any) error { return &panicError{p, debug.Stack()} }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// finish logs the call and returns what its caller is told.
func (s *Server) finish(c *call, err error) error {
	if why := c.cause(); err != nil && why != nil {
		err = why // whatever followed from it
	}
	took := s.now().Sub(c.began)
	span := trace.SpanFromContext(c.ctx) // records nothing without a TracerProvider
	span.SetAttributes(attribute.String("enduser.id", c.who.Name))
	var internal bool
	if err != nil {
		if errors.Is(err, store.ErrStopped) {
			s.checkHealth()
		}
		if ctxErr := c.ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
			err = ctxErr // gRPC's own words
		}
		var why error
		why, internal = asInternal(s.tellable(err))
		err = toStatus(why).Err()
		span.SetAttributes(attribute.String("error.type", reasonOf(err)))
		if internal && s.lines.take(c.key()+", internal errors", s.now()) {
			s.log.Error("call failed", "method", c.name, "who", c.who.Name, "err", detail(why), "told", why.Error())
		}
	}
	if s.opt.OnCall != nil {
		c.mu.Lock()
		n := c.bytes
		c.mu.Unlock()
		s.opt.OnCall(Call{Method: c.name, Identity: c.who, Peer: c.peer, Err: err, Took: took, Bytes: n})
	}
	if c.conn != nil {
		c.conn.owe(s.answers, statusBytes(err))
	}
	level := slog.LevelDebug
	// Strangers do not fill the log: Authenticate tells what it refuses, within a bound.
	if c.method.audited || err != nil && c.who.Name != "" {
		level = slog.LevelInfo
	}
	if !internal && s.log.Enabled(context.Background(), level) && (err == nil || level < slog.LevelInfo || s.lines.take(c.key(), s.now())) {
		s.logCall(level, c, err, took)
	}
	return err
}

// statusBytes is what the transport holds for the end of a call until it is sent.
func statusBytes(err error) int {
	if err == nil {
		return answerSlack
	}
	return answerSlack + 2*proto.Size(status.Convert(err).Proto())
}

func detail(err error) error {
	if in := (*internalError)(nil); errors.As(err, &in) {
		return in.err
	}
	return err
}

// logCall says what became of a call: not of what, or of whose data.
func (s *Server) logCall(level slog.Level, c *call, err error, took time.Duration) {
	st := status.Convert(err)
	args := []slog.Attr{
		slog.String("method", c.name), slog.String("code", st.Code().String()),
		slog.Duration("took", took), slog.String("who", c.who.Name),
	}
	if c.peer != nil {
		args = append(args, slog.String("peer", c.peer.String()))
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			args = append(args, slog.String("reason", info.GetReason()))
		}
	}
	switch st.Code() {
	case codes.DataLoss, codes.Internal, codes.Unavailable:
		level = slog.LevelWarn
	}
	s.log.LogAttrs(context.Background(), level, "call", args...)
}

// collectEvery bounds how often the garbage collector is asked to run.
const collectEvery = 5 * time.Second

// watch ends calls that are overdue, and calls and connections that keep too much waiting.
func (s *Server) watch() {
	var collected time.Time
	wasFull := false // at the last tick
	takers := takers{}
	// collect finds what the transport has dropped: as long as the pool is full nothing is
	// received, so that it might be long until the collector runs by itself.
	collect := func() {
		if now := time.Now(); now.Sub(collected) > collectEvery {
			collected = now
			runtime.GC()
		}
	}
	tick := time.NewTicker(min(max(s.lim.IdleTime/8, 10*time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.pool.over:
			collect()
			s.shed(int(s.pool.out.Load() - s.pool.limit))
		case <-tick.C:
			s.sweep(s.now())
			s.logOmitted(false)
			// Whoever asks for a buffer says that there is too much. Where all have sent what they
			// may nobody asks, and all that come are sent away: so it is looked at here too.
			if s.pool.full() {
				collect()
				if wasFull {
					s.shed(int(s.pool.out.Load() - s.pool.limit))
				}
			}
			wasFull = s.pool.full()
			over := s.heap.look()
			if over > 0 {
				s.shed(int(over))
			}
			// Of a write that stands still others stand behind, which no account counts.
			long := s.lim.IdleTime + time.Duration(serveBuffer/s.lim.MinRate)*time.Second
			soon := long
			if over > 0 || s.pool.full() {
				soon = takingSoon
			}
			s.hangUp(s.conns.stuck(time.Now(), long, soon))
			takers.look(s.now(), s.answers, &s.lim)
			need := over + s.answers.wanted()
			if s.reads.names.wanted() {
				need++
			}
			if need > 0 && s.hangUp(takers.idle(need)) > 0 || s.answers.wanted() > 0 || s.crowded() {
				collect()
			}
		}
	}
}

// hangUp closes connections whose callers do not take what the node holds for them: what the
// transport has of an answer it keeps after the call has ended.
func (s *Server) hangUp(conns []*limitedConn) int {
	for _, c := range conns {
		if peer := c.Conn.RemoteAddr().String(); s.lines.take(hostOf(peer)+", closed connections", s.now()) {
			s.log.Warn("connection closed: its answers are not taken", "peer", peer)
		}
		c.Close()
	}
	return len(conns)
}

// sweep ends the calls that are overdue at that time, and those of connections whose
// certificate counts no more.
func (s *Server) sweep(now time.Time) {
	var certified []*call
	s.mu.Lock()
	for c := range s.calls {
		if why := c.overdue(now); why != nil {
			c.end(why)
		} else if c.who.cert != nil {
			certified = append(certified, c)
		}
	}
	s.mu.Unlock()
	// It may be that files are read and signatures verified.
	for _, c := range certified {
		if why := c.who.cert.check(now); why != nil {
			c.end(why)
		}
	}
}

// shed ends calls that wait for a message, as many as may hold so many bytes: those first of
// callers who have not said who they are, and then those that have waited longest.
func (s *Server) shed(bytes int) {
	if bytes <= 0 { // meanwhile something was consumed
		return
	}
	type waiting struct {
		c     *call
		since time.Time
	}
	var all []waiting
	s.mu.Lock()
	for c := range s.calls {
		if since, ok := c.receivesSince(); ok {
			all = append(all, waiting{c, since})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b waiting) int {
		if a, b := a.c.who.Scope == none, b.c.who.Scope == none; a != b {
			if a {
				return -1
			}
			return 1
		}
		return a.since.Compare(b.since)
	})
	n := min(len(all), 1+bytes/(s.lim.MessageBytes+serveWindow))
	for _, w := range all[:n] {
		w.c.end(busy("the node has as much data in memory as it may, and this call's message does not arrive whole"))
	}
	if n > 0 {
		s.log.Warn("calls ended: too much data waits", "calls", n)
	}
}
