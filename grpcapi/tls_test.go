package grpcapi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return newAuthorityUntil(t, name, time.Now().Add(time.Hour), nil)
}

// newAuthorityUntil makes one that is below another, unless that is nil.
func newAuthorityUntil(t *testing.T, name string, until time.Time, above *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	parent, signer := template, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate for name, and for loopback, until a time.
func (a *authority) issue(t *testing.T, name string, usage x509.ExtKeyUsage, until time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})
}

// client returns the TLS of a client that trusts the authority, with a certificate of
// signer's unless that is nil.
func (a *authority) client(t *testing.T, signer *authority) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	if signer != nil {
		cert, err := tls.X509KeyPair(signer.issue(t, "client", x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c
}

// tlsFiles are the files of a node's TLS in a directory.
func tlsFiles(dir string) TLSOptions {
	return TLSOptions{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) writeServer(t *testing.T, o TLSOptions, name string) {
	t.Helper()
	cert, key := a.issue(t, name, x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	writeFile(t, o.Cert, cert)
	writeFile(t, o.Key, key)
}

// loadTLS loads files that are looked at for every connection.
func loadTLS(t *testing.T, o TLSOptions) *TLS {
	t.Helper()
	c, err := LoadTLS(o)
	if err != nil {
		t.Fatal(err)
	}
	c.interval = 0
	return c
}

// echoTLS serves connections that give back what they get.
func echoTLS(t *testing.T, c *tls.Config) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// echo sends a byte and reads it back, and returns the name in the node's certificate.
func echo(c *tls.Conn) (string, error) {
	if _, err := c.Write([]byte{1}); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return "", err
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func dialEcho(addr string, c *tls.Config) (string, error) {
	conn, err := tls.Dial("tcp", addr, c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return echo(conn)
}

func TestTLSReload(t *testing.T) {
	ca := newAuthority(t, "ca")
	var log bytes.Buffer
	o := tlsFiles(t.TempDir())
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	ca.writeServer(t, o, "one")
	s := loadTLS(t, o)
	addr, client := echoTLS(t, s.Config()), ca.client(t, nil)
	old, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	expect := func(want string) {
		t.Helper()
		if got, err := dialEcho(addr, client); got != want || err != nil {
			t.Errorf("a new connection sees %q, %v, want %q", got, err, want)
		}
		if got, err := echo(old); got != "one" || err != nil {
			t.Errorf("the old connection: %q, %v", got, err)
		}
	}
	expect("one")
	ca.writeServer(t, o, "the second one")
	expect("the second one")

	// A certificate without its key, half a file and no file leave what was there.
	cert, key := ca.issue(t, "third", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	writeFile(t, o.Cert, cert)
	expect("the second one")
	if !strings.Contains(log.String(), "stay in force") {
		t.Errorf("the log does not say so: %s", &log)
	}
	lines := strings.Count(log.String(), "\n")
	expect("the second one")
	if n := strings.Count(log.String(), "\n"); n != lines {
		t.Errorf("files that did not change are tried again: %s", &log)
	}
	writeFile(t, o.Cert, cert[:len(cert)/2])
	expect("the second one")
	if err := os.Remove(o.Cert); err != nil {
		t.Fatal(err)
	}
	expect("the second one")
	if err := s.Reload(); err == nil {
		t.Error("reloaded without a certificate")
	}
	writeFile(t, o.Cert, cert)
	writeFile(t, o.Key, key)
	expect("third")
}

// What could not be read is tried again later, also if the files look the same.
func TestTLSReloadAgain(t *testing.T) {
	ca, o := newAuthority(t, "ca"), tlsFiles(t.TempDir())
	ca.writeServer(t, o, "one")
	s := loadTLS(t, o)
	now := time.Now()
	s.now = func() time.Time { return now }
	leaf := func() string { return s.current().Certificates[0].Leaf.Subject.CommonName }
	// Read in the middle of a change that leaves no trace: the stamps are those of the end.
	ca.writeServer(t, o, "two")
	s.o.Cert += ".gone"
	s.checked = time.Time{}
	if got := leaf(); got != "one" {
		t.Errorf("%q without a file", got)
	}
	s.o.Cert = o.Cert
	s.stamps = s.look()
	if now = now.Add(2 * tlsCheckInterval); leaf() != "one" {
		t.Error("files that did not change are tried again at once")
	}
	if now = now.Add(tlsRetryInterval); leaf() != "two" {
		t.Error("the files are not tried again")
	}
	if !s.again.IsZero() {
		t.Error("tried again for ever")
	}
}

func TestTLSReloadOnDemand(t *testing.T) {
	ca, o := newAuthority(t, "ca"), tlsFiles(t.TempDir())
	ca.writeServer(t, o, "one")
	s := loadTLS(t, o)
	s.interval = time.Hour
	addr, client := echoTLS(t, s.Config()), ca.client(t, nil)
	ca.writeServer(t, o, "two")
	if got, err := dialEcho(addr, client); got != "one" || err != nil {
		t.Errorf("before its time: %q, %v", got, err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if got, err := dialEcho(addr, client); got != "two" || err != nil {
		t.Errorf("after Reload: %q, %v", got, err)
	}
}

func TestTLSMutual(t *testing.T) {
	ca, theirs, wrong := newAuthority(t, "ca"), newAuthority(t, "theirs"), newAuthority(t, "theirs")
	dir := t.TempDir()
	o := tlsFiles(dir)
	o.ClientCA = filepath.Join(dir, "clients.pem")
	ca.writeServer(t, o, "node")
	writeFile(t, o.ClientCA, theirs.pem)
	s := loadTLS(t, o)
	addr := echoTLS(t, s.Config())
	if !s.Mutual() {
		t.Error("not mutual")
	}
	good := ca.client(t, theirs)
	if _, err := dialEcho(addr, good); err != nil {
		t.Error(err)
	}
	expired := ca.client(t, nil)
	cert, err := tls.X509KeyPair(theirs.issue(t, "client", x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	expired.Certificates = []tls.Certificate{cert}
	forServers := ca.client(t, nil)
	if cert, err = tls.X509KeyPair(theirs.issue(t, "client", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	forServers.Certificates = []tls.Certificate{cert}
	for name, c := range map[string]*tls.Config{
		"no certificate": ca.client(t, nil), "another authority of that name": ca.client(t, wrong),
		"an expired one": expired, "one for servers": forServers,
	} {
		if _, err := dialEcho(addr, c); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	// An authority that is taken off the list is out, also for clients that were in.
	good.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if _, err := dialEcho(addr, good); err != nil {
		t.Error(err)
	}
	writeFile(t, o.ClientCA, append(wrong.pem, '\n'))
	if _, err := dialEcho(addr, good); err == nil {
		t.Error("an authority that was taken off: let in")
	}
	if _, err := dialEcho(addr, ca.client(t, wrong)); err != nil {
		t.Error(err)
	}
}

// The pair of certificate and key and the list of authorities do not wait for each other.
func TestTLSReloadParts(t *testing.T) {
	ca, theirs, others := newAuthority(t, "ca"), newAuthority(t, "theirs"), newAuthority(t, "others")
	var log bytes.Buffer
	o := tlsFiles(t.TempDir())
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o.ClientCA = o.Cert + ".clients"
	ca.writeServer(t, o, "one")
	writeFile(t, o.ClientCA, theirs.pem)
	s := loadTLS(t, o)
	addr := echoTLS(t, s.Config())
	expect := func(want string, in, out *authority) {
		t.Helper()
		if got, err := dialEcho(addr, ca.client(t, in)); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		if _, err := dialEcho(addr, ca.client(t, out)); err == nil {
			t.Error("an authority that is not on the list: let in")
		}
	}
	expect("one", theirs, others)
	cert, key := ca.issue(t, "two", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	writeFile(t, o.Cert, cert)
	writeFile(t, o.ClientCA, others.pem)
	expect("one", others, theirs)
	for _, say := range []string{"stay in force", "authorities of clients have changed"} {
		if !strings.Contains(log.String(), say) {
			t.Errorf("the log does not say %q: %s", say, &log)
		}
	}
	if err := s.Reload(); err == nil {
		t.Error("reloaded without the key")
	}
	writeFile(t, o.Key, key)
	writeFile(t, o.ClientCA, theirs.pem[:len(theirs.pem)/2])
	expect("two", others, theirs)
	if err := s.Reload(); err == nil {
		t.Error("reloaded without authorities")
	}
	// The same authorities in another file are the same pool: nothing is verified again.
	was := s.current().ClientCAs
	writeFile(t, o.ClientCA, append([]byte("# for a reader\n"), others.pem...))
	if err := s.Reload(); err != nil || s.current().ClientCAs != was {
		t.Errorf("the same authorities are another pool, %v", err)
	}
}

func TestTLSVersions(t *testing.T) {
	ca, o := newAuthority(t, "ca"), tlsFiles(t.TempDir())
	ca.writeServer(t, o, "node")
	addr := echoTLS(t, loadTLS(t, o).Config())
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c := ca.client(t, nil)
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, version
		if _, err := dialEcho(addr, c); (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestTLSFiles(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), t.TempDir()
	good := tlsFiles(dir)
	good.ClientCA = filepath.Join(dir, "clients.pem")
	ca.writeServer(t, good, "node")
	writeFile(t, good.ClientCA, ca.pem)
	if _, err := LoadTLS(good); err != nil {
		t.Fatal(err)
	}
	_, key := ca.issue(t, "other", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		change func(*TLSOptions, string)
		b      []byte
	}{
		"no such file":         {func(o *TLSOptions, p string) { o.Cert = p + "/none" }, nil},
		"empty certificate":    {func(o *TLSOptions, p string) { o.Cert = p }, nil},
		"key of another":       {func(o *TLSOptions, p string) { o.Key = p }, key},
		"long":                 {func(o *TLSOptions, p string) { o.Cert = p }, make([]byte, maxPEMFile+1)},
		"empty authorities":    {func(o *TLSOptions, p string) { o.ClientCA = p }, nil},
		"authorities: a key":   {func(o *TLSOptions, p string) { o.ClientCA = p }, append(ca.pem[:len(ca.pem):len(ca.pem)], key...)},
		"authorities: garbage": {func(o *TLSOptions, p string) { o.ClientCA = p }, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")},
	} {
		o, path := good, filepath.Join(dir, "bad")
		writeFile(t, path, c.b)
		c.change(&o, path)
		if _, err := LoadTLS(o); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}
