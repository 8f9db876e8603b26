package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A relay is an address behind which nodes come and go. While there is none, callers wait.
// It counts the bytes that they send.
type relay struct {
	listener net.Listener
	sent     atomic.Int64

	mu      sync.Mutex
	target  string        // "" for none; guarded by mu, as is all below
	changed chan struct{} // closed when target changes
	mark    int64
	marked  chan struct{} // closed when that much was sent
	conns   map[net.Conn]bool
	closed  bool
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, changed: make(chan struct{}), conns: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			running.Go(func() { r.pass(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		r.closed = true
		for c := range r.conns {
			c.Close()
		}
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
		running.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

// to has callers connected to a node; hold has them wait for one.
func (r *relay) to(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *relay) hold() { r.to("") }

// track remembers a connection, so that it can be closed, and reports whether it may be used.
func (r *relay) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = true
	return !r.closed
}

func (r *relay) forget(c net.Conn) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// node waits until there is one.
func (r *relay) node() (string, bool) {
	for {
		r.mu.Lock()
		target, changed, closed := r.target, r.changed, r.closed
		r.mu.Unlock()
		if target != "" || closed {
			return target, !closed
		}
		<-changed
	}
}

func (r *relay) pass(client net.Conn) {
	defer r.forget(client)
	if !r.track(client) {
		return
	}
	target, ok := r.node()
	if !ok {
		return
	}
	node, err := net.Dial("tcp", target)
	if err != nil {
		return // gone again
	}
	defer r.forget(node)
	if !r.track(node) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(client, node) // ends when either is closed
		client.Close()
	})
	io.Copy(node, io.TeeReader(client, r))
	node.Close()
	back.Wait()
}

// Write counts what a client has sent.
func (r *relay) Write(p []byte) (int, error) {
	sent := r.sent.Add(int64(len(p)))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marked != nil && sent >= r.mark {
		close(r.marked)
		r.marked = nil
	}
	return len(p), nil
}

// passed waits until that many bytes were sent.
func (r *relay) passed(t *testing.T, n int64) {
	t.Helper()
	marked := make(chan struct{})
	r.mu.Lock()
	if r.sent.Load() >= n {
		r.mu.Unlock()
		return
	}
	r.mark, r.marked = n, marked
	r.mu.Unlock()
	select {
	case <-marked:
	case <-time.After(patient):
		t.Fatalf("only %d bytes were sent", r.sent.Load())
	}
}
