package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// smallBytes is the size of a proof of real traffic, signature and key included.
const smallBytes = 326

// smallClients is how many put at a time.
const smallClients = 64

// A smallResult is of many small puts at a time.
type smallResult struct {
	Clients int     `json:"clients"`
	Bytes   int     `json:"bytes_each"`
	Puts    int     `json:"puts"`
	Rate    float64 `json:"puts_per_second"`
	CPU     float64 `json:"node_cpu_seconds"`
	Client  float64 `json:"clients_cpu_seconds"`
	Took    latency `json:"latency"`
	Peak    int64   `json:"node_peak_bytes"`
}

// small has clients put a dataset of 326 bytes each, one after the other, every client on a
// connection of its own. Then it kills the node and looks for all of them.
func (b *nodeBench) small(ctx context.Context, r *nodeReport) error {
	length := 4 * time.Second
	if b.full {
		length = 10 * time.Second
	}
	return b.withNode(ctx, "small", func(n *nodeProcess) error {
		var mu sync.Mutex
		var took []time.Duration
		put := func(ctx context.Context, conn grpc.ClientConnInterface, name string, data []byte) error {
			start := time.Now()
			err := putSmall(n.as(ctx), conn, name, data)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(start))
			return err
		}
		data := func(who, i int) (string, []byte) {
			b := make([]byte, smallBytes)
			chacha(uint64(who)).Read(b) // never fails
			name := fmt.Sprintf("small-%d-%d", who, i)
			copy(b, name)
			return name, b
		}
		var counts [smallClients]int
		errs := make(chan error, smallClients)
		begin := make(chan struct{})
		var end time.Time
		for who := range smallClients {
			conn, err := n.dial()
			if err != nil {
				return err
			}
			if _, err := scalev1.NewNodeServiceClient(conn).GetInfo(ctx, &scalev1.GetInfoRequest{}); err != nil {
				return err
			}
			go func() {
				<-begin
				for time.Now().Before(end) {
					name, data := data(who, counts[who])
					if err := put(ctx, conn, name, data); err != nil {
						errs <- fmt.Errorf("%s: %w", name, err)
						return
					}
					counts[who]++
				}
				errs <- nil
			}()
		}
		before, err := n.cpu()
		if err != nil {
			return err
		}
		clients, err := own(func() (err error) {
			end = time.Now().Add(length)
			close(begin)
			for range smallClients {
				err = errors.Join(err, <-errs)
			}
			return err
		})
		if err != nil {
			return err
		}
		after, err := n.cpu()
		if err != nil {
			return err
		}
		peak, err := n.peak()
		if err != nil {
			return err
		}
		r.Small = &smallResult{
			smallClients, smallBytes, len(took), float64(len(took)) / clients.Wall, after - before, clients.CPU, latencyOf(took), peak,
		}

		if err := n.kill(); err != nil {
			return err
		}
		if err := n.start(ctx); err != nil {
			return err
		}
		conn, err := n.dial()
		if err != nil {
			return err
		}
		for who := range smallClients {
			for i := range counts[who] {
				name, data := data(who, i)
				var got bytes.Buffer
				if err := streamGet(ctx, conn, name, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
					return fmt.Errorf("after a kill %s reads as %d bytes, %w", name, got.Len(), err)
				}
			}
		}
		return n.check(ctx)
	})
}

