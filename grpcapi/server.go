package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// An Identity is who calls, as ServerOptions.Authenticate found out.
type Identity struct {
	// Name is that of the token, or says otherwise who it is; it is logged and counts
	// for fairness.
	Name string
	// Scope is what the caller may do.
	Scope scalev1.Scope
	// Anonymous callers have shown nothing: of too many connections theirs are closed first.
	Anonymous bool
	// Void, if set, ends when the identity does (a token expires or is revoked), with an
	// error that wraps ErrToken as its cause. Calls under way end then.
	Void context.Context

	// cert is what the caller's connection was made with, or nil. Calls under way end when it
	// counts no more; see Server.sweep.
	cert *peerCert
}

// A TokenStore keeps tokens; TokenFile is one. Errors are of the classes of package store:
// ErrExists, ErrNotFound, ErrInvalid.
type TokenStore interface {
	// Create makes a token and returns it with its secret, which is kept nowhere.
	Create(name string, scope scalev1.Scope, expires time.Time) (t Token, secret string, err error)
	// List returns the tokens by name.
	List() ([]Token, error)
	// Revoke makes a token void at once.
	Revoke(name string) error
}

// ServerOptions configures NewServer.
type ServerOptions struct {
	// Limits bound what callers can take; zero fields have defaults.
	Limits Limits
	// Logger receives a record of every call; nil discards them.
	Logger *slog.Logger
	// Authenticate says who calls, from the metadata and the peer in ctx. Its errors
	// should wrap ErrToken. Required: see Anyone.
	Authenticate func(ctx context.Context) (Identity, error)
	// Credentials secure the connections of all listeners; nil is none.
	Credentials credentials.TransportCredentials
	// Tokens answers the token calls of NodeService; nil: they are unimplemented.
	Tokens TokenStore
	// Anchors answers the calls of AnchorService, and makes proofs that carry receipts; nil:
	// there are no chains.
	Anchors Anchors
	// Version of the program, for GetInfo.
	Version string
	// TracerProvider, if set, receives a span for every call. A caller's own trace
	// (W3C traceparent) is linked from it and not continued: whether a call is sampled is not
	// for strangers to say.
	TracerProvider trace.TracerProvider
	// OnCall, if set, is told of every call when it has ended. It must not block.
	OnCall func(Call)
	// OnRefused, if set, is told why a call was refused before it began. It must not block.
	OnRefused func(error)
	// Now is the clock of time limits, and of the client certificates of calls under way; nil is
	// time.Now.
	Now func() time.Time
}

// Anyone is for ServerOptions.Authenticate where all who can connect may do so much.
func Anyone(scope scalev1.Scope) func(context.Context) (Identity, error) {
	return func(context.Context) (Identity, error) {
		return Identity{Name: "anyone", Scope: scope, Anonymous: true}, nil
	}
}

// A Call is one that has ended.
type Call struct {
	Method   string // "/scale.v1.DatasetService/Put"
	Identity Identity
	Peer     net.Addr
	// Err is what the caller was told: a status, or nil if all went well.
	Err  error
	Took time.Duration
	// Bytes of all messages, both ways.
	Bytes int64
}

// A Server serves a store.
type Server struct {
	store    *store.Store
	opt      ServerOptions
	lim      Limits
	log      *slog.Logger
	grpc     *grpc.Server
	health   *health.Server
	gate     *gate
	pool     *receivePool
	heap     *heapGuard
	answers  *answerBudget
	web      sync.Map // accounts of HTTP requests, by number
	webs     atomic.Uint64
	arrivals atomic.Int64
	conns    connSet
	heavy    *semaphore.Weighted // requests that take many times their size
	reads    *readers
	lines    *logBudget

	recover grpc.StreamServerInterceptor

	closing  atomic.Bool
	draining sync.Once
	running  sync.WaitGroup // handlers
	watching sync.WaitGroup // the goroutine of watch
	stop     chan struct{}  // closed when watch is to end

	mu      sync.Mutex
	calls   map[*call]struct{} // guarded by mu, as is all below
	idle    chan struct{}      // closed when there are no calls, once closing
	watched bool
}

