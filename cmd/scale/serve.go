package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/grpclog"

	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/grpcapi"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// serveFlags are those of "scale serve".
type serveFlags struct {
	listen, http                  string
	cert, key, clientCA           string
	clientScope                   string
	requireToken                  bool
	insecureNoTLS                 bool
	insecureNoAuth                bool
	hosts, origins                []string
	logFormat, logLevel           string
	shutdownTimeout               time.Duration
	memory, maxDataset            string
	wide                          int64 // store.Options.Wide
	limits                        grpcapi.Limits
	limit                         []string
	httpRequests, httpConnections int
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the store to others: gRPC, JSON over HTTP, metrics and health",
		Long: `Serves the store until it is told to stop: the API scale.v1 over gRPC, most of its calls
as JSON over HTTP with their description in /openapi.json, /metrics for Prometheus, /healthz and
/readyz. Prints the addresses when it is ready, one a line; logs go to standard error.

Who may do what: a token has a scope (scale token create NAME --scope read|write|admin), a
client certificate that --client-ca signed has that of --client-scope, and programs on this
machine may read without either. Commands of the same user reach the store through a private
socket in its directory and may do everything. A client certificate that has expired, or whose
authority has been taken out of the file, counts no more on open connections either, and calls
under way end within seconds.

On other addresses than those of this machine it wants TLS, and callers to show a token or a
certificate, and does not start without.

SIGTERM and SIGINT stop it in order: new calls are refused, those under way may finish until
--shutdown-timeout has passed; a second signal ends it at once, which loses nothing that was
acknowledged. SIGHUP reads the TLS files again, which otherwise happens within a second of
their change. Under systemd it says when it is ready (Type=notify).

With OTEL_EXPORTER_OTLP_ENDPOINT in the environment a span of every call is sent to that
OpenTelemetry collector; the other variables OTEL_* mean what they do elsewhere.`,
		Example: `  scale token create ci --scope write
  scale serve
  scale serve --listen 0.0.0.0:7070 --http 0.0.0.0:7071 --tls-cert node.crt --tls-key node.key --http-host node.example.org`,
		Args: cobra.NoArgs,
	}
	p := cmd.Flags()
	p.StringVar(&f.listen, "listen", "127.0.0.1:7070", "`ADDRESS` for gRPC; port 0 takes any that is free, \"\" none")
	p.StringVar(&f.http, "http", "127.0.0.1:7071", "`ADDRESS` for HTTP; port 0 takes any that is free, \"\" none")
	p.StringVar(&f.cert, "tls-cert", "", "PEM `FILE` with the node's certificate")
	p.StringVar(&f.key, "tls-key", "", "PEM `FILE` with its private key")
	p.StringVar(&f.clientCA, "client-ca", "", "PEM `FILE` with authorities; only clients with a certificate of theirs are let in")
	p.StringVar(&f.clientScope, "client-scope", "read", "what a client certificate allows without a token: none, read, write or admin")
	p.BoolVar(&f.requireToken, "require-token", false, "want a token or client certificate of programs on this machine too")
	p.BoolVar(&f.insecureNoTLS, "insecure-no-tls", false, "serve other machines without TLS: tokens and data can be read on the way")
	p.BoolVar(&f.insecureNoAuth, "insecure-no-auth", false, "let anybody read who reaches the node; writing wants a token all the same")
	p.StringSliceVar(&f.hosts, "http-host", nil, "`NAME` that HTTP requests may call the node by, besides loopback and --http")
	p.StringSliceVar(&f.origins, "http-origin", nil, "`ORIGIN` whose web pages may call the node, such as https://app.example")
	p.StringVar(&f.logFormat, "log-format", "text", "text or json")
	p.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	p.DurationVar(&f.shutdownTimeout, "shutdown-timeout", 30*time.Second, "how long calls under way may take to finish")
	p.StringVar(&f.memory, "memory", "512M", "`SIZE` of memory that the process should stay below, at least 256M")
	p.IntVar(&f.limits.Connections, "max-connections", 0, "connections of the gRPC port (default 2048)")
	p.IntVar(&f.limits.Calls, "max-calls", 0, "calls at a time (default 512)")
	p.IntVar(&f.limits.Writes, "max-writes", 0, "puts, uploads and commits at a time (default 64)")
	p.IntVar(&f.httpConnections, "max-http-connections", 512, "connections of the HTTP port")
	p.IntVar(&f.httpRequests, "max-http-requests", 64, "requests of the HTTP port at a time")
	p.StringVar(&f.maxDataset, "max-dataset", "", "`SIZE` of a dataset that is put (default 16384G)")
	p.DurationVar(&f.limits.IdleTime, "idle-timeout", 0, "how long a call may wait for its caller (default 1m)")
	p.StringArrayVar(&f.limit, "limit", nil, "`NAME=VALUE` of another limit, once for each: "+strings.Join(grpcapi.LimitNames(), ", "))
	p.DurationVar(&f.limits.TotalTime, "call-timeout", 0, "how long a call may take (default 24h)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.serve(cmd, &f) }
	return cmd
}

