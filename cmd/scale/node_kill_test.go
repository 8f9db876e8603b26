package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/grpcapi"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// An ack is what a put was answered with.
type ack struct{ name, cid string }

// acks are what many have been told.
type acks struct {
	mu     sync.Mutex
	all    []ack
	newest *scalev1.Checkpoint
	grown  chan int // of the number that is awaited
	await  int
}

func (a *acks) add(r *scalev1.PutResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := r.GetResult().GetDataset()
	a.all = append(a.all, ack{d.GetName(), d.GetCid()})
	if a.newest == nil || r.GetCheckpoint().GetSize() > a.newest.GetSize() {
		a.newest = r.GetCheckpoint()
	}
	if len(a.all) == a.await {
		close(a.grown)
	}
}

// putUntilItFails puts small datasets one after the other.
func (a *acks) putUntilItFails(ctx context.Context, conn grpc.ClientConnInterface, who int) {
	for i := 0; ; i++ {
		name := fmt.Sprintf("small-%d-%d", who, i)
		r, err := putBytes(ctx, conn, name, []byte(strings.Repeat(name, 20)))
		if err != nil {
			return
		}
		a.add(r)
	}
}

// verify asks a node for everything that was acknowledged, and whether its log goes on
// from the newest checkpoint that was.
func (a *acks) verify(t *testing.T, conn grpc.ClientConnInterface) {
	t.Helper()
	datasets := scalev1.NewDatasetServiceClient(conn)
	for _, k := range a.all {
		r, err := datasets.Resolve(t.Context(), &scalev1.ResolveRequest{Ref: k.name})
		if err != nil || r.GetCid() != k.cid {
			t.Errorf("%s was acknowledged as %s and is %s, %v", k.name, k.cid, r.GetCid(), err)
		}
	}
	r, err := scalev1.NewLedgerServiceClient(conn).GetConsistencyProof(t.Context(), &scalev1.GetConsistencyProofRequest{OldSize: a.newest.GetSize()})
	if err != nil {
		t.Fatal(err)
	}
	var p tlog.TreeProof
	for _, h := range r.GetHashes() {
		p = append(p, tlog.Hash(h))
	}
	if err := tlog.CheckTree(p, r.GetSize(), tlog.Hash(r.GetRoot()), a.newest.GetSize(), tlog.Hash(a.newest.GetRoot())); err != nil {
		t.Errorf("the log does not go on from what was acknowledged: %v", err)
	}
}

