package grpcapi

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// A webNode is a node with an HTTP port.
type webNode struct {
	store   *store.Store
	tokens  *TokenFile
	metrics *Metrics
	server  *Server
	http    *HTTP
	auth    *Authenticator
	calls   chan Call // those that ended, if there is room
	grpc    string    // addresses
	base    string    // "http://127.0.0.1:1234"
	client  *http.Client
	write   string // a token
}

func newStoreDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(t.Context(), dir, store.InitOptions{Origin: "log.example"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newWebNode starts a node. change may alter the options of its HTTP port.
func newWebNode(t *testing.T, limits Limits, change func(*HTTPOptions)) *webNode {
	t.Helper()
	return newWebNodeAt(t, newStoreDir(t), limits, change)
}

func newWebNodeAt(t *testing.T, dir string, limits Limits, change func(*HTTPOptions)) *webNode {
	t.Helper()
	n := &webNode{metrics: NewMetrics("test"), calls: make(chan Call, 1000), client: &http.Client{Transport: &http.Transport{}}}
	var err error
	if n.store, err = store.Open(t.Context(), dir, store.Options{Observer: n.metrics.Observer()}); err != nil {
		t.Fatal(err)
	}
	n.tokens = OpenTokens(dir)
	n.write = mustCreate(t, n.tokens, "writer", scalev1.Scope_SCOPE_WRITE, time.Time{})
	n.auth = &Authenticator{Tokens: n.tokens, Anonymous: scalev1.Scope_SCOPE_READ, ClientScope: scalev1.Scope_SCOPE_WRITE}
	n.server, err = NewServer(n.store, ServerOptions{
		Limits: limits, Authenticate: n.auth.Authenticate, Credentials: Credentials(nil), Tokens: n.tokens, Version: "test",
		OnRefused: n.metrics.OnRefused,
		OnCall: func(c Call) {
			n.metrics.OnCall(c)
			select {
			case n.calls <- c:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.metrics.Watch(n.server)
	o := HTTPOptions{Server: n.server, Auth: n.auth, Anonymous: scalev1.Scope_SCOPE_READ, Metrics: n.metrics.Handler(), OnRefused: n.metrics.OnRefused}
	if change != nil {
		change(&o)
	}
	if n.http, err = NewHTTP(o); err != nil {
		t.Fatal(err)
	}
	var done []chan error
	listen := func(serve func(net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c := make(chan error, 1)
		go func() { c <- serve(l) }()
		done = append(done, c)
		return l.Addr().String()
	}
	n.grpc = listen(n.server.Serve)
	n.base = "http://" + listen(n.http.Serve)
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(n.server.Shutdown(ctx), n.http.Shutdown(ctx)); err != nil {
			t.Errorf("shut down: %v", err)
		}
		for _, c := range done {
			if err := <-c; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
		n.tokens.Close()
		if err := n.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// do sends a request and returns status, headers and body. head are pairs.
func (n *webNode) do(t *testing.T, method, path, body string, head ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(head); i += 2 {
		if head[i] == "Host" {
			r.Host = head[i+1]
		} else {
			r.Header.Add(head[i], head[i+1])
		}
	}
	resp, err := n.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func (n *webNode) bearer() []string {
	return []string{"Authorization", "Bearer " + n.write, "Content-Type", "application/json"}
}

// putBody is what a client sends to put one file.
func putBody(name string, data []byte, piece int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"header":{"name":%q,"kind":"KIND_FILE"}}`+"\n", name)
	for ; len(data) > 0; data = data[min(piece, len(data)):] {
		fmt.Fprintf(&b, `{"data":"%s"}`+"\n", base64.StdEncoding.EncodeToString(data[:min(piece, len(data))]))
	}
	return b.String()
}

func (n *webNode) put(t *testing.T, name string, data []byte) {
	t.Helper()
	if code, _, body := n.do(t, "POST", "/v1/put", putBody(name, data, 100_000), n.bearer()...); code != 200 {
		t.Fatalf("put: %d %s", code, body)
	}
}

// reason returns the reason in the body of a refusal, which must be a google.rpc.Status.
func reason(t *testing.T, body string) string {
	t.Helper()
	var s struct {
		Code    int
		Message string
		Details []map[string]any
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Code == 0 || s.Message == "" {
		t.Errorf("not a Status: %q (%v)", body, err)
	}
	for _, d := range s.Details {
		if d["@type"] == "type.googleapis.com/google.rpc.ErrorInfo" {
			return fmt.Sprint(d["reason"])
		}
	}
	t.Errorf("no ErrorInfo: %s", body)
	return ""
}

// post sends the beginning of a request by hand, and returns the connection.
func (n *webNode) post(t *testing.T, path string, length int, begin string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, n.write, length, begin); err != nil {
		t.Fatal(err)
	}
	return c
}

func answerOn(t *testing.T, c net.Conn) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
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
