package grpcapi

import (
	"container/list"
	"context"
	"net"
	"sync"
	"time"
)

// A connTable counts the connections of a port. One network has all but an eighth of them at
// most, and so has one caller. Whoever connects when there is no room takes the place of a
// connection over which nobody has shown who he is and no call is under way: of those of the
// network with most of them, that which has been so for longest. So a flood of connections,
// from however many addresses, shuts nobody out who has a token or a certificate: he has
// some time to show it, and keeps his place then.
type connTable struct {
	most int

	mu    sync.Mutex
	all   int                 // guarded by mu, as is all below
	by    map[string]*network // those of a Unix socket are of nobody
	known map[string]int      // connections of those who have shown who they are
}

// A network is what has connections; see hostOf.
type network struct {
	conns int
	idle  list.List // of *limitedConn that may have to go, the one first that came first
}

func newConnTable(most int) *connTable {
	return &connTable{most: most, by: map[string]*network{}, known: map[string]int{}}
}

// oneShare is how many connections one network, or one caller, may have.
func (t *connTable) oneShare() int { return t.most - t.most/shareForOthers }

// take counts a connection of a network. If there is no room it returns one that has to be
// closed first, or nil if there is none.
func (t *connTable) take(from string) (ok bool, instead *limitedConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.by[from]
	switch {
	case from != "" && n != nil && n.conns >= t.oneShare():
		return false, n.first()
	case t.all >= t.most:
		var most *network
		for _, n := range t.by {
			if n.idle.Len() > 0 && (most == nil || n.before(most)) {
				most = n
			}
		}
		if most == nil || from == "" {
			return false, nil
		}
		return false, most.first()
	}
	if n == nil {
		n = &network{}
		t.by[from] = n
	}
	t.all++
	n.conns++
	return true, nil
}

// before reports whether n gives a connection up sooner than o.
func (n *network) before(o *network) bool {
	if a, b := n.idle.Len(), o.idle.Len(); a != b {
		return a > b
	}
	return n.idle.Front().Value.(*limitedConn).place.since.Before(o.idle.Front().Value.(*limitedConn).place.since)
}

func (n *network) first() *limitedConn {
	e := n.idle.Front()
	if e == nil {
		return nil
	}
	c := e.Value.(*limitedConn)
	n.idle.Remove(e)
	c.place.spot = nil
	return c
}

// A connPlace is what a connection has in its table. It is guarded by the table's mu.
type connPlace struct {
	t      *connTable // nil for a connection that does not count
	from   string
	spot   *list.Element // in the network's idle
	since  time.Time
	calls  int
	who    string // who has shown who he is
	forget func() bool
	left   bool
}

// settle says where it may be found.
func (c *limitedConn) settle(t *connTable, from string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.place = connPlace{t: t, from: from}
	c.rest()
}

// rest has a connection give its place up if need be, now that nothing is under way.
func (c *limitedConn) rest() {
	p := &c.place
	if p.from != "" && p.who == "" && p.calls == 0 && p.spot == nil && !p.left {
		p.since = time.Now()
		p.spot = p.t.by[p.from].idle.PushBack(c)
	}
}

func (c *limitedConn) stay() {
	if p := &c.place; p.spot != nil {
		p.t.by[p.from].idle.Remove(p.spot)
		p.spot = nil
	}
}

// enter says that a call has begun, which leave ends. It may be called of no connection.
func (c *limitedConn) enter() (leave func()) {
	if c == nil || c.place.t == nil {
		return func() {}
	}
	p := &c.place
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.calls++
	c.stay()
	return func() {
		p.t.mu.Lock()
		defer p.t.mu.Unlock()
		p.calls--
		c.rest()
	}
}

// known says who is at the other end, as long as that holds. Of several who come over one
// connection the first counts.
func (c *limitedConn) known(id Identity) {
	if c == nil || c.place.t == nil || id.Anonymous || id.Scope == none {
		return
	}
	c.stranger.Store(false)
	p := &c.place
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	if p.who != "" || p.left || id.Name == "" || p.t.known[id.Name] >= p.t.oneShare() {
		return
	}
	p.who = id.Name
	p.t.known[p.who]++
	c.stay()
	if id.Void != nil {
		p.forget = context.AfterFunc(id.Void, c.forget)
	}
}

// forget takes back what known said. It may be called of no connection.
func (c *limitedConn) forget() {
	if c == nil || c.place.t == nil {
		return
	}
	p := &c.place
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	c.unknown()
	c.rest()
}

func (c *limitedConn) unknown() {
	p := &c.place
	if p.who == "" {
		return
	}
	if p.t.known[p.who]--; p.t.known[p.who] == 0 {
		delete(p.t.known, p.who)
	}
	p.who = ""
}

// leavePlace gives the place back.
func (c *limitedConn) leavePlace() {
	p := &c.place
	if p.t == nil {
		return
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	if p.left {
		return
	}
	if p.forget != nil {
		p.forget()
	}
	c.stay()
	c.unknown()
	p.left = true
	p.t.all--
	n := p.t.by[p.from]
	if n.conns--; n.conns == 0 {
		delete(p.t.by, p.from)
	}
}

// networkOf returns the network of a connection's other end.
func networkOf(conn net.Conn) string {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return hostOf(a.String())
	}
	return ""
}
