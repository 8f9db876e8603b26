package grpcapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// opened checks the signature of a checkpoint, and that it says what the message says.
func (n *rawNode) opened(c *scalev1.Checkpoint) ledger.Checkpoint {
	n.t.Helper()
	v, err := note.NewVerifier(n.store.VerifierKey())
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := ledger.OpenCheckpoint(c.GetNote(), v)
	if err != nil || got.Origin != c.GetOrigin() || got.Size != c.GetSize() || !bytes.Equal(got.Root[:], c.GetRoot()) {
		n.t.Errorf("%v says %v, %v", c, got, err)
	}
	return got
}

func hashes[H ~[]tlog.Hash](in [][]byte) (out H) {
	for _, h := range in {
		out = append(out, tlog.Hash(h))
	}
	return out
}

func TestHeadAndEntries(t *testing.T) {
	n := newRawNode(t, nil)
	n.putFile("a", []byte("1"))
	d := n.putFile("a", []byte("2"))
	if _, err := n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	for name, newest := range map[string]int64{"a": 3, "b": -1, "": -1} {
		head, err := n.ledger.GetHead(n.ctx, &scalev1.GetHeadRequest{Name: name})
		if err != nil || head.GetNewest() != newest || head.GetPolicy() != 0 || head.GetVkey() != n.store.VerifierKey() || n.opened(head.GetCheckpoint()).Size != 4 {
			t.Errorf("%q: %v, %v", name, head, err)
		}
	}
	_, err := n.ledger.GetHead(n.ctx, &scalev1.GetHeadRequest{Name: "?"})
	refusedField(t, "name", err, isInvalid, "name")

	for i, kind := range []string{"policy", "dataset", "dataset", "removal"} {
		resp, err := n.ledger.GetEntry(n.ctx, &scalev1.GetEntryRequest{Index: int64(i)})
		e := resp.GetEntry()
		if err != nil || e.GetKind() != kind || e.GetIndex() != int64(i) || e.GetCid() != ledger.EntryCID(e.GetBlock()).String() || len(e.GetCurator()) != 32 || e.GetTime() == nil {
			t.Errorf("%d: %v, %v", i, resp, err)
		}
		if (e.GetName() == "a") == (i == 0) || (e.GetRoot() != "") != (kind == "dataset") || (len(e.GetCurators()) == 1) != (i == 0) {
			t.Errorf("%d: %v", i, e)
		}
		if i == 2 && (e.GetCid() != d.GetEntryCid() || e.GetRoot() != d.GetCid()) {
			t.Errorf("%v, want %v", e, d)
		}
	}
	for index, reason := range map[int64]scalev1.ErrorReason{4: isNotFound, math.MaxInt64 - 1: isNotFound, -1: isInvalid, math.MaxInt64: isNotFound} {
		_, err := n.ledger.GetEntry(n.ctx, &scalev1.GetEntryRequest{Index: index})
		refused(t, fmt.Sprint(index), err, reason)
	}
}

func TestStreamEntries(t *testing.T) {
	n := newRawNode(t, nil)
	for i := range 5 {
		n.putFile("a", []byte{byte(i)})
	}
	stream := func(from int64, to *int64) ([]int64, error) {
		messages, err := receive(n.ledger.StreamEntries(n.ctx, &scalev1.StreamEntriesRequest{Start: from, End: to}))
		var got []int64
		for _, m := range messages {
			if len(m.GetEntries()) == 0 || m.GetCheckpoint() != nil {
				t.Errorf("%v", m)
			}
			for _, e := range m.GetEntries() {
				got = append(got, e.GetIndex())
			}
		}
		return got, err
	}
	for _, c := range []struct {
		from int64
		to   *int64
		want string
	}{{0, nil, "[0 1 2 3 4 5]"}, {2, ptr(int64(4)), "[2 3]"}, {6, nil, "[]"}, {3, ptr(int64(3)), "[]"}, {5, ptr(int64(6)), "[5]"}} {
		if got, err := stream(c.from, c.to); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("from %d: %v, %v", c.from, got, err)
		}
	}
	for _, c := range []struct {
		from   int64
		to     *int64
		follow bool
		field  string
	}{{-1, nil, false, "start"}, {7, nil, false, "start"}, {7, nil, true, "start"}, {3, ptr(int64(2)), false, "end"}, {3, ptr(int64(2)), true, "end"}, {0, ptr(int64(7)), false, "end"}} {
		_, err := receive(n.ledger.StreamEntries(n.ctx, &scalev1.StreamEntriesRequest{Start: c.from, End: c.to, Follow: c.follow}))
		refusedField(t, fmt.Sprint(c.from), err, isInvalid, c.field)
	}
}