func (a *app) serve(cmd *cobra.Command, f *serveFlags) (err error) {
	if a.node.address != "" {
		return usagef("serve is for a store on this machine, and not for --node")
	}
	clientScope, log, err := f.check(a)
	if err != nil {
		return err
	}
	// The transport says what its callers do wrong, in as many lines as they like.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer()))
	ctx := cmd.Context()
	dir, err := a.existing(ctx)
	if err != nil {
		return err
	}
	n := &node{flags: f, clientScope: clientScope, log: log, metrics: grpcapi.NewMetrics(buildVersion())}
	// Whatever was begun is ended, in an order in which nothing is used that has gone.
	defer func() { err = errors.Join(err, n.close()) }()
	if f.cert != "" {
		if n.tls, err = grpcapi.LoadTLS(grpcapi.TLSOptions{Cert: f.cert, Key: f.key, ClientCA: f.clientCA, Logger: log}); err != nil {
			return err
		}
	}
	if n.traces, err = openTraces(ctx, log); err != nil {
		return err
	}
	if n.grpc, err = openPort(ctx, "--listen", f.listen); err != nil {
		return err
	}
	if n.http, err = openPort(ctx, "--http", f.http); err != nil {
		return err
	}
	n.store, err = store.Open(ctx, dir, store.Options{
		WaitLock: a.waitLock, Command: cmd.CommandPath(), Logger: log, Observer: n.metrics.Observer(), TempDir: tempDir(),
		Seen: agent.SeenBy(dir), Wide: f.wide,
	})
	if err != nil {
		return err
	}
	if doubt := n.store.Doubt(); doubt != nil {
		log.Error("the store reads but does not append", "why", doubt)
	}
	n.agent = agent.New(n.store, agent.Options{Logger: log, Changed: n.metrics.AnchorChanged})
	n.tokens = grpcapi.OpenTokens(dir)
	if err := n.tokens.Err(); err != nil {
		return err
	}
	if err := f.exposed(n); err != nil {
		return err
	}
	if n.private, err = grpcapi.ListenPrivate(dir); err != nil {
		return err
	}
	if err := n.build(); err != nil {
		return err
	}
	if err := a.printNode(n); err != nil {
		return err
	}
	return n.run(ctx)
}

// printNode says where the node is.
func (a *app) printNode(n *node) error {
	for _, l := range []struct {
		service string
		port    net.Listener
	}{{"grpc", n.grpc}, {"http", n.http}, {"socket", n.private}} {
		if l.port == nil {
			continue
		}
		address, tls := l.port.Addr().String(), n.tls != nil && l.service != "socket"
		var err error
		switch {
		case a.json:
			err = a.print(map[string]any{"service": l.service, "address": address, "tls": tls})
		default:
			err = a.printf("%-6s %s\n", l.service, address)
		}
		if err != nil {
			return err
		}
	}
	return a.stdout.Flush()
}

// A node is a store being served.
type node struct {
	flags       *serveFlags
	clientScope scalev1.Scope
	auth        *grpcapi.Authenticator
	log         *slog.Logger
	metrics     *grpcapi.Metrics

	tls                 *grpcapi.TLS          // nil without
	traces              *trace.TracerProvider // nil without
	grpc, http, private net.Listener          // nil where there is none
	store               *store.Store
	agent               *agent.Agent
	tokens              *grpcapi.TokenFile
	server              *grpcapi.Server
	web                 *grpcapi.HTTP
}

