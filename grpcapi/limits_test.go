package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Every limit has a default, takes values within its bounds, and refuses others.
func TestLimitsDefaults(t *testing.T) {
	def, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(def)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if v.Field(i).IsZero() {
			t.Errorf("%s has no default", name)
		}
		var l Limits
		f := reflect.ValueOf(&l).Elem().Field(i)
		f.Set(v.Field(i))
		if got, err := l.withDefaults(); err != nil && name != "Memory" || err == nil && !reflect.DeepEqual(got, def) {
			t.Errorf("the default of %s is refused: %v", name, err)
		}
		if f.CanInt() {
			f.SetInt(-1)
		} else {
			f.SetUint(1 << 63)
		}
		if _, err := l.withDefaults(); !errors.Is(err, store.ErrInvalid) || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%s = %v: %v", name, f, err)
		}
	}
	for _, l := range []Limits{{MessageBytes: mostMessage + 1}, {PieceBytes: mostPiece + 1}, {PathBytes: mostPath + 1}, {NameBytes: mostName + 1}} {
		if _, err := l.withDefaults(); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

// Limits without a flag of their own are set by name.
func TestLimitsSet(t *testing.T) {
	for _, name := range LimitNames() {
		var l Limits
		value := "65536"
		if _, ok := l.named()[name].(*time.Duration); ok {
			value = "65s536ms"
		}
		if err := l.Set(name, value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := l.Set(name, value); !errors.Is(err, store.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "twice") {
			t.Errorf("%s twice: %v", name, err)
		}
		changed := 0
		v := reflect.ValueOf(l)
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				changed++
				if text := fmt.Sprint(f); text != "65536" && text != "1m5.536s" {
					t.Errorf("%s made %s %s", name, v.Type().Field(i).Name, text)
				}
			}
		}
		if changed != 1 {
			t.Errorf("%s changed %d fields", name, changed)
		}
		for _, bad := range []string{"", "0", "-1", "x", "1.5", "99999999999999999999", "0s", "-1s"} {
			if err := new(Limits).Set(name, bad); !errors.Is(err, store.ErrInvalid) {
				t.Errorf("%s=%s: %v", name, bad, err)
			}
		}
	}
	if err := new(Limits).Set("Memory", "1"); !errors.Is(err, store.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "tree-depth") {
		t.Errorf("no such limit: %v", err)
	}
	if err := (Limits{TreeDepth: -1}).Check(); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a bad limit: %v", err)
	}
}

func TestMessageLimits(t *testing.T) {
	n := newRawNode(t, limited(Limits{MessageBytes: 1 << 20, PieceBytes: 1 << 10, DatasetBytes: 4000}))
	_, err := n.put(n.ctx, fileHeader("x"), dataPart(make([]byte, 1<<20)))
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || len(st.Details()) != 0 { // gRPC's own
		t.Error(err)
	}
	_, err = n.put(n.ctx, fileHeader("x"), dataPart(make([]byte, 1<<10+1)))
	refused(t, "a piece", err, isLimit, "1024")
	var parts []*scalev1.PutRequest
	for range 4 {
		parts = append(parts, dataPart(make([]byte, 1<<10)))
	}
	_, err = n.put(n.ctx, append([]*scalev1.PutRequest{fileHeader("x")}, parts...)...)
	refused(t, "a dataset", err, isLimit, "4000")
	_, err = n.put(n.ctx, header(&scalev1.PutHeader{Name: "x", Kind: scalev1.Kind_KIND_FILE, Size: ptr(uint64(4001))}))
	refused(t, "a dataset that is announced", err, isLimit, "4000")
	if _, err := n.put(n.ctx, append([]*scalev1.PutRequest{fileHeader("x")}, parts[:3]...)...); err != nil {
		t.Error(err)
	}
	big := commitFile("", make([]byte, 8000))
	if _, err := n.commit(commitHeader(&scalev1.CommitHeader{Name: "x"}), commitEntries(big)); err == nil {
		t.Error("a commit of too large a dataset went through")
	} else {
		refused(t, "a commit", err, isLimit, "4000")
	}
	// Requests of one small message.
	_, err = n.datasets.Stat(n.ctx, &scalev1.StatRequest{Ref: "x", Path: make([]byte, maxRequest)})
	refused(t, "a request", err, isInvalid, "65536")
	// Headers beyond their limit end the call, or the connection.
	ctx := metadata.AppendToOutgoingContext(n.ctx, "x-long", strings.Repeat("x", 20<<10))
	if _, err := n.node.GetInfo(ctx, &scalev1.GetInfoRequest{}); err == nil {
		t.Error("headers of 20 KiB were taken")
	}
	if _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); err != nil {
		t.Error(err)
	}
	// Unary calls have one message.
	ss, err := n.conn.NewStream(n.ctx, &scalev1.DatasetService_ServiceDesc.Streams[0], scalev1.NodeService_GetInfo_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := ss.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := ss.RecvMsg(&scalev1.GetInfoResponse{}); err == nil || err == io.EOF {
		t.Errorf("no message: %v", err)
	}
}

