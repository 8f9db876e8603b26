package grpcapi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// A limitedPort accepts connections, and hands them to the test.
type limitedPort struct {
	t        *testing.T
	addr     string
	accepted chan *limitedConn
	open     connSet
}

func newLimitedPort(t *testing.T, most int) *limitedPort {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &limitedPort{t: t, addr: tcp.Addr().String(), accepted: make(chan *limitedConn)}
	l := limitListener(tcp, most, &p.open, slog.New(slog.DiscardHandler))
	go func() {
		defer close(p.accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted <- c.(*limitedConn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		for c := range p.accepted {
			c.Close()
		}
	})
	return p
}

// dialFrom connects to addr from an address of loopback.
func dialFrom(t *testing.T, from, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// let returns the node's end of a connection that is let in, and a channel that is closed
// when the caller sees it closed.
func (p *limitedPort) let(from string) (*limitedConn, <-chan struct{}) {
	p.t.Helper()
	ours, theirs := p.try(from)
	if ours == nil {
		p.t.Fatalf("%s was not let in", from)
	}
	return ours, theirs
}

func (p *limitedPort) refuse(from string) {
	p.t.Helper()
	if c, _ := p.try(from); c != nil {
		p.t.Fatalf("%s was let in", from)
	}
}

func (p *limitedPort) try(from string) (*limitedConn, <-chan struct{}) {
	p.t.Helper()
	c := dialFrom(p.t, from, p.addr)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c.Read(make([]byte, 1))
	}()
	select {
	case c := <-p.accepted:
		p.t.Cleanup(func() { c.Close() })
		return c, closed
	case <-closed:
		return nil, nil
	}
}

func open(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

// One address, and one caller from wherever, leaves an eighth for others, and nobody who is
// known or has a call under way has to go.
func TestConnectionsOfOneAddress(t *testing.T) {
	p := newLimitedPort(t, 8)
	var first *limitedConn
	var kept []<-chan struct{}
	for i := range 7 {
		c, closed := p.let("127.0.0.1")
		if kept = append(kept, closed); i == 0 {
			first = c
		}
		if i < 3 {
			defer c.enter()()
		} else {
			c.known(Identity{Name: fmt.Sprint("caller ", i), Scope: read})
		}
	}
	p.refuse("127.0.0.1")
	c, closed := p.let("127.0.0.2")
	c.known(Identity{Name: "other", Scope: read})
	p.refuse("127.0.0.3") // as many as there may be
	for i, closed := range append(kept, closed) {
		if !open(closed) {
			t.Errorf("connection %d had to go", i)
		}
	}
	first.Close()
	p.let("127.0.0.1")
}

// Connections of those who have shown nothing make room for those who come: those of the
// network that has most of them, the oldest first.
func TestConnectionsOfManyAddresses(t *testing.T) {
	p := newLimitedPort(t, 8)
	mine, stays := p.let("127.0.0.1")
	mine.known(Identity{Name: "token mine", Scope: read})
	mine.enter()() // a call, and it is idle again
	var of2 []<-chan struct{}
	for range 4 {
		_, closed := p.let("127.0.0.2")
		of2 = append(of2, closed)
	}
	_, of3 := p.let("127.0.0.3")
	busy, of4 := p.let("127.0.0.4")
	leave := busy.enter()
	_, of5 := p.let("127.0.0.5")
	// As many as there may be. The oldest of those with most goes for each that comes.
	for i := range 3 {
		p.let(fmt.Sprint("127.0.1.", i))
		<-of2[i]
	}
	// Now each has one, and the oldest goes.
	p.let("127.0.1.3")
	<-of2[3]
	p.let("127.0.1.4")
	<-of3
	p.let("127.0.1.5")
	<-of5
	leave() // from now on, the last one
	for i := range 6 {
		p.let(fmt.Sprint("127.0.2.", i))
		if !open(of4) {
			t.Fatalf("the one that ended its call last went before %d others", 6-i)
		}
	}
	p.let("127.0.2.6")
	<-of4
	if !open(stays) {
		t.Error("the connection of one who is known has been closed")
	}
}

// Who is known keeps no more places than one caller may have, and none when his token is void.
func TestConnectionsOfOneCaller(t *testing.T) {
	p := newLimitedPort(t, 8)
	void, revoke := context.WithCancel(t.Context())
	id := Identity{Name: "token", Scope: admin, Void: void}
	var all []<-chan struct{}
	for i := range 8 {
		c, closed := p.let(fmt.Sprint("127.0.0.", i+1))
		c.known(id)
		c.known(id)
		all = append(all, closed)
	}
	// The last one has no place of its own.
	c, closed := p.let("127.0.1.1")
	<-all[7]
	c.known(Identity{Name: "anonymous", Scope: read, Anonymous: true})
	c.known(Identity{Name: "nobody"})
	other, stays := p.let("127.0.1.2")
	<-closed
	other.known(Identity{Name: "other", Scope: read})
	p.refuse("127.0.1.3")
	for i, closed := range all[:7] {
		if !open(closed) {
			t.Errorf("connection %d had to go", i)
		}
	}
	revoke()
	until(t, "one that is known no more makes room", func() bool { c, _ := p.try("127.0.1.4"); return c != nil })
	if !open(stays) {
		t.Error("the connection of another caller was closed")
	}
}

// A flood of connections from many addresses keeps nobody out who is known.
func TestFloodOfConnections(t *testing.T) {
	const most = 16
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Limits.Connections = most
		n.opt.Authenticate = func(ctx context.Context) (Identity, error) {
			if id, err := knownByName(ctx); err == nil {
				return id, nil
			}
			return Identity{Name: "anonymous", Scope: read, Anonymous: true}, nil
		}
	})
	named := metadata.AppendToOutgoingContext(n.ctx, "name", "mine")
	follow, err := n.ledger.StreamEntries(named, &scalev1.StreamEntriesRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow.Recv(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * most {
		dialFrom(t, fmt.Sprint("127.0.1.", i+1), n.addr)
		dialFrom(t, "127.0.0.1", n.addr) // as the caller who is known
		if i%most == 0 {
			if _, err := n.dial().node.GetInfo(named, &scalev1.GetInfoRequest{}); err != nil {
				t.Errorf("a caller who comes after %d others: %v", i, err)
			}
		}
	}
	if _, err := n.store.Put(n.ctx, []store.Input{{Name: "x", Reader: strings.NewReader("x")}}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := follow.Recv(); err != nil {
		t.Errorf("the connection of one who is known: %v", err)
	}
}
