package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// Callers with no token, one of too small a scope, one that is not or no longer good.
func TestNodeTokens(t *testing.T) {
	noLeaks(t)
	s := newNodeStore(t)
	foreign := newNodeStore(t).admin
	p := startNode(t, s)
	conn := p.dial(t, "")
	calls := map[string]struct {
		needs int // 0: read, which loopback may without a token
		call  func(context.Context) error
	}{
		"list": {0, func(ctx context.Context) error {
			_, err := scalev1.NewDatasetServiceClient(conn).ListDatasets(ctx, &scalev1.ListDatasetsRequest{})
			return err
		}},
		"put": {1, func(ctx context.Context) error {
			_, err := putBytes(ctx, conn, "x", []byte("x"))
			return err
		}},
		"missing": {1, func(ctx context.Context) error {
			_, err := scalev1.NewBlockServiceClient(conn).FindMissing(ctx, &scalev1.FindMissingRequest{Digests: [][]byte{make([]byte, 32)}})
			return err
		}},
		"upload": {1, func(ctx context.Context) error {
			u, err := scalev1.NewBlockServiceClient(conn).Upload(ctx)
			return sendAll(u, err, uploadFrame(rawFrameOf([]byte("x"))))
		}},
		"remove": {1, func(ctx context.Context) error {
			_, err := scalev1.NewDatasetServiceClient(conn).Remove(ctx, &scalev1.RemoveRequest{Name: "x"})
			return err
		}},
		"curator": {2, func(ctx context.Context) error {
			_, err := scalev1.NewCuratorServiceClient(conn).AddCurator(ctx, &scalev1.AddCuratorRequest{Curator: noise(32)})
			return err
		}},
		"token": {2, func(ctx context.Context) error {
			_, err := scalev1.NewNodeServiceClient(conn).CreateToken(ctx, &scalev1.CreateTokenRequest{Name: "evil", Scope: scalev1.Scope_SCOPE_ADMIN})
			return err
		}},
		"tokens": {2, func(ctx context.Context) error {
			_, err := scalev1.NewNodeServiceClient(conn).ListTokens(ctx, &scalev1.ListTokensRequest{})
			return err
		}},
		"check": {2, func(ctx context.Context) error {
			c, err := scalev1.NewNodeServiceClient(conn).Check(ctx, &scalev1.CheckRequest{})
			for err == nil {
				_, err = c.Recv()
			}
			if err == io.EOF {
				return nil
			}
			return err
		}},
	}
	for name, c := range calls {
		for has, token := range []string{p.read, p.write, p.admin} {
			err := c.call(withToken(t.Context(), token))
			if allowed := has >= c.needs; !allowed {
				wantStatus(t, name+" with too small a scope", err, codes.PermissionDenied, "SCOPE")
			} else if code := status.Code(err); code == codes.PermissionDenied || code == codes.Unauthenticated {
				t.Errorf("%s with scope %d: %v", name, has, err)
			}
		}
		switch err := c.call(t.Context()); {
		case c.needs == 0 && err != nil:
			t.Errorf("%s without a token: %v", name, err)
		case c.needs > 0 && status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.Unauthenticated:
			t.Errorf("%s without a token: %v", name, err)
		}
		if name != "put" && name != "tokens" {
			continue // whoever shows many bad tokens is no longer told about each
		}
		flipped := []byte(p.admin)
		flipped[20] ^= 1
		for _, token := range []string{"", "x", string(flipped), p.admin + "x", p.admin[1:], foreign, strings.ToUpper(p.admin)} {
			if err := c.call(withToken(t.Context(), token)); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s with a bad token: %v", name, err)
			}
		}
	}
	p.check(t)

	// Tokens that end while a put is under way end the put.
	for name, end := range map[string]func(token string){
		"expires": func(string) {},
		"revoked": func(string) { scale(t, "token", "revoke", "revoked", "--store", p.dir) },
	} {
		args := []string{name, "--scope", "write"}
		if name == "expires" {
			args = append(args, "--expires", "2s")
		}
		token := p.token(t, args...)
		ctx, cancel := context.WithTimeout(withToken(t.Context(), token), patient)
		put, err := scalev1.NewDatasetServiceClient(conn).Put(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*scalev1.PutRequest{putHeader(name, scalev1.Kind_KIND_FILE), putData([]byte("data"))} {
			if err := put.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		end(token)
		wantStatus(t, name, put.RecvMsg(new(scalev1.PutResponse)), codes.Unauthenticated, "TOKEN")
		_, err = putBytes(ctx, conn, name, []byte("data"))
		wantStatus(t, name+", a new call", err, codes.Unauthenticated, "TOKEN")
		cancel()
	}
	if names := datasetNames(t, conn); slices.Contains(names, "expires") || slices.Contains(names, "revoked") {
		t.Errorf("what a void token put is there: %q", names)
	}
	if strings.Contains(p.log.tail(1<<20), p.write) {
		t.Error("a token is in the log")
	}
	p.sound(t)
}

// A certifier signs certificates.
type certifier struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCertifier(t *testing.T) *certifier {
	t.Helper()
	c := &certifier{key: newKey(t)}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c.cert, _ = c.sign(t, template, c.key)
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign completes a certificate; the first one signs itself.
func (c *certifier) sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := c.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, der
}

// issue makes a certificate that is good for both ends of a connection on this machine.
func (c *certifier) issue(t *testing.T) tls.Certificate {
	t.Helper()
	key := newKey(t)
	_, der := c.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "node"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (c *certifier) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Both ends refuse whom an authority of their own has not signed, on both ports.
func TestNodeWrongAuthority(t *testing.T) {
	noLeaks(t)
	own, other := newCertifier(t), newCertifier(t)
	dir := t.TempDir()
	cert := own.issue(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	p := startNode(t, newNodeStore(t),
		"--tls-cert", writePEM(t, filepath.Join(dir, "crt"), "CERTIFICATE", cert.Certificate[0]),
		"--tls-key", writePEM(t, filepath.Join(dir, "key"), "PRIVATE KEY", key),
		"--client-ca", writePEM(t, filepath.Join(dir, "ca"), "CERTIFICATE", own.cert.Raw))
	good, foreign := own.issue(t), other.issue(t)
	for name, c := range map[string]struct {
		config *tls.Config // nil: no TLS
		met    bool
	}{
		"all as it should be":           {&tls.Config{RootCAs: own.pool(), Certificates: []tls.Certificate{good}}, true},
		"the node's authority unknown":  {&tls.Config{RootCAs: other.pool(), Certificates: []tls.Certificate{good}}, false},
		"another name":                  {&tls.Config{RootCAs: own.pool(), Certificates: []tls.Certificate{good}, ServerName: "other.example"}, false},
		"a client of another authority": {&tls.Config{RootCAs: own.pool(), Certificates: []tls.Certificate{foreign}}, false},
		"a client without certificate":  {&tls.Config{RootCAs: own.pool()}, false},
		"TLS 1.1":                       {&tls.Config{RootCAs: own.pool(), Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		"no TLS":                        {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			var opts []grpc.DialOption
			scheme := "http://"
			if c.config != nil {
				opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(c.config)))
				scheme = "https://"
			}
			conn := p.dial(t, p.admin, opts...)
			defer conn.Close()
			_, err := scalev1.NewNodeServiceClient(conn).GetTotals(ctx, &scalev1.GetTotalsRequest{})
			if (err == nil) != c.met {
				t.Errorf("gRPC: %v", err)
			}

			client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.config, DisableKeepAlives: true}}
			req, err := http.NewRequestWithContext(ctx, "GET", scheme+p.http+"/v1/totals", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+p.admin)
			resp, err := client.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil && resp.StatusCode == http.StatusOK) != c.met {
				t.Errorf("HTTP: %v, %v", resp, err)
			}
		})
	}
	p.sound(t)
}

