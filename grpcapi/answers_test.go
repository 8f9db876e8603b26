package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

func (b *answerBudget) now() (out, owing int64, waiting, conns int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out, b.owing, len(b.waiting), len(b.held)
}

// whoWait returns for how many connections there is something that waits.
func (b *answerBudget) whoWait() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	conns := map[*limitedConn]bool{}
	for _, t := range b.waiting {
		conns[t.a.conn] = true
	}
	return len(conns)
}

// idleCalls returns how many calls do not wait for their callers to take something.
func (n *rawNode) idleCalls() (calls int) {
	n.srv.mu.Lock()
	defer n.srv.mu.Unlock()
	for c := range n.srv.calls {
		c.mu.Lock()
		if c.waits != waitsSend {
			calls++
		}
		c.mu.Unlock()
	}
	return calls
}

// The budget by itself: who waits, for how long, and who goes first.
func TestAnswerBudget(t *testing.T) {
	lim, err := Limits{SendBytes: 8 << 20, WriteWait: time.Minute}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b := newAnswerBudget(lim)
	conns := []*limitedConn{{}, {}}
	ctx := t.Context()
	of := func(who string, conn int) *account { return &account{b: b, who: who, conn: conns[conn]} }
	a := of("a", 0)
	if err := a.reserve(ctx, 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := a.reserve(ctx, 1<<20); err != nil { // is in it
		t.Fatal(err)
	}
	// A large answer of the same caller does not fit, nor one of another that is too large.
	type result struct {
		name string
		err  error
	}
	results := make(chan result)
	wait := func(name string, a *account, n int) {
		_, _, before, _ := b.now()
		go func() { results <- result{name, a.reserve(ctx, n)} }()
		until(t, name+" waits", func() bool { _, _, n, _ := b.now(); return n > before })
	}
	same, other := of("a", 0), of("b", 1)
	wait("same", same, 1<<20)
	wait("other", other, 2<<20)
	if b.wanted() != 3<<20 {
		t.Errorf("%d bytes are waited for", b.wanted())
	}
	// Small ones go by, and the owner's.
	small := of("a", 0)
	if err := small.admit(ctx, smallAnswer); err != nil {
		t.Error(err)
	}
	owner := &account{b: b, who: "owner", free: true}
	if err := owner.reserve(ctx, 20<<20); err != nil {
		t.Error(err)
	}
	owner.release()
	// Who holds least goes first, though he came later.
	if err := a.admit(ctx, 3<<20); err != nil { // in what was reserved
		t.Fatal(err)
	}
	buf := answers.take(3 << 20)
	sent := a.send(buf, 3<<20)
	a.release()
	if r := <-results; r.name != "other" || r.err != nil {
		t.Errorf("%s goes first, %v", r.name, r.err)
	}
	if out, _, waiting, _ := b.now(); waiting != 1 || out != 5<<20+answerSlack+smallAnswer {
		t.Errorf("%d bytes, %d wait", out, waiting)
	}
	sent.Free()
	if r := <-results; r.name != "same" || r.err != nil {
		t.Errorf("%s goes second, %v", r.name, r.err)
	}
	// Who waits in vain is told when to come back; who is gone has nothing.
	gone := errors.New("gone")
	over, cancel := context.WithCancelCause(ctx)
	cancel(gone)
	if err := of("c", 0).reserve(over, 6<<20); err != gone {
		t.Error(err)
	}
	b.wait = time.Millisecond
	var retry *RetryAfter
	if err := of("c", 0).reserve(ctx, 6<<20); !errors.Is(err, ErrLimit) || !errors.As(err, &retry) {
		t.Error(err)
	}
	same.release()
	other.release()
	small.count(1) // settles what was admitted
	small.count(-1)
	if out, owing, waiting, held := b.now(); out != 0 || owing != 0 || waiting != 0 || held != 0 || len(b.by) != 0 {
		t.Errorf("%d bytes, %d owing, %d wait, %d connections, of %v", out, owing, waiting, held, b.by)
	}
	// An HTTP request may end before its call.
	web := &account{b: b, who: "w", web: true}
	web.end()
	if err := errors.Join(web.reserve(ctx, 1<<20), web.admit(ctx, 1<<20)); err != nil {
		t.Error(err)
	}
	web.keep(1 << 20)
	if out, _, _, held := b.now(); out != 0 || held != 0 {
		t.Errorf("%d bytes stay", out)
	}
}

// Connections are closed that take nothing, those first that hold most, and no more than
// are needed; slow ones are not.
func TestTakers(t *testing.T) {
	lim, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b := newAnswerBudget(lim)
	conns := map[string]*limitedConn{"slow": {}, "small": {}, "large": {}, "slow for much": {}}
	b.keep(conns["slow"], 100<<10)
	b.keep(conns["small"], 200<<10)
	b.keep(conns["large"], 300<<10)
	b.keep(conns["slow for much"], 32<<20)
	takers := takers{}
	now := time.Unix(1e9, 0)
	takers.look(now, b, &lim)
	for range 10 {
		now = now.Add(time.Second)
		conns["slow"].wrote.Add(int64(lim.MinRate))
		conns["slow for much"].wrote.Add(int64(lim.MinRate))
		takers.look(now, b, &lim)
	}
	names := func(bytes int64) string {
		var s []string
		for _, c := range takers.idle(bytes) {
			for name, conn := range conns {
				if conn == c {
					s = append(s, name)
				}
			}
		}
		return strings.Join(s, ", ")
	}
	if got := names(1 << 40); got != "slow for much, large, small" {
		t.Errorf("idle: %s", got)
	}
	if got := names(32<<20 + 1); got != "slow for much, large" {
		t.Errorf("idle: %s", got)
	}
	b.keep(conns["large"], -300<<10)
	takers.look(now, b, &lim)
	if got := names(1 << 40); got != "slow for much, small" {
		t.Errorf("idle: %s", got)
	}
}

// A caller who takes nothing of what calls end with is read no further, and it counts.
func TestStatusesNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim, err := Limits{}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		b := newAnswerBudget(lim)
		ours, theirs := net.Pipe()
		c := newLimitedConn(ours)
		defer c.Close()
		c.owe(b, 1000) // goes out at once
		if out, _, _, _ := b.now(); out != 0 {
			t.Errorf("%d bytes", out)
		}
		written := make(chan error, 1)
		go func() {
			_, err := c.Write([]byte("x"))
			written <- err
		}()
		synctest.Wait()
		for owing := int64(0); owing <= stuckBytes; _, owing, _, _ = b.now() {
			c.owe(b, 1000)
		}
		if out, owing, _, held := b.now(); out != owing || held != 1 {
			t.Errorf("%d bytes, %d owing, %d connections", out, owing, held)
		}
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		sent := make(chan error, 1)
		go func() {
			_, err := theirs.Write([]byte("y"))
			sent <- err
		}()
		synctest.Wait()
		if len(read) > 0 || len(sent) > 0 {
			t.Error("it is read on")
		}
		if _, err := io.ReadFull(theirs, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(<-written, <-read, <-sent); err != nil {
			t.Error(err)
		}
		if out, owing, _, held := b.now(); out != 0 || owing != 0 || held != 0 {
			t.Errorf("%d bytes, %d owing, %d connections", out, owing, held)
		}
	})
}

