package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/grpcapi"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// The tests of the files node_*_test.go run "scale serve" as a process of its own and
// treat it as strangers, bad luck and operators do. What the calls themselves refuse is
// tested in package grpcapi; here it is that the process survives and that its store is
// sound afterwards.

// patient is how long a test waits for what must happen. It only bounds failures.
const patient = time.Minute

// A nodeStore is a store with a token of each scope.
type nodeStore struct {
	dir                string
	read, write, admin string
}

func newNodeStore(t *testing.T) *nodeStore {
	t.Helper()
	s := &nodeStore{dir: filepath.Join(t.TempDir(), "store")}
	if err := store.Init(t.Context(), s.dir, store.InitOptions{Origin: "node.example"}); err != nil {
		t.Fatal(err)
	}
	tokens := grpcapi.OpenTokens(s.dir)
	for scope, token := range map[scalev1.Scope]*string{
		scalev1.Scope_SCOPE_READ: &s.read, scalev1.Scope_SCOPE_WRITE: &s.write, scalev1.Scope_SCOPE_ADMIN: &s.admin,
	} {
		var err error
		if _, *token, err = tokens.Create(grpcapi.FormatScope(scope), scope, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// token makes a token while no node runs or, through its private socket, while one does.
func (s *nodeStore) token(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(scale(t, append([]string{"token", "create", "--store", s.dir}, args...)...))
}

// check has a process of its own read everything that is stored, through the node if one
// runs.
func (s *nodeStore) check(t *testing.T) {
	t.Helper()
	out, err := exec.Command("scale", "check", "--read-data", "--store", s.dir).CombinedOutput()
	if err != nil {
		t.Errorf("the store does not check: %v\n%s", err, out)
	}
}

// A nodeProcess is a running "scale serve".
type nodeProcess struct {
	*nodeStore
	grpc, http string // addresses
	out, log   *lines // standard output and standard error
	cmd        *exec.Cmd
	exited     chan struct{} // closed when it has; then err is set
	err        error
}

// startNode serves a store until the test ends or it is stopped.
func startNode(t *testing.T, s *nodeStore, flags ...string) *nodeProcess {
	t.Helper()
	args := []string{"serve", "--json", "--store", s.dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	p := &nodeProcess{nodeStore: s}
	p.launch(t, exec.Command("scale", append(args, flags...)...))
	p.addresses(t)
	return p
}

// launch starts the command of a node, and kills it when the test ends.
func (p *nodeProcess) launch(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	p.cmd, p.out, p.log, p.exited = cmd, newLines(), newLines(), make(chan struct{})
	cmd.Stdout, cmd.Stderr = p.out, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		p.out.close()
		p.log.close()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill() // fails if it has ended, which is as good
		<-p.exited
		if t.Failed() {
			t.Logf("log of the node:\n%s", p.log.tail(50))
		}
	})
}

// addresses waits for the lines that the node prints when it is ready.
func (p *nodeProcess) addresses(t *testing.T) {
	t.Helper()
	for service, address := range map[string]*string{"grpc": &p.grpc, "http": &p.http} {
		line, ok := p.out.wait(func(line string) bool { return strings.Contains(line, `"service":"`+service+`"`) })
		if !ok {
			t.Fatalf("the node does not say where it serves %s; it says:\n%s\n%s", service, p.out.tail(20), p.log.tail(20))
		}
		*address = stringField(t, line, "address")
	}
}

// kill ends the node as a power failure does, as far as a process can.
func (p *nodeProcess) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.exited
}

// stop ends the node in order and fails if it is not in order.
func (p *nodeProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.ended(t)
}

// ended waits for a node that was told to stop.
func (p *nodeProcess) ended(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
		if p.err != nil {
			t.Errorf("the node ended with %v:\n%s", p.err, p.log.tail(50))
		}
	case <-time.After(patient):
		t.Fatalf("the node does not end:\n%s", p.log.tail(50))
	}
}

// alive fails unless the node answers a caller that comes now.
func (p *nodeProcess) alive(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	conn := p.dial(t, p.read)
	defer conn.Close()
	if _, err := scalev1.NewNodeServiceClient(conn).GetInfo(ctx, &scalev1.GetInfoRequest{}); err != nil {
		t.Fatalf("the node does not answer: %v", err)
	}
}

