package grpcapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// unixTarget begins a target that is the directory of a store.
const unixTarget = "unix:"

// Dial connects to a node and asks it who it is. The target is HOST:PORT, or "unix:" and
// the directory of a store, for the process of the same user that owns it: if there is
// none the error is ErrNotServed.
func Dial(ctx context.Context, target string, o DialOptions) (*Client, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	c := &Client{opt: o, log: o.Logger}
	if err := c.pools.init(o); err != nil {
		return nil, err
	}
	var opts []grpc.DialOption
	var err error
	if dir, ok := strings.CutPrefix(target, unixTarget); ok {
		opts, err = privateOptions(ctx, dir)
	} else {
		opts, err = o.networkOptions(target)
	}
	if err != nil {
		return nil, err
	}
	if c.conn, err = grpc.NewClient("passthrough:///"+target, append(opts, commonOptions(o)...)...); err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", target, store.ErrInvalid, err)
	}
	c.datasets, c.blocks = scalev1.NewDatasetServiceClient(c.conn), scalev1.NewBlockServiceClient(c.conn)
	c.curators, c.ledger = scalev1.NewCuratorServiceClient(c.conn), scalev1.NewLedgerServiceClient(c.conn)
	c.proofs, c.audits = scalev1.NewProofServiceClient(c.conn), scalev1.NewAuditServiceClient(c.conn)
	c.anchors, c.node = scalev1.NewAnchorServiceClient(c.conn), scalev1.NewNodeServiceClient(c.conn)
	if c.info, err = c.Info(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("node %s: %w", target, err)
	}
	c.met = true
	return c, nil
}

const (
	// maxMessage is the most that the API lets a node send at once, with room for the
	// encoding.
	maxMessage = 4<<20 + 64<<10
	// What may be on the way at a time. It is what a stream needs at a gigabit a second
	// over a distance of 60 ms, and bounds what a node can make this process hold.
	streamWindow = 8 << 20
	connWindow   = 16 << 20
	// transportBuffer is how much goes to or comes from the kernel at once.
	transportBuffer = 256 << 10
)

func commonOptions(o DialOptions) []grpc.DialOption {
	agent := o.UserAgent
	if agent == "" {
		agent = "scale"
	}
	return []grpc.DialOption{
		grpc.WithUserAgent(agent),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithMaxHeaderListSize(64 << 10),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		experimental.WithBufferPool(newFramePool()),
		grpc.WithReadBufferSize(transportBuffer),
		grpc.WithWriteBufferSize(transportBuffer),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause / 2, Multiplier: 2, Jitter: 0.2, MaxDelay: lastPause},
			MinConnectTimeout: 10 * time.Second,
		}),
		// A node that has vanished without a word is found out while a call is under way.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}),
	}
}

// privateOptions are those of the private socket. The kernel says that its other side is
// this user's or root's.
func privateOptions(ctx context.Context, dir string) ([]grpc.DialOption, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// The first connection is made here, for an error that is one of package net.
	first, err := DialPrivate(ctx, dir)
	if err != nil {
		return nil, err
	}
	conns := make(chan net.Conn, 1)
	conns <- first
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			select {
			case c := <-conns:
				return c, nil
			default:
				return DialPrivate(ctx, dir)
			}
		}),
	}, nil
}

// networkOptions are those of a node's port.
func (o *DialOptions) networkOptions(target string) ([]grpc.DialOption, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("node %q: must be HOST:PORT: %w", target, store.ErrInvalid)
	}
	token, err := o.token()
	if err != nil {
		return nil, err
	}
	local := isLoopback(host)
	wantsTLS := o.CACert != "" || o.ServerName != "" || o.ClientCert != "" || o.ClientKey != ""
	var opts []grpc.DialOption
	switch plain := o.Plaintext || local && !wantsTLS; {
	case o.Plaintext && wantsTLS:
		return nil, fmt.Errorf("node %s: both TLS and plaintext are asked for: %w", target, store.ErrInvalid)
	case plain && !local && token != "":
		return nil, fmt.Errorf("node %s: without TLS others could read the token, so it is not sent: %w", target, store.ErrInvalid)
	case plain:
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	default:
		config, err := o.tlsConfig()
		if err != nil {
			return nil, err
		}
		opts = append(opts, new(trust).options(credentials.NewTLS(config))...)
		local = false // what is at the other end is shown by its certificate
	}
	if token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(token)))
	}
	dial := o.Dialer
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) { return dialTCP(ctx, address, local) }
	}
	return append(opts, grpc.WithContextDialer(dial)), nil
}

