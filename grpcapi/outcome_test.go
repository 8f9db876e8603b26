package grpcapi

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// putHello puts a file of five bytes.
func putHello(ctx context.Context, datasets scalev1.DatasetServiceClient, name string) error {
	ss, err := datasets.Put(ctx)
	if err != nil {
		return err
	}
	for _, m := range []*scalev1.PutRequest{fileHeader(name), dataPart([]byte("hello"))} {
		if err := ss.Send(m); err != nil {
			return err
		}
	}
	_, err = ss.CloseAndRecv()
	return err
}

// A call that is ended while what it asks for is being recorded is told that it was.
func TestEndedWhileRecorded(t *testing.T) {
	var who Identity
	var revoke atomic.Pointer[context.CancelCauseFunc]
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = func(context.Context) (Identity, error) { return who, nil }
		n.so.Observer.Commit = func(int, time.Duration) {
			(*revoke.Load())(ErrToken)
			n.srv.mu.Lock()
			defer n.srv.mu.Unlock()
			for c := range n.srv.calls {
				<-c.killed
			}
		}
	})
	for name, call := range map[string]func() error{
		"put": func() error { return putHello(n.ctx, n.datasets, "x") },
		"curator": func() error {
			key := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
			_, err := n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: key})
			return err
		},
	} {
		void, end := context.WithCancelCause(context.Background())
		defer end(nil)
		who = Identity{Name: "x", Scope: admin, Void: void}
		revoke.Store(&end)
		before := n.store.Settle()
		if err := call(); err != nil {
			t.Errorf("%s: told %v", name, err)
		}
		if size := n.store.Settle(); size != before+1 {
			t.Errorf("%s: %d entries, want %d", name, size, before+1)
		}
	}
}

// Revoking a token ends its calls before it is answered, and waits for what is being recorded
// for one of them. A token may revoke itself, and is told so.
func TestRevokeSettles(t *testing.T) {
	var recorded atomic.Bool
	committing, revoked := make(chan struct{}), make(chan context.Context, 1)
	var tokens *TokenFile
	n := newRawNode(t, func(n *rawNode) {
		tokens = openTokens(n.dir+".tokens", time.Now)
		n.opt.Tokens = tokens
		n.opt.Authenticate = func(ctx context.Context) (Identity, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			token, void, err := tokens.Check(md.Get("token")[0])
			return Identity{Name: token.Name, Scope: token.Scope, Void: void}, err
		}
		n.so.Observer.Commit = func(int, time.Duration) {
			close(committing)
			void := <-revoked
			<-void.Done()
			recorded.Store(true)
		}
	})
	t.Cleanup(tokens.Close)
	secret := mustCreate(t, tokens, "theirs", admin, time.Time{})
	_, void, err := tokens.Check(secret)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(n.ctx, "token", secret)
	put := make(chan error, 1)
	go func() { put <- putHello(ctx, n.datasets, "x") }()
	<-committing
	revoked <- void
	if _, err := n.node.RevokeToken(ctx, &scalev1.RevokeTokenRequest{Name: "theirs"}); err != nil {
		t.Errorf("revoke: %v", err)
	}
	if !recorded.Load() {
		t.Error("the answer came while an entry was being recorded")
	}
	if err := <-put; err != nil {
		t.Errorf("put: %v", err)
	}
	if err := putHello(ctx, n.datasets, "y"); err == nil {
		t.Error("a revoked token puts")
	}
	if size := n.store.Settle(); size != 2 {
		t.Errorf("%d entries, want 2", size)
	}
}

// A put that the node has recorded, while its answer was lost or changed on the way, is done
// again and found unchanged; where it cannot be, its error does not say that nothing was
// recorded.
func TestPutOutcome(t *testing.T) {
	n := startClientNode(t)
	proxy := startGRPCProxy(t, n.addr)
	c := n.dial(proxy.addr)
	commit := scalev1.BlockService_Commit_FullMethodName
	put := func(ctx context.Context, name string) ([]store.PutResult, error) {
		return c.Put(ctx, []store.Input{{Name: name, Reader: strings.NewReader(name)}}, store.PutOptions{})
	}
	recorded := func(name string) bool {
		_, err := n.store.Resolve(t.Context(), name)
		return err == nil
	}
	for _, code := range []codes.Code{codes.Internal, codes.Unknown, codes.DeadlineExceeded, codes.Canceled, codes.Aborted} {
		var lost atomic.Bool
		proxy.set(func(method string, _ int, b []byte) ([][]byte, error) {
			if method == commit && lost.CompareAndSwap(false, true) {
				return nil, status.Error(code, "from somebody on the way")
			}
			return [][]byte{b}, nil
		}, nil)
		res, err := put(t.Context(), code.String())
		if err != nil || !res[0].Unchanged || !lost.Load() {
			t.Errorf("%v: %+v, %v", code, res, err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	proxy.set(func(method string, _ int, b []byte) ([][]byte, error) {
		if method == commit {
			cancel()
			return nil, status.Error(codes.Internal, "from somebody on the way")
		}
		return [][]byte{b}, nil
	}, nil)
	if _, err := put(ctx, "gone"); !errors.Is(err, ErrOutcome) || errors.Is(err, ErrNode) || !recorded("gone") {
		t.Errorf("a caller who does not wait: %v, recorded %v", err, recorded("gone"))
	}

	proxy.set(onlyThat(t, commit, func(_ int, r *scalev1.CommitResponse) { r.Results[0].Dataset.Cid = "b" }), nil)
	if _, err := put(t.Context(), "changed"); !errors.Is(err, ErrOutcome) || !errors.Is(err, ErrNode) || !recorded("changed") {
		t.Errorf("an answer that makes no sense: %v, recorded %v", err, recorded("changed"))
	}

	proxy.set(nil, nil)
	if _, err := put(t.Context(), "a\x00"); err == nil || errors.Is(err, ErrOutcome) {
		t.Errorf("what the node refuses: %v", err)
	}
}
