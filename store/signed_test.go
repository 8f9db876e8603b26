package store_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// entryOf is the entry that a curator elsewhere would sign for what the store has as
// d, under another name.
func (h *harness) entryOf(d store.Dataset, name string) *ledger.Entry {
	h.t.Helper()
	head, err := h.s.Head(h.ctx, name)
	if err != nil {
		h.t.Fatal(err)
	}
	e := &ledger.Entry{
		Kind: ledger.KindDataset, Name: name, Root: d.CID, Size: d.Size, Files: d.Files, Leaves: d.Leaves, Chunks: d.Chunks,
		Commitment: d.Commitment, Profile: d.Profile, Times: d.Times, Policy: head.Policy, Previous: head.Newest,
		Time: time.Date(2020, 2, 3, 4, 5, 6, 789e6, time.UTC),
	}
	if head.Newest >= 0 {
		for n, err := range h.s.Entries(h.ctx, head.Newest, head.Newest+1) {
			if err != nil {
				h.t.Fatal(err)
			}
			if n.Entry.Kind == ledger.KindDataset {
				e.Parents = []cid.Cid{n.CID}
			}
		}
	}
	return e
}

// signed signs an entry as a curator elsewhere does.
func (h *harness) signed(e *ledger.Entry, key store.Ed25519Signer) store.Signer {
	h.t.Helper()
	if err := e.Sign(h.s.LogID(), ed25519.PrivateKey(key)); err != nil {
		h.t.Fatal(err)
	}
	block, err := e.Marshal()
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := store.Signed(block)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *harness) admit(name string) store.Ed25519Signer {
	h.t.Helper()
	key := curatorKey(name)
	if _, _, err := h.s.AddCurator(h.ctx, key.Curator(), nil); err != nil {
		h.t.Fatal(err)
	}
	return key
}

func TestSignedElsewhere(t *testing.T) {
	h := newHarness(t, store.Options{})
	key := h.admit("publisher")
	data := text(1, 200_000)
	draft := h.mustPut(stream("draft", data))[0].Dataset
	e := h.entryOf(draft, "final")
	res := h.mustPut(store.Input{Name: "final", Known: draft.CID, Curator: h.signed(e, key)})[0]
	if res.Curator != key.Curator() || !res.Time.Equal(e.Time) || res.CID != draft.CID || res.Version != 1 || res.Unchanged {
		t.Errorf("%+v", res)
	}
	// The same with the data, and a version further.
	other := h.mustPut(stream("draft", text(2, 100_000)))[0].Dataset
	in := stream("final", text(2, 100_000))
	in.Curator = h.signed(h.entryOf(other, "final"), key)
	res = h.mustPut(in)[0]
	if res.Version != 2 || res.Curator != key.Curator() || len(res.Parents) != 1 {
		t.Errorf("%+v", res)
	}
	// What was recorded is not recorded twice, and the entry is not needed.
	in = store.Input{Name: "final", Known: other.CID, Curator: h.signed(h.entryOf(other, "final"), key)}
	if res = h.mustPut(in)[0]; !res.Unchanged {
		t.Errorf("%+v", res)
	}
	h.verify("final@1", store.ProveOptions{})

	// A removal and a change of policy, signed elsewhere.
	head, err := h.s.Head(h.ctx, "final")
	if err != nil {
		t.Fatal(err)
	}
	gone := &ledger.Entry{Kind: ledger.KindRemoval, Name: "final", Previous: head.Newest, Policy: head.Policy, Time: e.Time}
	r, err := h.s.Remove(h.ctx, "final", store.PutOptions{Curator: h.signed(gone, key)})
	if err != nil || r.Curator != key.Curator() || !r.Time.Equal(e.Time) {
		t.Errorf("%+v, %v", r, err)
	}
	// After the removal there is no parent.
	res = h.mustPut(store.Input{Name: "final", Known: draft.CID, Curator: h.signed(h.entryOf(draft, "final"), key)})[0]
	if res.Version != 4 || len(res.Parents) != 0 {
		t.Errorf("%+v", res)
	}
	third := curatorKey("third").Curator()
	policy := h.policy()
	change := &ledger.Entry{Kind: ledger.KindPolicy, Curators: sorted(append(policy.Curators, third)...), Policy: policy.Entry, Previous: -1, Time: e.Time}
	p, changed, err := h.s.AddCurator(h.ctx, third, h.signed(change, key))
	if err != nil || !changed || len(p.Curators) != 3 {
		t.Errorf("%+v, %t, %v", p, changed, err)
	}
	h.check()
}

