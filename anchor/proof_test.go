package anchor_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

// noteChain has transactions that are the checkpoint and nothing else.
type noteChain struct{}

func (noteChain) Name() string { return "k2" }

func (noteChain) Open(r anchor.Receipt) (anchor.Anchored, error) {
	return anchor.Anchored{ID: "id", Checkpoint: r.Raw, Signer: "us"}, nil
}

// A proof takes the receipts out of a store's outbox, and whoever has nothing but its
// bytes and the log's key finds what they prove.
func TestProofWithReceipts(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "store")
	if err := store.Init(ctx, dir, store.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(name string) {
		t.Helper()
		if _, err := s.Put(ctx, []store.Input{{Name: name, Reader: bytes.NewReader([]byte(name))}}, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	box := s.Outbox()
	anchored := func() {
		t.Helper()
		size, note, _ := s.Newest()
		r := anchor.Receipt{Chain: "k2", Raw: note, Network: "test", Height: uint64(size), Block: fmt.Sprint("block ", size), Time: 1790000000, Final: true}
		row, err := anchor.RestoredRow(r, noteChain{})
		var b []byte
		if err == nil {
			b, err = row.Encode()
		}
		if err == nil {
			err = box.Put(ctx, "k2", size, b, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	put("b")
	put("c")
	anchored() // of 4 entries
	put("d")
	anchored() // of 5
	put("e")

	path := func(ctx context.Context, index, size int64) (tlog.RecordProof, error) {
		p, err := s.Inclusion(ctx, index, size)
		return p.Hashes, err
	}
	policy, err := proof.TrustKey(s.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		receipts int
		size     int64 // of the proof's own checkpoint
	}{"a": {1, 4}, "c": {1, 4}, "d": {1, 5}, "e": {0, 6}} {
		o, err := s.Resolve(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		chains, err := box.Chains(ctx)
		if err != nil {
			t.Fatal(err)
		}
		claims, at, err := anchor.Attach(ctx, box, chains, o.Dataset.Entry, path)
		if err != nil {
			t.Fatal(err)
		}
		// Against the anchored checkpoint, and against the newest: both hold.
		for _, at := range []int64{at, 0} {
			p, err := s.Prove(ctx, o, store.ProveOptions{At: at})
			if err != nil {
				t.Fatal(err)
			}
			var receipts []proof.Receipt
			for _, c := range claims {
				receipts = append(receipts, proof.Receipt{Data: c.Receipt, Size: c.Size, Path: c.Path})
			}
			if err := p.SetReceipts(receipts); err != nil {
				t.Fatal(err)
			}
			b, err := p.Format()
			if err != nil {
				t.Fatal(err)
			}
			if p, err = proof.Parse(b); err != nil {
				t.Fatal(err)
			}
			v, err := p.Verify(proof.Trust{Policy: policy})
			if err != nil {
				t.Fatal(err)
			}
			if at != 0 && v.Checkpoint.Size != want.size {
				t.Errorf("%s: proven at %d", name, v.Checkpoint.Size)
			}
			claims = nil
			for _, r := range v.Receipts {
				claims = append(claims, anchor.Claim{Receipt: r.Data, Size: r.Size, Path: r.Path})
			}
			list := anchor.CheckEvidence(claims, anchor.EvidenceOptions{
				Index: v.Index, Leaf: ledger.LeafHash(p.EntryBlock), Open: v.OpenCheckpoint, Verifiers: map[string]anchor.Verifier{"k2": noteChain{}},
			})
			if len(list) != want.receipts {
				t.Errorf("%s: %d receipts", name, len(list))
			}
			for _, e := range list {
				if !e.Holds() || e.Checkpoint.Size != want.size || time.Unix(e.Receipt.Time, 0).Year() != 2026 {
					t.Errorf("%s: %s", name, e.Proven())
				}
			}
		}
	}
}
