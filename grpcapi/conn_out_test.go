package grpcapi

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/mem"
)

// While the other end does not take what is written, little more is read from it; it goes on
// when it does. Of a stranger less is read, and at once.
func TestReadWhileStuck(t *testing.T) {
	for stranger, most := range map[bool]int{true: strangerRead, false: stuckRead} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			var open connSet
			c := newLimitedConn(here)
			c.stranger.Store(stranger)
			c.open = &open
			open.add(c)
			go c.Write([]byte("refused"))
			go there.Write(make([]byte, 3*stuckRead))
			total, ended := 0, false
			go func() {
				buf := make([]byte, 4*stuckRead)
				for total < 3*stuckRead {
					n, err := c.Read(buf)
					if total += n; err != nil || stranger && n > strangerRead {
						t.Errorf("%d bytes at once, %v", n, err)
						break
					}
				}
				ended = true
			}()
			synctest.Wait()
			if limit := 3 * stuckRead; stranger && total != most || !stranger && (total < most || total > limit) {
				t.Errorf("stranger %t: %d bytes are read behind a write that stands still, want %d", stranger, total, most)
			}
			if got := open.stuck(time.Now(), 0, 0); len(got) != 0 {
				t.Errorf("%d connections have been stuck for no time", len(got))
			}
			time.Sleep(2 * time.Second)
			if got := open.stuck(time.Now(), time.Minute, time.Second); (len(got) == 1) != stranger {
				t.Errorf("stranger %t: %d connections are stuck", stranger, len(got))
			}
			if got := open.stuck(time.Now(), time.Second, time.Second); len(got) != 1 {
				t.Errorf("%d connections are stuck", len(got))
			}
			buf := make([]byte, 100)
			if _, err := there.Read(buf); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if !ended {
				t.Errorf("stranger %t: %d bytes are read when the write has ended", stranger, total)
			}
			if got := open.stuck(time.Now(), 0, 0); len(got) != 0 {
				t.Errorf("%d connections are stuck when the write has ended", len(got))
			}
			c.Close()
			there.Close()
			if len(open.all) != 0 {
				t.Error("a connection that is closed counts as open")
			}
		})
	}
}

// Little is read at once of a connection that comes, until it is known who is there.
func TestReadOfStranger(t *testing.T) {
	p := newLimitedPort(t, 8)
	theirs := dialFrom(t, "127.0.0.1", p.addr)
	c := <-p.accepted
	defer c.Close()
	pool := newReceivePool(1 << 20)
	const size = 4 * strangerRead
	take := func() int {
		t.Helper()
		buf, n, err := c.ReadOnReady(serveBuffer, pool)
		if err != nil {
			t.Fatal(err)
		}
		pool.Put(buf)
		return n
	}
	send := func() {
		t.Helper()
		if _, err := theirs.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		until(t, "all of it is there", func() (all bool) {
			if err := c.raw.Control(func(fd uintptr) {
				n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
				all = err == nil && n == size
			}); err != nil {
				t.Fatal(err)
			}
			return all
		})
	}
	send()
	for total := 0; total < size; {
		n := take()
		if total += n; n > strangerRead {
			t.Errorf("%d bytes of a stranger are read at once", n)
		}
	}
	c.known(Identity{Name: "caller", Scope: read})
	send()
	if n := take(); n != size {
		t.Errorf("%d bytes of one who is known are read at once, of %d", n, size)
	}
}

// When there is no room a stranger who takes nothing is hung up on soon.
func TestStuckStranger(t *testing.T) {
	n := newRawNode(t, limited(Limits{HandshakeTime: time.Hour, IdleTime: time.Hour}))
	dialFrom(t, "127.0.0.1", n.addr)
	var c *limitedConn
	n.until("the connection is there", func() bool {
		n.srv.conns.mu.Lock()
		defer n.srv.conns.mu.Unlock()
		for c = range n.srv.conns.all {
		}
		return c != nil
	})
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 64<<20)) // more than the kernel takes
		written <- err
	}()
	full := n.srv.pool.limit + 1
	n.srv.pool.out.Add(full)
	defer n.srv.pool.out.Add(-full)
	n.until("it is closed", func() bool { return len(written) > 0 })
	if err := <-written; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A countedPool counts the buffers that are taken.
type countedPool struct {
	mem.BufferPool
	taken int
}

func (p *countedPool) Get(n int) *[]byte {
	p.taken++
	return p.BufferPool.Get(n)
}

// A connection of the private socket takes a buffer only when there is something to read, and
// what is read counts.
func TestIdleOwner(t *testing.T) {
	dir := t.TempDir()
	private, err := ListenPrivate(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := limitListener(private, 8, nil, slog.New(slog.DiscardHandler))
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		if c, err := l.Accept(); err != nil {
			t.Error(err)
		} else {
			accepted <- c
		}
	}()
	theirs, err := DialPrivate(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	c := (<-accepted).(*limitedConn)
	defer c.Close()
	pool := &countedPool{BufferPool: newReceivePool(1 << 20)}
	c.SetReadDeadline(time.Unix(1, 0)) // what it would wait for does not come
	if _, _, err := c.ReadOnReady(serveBuffer, pool); !errors.Is(err, os.ErrDeadlineExceeded) || pool.taken != 0 {
		t.Errorf("%v, %d buffers while there is nothing to read", err, pool.taken)
	}
	c.SetReadDeadline(time.Time{})
	if _, err := theirs.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf, n, err := c.ReadOnReady(serveBuffer, pool)
	if err != nil || string((*buf)[:n]) != "hello" || pool.taken != 1 || c.queue.read != n {
		t.Errorf("%d bytes, %v, %d buffers, %d bytes counted", n, err, pool.taken, c.queue.read)
	}
}
