package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// A rawNode is a node with stubs that are generated, as any client would have them: none
// of the package's own client.
type rawNode struct {
	t     *testing.T
	ctx   context.Context
	dir   string
	opt   ServerOptions
	so    store.Options
	store *store.Store
	srv   *Server
	addr  string
	log   *syncBuffer
	conns []*grpc.ClientConn
	stop  func()
	stubs
}

type stubs struct {
	conn     *grpc.ClientConn
	datasets scalev1.DatasetServiceClient
	blocks   scalev1.BlockServiceClient
	curators scalev1.CuratorServiceClient
	ledger   scalev1.LedgerServiceClient
	proofs   scalev1.ProofServiceClient
	audits   scalev1.AuditServiceClient
	node     scalev1.NodeServiceClient
}

// newRawNode starts a node on an empty store. change may alter its options.
func newRawNode(t *testing.T, change func(*rawNode)) *rawNode {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	// A test that hangs says where, before the whole run ends.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	n := &rawNode{t: t, ctx: ctx, dir: filepath.Join(t.TempDir(), "store"), log: &syncBuffer{}}
	n.opt.Authenticate = Anyone(admin)
	n.opt.Version = "test"
	n.opt.Logger = slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if change != nil {
		change(n)
	}
	if err := store.Init(ctx, n.dir, store.InitOptions{Origin: "node.test"}); err != nil {
		t.Fatal(err)
	}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

func limited(l Limits) func(*rawNode) { return func(n *rawNode) { n.opt.Limits = l } }

func (n *rawNode) start() {
	t := n.t
	t.Helper()
	var err error
	if n.store, err = store.Open(n.ctx, n.dir, n.so); err != nil {
		t.Fatal(err)
	}
	if n.srv, err = NewServer(n.store, n.opt); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.srv.Serve(l) }()
	n.addr = l.Addr().String()
	n.stubs = n.dial()
	n.stop = func() {
		n.stop = func() {}
		for _, c := range n.conns {
			c.Close()
		}
		n.conns = nil
		if err := n.srv.Shutdown(n.ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := n.store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// dial opens another connection.
func (n *rawNode) dial() stubs {
	n.t.Helper()
	c, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		n.t.Fatal(err)
	}
	n.conns = append(n.conns, c)
	return stubs{
		c, scalev1.NewDatasetServiceClient(c), scalev1.NewBlockServiceClient(c), scalev1.NewCuratorServiceClient(c),
		scalev1.NewLedgerServiceClient(c), scalev1.NewProofServiceClient(c), scalev1.NewAuditServiceClient(c), scalev1.NewNodeServiceClient(c),
	}
}

// sound stops the node and checks everything that it has stored.
func (n *rawNode) sound() {
	n.t.Helper()
	n.stop()
	_, err := check.Run(n.ctx, n.dir, check.Options{ReadData: true, Report: func(f check.Finding) {
		if f.Severity != check.Note {
			n.t.Errorf("%v: %s", f.Severity, f.What)
		}
	}})
	if err != nil {
		n.t.Error(err)
	}
}

// A syncBuffer can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(time.Millisecond), time.NewTimer(2*time.Minute)
	defer tick.Stop()
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func (n *rawNode) until(what string, ok func() bool) {
	n.t.Helper()
	until(n.t, what, ok)
}

// refused checks that a call failed as the API says: with a code, the reason that goes with
// it in errorClasses, and a text that has all of says in it. It returns the status.
func refused(t *testing.T, what string, err error, reason scalev1.ErrorReason, says ...string) *status.Status {
	t.Helper()
	st, ok := status.FromError(err)
	if err == nil || !ok {
		t.Errorf("%s: %v, want %v", what, err, reason)
		return status.New(codes.OK, "")
	}
	info := detailOf[*errdetails.ErrorInfo](st)
	c, _ := byReason(reason, info.GetMetadata()["class"])
	if st.Code() != c.code || info.GetDomain() != errorDomain || info.GetReason() != strings.TrimPrefix(reason.String(), reasonPrefix) {
		t.Errorf("%s: %v %v, want %v %v", what, err, info, c.code, reason)
	}
	for _, s := range says {
		if !strings.Contains(st.Message(), s) {
			t.Errorf("%s: %q does not say %q", what, st.Message(), s)
		}
	}
	return st
}

// refusedField is refused where a field of the request is at fault.
func refusedField(t *testing.T, what string, err error, reason scalev1.ErrorReason, field string) {
	t.Helper()
	st := refused(t, what, err, reason)
	var fields []string
	for _, v := range detailOf[*errdetails.BadRequest](st).GetFieldViolations() {
		fields = append(fields, v.GetField())
		if v.GetDescription() == "" {
			t.Errorf("%s: nothing is said of %s", what, v.GetField())
		}
		// Code and reason say so; the message does once.
		if invalid := store.ErrInvalid.Error(); strings.Contains(v.GetDescription(), invalid) || strings.Count(st.Message(), invalid) > 1 {
			t.Errorf("%s: %q of %s: %q", what, v.GetDescription(), v.GetField(), st.Message())
		}
	}
	if !slices.Equal(fields, []string{field}) {
		t.Errorf("%s: fields %q, want %q (%v)", what, fields, field, err)
	}
}

// detailOf returns a detail of a status, or nil.
func detailOf[D any](st *status.Status) D {
	var none D
	for _, d := range st.Details() {
		if d, ok := d.(D); ok {
			return d
		}
	}
	return none
}

// Short names of the reasons that many tests want.
const (
	isInvalid  = scalev1.ErrorReason_ERROR_REASON_INVALID
	isNotFound = scalev1.ErrorReason_ERROR_REASON_NOT_FOUND
	isLimit    = scalev1.ErrorReason_ERROR_REASON_LIMIT
	isMismatch = scalev1.ErrorReason_ERROR_REASON_MISMATCH
	isConflict = scalev1.ErrorReason_ERROR_REASON_CONFLICT
	isCorrupt  = scalev1.ErrorReason_ERROR_REASON_CORRUPT
	isClosing  = scalev1.ErrorReason_ERROR_REASON_CLOSING
	isTooSlow  = scalev1.ErrorReason_ERROR_REASON_TOO_SLOW
)

// Parts of puts.

func header(h *scalev1.PutHeader) *scalev1.PutRequest {
	return &scalev1.PutRequest{Part: &scalev1.PutRequest_Header{Header: h}}
}

func fileHeader(name string) *scalev1.PutRequest {
	return header(&scalev1.PutHeader{Name: name, Kind: scalev1.Kind_KIND_FILE})
}

func treeHeader(name string) *scalev1.PutRequest {
	return header(&scalev1.PutHeader{Name: name, Kind: scalev1.Kind_KIND_DIRECTORY})
}

func dataPart(b []byte) *scalev1.PutRequest {
	return &scalev1.PutRequest{Part: &scalev1.PutRequest_Data{Data: b}}
}

func entryPart(e *scalev1.PutEntry) *scalev1.PutRequest {
	return &scalev1.PutRequest{Part: &scalev1.PutRequest_Entry{Entry: e}}
}

// entriesPart is a message of the entries of several.
func entriesPart(parts ...*scalev1.PutRequest) *scalev1.PutRequest {
	var all scalev1.PutEntries
	for _, p := range parts {
		all.Entries = append(all.Entries, p.GetEntry())
	}
	return &scalev1.PutRequest{Part: &scalev1.PutRequest_Entries{Entries: &all}}
}

func fileEntry(path, data string) *scalev1.PutRequest {
	return entryPart(&scalev1.PutEntry{Path: []byte(path), Kind: scalev1.Kind_KIND_FILE, Data: []byte(data)})
}

func dirEntry(path string) *scalev1.PutRequest {
	return entryPart(&scalev1.PutEntry{Path: []byte(path), Kind: scalev1.Kind_KIND_DIRECTORY})
}

func linkEntry(path, target string) *scalev1.PutRequest {
	return entryPart(&scalev1.PutEntry{Path: []byte(path), Kind: scalev1.Kind_KIND_LINK, Target: []byte(target)})
}

// put sends the parts of one put and returns the answer.
func (s *stubs) put(ctx context.Context, parts ...*scalev1.PutRequest) (*scalev1.PutResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ss, err := s.datasets.Put(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := ss.Send(p); err == io.EOF {
			break // the answer says why
		} else if err != nil {
			return nil, err
		}
	}
	return ss.CloseAndRecv()
}

// putFile puts a dataset of one file.
func (n *rawNode) putFile(name string, data []byte) *scalev1.Dataset {
	n.t.Helper()
	parts := []*scalev1.PutRequest{fileHeader(name)}
	for b := range slices.Chunk(data, 300_000) {
		parts = append(parts, dataPart(b))
	}
	return n.putParts(parts...)
}

func (n *rawNode) putParts(parts ...*scalev1.PutRequest) *scalev1.Dataset {
	n.t.Helper()
	resp, err := n.put(n.ctx, parts...)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.GetResult().GetDataset()
}

// size is the size of the ledger.
func (n *rawNode) size() int64 {
	n.t.Helper()
	head, err := n.ledger.GetHead(n.ctx, &scalev1.GetHeadRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	return head.GetCheckpoint().GetSize()
}

// get reads what a request names to its end.
func (n *rawNode) get(req *scalev1.GetRequest) ([]byte, error) {
	ss, err := n.datasets.Get(n.ctx, req)
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		m, err := ss.Recv()
		if err == io.EOF {
			return all, nil
		} else if err != nil {
			return all, err
		}
		if len(m.GetData()) == 0 || len(m.GetData()) > mostPiece {
			return all, fmt.Errorf("a piece of %d bytes", len(m.GetData()))
		}
		all = append(all, m.GetData()...)
	}
}

// receive reads a stream to its end.
func receive[M any](ss grpc.ServerStreamingClient[M], err error) ([]*M, error) {
	if err != nil {
		return nil, err
	}
	var all []*M
	for {
		m, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

// sendAll sends the messages of a client stream and returns the answer.
func sendAll[Q, R any](ss grpc.ClientStreamingClient[Q, R], err error, parts ...*Q) (*R, error) {
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := ss.Send(p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return ss.CloseAndRecv()
}

func ptr[T any](v T) *T { return &v }

// forceRaw makes a call send and receive bytes as they are.
var forceRaw = grpc.ForceCodecV2(rawBytes{})

type rawBytes struct{}

func (rawBytes) Name() string { return "proto" }
func (rawBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (rawBytes) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
