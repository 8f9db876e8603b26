package grpcapi

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// Credentials returns what a node's one gRPC server needs to serve its private socket, its
// TCP port and its HTTP port at once: it tells by the connection which of them a caller
// came through. TCP is TLS if t is not nil, and plain otherwise.
func Credentials(t *TLS) credentials.TransportCredentials {
	c := &serverCreds{files: t}
	if t != nil {
		c.tls = credentials.NewTLS(t.Config("h2"))
	}
	return c
}

type serverCreds struct {
	files *TLS
	tls   credentials.TransportCredentials
}

// A route is the way by which a caller came.
type route int

const (
	routeTCP     route = iota // the gRPC port
	routePrivate              // the private socket: this user or root
	routeGateway              // the HTTP port of this very process
)

// A routeInfo is what the transport knows of a caller. Only serverCreds makes it.
type routeInfo struct {
	credentials.CommonAuthInfo
	route route
	uid   uint32    // of routePrivate
	cert  *peerCert // of routeTCP, or nil
}

func (routeInfo) AuthType() string { return "scale" }

func (c *serverCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := routeInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	switch conn := innermost(raw).(type) {
	case *privateConn:
		info.route, info.uid = routePrivate, conn.uid
		return raw, info, nil
	case *gatewayConn:
		info.route = routeGateway
		return raw, info, nil
	case *net.TCPConn:
	default:
		return nil, nil, errors.New("a connection of a kind that the node does not serve")
	}
	if c.tls == nil {
		info.SecurityLevel = credentials.NoSecurity
		return raw, info, nil
	}
	conn, tlsInfo, err := c.tls.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	info.cert = c.files.peer(tlsInfo.(credentials.TLSInfo).State)
	return conn, info, nil
}

// callerAddr returns the address of the caller of ctx, or nil: for calls that came through
// the HTTP port that of its client.
func callerAddr(ctx context.Context) net.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	if info, ok := p.AuthInfo.(routeInfo); ok && info.route == routeGateway {
		md, _ := metadata.FromIncomingContext(ctx)
		if c, err := gatewayCaller(md); err == nil {
			if a, err := netip.ParseAddrPort(c.addr); err == nil {
				return net.TCPAddrFromAddrPort(a)
			}
		}
	}
	if c := connOf(p.Addr); c != nil {
		return c.Conn.RemoteAddr()
	}
	return p.Addr
}

// callerConn returns the connection of the caller of ctx, or nil.
func callerConn(ctx context.Context) *limitedConn {
	if p, ok := peer.FromContext(ctx); ok {
		return connOf(p.Addr)
	}
	return nil
}

// isPrivate reports whether the caller of ctx came through the private socket.
func isPrivate(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	info, ok := p.AuthInfo.(routeInfo)
	return ok && info.route == routePrivate
}

// innermost returns the connection that others are wrapped around.
func innermost(c net.Conn) net.Conn {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = w.NetConn()
	}
}

func (c *serverCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("credentials of a server")
}

func (c *serverCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "scale"}
}

func (c *serverCreds) Clone() credentials.TransportCredentials { return c }

func (c *serverCreds) OverrideServerName(string) error { return nil }
