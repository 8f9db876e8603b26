package grpcapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// TLSOptions says which files a node's TLS is made of.
type TLSOptions struct {
	// Cert and Key are PEM files: the node's certificate, with those between it and its
	// authority, and the private key.
	Cert, Key string
	// ClientCA is a PEM file with the authorities of clients. If it is set, only clients
	// with a certificate of one of them are let in.
	ClientCA string
	// Logger is told of reloading; nil discards.
	Logger *slog.Logger
}

// TLS is a node's TLS configuration, which follows its files: they are looked at again
// when a connection comes in, and when a client with a certificate calls and while the call is
// under way, at most once a second. The pair of certificate and key and the list of
// authorities are each replaced if they can be used; what cannot leaves in force what was read
// before. Open connections keep the node's certificate, but not their client's authority: see
// peerCert. It is safe for concurrent use.
type TLS struct {
	o        TLSOptions
	interval time.Duration
	now      func() time.Time

	mu      sync.Mutex
	config  *tls.Config // guarded by mu, as is all below
	stamps  [3]stamp    // of the files as they were read, or tried
	checked time.Time
	again   time.Time // when to try once more what could not be read; zero if all was
}

// A stamp tells a file from what was at its path before.
type stamp struct {
	size    int64
	modTime time.Time
	inode   uint64
}

const (
	tlsCheckInterval = time.Second
	tlsRetryInterval = time.Minute
	maxPEMFile       = 1 << 20
)

// LoadTLS reads the files. They must be in order now.
func LoadTLS(o TLSOptions) (*TLS, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t := &TLS{o: o, interval: tlsCheckInterval, now: time.Now}
	t.stamps, t.checked = t.look(), t.now()
	c := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
	if err := errors.Join(t.readPair(c), t.readAuthorities(c)); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	t.config = c
	return t, nil
}

// Config returns a configuration for listeners. protos are offered by ALPN.
//
// There are no session tickets: a resumed session would let in a client whose authority
// has been taken off the list since.
func (t *TLS) Config(protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protos, SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := t.current().Clone()
			c.NextProtos = protos
			return c, nil
		},
	}
}

// Mutual reports whether clients must have certificates.
func (t *TLS) Mutual() bool { return t.o.ClientCA != "" }

func (t *TLS) current() *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.now(); now.Sub(t.checked) >= t.interval {
		t.checked = now
		// One try for each state of the files, and others later: what was wrong may not have
		// been with them.
		if s := t.look(); s != t.stamps || !t.again.IsZero() && !now.Before(t.again) {
			t.stamps = s
			t.reload()
		}
	}
	return t.config
}

// Reload reads the files again, whether or not they look changed. If some cannot be used the
// error says why, and what was in force of them stays.
func (t *TLS) Reload() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stamps, t.checked = t.look(), t.now()
	return t.reload()
}

func (t *TLS) reload() error {
	// A certificate that cannot be used keeps no authority in that was taken off the list.
	c, was := t.config.Clone(), t.config.ClientCAs
	err := errors.Join(t.readPair(c), t.readAuthorities(c))
	t.config = c
	if c.ClientCAs != was {
		t.o.Logger.Info("the authorities of clients have changed", "file", t.o.ClientCA)
	}
	if err != nil {
		t.again = t.now().Add(tlsRetryInterval)
		t.o.Logger.Error("TLS files cannot be used; those read before stay in force", "err", err)
		return fmt.Errorf("TLS: %w", err)
	}
	t.again = time.Time{}
	t.o.Logger.Info("TLS files read again", "cert", t.o.Cert, "expires", c.Certificates[0].Leaf.NotAfter)
	return nil
}

// look returns the stamps of the files; a file that is not there has the zero stamp.
func (t *TLS) look() (s [3]stamp) {
	for i, path := range [...]string{t.o.Cert, t.o.Key, t.o.ClientCA} {
		if path == "" {
			continue
		}
		if fi, err := os.Stat(path); err == nil {
			st := fi.Sys().(*syscall.Stat_t) // as it always is on Linux
			s[i] = stamp{fi.Size(), fi.ModTime(), st.Ino}
		}
	}
	return s
}

// readPair sets the node's certificate.
func (t *TLS) readPair(c *tls.Config) error {
	certPEM, err := readPEM(t.o.Cert)
	if err != nil {
		return err
	}
	keyPEM, err := readPEM(t.o.Key)
	if err != nil {
		return err
	}
	// While the two are being replaced they do not match, and the old ones stay.
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", t.o.Cert, t.o.Key, err)
	}
	c.Certificates = []tls.Certificate{cert}
	return nil
}

// readAuthorities sets those of clients, if there are to be any. The same ones stay the same
// pool, so that nothing is verified again for them.
func (t *TLS) readAuthorities(c *tls.Config) error {
	if t.o.ClientCA == "" {
		return nil
	}
	pool, err := readCAs(t.o.ClientCA)
	if err != nil {
		return err
	}
	if !pool.Equal(c.ClientCAs) {
		c.ClientCAs = pool
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return nil
}

func readCAs(path string) (*x509.CertPool, error) {
	b, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		// A part of a list of authorities would refuse some clients without a word.
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: block %d is not a certificate", path, n)
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return pool, nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEMFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPEMFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxPEMFile)
	}
	return b, nil
}
