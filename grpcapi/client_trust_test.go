package grpcapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// A countingListener counts the connections that are made to it.
type countingListener struct {
	net.Listener
	n atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// TestClientTrust: what will not pass by itself is told at once, with the first connection.
func TestClientTrust(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	own, other := newAuthority(t, "own"), newAuthority(t, "other")
	writeFile(t, at("own.pem"), own.pem)
	writeFile(t, at("other.pem"), other.pem)
	for name, a := range map[string]*authority{"mine": own, "theirs": other} {
		cert, key := a.issue(t, "client", x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour))
		writeFile(t, at(name+".crt"), cert)
		writeFile(t, at(name+".key"), key)
	}
	if err := store.Init(t.Context(), at("store"), store.InitOptions{Origin: "trust.test"}); err != nil {
		t.Fatal(err)
	}
	s := must(store.Open(context.Background(), at("store"), store.Options{}))
	defer s.Close()

	// serve serves the store until the test that it belongs to ends.
	serve := func(t *testing.T, certs *TLS) *countingListener {
		srv := must(NewServer(s, ServerOptions{
			Credentials: Credentials(certs),
			Authenticate: func(context.Context) (Identity, error) {
				return Identity{Name: "test", Scope: scalev1.Scope_SCOPE_ADMIN}, nil
			},
		}))
		l := &countingListener{Listener: must(net.Listen("tcp", "127.0.0.1:0"))}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		t.Cleanup(func() {
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		return l
	}
	files := tlsFiles(dir)
	own.writeServer(t, files, "node")
	mutual := files
	mutual.ClientCA = at("own.pem")
	expired := TLSOptions{Cert: at("expired.crt"), Key: at("expired.key")}
	cert, key := own.issue(t, "node", x509.ExtKeyUsageServerAuth, time.Now().Add(-time.Minute))
	writeFile(t, expired.Cert, cert)
	writeFile(t, expired.Key, key)

	for name, c := range map[string]struct {
		node    *TLS // nil: it does without
		o       DialOptions
		trusted bool
		refused bool
		as      any // what errors.As finds
	}{
		"as it should be":              {node: loadTLS(t, mutual), o: DialOptions{CACert: at("own.pem"), ClientCert: at("mine.crt"), ClientKey: at("mine.key")}, trusted: true},
		"unknown authority":            {node: loadTLS(t, files), o: DialOptions{CACert: at("other.pem")}, as: new(x509.UnknownAuthorityError)},
		"not one of the system's":      {node: loadTLS(t, files), o: DialOptions{ServerName: "localhost"}, as: new(x509.UnknownAuthorityError)},
		"another name":                 {node: loadTLS(t, files), o: DialOptions{CACert: at("own.pem"), ServerName: `other."example`}, as: new(x509.HostnameError)},
		"expired":                      {node: loadTLS(t, expired), o: DialOptions{CACert: at("own.pem")}, as: new(x509.CertificateInvalidError)},
		"no certificate":               {node: loadTLS(t, mutual), o: DialOptions{CACert: at("own.pem")}, refused: true},
		"a certificate of another":     {node: loadTLS(t, mutual), o: DialOptions{CACert: at("own.pem"), ClientCert: at("theirs.crt"), ClientKey: at("theirs.key")}, refused: true},
		"a node that does without TLS": {o: DialOptions{CACert: at("own.pem")}, as: new(tls.RecordHeaderError)},
	} {
		t.Run(name, func(t *testing.T) {
			l := serve(t, c.node)
			conn, err := Dial(t.Context(), l.Addr().String(), c.o)
			if c.trusted {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			var untrusted *TrustError
			if !errors.Is(err, ErrTrust) || errors.Is(err, ErrUnreachable) || !errors.As(err, &untrusted) {
				t.Fatalf("error %v, want %v", err, ErrTrust)
			}
			if untrusted.Refused != c.refused {
				t.Errorf("refused by the node: %t, want %t: %v", untrusted.Refused, c.refused, err)
			}
			if c.as != nil && !errors.As(err, c.as) {
				t.Errorf("error %v, want a %T", err, c.as)
			}
			// gRPC may have begun another one by then, this client does not ask for it.
			if n := l.n.Load(); n > 2 {
				t.Errorf("%d connections were made", n)
			}
		})
	}
}

// TestClientTrustPasses: an error that was remembered is not that of later calls.
func TestClientTrustPasses(t *testing.T) {
	var tr trust
	tr.last.Store(&TrustError{Err: errors.New("remote error: tls: bad certificate")})
	c := &trustConn{trust: &tr}
	c.first(0, errors.New("connection reset"))
	if tr.last.Load() == nil {
		t.Error("an error that says nothing of trust has taken its place")
	}
	c.first(1, nil)
	if tr.last.Load() != nil || !c.heard.Load() {
		t.Error("what had failed is remembered when the node has been heard")
	}
	c.Conn = failing{&net.OpError{Op: "remote error", Err: tls.AlertError(48)}}
	if _, err := c.Read(make([]byte, 1)); err == nil || tr.last.Load() != nil {
		t.Errorf("an alert in the middle (%v) counts as one of the handshake", err)
	}
	c.heard.Store(false)
	if _, err := c.Write(nil); newTrustError(err) == nil || tr.last.Load() == nil {
		t.Errorf("a write that finds the connection closed ends with %v, not with what the node has said", err)
	}
	if e := newTrustError(&net.OpError{Op: "remote error", Err: tls.AlertError(80)}); e != nil {
		t.Errorf("an internal error of the node is %v", e)
	}
	if e := newTrustError(&net.OpError{Op: "read", Err: errors.New("connection reset")}); e != nil {
		t.Errorf("a broken connection is %v", e)
	}
}

// failing is a connection that can be neither read nor written to.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error)       { return 0, f.err }
func (failing) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (failing) Close() error                     { return nil }
func (failing) LocalAddr() net.Addr              { return nil }
func (failing) RemoteAddr() net.Addr             { return nil }
func (failing) SetDeadline(time.Time) error      { return nil }
func (failing) SetReadDeadline(time.Time) error  { return nil }
func (failing) SetWriteDeadline(time.Time) error { return nil }
