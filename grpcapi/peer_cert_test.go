package grpcapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// patientNode is longer than clocks are moved: what is being sent then is not too slow.
const patientNode = 12 * time.Hour

// A certNode is a node whose clients have certificates, which allow everything.
type certNode struct {
	*rawNode
	ca    *authority // of the node itself
	files TLSOptions
	auth  *Authenticator
	clock *handClock
	token string // that allows everything too
	puts  int
}

// newCertNode starts a node that lets clients of those authorities in.
func newCertNode(t *testing.T, of ...*authority) *certNode {
	t.Helper()
	dir := t.TempDir()
	n := &certNode{ca: newAuthority(t, "node's"), files: tlsFiles(dir), clock: &handClock{t: time.Now()}}
	n.files.ClientCA = filepath.Join(dir, "clients.pem")
	n.ca.writeServer(t, n.files, "node")
	n.accept(t, of...)
	tokens := OpenTokens(dir)
	t.Cleanup(tokens.Close)
	n.token = mustCreate(t, tokens, "token", admin, time.Time{})
	n.auth = &Authenticator{Tokens: tokens, ClientScope: admin, Now: n.clock.now}
	n.rawNode = newRawNode(t, func(r *rawNode) {
		r.opt.Limits.IdleTime = patientNode
		r.opt.Now, r.opt.Authenticate, r.opt.Tokens, r.opt.Credentials = n.clock.now, n.auth.Authenticate, tokens, Credentials(loadTLS(t, n.files))
	})
	return n
}

// accept writes the list of authorities.
func (n *certNode) accept(t *testing.T, of ...*authority) {
	t.Helper()
	var list []byte
	for _, a := range of {
		list = append(list, a.pem...)
	}
	writeFile(t, n.files.ClientCA, list)
}

// A certClient has one connection, which it does not open again.
type certClient struct {
	stubs
	health healthpb.HealthClient
	follow grpc.ServerStreamingClient[scalev1.StreamEntriesResponse]
	watch  grpc.ServerStreamingClient[healthpb.HealthCheckResponse]
}