// sound stops the node and checks its store: afterwards, and where it does not take long
// before that too, which the node itself does then.
func (p *nodeProcess) sound(t *testing.T) {
	t.Helper()
	if !testing.Short() {
		p.check(t)
	}
	p.stop(t)
	p.check(t)
}

// dial connects without TLS; the token is sent with every call if it is not empty.
func (p *nodeProcess) dial(t *testing.T, token string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(rawToken(token)))
	}
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig()}, opts...)
	conn, err := grpc.NewClient("passthrough:///"+p.grpc, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) // again, where the test closed it
	return conn
}

// rawToken is what any client puts into the metadata.
type rawToken string

var _ credentials.PerRPCCredentials = rawToken("")

func (r rawToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(r)}, nil
}

func (rawToken) RequireTransportSecurity() bool { return false }

// withToken adds a token to the metadata of one call.
func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// putBytes streams a dataset of one file in pieces, and nothing of ours helps.
func putBytes(ctx context.Context, conn grpc.ClientConnInterface, name string, data []byte) (*scalev1.PutResponse, error) {
	s, err := scalev1.NewDatasetServiceClient(conn).Put(ctx)
	if err != nil {
		return nil, err
	}
	send := []*scalev1.PutRequest{putHeader(name, scalev1.Kind_KIND_FILE)}
	for piece := range slices.Chunk(data, 256<<10) {
		send = append(send, putData(piece))
	}
	for _, m := range send {
		// EOF: the call has ended, and its answer says why.
		if err := s.Send(m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return s.CloseAndRecv()
}

func putHeader(name string, kind scalev1.Kind) *scalev1.PutRequest {
	return &scalev1.PutRequest{Part: &scalev1.PutRequest_Header{Header: &scalev1.PutHeader{Name: name, Kind: kind}}}
}

func putData(b []byte) *scalev1.PutRequest {
	return &scalev1.PutRequest{Part: &scalev1.PutRequest_Data{Data: b}}
}

// getBytes reads a dataset of one file.
func getBytes(ctx context.Context, conn grpc.ClientConnInterface, ref string) ([]byte, error) {
	s, err := scalev1.NewDatasetServiceClient(conn).Get(ctx, &scalev1.GetRequest{Ref: ref})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return b.Bytes(), nil
		} else if err != nil {
			return nil, err
		}
		b.Write(m.GetData())
	}
}

// names lists all datasets.
func datasetNames(t *testing.T, conn grpc.ClientConnInterface) []string {
	t.Helper()
	var names []string
	req := &scalev1.ListDatasetsRequest{}
	for {
		page, err := scalev1.NewDatasetServiceClient(conn).ListDatasets(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.GetDatasets() {
			names = append(names, d.GetName())
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return names
		}
	}
}

// wantStatus fails unless a call ended with a code and, if that is not empty, a reason.
func wantStatus(t *testing.T, what string, err error, code codes.Code, reason string) {
	t.Helper()
	got := ""
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			got = info.GetReason()
		}
	}
	if status.Code(err) != code || reason != "" && got != reason {
		t.Errorf("%s: %v with reason %q, want %v with %q", what, err, got, code, reason)
	}
}

// noLeaks fails if goroutines of the test are left when it has ended.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// lines are what a process writes, for tests that wait for one of them.
type lines struct {
	mu    sync.Mutex
	all   []string
	part  []byte
	ended bool
	grown chan struct{} // closed when there is more
}

func newLines() *lines { return &lines{grown: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		line, rest, ok := bytes.Cut(l.part, []byte("\n"))
		if !ok {
			break
		}
		l.all, l.part = append(l.all, string(line)), rest
	}
	l.wake()
	return len(p), nil
}

func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wake()
}

func (l *lines) wake() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// wait returns the first line for which is holds, when there is one.
func (l *lines) wait(is func(string) bool) (string, bool) {
	late := time.After(patient)
	for next := 0; ; {
		l.mu.Lock()
		all, ended, grown := l.all, l.ended, l.grown
		l.mu.Unlock()
		for ; next < len(all); next++ {
			if is(all[next]) {
				return all[next], true
			}
		}
		if ended {
			return "", false
		}
		select {
		case <-grown:
		case <-late:
			return "", false
		}
	}
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// from returns the lines that came after the first n.
func (l *lines) from(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all[n:])
}

// tail returns the last lines.
func (l *lines) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all[max(0, len(l.all)-n):], "\n")
}
