package anchor_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/extension"
	"github.com/koii-network/scale/store"
)

// stepOf is what a store restores of an extension: its entries, and the anchors that
// it brings.
func stepOf(b *extension.Bundle, own []anchor.Receipt) store.RestoreStep {
	return store.RestoreStep{
		BaseSize: b.Base.Size, BaseRoot: tlog.Hash(b.Base.Root), Checkpoint: b.Checkpoint,
		Records: func(entry func([]byte) error, keep func(store.RestoredAnchor) error) error {
			add := func(r anchor.Receipt) error {
				row, err := anchor.RestoredRow(r, noteChain{})
				if err != nil {
					return err
				}
				enc, err := row.Encode()
				if err != nil {
					return err
				}
				return keep(store.RestoredAnchor{Chain: row.Chain, Size: row.Size, Checkpoint: row.Checkpoint, Row: enc})
			}
			for _, r := range own {
				if err := add(r); err != nil {
					return err
				}
			}
			return b.Records(func(_ int64, block []byte) error { return entry(block) }, add)
		},
	}
}

// A ledger comes back from its extensions alone, with the anchors that they carry, and
// goes on proving against them.
func TestRestoreFromExtensions(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "store")
	if err := store.Init(ctx, dir, store.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	to := filepath.Join(t.TempDir(), "restored")
	r, err := store.NewRestore(ctx, to, s.VerifierKey(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Abort()
	var last anchor.Link
	for i := range 3 {
		var receipts []anchor.Receipt
		for j := range 2 {
			in := store.Input{Name: "n", Reader: bytes.NewReader([]byte{byte(i), byte(j)})}
			if _, err := s.Put(ctx, []store.Input{in}, store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			_, note, _ := s.Newest()
			receipts = append(receipts, anchor.Receipt{Chain: "k2", Raw: note, Network: "net", Block: "b", Time: 1790000000, Final: true})
		}
		size, note, _ := s.Newest()
		body, err := extension.Encode(ctx, anchor.Extension{Base: last, Size: size, Checkpoint: note, Receipts: receipts}, blocksOf(ctx, s, last.Size, size))
		if err != nil {
			t.Fatal(err)
		}
		b, err := extension.Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		own := anchor.Receipt{Chain: "arweave", Raw: note, Network: "net", Block: "b", Time: 1790000000, Final: true}
		if err := r.Add(ctx, stepOf(b, []anchor.Receipt{own})); err != nil {
			t.Fatal(err)
		}
		root, err := s.RootAt(ctx, size)
		if err != nil {
			t.Fatal(err)
		}
		last = anchor.Link{ID: fmt.Sprint("tx", i), Size: size, Root: root[:]}
	}
	if err := r.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	back, err := store.Open(ctx, to, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if got, want := back.Published(), s.Published(); got.Root != want.Root || !bytes.Equal(got.Checkpoint, want.Checkpoint) {
		t.Errorf("%+v, want %+v", got, want)
	}
	box := back.Outbox()
	chains, err := box.Chains(ctx)
	if err != nil || len(chains) != 2 {
		t.Fatalf("%v, %v", chains, err)
	}
	path := func(ctx context.Context, index, size int64) (tlog.RecordProof, error) {
		p, err := back.Inclusion(ctx, index, size)
		return p.Hashes, err
	}
	// Entry 1 was on K2 first, and then in the first extension.
	claims, at, err := anchor.Attach(ctx, box, chains, 1, path)
	if err != nil || len(claims) != 2 || claims[0].Size != 2 || claims[1].Size != 3 || at != 2 {
		t.Errorf("%+v at %d, %v", claims, at, err)
	}
	o, err := back.Resolve(ctx, "n@1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := back.Prove(ctx, o, store.ProveOptions{At: at}); err != nil {
		t.Error(err)
	}
	row, err := anchor.NewestFinal(ctx, box, "arweave")
	if err != nil || row == nil || row.Size != last.Size {
		t.Errorf("%+v, %v", row, err)
	}
}

func blocksOf(ctx context.Context, s *store.Store, from, to int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for e, err := range s.Entries(ctx, from, to) {
			if !yield(e.Block, err) {
				return
			}
		}
	}
}
