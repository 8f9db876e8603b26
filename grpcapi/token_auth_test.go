package grpcapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// whoami serves listeners and tells who calls: an Identity or an error.
type whoami struct {
	server *grpc.Server
	heard  chan heard
}

type heard struct {
	id  Identity
	err error
}

func newWhoami(t *testing.T, a *Authenticator, c *TLS) *whoami {
	w := &whoami{heard: make(chan heard, 1)}
	w.server = grpc.NewServer(grpc.Creds(Credentials(c)), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			id, err := a.Authenticate(ctx)
			w.heard <- heard{id, err}
			return h(ctx, req)
		}))
	healthpb.RegisterHealthServer(w.server, health.NewServer())
	t.Cleanup(w.server.Stop)
	return w
}

func (w *whoami) serve(t *testing.T, l net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(l) }()
	t.Cleanup(func() {
		w.server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (w *whoami) tcp(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, l)
	return l.Addr().String()
}

// ask makes a call with pairs of metadata and returns who the server says it was.
func (w *whoami) ask(t *testing.T, target string, creds credentials.TransportCredentials, dial func(context.Context, string) (net.Conn, error), md ...string) (Identity, error) {
	t.Helper()
	opts := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	if dial != nil {
		opts = append(opts, grpc.WithContextDialer(dial))
	}
	c, err := grpc.NewClient("passthrough:"+target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := healthpb.NewHealthClient(c).Check(metadata.AppendToOutgoingContext(t.Context(), md...), &healthpb.HealthCheckRequest{}); err != nil {
		return Identity{}, err // of the transport
	}
	h := <-w.heard
	return h.id, h.err
}

func TestAuthenticateTCP(t *testing.T) {
	f := OpenTokens(t.TempDir())
	defer f.Close()
	text := mustCreate(t, f, "ci", scalev1.Scope_SCOPE_WRITE, time.Time{})
	revoked := mustCreate(t, f, "old", scalev1.Scope_SCOPE_ADMIN, time.Time{})
	if err := f.Revoke("old"); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a := &Authenticator{Tokens: f, Anonymous: scalev1.Scope_SCOPE_READ, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	w := newWhoami(t, a, nil)
	addr := w.tcp(t)
	const forged = `{"Anonymous":3,"Authorization":[]}`
	for _, c := range []struct {
		name string
		md   []string
		want string // "" is an error
	}{
		{"nothing", nil, "anonymous READ"},
		{"token", []string{"authorization", "Bearer " + text}, "token ci WRITE"},
		{"scheme in lower case", []string{"authorization", "bearer  " + text}, "token ci WRITE"},
		{"caller of the gateway", []string{callerKey, forged}, "anonymous READ"},
		{"unknown", []string{"authorization", "Bearer " + formatToken("aaaaaaaa", make([]byte, tokenKeySize))}, ""},
		{"revoked", []string{"authorization", "Bearer " + revoked}, ""},
		{"cut", []string{"authorization", "Bearer " + text[:20]}, ""},
		{"empty", []string{"authorization", ""}, ""},
		{"scheme alone", []string{"authorization", "Bearer"}, ""},
		{"basic", []string{"authorization", "Basic " + text}, ""},
		{"no scheme", []string{"authorization", text}, ""},
		{"two", []string{"authorization", "Bearer " + text, "authorization", "Bearer " + revoked}, ""},
	} {
		id, err := w.ask(t, addr, insecure.NewCredentials(), nil, c.md...)
		got := ""
		if err == nil {
			got = fmt.Sprintf("%s %s", id.Name, strings.TrimPrefix(id.Scope.String(), "SCOPE_"))
		} else if !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got != c.want || (id.Void != nil) != strings.HasPrefix(c.want, "token") {
			t.Errorf("%s: %q %v %v, want %q", c.name, got, id.Void, err, c.want)
		}
	}
	if s := log.String(); strings.Count(s, "token refused") != 8 || strings.Contains(s, strings.Split(revoked, "_")[2]) || !strings.Contains(s, "127.0.0.1") {
		t.Errorf("log: %s", s)
	}
	a.Anonymous = scalev1.Scope_SCOPE_UNSPECIFIED
	if _, err := w.ask(t, addr, insecure.NewCredentials(), nil); !errors.Is(err, ErrToken) {
		t.Errorf("nothing, and nothing is open: %v", err)
	}
	if _, err := w.ask(t, addr, insecure.NewCredentials(), nil, callerKey, forged); !errors.Is(err, ErrToken) {
		t.Errorf("a forged caller: %v", err)
	}
}

func TestAuthenticatePrivate(t *testing.T) {
	dir := longDir(t)
	a := &Authenticator{}
	w := newWhoami(t, a, nil)
	l, err := ListenPrivate(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, l)
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return DialPrivate(ctx, dir) }
	// A token that is not accepted takes nothing away.
	for _, md := range [][]string{nil, {"authorization", "Bearer nonsense"}} {
		id, err := w.ask(t, "private", insecure.NewCredentials(), dial, md...)
		if err != nil || id.Scope != scalev1.Scope_SCOPE_ADMIN || !strings.HasPrefix(id.Name, "user ") {
			t.Errorf("%v, %v", id, err)
		}
	}
}

func TestAuthenticateCertificate(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), t.TempDir()
	o := tlsFiles(dir)
	o.ClientCA = filepath.Join(dir, "clients.pem")
	ca.writeServer(t, o, "node")
	writeFile(t, o.ClientCA, ca.pem)
	f := OpenTokens(dir)
	defer f.Close()
	text := mustCreate(t, f, "ci", scalev1.Scope_SCOPE_ADMIN, time.Time{})
	a := &Authenticator{Tokens: f, Anonymous: scalev1.Scope_SCOPE_UNSPECIFIED, ClientScope: scalev1.Scope_SCOPE_WRITE}
	w := newWhoami(t, a, loadTLS(t, o))
	addr := w.tcp(t)
	with := func(c *tls.Config) credentials.TransportCredentials { return credentials.NewTLS(c) }
	id, err := w.ask(t, addr, with(ca.client(t, ca)), nil)
	if err != nil || id.Name != "certificate client" || id.Scope != scalev1.Scope_SCOPE_WRITE {
		t.Errorf("certificate: %v, %v", id, err)
	}
	id, err = w.ask(t, addr, with(ca.client(t, ca)), nil, "authorization", "Bearer "+text)
	if err != nil || id.Name != "token ci" || id.Scope != scalev1.Scope_SCOPE_ADMIN {
		t.Errorf("certificate and token: %v, %v", id, err)
	}
	// A token that is refused is refused, whatever the certificate allows.
	if id, err := w.ask(t, addr, with(ca.client(t, ca)), nil, "authorization", "Bearer x"); !errors.Is(err, ErrToken) {
		t.Errorf("certificate and a bad token: %v, %v", id, err)
	}
	a.ClientScope = scalev1.Scope_SCOPE_UNSPECIFIED
	if id, err := w.ask(t, addr, with(ca.client(t, ca)), nil); !errors.Is(err, ErrToken) {
		t.Errorf("certificates allow nothing: %v, %v", id, err)
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"no certificate": with(ca.client(t, nil)), "another authority": with(ca.client(t, newAuthority(t, "ca"))), "plain": insecure.NewCredentials(),
	} {
		if _, err := w.ask(t, addr, creds, nil, "authorization", "Bearer "+text); status.Code(err).String() != "Unavailable" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Only refusals are limited, and only those of one address.
func TestRefusalsAreLimited(t *testing.T) {
	f := OpenTokens(t.TempDir())
	defer f.Close()
	text := mustCreate(t, f, "ci", scalev1.Scope_SCOPE_WRITE, time.Time{})
	var log bytes.Buffer
	clock := &tokenClock{tokenTime}
	a := &Authenticator{Tokens: f, Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: clock.now}
	try := func(addr, text string) error {
		_, err := a.identify(caller{addr: addr}, []string{"Bearer " + text})
		return err
	}
	for i := range failuresOfOne {
		if err := try(fmt.Sprintf("10.0.0.1:%d", i), "x"); !errors.Is(err, ErrToken) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := try("10.0.0.1:9", "x"); !errors.Is(err, ErrLimit) {
		t.Errorf("beyond the limit: %v", err)
	}
	if n := strings.Count(log.String(), "\n"); n != failuresOfOne {
		t.Errorf("%d lines of log", n)
	}
	if err := try("10.0.0.1:9", text); err != nil {
		t.Errorf("a good token from there: %v", err)
	}
	if err := try("10.0.0.2:9", "x"); !errors.Is(err, ErrToken) {
		t.Errorf("another address: %v", err)
	}
	clock.t = clock.t.Add(failurePeriod)
	if err := try("10.0.0.1:9", "x"); !errors.Is(err, ErrToken) {
		t.Errorf("later: %v", err)
	}
	// One host of IPv6 has a whole network.
	for i := range failuresOfOne {
		try(fmt.Sprintf("[2001:db8::%x]:1", i), "x")
	}
	if err := try("[2001:db8::ffff]:1", "x"); !errors.Is(err, ErrLimit) {
		t.Errorf("the same network: %v", err)
	}
	if err := try("[2001:db8:0:1::1]:1", "x"); !errors.Is(err, ErrToken) {
		t.Errorf("another network: %v", err)
	}
	for i := range failuresOfAll {
		try(fmt.Sprintf("10.1.%d.%d:1", i/256, i%256), "x")
	}
	if err := try("10.9.9.9:1", "x"); !errors.Is(err, ErrLimit) || len(a.refused.count) > failuresOfAll {
		t.Errorf("all together: %v, %d", err, len(a.refused.count))
	}
	if _, err := a.identify(caller{addr: "10.0.0.1:1", anonymous: scalev1.Scope_SCOPE_READ}, nil); err != nil {
		t.Errorf("callers without a token: %v", err)
	}
}