// What a web page can make a browser send gets nowhere, whatever token the browser has.
func TestNodeForeignPages(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t), "--http-origin", "https://app.example")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	put := `{"header":{"name":"x","kind":"KIND_FILE"}}` + "\n" + `{"data":"eA=="}`
	for name, c := range map[string]struct {
		method, path, body, host string
		headers                  []string
		want                     int
	}{
		"put":                    {"POST", "/v1/put", put, "", []string{"Content-Type", "application/json"}, 200},
		"put by an allowed page": {"POST", "/v1/put", put, "", []string{"Content-Type", "application/json", "Origin", "https://app.example"}, 200},
		"read":                   {"GET", "/v1/datasets", "", "", nil, 200},

		"a foreign host":                   {"GET", "/v1/datasets", "", "evil.example", nil, 403},
		"a foreign host, put":              {"POST", "/v1/put", put, "evil.example", []string{"Content-Type", "application/json"}, 403},
		"a foreign host that ends well":    {"GET", "/v1/datasets", "", "localhost.evil.example", nil, 403},
		"a foreign origin":                 {"GET", "/v1/datasets", "", "", []string{"Origin", "https://evil.example"}, 403},
		"a foreign origin, put":            {"POST", "/v1/put", put, "", []string{"Content-Type", "application/json", "Origin", "https://evil.example"}, 403},
		"a foreign origin that ends well":  {"GET", "/v1/datasets", "", "", []string{"Origin", "https://app.example.evil.example"}, 403},
		"no origin to speak of":            {"GET", "/v1/datasets", "", "", []string{"Origin", "null"}, 403},
		"an image on a foreign page":       {"GET", "/v1/datasets", "", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		"metrics for a foreign page":       {"GET", "/metrics", "", "", []string{"Origin", "https://evil.example"}, 403},
		"a form":                           {"POST", "/v1/put", put, "", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		"plain text":                       {"POST", "/v1/put", put, "", []string{"Content-Type", "text/plain"}, 415},
		"JSON that is said to be a form":   {"POST", "/v1/put", put, "", []string{"Content-Type", "text/plain;application/json"}, 415},
		"no type":                          {"POST", "/v1/put", put, "", nil, 415},
		"a method in disguise":             {"GET", "/v1/datasets/x/remove", "", "", []string{"X-HTTP-Method-Override", "POST"}, 405},
		"a form in disguise":               {"POST", "/v1/datasets/x/remove", "", "", []string{"Content-Type", "application/x-www-form-urlencoded", "X-HTTP-Method-Override", "GET"}, 415},
		"a preflight from a foreign page":  {"OPTIONS", "/v1/put", "", "", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"}, 403},
		"a preflight from an allowed page": {"OPTIONS", "/v1/put", "", "", []string{"Origin", "https://app.example", "Access-Control-Request-Method", "POST"}, 204},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+p.http+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			req.Host = c.host
		}
		req.Header.Set("Authorization", "Bearer "+p.write)
		for i := 0; i < len(c.headers); i += 2 {
			req.Header.Set(c.headers[i], c.headers[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("%s: status %d, want %d: %s, %v", name, resp.StatusCode, c.want, body, err)
		}
		allowed := resp.Header.Get("Access-Control-Allow-Origin")
		if allowed != "" && allowed != "https://app.example" {
			t.Errorf("%s: %q may read the answer", name, allowed)
		}
	}
	if _, err := putBytes(t.Context(), p.dial(t, p.write), "x", []byte("still there")); err != nil {
		t.Error(err)
	}
	p.sound(t)
}
