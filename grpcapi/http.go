package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// HTTPOptions configures NewHTTP.
type HTTPOptions struct {
	// Server answers the calls. It must have been made with Credentials and with Auth.
	Server *Server
	// Auth says who calls.
	Auth *Authenticator
	// Anonymous is what callers of this port may do who show nothing; zero refuses them.
	Anonymous scalev1.Scope
	// TLS, if set, is what connections must speak.
	TLS *TLS
	// Hosts are names and addresses that requests may call this node by, besides loopback
	// ones. A port in one of them is not looked at.
	Hosts []string
	// Origins are those of web pages that may call this node, "https://app.example",
	// besides that of the node itself.
	Origins []string
	// Metrics answers /metrics; nil: not offered.
	Metrics http.Handler
	// Connections bounds those that are open, and Requests those that are answered, at a
	// time; 0 means 512 and 64.
	Connections, Requests int
	// Idle is how long the client may take for a message of a body, or to take what has
	// been written; 0 means 1 minute.
	Idle time.Duration
	// OnRefused, if set, is told why a request was refused that became no call. It must not
	// block.
	OnRefused func(error)
	// Logger is told of faults of connections; nil discards.
	Logger *slog.Logger
}

// HTTP is a node's HTTP port: the calls of its services as JSON, the document that
// describes them, metrics and health.
//
// What it answers:
//
//	/v1/...        the services, see /openapi.json
//	/openapi.json  scope read
//	/metrics       scope read
//	/healthz       200 while the process runs; no scope
//	/readyz        200 if the store appends, otherwise 503 and why; no scope
//
// Before anything else a request must be for a name of this node (Host), must not come from
// the page of another site (Origin), and must not be one that such a page can send without
// being asked first (Content-Type).
type HTTP struct {
	o       HTTPOptions
	checks  checks
	routes  routes
	gateway http.Handler
	server  *http.Server
	conn    *grpc.ClientConn
	pipe    *bufconn.Listener
	served  chan error // of the server on pipe
	large   chan struct{}
	closing atomic.Bool

	mu      sync.Mutex
	running int            // requests; guarded by mu, as is by
	by      map[string]int // those of each caller
}

const (
	httpConnections = 512
	httpRequests    = 64
	httpIdle        = time.Minute // as Limits.IdleTime
	httpDrain       = time.Second
	// headers of a request; net/http adds 4 KiB.
	httpHeaderBytes = 16 << 10
	// maxAuthorization bounds the header of that name; a token has less than 100 bytes.
	maxAuthorization = 1 << 10
	// largeMessages is how many requests at a time may send a message above smallMessage:
	// decoding JSON takes several times its length.
	largeMessages = 4
	smallMessage  = 256 << 10
	// maxJSON bounds a message of a body: 4 MiB of bytes in base64 and what is around them.
	maxJSON = 6 << 20
	// pipeBytes is what can be under way between the port and the server.
	pipeBytes = 256 << 10
)

// NewHTTP makes the port. Its caller shuts it down after Serve, or at once.
func NewHTTP(o HTTPOptions) (*HTTP, error) {
	if o.Connections == 0 {
		o.Connections = httpConnections
	}
	if o.Requests == 0 {
		o.Requests = httpRequests
	}
	if o.Idle == 0 {
		o.Idle = httpIdle
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &HTTP{
		o: o, large: make(chan struct{}, largeMessages), by: map[string]int{},
		pipe: bufconn.Listen(pipeBytes), served: make(chan error, 1),
	}
	var err error
	if h.checks, err = newChecks(o.Hosts, o.Origins); err != nil {
		return nil, err
	}
	if h.routes, err = readRoutes(openAPI, o.Metrics != nil); err != nil {
		return nil, err
	}
	go func() { h.served <- o.Server.Serve(gatewayListener{h.pipe}) }()
	h.conn, err = grpc.NewClient("passthrough:gateway",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return h.pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxGatewayMessage), grpc.MaxCallSendMsgSize(maxGatewayMessage)),
		// A browser that does not read holds so much of an answer here, and no more.
		grpc.WithStaticStreamWindowSize(pipeBytes), grpc.WithStaticConnWindowSize(4*pipeBytes),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig())
	if err == nil {
		h.gateway, err = h.newGateway()
	}
	if err != nil {
		h.pipe.Close()
		return nil, fmt.Errorf("HTTP port: %w", err)
	}
	h.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    httpHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			ctx = context.WithValue(ctx, certKey{}, new(certSlot))
			return context.WithValue(ctx, connKey{}, connOf(c.RemoteAddr()))
		},
	}
	// HTTP/1.1 is all that JSON needs, and has no streams to bound.
	h.server.Protocols = new(http.Protocols)
	h.server.Protocols.SetHTTP1(true)
	if o.TLS != nil {
		h.server.TLSConfig = o.TLS.Config("http/1.1")
	}
	return h, nil
}

