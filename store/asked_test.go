package store_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
)

// What was missing when somebody asked and was stored by somebody else since, long ago, is
// not stored and counted again.
func TestStoredSinceAsked(t *testing.T) {
	h := newHarness(t, store.Options{})
	var chunks [][]byte
	var digests []dag.Digest
	for i := range 20 {
		chunks = append(chunks, random(uint64(i), 3000))
		digests = append(digests, sha256.Sum256(chunks[i]))
	}
	missing := func(want int) {
		t.Helper()
		if got, err := h.s.Missing(h.ctx, digests); err != nil || len(got) != want {
			t.Fatalf("%d missing, %v, want %d", len(got), err, want)
		}
	}
	upload := func(want int, chunks ...[]byte) {
		t.Helper()
		u := h.s.NewUpload()
		got, err := u.Add(h.ctx, sealed(t, chunks...))
		if err := errors.Join(err, u.Finish(h.ctx)); err != nil || got.Duplicate != want {
			t.Fatalf("%+v, %v, want %d duplicates", got, err, want)
		}
	}
	// Of a store that has chunks when it is opened every look-up is remembered (see absence).
	upload(0, []byte("what an earlier process stored, not less"))
	h.reopen()
	missing(20)
	upload(0, chunks[:12]...)
	missing(8)
	// More than the writer remembers of what it has stored.
	for i := range 3 {
		many := make([][]byte, 4096)
		for j := range many {
			many[j] = binary.LittleEndian.AppendUint32(nil, uint32(i<<16|j))
		}
		upload(0, many...)
	}
	missing(8)
	upload(12, chunks...)
	missing(0)
	total, err := h.s.Totals(h.ctx)
	if err != nil || total.Chunks != 21+3*4096 || total.Unique != 20*3000+3*4096*4+40 {
		t.Errorf("%+v, %v", total, err)
	}
	// A chunk of another length is not the one that is stored, though it has its digest.
	_, err = h.put(store.Input{Name: "x", Source: &source{{Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o644}, Chunks: func(yield func(store.Chunk, error) bool) {
		yield(store.Chunk{Digest: digests[0], Size: 2999}, nil)
	}}}})
	if !errors.Is(err, store.ErrMismatch) {
		t.Errorf("%v, want ErrMismatch", err)
	}
	h.check()
}
