package grpcapi

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }

func (n *rawNode) policy() *scalev1.Policy {
	n.t.Helper()
	resp, err := n.curators.ListCurators(n.ctx, &scalev1.ListCuratorsRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.GetPolicy()
}

// sign returns the block of an entry, signed for the node's log as a client does.
func (n *rawNode) sign(e *ledger.Entry, key ed25519.PrivateKey) []byte {
	n.t.Helper()
	if err := e.Sign(n.store.LogID(), key); err != nil {
		n.t.Fatal(err)
	}
	block, err := e.Marshal()
	if err != nil {
		n.t.Fatal(err)
	}
	return block
}

func TestCurators(t *testing.T) {
	n := newRawNode(t, nil)
	own := n.policy()
	if own.GetEntry() != 0 || len(own.GetCurators()) != 1 || !bytes.Equal(own.GetCurators()[0], own.GetOwn()) {
		t.Errorf("%v", own)
	}
	key := testKey(7)
	_, err := n.curators.RemoveCurator(n.ctx, &scalev1.RemoveCuratorRequest{Curator: own.GetOwn()})
	refused(t, "the last", err, scalev1.ErrorReason_ERROR_REASON_LAST_CURATOR)
	unchanged, err := n.curators.RemoveCurator(n.ctx, &scalev1.RemoveCuratorRequest{Curator: public(key)})
	if err != nil || !unchanged.GetUnchanged() || unchanged.GetCheckpoint().GetSize() != 1 {
		t.Errorf("%v, %v", unchanged, err)
	}
	added, err := n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: public(key)})
	if err != nil || added.GetUnchanged() || added.GetPolicy().GetEntry() != 1 || len(added.GetPolicy().GetCurators()) != 2 || added.GetCheckpoint().GetSize() != 2 ||
		!slices.IsSortedFunc(added.GetPolicy().GetCurators(), bytes.Compare) {
		t.Errorf("%v, %v", added, err)
	}
	added, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: public(key)})
	if err != nil || !added.GetUnchanged() || added.GetCheckpoint().GetSize() != 2 {
		t.Errorf("again: %v, %v", added, err)
	}
	// The client signs the next change itself: it takes the node's own key away.
	gone := &ledger.Entry{Kind: ledger.KindPolicy, Curators: []ledger.CuratorKey{ledger.CuratorKey(public(key))}, Policy: 1, Previous: -1, Time: time.Unix(1e9, 0)}
	removed, err := n.curators.RemoveCurator(n.ctx, &scalev1.RemoveCuratorRequest{Curator: own.GetOwn(), SignedEntry: n.sign(gone, key)})
	if err != nil || removed.GetUnchanged() || len(removed.GetPolicy().GetCurators()) != 1 || removed.GetCheckpoint().GetSize() != 3 {
		t.Fatalf("%v, %v", removed, err)
	}
	// Now the node cannot sign any more, and says so.
	_, err = n.put(n.ctx, fileHeader("x"), dataPart([]byte("x")))
	refused(t, "put", err, scalev1.ErrorReason_ERROR_REASON_NOT_ADMITTED)
	_, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: own.GetOwn()})
	refused(t, "add", err, scalev1.ErrorReason_ERROR_REASON_NOT_ADMITTED)
	for _, k := range [][]byte{nil, public(key)[1:]} {
		_, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: k})
		refusedField(t, "key", err, isInvalid, "curator")
		_, err = n.curators.RemoveCurator(n.ctx, &scalev1.RemoveCuratorRequest{Curator: k})
		refusedField(t, "key", err, isInvalid, "curator")
	}
	size := n.size()
	for _, k := range [][]byte{make([]byte, 32), bytes.Repeat([]byte{0xff}, 32), {31: 0x80}, append([]byte{2}, make([]byte, 31)...)} {
		_, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: k})
		refusedField(t, "no key", err, isInvalid, "curator")
		// A policy of before may name it, so it can be taken out.
		gone, err := n.curators.RemoveCurator(n.ctx, &scalev1.RemoveCuratorRequest{Curator: k, SignedEntry: n.sign(gone, key)})
		if err != nil || !gone.GetUnchanged() {
			t.Errorf("%v, %v", gone, err)
		}
	}
	if n.size() != size {
		t.Error("something was recorded")
	}
	_, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: own.GetOwn(), SignedEntry: []byte("x")})
	refusedField(t, "entry", err, isInvalid, "signed_entry")
	stale := *gone
	_, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: own.GetOwn(), SignedEntry: n.sign(&stale, key)})
	refused(t, "stale", err, isConflict)
	back := &ledger.Entry{Kind: ledger.KindPolicy, Policy: 2, Previous: -1, Time: time.Unix(1e9, 0)}
	for _, k := range own.GetCurators() {
		back.Curators = append(back.Curators, ledger.CuratorKey(k))
	}
	_, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: own.GetOwn(), SignedEntry: n.sign(back, key)})
	refused(t, "other curators", err, isMismatch)
	back.Curators = append(back.Curators, ledger.CuratorKey(public(key)))
	slices.SortFunc(back.Curators, ledger.CuratorKey.Compare)
	if added, err = n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: own.GetOwn(), SignedEntry: n.sign(back, key)}); err != nil || len(added.GetPolicy().GetCurators()) != 2 {
		t.Errorf("%v, %v", added, err)
	}
	n.putFile("x", []byte("x"))
	n.sound()
}

