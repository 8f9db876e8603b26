package grpcapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// errCertificate: the certificate that the connection was made with has expired since, or its
// authority has been taken off the node's list.
var errCertificate = fmt.Errorf("%w: client certificate", ErrToken)

func certRefusal(format string, args ...any) error {
	return &refusal{
		errCertificate, "client certificate not accepted any more: " + fmt.Sprintf(format, args...) + "; connect anew",
		"have a certificate that is valid, of an authority in the node's --client-ca",
	}
}

// A peerCert is what a client has proved to have when it connected. A connection may outlive
// it, so each call asks check. It is safe for concurrent use.
type peerCert struct {
	t    *TLS
	sent []*x509.Certificate // by the client: its own, and those between it and its authority

	mu    sync.Mutex
	pool  *x509.CertPool // that err and until are of; guarded by mu, as is all below
	err   error          // why no authority of pool vouches for it
	until time.Time      // how long one does
	told  error          // what check returned last
}

// peer returns the certificate of a connection whose handshake t has verified, or nil if the
// client needed none.
func (t *TLS) peer(s tls.ConnectionState) *peerCert {
	if len(s.VerifiedChains) == 0 {
		return nil
	}
	return &peerCert{t: t, sent: s.PeerCertificates}
}

// check returns why the certificate does not count at that time, which wraps errCertificate,
// or nil. Signatures are verified once for each list of authorities; else times are compared.
func (c *peerCert) check(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pool := c.t.current().ClientCAs; pool != c.pool {
		c.pool = pool
		c.until, c.err = c.verify(now)
	}
	err := c.err
	if err == nil && now.After(c.until) {
		err = c.expired(c.until)
	}
	if err != nil && c.told == nil {
		c.t.o.Logger.Warn("the certificate of a connection counts no more", "name", c.name(), "err", err)
	}
	c.told = err
	return err
}

// verify returns the end of that chain to an authority which lasts longest.
func (c *peerCert) verify(now time.Time) (until time.Time, err error) {
	own, between := c.sent[0], x509.NewCertPool()
	if now.After(own.NotAfter) {
		return until, c.expired(own.NotAfter)
	}
	for _, s := range c.sent[1:] {
		between.AddCert(s)
	}
	chains, err := own.Verify(x509.VerifyOptions{
		Roots: c.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return until, certRefusal("no authority of the node's vouches for it (%v)", err)
	}
	for _, chain := range chains {
		end := own.NotAfter
		for _, s := range chain {
			if s.NotAfter.Before(end) {
				end = s.NotAfter
			}
		}
		if end.After(until) {
			until = end
		}
	}
	return until, nil
}

func (c *peerCert) expired(at time.Time) error {
	what := "it"
	if at.Before(c.sent[0].NotAfter) {
		what = "that of its authority"
	}
	return certRefusal("%s expired at %s", what, at.UTC().Format(time.RFC3339))
}

// name is that of the owner, for logs.
func (c *peerCert) name() string {
	switch own := c.sent[0]; {
	case own.Subject.CommonName != "":
		return own.Subject.CommonName
	case len(own.DNSNames) > 0:
		return own.DNSNames[0]
	default:
		return "serial " + own.SerialNumber.String()
	}
}

// A certSlot has the certificate of a connection of the HTTP port, once there is a request.
type certSlot struct {
	once sync.Once
	cert *peerCert
}

type certKey struct{}
