package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// putFile writes a file and returns an input of it.
func putFile(t *testing.T, name string, b []byte) store.Input {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return store.Input{Name: name, Path: p}
}

// A progressLog checks the progress that a put tells.
type progressLog struct {
	t    *testing.T
	last store.Progress
}

func (l *progressLog) told(p store.Progress) {
	if p.Bytes < l.last.Bytes || p.Sent < l.last.Sent {
		l.t.Errorf("progress goes back from %+v to %+v", l.last, p)
	}
	l.last = p
}

// holds fails unless the node gives back what was put.
func (n *clientNode) holds(c *Client, name string, want []byte) {
	n.t.Helper()
	var got bytes.Buffer
	if _, err := c.Get(n.t.Context(), must(c.Resolve(n.t.Context(), name)), nil, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
		n.t.Errorf("%s comes back otherwise: %d bytes, %v", name, got.Len(), err)
	}
}

// TestClientPutBrokenConnection cuts connections during a put, which goes on by itself and
// sends again only what had not arrived.
func TestClientPutBrokenConnection(t *testing.T) {
	n := startClientNode(t)
	proxy := startCutProxy(t, n.addr)
	data := noiseBytes(7, 96<<20)
	const cuts = 2
	each := int64(len(data)) * 2 / 5
	proxy.cutAfter(false, each, each)
	c := n.dial(proxy.addr)
	log := &progressLog{t: t}
	must(c.Put(t.Context(), []store.Input{putFile(t, "cut", data)}, store.PutOptions{Progress: log.told}))
	sent, _, made := proxy.counts()
	if made != cuts+1 {
		t.Errorf("%d connections, want %d", made, cuts+1)
	}
	t.Logf("%d bytes sent for %d", sent, len(data))
	if most := int64(len(data))*101/100 + cuts*inFlight; sent > most {
		t.Errorf("%d bytes sent for %d, want at most %d", sent, len(data), most)
	}
	if log.last.Bytes != uint64(len(data)) || log.last.Sent == 0 {
		t.Errorf("progress ends at %+v", log.last)
	}
	n.holds(c, "cut", data)
	n.sound()
}

// TestClientPutNodeStops has a node refuse calls because it is stopping, more often than
// calls are repeated otherwise: a put goes on when there is a node again, and gives up after
// its patience.
func TestClientPutNodeStops(t *testing.T) {
	n := startClientNode(t)
	proxy := startGRPCProxy(t, n.addr)
	data := noiseBytes(7, 8<<20)
	c := n.dial(proxy.addr)
	refused := map[string]int{}
	const often = 2 * maxTries
	// stops has each method refused so often before it gets through.
	stops := func(most int) {
		proxy.mu.Lock()
		defer proxy.mu.Unlock()
		clear(refused)
		var mu sync.Mutex
		proxy.refuse = func(method string) error {
			mu.Lock()
			defer mu.Unlock()
			if refused[method] == most {
				return nil
			}
			refused[method]++
			return toStatus(&RetryAfter{time.Millisecond, ErrClosing}).Err()
		}
	}
	stops(often)
	must(c.Put(t.Context(), []store.Input{putFile(t, "stops", data)}, store.PutOptions{}))
	for _, method := range []string{scalev1.BlockService_FindMissing_FullMethodName, scalev1.BlockService_Upload_FullMethodName, scalev1.BlockService_Commit_FullMethodName} {
		if refused[method] != often {
			t.Errorf("%s was refused %d times, want %d", method, refused[method], often)
		}
	}
	n.holds(c, "stops", data)

	c.opt.Patience = 1
	stops(-1)
	if _, err := c.Put(t.Context(), []store.Input{putFile(t, "stopped", data)}, store.PutOptions{}); !errors.Is(err, ErrClosing) {
		t.Errorf("a put through a node that is stopping for long ends with %v", err)
	}
	// One that is told so when it connects waits too.
	stops(often)
	n.dial(proxy.addr)
	n.sound()
}

// inFlight is how much may be sent twice after a connection has broken: a frame of each
// call, and what the node had not written yet.
const inFlight = 2 * uploadCalls * 4 << 20