// hoard opens a connection that asks for something many times and takes none of the answers:
// it reads frames, but lets none with data come.
func (n *rawNode) hoard(method string, req proto.Message, times int) net.Conn {
	t := n.t
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	fatal(err)
	f := http2.NewFramer(conn, conn)
	fatal(f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	fatal(f.WriteSettingsAck())
	body, err := proto.Marshal(req)
	fatal(err)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range times {
		block.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
			fatal(enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
		}
		id := uint32(2*i + 1)
		fatal(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}))
		fatal(f.WriteData(id, true, append([]byte{0, 0, 0, 0, byte(len(body))}, body...)))
	}
	return conn
}

// Whoever takes nothing of what he asks for does not make the node hold more than it may, is
// hung up on when others wait, and keeps nobody out.
func TestAnswersNotTaken(t *testing.T) {
	lim := Limits{SendBytes: 4 << 20, WriteWait: time.Minute}
	for what, c := range map[string]struct {
		method string
		req    proto.Message
	}{
		"list":      {scalev1.DatasetService_ListTree_FullMethodName, &scalev1.ListTreeRequest{Ref: "tree", PageSize: 10_000}},
		"get":       {scalev1.DatasetService_Get_FullMethodName, &scalev1.GetRequest{Ref: "big"}},
		"tree":      {scalev1.DatasetService_GetTree_FullMethodName, &scalev1.GetTreeRequest{Ref: "tree"}},
		"challenge": {scalev1.AuditService_Challenge_FullMethodName, &scalev1.ChallengeRequest{Ref: "big", Seed: make([]byte, 16), Count: 8}},
	} {
		t.Run(what, func(t *testing.T) {
			n, clock := newTimedNode(t, lim)
			data := noiseBytes(1, 2<<20)
			n.putFile("big", data)
			parts := []*scalev1.PutRequest{treeHeader("tree")}
			for i := range 1000 {
				parts = append(parts, linkEntry(fmt.Sprintf("%04d%s", i, strings.Repeat("n", 200)), "x"))
			}
			n.putParts(parts...)
			b := n.srv.answers
			conn := n.hoard(c.method, c.req, 60)
			// There is no room left when all calls either wait for it or for their caller.
			settled := 0
			n.until("some wait", func() bool {
				_, _, waiting, _ := b.now()
				if n.idleCalls() != waiting || waiting < 10 {
					settled = 0
				}
				settled++
				return settled > 10
			})
			if out, _, _, conns := b.now(); out > b.limit || conns != 1 {
				t.Errorf("%d bytes are held, of %d connections", out, conns)
			}
			// Small answers have room.
			if _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); err != nil {
				t.Error(err)
			}
			// A large one waits until he is hung up on.
			done := make(chan error, 1)
			s := n.dial()
			go func() {
				_, err := s.datasets.ListTree(n.ctx, &scalev1.ListTreeRequest{Ref: "tree", PageSize: 10_000})
				done <- err
			}()
			n.until("it waits", func() bool { return b.whoWait() == 2 })
			if what != "list" { // there it is left to the node, which looks once a second
				takers := takers{}
				takers.look(clock.now(), b, &n.srv.lim)
				clock.add(takingGrace + time.Second)
				takers.look(clock.now(), b, &n.srv.lim)
				n.srv.hangUp(takers.idle(b.wanted()))
			}
			n.until("it is answered", func() bool {
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
					return true
				default:
				}
				if what == "list" {
					clock.add(10 * time.Millisecond)
				}
				return false
			})
			if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				t.Error(err)
			}
			if !strings.Contains(n.log.String(), "connection closed: its answers are not taken") {
				t.Error("the log does not tell")
			}
			if got, err := n.get(&scalev1.GetRequest{Ref: "big"}); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			n.until("all is given back", func() bool {
				runtime.GC()
				out, _, _, conns := b.now()
				return out == 0 && conns == 0
			})
		})
	}
}

