package grpcapi

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// panickyTokens has the faults that a node must survive.
type panickyTokens struct{}

func (panickyTokens) Create(string, scalev1.Scope, time.Time) (Token, string, error) {
	return Token{}, "", errors.New("/var/lib/scale/tokens: a secret detail")
}
func (panickyTokens) List() ([]Token, error) { panic("a secret panic") }
func (panickyTokens) Revoke(string) error    { return store.ErrNotFound }

func TestPanicIsRecovered(t *testing.T) {
	calls := make(chan Call, 10)
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Tokens = panickyTokens{}
		n.opt.OnCall = func(c Call) { calls <- c }
	})
	_, err := n.node.ListTokens(n.ctx, &scalev1.ListTokensRequest{})
	st := refused(t, "panic", err, scalev1.ErrorReason_ERROR_REASON_INTERNAL)
	id := regexp.MustCompile("[0-9a-f]{12}").FindString(st.Message())
	if strings.Contains(st.String(), "secret") || id == "" {
		t.Errorf("told: %v", st)
	}
	if log := n.log.String(); !strings.Contains(log, "a secret panic") || !strings.Contains(log, id) || !strings.Contains(log, "panickyTokens.List") {
		t.Errorf("the log does not say it: %s", log)
	}
	if c := <-calls; c.Method != scalev1.NodeService_ListTokens_FullMethodName || status.Code(c.Err) != codes.Internal || c.Identity.Name != "anyone" {
		t.Errorf("%+v", c)
	}
	_, err = n.node.CreateToken(n.ctx, &scalev1.CreateTokenRequest{Name: "x", Scope: read})
	if st := refused(t, "fault", err, scalev1.ErrorReason_ERROR_REASON_INTERNAL); strings.Contains(st.String(), "secret") {
		t.Errorf("told: %v", st)
	}
	if _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestPanicInAuthenticate(t *testing.T) {
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = func(context.Context) (Identity, error) { panic("a secret panic") }
	})
	for range 2 {
		_, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{})
		refused(t, "panic", err, scalev1.ErrorReason_ERROR_REASON_INTERNAL)
	}
}

// sunk is a stream that takes what is sent.
type sunk struct {
	grpc.ServerStream
	err  error
	sent int
}

func (s *sunk) SendMsg(m any) error {
	if s.err != nil {
		return s.err
	}
	s.sent++
	e := m.(*encoded)
	e.data.Free()
	e.data = nil
	return nil
}

// What reads beside the sending may panic, fail, be let go and go on; its place is given back.
func TestPump(t *testing.T) {
	l := newLane(1)
	piece := func() *encoded { return &encoded{mem.BufferSlice{mem.SliceBuffer("x")}} }
	var pe *panicError
	err := pump(t.Context(), &sunk{}, l, func(context.Context, func(*encoded) error) error { panic("here") })
	if !errors.As(err, &pe) {
		t.Errorf("panic: %v", err)
	}
	broken := errors.New("broken")
	err = pump(t.Context(), &sunk{err: broken}, l, func(ctx context.Context, push func(*encoded) error) error {
		for {
			if err := push(piece()); err != nil {
				return err
			}
		}
	})
	if err != broken {
		t.Errorf("a stream that breaks: %v", err)
	}
	to, rounds := &sunk{}, 0
	err = pump(t.Context(), to, l, func(_ context.Context, push func(*encoded) error) error {
		rounds++
		for range 5 {
			if err := push(piece()); err != nil {
				return err
			}
		}
		if rounds < 3 {
			return errLetGo
		}
		return nil
	})
	if err != nil || rounds != 3 || to.sent != 15 {
		t.Errorf("%v, %d rounds, %d sent", err, rounds, to.sent)
	}
	l.places <- struct{}{} // free again, or this would wait for ever
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	if err := pump(ctx, to, l, nil); err != broken {
		t.Errorf("a call that ends while it waits: %v", err)
	}
}