// TestClientPutRepeated ends a put in the middle. The next one of the same data sends only
// the rest, and one more next to nothing.
func TestClientPutRepeated(t *testing.T) {
	n := startClientNode(t)
	proxy := startCutProxy(t, n.addr)
	data := noiseBytes(8, 96<<20)
	in := putFile(t, "again", data)
	ctx, cancel := context.WithCancel(t.Context())
	proxy.watchSent(func(sent int64) {
		if sent > int64(len(data))*3/4 {
			cancel()
		}
	})
	log := &progressLog{t: t}
	_, err := n.dial(proxy.addr).Put(ctx, []store.Input{in}, store.PutOptions{Progress: log.told})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, errKept) {
		t.Errorf("a put that was ended: %v", err)
	}
	first, _, _ := proxy.counts()
	proxy.watchSent(nil)
	proxy.cutAfter(false)
	c := n.dial(proxy.addr)
	must(c.Put(t.Context(), []store.Input{in}, store.PutOptions{}))
	second, _, _ := proxy.counts()
	t.Logf("%d and %d bytes sent for %d", first, second, len(data))
	if first+second > int64(len(data))*101/100+inFlight {
		t.Errorf("%d and %d bytes sent for %d", first, second, len(data))
	}
	proxy.cutAfter(false)
	c = n.dial(proxy.addr)
	if res := must(c.Put(t.Context(), []store.Input{in}, store.PutOptions{})); !res[0].Unchanged {
		t.Error("the same data has made a new version")
	}
	if third, _, _ := proxy.counts(); third > 16<<10 {
		t.Errorf("%d bytes sent for data that the node has", third)
	}
	n.holds(c, "again", data)
	n.sound()
}

// TestClientReadsBrokenConnection cuts connections while a file, a tree, a CAR, a list and a
// proof come, which then come whole all the same.
func TestClientReadsBrokenConnection(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	must(n.store.Put(ctx, []store.Input{{Name: "tree", Path: testTree(t, size(16<<20))}}, store.PutOptions{}))
	proxy := startCutProxy(t, n.addr)
	tree, file := must(n.store.Resolve(ctx, "tree")), must(n.store.Resolve(ctx, "tree/big"))
	cut := func(after ...int64) *Client {
		proxy.cutAfter(true, after...)
		return n.dial(proxy.addr)
	}
	third := int64(file.Info.Size) / 3

	var want, got bytes.Buffer
	must(n.store.Get(ctx, file, nil, &want))
	must(cut(third, third).Get(ctx, file, nil, &got))
	if !bytes.Equal(want.Bytes(), got.Bytes()) {
		t.Error("a file comes otherwise")
	}
	if _, _, made := proxy.counts(); made != 3 {
		t.Errorf("%d connections, want 3", made)
	}
	var a, b visits
	if err := n.store.GetTree(ctx, tree, &a); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{20 << 10, 60 << 10, third, 2 * third} {
		b = visits{}
		if err := cut(at, third/2).GetTree(ctx, tree, &b); err != nil {
			t.Errorf("tree cut at %d: %v", at, err)
		}
		if d := differ(a.log, b.log); d != "" {
			t.Errorf("tree cut at %d:\n%s", at, d)
		}
	}
	want.Reset()
	got.Reset()
	// Each time less than half of it comes: it goes on where it was.
	errA, errB := n.store.ExportCAR(ctx, tree, &want), cut(third, third, third).ExportCAR(ctx, tree, &got)
	if errA != nil || errB != nil || !bytes.Equal(want.Bytes(), got.Bytes()) {
		t.Errorf("a CAR comes otherwise: %v, %v", errA, errB)
	}
	if _, received, _ := proxy.counts(); received > int64(want.Len())*11/10+inFlight {
		t.Errorf("%d bytes came of a CAR of %d", received, want.Len())
	}
	// A node that does not know how to begin in the middle.
	old := startGRPCProxy(t, n.addr)
	calls := 0
	old.set(func(method string, i int, b []byte) ([][]byte, error) {
		if method != scalev1.DatasetService_ExportCar_FullMethodName {
			return [][]byte{b}, nil
		}
		if i == 0 {
			calls++
		}
		if i == 2 && calls == 1 {
			return nil, toStatus(&RetryAfter{time.Millisecond, ErrClosing}).Err()
		}
		return [][]byte{b}, nil
	}, nil)
	old.request = func(method string, b []byte) []byte {
		if method != scalev1.DatasetService_ExportCar_FullMethodName {
			return b
		}
		m := &scalev1.ExportCarRequest{}
		if err := proto.Unmarshal(b, m); err != nil {
			t.Error(err)
		}
		m.Offset = 0
		return must(proto.Marshal(m))
	}
	got.Reset()
	if err := n.dial(old.addr).ExportCAR(ctx, tree, &got); err != nil || !bytes.Equal(want.Bytes(), got.Bytes()) || calls != 3 {
		t.Errorf("a CAR of a node of an older version: %v, in %d calls", err, calls)
	}
	_, err := receive(n.rawCAR(tree, uint64(want.Len())+1))
	refusedField(t, "beyond the end", err, isInvalid, "offset")
	if rest, err := receive(n.rawCAR(tree, uint64(want.Len()))); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %d messages, %v", len(rest), err)
	}
	compareList(t, "list", n.store.List(ctx, tree), cut(20<<10).List(ctx, tree))
	o := store.ProveOptions{Manifest: true}
	if !bytes.Equal(must(must(n.store.Prove(ctx, tree, o)).Format()), must(must(cut(20<<10).Prove(ctx, tree, o)).Format())) {
		t.Error("a proof comes otherwise")
	}
	n.sound()
}

