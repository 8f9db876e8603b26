package grpcapi

import (
	"cmp"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A connAddr is the address of the other end of a connection, and leads to it.
type connAddr struct {
	net.Addr
	conn *limitedConn
}

// RemoteAddr returns the address of the other end.
func (c *limitedConn) RemoteAddr() net.Addr { return connAddr{c.Conn.RemoteAddr(), c} }

// connOf returns the connection of an address that came from one, or nil.
func connOf(a net.Addr) *limitedConn {
	c, _ := a.(connAddr)
	return c.conn
}

// stuckBytes is how much may be behind a write that the other end does not take before no
// more is read from it.
const stuckBytes = 16 << 10

// stuckRead is how much more is read from a connection while the other end does not take
// what is written. Refusals that the transport makes by itself stand behind that write, and
// each may have a thousand times as many bytes as what it answers.
const stuckRead = 16 << 10

// strangerRead is how much of that it is, and how much is read at once, where nobody has
// shown who he is.
const strangerRead = 1 << 10

// An outQueue knows what stands behind a write of a connection: the statuses of calls that
// have ended.
type outQueue struct {
	mu      sync.Mutex
	free    sync.Cond // of mu; the write has ended
	writing bool      // guarded by mu, as is all below
	began   time.Time // when it did
	read    int       // since then
	behind  int
	budget  *answerBudget // that was told of them
	closed  bool
}

func (q *outQueue) begin() {
	q.mu.Lock()
	q.writing, q.began, q.read = true, time.Now(), 0
	q.mu.Unlock()
}

// stuck returns for how long the other end has not taken all of a write.
func (q *outQueue) stuck(now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.writing {
		return 0
	}
	return now.Sub(q.began)
}

// took says that n bytes were read.
func (q *outQueue) took(n int) {
	q.mu.Lock()
	q.read += n
	q.mu.Unlock()
}

// end returns how much was behind the write, and who is to be told that it no longer is.
func (q *outQueue) end() (*answerBudget, int) {
	q.mu.Lock()
	b, n := q.budget, q.behind
	q.writing, q.behind = false, 0
	q.mu.Unlock()
	q.free.Broadcast()
	return b, n
}

func (q *outQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.free.Broadcast()
}

// owe says that n bytes are to be written that no account counts. Behind no write they are
// written at once.
func (c *limitedConn) owe(b *answerBudget, n int) {
	q := &c.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.writing {
		q.behind += n
		q.budget = b
		b.owed(c, n)
	}
}

// wait returns when there is room for what follows from reading more than so many bytes.
func (q *outQueue) wait(most int) {
	q.mu.Lock()
	for q.writing && (q.behind > stuckBytes || q.read >= most) && !q.closed {
		q.free.Wait()
	}
	q.mu.Unlock()
}

// Write implements net.Conn.
func (c *limitedConn) Write(p []byte) (int, error) {
	c.queue.begin()
	n, err := c.Conn.Write(p)
	c.wrote.Add(int64(n))
	if b, n := c.queue.end(); n > 0 {
		b.owed(c, -n)
	}
	return n, err
}

// taken returns how many bytes the other end has taken.
func (c *limitedConn) taken() int64 {
	n := c.wrote.Load()
	if _, ok := c.Conn.(*net.TCPConn); !ok || c.raw == nil {
		return n
	}
	// What is written waits in the kernel, which may have room for much.
	_ = c.raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int64(info.Bytes_acked)
		}
	})
	return n
}

// atOnce returns how much may be read at once, and while the other end takes nothing.
func (c *limitedConn) atOnce() (once, stuck int) {
	if c.stranger.Load() {
		return strangerRead, strangerRead
	}
	return math.MaxInt, stuckRead
}

// A connSet is connections that are open.
type connSet struct {
	mu  sync.Mutex
	all map[*limitedConn]struct{} // guarded by mu
}

func (s *connSet) add(c *limitedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*limitedConn]struct{}{}
	}
	s.all[c] = struct{}{}
}

func (s *connSet) remove(c *limitedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// stuck returns the connections whose other end has taken nothing of a write for so long;
// soon is for those over which nobody has shown who he is.
func (s *connSet) stuck(now time.Time, long, soon time.Duration) (conns []*limitedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		d := c.queue.stuck(now)
		if d > long || d > soon && c.stranger.Load() {
			conns = append(conns, c)
		}
	}
	return conns
}

// takingGrace is how long a connection may take nothing of what is held for it while others
// wait for room.
const takingGrace = 5 * time.Second

// takingSoon is how long a stranger may take nothing when there is no room.
const takingSoon = 500 * time.Millisecond

// takingTimes is how many times IdleTime he has then to take all of it.
const takingTimes = 4

// A taking is how a caller takes what is held for him.
type taking struct {
	at    time.Time
	taken int64
	slack time.Duration // as that of a call
	bytes int64         // held
}

// A takers list is of the one goroutine that watches.
type takers map[*limitedConn]*taking

// look notes what connections have taken since it was called last. What is held for one is
// to be taken within takingTimes IdleTime, and at MinRate at least.
func (t takers) look(now time.Time, b *answerBudget, l *Limits) {
	b.mu.Lock()
	for c := range t {
		if b.held[c] == 0 {
			delete(t, c)
		}
	}
	for c, n := range b.held {
		if t[c] == nil {
			t[c] = &taking{at: now, taken: c.taken(), slack: takingGrace}
		}
		t[c].bytes = n
	}
	b.mu.Unlock()
	for c, k := range t {
		rate := max(int64(l.MinRate), int64(float64(k.bytes)/(takingTimes*l.IdleTime).Seconds()))
		taken := c.taken()
		k.slack -= now.Sub(k.at)
		k.slack = min(k.slack+time.Duration(float64(taken-k.taken)/float64(rate)*float64(time.Second)), takingGrace)
		k.at, k.taken = now, taken
	}
}

// idle returns connections that do not take what is held for them, as many as hold so many
// bytes, those first that hold most.
func (t takers) idle(bytes int64) []*limitedConn {
	var all []*limitedConn
	for c, k := range t {
		if k.slack < 0 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *limitedConn) int { return cmp.Compare(t[b].bytes, t[a].bytes) })
	for i, c := range all {
		if bytes -= t[c].bytes; bytes <= 0 {
			return all[:i+1]
		}
	}
	return all
}
