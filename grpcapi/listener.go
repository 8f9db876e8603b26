package grpcapi

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/mem"
)

// serveBuffer is how much goes to or comes from the kernel at once. Connections without
// TLS that wait hold no buffer.
const serveBuffer = 64 << 10

// limitListener closes connections beyond a number at once, or others in their place: see
// connTable. They would otherwise wait unseen, and whoever opened them as well.
//
// Those that are open are in open, if it is not nil.
func limitListener(l net.Listener, most int, open *connSet, log *slog.Logger) net.Listener {
	return &limitedListener{Listener: l, table: newConnTable(most), open: open, log: log}
}

type limitedListener struct {
	net.Listener
	table *connTable
	open  *connSet
	log   *slog.Logger
	said  time.Time // of the accepting goroutine
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := networkOf(conn)
		ok, instead := l.table.take(from)
		for !ok && instead != nil {
			l.say("connections are closed for others: there are as many as there may be", from)
			instead.Close()
			ok, instead = l.table.take(from)
		}
		if ok {
			c := newLimitedConn(conn)
			if from != "" && l.open != nil { // not the owner's
				c.open = l.open
				c.open.add(c)
				c.stranger.Store(true)
			}
			c.settle(l.table, from)
			return c, nil
		}
		conn.Close()
		l.say("connections are refused: there are as many as there may be", from)
	}
}

// say logs what is done with a connection, now and then.
func (l *limitedListener) say(what, from string) {
	if now := time.Now(); now.Sub(l.said) > time.Minute {
		l.said = now
		l.log.Warn(what, "listener", l.Addr().String(), "from", from, "connections", l.table.most)
	}
}

// A limitedConn is a connection that counts until it is closed.
type limitedConn struct {
	net.Conn
	place connPlace
	queue outQueue
	wrote atomic.Int64
	open  *connSet
	// stranger: nobody has shown yet who is at the other end.
	stranger atomic.Bool
	raw      syscall.RawConn // nil if it has none

	// Of the one goroutine that reads: kept here so that nothing is allocated for a read.
	ready func(fd uintptr) bool
	size  int
	once  int
	pool  mem.BufferPool
	buf   *[]byte
	n     int
	err   error
}

func newLimitedConn(conn net.Conn) *limitedConn {
	c := &limitedConn{Conn: conn}
	// Only of sockets: what else has a descriptor may not have its bytes there.
	switch conn := conn.(type) {
	case *net.TCPConn:
		c.raw, _ = conn.SyscallConn()
	case *privateConn:
		c.raw, _ = conn.SyscallConn()
	}
	c.ready = c.readReady
	c.queue.free.L = &c.queue.mu
	return c
}

// NetConn returns the connection beneath.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.queue.close()
	c.leavePlace()
	if c.open != nil {
		c.open.remove(c)
	}
	return err
}

// CloseWrite is what the HTTP server looks for in a connection: so that a caller who is
// refused reads why before he learns that nobody reads what he sends.
func (c *limitedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read implements net.Conn. It waits while the other end does not take what was written.
func (c *limitedConn) Read(p []byte) (int, error) {
	once, stuck := c.atOnce()
	c.queue.wait(stuck)
	n, err := c.Conn.Read(p[:min(len(p), once)])
	c.queue.took(n)
	return n, err
}

// ReadOnReady is what the transport looks for in a connection: it waits until there is
// something to read and takes a buffer only then. So a connection that waits holds none.
func (c *limitedConn) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	once, stuck := c.atOnce()
	c.queue.wait(stuck)
	c.once = min(size, once)
	if c.raw == nil { // this process, which takes what is written: it is not counted
		buf := pool.Get(size)
		n, err := c.Conn.Read((*buf)[:c.once])
		if n == 0 && err != nil {
			pool.Put(buf)
			return nil, 0, err
		}
		return buf, n, err
	}
	c.size, c.pool = size, pool
	err := c.raw.Read(c.ready)
	buf, n := c.buf, c.n
	c.queue.took(max(n, 0))
	if err == nil {
		err = c.err
	}
	c.pool, c.buf, c.n, c.err = nil, nil, 0, nil
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		if buf != nil {
			pool.Put(buf)
		}
		return nil, 0, err
	}
	return buf, n, nil
}

func (c *limitedConn) readReady(fd uintptr) bool {
	c.buf = c.pool.Get(c.size)
	// Package syscall, as package net itself: the race detector tells the two apart.
	c.n, c.err = syscall.Read(int(fd), (*c.buf)[:c.once])
	for c.err == syscall.EINTR {
		c.n, c.err = syscall.Read(int(fd), (*c.buf)[:c.once])
	}
	if c.err == nil {
		return true
	}
	c.pool.Put(c.buf)
	c.buf, c.n = nil, 0
	return c.err != syscall.EAGAIN
}
