package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

var auditSeed = []byte("a seed that nobody could know before")

// challenge asks for samples and verifies them, with the manifest and without.
func (h *harness) challenge(ref string, count int) (*audit.Result, error) {
	h.t.Helper()
	o := h.resolve(ref)
	c, err := h.s.Challenge(h.ctx, o, auditSeed, count)
	if err != nil {
		return nil, err
	}
	policy, err := proof.TrustKey(h.s.VerifierKey())
	if err != nil {
		h.t.Fatal(err)
	}
	trust := proof.Trust{Policy: policy}
	manifest, err := h.s.Prove(h.ctx, o, store.ProveOptions{Manifest: true})
	if err != nil {
		h.t.Fatal(err)
	}
	challenge := audit.Challenge{Seed: auditSeed, Count: count}
	full, err := audit.Verify(challenge, c.Head, c.Samples, trust, manifest)
	if err != nil {
		return nil, err
	}
	claimed, err := audit.Verify(challenge, c.Head, c.Samples, trust, nil)
	if err != nil {
		h.t.Errorf("without manifest: %v", err)
	} else if claimed.FilesProven != (o.Dataset.Files == 1) || claimed.Submission().Response != full.Submission().Response {
		h.t.Errorf("without manifest: %+v, with: %+v", claimed, full)
	}
	return full, nil
}

func TestChallenge(t *testing.T) {
	h := newHarness(t, store.Options{})
	files := []file{
		{name: "a", data: text(1, 300_000)}, {name: "b/c", data: random(2, 500_000), mode: 0o600}, {name: "b/empty"}, {name: "b/link", link: "../a"},
		{name: "b/void/"}, {name: "c", data: []byte("one chunk")}, {name: "d", data: text(1, 300_000), mode: 0o755}, {name: "e", data: random(3, 1)},
	}
	for i := range 300 {
		files = append(files, file{name: fmt.Sprintf("many/%03d", i), data: text(uint64(i), 100+i)})
	}
	h.mustPut(store.Input{Name: "tree", Path: makeTree(t, files...)}, stream("stream", text(4, 700_000)), stream("byte", []byte{7}), stream("large", random(5, 9<<20)))
	for ref, counts := range map[string][]int{"tree": {1, 2, 300}, "stream": {1, 70}, "byte": {1, 30}, "large": {100}} {
		for _, n := range counts {
			r, err := h.challenge(ref, n)
			if err != nil {
				t.Errorf("%s, %d samples: %v", ref, n, err)
				continue
			}
			if !r.FilesProven || r.Verified.Entry.Name != ref {
				t.Errorf("%s: %+v", ref, r)
			}
		}
	}
	o := h.resolve("tree")
	for what, c := range map[string]struct {
		o     store.Object
		seed  []byte
		count int
	}{
		"file":       {h.resolve("tree/a"), auditSeed, 1},
		"no seed":    {o, nil, 1},
		"short seed": {o, auditSeed[:15], 1},
		"long seed":  {o, make([]byte, 65), 1},
		"no samples": {o, auditSeed, 0},
		"many":       {o, auditSeed, 1025},
	} {
		if _, err := h.s.Challenge(h.ctx, c.o, c.seed, c.count); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.mustPut(stream("empty", nil), store.Input{Name: "void", Path: makeTree(t)})
	for _, ref := range []string{"empty", "void"} {
		if _, err := h.s.Challenge(h.ctx, h.resolve(ref), auditSeed, 1); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	// A consumer may have enough.
	c, err := h.s.Challenge(h.ctx, o, auditSeed, 100)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := first(c.Samples); err != nil || s.Draw != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	ctx, cancel := context.WithCancel(h.ctx)
	if c, err = h.s.Challenge(ctx, o, auditSeed, 100); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := first(c.Samples); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A node whose index is whole and whose packs are not fails, whatever it has read
// before.
func TestChallengeWithoutPacks(t *testing.T) {
	pack := func(h *harness) string { return filepath.Join(h.dir, "packs", "00000001.pack") }
	for what, lose := range map[string]func(h *harness) error{
		"removed": func(h *harness) error { return os.Remove(pack(h)) },
		"emptied": func(h *harness) error { return os.Truncate(pack(h), 0) },
		"zeroes": func(h *harness) error {
			st, err := os.Stat(pack(h))
			if err != nil {
				return err
			}
			return os.WriteFile(pack(h), make([]byte, st.Size()), 0o600)
		},
	} {
		for _, reopen := range []bool{false, true} {
			h := newHarness(t, store.Options{})
			h.mustPut(stream("x", text(1, 900_000)))
			if _, err := h.challenge("x", 20); err != nil {
				t.Fatal(err)
			}
			if got := h.get("x"); !bytes.Equal(got, text(1, 900_000)) {
				t.Fatal("x is not what was put")
			}
			if err := lose(h); err != nil {
				t.Fatal(err)
			}
			if reopen {
				h.reopen()
			}
			// A digest and where it lies are still there.
			c, err := h.s.Challenge(h.ctx, h.resolve("x"), auditSeed, 20)
			if err != nil {
				t.Fatal(err)
			}
			var n int
			for _, err = range c.Samples {
				n++
			}
			var chunk *store.ChunkError
			if n != 1 || !errors.Is(err, store.ErrCorrupt) || !errors.As(err, &chunk) {
				t.Errorf("%s, reopened %t: %d samples, %v", what, reopen, n, err)
			}
		}
	}
}

// What is answered for other data, though it be of the same size, is refused.
func TestChallengeIsAnsweredByTheData(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", text(1, 400_000)), stream("y", text(2, 400_000)))
	policy, err := proof.TrustKey(h.s.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	x, err := h.s.Challenge(h.ctx, h.resolve("x"), auditSeed, 5)
	if err != nil {
		t.Fatal(err)
	}
	y, err := h.s.Challenge(h.ctx, h.resolve("y"), auditSeed, 5)
	if err != nil {
		t.Fatal(err)
	}
	challenge := audit.Challenge{Seed: auditSeed, Count: 5}
	for what, samples := range map[string]iter.Seq2[audit.Sample, error]{"y for x": y.Samples} {
		if _, err := audit.Verify(challenge, x.Head, samples, proof.Trust{Policy: policy}, nil); !errors.Is(err, audit.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
