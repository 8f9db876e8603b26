package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// A published is what stands of a ledger outside of its store.
type published struct {
	vkey   string
	blocks [][]byte
	notes  map[int64][]byte // signed checkpoints by size
}

func publish(h *harness) *published {
	h.t.Helper()
	p := &published{vkey: h.s.VerifierKey(), notes: map[int64][]byte{}}
	for e, err := range h.s.Entries(h.ctx, 0, h.s.Published().Size) {
		if err != nil {
			h.t.Fatal(err)
		}
		p.blocks = append(p.blocks, e.Block)
	}
	for size := int64(len(p.blocks)); size > 0; {
		at, note, err := h.s.CheckpointAt(h.ctx, size)
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			h.t.Fatal(err)
		}
		p.notes[at] = note
		size = at - 1
	}
	return p
}

func (p *published) root(t testing.TB, size int64) tlog.Hash {
	t.Helper()
	if size == 0 {
		return ledger.EmptyRoot()
	}
	c, _, err := ledger.ParseCheckpointUnverified(p.notes[size])
	if err != nil {
		t.Fatal(err)
	}
	return c.Root
}

// step is what was new from one size to another, with anchors at sizes.
func (p *published) step(t testing.TB, from, to int64, anchors ...int64) store.RestoreStep {
	t.Helper()
	return store.RestoreStep{
		BaseSize: from, BaseRoot: p.root(t, from), Checkpoint: p.notes[to],
		Records: func(entry func([]byte) error, anchor func(store.RestoredAnchor) error) error {
			scratch := make([]byte, 0, ledger.MaxEntry)
			for _, b := range p.blocks[from:to] {
				// What is given belongs to the callee only until it returns.
				if err := entry(append(scratch[:0], b...)); err != nil {
					return err
				}
			}
			for _, size := range anchors {
				if err := anchor(store.RestoredAnchor{Chain: "k2", Size: size, Checkpoint: p.notes[size], Row: fmt.Appendf(nil, "row %d", size)}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newRestore(t testing.TB, dir, vkey string) *store.Restore {
	t.Helper()
	r, err := store.NewRestore(t.Context(), dir, vkey, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Abort() })
	return r
}

// sourceStore has streams, trees, versions, removals and policies, and what was put.
func sourceStore(t *testing.T) (*harness, map[string]store.Input) {
	h := newHarness(t, store.Options{})
	in := map[string]store.Input{}
	put := func(i store.Input, data []byte) {
		res := h.mustPut(i)
		if data != nil {
			i.Reader = bytes.NewReader(data)
		}
		in[fmt.Sprintf("%s@%d", i.Name, res[0].Version)] = i
	}
	tree := makeTree(t, file{name: "a", data: text(1, 200_000)}, file{name: "d/b", data: random(2, 100_000), mode: 0o600}, file{name: "l", link: "a"}, file{name: "e/"})
	put(stream("one", []byte("small")), []byte("small"))
	put(stream("big", text(3, 3_000_000)), text(3, 3_000_000))
	put(store.Input{Name: "tree", Path: tree}, nil)
	put(stream("one", []byte("smaller")), []byte("smaller"))
	h.admit("a")
	put(stream("empty", nil), []byte{})
	h.mustRemove("one")
	put(stream("one", []byte("again")), []byte("again"))
	var many []store.Input
	for i := range 30 {
		many = append(many, stream(fmt.Sprintf("m%d", i), []byte{byte(i)}))
	}
	for i, r := range h.mustPut(many...) {
		many[i].Reader = bytes.NewReader([]byte{byte(i)})
		in[fmt.Sprintf("%s@%d", r.Name, r.Version)] = many[i]
	}
	return h, in
}

func (h *harness) mustRemove(name string) {
	h.t.Helper()
	if _, err := h.s.Remove(h.ctx, name, store.PutOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// findings checks the store as check does, which is closed meanwhile.
func (h *harness) findings() ([]check.Finding, check.Summary) {
	h.t.Helper()
	h.close()
	lock, err := store.AcquireLock(h.ctx, h.dir, 0, "test")
	if err != nil {
		h.t.Fatal(err)
	}
	var found []check.Finding
	sum, err := check.Run(h.ctx, h.dir, check.Options{ReadData: true, Report: func(f check.Finding) { found = append(found, f) }})
	if err := errors.Join(err, lock.Release()); err != nil {
		h.t.Fatal(err)
	}
	h.open()
	return found, sum
}

func TestRestore(t *testing.T) {
	src, inputs := sourceStore(t)
	p := publish(src)
	size := int64(len(p.blocks))
	dir := filepath.Join(t.TempDir(), "restored")
	r := newRestore(t, dir, p.vkey)
	if err := r.Add(t.Context(), p.step(t, 0, 3, 2)); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(t.Context(), p.step(t, 3, 4)); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(t.Context(), p.step(t, 4, size, size, 2, 7, 4)); err != nil {
		t.Fatal(err)
	}
	if store.Exists(dir) || r.Size() != size {
		t.Errorf("a store before it is finished: %t, %d entries of %d", store.Exists(dir), r.Size(), size)
	}
	if err := r.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(t.Context(), p.step(t, 4, size)); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("after Finish: %v", err)
	}
	h := &harness{t: t, ctx: t.Context(), dir: dir}
	h.open()
	t.Cleanup(h.close)
	if d := cmp.Diff(src.s.Published(), h.s.Published()); d != "" {
		t.Error(d)
	}
	// The log is byte for byte what it was.
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	if err := errors.Join(src.s.ExportLog(h.ctx, a), h.s.ExportLog(h.ctx, b)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(readTree(t, a), readTree(t, b)); d != "" {
		t.Error(d)
	}
	var rows []string
	for row, err := range h.s.Outbox().Rows(h.ctx, "k2", 1) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, string(row))
	}
	if d := cmp.Diff([]string{"row 2", "row 4", "row 7", fmt.Sprint("row ", size)}, rows); d != "" {
		t.Error(d)
	}

	// It resolves and proves, also against what was anchored, and does not append.
	policy, err := proof.TrustKey(p.vkey)
	if err != nil {
		t.Fatal(err)
	}
	for ref := range inputs {
		want, got := src.resolve(ref), h.resolve(ref)
		for _, at := range []int64{0, size, 7, 2} {
			pr, err := h.s.Prove(h.ctx, got, store.ProveOptions{At: at})
			if at != 0 && at <= got.Dataset.Entry {
				if !errors.Is(err, store.ErrInvalid) {
					t.Errorf("%s at %d: %v", ref, at, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s at %d: %v", ref, at, err)
			}
			if v, err := pr.Verify(proof.Trust{Policy: policy}); err != nil || at != 0 && v.Checkpoint.Size != at {
				t.Errorf("%s at %d: %v", ref, at, err)
			}
		}
		got.Dataset.Kind, got.Info = want.Dataset.Kind, want.Info
		got.Dataset.NewBytes, got.Dataset.Stored = want.Dataset.NewBytes, want.Dataset.Stored
		if d := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); d != "" {
			t.Error(d)
		}
	}
	if _, err := h.s.Prove(h.ctx, h.resolve("one@1"), store.ProveOptions{At: 6}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a checkpoint that was not restored: %v", err)
	}
	versions := 0
	for v, err := range h.s.History(h.ctx, "one") {
		if err != nil {
			t.Fatal(err)
		}
		if versions++; (v.Removal != nil) != (versions == 3) {
			t.Errorf("version %d: %+v", versions, v)
		}
	}
	if versions != 4 {
		t.Errorf("%d versions", versions)
	}
	notAppended := func() {
		t.Helper()
		_, err := h.put(stream("new", []byte("new")))
		if !errors.Is(err, store.ErrReadOnly) || !strings.Contains(err.Error(), "scale log resume") || h.s.Doubt() == nil {
			t.Errorf("put: %v", err)
		}
		if _, _, err := h.s.AddCurator(h.ctx, ledger.CuratorKey{1}, nil); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("policy: %v", err)
		}
	}
	notAppended()
	for _, ref := range []string{"big", "tree", "one@1"} {
		o := h.resolve(ref)
		if _, err := h.s.Get(h.ctx, o, nil, &bytes.Buffer{}); !errors.Is(err, store.ErrMissing) || errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "--heal") {
			t.Errorf("get %s: %v", ref, err)
		}
	}
	if err := h.s.GetTree(h.ctx, h.resolve("tree"), treeMap{}); !errors.Is(err, store.ErrMissing) {
		t.Errorf("tree: %v", err)
	}
	if _, err := h.s.Prove(h.ctx, h.resolve("big"), store.ProveOptions{Range: &store.Range{To: 1}}); !errors.Is(err, store.ErrMissing) {
		t.Errorf("range: %v", err)
	}
	if _, err := h.s.Resolve(h.ctx, "tree/a"); !errors.Is(err, store.ErrMissing) {
		t.Errorf("path: %v", err)
	}
	if tot, err := h.s.Totals(h.ctx); err != nil || tot.Datasets != int64(len(inputs)) || tot.Chunks != 0 {
		t.Errorf("%+v, %v", tot, err)
	}

	missing := func() (refs []string) {
		t.Helper()
		for m, err := range h.s.MissingDatasets(h.ctx) {
			if err != nil {
				t.Fatal(err)
			}
			refs = append(refs, fmt.Sprintf("%s@%d", m.Name, m.Version))
		}
		slices.Sort(refs)
		return refs
	}
	var all []string
	for ref := range inputs {
		if ref != "empty@1" { // which has no blocks
			all = append(all, ref)
		}
	}
	slices.Sort(all)
	if d := cmp.Diff(all, missing()); d != "" {
		t.Error(d)
	}
	found, sum := h.findings()
	if !sum.Sound() || sum.Missing != uint64(len(inputs)) || sum.Warnings != sum.Missing {
		t.Errorf("%+v %+v", sum, found)
	}

	// Blocks are given back one by one.
	heal := func(i store.Input) (store.PutResult, error) {
		i.Heal = true
		res, err := h.put(i)
		if err != nil {
			return store.PutResult{}, err
		}
		return res[0], nil
	}
	if _, err := heal(stream("", []byte("never put"))); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("data of no entry: %v", err)
	}
	if _, err := heal(stream("tree", []byte("small"))); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("data under another name: %v", err)
	}
	// The blocks of what was refused are there, though.
	left := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == "one@1" })
	for ref, i := range inputs {
		if strings.HasPrefix(ref, "m") {
			i.Name = "" // whatever it was called
		}
		res, err := heal(i)
		if err != nil || !res.Unchanged || res.TreeSize != size || fmt.Sprintf("%s@%d", res.Name, res.Version) != ref {
			t.Errorf("heal %s: %+v, %v", ref, res, err)
		}
		left = slices.DeleteFunc(left, func(s string) bool { return s == ref })
		if d := cmp.Diff(left, missing(), cmpEmpty); d != "" {
			t.Errorf("after %s: %s", ref, d)
		}
		if ref != "tree@1" && !bytes.Equal(h.get(ref), src.get(ref)) {
			t.Errorf("%s is not what it was", ref)
		}
	}
	if d := cmp.Diff(src.tree("tree"), h.tree("tree")); d != "" {
		t.Error(d)
	}
	h.verify("big", store.ProveOptions{Range: &store.Range{From: 100, To: 5000}})
	h.verify("tree/d/b", store.ProveOptions{})
	notAppended()
	h.check()
	notAppended()
	resume(t, src, h)
}

