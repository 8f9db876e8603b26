package grpcapi

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

func TestInfoAndTotals(t *testing.T) {
	n := newRawNode(t, limited(Limits{TreeDepth: 17, IdleTime: 1500 * time.Millisecond}))
	info, err := n.node.GetInfo(n.ctx, &scalev1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	l := info.GetLimits()
	if info.GetVersion() != "test" || info.GetOrigin() != "node.test" || info.GetVkey() != n.store.VerifierKey() || len(info.GetProfiles()) < 2 ||
		info.GetProfiles()[0] != "scale-1" || info.GetReadOnly() != "" {
		t.Errorf("%v", info)
	}
	if l.GetMessageBytes() != 4<<20 || l.GetPieceBytes() != 1<<20 || l.GetTreeDepth() != 17 || l.GetTreeEntries() != 50_000_000 || l.GetPathBytes() != 4096 ||
		l.GetDatasetBytes() != 16<<40 || l.GetConnectionCalls() != 128 || l.GetCalls() != 512 || l.GetWrites() != 64 || l.GetChallengeSamples() != 1024 ||
		l.GetIdleSeconds() != 2 || l.GetTotalSeconds() != 86400 {
		t.Errorf("%v", l)
	}
	n.putFile("a", noiseBytes(1, 100_000))
	n.putFile("b", noiseBytes(1, 100_000))
	totals, err := n.node.GetTotals(n.ctx, &scalev1.GetTotalsRequest{})
	if err != nil || totals.GetDatasets() != 2 || totals.GetLogical() != 200_000 || totals.GetUnique() != 100_000 || totals.GetPacked() < 100_000 ||
		totals.GetStored() < totals.GetPacked() || totals.GetTreeSize() != 3 || totals.GetChunks() < 1 || totals.GetReclaimable() != 0 {
		t.Errorf("%v, %v", totals, err)
	}
}

// check has the node check itself.
func (n *rawNode) check(data bool) (*scalev1.CheckSummary, []*scalev1.CheckFinding) {
	n.t.Helper()
	messages, err := receive(n.node.Check(n.ctx, &scalev1.CheckRequest{ReadData: data}))
	if err != nil {
		n.t.Fatal(err)
	}
	var findings []*scalev1.CheckFinding
	for i, m := range messages {
		if (m.GetSummary() != nil) != (i == len(messages)-1) {
			n.t.Errorf("message %d of %d: %v", i, len(messages), m)
		}
		if f := m.GetFinding(); f != nil {
			findings = append(findings, f)
		}
	}
	return messages[len(messages)-1].GetSummary(), findings
}

// A node checks itself while others put, and finds nothing that is not so.
func TestCheckLive(t *testing.T) {
	n := newRawNode(t, nil)
	n.putParts(treeHeader("tree"), fileEntry("a", string(noiseBytes(1, 500_000))), dirEntry("e"))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := n.put(n.ctx, fileHeader(fmt.Sprint("f", i)), dataPart(noiseBytes(uint64(i), 10_000))); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 6 {
		sum, findings := n.check(i%2 == 1)
		if sum.GetErrors() != 0 || sum.GetWarnings() != 0 || sum.GetDatasets() < 1 || sum.GetEntries() != sum.GetDatasets()+1 || sum.GetPlain() < 500_000 || sum.GetChunks() == 0 {
			t.Errorf("%v, %v", sum, findings)
		}
		if read := sum.GetRead(); (read >= sum.GetPlain()) != (i%2 == 1) {
			t.Errorf("%d bytes were read of %d", read, sum.GetPlain())
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	n.sound()
}

func TestTokenCalls(t *testing.T) {
	n := newRawNode(t, func(n *rawNode) { n.opt.Tokens = OpenTokens(n.dir) })
	t.Cleanup(n.opt.Tokens.(*TokenFile).Close)
	until := timestamppb.New(time.Now().Add(time.Hour).Truncate(time.Second))
	made, err := n.node.CreateToken(n.ctx, &scalev1.CreateTokenRequest{Name: "a", Scope: write, Expires: until})
	if err != nil || made.GetSecret() == "" || made.GetToken().GetScope() != write || !made.GetToken().GetExpires().AsTime().Equal(until.AsTime()) {
		t.Fatalf("%v, %v", made, err)
	}
	_, err = n.node.CreateToken(n.ctx, &scalev1.CreateTokenRequest{Name: "a", Scope: read})
	refused(t, "taken", err, scalev1.ErrorReason_ERROR_REASON_EXISTS)
	for what, req := range map[string]*scalev1.CreateTokenRequest{
		"no name": {Scope: read}, "bad name": {Name: "a b", Scope: read}, "no scope": {Name: "b"}, "a later scope": {Name: "b", Scope: 9},
		"expired": {Name: "b", Scope: read, Expires: timestamppb.New(time.Unix(1, 0))}, "no time": {Name: "b", Scope: read, Expires: &timestamppb.Timestamp{Nanos: -1}},
	} {
		_, err := n.node.CreateToken(n.ctx, req)
		refused(t, what, err, isInvalid)
	}
	list, err := n.node.ListTokens(n.ctx, &scalev1.ListTokensRequest{})
	if err != nil || len(list.GetTokens()) != 1 || list.GetTokens()[0].GetName() != "a" || list.GetTokens()[0].GetCreated() == nil {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := n.node.RevokeToken(n.ctx, &scalev1.RevokeTokenRequest{Name: "a"}); err != nil {
		t.Error(err)
	}
	_, err = n.node.RevokeToken(n.ctx, &scalev1.RevokeTokenRequest{Name: "a"})
	refused(t, "revoked", err, isNotFound)
	_, err = n.node.RevokeToken(n.ctx, &scalev1.RevokeTokenRequest{Name: ""})
	refusedField(t, "no name", err, isInvalid, "name")

	// The token that a call is made with, too: the call is let finish, and is the last.
	var auth Authenticator
	n = newRawNode(t, func(n *rawNode) {
		auth.Tokens = OpenTokens(t.TempDir())
		n.opt.Tokens, n.opt.Authenticate, n.opt.Credentials = auth.Tokens, auth.Authenticate, Credentials(nil)
	})
	defer auth.Tokens.Close()
	for i := range 20 { // the end of the token and that of the call are not always in the same order
		name := fmt.Sprint("own", i)
		own := metadata.AppendToOutgoingContext(n.ctx, "authorization", "Bearer "+mustCreate(t, auth.Tokens, name, admin, time.Time{}))
		ss, err := n.conn.NewStream(own, &grpc.StreamDesc{ClientStreams: true}, scalev1.NodeService_RevokeToken_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		n.waiting(1, waitsRecv)
		if _, err := n.node.RevokeToken(own, &scalev1.RevokeTokenRequest{Name: name}); err != nil {
			t.Errorf("the own token: %v", err)
		}
		_, err = n.node.ListTokens(own, &scalev1.ListTokensRequest{})
		refused(t, "with a token that is revoked", err, scalev1.ErrorReason_ERROR_REASON_TOKEN)
		// Not so a call that has not said what to revoke.
		refused(t, "begun before", fromStatus(ss.RecvMsg(&scalev1.RevokeTokenResponse{})), scalev1.ErrorReason_ERROR_REASON_TOKEN)
	}

	without := newRawNode(t, nil)
	if _, err := without.node.ListTokens(n.ctx, &scalev1.ListTokensRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without tokens: %v", err)
	}
}
