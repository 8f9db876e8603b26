package grpcapi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// knownByName takes the metadata "name" for who calls.
func knownByName(ctx context.Context) (Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("name"); len(v) == 1 {
		return Identity{Name: v[0], Scope: read}, nil
	}
	return Identity{}, ErrToken
}

// Callers who have not said who they are can ask for the node's health, and keep nobody out
// by it.
func TestStrangersKeepNobodyOut(t *testing.T) {
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = knownByName
		n.opt.Limits.Calls = 16
		n.opt.Logger = slog.New(slog.NewTextHandler(n.log, nil))
	})
	strangers := healthpb.NewHealthClient(n.dial().conn)
	watch := func(ctx context.Context) error {
		w, err := strangers.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		return err
	}
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	for i := range 2 { // an eighth
		if err := watch(ctx); err != nil {
			t.Fatalf("watch %d: %v", i, err)
		}
	}
	for range 20 {
		if err := watch(ctx); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one too many: %v", err)
		}
		if _, err := strangers.Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one too many: %v", err)
		}
		if _, err := n.node.GetInfo(ctx, &scalev1.GetInfoRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("info for a stranger: %v", err)
		}
	}
	if text := n.log.String(); strings.Contains(text, "Health") || strings.Contains(text, "GetInfo") {
		t.Errorf("strangers write the log:\n%s", text)
	}
	for i := range 8 {
		ctx := metadata.AppendToOutgoingContext(ctx, "name", fmt.Sprint("caller ", i))
		if err := watch(ctx); err != nil {
			t.Errorf("watch of a caller who is known: %v", err)
		}
		if _, err := n.node.GetInfo(ctx, &scalev1.GetInfoRequest{}); err != nil {
			t.Errorf("info for a caller who is known: %v", err)
		}
	}
}

// Whoever shows who he is counts as known though there is no room for his call.
func TestKnownWhereThereIsNoRoom(t *testing.T) {
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = knownByName
		n.opt.Limits.Calls = 8
	})
	for _, who := range []string{"a", "b"} {
		for {
			leave, err := n.srv.gate.enter(who, kindShort, false)
			if err != nil {
				break
			}
			defer leave()
		}
	}
	_, err := n.node.GetInfo(metadata.AppendToOutgoingContext(n.ctx, "name", "mine"), &scalev1.GetInfoRequest{})
	refused(t, "a full node", err, isLimit)
	n.srv.conns.mu.Lock()
	defer n.srv.conns.mu.Unlock()
	if len(n.srv.conns.all) != 1 {
		t.Fatalf("%d connections, want 1", len(n.srv.conns.all))
	}
	for c := range n.srv.conns.all {
		if c.stranger.Load() || c.place.who != "mine" {
			t.Errorf("the connection is a stranger's: %v, of %q", c.stranger.Load(), c.place.who)
		}
	}
}

// Callers who have shown nothing are told apart by their addresses, others by their names:
// one token has one share, from wherever it is used.
func TestKey(t *testing.T) {
	token, anybody := Identity{Name: "token t", Scope: read}, Identity{Name: "anonymous", Scope: read, Anonymous: true}
	for _, c := range []struct {
		a, b string
		same bool
		of   Identity
	}{
		{"192.0.2.1:1", "198.51.100.1:1", true, token},
		{"192.0.2.1:1", "192.0.2.1:2", true, anybody},
		{"192.0.2.1:1", "198.51.100.1:1", false, anybody},
	} {
		if same := c.of.key(c.a) == c.of.key(c.b); same != c.same {
			t.Errorf("%s from %s and %s: one caller %v, want %v", c.of.Name, c.a, c.b, same, c.same)
		}
	}
}

// A connection over which metrics are read with a token is kept when connections without one
// flood the port.
func TestMetricsThroughFlood(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) {
		o.Connections = 8
		o.Anonymous = scalev1.Scope_SCOPE_UNSPECIFIED
	})
	token := mustCreate(t, n.tokens, "scraper", read, time.Time{})
	address := strings.TrimPrefix(n.base, "http://")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() {
		t.Helper()
		fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", token)
		if code, _ := answerOn(t, c); code != http.StatusOK {
			t.Fatalf("status %d", code)
		}
	}
	ask()
	var closed []net.Conn
	for i := range 20 {
		closed = append(closed, dialFrom(t, fmt.Sprint("127.0.9.", i+1), address))
	}
	// One of them has been closed: the port has come to all before it.
	if err := closed[0].SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := closed[0].Read(make([]byte, 1)); err == nil {
		t.Error("a stranger is answered")
	}
	ask()
}