// putSmall puts a dataset in one piece.
func putSmall(ctx context.Context, conn grpc.ClientConnInterface, name string, data []byte) error {
	s, err := scalev1.NewDatasetServiceClient(conn).Put(ctx)
	if err != nil {
		return err
	}
	for _, m := range []*scalev1.PutRequest{
		{Part: &scalev1.PutRequest_Header{Header: &scalev1.PutHeader{Name: name, Kind: scalev1.Kind_KIND_FILE}}},
		{Part: &scalev1.PutRequest_Data{Data: data}},
	} {
		if err := s.Send(m); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	_, err = s.CloseAndRecv()
	return err
}

const (
	idleConns   = 1000
	loadWorkers = 64
	// Of the workers one in so many moves largeLoad at a time, the others smallLoad.
	largeEvery = 4
	largeLoad  = 16 << 20
	smallLoad  = 20_000
)

// A loadResult is of a node with many clients at a time.
type loadResult struct {
	Idle     int     `json:"idle_connections"`
	Puts     int64   `json:"puts"`
	Gets     int64   `json:"gets"`
	Bytes    int64   `json:"bytes"` // both ways
	Seconds  float64 `json:"wall_seconds"`
	Failures int64   `json:"failures"`
	Stat     latency `json:"stat_latency"`
	Peak     int64   `json:"node_peak_bytes"`
}

// load has 64 clients put and get, half of them each, beside a thousand that only keep their
// connections, and asks for a stat now and then.
func (b *nodeBench) load(ctx context.Context, r *nodeReport) error {
	length := 5 * time.Second
	if b.full {
		length = 20 * time.Second
	}
	return b.withNode(ctx, "load", func(n *nodeProcess) error {
		dial := func() (*grpc.ClientConn, error) {
			conn, err := n.dial()
			if err == nil {
				_, err = scalev1.NewNodeServiceClient(conn).GetInfo(ctx, &scalev1.GetInfoRequest{})
			}
			return conn, err
		}
		first, err := dial()
		if err != nil {
			return err
		}
		text, err := b.someText(largeLoad)
		if err != nil {
			return err
		}
		given := map[string][]byte{"large": text, "small": text[:smallLoad]}
		for name, data := range given {
			if err := putBytes(n.as(ctx), first, name, data); err != nil {
				return err
			}
		}
		for range idleConns {
			if _, err := dial(); err != nil {
				return err
			}
		}
		busy := make([]*grpc.ClientConn, loadWorkers)
		for i := range busy {
			if busy[i], err = dial(); err != nil {
				return err
			}
		}
		res := &loadResult{Idle: idleConns}
		var puts, gets, moved, failures atomic.Int64
		var failed atomic.Pointer[error]
		start := time.Now()
		end := start.Add(length)
		var running sync.WaitGroup
		work := func(conn *grpc.ClientConn, do func(*grpc.ClientConn, int) error) {
			running.Go(func() {
				for i := 0; time.Now().Before(end); i++ {
					if err := do(conn, i); err != nil {
						failures.Add(1)
						failed.CompareAndSwap(nil, &err)
					}
				}
			})
		}
		for who, conn := range busy {
			size, ref := smallLoad, "small"
			if who/2%largeEvery == 0 {
				size, ref = largeLoad, "large"
			}
			if who%2 == 0 {
				work(conn, func(conn *grpc.ClientConn, i int) error {
					// Text with something new in each chunk.
					data := mixed(text[:size], uint64(who)<<32|uint64(i))
					puts.Add(1)
					moved.Add(int64(size))
					return putBytes(n.as(ctx), conn, fmt.Sprintf("load-%d", who), data)
				})
				continue
			}
			work(conn, func(conn *grpc.ClientConn, _ int) error {
				var got bytes.Buffer
				gets.Add(1)
				moved.Add(int64(size))
				if err := streamGet(ctx, conn, ref, &got); err != nil {
					return err
				}
				if !bytes.Equal(got.Bytes(), given[ref]) {
					return errors.New("a get gave other bytes")
				}
				return nil
			})
		}
		var took []time.Duration
		for time.Now().Before(end) {
			at := time.Now()
			if _, err := scalev1.NewDatasetServiceClient(first).Stat(ctx, &scalev1.StatRequest{Ref: "small"}); err != nil {
				return fmt.Errorf("stat: %w", err)
			}
			took = append(took, time.Since(at))
		}
		running.Wait()
		res.Seconds = time.Since(start).Seconds()
		res.Puts, res.Gets, res.Bytes, res.Failures = puts.Load(), gets.Load(), moved.Load(), failures.Load()
		res.Stat = latencyOf(took)
		if res.Peak, err = n.peak(); err != nil {
			return err
		}
		r.Load = res
		if err := failed.Load(); err != nil {
			fmt.Fprintf(b.progress, "node, load: the first of %d failures: %v\n", res.Failures, *err)
		}
		return n.check(ctx)
	})
}

// someText returns the beginning of the source workload.
func (b *nodeBench) someText(n int64) ([]byte, error) {
	var buf bytes.Buffer
	err := readRange(b.workloads["source"].path, 0, n, &buf)
	return buf.Bytes(), err
}

// mixed returns text with 8 bytes of noise in every KiB.
func mixed(text []byte, seed uint64) []byte {
	b := bytes.Clone(text)
	noise := rand.New(rand.NewPCG(seed, 0))
	for at := 0; at+8 <= len(b); at += 1 << 10 {
		for i, x := 0, noise.Uint64(); i < 8; i, x = i+1, x>>8 {
			b[at+i] = byte(x)
		}
	}
	return b
}

// putBytes streams a dataset from memory.
func putBytes(ctx context.Context, conn grpc.ClientConnInterface, name string, data []byte) error {
	s, err := scalev1.NewDatasetServiceClient(conn).Put(ctx)
	if err != nil {
		return err
	}
	err = s.Send(&scalev1.PutRequest{Part: &scalev1.PutRequest_Header{Header: &scalev1.PutHeader{Name: name, Kind: scalev1.Kind_KIND_FILE}}})
	for len(data) > 0 && err == nil {
		n := min(len(data), pieceBytes)
		err = s.Send(&scalev1.PutRequest{Part: &scalev1.PutRequest_Data{Data: data[:n]}})
		data = data[n:]
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = s.CloseAndRecv()
	return err
}