// A carelessSigner signs a policy as earlier versions did: one that names also what is no key.
type carelessSigner struct {
	store.Ed25519Signer
	also ledger.CuratorKey
}

func (c carelessSigner) SignEntry(e *ledger.Entry, id ledger.LogID) error {
	e.Curators = append([]ledger.CuratorKey{c.also}, e.Curators...)
	slices.SortFunc(e.Curators, ledger.CuratorKey.Compare)
	return c.Ed25519Signer.SignEntry(e, id)
}

// A silentSigner is one who must not be asked to sign.
type silentSigner struct {
	store.Ed25519Signer
	t *testing.T
}

func (s silentSigner) SignEntry(e *ledger.Entry, _ ledger.LogID) error {
	s.t.Errorf("signed a policy of %v", e.Curators)
	return errors.New("not signed")
}

// What is no key is not admitted by a client either, and taken out as any other.
func TestClientNoKey(t *testing.T) {
	n := startClientNode(t)
	c, ctx := n.dial(n.addr), t.Context()
	own, key, weak := must(c.Policy(ctx)).Own, store.Ed25519Signer(testKey(7)), ledger.CuratorKey{1}
	if _, _, err := n.store.AddCurator(ctx, key.Curator(), nil); err != nil {
		t.Fatal(err)
	}
	add := func(what string, signer store.Signer) {
		t.Helper()
		if _, changed, err := c.AddCurator(ctx, weak, signer); changed || !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %t, %v", what, changed, err)
		}
	}
	add("signed by the node", nil)
	silent := silentSigner{key, t}
	add("signed by the client", silent)
	if _, _, err := n.store.RemoveCurator(ctx, own, carelessSigner{key, weak}); err != nil {
		t.Fatal(err)
	}
	add("there already", silent)
	if got := must(c.Policy(ctx)).Curators; len(got) != 2 || !slices.Contains(got, weak) {
		t.Fatalf("policy of %v", got)
	}
	if _, _, err := c.RemoveCurator(ctx, key.Curator(), silent); !errors.Is(err, store.ErrLastCurator) {
		t.Errorf("the last: %v", err)
	}
	p, changed, err := c.RemoveCurator(ctx, weak, key)
	if err != nil || !changed || !slices.Equal(p.Curators, []ledger.CuratorKey{key.Curator()}) {
		t.Errorf("%+v, %t, %v", p, changed, err)
	}
	if _, _, err := c.AddCurator(ctx, own, key); err != nil {
		t.Error(err)
	}
	n.sound()
}

