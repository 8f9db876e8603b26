package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// A handClock goes when it is told to.
type handClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *handClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *handClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newTimedNode(t *testing.T, l Limits) (*rawNode, *handClock) {
	clock := &handClock{t: time.Unix(1e9, 0)}
	return newRawNode(t, func(n *rawNode) { n.opt.Limits, n.opt.Now = l, clock.now }), clock
}

// A caller that says nothing is told so; what he has sent leaves nothing that can be seen.
func TestIdleSender(t *testing.T) {
	n, clock := newTimedNode(t, Limits{})
	streams := map[string]grpc.ClientStream{}
	put, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(put.Send(fileHeader("x")), put.Send(dataPart([]byte("x")))); err != nil {
		t.Fatal(err)
	}
	streams["put"] = put
	if streams["silent"], err = n.blocks.Upload(n.ctx); err != nil {
		t.Fatal(err)
	}
	if streams["no request"], err = n.conn.NewStream(n.ctx, &scalev1.DatasetService_ServiceDesc.Streams[0], scalev1.NodeService_GetInfo_FullMethodName); err != nil {
		t.Fatal(err)
	}
	if streams["commit"], err = n.blocks.Commit(n.ctx); err != nil {
		t.Fatal(err)
	}
	n.waiting(4, waitsRecv)
	clock.add(time.Minute)
	n.srv.sweep(clock.now())
	n.waiting(4, waitsRecv) // not yet
	clock.add(time.Second)
	for what, ss := range streams {
		st := refused(t, what, ss.RecvMsg(&scalev1.PutResponse{}), isTooSlow)
		if st.Code() != codes.DeadlineExceeded {
			t.Errorf("%s: %v", what, st)
		}
	}
	n.putFile("y", nil)
	if n.size() != 2 {
		t.Errorf("%d entries", n.size())
	}
	n.sound()
}

// What is moved gives time back: who sends fast enough may go on for as long as he likes,
// who trickles may not.
func TestTrickle(t *testing.T) {
	n, clock := newTimedNode(t, Limits{MinRate: 1000, IdleTime: time.Minute})
	send := func(ss grpc.ClientStreamingClient[scalev1.PutRequest, scalev1.PutResponse], piece int, pause time.Duration, rounds int) error {
		n.waiting(1, waitsRecv)
		for range rounds {
			ended := false
			n.until("a call that waits, or has been ended", func() bool {
				n.srv.mu.Lock()
				defer n.srv.mu.Unlock()
				for c := range n.srv.calls {
					if _, ok := c.receivesSince(); ok {
						return true
					}
				}
				ended = len(n.srv.calls) == 0
				return ended
			})
			if ended {
				return nil
			}
			clock.add(pause)
			if err := ss.Send(dataPart(make([]byte, piece))); err != nil {
				return err
			}
			n.until("it has come", func() bool {
				n.srv.mu.Lock()
				defer n.srv.mu.Unlock()
				for c := range n.srv.calls {
					c.mu.Lock()
					came := c.waits == waitsRecv && c.since.Equal(clock.now())
					c.mu.Unlock()
					if came {
						return true
					}
				}
				return len(n.srv.calls) == 0
			})
			n.srv.sweep(clock.now())
		}
		return nil
	}
	steady, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(steady.Send(fileHeader("steady")), send(steady, 50_000, 50*time.Second, 20)); err != nil {
		t.Fatal(err)
	}
	if resp, err := steady.CloseAndRecv(); err != nil || resp.GetResult().GetDataset().GetSize() != 1_000_000 {
		t.Errorf("%v, %v", resp, err)
	}
	trickle, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(trickle.Send(fileHeader("trickle")), send(trickle, 1, 20*time.Second, 5)); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	_, err = trickle.CloseAndRecv()
	refused(t, "trickle", err, isTooSlow)
}