// Who follows sees what comes later, each with a checkpoint that includes it, up to the
// end that was asked for, or until he ends it.
func TestFollowEntries(t *testing.T) {
	n := newRawNode(t, nil)
	n.putFile("a", []byte("0"))
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	open, err := n.ledger.StreamEntries(ctx, &scalev1.StreamEntriesRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	bounded, err := n.ledger.StreamEntries(n.ctx, &scalev1.StreamEntriesRequest{Start: 1, End: ptr(int64(4)), Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	follow := func(size int64) {
		t.Helper()
		for next < size {
			m, err := open.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range m.GetEntries() {
				if e.GetIndex() != next {
					t.Errorf("entry %d, want %d", e.GetIndex(), next)
				}
				next++
			}
			if c := m.GetCheckpoint(); c != nil && n.opened(c).Size != next {
				t.Errorf("checkpoint of %d with %d entries", c.GetSize(), next)
			} else if c == nil && next == size {
				t.Errorf("no checkpoint at %d", size)
			}
		}
	}
	follow(2)
	for i := range 4 {
		n.putFile("a", []byte{byte(i), 1})
		follow(int64(i) + 3)
	}
	cancel()
	if _, err := open.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
	var got []int64
	for {
		m, err := bounded.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.GetEntries() {
			got = append(got, e.GetIndex())
		}
	}
	if fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("%v", got)
	}
	if all, err := receive(n.ledger.StreamEntries(n.ctx, &scalev1.StreamEntriesRequest{Start: 6, End: ptr(int64(6)), Follow: true})); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestLedgerProofs(t *testing.T) {
	n := newRawNode(t, nil)
	roots := map[int64][]byte{}
	note := func() {
		head, err := n.ledger.GetHead(n.ctx, &scalev1.GetHeadRequest{})
		if err != nil {
			t.Fatal(err)
		}
		roots[head.GetCheckpoint().GetSize()] = head.GetCheckpoint().GetRoot()
	}
	note()
	for i := range 6 {
		n.putFile("a", []byte{byte(i)})
		note()
	}
	for size := int64(1); size <= 7; size++ {
		for i := range size {
			resp, err := n.ledger.GetInclusionProof(n.ctx, &scalev1.GetInclusionProofRequest{Index: i, Size: &size})
			if err != nil {
				t.Fatal(err)
			}
			if err := ledger.CheckInclusion(hashes[tlog.RecordProof](resp.GetHashes()), size, tlog.Hash(resp.GetRoot()), i, tlog.Hash(resp.GetLeaf())); err != nil {
				t.Errorf("%d of %d: %v", i, size, err)
			}
			if !bytes.Equal(resp.GetRoot(), roots[size]) || resp.GetSize() != size || (resp.GetCheckpoint() != nil) != (size == 7) {
				t.Errorf("%d of %d: %v", i, size, resp)
			}
		}
		for from := int64(1); from <= size; from++ {
			resp, err := n.ledger.GetConsistencyProof(n.ctx, &scalev1.GetConsistencyProofRequest{OldSize: from, Size: &size})
			if err != nil {
				t.Fatal(err)
			}
			if err := ledger.CheckConsistency(hashes[tlog.TreeProof](resp.GetHashes()), from, tlog.Hash(resp.GetOldRoot()), size, tlog.Hash(resp.GetRoot())); err != nil {
				t.Errorf("%d to %d: %v", from, size, err)
			}
			if !bytes.Equal(resp.GetOldRoot(), roots[from]) || !bytes.Equal(resp.GetRoot(), roots[size]) || resp.GetSize() != size || (resp.GetCheckpoint() != nil) != (size == 7) {
				t.Errorf("%d to %d: %v", from, size, resp)
			}
		}
	}
	if resp, err := n.ledger.GetInclusionProof(n.ctx, &scalev1.GetInclusionProofRequest{}); err != nil || resp.GetSize() != 7 {
		t.Errorf("%v, %v", resp, err)
	}
	if resp, err := n.ledger.GetConsistencyProof(n.ctx, &scalev1.GetConsistencyProofRequest{OldSize: 3}); err != nil || resp.GetSize() != 7 {
		t.Errorf("%v, %v", resp, err)
	}
	for _, c := range []struct {
		index int64
		size  *int64
		field string
	}{{-1, nil, "index"}, {7, nil, "index"}, {3, ptr(int64(3)), "index"}, {0, ptr(int64(0)), "size"}, {0, ptr(int64(8)), "size"}, {0, ptr(int64(-1)), "size"}} {
		_, err := n.ledger.GetInclusionProof(n.ctx, &scalev1.GetInclusionProofRequest{Index: c.index, Size: c.size})
		refusedField(t, fmt.Sprint(c), err, isInvalid, c.field)
	}
	for _, c := range []struct {
		from  int64
		to    *int64
		field string
	}{{0, nil, "old_size"}, {8, nil, "old_size"}, {-1, nil, "old_size"}, {4, ptr(int64(3)), "old_size"}, {1, ptr(int64(8)), "size"}, {1, ptr(int64(0)), "size"}} {
		_, err := n.ledger.GetConsistencyProof(n.ctx, &scalev1.GetConsistencyProofRequest{OldSize: c.from, Size: c.to})
		refusedField(t, fmt.Sprint(c), err, isInvalid, c.field)
	}
}
