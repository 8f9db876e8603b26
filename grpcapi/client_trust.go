package grpcapi

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// A TrustError says why there can be no TLS between a client and a node until one of them is
// set up in another way. It is of the class ErrTrust.
type TrustError struct {
	// Refused: it is the node that refuses what this client has shown, or misses.
	Refused bool
	Err     error // of package tls or x509
}

func (e *TrustError) Error() string {
	if e.Refused {
		return "the node does not take this client's certificate, or it has shown none: " + plain(e.Err.Error(), maxErrorText)
	}
	return ErrTrust.Error() + ": " + plain(e.Err.Error(), maxErrorText)
}

func (e *TrustError) Unwrap() []error { return []error{ErrTrust, e.Err} }

// What the other end of TLS says, in an alert, of the certificate that it was shown (RFC 8446,
// section 6), and what else will not pass by itself.
var (
	alertsOfCertificates = []tls.AlertError{42, 43, 44, 45, 46, 48, 49, 116}
	alertsOfSettings     = []tls.AlertError{40, 70, 71, 112, 120}
)

// newTrustError returns nil for what may be another way the next time.
func newTrustError(err error) *TrustError {
	var unverified *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	var said *net.OpError
	switch {
	case errors.As(err, &unverified), errors.As(err, &notTLS):
		return &TrustError{Err: err}
	case !errors.As(err, &said) || said.Op != "remote error":
		return nil
	}
	// Package tls does not export the type that these have.
	is := func(a tls.AlertError) bool { return said.Err.Error() == a.Error() }
	refused := slices.ContainsFunc(alertsOfCertificates, is)
	if refused || slices.ContainsFunc(alertsOfSettings, is) {
		return &TrustError{Refused: refused, Err: err}
	}
	return nil
}

// A trust remembers why connections to a node cannot be made: gRPC hands on no more than
// what errors say.
type trust struct{ last atomic.Pointer[TrustError] }

// options have the handshakes of a client with these credentials looked at.
func (t *trust) options(c credentials.TransportCredentials) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(&trustCreds{c, t}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return t.of(call(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, desc, cc, method, opts...)
			return s, t.of(err)
		}),
	}
}

// of returns the error of a call, or why there is no connection for it. Such a call was
// never sent.
func (t *trust) of(err error) error {
	last := t.last.Load()
	if last == nil || status.Code(err) != codes.Unavailable {
		return err
	}
	said, text := status.Convert(err).Message(), last.Err.Error()
	if quoted := strconv.Quote(text); strings.Contains(said, text) || strings.Contains(said, quoted[1:len(quoted)-1]) {
		return last
	}
	return err
}

type trustCreds struct {
	credentials.TransportCredentials
	trust *trust
}

func (c *trustCreds) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		c.trust.last.Store(newTrustError(err))
		return nil, nil, err
	}
	return &trustConn{Conn: conn, trust: c.trust}, info, nil
}

func (c *trustCreds) Clone() credentials.TransportCredentials {
	return &trustCreds{c.TransportCredentials.Clone(), c.trust}
}

// A trustConn looks at what comes first: with TLS 1.3 a client that is not let in learns so
// when it begins to read.
type trustConn struct {
	net.Conn
	trust *trust
	heard atomic.Bool // something came, and nothing is looked at any more
}

func (c *trustConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.heard.Load() {
		c.first(n, err)
	}
	return n, err
}

func (c *trustConn) first(n int, err error) {
	if n > 0 {
		c.heard.Store(true)
		c.trust.last.Store(nil)
	} else if e := newTrustError(err); e != nil {
		c.trust.last.Store(e)
	}
}

// Write implements net.Conn. A node that lets nobody in closes the connection, which may be
// noticed here before what it says is read.
func (c *trustConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil || c.heard.Load() || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	if c.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		if m, rerr := c.Read(make([]byte, 1)); m == 0 && newTrustError(rerr) != nil {
			err = rerr
		}
	}
	return n, err
}