func TestNewServerArguments(t *testing.T) {
	if _, err := NewServer(nil, ServerOptions{}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("without Authenticate: %v", err)
	}
	if _, err := NewServer(nil, ServerOptions{Authenticate: Anyone(read), Limits: Limits{Calls: -1}}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("limit: %v", err)
	}
}

// Who has stopped serving says so, and why; a node that stops refuses what is new, and
// finishes what it has begun.
func TestShutdownFinishes(t *testing.T) {
	n := newRawNode(t, nil)
	other := n.dial()
	if err := other.call(n.ctx, "/grpc.health.v1.Health/Check"); err != nil { // its connection is there
		t.Fatal(err)
	}
	ss, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	data := noiseBytes(1, 200_000)
	if err := errors.Join(ss.Send(fileHeader("late")), ss.Send(dataPart(data[:100_000]))); err != nil {
		t.Fatal(err)
	}
	n.running(1)
	follow, err := n.ledger.StreamEntries(n.ctx, &scalev1.StreamEntriesRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow.Recv(); err != nil { // the policy
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.srv.Shutdown(n.ctx) }()
	n.until("closing", n.srv.closing.Load)
	// Those that wait for news alone end at once.
	_, err = follow.Recv()
	refused(t, "follow", err, isClosing)
	_, err = other.datasets.Stat(n.ctx, &scalev1.StatRequest{Ref: "x"})
	st := refused(t, "a new call", err, isClosing)
	if st.Code() != codes.Unavailable {
		t.Errorf("%v", st.Code())
	}
	var retry *RetryAfter
	if !errors.As(fromStatus(err), &retry) {
		t.Error("it does not say when to come back")
	}
	health, err := healthpb.NewHealthClient(other.conn).Check(n.ctx, &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("health: %v, %v", health, err)
	}
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the put: %v", err)
	default:
	}
	if err := ss.Send(dataPart(data[100_000:])); err != nil {
		t.Fatal(err)
	}
	resp, err := ss.CloseAndRecv()
	if err != nil || resp.GetResult().GetDataset().GetSize() != 200_000 {
		t.Fatalf("%v, %v", resp, err)
	}
	if err := <-done; err != nil {
		t.Errorf("shut down: %v", err)
	}
	// A second time changes nothing.
	if err := n.srv.Shutdown(n.ctx); err != nil {
		t.Error(err)
	}
	n.sound()
}

// running waits until so many calls are under way.
func (n *rawNode) running(calls int) {
	n.t.Helper()
	n.until("calls under way", func() bool {
		n.srv.mu.Lock()
		defer n.srv.mu.Unlock()
		return len(n.srv.calls) >= calls
	})
}

// waiting waits until so many calls wait for their callers.
func (n *rawNode) waiting(calls int, kind waitKind) {
	n.t.Helper()
	n.until("calls that wait", func() bool {
		n.srv.mu.Lock()
		defer n.srv.mu.Unlock()
		found := 0
		for c := range n.srv.calls {
			c.mu.Lock()
			if c.waits == kind {
				found++
			}
			c.mu.Unlock()
		}
		return found >= calls
	})
}

// What does not finish in time is refused, and leaves nothing that could be seen.
func TestShutdownEnds(t *testing.T) {
	n := newRawNode(t, nil)
	ss, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ss.Send(fileHeader("late")), ss.Send(dataPart(noiseBytes(1, 900_000)))); err != nil {
		t.Fatal(err)
	}
	n.waiting(1, waitsRecv)
	ctx, cancel := context.WithCancelCause(n.ctx)
	enough := errors.New("enough")
	cancel(enough)
	if err := n.srv.Shutdown(ctx); err != enough {
		t.Errorf("shut down: %v", err)
	}
	_, err = ss.CloseAndRecv()
	refused(t, "put", err, isClosing)
	n.stop()
	n.start()
	if size := n.size(); size != 1 {
		t.Errorf("%d entries", size)
	}
	_, err = n.datasets.Stat(n.ctx, &scalev1.StatRequest{Ref: "late"})
	refused(t, "stat", err, isNotFound)
	n.sound()
}