// A curator who is asked for signs, though the newest version is the same of another one.
func TestUnchangedOfCurator(t *testing.T) {
	h := newHarness(t, store.Options{})
	key, second := h.admit("publisher"), h.admit("second")
	own := h.mustPut(stream("d", text(1, 50_000)))[0]
	put := func(o store.PutOptions, in store.Input) store.PutResult {
		t.Helper()
		res, err := h.s.Put(h.ctx, []store.Input{in}, o)
		if err != nil {
			t.Fatal(err)
		}
		return res[0]
	}
	again := func() store.Input { return stream("d", text(1, 50_000)) }
	known := func() store.Input { return store.Input{Name: "d", Known: own.CID} }
	in := again()
	in.Curator = second
	for i, c := range []struct {
		res       store.PutResult
		curator   ledger.CuratorKey
		version   int
		unchanged bool
	}{
		{put(store.PutOptions{}, again()), own.Curator, 1, true},
		{put(store.PutOptions{Curator: key}, again()), key.Curator(), 2, false},
		{put(store.PutOptions{Curator: key}, again()), key.Curator(), 2, true},
		{put(store.PutOptions{Curator: key}, known()), key.Curator(), 2, true},
		{put(store.PutOptions{}, again()), key.Curator(), 2, true}, // nobody was asked for
		{put(store.PutOptions{Curator: second}, known()), second.Curator(), 3, false},
		{put(store.PutOptions{Curator: key}, again()), key.Curator(), 4, false},
		{put(store.PutOptions{Curator: key}, in), second.Curator(), 5, false}, // the input's counts
	} {
		if c.res.Curator != c.curator || c.res.Version != c.version || c.res.Unchanged != c.unchanged || c.res.CID != own.CID {
			t.Errorf("put %d: %+v, want version %d of %v, unchanged %t", i, c.res, c.version, c.curator, c.unchanged)
		}
	}
	h.check()
}