// Serve answers requests on l until Shutdown, and then returns nil. It closes l.
func (h *HTTP) Serve(l net.Listener) error {
	l = limitListener(l, h.o.Connections, nil, h.o.Logger)
	var err error
	if h.o.TLS != nil {
		err = h.server.ServeTLS(l, "", "")
	} else {
		err = h.server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close says "not ready" from here on, so that whoever asks /readyz sends no more work.
func (h *HTTP) Close() { h.closing.Store(true) }

// Shutdown accepts nothing more, waits for what is being answered until ctx ends, and cuts
// off the rest then. To end calls that go on for ever, shut the Server down first.
func (h *HTTP) Shutdown(ctx context.Context) error {
	h.Close()
	err := h.server.Shutdown(ctx)
	if err != nil {
		err = h.server.Close()
	}
	return errors.Join(err, h.conn.Close(), h.pipe.Close())
}

// gatewayListener marks connections as those of the HTTP port.
type gatewayListener struct{ net.Listener }

func (l gatewayListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gatewayConn{c}, nil
}

// A gatewayConn is a connection inside this process, from the HTTP port to the server.
type gatewayConn struct{ net.Conn }

// ServeHTTP answers one request.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hd := w.Header()
	hd.Set("X-Content-Type-Options", "nosniff")
	hd.Set("Cache-Control", "no-store")
	hd.Set("Cross-Origin-Resource-Policy", "same-origin")
	// The time to write that a connection's last request left is over by now.
	w = newPacedWriter(w, h.o.Idle)
	defer h.logPanic(r)
	if r.ContentLength != 0 {
		// What the handler leaves of a body is taken in before the answer goes out, so that
		// clients that send all before they read see it; but not for long.
		ctl := http.NewResponseController(w)
		defer func() { _ = ctl.SetReadDeadline(time.Now().Add(httpDrain)) }()
	}
	health := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
	if done, err := h.checks.check(w, r, health); err != nil {
		h.refuse(w, r, err)
		return
	} else if done { // a preflight request
		return
	}
	c := caller{route: routeGateway, addr: r.RemoteAddr, cert: h.shown(r), anonymous: h.o.Anonymous}
	if err := h.o.Auth.connected(c); err != nil {
		hd.Set("Connection", "close")
		h.refuse(w, r, err)
		return
	}
	switch r.URL.Path {
	case "/healthz":
		writeText(w, http.StatusOK, "ok\n")
		return
	case "/readyz":
		h.ready(w)
		return
	}
	switch {
	case r.URL.Path == "/openapi.json":
		h.read(w, r, c, http.HandlerFunc(writeOpenAPI))
	case r.URL.Path == "/metrics" && h.o.Metrics != nil:
		h.read(w, r, c, h.o.Metrics)
	default:
		h.call(w, r, c)
	}
}

// shown returns the certificate of a request's connection, or nil.
func (h *HTTP) shown(r *http.Request) *peerCert {
	slot, ok := r.Context().Value(certKey{}).(*certSlot)
	if r.TLS == nil || !ok {
		return nil
	}
	slot.once.Do(func() { slot.cert = h.o.TLS.peer(*r.TLS) })
	return slot.cert
}

// call passes a request on to the server.
func (h *HTTP) call(w http.ResponseWriter, r *http.Request, c caller) {
	// Before anything is read, or a place is taken, it is known who calls.
	authorization := r.Header.Values("Authorization")
	if n := len(strings.Join(authorization, "")); n > maxAuthorization {
		h.refuse(w, r, fmt.Errorf("%w: authorization has %d bytes", ErrToken, n))
		return
	}
	id, err := h.o.Auth.identify(c, authorization)
	if err == nil && !utf8.ValidString(r.URL.Path) {
		err = fmt.Errorf("%w: the path %q is not UTF-8", store.ErrInvalid, cutText(r.URL.Path, maxQueryKey))
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	conn, _ := r.Context().Value(connKey{}).(*limitedConn)
	conn.known(id)
	defer conn.enter()()
	leave, err := h.enter(id.key(c.addr))
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	defer leave()
	b := newPacedBody(w, r, h.o.Idle, h.large)
	defer b.release()
	account, end := h.o.Server.openWebAccount(r, c.cert)
	defer end()
	sw := &streamWriter{ResponseWriter: w}
	ctx := context.WithValue(r.Context(), callerContextKey{}, requestCaller{c, authorization, account, id})
	r = r.WithContext(context.WithValue(ctx, streamWriterKey{}, sw))
	// The gateway passes some headers on by itself, and then there is no room for the rest.
	for _, name := range []string{"Authorization", "X-Forwarded-For", "X-Forwarded-Host"} {
		r.Header.Del(name)
	}
	r.Body = b
	h.gateway.ServeHTTP(sw, r)
}

// enter takes a place for a request. One caller cannot have all of them.
func (h *HTTP) enter(who string) (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch n := h.o.Requests; {
	case h.running >= n:
		return nil, busy("the HTTP port answers %d requests at a time", n)
	case h.by[who] >= max(1, n-n/shareForOthers):
		return nil, busy("this caller has %d requests at the HTTP port, the rest is for others", h.by[who])
	}
	h.running++
	h.by[who]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.running--
		if h.by[who]--; h.by[who] == 0 {
			delete(h.by, who)
		}
	}, nil
}

// refuse answers a request that becomes no call.
func (h *HTTP) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if h.o.OnRefused != nil {
		h.o.OnRefused(err)
	}
	h.answerError(w, r, err)
}