// isLoopback reports whether a host is this machine by its name.
func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// dialTCP connects to an address. With local, what the name "localhost" leads to must be
// this machine, whatever the resolver says.
func dialTCP(ctx context.Context, address string, local bool) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); local && (!ok || !a.IP.IsLoopback()) {
		conn.Close()
		return nil, fmt.Errorf("%s leads to %v, which is not this machine", address, conn.RemoteAddr())
	}
	return conn, nil
}

func (o *DialOptions) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if o.CACert != "" {
		pool, err := readCAs(o.CACert)
		if err != nil {
			return nil, fmt.Errorf("authorities of the node: %w", err)
		}
		config.RootCAs = pool
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return nil, fmt.Errorf("a client's certificate and its key go together: %w", store.ErrInvalid)
	}
	if o.ClientCert != "" {
		cert, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("client's certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// token returns the token, without what an editor may have put behind it.
func (o *DialOptions) token() (string, error) {
	token := o.Token
	if o.TokenFile != "" {
		if token != "" {
			return "", fmt.Errorf("a token and a file with one are given: %w", store.ErrInvalid)
		}
		f, err := os.Open(o.TokenFile)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 4<<10))
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		token = string(b)
	}
	token = strings.TrimSpace(token)
	if token == "" && o.TokenFile != "" {
		return "", fmt.Errorf("no token in %s: %w", o.TokenFile, ErrToken)
	}
	if token == "" {
		return "", nil
	}
	if _, err := parseToken(token); err != nil {
		return "", err
	}
	return token, nil
}

// bearer is a token as credentials.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false because loopback does without: networkOptions has seen
// to it that nothing else does.
func (b bearer) RequireTransportSecurity() bool { return false }

// Info is what a node says of itself.
type Info struct {
	Version  string // of its program
	Origin   string // name of its log
	VKey     string // the log's public key; verifiers have it from somebody they trust
	Profiles []string
	ReadOnly string // why it reads but does not append, if so
	Limits   *scalev1.Limits
}

// Info asks the node what it is.
func (c *Client) Info(ctx context.Context) (Info, error) {
	r, err := ask(ctx, c, c.node.GetInfo, &scalev1.GetInfoRequest{})
	if err != nil {
		return Info{}, err
	}
	i := Info{
		Version: plain(r.GetVersion(), maxErrorText), Origin: r.GetOrigin(), VKey: r.GetVkey(), Profiles: r.GetProfiles(),
		ReadOnly: plain(r.GetReadOnly(), maxErrorText), Limits: r.GetLimits(),
	}
	if i.Limits == nil {
		i.Limits = &scalev1.Limits{}
	}
	v, err := note.NewVerifier(i.VKey)
	if err == nil && v.Name() != i.Origin {
		err = errors.New("its name is not the origin")
	}
	if err == nil {
		err = ledger.CheckOrigin(i.Origin)
	}
	if err != nil {
		return Info{}, nodeErrorf("the log's key: %w", err)
	}
	return i, nil
}

// Origin returns the name of the node's log.
func (c *Client) Origin() string { return c.info.Origin }

// VerifierKey returns the public key of the node's log, as the node says.
func (c *Client) VerifierKey() string { return c.info.VKey }

// LogID returns what entries of the node's log are bound to.
func (c *Client) LogID() ledger.LogID {
	v, err := note.NewVerifier(c.info.VKey)
	if err != nil {
		panic(err) // Dial has parsed it
	}
	return ledger.LogID{Origin: v.Name(), KeyID: v.KeyHash()}
}

// Doubt returns nil, or why the node's store read but did not append when this client
// connected.
func (c *Client) Doubt() error {
	if c.info.ReadOnly == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", store.ErrReadOnly, c.info.ReadOnly)
}