// connect connects and begins what anybody may.
func (n *certNode) connect(t *testing.T, cert tls.Certificate) *certClient {
	t.Helper()
	o := n.ca.client(t, nil)
	o.Certificates = []tls.Certificate{cert}
	conn, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(credentials.NewTLS(o)), grpc.WithDisableServiceConfig())
	if err != nil {
		t.Fatal(err)
	}
	n.conns = append(n.conns, conn)
	c := &certClient{stubs: stubs{
		conn: conn, ledger: scalev1.NewLedgerServiceClient(conn), node: scalev1.NewNodeServiceClient(conn),
	}, health: healthpb.NewHealthClient(conn)}
	if c.watch, err = c.health.Watch(n.ctx, &healthpb.HealthCheckRequest{}); err == nil {
		_, err = c.watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// client connects and begins calls that do not end.
func (n *certNode) client(t *testing.T, cert tls.Certificate) *certClient {
	t.Helper()
	c := n.connect(t, cert)
	var err error
	if c.follow, err = c.ledger.StreamEntries(n.ctx, &scalev1.StreamEntriesRequest{Follow: true}); err == nil {
		_, err = c.follow.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// works fails if the calls of some clients do not go on.
func (n *certNode) works(t *testing.T, clients ...*certClient) {
	t.Helper()
	for _, c := range clients {
		if _, err := c.node.ListTokens(n.ctx, &scalev1.ListTokensRequest{}); err != nil {
			t.Errorf("a call: %v", err)
		}
	}
	n.srv.sweep(n.clock.now())
	n.puts++
	if _, err := n.store.Put(n.ctx, []store.Input{{Name: fmt.Sprint(n.puts), Reader: strings.NewReader("x")}}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if _, err := c.follow.Recv(); err != nil {
			t.Errorf("a call under way: %v", err)
		}
	}
}

// gone fails if the client can do anything with its connection.
func (n *certNode) gone(t *testing.T, c *certClient, why string) {
	t.Helper()
	says := []string{why, "connect anew"}
	token := metadata.AppendToOutgoingContext(n.ctx, "authorization", "Bearer "+n.token)
	for what, ctx := range map[string]context.Context{"certificate": n.ctx, "certificate and token": token} {
		_, err := c.node.ListTokens(ctx, &scalev1.ListTokensRequest{})
		st := refused(t, what+": list", err, scalev1.ErrorReason_ERROR_REASON_TOKEN, says...)
		if links := detailOf[*errdetails.Help](st).GetLinks(); len(links) != 1 || !strings.Contains(links[0].GetDescription(), "certificate") {
			t.Errorf("what helps: %v", links)
		}
		_, err = c.node.CreateToken(ctx, &scalev1.CreateTokenRequest{Name: "new", Scope: admin})
		refused(t, what+": create", err, scalev1.ErrorReason_ERROR_REASON_TOKEN, says...)
		_, err = c.health.Check(ctx, &healthpb.HealthCheckRequest{})
		refused(t, what+": health", err, scalev1.ErrorReason_ERROR_REASON_TOKEN, says...)
	}
	n.srv.sweep(n.clock.now())
	_, err := c.follow.Recv()
	refused(t, "follow", err, scalev1.ErrorReason_ERROR_REASON_TOKEN, says...)
	_, err = c.watch.Recv()
	refused(t, "watch", err, scalev1.ErrorReason_ERROR_REASON_TOKEN, says...)
}

// certOf is a certificate for a client until a time, with those of others between.
func (a *authority) certOf(t *testing.T, until time.Time, between ...*authority) tls.Certificate {
	t.Helper()
	b, key := a.issue(t, "client", x509.ExtKeyUsageClientAuth, until)
	for _, a := range between {
		b = append(b, a.pem...)
	}
	cert, err := tls.X509KeyPair(b, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A certificate counts until it expires or one above it does, on connections made before too.
func TestPeerExpires(t *testing.T) {
	hours := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Hour) }
	root := newAuthorityUntil(t, "root", hours(4), nil)
	short, long := newAuthorityUntil(t, "short", hours(2), root), newAuthorityUntil(t, "long", hours(6), root)
	for name, c := range map[string]struct {
		cert tls.Certificate
		good time.Duration // so long
		why  string
	}{
		"its own":          {long.certOf(t, hours(2), long), 110 * time.Minute, ": it expired at "},
		"the one between":  {short.certOf(t, hours(6), short), 110 * time.Minute, ": that of its authority expired at "},
		"of the authority": {long.certOf(t, hours(6), long), 230 * time.Minute, ": that of its authority expired at "},
	} {
		t.Run(name, func(t *testing.T) {
			n := newCertNode(t, root)
			client := n.client(t, c.cert)
			n.works(t, client)
			n.clock.add(c.good)
			n.works(t, client)
			n.clock.add(20 * time.Minute)
			n.gone(t, client, c.why)
			if log := n.log.String(); strings.Contains(log, "token refused") {
				t.Errorf("a token is blamed: %s", log)
			}
		})
	}
}

// Who has an authority that is taken off the list is out, also where he is connected, and
// whatever state the node's own certificate is in. Others are not.
func TestPeerAuthorityRemoved(t *testing.T) {
	kept, removed := newAuthority(t, "kept"), newAuthority(t, "removed")
	until := time.Now().Add(time.Hour)
	for name, torn := range map[string]bool{"the list alone": false, "with a certificate without its key": true} {
		t.Run(name, func(t *testing.T) {
			n := newCertNode(t, kept, removed)
			good, bad := n.client(t, kept.certOf(t, until)), n.client(t, removed.certOf(t, until))
			n.works(t, good, bad)
			if torn {
				cert, _ := n.ca.issue(t, "next", x509.ExtKeyUsageServerAuth, until)
				writeFile(t, n.files.Cert, cert)
			}
			n.accept(t, kept)
			n.gone(t, bad, "no authority of the node's vouches for it")
			n.works(t, good)
			// Nobody has to ask: it is seen while calls are under way.
			n.accept(t, removed)
			n.srv.sweep(n.clock.now())
			_, err := good.follow.Recv()
			refused(t, "follow", err, scalev1.ErrorReason_ERROR_REASON_TOKEN, "no authority")
			if _, err := bad.node.ListTokens(n.ctx, &scalev1.ListTokensRequest{}); err != nil {
				t.Errorf("an authority that is on the list again: %v", err)
			}
		})
	}
}

// Where a certificate allows nothing by itself it still has to be good, also for what anybody
// may call.
func TestPeerWithoutScope(t *testing.T) {
	ca := newAuthority(t, "clients'")
	n := newCertNode(t, ca)
	n.auth.ClientScope = none
	client := n.connect(t, ca.certOf(t, time.Now().Add(time.Minute)))
	n.clock.add(time.Hour)
	n.srv.sweep(n.clock.now())
	_, err := client.watch.Recv()
	refused(t, "watch", err, scalev1.ErrorReason_ERROR_REASON_TOKEN, "it expired")
}

// A connection without a good certificate may have to go for others, as a stranger's.
func TestPeerLosesPlace(t *testing.T) {
	ca := newAuthority(t, "clients'")
	n := newCertNode(t, ca)
	client := n.client(t, ca.certOf(t, time.Now().Add(time.Minute)))
	who := func() string {
		n.srv.conns.mu.Lock()
		defer n.srv.conns.mu.Unlock()
		for c := range n.srv.conns.all {
			c.place.t.mu.Lock()
			defer c.place.t.mu.Unlock()
			return c.place.who
		}
		return "no connection"
	}
	if got := who(); got != "certificate client" {
		t.Errorf("the place is of %q", got)
	}
	n.clock.add(time.Hour)
	n.gone(t, client, "expired")
	if got := who(); got != "" {
		t.Errorf("the place is of %q still", got)
	}
}

// What holds for calls holds for requests on connections that are kept.
func TestHTTPPeer(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	for name, c := range map[string]struct {
		lose func(t *testing.T, o TLSOptions, clock *handClock)
		why  string
	}{
		"expired": {func(_ *testing.T, _ TLSOptions, clock *handClock) { clock.add(2 * time.Hour) }, "expired at "},
		"authority removed": {func(t *testing.T, o TLSOptions, _ *handClock) { writeFile(t, o.ClientCA, other.pem) },
			"no authority of the node's vouches for it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, clock := t.TempDir(), &handClock{t: time.Now()}
			o := tlsFiles(dir)
			o.ClientCA = filepath.Join(dir, "clients.pem")
			ca.writeServer(t, o, "node")
			writeFile(t, o.ClientCA, ca.pem)
			n := newWebNode(t, Limits{IdleTime: patientNode}, func(h *HTTPOptions) {
				h.TLS, h.Anonymous, h.Auth.Now, h.Server.opt.Now = loadTLS(t, o), scalev1.Scope_SCOPE_UNSPECIFIED, clock.now, clock.now
			})
			n.base = "https" + strings.TrimPrefix(n.base, "http")
			client := ca.client(t, ca)
			connect := func() { n.client.Transport = &http.Transport{TLSClientConfig: client} }
			var kept []http.RoundTripper // each with a connection
			paths := []string{"/v1/stat?ref=x", "/metrics", "/openapi.json", "/readyz"}
			for range paths {
				connect()
				kept = append(kept, n.client.Transport)
				n.put(t, "x", []byte("x"))
			}
			connect()
			t.Cleanup(n.client.CloseIdleConnections)
			resp, err := n.client.Get(n.base + "/v1/ledger/entries?follow=true")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			if !lines.Scan() || !strings.Contains(lines.Text(), `"result"`) {
				t.Fatalf("entries: %q, %v", lines.Text(), lines.Err())
			}
			writeFile(t, o.ClientCA, append(bytes.Clone(ca.pem), other.pem...))
			for i, path := range paths {
				n.client.Transport = kept[i]
				if code, _, body := n.do(t, "GET", path, "", n.bearer()...); code != 200 {
					t.Errorf("%s on a kept connection: %d %s", path, code, body)
				}
			}

			c.lose(t, o, clock)
			for i, path := range paths {
				n.client.Transport = kept[i]
				// A connection that is made now would not come that far without its authority.
				code, _, body := n.do(t, "GET", path, "", n.bearer()...)
				if code != 401 || reason(t, body) != "TOKEN" || !strings.Contains(body, c.why) {
					t.Errorf("%s: %d %s", path, code, body)
				}
			}
			// Whoever connects anew has a new connection, and not the one that is refused.
			var reused atomic.Bool
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused.Store(i.Reused) }}
			n.client.Transport = kept[0]
			r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", n.base+"/readyz", nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := n.client.Do(r); err == nil { // the handshake goes by another clock
				resp.Body.Close()
			}
			if reused.Load() {
				t.Error("a connection stays after it was refused")
			}
			n.server.sweep(clock.now())
			last := ""
			for lines.Scan() {
				last = lines.Text()
			}
			if !strings.Contains(last, `"error"`) || !strings.Contains(last, c.why) {
				t.Errorf("the stream ends with %q, %v", last, lines.Err())
			}
		})
	}
}
