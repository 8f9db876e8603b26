package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/compress"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store/filecache"
)

var (
	// ErrUnreachable: there is no connection to the node, or it broke. Of a call that
	// changes something it is then not known whether it was carried out.
	ErrUnreachable = errors.New("node not reachable")
	// ErrTrust: there can be no TLS between this client and the node until one of them is set
	// up in another way. A TrustError says why. Nothing was sent.
	ErrTrust = errors.New("no TLS with the node that both ends trust")
	// ErrLater: the node turns calls away for now, and still did after several tries.
	ErrLater = errors.New("node has no time")
	// ErrOutcome: the node was told to record something, and did not say, or not in words that
	// make sense, whether it did: the connection broke, or the caller did not wait. The history
	// of the name tells, or the policy.
	ErrOutcome = errors.New("not known whether it was recorded")
	// ErrNode: the node sent something that contradicts itself, the API or what was asked
	// for. Nothing of it was used.
	ErrNode = errors.New("the node's answer makes no sense")
)

// DialOptions configures Dial. The zero value suits a node on this machine.
type DialOptions struct {
	// Token is sent with every call, or TokenFile names the file that holds it. A token
	// is not sent where others could read it: see Plaintext.
	Token, TokenFile string
	// CACert is a PEM file with the authorities that the node's certificate may be
	// signed by; empty means those of the system.
	CACert string
	// ServerName is what the certificate must be made out to, if not the target's host.
	ServerName string
	// ClientCert and ClientKey are PEM files with the client's own certificate.
	ClientCert, ClientKey string
	// Plaintext does without TLS on any network, and then without a token. Otherwise only
	// connections within this machine do without TLS, if none of CACert, ServerName and
	// ClientCert is set.
	Plaintext bool
	// Patience is how long calls are repeated while the node, which has answered before, is
	// closing or gone: it may be starting again. Default 1 minute. A node that has never
	// answered is tried for some seconds only.
	Patience time.Duration
	// Level is the compression of what Put sends.
	Level compress.Level
	// TempDir is where Put keeps the list of what it puts, some 40 bytes for each chunk,
	// in a file without a name; empty is the system's.
	TempDir string
	// FileCache is where Put remembers what files are made of: see store.Input.Rescan.
	// Without one it reads all of them each time.
	FileCache filecache.Dir
	// UserAgent is how the node's log names this client; empty is "scale".
	UserAgent string
	// Logger is told of calls that are repeated; nil discards that.
	Logger *slog.Logger
	// Revive, if set, is called when the node is gone or closing, before a call is repeated:
	// for whoever can bring another one up at the same place. It is told since when the call
	// fails, and its error ends the call; while there is none the call is repeated. It may be
	// called from several goroutines at a time.
	Revive func(ctx context.Context, since time.Time) error
	// Dialer makes the connections, if set. It is given the address of the target.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
}

// A Client uses a node as a *store.Store is used: its methods have the same meaning, and
// their errors are of the same classes, of ErrUnreachable, ErrTrust and ErrNode, or of the
// classes of the node: ErrToken, ErrScope, ErrLimit, ErrTooSlow, ErrClosing, ErrInternal. It
// is safe for concurrent use.
//
// What comes from the node is bounded and checked before it is used: names, paths and their
// order, sizes, digests, signatures of proofs. What a node says of its ledger is its word;
// proofs are for those who do not take that.
//
// When a connection breaks, calls are repeated and go on where they were; those that cannot
// be repeated say that they may have been carried out.
type Client struct {
	conn     *grpc.ClientConn
	opt      DialOptions
	log      *slog.Logger
	info     Info
	met      bool // the node has answered; set before the client is used
	datasets scalev1.DatasetServiceClient
	blocks   scalev1.BlockServiceClient
	curators scalev1.CuratorServiceClient
	ledger   scalev1.LedgerServiceClient
	proofs   scalev1.ProofServiceClient
	audits   scalev1.AuditServiceClient
	anchors  scalev1.AnchorServiceClient
	node     scalev1.NodeServiceClient

	pools clientPools
	link  link

	closing  sync.Once
	closeErr error
}

// Close ends the connection; calls under way fail.
func (c *Client) Close() error {
	c.closing.Do(func() { c.closeErr = c.conn.Close() })
	return c.closeErr
}

// nodeErrorf reports an answer that makes no sense.
func nodeErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrNode, fmt.Errorf(format, args...))
}