// build makes the servers of what has been opened.
func (n *node) build() (err error) {
	f := n.flags
	n.auth = &grpcapi.Authenticator{Tokens: n.tokens, Anonymous: f.anonymous(n.grpc), ClientScope: n.clientScope, Logger: n.log}
	opt := grpcapi.ServerOptions{
		Limits: f.limits, Logger: n.log, Authenticate: n.auth.Authenticate, Credentials: grpcapi.Credentials(n.tls),
		Tokens: n.tokens, Anchors: n.agent, Version: buildVersion(), OnCall: n.metrics.OnCall, OnRefused: n.metrics.OnRefused,
	}
	if n.traces != nil {
		opt.TracerProvider = n.traces
	}
	if n.server, err = grpcapi.NewServer(n.store, opt); err != nil {
		return err
	}
	n.metrics.Watch(n.server)
	n.metrics.WatchAnchors(n.agent)
	if n.http == nil {
		return nil
	}
	n.web, err = grpcapi.NewHTTP(grpcapi.HTTPOptions{
		Server: n.server, Auth: n.auth, Anonymous: f.anonymous(n.http), TLS: n.tls,
		Hosts: append(ownHosts(f.http), f.hosts...), Origins: f.origins,
		Metrics: n.metrics.Handler(), Connections: f.httpConnections, Requests: f.httpRequests, Idle: f.limits.IdleTime, OnRefused: n.metrics.OnRefused, Logger: n.log,
	})
	return err
}

// run serves until ctx ends or one of the ports fails, and then stops in order.
func (n *node) run(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	failed := make(chan error, 3)
	serve := func(what string, serve func(net.Listener) error, l net.Listener) {
		if l == nil {
			return
		}
		go func() {
			if err := serve(l); err != nil {
				failed <- fmt.Errorf("%s port: %w", what, err)
			}
		}()
	}
	serve("private", n.server.Serve, n.private)
	serve("gRPC", n.server.Serve, n.grpc)
	if n.web != nil {
		serve("HTTP", n.web.Serve, n.http)
	}
	n.agent.Start()
	n.log.Info("serving", "version", buildVersion(), "tokens", n.tokens.Usable(), "tls", n.tls != nil, "traces", n.traces != nil)
	n.notify("READY=1")
	for {
		select {
		case err := <-failed: // for want of descriptors, say
			return err
		case <-hup:
			if n.tls == nil {
				n.log.Info("SIGHUP: there are no TLS files to read again")
			} else if err := n.tls.Reload(); err == nil {
				n.log.Info("SIGHUP: TLS files were read again")
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// close stops what was begun: first the calls, then what they need.
func (n *node) close() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), n.flags.shutdownTimeout)
	defer cancel()
	if n.server != nil {
		n.notify("STOPPING=1")
		n.log.Info("stopping", "timeout", n.flags.shutdownTimeout)
		if n.web != nil {
			n.web.Close()
		}
		if err := n.server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
			n.log.Warn("calls that had not finished were cancelled", "after", n.flags.shutdownTimeout)
		} else {
			errs = append(errs, err)
		}
	}
	if n.web != nil {
		if err := n.web.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	if n.traces != nil {
		ctx, cancel := context.WithTimeout(context.Background(), flushTraces)
		defer cancel()
		if err := n.traces.Shutdown(ctx); err != nil {
			n.log.Warn("the last traces are lost", "err", err)
		}
	}
	for _, l := range []net.Listener{n.grpc, n.http, n.private} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) { // by its server
			errs = append(errs, err)
		}
	}
	if n.tokens != nil {
		n.tokens.Close()
	}
	if n.agent != nil {
		n.agent.Close()
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
		n.log.Info("stopped")
	}
	return errors.Join(errs...)
}

// setMemory makes the garbage collector work harder before the process takes all of its
// memory: what is not Go's heap, above all the page tables of the index, is the rest.
func setMemory(size uint64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(size / 4 * 3))
	}
}