// A node that is killed during 16 uploads loses nothing that it acknowledged and shows
// nothing that is half there. The clients go on when it is back and do not send again what
// had arrived.
func TestNodeKilled(t *testing.T) {
	noLeaks(t)
	size := 12 << 20
	if testing.Short() {
		size = 6 << 20
	}
	const clients = 16
	s := newNodeStore(t)
	p := startNode(t, s)
	way := newRelay(t)
	way.to(p.grpc)
	dir := t.TempDir()
	uploads := make(map[string][]byte)
	for i := range clients {
		name := fmt.Sprint("upload", i)
		uploads[name] = randomBytes(byte(i), size)
		if err := os.WriteFile(filepath.Join(dir, name), uploads[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	total := uint64(clients * size)

	// Small puts go on until the node is gone; they know nothing of a second try.
	known := &acks{}
	var small sync.WaitGroup
	for i := range 4 {
		conn := p.dial(t, p.write)
		small.Go(func() { known.putUntilItFails(t.Context(), conn, i) })
	}
	var large errgroup.Group
	for name := range uploads {
		c, err := grpcapi.Dial(t.Context(), way.address(), grpcapi.DialOptions{Token: p.write, TempDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		large.Go(func() error {
			_, err := c.Put(t.Context(), []store.Input{{Name: name, Path: filepath.Join(dir, name)}}, store.PutOptions{})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	way.passed(t, int64(total*3/4))
	// What the node says that it has, it has after the kill too.
	told := uint64(0)
	for node := scalev1.NewNodeServiceClient(p.dial(t, p.read)); told < total/4; {
		totals, err := node.GetTotals(t.Context(), &scalev1.GetTotalsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		told = totals.GetUnique()
	}
	way.hold()
	p.kill(t)
	small.Wait()
	if len(known.all) == 0 {
		t.Error("nothing was acknowledged before the node was killed")
	}
	p.check(t)

	p = startNode(t, s)
	conn := p.dial(t, p.write)
	known.verify(t, conn)
	for _, name := range datasetNames(t, conn) {
		want := []byte(strings.Repeat(name, 20))
		if b := uploads[name]; b != nil {
			want = b
		}
		if got, err := getBytes(t.Context(), conn, name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("after the kill %s is there with %d bytes, %v", name, len(got), err)
		}
	}
	totals, err := scalev1.NewNodeServiceClient(conn).GetTotals(t.Context(), &scalev1.GetTotalsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	before, kept := way.sent.Load(), totals.GetUnique()
	way.to(p.grpc)
	if err := large.Wait(); err != nil {
		t.Fatal(err)
	}
	for name, want := range uploads {
		if got, err := getBytes(t.Context(), conn, name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	// The small puts are so little that they do not matter here.
	sent, missing := uint64(way.sent.Load()-before), total-min(kept, total)
	t.Logf("the node told of %d bytes and kept %d of %d; %d were sent then", told, kept, total, sent)
	if kept < told {
		t.Errorf("the node lost %d bytes that it had told of", told-kept)
	}
	if most := missing + clients<<20; sent > most {
		t.Errorf("%d bytes were sent to a node that lacked %d", sent, missing)
	}
	p.sound(t)
}

// A node that is told to stop under load answers for everything that it acknowledged, ends
// what does not end by itself, and is gone within its time.
func TestNodeTerminated(t *testing.T) {
	noLeaks(t)
	s := newNodeStore(t)
	p := startNode(t, s, "--shutdown-timeout", "2s")
	conn := p.dial(t, p.write)
	large := randomBytes(0, 32<<20)
	if _, err := putBytes(t.Context(), conn, "large", large); err != nil {
		t.Fatal(err)
	}
	known := &acks{grown: make(chan int), await: 100}
	var load sync.WaitGroup
	for i := range 16 {
		conn := p.dial(t, p.write)
		load.Go(func() { known.putUntilItFails(t.Context(), conn, i) })
	}
	for i := range 4 {
		load.Go(func() { // a put that is large, and one that waits
			b := randomBytes(byte(1+i), 4<<20)
			for n := 0; ; n++ {
				r, err := putBytes(t.Context(), conn, fmt.Sprintf("large-%d-%d", i, n), b)
				if err != nil {
					return
				}
				known.add(r)
			}
		})
		load.Go(func() { // what is read is right, or the end is told
			for {
				got, err := getBytes(t.Context(), conn, "large")
				if err != nil {
					if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled {
						t.Errorf("a get ended with %v", err)
					}
					return
				}
				if !bytes.Equal(got, large) {
					t.Error("a get gave other bytes")
				}
			}
		})
	}
	// Whoever follows the log, or holds a put open, has no end of his own.
	follow, err := scalev1.NewLedgerServiceClient(conn).StreamEntries(t.Context(), &scalev1.StreamEntriesRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	load.Go(func() {
		var err error
		for err == nil {
			_, err = follow.Recv()
		}
		wantStatus(t, "who follows the log", err, codes.Unavailable, "CLOSING")
	})
	held, err := scalev1.NewDatasetServiceClient(conn).Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Send(putHeader("held", scalev1.Kind_KIND_FILE)); err != nil {
		t.Fatal(err)
	}
	load.Go(func() {
		wantStatus(t, "a put held open", held.RecvMsg(new(scalev1.PutResponse)), codes.Unavailable, "CLOSING")
	})
	select {
	case <-known.grown:
	case <-time.After(patient):
		t.Fatal("no load")
	}
	p.stop(t)
	load.Wait()
	if strings.Contains(p.log.tail(1<<20), "panic") {
		t.Error("something panicked")
	}
	p.check(t)

	p = startNode(t, s)
	conn = p.dial(t, p.write)
	known.verify(t, conn)
	if slices.Contains(datasetNames(t, conn), "held") {
		t.Error("a put that never ended is there")
	}
	p.sound(t)
}

// A second signal, and a node that is told to stop while nothing happens.
func TestNodeSignals(t *testing.T) {
	noLeaks(t)
	s := newNodeStore(t)
	for _, signals := range [][]syscall.Signal{{syscall.SIGTERM}, {syscall.SIGINT}, {syscall.SIGHUP, syscall.SIGTERM}} {
		p := startNode(t, s)
		p.alive(t)
		for _, sig := range signals {
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		p.ended(t)
	}
	p := startNode(t, s, "--shutdown-timeout", "1h")
	held, err := scalev1.NewDatasetServiceClient(p.dial(t, p.write)).Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Send(putHeader("held", scalev1.Kind_KIND_FILE)); err != nil {
		t.Fatal(err)
	}
	p.underWay(t, 1)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, ok := p.log.wait(func(line string) bool { return strings.Contains(line, "stopping") }); !ok {
		t.Fatal("the node does not say that it stops")
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(patient):
		t.Error("a second signal does not end the node")
	}
	p.check(t)
}
