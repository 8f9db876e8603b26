package grpcapi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// An Authenticator says who a caller is and what he may do:
//
//   - who comes through the private socket is this user or root, and has the scope admin;
//   - whose connection was made with a client certificate that counts no more is refused,
//     whatever else he could show;
//   - who sends a token has the scope of that token, or is refused if it is not accepted,
//     whatever else he could show;
//   - who has a client certificate has ClientScope;
//   - anybody else has the scope Anonymous.
//
// It is safe for concurrent use.
type Authenticator struct {
	// Tokens are those accepted; nil accepts none.
	Tokens *TokenFile
	// Anonymous is what callers of the gRPC port may do who show nothing. The zero value
	// refuses them.
	Anonymous scalev1.Scope
	// ClientScope is what a verified client certificate allows by itself. With the zero
	// value its owner needs a token as well.
	ClientScope scalev1.Scope
	// Logger is told of refused tokens, without their text; nil discards.
	Logger *slog.Logger
	// Now is the clock of client certificates and of the limit for refusals; nil is time.Now.
	Now func() time.Time

	refused failures
}

// A caller is what is known of who calls before he says anything.
type caller struct {
	route     route
	addr      string        // for people
	cert      *peerCert     // nil without one
	anonymous scalev1.Scope // what callers who show nothing may do here
}

// Authenticate returns who makes the call of ctx, for ServerOptions.Authenticate. The error
// wraps ErrToken, or ErrLimit when too many tokens were refused lately.
func (a *Authenticator) Authenticate(ctx context.Context) (Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, fmt.Errorf("%w: nothing is known of the caller", ErrToken)
	}
	info, ok := p.AuthInfo.(routeInfo)
	if !ok { // a server that was not given Credentials
		return Identity{}, fmt.Errorf("%w: nothing is known of the caller's connection", ErrToken)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	switch info.route {
	case routePrivate:
		return Identity{Name: fmt.Sprintf("user %d", info.uid), Scope: scalev1.Scope_SCOPE_ADMIN}, nil
	case routeGateway:
		r, err := gatewayCaller(md)
		if err != nil {
			return Identity{}, err
		}
		request, _ := ctx.Value(accountKey{}).(*account)
		if request == nil || !request.web {
			return Identity{}, fmt.Errorf("%w: the HTTP request of the call has ended", ErrToken)
		}
		r.cert = request.cert
		return a.identify(r.caller, r.authorization)
	}
	c := caller{route: routeTCP, cert: info.cert, anonymous: a.Anonymous}
	if p.Addr != nil {
		c.addr = p.Addr.String()
	}
	return a.identify(c, md.Get("authorization"))
}

// identify says who a caller over a network is. authorization holds the values of the
// header or metadata of that name. Whoever is not told from others has a connection all the
// same, for calls that anybody may make.
func (a *Authenticator) identify(c caller, authorization []string) (Identity, error) {
	if err := a.connected(c); err != nil {
		return Identity{}, err
	}
	id, err := a.decide(c, authorization)
	id.cert = c.cert
	if err == nil || len(authorization) == 0 {
		return id, err
	}
	// The secret has 256 bits: what is limited is the noise, not guessing. Tokens that are
	// good are not held up by bad ones from the same address.
	if !a.refused.allow(hostOf(c.addr), a.now()) {
		return id, &RetryAfter{failurePeriod, fmt.Errorf("%w: too many tokens from this address were refused", ErrLimit)}
	}
	if a.Logger != nil {
		a.Logger.Warn("token refused", "from", c.addr, "why", err.Error())
	}
	return id, err
}

// connected returns why the connection of a caller over a network is good for nothing any
// more, or nil.
func (a *Authenticator) connected(c caller) error {
	if c.cert == nil {
		return nil
	}
	return c.cert.check(a.now())
}

func (a *Authenticator) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

func (a *Authenticator) decide(c caller, authorization []string) (Identity, error) {
	switch len(authorization) {
	case 0:
		if c.cert != nil && a.ClientScope != scalev1.Scope_SCOPE_UNSPECIFIED {
			return Identity{Name: "certificate " + c.cert.name(), Scope: a.ClientScope}, nil
		}
		if c.anonymous == scalev1.Scope_SCOPE_UNSPECIFIED {
			return Identity{}, fmt.Errorf("%w: the call has none, and this node wants one; send \"authorization: Bearer TOKEN\"", ErrToken)
		}
		return Identity{Name: "anonymous", Scope: c.anonymous, Anonymous: true}, nil
	case 1:
	default:
		return Identity{}, fmt.Errorf("%w: the call has %d of them", ErrToken, len(authorization))
	}
	scheme, text, ok := strings.Cut(authorization[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return Identity{}, fmt.Errorf("%w: authorization must be \"Bearer TOKEN\"", ErrToken)
	}
	if a.Tokens == nil {
		return Identity{}, fmt.Errorf("%w: this process has no tokens", ErrToken)
	}
	t, void, err := a.Tokens.Check(strings.TrimLeft(text, " "))
	if err != nil {
		return Identity{}, err
	}
	return Identity{Name: "token " + t.Name, Scope: t.Scope, Void: void}, nil
}

// failures limits how many refused tokens of one network are answered and logged as such.
type failures struct {
	mu    sync.Mutex
	since time.Time      // when counts began; guarded by mu, as is all below
	count map[string]int // by source
	all   int
}

const (
	failurePeriod = time.Minute
	failuresOfOne = 20
	failuresOfAll = 1000 // bounds the map as well
)

// allow counts one more from a source.
func (f *failures) allow(source string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.since) >= failurePeriod || f.count == nil {
		f.since, f.count, f.all = now, make(map[string]int), 0
	}
	if f.all >= failuresOfAll || f.count[source] >= failuresOfOne {
		return false
	}
	f.count[source]++
	f.all++
	return true
}

// hostOf returns the network of an address: an IPv4 address, or the /64 that one host of
// IPv6 has to itself.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
