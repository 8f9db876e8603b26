package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/koii-network/scale/grpcapi"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// ask does a request on a connection of its own, as curl does.
func (p *nodeProcess) ask(t *testing.T, method, path, token, body string) (int, string) {
	t.Helper()
	resp := p.request(t, method, path, token, body)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// underWay waits until the node has so many calls: a client that has sent something does
// not know that it has arrived.
func (p *nodeProcess) underWay(t *testing.T, calls int) {
	t.Helper()
	want := fmt.Sprintf("scale_calls_in_flight %d\n", calls)
	for began := time.Now(); ; {
		if _, text := p.ask(t, "GET", "/metrics", "", ""); strings.Contains(text, want) {
			return
		}
		if time.Since(began) > patient {
			t.Fatalf("the node never has %d calls", calls)
		}
	}
}

func (p *nodeProcess) request(t *testing.T, method, path, token, body string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

func jsonPut(name string, data []byte) string {
	return fmt.Sprintf(`{"header":{"name":%q,"kind":"KIND_FILE"}}{"data":"%s"}`, name, base64.StdEncoding.EncodeToString(data))
}

// From the first token to the last signal, over HTTP.
func TestServeHTTP(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if code, body := p.ask(t, "GET", path, "", ""); code != 200 || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	data := bytes.Repeat([]byte("by whoever has the token\n"), 1000)
	for token, want := range map[string]int{"": 403, p.read: 403, p.write: 200, p.write[:30]: 401} {
		if code, body := p.ask(t, "POST", "/v1/put", token, jsonPut("file", data)); code != want {
			t.Errorf("a put with token %.10q: %d %s", token, code, body)
		}
	}
	if got, err := exec.Command("scale", "get", "file", "--store", p.dir).Output(); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v, put were %d", len(got), err, len(data))
	}
	if code, body := p.ask(t, "GET", "/v1/stat?ref=file", "", ""); code != 200 || !strings.Contains(body, `"name":"file"`) {
		t.Errorf("reading without a token: %d %s", code, body)
	}
	_, metrics := p.ask(t, "GET", "/metrics", "", "")
	for _, line := range []string{`scale_puts_total{result="ok"} 1`, fmt.Sprintf("scale_put_bytes_total %d", len(data)), "scale_ledger_entries 2"} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("no %q in /metrics", line)
		}
	}

	// A token that is made while the node runs counts at once, and so does its end, also for
	// what was begun with it.
	token := p.token(t, "late", "--scope", "read", "--expires", "1h")
	follow := p.request(t, "GET", "/v1/ledger/entries?follow=true", token, "")
	defer follow.Body.Close()
	lines := bufio.NewScanner(follow.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"result"`) {
		t.Fatalf("entries: %q, %v", lines.Text(), lines.Err())
	}
	scale(t, "token", "revoke", "late", "--store", p.dir)
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	if !strings.Contains(last, `"error"`) || !strings.Contains(last, "TOKEN") {
		t.Errorf("a stream of a revoked token ends with %q, %v", last, lines.Err())
	}
	if code, body := p.ask(t, "GET", "/v1/datasets", token, ""); code != 401 {
		t.Errorf("a revoked token: %d %s", code, body)
	}
	for _, secret := range []string{p.read, p.write, p.admin, token} {
		if strings.Contains(p.log.tail(1<<20)+p.out.tail(1<<20), secret[len("scale_xxxxxxxx_"):][:20]) {
			t.Error("a token is in the log")
		}
	}
	p.sound(t)
}

// While a node stops it lets finish what is under way, says that it is not ready, and takes
// nothing new.
func TestServeStops(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	conn := p.dial(t, p.write)
	follow, err := scalev1.NewLedgerServiceClient(conn).StreamEntries(t.Context(), &scalev1.StreamEntriesRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow.Recv(); err != nil {
		t.Fatal(err)
	}
	held, err := scalev1.NewDatasetServiceClient(conn).Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Send(putHeader("held", scalev1.Kind_KIND_FILE)); err != nil {
		t.Fatal(err)
	}
	p.underWay(t, 2)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// What would go on for ever ends when the node has begun to stop.
	for err == nil {
		_, err = follow.Recv()
	}
	wantStatus(t, "who follows the log", err, codes.Unavailable, "CLOSING")
	if code, body := p.ask(t, "GET", "/readyz", "", ""); code != 503 || body != "the node is shutting down\n" {
		t.Errorf("ready: %d %q", code, body)
	}
	if code, body := p.ask(t, "GET", "/healthz", "", ""); code != 200 {
		t.Errorf("health: %d %q", code, body)
	}
	if code, body := p.ask(t, "POST", "/v1/put", p.write, jsonPut("new", nil)); code != 503 || !strings.Contains(body, "CLOSING") {
		t.Errorf("a new put: %d %s", code, body)
	}
	_, err = scalev1.NewNodeServiceClient(conn).GetInfo(t.Context(), &scalev1.GetInfoRequest{})
	wantStatus(t, "a new call", err, codes.Unavailable, "CLOSING")
	if err := held.Send(putData([]byte("finished in time"))); err != nil {
		t.Fatal(err)
	}
	if _, err := held.CloseAndRecv(); err != nil {
		t.Errorf("a put that was under way: %v", err)
	}
	p.ended(t)
	if _, err := os.Lstat(filepath.Join(p.dir, grpcapi.SocketFile)); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if got, err := exec.Command("scale", "get", "held", "--store", p.dir).Output(); err != nil || string(got) != "finished in time" {
		t.Errorf("got %q, %v", got, err)
	}
	p.check(t)
}

// A certificate is replaced while the node runs, and a bad one is not taken.
func TestServeCertificate(t *testing.T) {
	noLeaks(t)
	ca, dir := newCertifier(t), t.TempDir()
	crt, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	write := func() []byte {
		c := ca.issue(t)
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, crt, "CERTIFICATE", c.Certificate[0])
		writePEM(t, key, "PRIVATE KEY", der)
		return c.Certificate[0]
	}
	first := write()
	p := startNode(t, newNodeStore(t), "--tls-cert", crt, "--tls-key", key)
	expect := func(want []byte) {
		t.Helper()
		for service, address := range map[string]string{"gRPC": p.grpc, "HTTP": p.http} {
			d := tls.Dialer{Config: &tls.Config{RootCAs: ca.pool(), NextProtos: []string{"h2", "http/1.1"}}}
			c, err := d.DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Errorf("%s: %v", service, err)
				continue
			}
			if got := c.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw; !bytes.Equal(got, want) {
				t.Errorf("%s has another certificate", service)
			}
			c.Close()
		}
	}
	reload := func(says string) {
		t.Helper()
		n := p.log.count()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		seen := 0
		if _, ok := p.log.wait(func(line string) bool { seen++; return seen > n && strings.Contains(line, says) }); !ok {
			t.Fatalf("the log does not say %q:\n%s", says, p.log.tail(20))
		}
	}
	expect(first)
	second := write()
	reload("SIGHUP: TLS files were read again")
	expect(second)
	if err := os.WriteFile(crt, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	reload("stay in force")
	expect(second)
	third := write()
	reload("SIGHUP: TLS files were read again")
	expect(third)
	p.sound(t)
}

// An authority of clients is taken off the list: whoever is connected by it is out, on both
// ports, though the node's own files cannot be used just then.
func TestServeClientAuthority(t *testing.T) {
	noLeaks(t)
	own, theirs, next := newCertifier(t), newCertifier(t), newCertifier(t)
	dir := t.TempDir()
	cert := own.issue(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	crt := writePEM(t, filepath.Join(dir, "crt"), "CERTIFICATE", cert.Certificate[0])
	list := writePEM(t, filepath.Join(dir, "clients"), "CERTIFICATE", theirs.cert.Raw)
	p := startNode(t, newNodeStore(t), "--tls-cert", crt, "--tls-key", writePEM(t, filepath.Join(dir, "key"), "PRIVATE KEY", key),
		"--client-ca", list, "--client-scope", "admin")
	config := &tls.Config{RootCAs: own.pool(), Certificates: []tls.Certificate{theirs.issue(t)}}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	conn := p.dial(t, "", grpc.WithTransportCredentials(credentials.NewTLS(config)))
	defer conn.Close()
	node := scalev1.NewNodeServiceClient(conn)
	if _, err := node.ListTokens(ctx, &scalev1.ListTokensRequest{}); err != nil {
		t.Fatal(err)
	}
	follow, err := scalev1.NewLedgerServiceClient(conn).StreamEntries(ctx, &scalev1.StreamEntriesRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow.Recv(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	request := func() (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.http+"/v1/totals", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := request(); code != 200 {
		t.Fatalf("HTTP: %d %s", code, body)
	}

	writePEM(t, crt, "CERTIFICATE", own.issue(t).Certificate[0])
	writePEM(t, list, "CERTIFICATE", next.cert.Raw)
	for err == nil { // of itself
		_, err = follow.Recv()
	}
	wantStatus(t, "who follows the log", err, codes.Unauthenticated, "TOKEN")
	_, err = node.ListTokens(ctx, &scalev1.ListTokensRequest{})
	wantStatus(t, "tokens", err, codes.Unauthenticated, "TOKEN")
	_, err = node.CreateToken(ctx, &scalev1.CreateTokenRequest{Name: "new", Scope: scalev1.Scope_SCOPE_ADMIN})
	wantStatus(t, "a new token", err, codes.Unauthenticated, "TOKEN")
	if code, body := request(); code != 401 || !strings.Contains(body, "connect anew") {
		t.Errorf("HTTP: %d %s", code, body)
	}
	if _, ok := p.log.wait(func(line string) bool { return strings.Contains(line, "stay in force") }); !ok {
		t.Errorf("nothing is said of the certificate:\n%s", p.log.tail(20))
	}
	p.sound(t)
}

// A token that could not be printed is of no use to anybody, and is not left behind.
func TestTokenNotPrinted(t *testing.T) {
	s := newNodeStore(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, flags := range [][]string{nil, {"--json"}} {
		cmd := exec.Command("scale", append([]string{"token", "create", "lost", "--scope", "read", "--store", s.dir}, flags...)...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "is revoked") {
			t.Errorf("%v: %s", err, &stderr)
		}
	}
	if list := scale(t, "token", "list", "--store", s.dir); strings.Contains(list, "lost") {
		t.Errorf("tokens: %s", list)
	}
}

// An address is that of a listener that is none.
type address struct {
	net.Listener
	ip string
}

func (a address) Addr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.ip), Port: 7070} }

// Who may call a port without showing anything, and where a node serves at all.
func TestServeExposed(t *testing.T) {
	empty := grpcapi.OpenTokens(t.TempDir())
	defer empty.Close()
	some := grpcapi.OpenTokens(t.TempDir())
	defer some.Close()
	if _, _, err := some.Create("old", scalev1.Scope_SCOPE_READ, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ip      string
		flags   serveFlags
		tls     bool
		tokens  *grpcapi.TokenFile
		refused string // "" serves
		read    bool   // without showing anything
	}{
		{"127.0.0.1", serveFlags{}, false, empty, "", true},
		{"127.8.8.8", serveFlags{}, false, empty, "", true},
		{"::1", serveFlags{}, false, empty, "", true},
		{"::ffff:127.0.0.1", serveFlags{}, false, empty, "", true},
		{"127.0.0.1", serveFlags{requireToken: true}, false, empty, "", false},
		{"0.0.0.0", serveFlags{}, false, some, "--tls-cert", false},
		{"::", serveFlags{}, false, some, "--tls-cert", false},
		{"192.168.1.2", serveFlags{}, false, some, "--tls-cert", false},
		{"::ffff:192.168.1.2", serveFlags{}, false, some, "--tls-cert", false},
		{"fe80::1", serveFlags{}, false, some, "--tls-cert", false},
		{"0.0.0.0", serveFlags{insecureNoAuth: true}, false, some, "--tls-cert", true},
		{"0.0.0.0", serveFlags{}, true, empty, "token create", false},
		{"0.0.0.0", serveFlags{insecureNoTLS: true}, false, empty, "token create", false},
		{"0.0.0.0", serveFlags{}, true, some, "", false},
		{"0.0.0.0", serveFlags{clientCA: "ca.pem"}, true, empty, "", false},
		{"0.0.0.0", serveFlags{insecureNoTLS: true}, false, some, "", false},
		{"0.0.0.0", serveFlags{insecureNoAuth: true}, true, empty, "", true},
		{"0.0.0.0", serveFlags{insecureNoAuth: true, insecureNoTLS: true}, false, empty, "", true},
	} {
		n := &node{tokens: c.tokens}
		if c.tls {
			n.tls = new(grpcapi.TLS)
		}
		for port, l := range map[string]*net.Listener{"--listen": &n.grpc, "--http": &n.http} {
			n.grpc, n.http = nil, nil
			*l = address{ip: c.ip}
			err := c.flags.exposed(n)
			switch {
			case c.refused == "" && err != nil:
				t.Errorf("%s %s %+v: %v", port, c.ip, c.flags, err)
			case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), port) || exitCode(err) != exitUsage):
				t.Errorf("%s %s %+v: %v, want %q", port, c.ip, c.flags, err, c.refused)
			}
			if got := c.flags.anonymous(*l) == scalev1.Scope_SCOPE_READ; got != c.read {
				t.Errorf("%s %s %+v: anybody may read: %t", port, c.ip, c.flags, got)
			}
		}
	}
}
