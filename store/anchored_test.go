package store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/badgerkv"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
)

func copyStore(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"keys/log.key", "keys/curator.json"} {
		if err := os.Chmod(filepath.Join(to, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// A ledger that is smaller than what it anchored reads, and says what to do.
func TestSmallerThanAnchored(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("a", []byte("1")))
	size := h.s.Published().Size
	box := h.s.Outbox()
	put := func(chain string, size int64, open bool) {
		t.Helper()
		if err := box.Put(h.ctx, chain, size, []byte("row"), open); err != nil {
			t.Fatal(err)
		}
	}
	put("arweave", 1, false)
	put("k2", size, true)
	put("z", 1, false)
	h.reopen()
	box = h.s.Outbox()
	h.mustPut(stream("a", []byte("2")))
	if chains, err := box.Chains(h.ctx); err != nil || !slices.Equal(chains, []string{"arweave", "k2", "z"}) {
		t.Errorf("%v, %v", chains, err)
	}
	h.check()
	box = h.s.Outbox()
	put("arweave", size+5, false)
	h.reopen()
	_, err := h.put(stream("a", []byte("3")))
	if !errors.Is(err, store.ErrReadOnly) || !strings.Contains(err.Error(), fmt.Sprint(size+5)) || !strings.Contains(err.Error(), "scale restore") || h.s.Doubt() == nil {
		t.Errorf("put: %v", err)
	}
	if got := h.get("a"); string(got) != "2" {
		t.Errorf("%q", got)
	}
	found, sum := h.findings()
	if sum.Sound() || !strings.Contains(fmt.Sprint(found), "was anchored on arweave") {
		t.Errorf("%+v", found)
	}
}

// What is wrong with the outbox is found.
func TestCheckOutbox(t *testing.T) {
	for what, c := range map[string]struct {
		key  string
		want string
		del  bool
	}{
		"nothing":          {},
		"row gone":         {key: "ak2\x00r\x00\x00\x00\x00\x00\x00\x00\x02", del: true, want: "has no row"},
		"row in no list":   {key: "ak2\x00v\xff\xff\xff\xff\xff\xff\xff\xfd", del: true, want: "in no list"},
		"no such kind":     {key: "ak2\x00x\x00\x00\x00\x00\x00\x00\x00\x02", want: "not of the form"},
		"chain not a name": {key: "aK2\x00r\x00\x00\x00\x00\x00\x00\x00\x02", want: "not of the form"},
		"cut short":        {key: "ak2\x00r", want: "not of the form"},
	} {
		h := newHarness(t, store.Options{})
		h.mustPut(stream("a", []byte("1")))
		if err := h.s.Outbox().Put(h.ctx, "k2", 2, []byte("row"), true); err != nil {
			t.Fatal(err)
		}
		if err := h.s.Outbox().PutBody(h.ctx, "k2", 2, []byte("body")); err != nil {
			t.Fatal(err)
		}
		h.close()
		if c.key != "" {
			db, err := badgerkv.Open(filepath.Join(h.dir, "kv"), badgerkv.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var b kv.Batch
			if c.del {
				b.Delete([]byte(c.key))
			} else {
				b.Set([]byte(c.key), []byte("x"))
			}
			if err := errors.Join(db.Commit(t.Context(), &b), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
		var found []check.Finding
		sum, err := check.Run(t.Context(), h.dir, check.Options{Report: func(f check.Finding) { found = append(found, f) }})
		if err != nil || sum.Sound() != (c.want == "") || !strings.Contains(fmt.Sprint(found), c.want) {
			t.Errorf("%s: %+v, %v", what, found, err)
		}
	}
}

// After an unclean stop, and in a copy that was put back, the first append asks once
// whether more was signed.
func TestSeen(t *testing.T) {
	var asked int
	var size int64
	var seenErr error
	opt := store.Options{Seen: func(ctx context.Context) (int64, error) {
		if at, ok := ctx.Deadline(); !ok || time.Until(at) > time.Minute {
			t.Error("no short deadline")
		}
		asked++
		return size, seenErr
	}}
	h := newHarness(t, opt)
	want := func(what string, n int) {
		t.Helper()
		if asked != n {
			t.Errorf("%s: asked %d times, want %d", what, asked, n)
		}
		asked = 0
	}
	h.mustPut(stream("a", []byte("1")))
	want("a new store", 0)
	h.reopen()
	h.mustPut(stream("a", []byte("2")))
	want("closed", 0)
	h.reopen()
	h.reopen()
	h.mustPut(stream("a", []byte("3")))
	want("read in between", 0)

	// A copy of a store that is in use is what a kill leaves.
	old := copyStore(t, h.dir)
	h.mustPut(stream("a", []byte("4")))
	newest := h.s.Published().Size
	killed := &harness{t: t, ctx: h.ctx, dir: old, opt: opt}
	killed.open()
	t.Cleanup(killed.close)
	if string(killed.get("a")) != "3" {
		t.Error("reads something else")
	}
	want("reading", 0)
	size = newest
	for range 2 {
		_, err := killed.put(stream("a", []byte("other")))
		if !errors.Is(err, store.ErrReadOnly) || !strings.Contains(err.Error(), fmt.Sprint("checkpoint of ", newest)) || killed.s.Doubt() == nil {
			t.Errorf("appends to an old copy: %v", err)
		}
	}
	want("old copy", 1)
	killed.reopen()
	if _, err := killed.put(stream("a", []byte("other"))); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("after reopening: %v", err)
	}
	want("old copy, opened again", 1)
	killed.reopen()
	size, seenErr = newest-1, errors.New("one endpoint did not answer")
	killed.mustPut(stream("a", []byte("4")))
	killed.mustPut(stream("a", []byte("5")))
	want("chains cannot be reached", 1)
	killed.reopen()
	killed.mustPut(stream("a", []byte("6")))
	want("closed since", 0)

	// A copy of a store that was closed is one all the same.
	h.close()
	backup := &harness{t: t, ctx: h.ctx, dir: copyStore(t, h.dir), opt: opt}
	backup.open()
	t.Cleanup(backup.close)
	size = 0
	backup.mustPut(stream("a", []byte("7")))
	want("copy of a closed store", 1)
	// And so is one that was given other content in place.
	backup.close()
	if err := os.WriteFile(filepath.Join(backup.dir, "closed"), []byte("1.2 3 4.5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	backup.open()
	backup.mustPut(stream("a", []byte("8")))
	want("mark of another file", 1)
	backup.check()
	// A store that was moved is still the same.
	backup.close()
	moved := backup.dir + ".moved"
	if err := os.Rename(backup.dir, moved); err != nil {
		t.Fatal(err)
	}
	backup.dir = moved
	backup.open()
	backup.mustPut(stream("a", []byte("9")))
	want("moved", 0)
}

func TestProveAt(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("a", []byte("1")))
	h.mustPut(stream("b", []byte("1")), stream("c", []byte("2")))
	h.mustPut(stream("d", []byte("1")))
	for at, want := range map[int64]error{0: nil, 2: nil, 3: store.ErrNotFound, 4: nil, 5: nil, 1: store.ErrInvalid, -1: store.ErrInvalid, 6: store.ErrInvalid} {
		p, err := h.s.Prove(h.ctx, h.resolve("a"), store.ProveOptions{At: at})
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("at %d: %v", at, err)
		}
		if err != nil {
			continue
		}
		policy, err := proof.TrustKey(h.s.VerifierKey())
		if err != nil {
			t.Fatal(err)
		}
		if v, err := p.Verify(proof.Trust{Policy: policy}); err != nil || at > 0 && v.Checkpoint.Size != at {
			t.Errorf("at %d: %+v, %v", at, v, err)
		}
	}
}

// A log that carries another one on says so in entry 0.
func TestSuccessor(t *testing.T) {
	old := newHarness(t, store.Options{})
	old.mustPut(stream("a", []byte("1")))
	last := old.s.Published().Checkpoint
	skey, _, err := note.GenerateKey(rand.Reader, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(old.s.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(last, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := note.Sign(n, witness)
	if err != nil {
		t.Fatal(err)
	}
	for what, note := range map[string][]byte{"plain": last, "cosigned": cosigned} {
		h := &harness{t: t, ctx: t.Context(), dir: filepath.Join(t.TempDir(), "new")}
		if err := store.Init(h.ctx, h.dir, store.InitOptions{Successor: &store.Successor{Checkpoint: note, VKey: old.s.VerifierKey()}}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		h.open()
		t.Cleanup(h.close)
		for e, err := range h.s.Entries(h.ctx, 0, 1) {
			if err != nil || !bytes.Equal(e.Entry.Predecessor, last) {
				t.Errorf("%s: %v, %v", what, e.Entry, err)
			}
			if c, err := e.Entry.OpenPredecessor(v); err != nil || c.Size != 2 {
				t.Errorf("%s: %+v, %v", what, c, err)
			}
		}
		h.mustPut(stream("a", []byte("1")))
		h.check()
	}
	_, wrong, err := note.GenerateKey(rand.Reader, "test.example/log")
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]store.Successor{
		"another key":    {Checkpoint: last, VKey: wrong},
		"no key":         {Checkpoint: last},
		"no checkpoint":  {VKey: old.s.VerifierKey()},
		"its own origin": {Checkpoint: bytes.Replace(last, []byte("\n2\n"), []byte("\n3\n"), 1), VKey: old.s.VerifierKey()},
	} {
		dir := filepath.Join(t.TempDir(), "x")
		if err := store.Init(t.Context(), dir, store.InitOptions{Successor: &s}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: something was made", what)
		}
	}
}

// Lost blocks of any version can be put again without a new entry.
func TestHeal(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("a", text(1, 100_000)))
	h.mustPut(stream("a", []byte("2")))
	size := h.s.Published().Size
	in := func(name string, b []byte) store.Input {
		i := stream(name, b)
		i.Heal = true
		return i
	}
	res, err := h.put(in("", text(1, 100_000)), in("", []byte("2")))
	if err != nil || res[0].Version != 1 || res[1].Version != 2 || h.s.Published().Size != size {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := h.put(in("a", []byte("3"))); !errors.Is(err, store.ErrMismatch) || h.s.Published().Size != size {
		t.Errorf("something else: %v", err)
	}
	other := in("a", []byte("2"))
	other.Profile = "nonsense"
	if _, err := h.put(other); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("unknown profile: %v", err)
	}
	if _, err := h.put(in("", []byte("2")), stream("b", []byte("b"))); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("heal and put: %v", err)
	}
	if _, err := h.put(stream("b", []byte("b")), in("", []byte("2"))); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("put and heal: %v", err)
	}
	b, err := h.s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Add(h.ctx, in("", []byte("2")), store.Uploaded{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(h.ctx, stream("b", []byte("2")), store.Uploaded{}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("batch: %v", err)
	}
	if res, err := b.Commit(h.ctx); err != nil || res[0].Version != 2 || h.s.Published().Size != size {
		t.Errorf("batch: %+v, %v", res, err)
	}
	for m, err := range h.s.MissingDatasets(h.ctx) {
		t.Errorf("a store that was not restored: %+v, %v", m, err)
	}
	h.check()
}