// A client signs its own entries: what the node finds must be what they say.
func TestSignedEntries(t *testing.T) {
	n := newRawNode(t, nil)
	key, other, stranger := testKey(7), testKey(9), testKey(8)
	if _, err := n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: public(key)}); err != nil {
		t.Fatal(err)
	}
	data := commitFiles["b"]
	if _, err := n.upload(uploadFrame(frameOf(data))); err != nil {
		t.Fatal(err)
	}
	// What the entry says a client computes itself; here the node helps.
	draft, err := n.commit(commitHeader(&scalev1.CommitHeader{Name: "draft"}), commitEntries(commitFile("", data)))
	if err != nil {
		t.Fatal(err)
	}
	d := draft.GetResults()[0].GetDataset()
	entry := func(name string, change func(*ledger.Entry)) *ledger.Entry {
		head, err := n.ledger.GetHead(n.ctx, &scalev1.GetHeadRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		e := &ledger.Entry{
			Kind: ledger.KindDataset, Name: name, Root: cid.MustParse(d.GetCid()), Size: d.GetSize(), Files: d.GetFiles(), Leaves: d.GetLeaves(),
			Chunks: d.GetChunks(), Commitment: [32]byte(d.GetCommitment()), Profile: d.GetProfile(), Policy: head.GetPolicy(), Previous: head.GetNewest(),
			Time: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC),
		}
		change(e)
		return e
	}
	same := func(*ledger.Entry) {}
	header := commitHeader(&scalev1.CommitHeader{Name: "mine"})
	commit := func(block []byte) (*scalev1.CommitResponse, error) {
		return n.commit(header, commitEntries(commitFile("", data)), commitSigned(block))
	}
	size := n.size()
	for what, c := range map[string]struct {
		entry  *ledger.Entry
		key    ed25519.PrivateKey
		reason scalev1.ErrorReason
	}{
		"a stranger":     {entry("mine", same), stranger, scalev1.ErrorReason_ERROR_REASON_NOT_ADMITTED},
		"another policy": {entry("mine", func(e *ledger.Entry) { e.Policy = 0 }), key, isConflict},
		"another newest": {entry("mine", func(e *ledger.Entry) { e.Previous = 1 }), key, isConflict},
		"another name":   {entry("yours", same), key, isMismatch},
		"another size":   {entry("mine", func(e *ledger.Entry) { e.Size++ }), key, isMismatch},
		"another root":   {entry("mine", func(e *ledger.Entry) { e.Root = dag.RawCID(dag.Digest{1}) }), key, isMismatch},
		"commitment":     {entry("mine", func(e *ledger.Entry) { e.Commitment[9]++ }), key, isMismatch},
		"times":          {entry("mine", func(e *ledger.Entry) { e.Times = true }), key, isMismatch},
		"a parent":       {entry("mine", func(e *ledger.Entry) { e.Parents = []cid.Cid{cid.MustParse(d.GetEntryCid())} }), key, isMismatch},
		"a removal":      {&ledger.Entry{Kind: ledger.KindRemoval, Name: "mine", Previous: 2, Policy: 1, Time: time.Unix(1e9, 0)}, key, isMismatch},
	} {
		_, err := commit(n.sign(c.entry, c.key))
		refused(t, what, err, c.reason)
	}
	forged := entry("mine", same)
	if err := forged.Sign(n.store.LogID(), stranger); err != nil {
		t.Fatal(err)
	}
	forged.Curator = ledger.CuratorKey(public(key))
	block, err := forged.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, err = commit(block)
	refused(t, "forged", err, isMismatch)
	// The same, for another log.
	elsewhere := entry("mine", same)
	if err := elsewhere.Sign(ledger.LogID{Origin: "node.test", KeyID: 1}, key); err != nil {
		t.Fatal(err)
	}
	if block, err = elsewhere.Marshal(); err != nil {
		t.Fatal(err)
	}
	_, err = commit(block)
	refused(t, "another log", err, isMismatch)
	if n.size() != size {
		t.Error("something was recorded")
	}
	// One of two refused means that none is recorded.
	_, err = n.commit(header, commitEntries(commitFile("", data)), commitSigned(n.sign(entry("mine", same), key)),
		commitHeader(&scalev1.CommitHeader{Name: "other"}), commitEntries(commitFile("", data)), commitSigned(n.sign(entry("other", same), stranger)))
	refused(t, "one of two", err, scalev1.ErrorReason_ERROR_REASON_NOT_ADMITTED)
	if n.size() != size {
		t.Error("something was recorded")
	}

	resp, err := commit(n.sign(entry("mine", same), key))
	if err != nil {
		t.Fatal(err)
	}
	mine := resp.GetResults()[0].GetDataset()
	if !bytes.Equal(mine.GetCurator(), public(key)) || mine.GetTime().AsTime().Year() != 2020 || mine.GetVersion() != 1 {
		t.Errorf("%v", mine)
	}
	got, err := n.ledger.GetEntry(n.ctx, &scalev1.GetEntryRequest{Index: mine.GetEntry()})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := ledger.ParseEntry(got.GetEntry().GetBlock()); err != nil || e.CheckSignature(n.store.LogID()) != nil || !bytes.Equal(e.Curator[:], public(key)) {
		t.Errorf("%v, %v", e, err)
	}
	// The same data is unchanged for the curator who has signed, and is signed anew by another.
	changed := func(e *ledger.Entry) { e.Parents = []cid.Cid{cid.MustParse(mine.GetEntryCid())} }
	resp, err = commit(n.sign(entry("mine", changed), key))
	if err != nil || !resp.GetResults()[0].GetUnchanged() || resp.GetResults()[0].GetDataset().GetEntry() != mine.GetEntry() {
		t.Errorf("%v, %v", resp, err)
	}
	if _, err := n.curators.AddCurator(n.ctx, &scalev1.AddCuratorRequest{Curator: public(other)}); err != nil {
		t.Fatal(err)
	}
	resp, err = commit(n.sign(entry("mine", changed), other))
	if err != nil || resp.GetResults()[0].GetUnchanged() || !bytes.Equal(resp.GetResults()[0].GetDataset().GetCurator(), public(other)) {
		t.Fatalf("%v, %v", resp, err)
	}
	mine = resp.GetResults()[0].GetDataset()
	// The same dataset as another name's, by its CID alone; then its removal.
	resp, err = n.commit(commitHeader(&scalev1.CommitHeader{Name: "third", Known: true, Cid: d.GetCid()}), commitSigned(n.sign(entry("third", same), key)))
	if err != nil || !bytes.Equal(resp.GetResults()[0].GetDataset().GetCurator(), public(key)) {
		t.Errorf("%v, %v", resp, err)
	}
	gone := &ledger.Entry{Kind: ledger.KindRemoval, Name: "mine", Previous: mine.GetEntry(), Policy: n.policy().GetEntry(), Time: time.Unix(1e9, 0)}
	_, err = n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: "mine", SignedEntry: n.sign(gone, stranger)})
	refused(t, "a stranger", err, scalev1.ErrorReason_ERROR_REASON_NOT_ADMITTED)
	removed, err := n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: "mine", SignedEntry: n.sign(gone, key)})
	if err != nil || !bytes.Equal(removed.GetRemoval().GetCurator(), public(key)) {
		t.Errorf("%v, %v", removed, err)
	}
	n.sound()
}