// NewServer makes a server of s, which its caller closes after Shutdown.
func NewServer(s *store.Store, o ServerOptions) (*Server, error) {
	if o.Authenticate == nil {
		return nil, fmt.Errorf("a server needs Authenticate: %w", store.ErrInvalid)
	}
	lim, err := o.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	srv := &Server{
		store: s, opt: o, lim: lim, log: o.Logger, gate: newGate(lim), pool: newReceivePool(lim.ReceiveBytes),
		answers: newAnswerBudget(lim), heap: newHeapGuard(lim.Memory), heavy: semaphore.NewWeighted(heavyRequests), reads: newReaders(),
		health: health.NewServer(), calls: map[*call]struct{}{}, stop: make(chan struct{}),
	}
	srv.lines = newLogBudget(srv.now())
	srv.recover = recovery.StreamServerInterceptor(recovery.WithRecoveryHandler(newPanicError))
	srv.grpc = grpc.NewServer(srv.options()...)
	r := registrar{srv}
	scalev1.RegisterDatasetServiceServer(r, &datasets{Server: srv})
	scalev1.RegisterBlockServiceServer(r, &blocks{Server: srv, sealed: semaphore.NewWeighted(uploadBytes)})
	scalev1.RegisterCuratorServiceServer(r, &curators{Server: srv})
	scalev1.RegisterLedgerServiceServer(r, &ledgers{Server: srv})
	scalev1.RegisterProofServiceServer(r, &proofs{Server: srv})
	scalev1.RegisterAuditServiceServer(r, &audits{Server: srv})
	scalev1.RegisterAnchorServiceServer(r, &anchors{Server: srv})
	scalev1.RegisterNodeServiceServer(r, &nodes{Server: srv})
	healthpb.RegisterHealthServer(r, healths{srv.health, srv})
	reflection.Register(r)
	srv.checkHealth()
	return srv, nil
}

// heavyRequests is how many requests that take many times their size are read at a time.
const heavyRequests = 2

func (s *Server) options() []grpc.ServerOption {
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(serverCodec{}),
		experimental.BufferPool(s.pool),
		grpc.MaxRecvMsgSize(s.lim.MessageBytes), grpc.MaxSendMsgSize(s.lim.MessageBytes),
		grpc.MaxHeaderListSize(uint32(s.lim.HeaderBytes)),
		grpc.MaxConcurrentStreams(uint32(s.lim.ConnectionCalls)),
		grpc.ConnectionTimeout(s.lim.HandshakeTime),
		grpc.StaticStreamWindowSize(serveWindow), grpc.StaticConnWindowSize(serveConnWindow),
		grpc.ReadBufferSize(serveBuffer), grpc.WriteBufferSize(serveBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleConnection, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.InTapHandle(s.arrive),
	}
	if s.opt.Credentials != nil {
		opts = append(opts, grpc.Creds(s.opt.Credentials))
	}
	if s.opt.TracerProvider != nil {
		opts = append(opts, grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(s.opt.TracerProvider),
			otelgrpc.WithPropagators(propagation.TraceContext{}), otelgrpc.WithPublicEndpoint(),
		)))
	}
	return opts
}

// idleConnection is how long a connection may be without calls; then it is closed in
// order, and a client that lives opens it again.
const idleConnection = 15 * time.Minute

// GRPC returns the server. Its options and services are not to be changed: what they hold
// of limits and scopes is all here.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

func (s *Server) now() time.Time { return s.opt.Now() }

// Serve accepts connections until Shutdown, and then returns nil. It may be called with
// several listeners; it closes them.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if !s.watched && !s.closing.Load() {
		s.watched = true
		s.watching.Go(s.watch)
	}
	s.mu.Unlock()
	err := s.grpc.Serve(limitListener(l, s.lim.Connections, &s.conns, s.log))
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Shutdown refuses new calls with ErrClosing, ends at once those that wait for news alone,
// lets the others finish until ctx ends and then ends what is left. When it returns, no
// call is running and all listeners and connections are closed. It returns the cause of
// ctx if calls had to be ended, else nil.
func (s *Server) Shutdown(ctx context.Context) error {
	var err error
	s.draining.Do(func() { err = s.drain(ctx) })
	return err
}

// flushTime is how long connections have to take the last answers.
const flushTime = 2 * time.Second

func (s *Server) drain(ctx context.Context) error {
	s.health.Shutdown()
	idle := make(chan struct{})
	s.mu.Lock()
	s.closing.Store(true)
	s.idle = idle
	if len(s.calls) == 0 {
		close(idle)
	}
	for c := range s.calls {
		if c.method.endless {
			c.end(ErrClosing)
		}
	}
	s.mu.Unlock()

	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = context.Cause(ctx)
		s.mu.Lock()
		for c := range s.calls {
			c.end(ErrClosing)
		}
		s.mu.Unlock()
	}
	s.running.Wait()
	// Answers are on their way. A peer that does not take them holds nobody up for long.
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.grpc.Stop()
		<-done
	}
	close(s.stop)
	s.watching.Wait()
	s.logOmitted(true)
	return err
}
