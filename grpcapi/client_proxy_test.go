package grpcapi

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// A grpcProxy stands between a client and a node, and can change, leave out or add
// messages of the node: it makes of a sound node a hostile one.
type grpcProxy struct {
	addr string

	mu sync.Mutex
	// tamper is given each message of the node with its number in the call, and returns
	// what the client gets instead. An error ends the call with it; io.EOF in good order.
	tamper func(method string, n int, b []byte) ([][]byte, error)
	// request, if set, may change what the client sends.
	request func(method string, b []byte) []byte
	// refuse, if set, may end a call before the node hears of it.
	refuse func(method string) error
	// end is asked when the node has ended the call, whether more is to come.
	end func(method string, n int) [][]byte
}

// startGRPCProxy returns a proxy in front of the node at an address.
func startGRPCProxy(t *testing.T, node string) *grpcProxy {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+node, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &grpcProxy{addr: l.Addr().String()}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(64<<20),
		grpc.UnknownServiceHandler(func(_ any, down grpc.ServerStream) error { return p.forward(conn, down) }))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
		conn.Close()
	})
	return p
}

func (p *grpcProxy) set(tamper func(method string, n int, b []byte) ([][]byte, error), end func(method string, n int) [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tamper, p.end = tamper, end
}

// onlyThat changes every message of one method.
func onlyThat[M any, P interface {
	*M
	proto.Message
}](t *testing.T, method string, change func(n int, m P)) func(string, int, []byte) ([][]byte, error) {
	return func(called string, n int, b []byte) ([][]byte, error) {
		if called != method {
			return [][]byte{b}, nil
		}
		m := P(new(M))
		if err := proto.Unmarshal(b, m); err != nil {
			t.Error(err)
		}
		change(n, m)
		out, err := proto.Marshal(m)
		if err != nil {
			t.Error(err)
		}
		return [][]byte{out}, nil
	}
}

func (p *grpcProxy) forward(conn *grpc.ClientConn, down grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(down)
	md, _ := metadata.FromIncomingContext(down.Context())
	out := metadata.MD{}
	for _, key := range []string{"authorization"} {
		out[key] = md.Get(key)
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(down.Context(), out))
	defer cancel()
	p.mu.Lock()
	tamper, end, refuse := p.tamper, p.end, p.refuse
	p.mu.Unlock()
	if refuse != nil {
		if err := refuse(method); err != nil {
			return err
		}
	}
	up, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	p.mu.Lock()
	request := p.request
	p.mu.Unlock()
	go func() {
		for {
			var b []byte
			if err := down.RecvMsg(&b); err == io.EOF {
				up.CloseSend()
				return
			} else if err != nil {
				return
			}
			if request != nil {
				b = request(method, b)
			}
			if up.SendMsg(&b) != nil {
				return
			}
		}
	}()
	for n := 0; ; n++ {
		var b []byte
		err := up.RecvMsg(&b)
		if err == io.EOF && end != nil {
			for more := end(method, n); more != nil; n, more = n+1, end(method, n+1) {
				for _, m := range more {
					if err := down.SendMsg(&m); err != nil {
						return err
					}
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		messages := [][]byte{b}
		if tamper != nil {
			messages, err = tamper(method, n, b)
		}
		for _, m := range messages {
			if err := down.SendMsg(&m); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// rawCodec passes messages on as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.Copy(*v.(*[]byte), mem.DefaultBufferPool())}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// A cutProxy stands between a client and a node and cuts connections.
type cutProxy struct {
	addr string
	node string

	mu       sync.Mutex
	cut      []int64 // after so many bytes, of the connections to come in turn
	toClient bool    // they count towards the client, else towards the node
	sent     int64   // bytes towards the node, of all connections
	received int64   // and towards the client
	made     int     // connections
	watch    func(sent int64)
	wg       sync.WaitGroup
}

// startCutProxy returns a proxy in front of a node's address.
func startCutProxy(t *testing.T, node string) *cutProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutProxy{addr: l.Addr().String(), node: node}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Add(1)
			go p.serve(c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		p.wg.Wait()
	})
	return p
}

// cutAfter has the next connections end after so many bytes.
func (p *cutProxy) cutAfter(toClient bool, after ...int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.toClient, p.sent, p.received, p.made = after, toClient, 0, 0, 0
}

// watchSent has f told of the bytes towards the node, while the proxy waits for it.
func (p *cutProxy) watchSent(f func(sent int64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = f
}

// counts returns the bytes towards node and client, and the connections, since cutAfter.
func (p *cutProxy) counts() (sent, received int64, made int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent, p.received, p.made
}

func (p *cutProxy) serve(client net.Conn) {
	defer p.wg.Done()
	defer client.Close()
	node, err := net.Dial("tcp", p.node)
	if err != nil {
		return
	}
	defer node.Close()
	p.mu.Lock()
	p.made++
	left := int64(-1)
	if len(p.cut) > 0 {
		left, p.cut = p.cut[0], p.cut[1:]
	}
	toClient := p.toClient
	p.mu.Unlock()
	done := make(chan struct{}, 2)
	copyTo := func(dst, src net.Conn, count *int64, limited bool) {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 32<<10)
		left := left
		for {
			b := buf
			if limited && left >= 0 && left < int64(len(b)) {
				b = b[:left]
			}
			n, err := src.Read(b)
			p.mu.Lock()
			*count += int64(n)
			if p.watch != nil {
				p.watch(p.sent)
			}
			p.mu.Unlock()
			if _, werr := dst.Write(b[:n]); err != nil || werr != nil {
				return
			}
			if limited && left >= 0 {
				if left -= int64(n); left == 0 {
					return
				}
			}
		}
	}
	go copyTo(node, client, &p.sent, !toClient)
	go copyTo(client, node, &p.received, toClient)
	<-done
	client.Close()
	node.Close()
	<-done
}