func TestTreeLimits(t *testing.T) {
	n := newRawNode(t, limited(Limits{TreeEntries: 5, TreeDepth: 3, PathBytes: 20, NameBytes: 10}))
	for what, c := range map[string]struct {
		parts  []*scalev1.PutRequest
		reason scalev1.ErrorReason
	}{
		"as many":         {[]*scalev1.PutRequest{fileEntry("a", ""), fileEntry("b", ""), fileEntry("c", ""), fileEntry("d", "")}, 0},
		"more":            {[]*scalev1.PutRequest{fileEntry("a", ""), fileEntry("b", ""), fileEntry("c", ""), fileEntry("d", ""), fileEntry("e", "")}, isLimit},
		"more left out":   {[]*scalev1.PutRequest{fileEntry("a", ""), fileEntry("b", ""), fileEntry("c", ""), fileEntry("d/x", "")}, isLimit},
		"as deep":         {[]*scalev1.PutRequest{fileEntry("a/b/c", "")}, 0},
		"deeper":          {[]*scalev1.PutRequest{fileEntry("a/b/c/d", "")}, isLimit},
		"as long a name":  {[]*scalev1.PutRequest{fileEntry("1234567890", "")}, 0},
		"a longer name":   {[]*scalev1.PutRequest{fileEntry("12345678901", "")}, isInvalid},
		"as long a path":  {[]*scalev1.PutRequest{fileEntry("123456789/1234567890", "")}, 0},
		"a longer path":   {[]*scalev1.PutRequest{fileEntry("1234567890/1234567890", "")}, isInvalid},
		"nothing of that": {nil, 0},
	} {
		_, err := n.put(n.ctx, append([]*scalev1.PutRequest{treeHeader("x")}, c.parts...)...)
		entries := []*scalev1.CommitEntry{root}
		for _, p := range c.parts {
			entries = append(entries, &scalev1.CommitEntry{Path: p.GetEntry().GetPath(), Kind: p.GetEntry().GetKind()})
		}
		_, cerr := n.commit(commitHeader(&scalev1.CommitHeader{Name: "y"}), commitEntries(entries...))
		if c.reason == 0 {
			if err != nil || cerr != nil {
				t.Errorf("%s: %v, %v", what, err, cerr)
			}
			continue
		}
		refused(t, what, err, c.reason)
		refused(t, what+", commit", cerr, c.reason)
	}
}

// Of one connection no more calls are taken at a time than the node says.
func TestConnectionCalls(t *testing.T) {
	n := newRawNode(t, limited(Limits{ConnectionCalls: 2}))
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for id := uint32(1); id <= 5; id += 2 {
		block.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/scale.v1.DatasetService/Put"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
			if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	said := uint32(0)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if v, ok := frame.Value(http2.SettingMaxConcurrentStreams); ok {
				said = v
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID != 5 || frame.ErrCode != http2.ErrCodeRefusedStream || said != 2 {
				t.Errorf("%v, after %d streams were said", frame, said)
			}
			return
		}
	}
}