// TestClientAuditBrokenConnection cuts connections during an audit, while the ledger grows:
// it asks the same again. What does not hold is not asked for a second time.
func TestClientAuditBrokenConnection(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	must(n.store.Put(ctx, []store.Input{{Name: "data", Reader: bytes.NewReader(noiseBytes(1, 4<<20))}}, store.PutOptions{}))
	o := must(n.store.Resolve(ctx, "data"))
	trust := proof.Trust{Policy: must(proof.TrustKey(n.store.VerifierKey()))}
	q := AuditOptions{Challenge: audit.Challenge{Seed: make([]byte, 32), Count: 20}, Trust: trust}
	proxy := startCutProxy(t, n.addr)
	c := n.dial(proxy.addr)
	want := must(c.Audit(ctx, o, q)).Submission()
	proxy.mu.Lock()
	each := proxy.received / 3
	proxy.mu.Unlock()

	proxy.cutAfter(true, each, 2*each)
	c = n.dial(proxy.addr)
	var grown sync.Once
	last := uint64(0)
	q.Progress = func(bytes uint64) {
		if bytes < last {
			grown.Do(func() {
				must(n.store.Put(ctx, []store.Input{{Name: "more", Reader: strings.NewReader("more")}}, store.PutOptions{}))
			})
		}
		last = bytes
	}
	got := must(c.Audit(ctx, o, q)).Submission()
	if _, _, made := proxy.counts(); made != 3 {
		t.Errorf("%d connections, want 3", made)
	}
	if !bytes.Equal(got.Seed, want.Seed) || got.Entry != want.Entry || got.Count != want.Count {
		t.Errorf("asked for %+v, then for %+v", want, got)
	}
	if got.Size == want.Size {
		t.Error("the ledger did not grow")
	}

	calls := 0
	hostile := startGRPCProxy(t, n.addr)
	hostile.set(onlyThat(t, scalev1.AuditService_Challenge_FullMethodName, func(i int, m *scalev1.ChallengeResponse) {
		if i == 0 {
			calls++
		}
		if s := m.GetSample(); s != nil {
			s.Data[0] ^= 1
		}
	}), nil)
	if _, err := n.dial(hostile.addr).Audit(ctx, o, q); !errors.Is(err, audit.ErrRefused) || calls != 1 {
		t.Errorf("bytes that are not those of the dataset: %v, in %d calls", err, calls)
	}
	n.sound()
}

// rawCAR asks the node for a CAR from an offset on.
func (n *clientNode) rawCAR(o store.Object, offset uint64) (grpc.ServerStreamingClient[scalev1.ExportCarResponse], error) {
	c := n.dial(n.addr)
	ref, path := place(o)
	return c.datasets.ExportCar(n.t.Context(), &scalev1.ExportCarRequest{Ref: ref, Path: path, Offset: offset})
}