func TestTotalTime(t *testing.T) {
	n, clock := newTimedNode(t, Limits{TotalTime: time.Hour, IdleTime: 2 * time.Hour})
	ss, err := n.ledger.StreamEntries(n.ctx, &scalev1.StreamEntriesRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ss.Recv(); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Hour + time.Second)
	_, err = ss.Recv()
	refused(t, "follow", err, isTooSlow, "1h0m0s")
	// A caller's own deadline is gRPC's.
	ctx, cancel := context.WithDeadline(n.ctx, time.Now().Add(20*time.Millisecond))
	defer cancel()
	follow, err := n.ledger.StreamEntries(ctx, &scalev1.StreamEntriesRequest{Start: 1, Follow: true})
	if err == nil {
		_, err = follow.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded || len(status.Convert(err).Details()) != 0 {
		t.Errorf("%v", err)
	}
}

// Readers that take nothing do not hold up others, and are told off in the end.
func TestSlowReaders(t *testing.T) {
	n, clock := newTimedNode(t, Limits{})
	data := noiseBytes(1, 4<<20)
	n.putFile("big", data)
	n.putParts(treeHeader("tree"), fileEntry("f", string(data[:1<<20])), fileEntry("g", ""), dataPart(data[1<<20:2<<20]), dataPart(data[2<<20:3<<20]))
	var slow []func() error
	for i := range 12 {
		ctx := n.ctx
		switch i % 3 {
		case 0, 1:
			ss, err := n.datasets.Get(ctx, &scalev1.GetRequest{Ref: "big"})
			if err != nil {
				t.Fatal(err)
			}
			slow = append(slow, func() error { _, err := drained(ss); return err })
		default:
			ss, err := n.datasets.GetTree(ctx, &scalev1.GetTreeRequest{Ref: "tree"})
			if err != nil {
				t.Fatal(err)
			}
			slow = append(slow, func() error { _, err := drained(ss); return err })
		}
	}
	n.waiting(12, waitsSend)
	if got, err := n.get(&scalev1.GetRequest{Ref: "big"}); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, files := n.tree(&scalev1.GetTreeRequest{Ref: "tree"})
	if files["f"] != string(data[:1<<20]) || files["g"] != string(data[1<<20:3<<20]) {
		t.Error("the tree comes back differently")
	}
	// Half of them go on, each from where it was.
	for i, rest := range slow[:6] {
		if err := rest(); err != nil {
			t.Errorf("reader %d: %v", i, err)
		}
	}
	n.waiting(6, waitsSend)
	clock.add(2 * time.Minute)
	n.srv.sweep(clock.now())
	for i, rest := range slow[6:] {
		refused(t, fmt.Sprint("reader ", i), rest(), isTooSlow)
	}
}

// Exports whose callers take nothing keep nobody from exporting, nor from the totals or a
// check, and go on where they were.
func TestSlowExports(t *testing.T) {
	n := newRawNode(t, nil)
	n.putFile("big", noiseBytes(1, 6<<20))
	export := func() grpc.ServerStreamingClient[scalev1.ExportCarResponse] {
		ss, err := n.datasets.ExportCar(n.ctx, &scalev1.ExportCarRequest{Ref: "big"})
		if err != nil {
			t.Fatal(err)
		}
		return ss
	}
	whole := func(ss grpc.ServerStreamingClient[scalev1.ExportCarResponse]) (car []byte) {
		for {
			m, err := ss.Recv()
			if err == io.EOF {
				return car
			} else if err != nil {
				t.Fatal(err)
			}
			car = append(car, m.GetData()...)
		}
	}
	want := whole(export())
	var slow []grpc.ServerStreamingClient[scalev1.ExportCarResponse]
	for range 2 * cap(n.srv.reads.car.places) {
		slow = append(slow, export())
	}
	n.waiting(cap(n.srv.reads.car.places), waitsSend)
	if got := whole(export()); !bytes.Equal(got, want) {
		t.Errorf("%d bytes beside slow readers, want %d", len(got), len(want))
	}
	if _, err := n.node.GetTotals(n.ctx, &scalev1.GetTotalsRequest{}); err != nil {
		t.Error(err)
	}
	check, err := n.node.Check(n.ctx, &scalev1.CheckRequest{ReadData: true})
	if err == nil {
		_, err = drained(check)
	}
	if err != nil {
		t.Error(err)
	}
	for i, ss := range slow {
		if got := whole(ss); !bytes.Equal(got, want) {
			t.Errorf("slow export %d has %d bytes, want %d", i, len(got), len(want))
		}
	}
}

func drained[M any](ss grpc.ServerStreamingClient[M]) (n int, err error) {
	for {
		if _, err := ss.Recv(); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
		n++
	}
}

// When there is no room strangers go first, and then who has waited longest.
func TestShedOrder(t *testing.T) {
	n := newRawNode(t, nil)
	began := time.Now()
	at := func(scope scalev1.Scope, seconds int) *call {
		c := &call{s: n.srv, who: Identity{Scope: scope}, killed: make(chan struct{}), cancel: func(error) {}}
		c.waits, c.since = waitsRecv, began.Add(time.Duration(seconds)*time.Second)
		return c
	}
	order := []*call{at(none, 2), at(none, 3), at(write, 0), at(write, 1)}
	n.srv.mu.Lock()
	for _, c := range order {
		n.srv.calls[c] = struct{}{}
	}
	n.srv.mu.Unlock()
	for i, c := range order {
		n.srv.shed(1)
		for j, other := range order {
			if ended := other.cause() != nil; ended != (j <= i) {
				t.Errorf("after %d were ended, call %d: %v", i+1, j, other.cause())
			}
		}
		refused(t, fmt.Sprint("call ", i), toStatus(c.cause()).Err(), isLimit)
	}
	n.srv.mu.Lock()
	for _, c := range order {
		delete(n.srv.calls, c)
	}
	n.srv.mu.Unlock()
}

// With more received than there may be, who waits longest is ended and told to come back;
// the node goes on, and nothing stays behind.
func TestBytesInFlight(t *testing.T) {
	n := newRawNode(t, limited(Limits{Writes: 1, WriteQueue: 64, WriteWait: time.Minute, ReceiveBytes: 1 << 20}))
	first, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Send(fileHeader("first")); err != nil {
		t.Fatal(err)
	}
	n.waiting(1, waitsRecv)
	// These wait for their turn, with what fits into a window each.
	type result struct {
		i   int
		err error
	}
	results := make(chan result)
	const others = 12
	for i := range others {
		s := n.dial()
		go func() {
			_, err := s.put(n.ctx, fileHeader(fmt.Sprint("f", i)), dataPart(noiseBytes(uint64(i), 500_000)))
			results <- result{i, err}
		}()
	}
	err = first.RecvMsg(&scalev1.PutResponse{}) // it has not said that it is whole
	var retry *RetryAfter
	if refused(t, "the first", err, isLimit); !errors.As(fromStatus(err), &retry) {
		t.Error("it does not say when to come back")
	}
	// Each of the others goes through, or is told to come back: then it does.
	for range others {
		r := <-results
		for tries := 0; r.err != nil; tries++ {
			if refused(t, fmt.Sprint(r.i), r.err, isLimit); !errors.As(fromStatus(r.err), &retry) || tries > 100_000 {
				t.Fatalf("%d: %v", r.i, r.err)
			}
			runtime.Gosched()
			_, r.err = n.put(n.ctx, fileHeader(fmt.Sprint("f", r.i)), dataPart(noiseBytes(uint64(r.i), 500_000)))
		}
	}
	for i := range others {
		if got, err := n.get(&scalev1.GetRequest{Ref: fmt.Sprint("f", i)}); err != nil || !bytes.Equal(got, noiseBytes(uint64(i), 500_000)) {
			t.Errorf("%d: %d bytes, %v", i, len(got), err)
		}
	}
	n.sound()
	// A connection that lives on may hold the buffer of its last frame.
	n.until("all is given back", func() bool { runtime.GC(); return n.srv.pool.out.Load() <= (1+others)*16<<10 })
}

// A node that is full while nobody sends any more ends who waits longest, too.
func TestFullAndQuiet(t *testing.T) {
	n := newRawNode(t, limited(Limits{ReceiveBytes: 1 << 20}))
	ss, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := ss.Send(fileHeader("x")); err != nil {
		t.Fatal(err)
	}
	n.waiting(1, waitsRecv)
	var held []*[]byte
	for range 2 {
		held = append(held, n.srv.pool.Get(1<<20))
	}
	refused(t, "the call that waits", ss.RecvMsg(&scalev1.PutResponse{}), isLimit)
	for _, b := range held {
		n.srv.pool.Put(b)
	}
	n.putFile("x", nil)
}

// Buffers that the transport drops do not keep the node full.
func TestDroppedBuffers(t *testing.T) {
	n := newRawNode(t, limited(Limits{ReceiveBytes: 1 << 20}))
	for range 2 {
		n.srv.pool.Get(1 << 20)
	}
	n.until("there is room again", func() bool { return !n.srv.pool.full() })
	n.putFile("x", nil)
}

// A heap beyond its limit lets nothing in that takes memory.
func TestMemoryLimit(t *testing.T) {
	n := newRawNode(t, nil)
	n.srv.heap.high.Store(true)
	_, err := n.get(&scalev1.GetRequest{Ref: "x"})
	st := refused(t, "get", err, isLimit, "memory")
	var retry *RetryAfter
	if !errors.As(fromStatus(st.Err()), &retry) {
		t.Error("it does not say when to come back")
	}
	_, err = n.put(n.ctx, fileHeader("x"))
	refused(t, "put", err, isLimit)
	if _, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{}); err != nil {
		t.Error(err)
	}
	n.srv.heap.high.Store(false)
	n.putFile("x", nil)

	runtime.GC()
	if h := newHeapGuard(1); h.look() <= 0 || !h.high.Load() {
		t.Error("a live heap of more than a byte is not seen")
	}
	if h := newHeapGuard(1 << 50); h.look() != 0 || h.high.Load() {
		t.Error("a heap below its limit counts as above")
	}
	// What is shed are those that wait for their caller; others, and nobody, may be there.
	n.srv.shed(-10 << 20)
	n.srv.shed(10 << 20)
	ss, err := n.datasets.Put(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	n.waiting(1, waitsRecv)
	n.srv.shed(-10 << 20)
	n.waiting(1, waitsRecv)
	n.srv.shed(10 << 20)
	_, err = ss.CloseAndRecv()
	refused(t, "shed", err, isLimit)
}