var cmpEmpty = cmp.FilterValues(func(a, b []string) bool { return len(a) == 0 && len(b) == 0 }, cmp.Comparer(func(_, _ []string) bool { return true }))

// resume lets a restored store append again.
func resume(t *testing.T, src, h *harness) {
	size := h.s.Published().Size
	h.close()
	key := filepath.Join(src.dir, "keys", "log.key")
	seen := func(n int64, err error) func(context.Context) (int64, error) {
		return func(context.Context) (int64, error) { return n, err }
	}
	other := filepath.Join(newHarness(t, store.Options{}).dir, "keys", "log.key")
	for what, c := range map[string]struct {
		o    store.ResumeOptions
		want error
		says string
	}{
		"nobody to ask":             {store.ResumeOptions{LogKey: key}, store.ErrInvalid, ""},
		"chains cannot be reached":  {store.ResumeOptions{LogKey: key, Seen: seen(0, errors.New("down"))}, store.ErrReadOnly, "down"},
		"more was signed":           {store.ResumeOptions{LogKey: key, Seen: seen(size+1, nil)}, store.ErrReadOnly, "init --successor"},
		"more was signed, not sure": {store.ResumeOptions{LogKey: key, Seen: seen(size+1, errors.New("down"))}, store.ErrReadOnly, "init --successor"},
		"another log's key":         {store.ResumeOptions{LogKey: other, Seen: seen(size, nil)}, store.ErrKeys, ""},
		"no key":                    {store.ResumeOptions{LogKey: other + "x", Seen: seen(size, nil)}, store.ErrKeys, ""},
	} {
		if err := store.Resume(h.ctx, h.dir, c.o); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "keys", "log.key")); err == nil {
			t.Fatalf("%s: the key is there", what)
		}
	}
	if err := store.Resume(h.ctx, h.dir, store.ResumeOptions{LogKey: key, Seen: seen(size, nil)}); err != nil {
		t.Fatal(err)
	}
	if err := store.Resume(h.ctx, h.dir, store.ResumeOptions{LogKey: key, Seen: seen(size, nil)}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("again: %v", err)
	}
	curator, err := store.LoadCurator(filepath.Join(src.dir, "keys", "curator.json"))
	if err != nil {
		t.Fatal(err)
	}
	h.open()
	if h.s.Doubt() != nil || h.s.Restored() != size {
		t.Errorf("%v, %d", h.s.Doubt(), h.s.Restored())
	}
	res, err := h.s.Put(h.ctx, []store.Input{stream("new", []byte("new")), {Name: "copy", Known: h.resolve("big").CID}}, store.PutOptions{Curator: curator})
	if err != nil || res[0].Entry != size || res[1].Entry != size+1 {
		t.Fatalf("%+v, %v", res, err)
	}
	h.verify("new", store.ProveOptions{})
	found, sum := h.findings()
	if !sum.Sound() || sum.Missing != 0 {
		t.Errorf("%+v", found)
	}
}