// answerError answers with an error, which is in the log if callers are told no more of it
// than a number.
func (h *HTTP) answerError(w http.ResponseWriter, r *http.Request, err error) {
	if refused := (*httpError)(nil); errors.As(err, &refused) && refused.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", strings.Join(h.routes.methods(r.URL.Path), ", "))
	}
	err, internal := asInternal(err)
	if internal {
		h.o.Logger.Error("HTTP request failed", "path", r.URL.Path, "err", detail(err), "told", err.Error())
	}
	writeError(w, err)
}

// logPanic has a fault of ours in the log, and cuts the connection: what was written may be
// half an answer.
func (h *HTTP) logPanic(r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		h.o.Logger.Error("HTTP request failed", "path", r.URL.Path, "err", newPanicError(p))
	}
	panic(http.ErrAbortHandler)
}

// read lets a handler answer, or refuses callers who lack the scope read.
func (h *HTTP) read(w http.ResponseWriter, r *http.Request, c caller, answer http.Handler) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.refuse(w, r, &httpError{http.StatusMethodNotAllowed, "only GET and HEAD are for " + r.URL.Path})
		return
	}
	id, err := h.o.Auth.identify(c, r.Header.Values("Authorization"))
	if err == nil && id.Scope < read {
		err = scopeError(method{scope: read}, id)
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	conn, _ := r.Context().Value(connKey{}).(*limitedConn)
	conn.known(id)
	defer conn.enter()()
	answer.ServeHTTP(w, r)
}

func (h *HTTP) ready(w http.ResponseWriter) {
	why := h.o.Server.readOnly()
	if h.closing.Load() {
		why = ErrClosing
	}
	if why == nil {
		writeText(w, http.StatusOK, "ready\n")
		return
	}
	// Anyone may ask: the class is told, and what it says of the node's files is in the log.
	if c, ok := classOf(why); ok {
		why = c.err
	}
	writeText(w, http.StatusServiceUnavailable, why.Error()+"\n")
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	w.Write([]byte(text)) // a caller who is gone needs no answer
}