func TestSignedElsewhereRefused(t *testing.T) {
	h := newHarness(t, store.Options{})
	key := h.admit("publisher")
	d := h.mustPut(stream("d", text(1, 300_000)))[0].Dataset
	h.mustPut(store.Input{Name: "n", Known: d.CID, Parents: []int64{d.Entry}})
	d2 := h.mustPut(stream("d", text(2, 300_000)))[0].Dataset
	size := h.s.Published().Size
	for what, c := range map[string]struct {
		edit func(*ledger.Entry)
		want error
		says string
	}{
		"stale policy":    {func(e *ledger.Entry) { e.Policy-- }, store.ErrConflict, "policy"},
		"policy to come":  {func(e *ledger.Entry) { e.Policy++ }, store.ErrConflict, "policy"},
		"older version":   {func(e *ledger.Entry) { e.Previous-- }, store.ErrConflict, "sign again"},
		"no version":      {func(e *ledger.Entry) { e.Previous = -1 }, store.ErrConflict, "sign again"},
		"another name":    {func(e *ledger.Entry) { e.Name = "m" }, store.ErrMismatch, "name"},
		"another root":    {func(e *ledger.Entry) { e.Root = d.CID }, store.ErrMismatch, "root"},
		"another size":    {func(e *ledger.Entry) { e.Size++ }, store.ErrMismatch, "size"},
		"files":           {func(e *ledger.Entry) { e.Files-- }, store.ErrMismatch, "files"},
		"leaves":          {func(e *ledger.Entry) { e.Leaves++ }, store.ErrMismatch, "leaves"},
		"chunks":          {func(e *ledger.Entry) { e.Chunks++ }, store.ErrMismatch, "chunks"},
		"commitment":      {func(e *ledger.Entry) { e.Commitment[3] ^= 1 }, store.ErrMismatch, "commitment"},
		"another profile": {func(e *ledger.Entry) { e.Profile = "scale-2" }, store.ErrMismatch, "profile"},
		"times":           {func(e *ledger.Entry) { e.Times = true }, store.ErrMismatch, "times"},
		"parents":         {func(e *ledger.Entry) { e.Parents = nil }, store.ErrMismatch, "parents"},
		"removal": {func(e *ledger.Entry) {
			*e = ledger.Entry{Kind: ledger.KindRemoval, Name: "n", Previous: e.Previous, Policy: e.Policy, Time: e.Time}
		}, store.ErrMismatch, "kind"},
	} {
		e := h.entryOf(d2, "n")
		c.edit(e)
		_, err := h.put(store.Input{Name: "n", Known: d2.CID, Curator: h.signed(e, key)})
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	// By whom nobody admitted, for another log, and with a signature that is none.
	e := h.entryOf(d2, "n")
	if _, err := h.put(store.Input{Name: "n", Known: d2.CID, Curator: h.signed(e, curatorKey("stranger"))}); !errors.Is(err, ledger.ErrNotAdmitted) {
		t.Errorf("stranger: %v", err)
	}
	for what, sign := range map[string]func(*ledger.Entry) error{
		"another log": func(e *ledger.Entry) error {
			return e.Sign(ledger.LogID{Origin: h.s.Origin(), KeyID: 1}, ed25519.PrivateKey(key))
		},
		"forged": func(e *ledger.Entry) error {
			err := e.Sign(h.s.LogID(), ed25519.PrivateKey(curatorKey("stranger")))
			e.Curator = key.Curator()
			return err
		},
	} {
		e := h.entryOf(d2, "n")
		if err := sign(e); err != nil {
			t.Fatal(err)
		}
		block, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.Signed(block)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.put(store.Input{Name: "n", Known: d2.CID, Curator: s}); !errors.Is(err, store.ErrMismatch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, block := range [][]byte{nil, {0xa0}, make([]byte, ledger.MaxEntry+1)} {
		if _, err := store.Signed(block); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%d bytes: %v", len(block), err)
		}
	}
	if got := h.s.Published().Size; got != size {
		t.Errorf("%d entries were recorded", got-size)
	}
	// One of several inputs refused means none of them is recorded.
	bad := h.entryOf(d2, "n")
	bad.Size++
	if _, err := h.put(stream("other", []byte("x")), store.Input{Name: "n", Known: d2.CID, Curator: h.signed(bad, key)}); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("among others: %v", err)
	}
	if _, err := h.s.Resolve(h.ctx, "other"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the other input: %v", err)
	}
	h.check()
}

func TestKnown(t *testing.T) {
	h := newHarness(t, store.Options{})
	root := makeTree(t, file{name: "a", data: []byte("a")}, file{name: "b/c", data: text(3, 100_000)})
	first := h.mustPut(store.Input{Name: "x", Path: root, Times: true})[0]
	res := h.mustPut(store.Input{Name: "y", Known: first.CID, Times: true, Parents: []int64{first.Entry}})[0]
	if res.CID != first.CID || res.Commitment != first.Commitment || res.Kind != dag.KindDir || res.NewBytes != 0 || res.Size != first.Size ||
		len(res.Parents) != 1 || res.Parents[0] != first.EntryCID || !res.Times {
		t.Errorf("%+v", res)
	}
	if got, want := fmt.Sprint(h.tree("y")), fmt.Sprint(h.tree("x")); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	raw := h.mustPut(stream("s", []byte("short")))[0]
	if res := h.mustPut(store.Input{Name: "s2", Known: raw.CID}, stream("s3", []byte("new")))[0]; res.Kind != dag.KindFile || res.Size != 5 {
		t.Errorf("%+v", res)
	}
	if res := h.mustPut(store.Input{Name: "s2", Known: raw.CID})[0]; !res.Unchanged {
		t.Errorf("%+v", res)
	}
	for what, in := range map[string]store.Input{
		"without times":   {Name: "z", Known: first.CID},
		"chunk of a file": {Name: "z", Known: h.resolve("x/a").CID},
		"nowhere":         {Name: "z", Known: dag.RawCID(dag.Digest{1})},
		"another codec":   {Name: "z", Known: dag.RawCID(dag.Digest(first.CID.Hash()[2:]))},
		"an entry":        {Name: "z", Known: first.EntryCID},
	} {
		if _, err := h.put(in); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, in := range map[string]store.Input{
		"with a path": {Name: "z", Known: first.CID, Path: root},
		"profile":     {Name: "z", Known: first.CID, Profile: "nothing"},
	} {
		if _, err := h.put(in); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.check()
}