// Connections beyond their number are closed at once.
func TestConnections(t *testing.T) {
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Limits.Connections = 1
		n.opt.Authenticate = func(context.Context) (Identity, error) { return Identity{Name: "somebody", Scope: admin}, nil }
	})
	if _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if b, err := io.ReadAll(conn); len(b) != 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	n.until("it is logged", func() bool { return strings.Contains(n.log.String(), "connections are refused") })
	n.conns[0].Close()
	n.until("there is room again", func() bool {
		_, err := n.dial().node.GetInfo(n.ctx, &scalev1.GetInfoRequest{})
		return err == nil
	})
}

// Streams cannot take all calls; one caller cannot take all; there are no more than all.
func TestCallLimits(t *testing.T) {
	who := make(chan Identity, 1)
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Limits.Calls = 16
		n.opt.Authenticate = func(context.Context) (Identity, error) { return <-who, nil }
	})
	as := func(name string) { who <- Identity{Name: name, Scope: admin} }
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	open := func(name string) error {
		as(name)
		ss, err := n.ledger.StreamEntries(ctx, &scalev1.StreamEntriesRequest{Follow: true})
		if err == nil {
			_, err = ss.Recv()
		}
		return err
	}
	// Two of 16 are kept for short calls, and two for others than this one.
	for i := range 14 {
		name := "a"
		if i == 13 {
			name = "b"
		}
		if err := open(name); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	st := refused(t, "a stream more", open("b"), isLimit, "14 streams")
	var retry *RetryAfter
	if !errors.As(fromStatus(st.Err()), &retry) {
		t.Error("it does not say when to come back")
	}
	as("b")
	if _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); err != nil {
		t.Errorf("a short call: %v", err)
	}
	cancel()
	n.until("all have ended", func() bool {
		n.srv.gate.mu.Lock()
		defer n.srv.gate.mu.Unlock()
		return n.srv.gate.running == 0 && len(n.srv.gate.by) == 0
	})
}

// While others have all calls, whoever owns the node can still revoke a token.
func TestOwnerDuringFlood(t *testing.T) {
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Limits.Calls = 8
		n.opt.Credentials = Credentials(nil)
		n.opt.Tokens = OpenTokens(n.dir)
	})
	if _, err := n.node.CreateToken(n.ctx, &scalev1.CreateTokenRequest{Name: "flood", Scope: read}); err != nil {
		t.Fatal(err)
	}
	l, err := ListenPrivate(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.srv.Serve(l) }()
	t.Cleanup(func() {
		n.stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	var releases []func()
	for _, who := range []string{"a", "b"} {
		for {
			release, err := n.srv.gate.enter(who, kindShort, false)
			if err != nil {
				break
			}
			releases = append(releases, release)
		}
	}
	_, err = n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{})
	refused(t, "another caller", err, isLimit, "8 calls")
	c, err := grpc.NewClient("passthrough:///owner", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return DialPrivate(ctx, n.dir) }))
	if err != nil {
		t.Fatal(err)
	}
	n.conns = append(n.conns, c)
	owner := scalev1.NewNodeServiceClient(c)
	if _, err := owner.RevokeToken(n.ctx, &scalev1.RevokeTokenRequest{Name: "flood"}); err != nil {
		t.Errorf("the owner: %v", err)
	}
	// Streams have none of these places, and the places have an end.
	_, err = receive(owner.Check(n.ctx, &scalev1.CheckRequest{}))
	refused(t, "the owner's stream", err, isLimit, "8 calls")
	n.until("the call has left", func() bool {
		n.srv.gate.mu.Lock()
		defer n.srv.gate.mu.Unlock()
		return n.srv.gate.spare == 0
	})
	for range spareCalls {
		release, err := n.srv.gate.enter("owner", kindShort, true)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	_, err = owner.ListTokens(n.ctx, &scalev1.ListTokensRequest{})
	refused(t, "too many of the owner", err, isLimit)
	for _, release := range releases {
		release()
	}
	if g := n.srv.gate; g.running != 0 || g.spare != 0 || len(g.by) != 0 {
		t.Errorf("%+v", g)
	}
}