// A node whose store has stopped appending says that it wants a restart.
func TestHealth(t *testing.T) {
	n := newRawNode(t, nil)
	client := healthpb.NewHealthClient(n.conn)
	watch, err := client.Watch(n.ctx, &healthpb.HealthCheckRequest{Service: "scale.v1.DatasetService"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", m, err)
	}
	n.putFile("x", []byte("x"))
	// The last step of a commit fails: it landed, and nobody can know.
	if err := os.MkdirAll(filepath.Join(n.dir, "highwater.new", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = n.put(n.ctx, fileHeader("y"), dataPart(noiseBytes(1, 1000)))
	st := refused(t, "put", err, scalev1.ErrorReason_ERROR_REASON_STOPPED)
	if strings.Contains(st.String(), n.dir) {
		t.Errorf("it says where the store is: %v", st)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v, %v", m, err)
	}
	for _, service := range []string{"", "scale.v1.DatasetService", "scale.v1.NodeService"} {
		m, err := client.Check(n.ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil || m.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("%q: %v, %v", service, m, err)
		}
	}
	if _, err := client.Check(n.ctx, &healthpb.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("%v", err)
	}
	list, err := client.List(n.ctx, &healthpb.HealthListRequest{})
	if err != nil || len(list.GetStatuses()) != 9 {
		t.Errorf("%v, %v", list, err)
	}
	if data, err := n.get(&scalev1.GetRequest{Ref: "x"}); err != nil || string(data) != "x" {
		t.Errorf("a node that has stopped reads: %q, %v", data, err)
	}
	info, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{})
	if err != nil || info.GetReadOnly() == "" || strings.Contains(info.GetReadOnly(), n.dir) {
		t.Errorf("%v, %v", info, err)
	}
	_, err = n.put(n.ctx, fileHeader("z"))
	refused(t, "put", err, scalev1.ErrorReason_ERROR_REASON_STOPPED)
}

// The log has calls that fail, and those that change who may do what; not of whom data is,
// or which.
func TestCallsAreLogged(t *testing.T) {
	var mu sync.Mutex
	calls := map[string]Call{}
	n := newRawNode(t, func(n *rawNode) {
		n.opt.OnCall = func(c Call) {
			mu.Lock()
			defer mu.Unlock()
			calls[c.Method] = c
		}
	})
	n.putFile("private-name", []byte("private data"))
	if _, err := n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: "private-name"}); err != nil {
		t.Fatal(err)
	}
	_, err := n.get(&scalev1.GetRequest{Ref: "other-name"})
	refused(t, "get", err, isNotFound)
	n.stop()
	log := n.log.String()
	for _, say := range []string{"DatasetService/Put", "DatasetService/Remove", "DatasetService/Get", "NOT_FOUND", "who=anyone", "peer=127.0.0.1"} {
		if !strings.Contains(log, say) {
			t.Errorf("the log does not say %s:\n%s", say, log)
		}
	}
	if strings.Contains(log, "private") {
		t.Errorf("the log says too much:\n%s", log)
	}
	put := calls[scalev1.DatasetService_Put_FullMethodName]
	if host, _, err := net.SplitHostPort(put.Peer.String()); err != nil || host != "127.0.0.1" || put.Err != nil || put.Bytes < 12 || put.Took < 0 {
		t.Errorf("%+v", put)
	}
	if get := calls[scalev1.DatasetService_Get_FullMethodName]; status.Code(get.Err) != codes.NotFound {
		t.Errorf("%+v", get)
	}
}

// An identity that becomes void ends its calls.
func TestVoidIdentity(t *testing.T) {
	void, end := context.WithCancelCause(context.Background())
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = func(context.Context) (Identity, error) { return Identity{Name: "x", Scope: admin, Void: void}, nil }
	})
	ss, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := ss.Send(fileHeader("x")); err != nil {
		t.Fatal(err)
	}
	n.waiting(1, waitsRecv)
	end(ErrToken)
	if err := ss.RecvMsg(&scalev1.PutResponse{}); err == io.EOF {
		t.Error("the put went through")
	} else {
		refused(t, "put", err, scalev1.ErrorReason_ERROR_REASON_TOKEN)
	}
}