// Of the calls that arrive as many are let on as may be, and each counts until its end,
// whether it came to a handler or not.
func TestArrivals(t *testing.T) {
	n := newRawNode(t, limited(Limits{Calls: 8}))
	n.until("the node is reached", func() bool { _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); return err == nil })
	n.srv.arrivals.Add(arrivalsPerCall * 8)
	_, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{})
	var retry *RetryAfter
	if refused(t, "one more", err, isLimit); !errors.As(fromStatus(err), &retry) {
		t.Error("it does not say when to come back")
	}
	n.srv.arrivals.Add(-arrivalsPerCall * 8)
	c := &limitedConn{}
	n.srv.answers.owed(c, n.srv.lim.SendBytes)
	_, err = n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{})
	refused(t, "statuses that nobody takes", err, isLimit)
	n.srv.answers.owed(c, -n.srv.lim.SendBytes)
	if _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); err != nil {
		t.Error(err)
	}
	// The transport refuses what it cannot read without asking a handler.
	err = n.conn.Invoke(n.ctx, "/scale.v1.NodeService/Nothing", &scalev1.GetInfoRequest{}, &scalev1.GetInfoResponse{})
	if status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	_, err = n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}, grpc.UseCompressor(gzip.Name))
	if err != nil && status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	n.until("all have ended", func() bool { return n.srv.arrivals.Load() == 0 })
}

// A call whose caller is gone counts for as long as its handler runs.
func TestArrivalOfOneWhoIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lim, err := Limits{}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{lim: lim, answers: newAnswerBudget(lim)}
		ctx, cancel := context.WithCancel(t.Context())
		arrive := func() context.Context {
			ctx, err := s.arrive(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			return ctx
		}
		arrive() // reaches no handler
		end := handled(arrive())
		if n := s.arrivals.Load(); n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
		cancel()
		synctest.Wait()
		if n := s.arrivals.Load(); n != 1 {
			t.Errorf("%d calls when both callers are gone, want the one that runs", n)
		}
		end()
		if n := s.arrivals.Load(); n != 0 {
			t.Errorf("%d calls at the end", n)
		}
	})
}
