package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// A staged entry is signed and waits for its place to become durable.
type staged struct {
	index   int64
	version int // of a dataset or removal
	block   []byte
	cid     cid.Cid
	entry   *ledger.Entry
	added   tally // of a dataset
	stored  bool  // the block is, and durable
}

// A nameEntry is the newest entry of a name: a dataset or a removal.
type nameEntry struct {
	slot
	cid   cid.Cid
	entry *ledger.Entry
}

// A stage is the ledger as it will be after the entries staged so far. It has one
// owner.
type stage struct {
	s       *Store
	base    *state
	entries []staged
	places  map[cid.Cid]int64     // of the entries
	newest  map[string]*nameEntry // names that were looked up or touched; nil for none
	touched []nameEntry           // what entries replaced in newest, to be undone; with name and entry nil if nothing
}

func (s *Store) newStage() *stage {
	return &stage{s: s, base: s.published.Load(), places: map[cid.Cid]int64{}, newest: map[string]*nameEntry{}}
}

// A stageMark is what undo goes back to.
type stageMark struct{ entries, touched int }

func (st *stage) mark() stageMark { return stageMark{len(st.entries), len(st.touched)} }

// undo takes back what was staged since the mark.
func (st *stage) undo(m stageMark) {
	for i := len(st.touched) - 1; i >= m.touched; i-- {
		if old := st.touched[i]; old.entry == nil {
			st.newest[old.name] = nil
		} else {
			st.newest[old.name] = &old
		}
	}
	for i := m.entries; i < len(st.entries); i++ {
		delete(st.places, st.entries[i].cid)
	}
	st.entries, st.touched = st.entries[:m.entries], st.touched[:m.touched]
}

// request stages what a request asks for.
func (st *stage) request(ctx context.Context, r *commitRequest) (err error) {
	switch {
	case r.policy != nil:
		r.changed, err = st.change(ctx, r.policy, r.curator)
		return err
	case r.remove != "":
		r.removal, err = st.remove(ctx, r.remove, r.curator)
		return err
	}
	r.results = make([]PutResult, len(r.drafts))
	for i := range r.drafts {
		if r.results[i], err = st.dataset(ctx, &r.drafts[i], r.curator); err != nil {
			return err
		}
	}
	return nil
}

// dataset stages the entry of one draft, or finds that the name's newest version is
// this very dataset.
func (st *stage) dataset(ctx context.Context, d *draft, curator Signer) (PutResult, error) {
	e, prev, err := st.compose(ctx, d)
	if err != nil {
		return PutResult{}, err
	}
	if e == nil {
		return PutResult{Dataset: datasetOf(prev.index, prev.cid, prev.entry, d.kind, putRow{version: prev.version}), Unchanged: true}, nil
	}
	if d.curator != nil {
		curator = d.curator
	}
	n := staged{added: d.added}
	if n.version, err = nextVersion(d.name, prev); err != nil {
		return PutResult{}, err
	}
	if n, err = st.add(ctx, e, n, curator, d.ahead); err != nil {
		return PutResult{}, fmt.Errorf("dataset %s: %w", d.name, err)
	}
	return PutResult{Dataset: datasetOf(n.index, n.cid, n.entry, d.kind, putRow{version: n.version, added: n.added})}, nil
}

// nextVersion returns the version that follows an entry of a name; nil is before the first.
func nextVersion(name string, prev *nameEntry) (int, error) {
	switch {
	case prev == nil:
		return 1, nil
	case prev.version >= maxVersion:
		return 0, fmt.Errorf("%s has %d versions, which is the most; put under another name: %w", name, prev.version, ErrInvalid)
	}
	return prev.version + 1, nil
}

// compose returns the entry of a draft, yet to be signed, and the one that it follows
// under its name, if any. The entry is nil if the newest version is this very dataset, and
// of the curator that was asked for, if one was.
func (st *stage) compose(ctx context.Context, d *draft) (e *ledger.Entry, prev *nameEntry, err error) {
	parents := make([]cid.Cid, 0, len(d.parents)+1)
	if prev, err = st.newestOf(ctx, d.name); err != nil {
		return nil, nil, err
	}
	// What comes after a removal begins anew.
	follows := prev != nil && prev.entry.Kind == ledger.KindDataset
	if follows {
		parents = append(parents, prev.cid)
	}
	fresh := false // a parent that the newest version does not name already
	for _, p := range d.parents {
		e, err := st.s.entryAt(ctx, p)
		if err != nil {
			return nil, nil, fmt.Errorf("parent :%d: %w", p, err)
		}
		if !slices.Contains(parents, e.CID) {
			parents = append(parents, e.CID)
		}
		if follows && e.CID != prev.cid && !slices.Contains(prev.entry.Parents, e.CID) {
			fresh = true
		}
	}
	if follows && !fresh && prev.entry.Root == d.tree.Root && dag.Hash(prev.entry.Commitment) == d.tree.Commitment &&
		prev.entry.Profile == d.profile && prev.entry.Times == d.times &&
		(d.curator == nil || d.curator.Curator() == prev.entry.Curator) {
		return nil, prev, nil
	}
	e = &ledger.Entry{
		Kind: ledger.KindDataset, Name: d.name, Root: d.tree.Root, Size: d.tree.Size, Files: d.tree.Files,
		Leaves: d.tree.Leaves, Chunks: d.tree.Chunks, Commitment: d.tree.Commitment, Profile: d.profile,
		Times: d.times, Parents: parents, Previous: -1,
	}
	if prev != nil {
		e.Previous = prev.index
	}
	return e, prev, nil
}

// remove stages an entry that takes a name away.
func (st *stage) remove(ctx context.Context, name string, curator Signer) (Removal, error) {
	prev, err := st.newestOf(ctx, name)
	if err != nil {
		return Removal{}, err
	}
	if prev == nil {
		return Removal{}, errNoName(name)
	}
	if prev.entry.Kind != ledger.KindDataset {
		return Removal{}, errRemoved(prev.slot)
	}
	version, err := nextVersion(name, prev)
	if err != nil {
		return Removal{}, err
	}
	e := &ledger.Entry{Kind: ledger.KindRemoval, Name: name, Previous: prev.index}
	n, err := st.add(ctx, e, staged{version: version}, curator, nil)
	if err != nil {
		return Removal{}, fmt.Errorf("remove %s: %w", name, err)
	}
	return removalOf(slot{name: name, version: n.version, index: n.index}, n.cid, n.entry), nil
}

// add signs an entry, whose policy and time it sets, and stages it. Of n it takes what
// the entry does not say.
func (st *stage) add(ctx context.Context, e *ledger.Entry, n staged, curator Signer, ahead *signedAhead) (staged, error) {
	e.Policy = st.base.policyIndex
	var err error
	if ahead != nil && differs(ahead.entry, e) == nil {
		n.block, n.entry, n.cid, n.stored = ahead.block, ahead.entry, ahead.cid, ahead.stored
		if err = st.checkNew(ctx, n.cid); err == nil {
			err = ledger.CheckFollows(ctx, st, n.entry)
		}
	} else {
		n.block, n.entry, n.cid, err = st.sign(ctx, e, curator)
	}
	if err != nil {
		return n, storeError(err)
	}
	return st.push(n), nil
}

// push gives a checked entry its place.
func (st *stage) push(n staged) staged {
	e := n.entry
	n.index = st.base.checkpoint.Size + int64(len(st.entries))
	st.entries = append(st.entries, n)
	st.places[n.cid] = n.index
	if e.Kind != ledger.KindPolicy {
		old := nameEntry{slot: slot{name: e.Name}}
		if p := st.newest[e.Name]; p != nil {
			old = *p
		}
		st.touched = append(st.touched, old)
		st.newest[e.Name] = &nameEntry{slot: slot{name: e.Name, version: n.version, index: n.index}, cid: n.cid, entry: n.entry}
	}
	return n
}

// sign signs an entry and reads it as anyone else will read it before it is kept.
func (st *stage) sign(ctx context.Context, e *ledger.Entry, curator Signer) ([]byte, *ledger.Entry, cid.Cid, error) {
	block, err := st.s.signEntry(e, curator)
	if err != nil {
		return nil, nil, cid.Undef, err
	}
	back, err := ledger.Admit(ctx, st, st.s.LogID(), block)
	if errors.Is(err, ledger.ErrSignature) {
		err = fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if err != nil {
		return nil, nil, cid.Undef, fmt.Errorf("admit entry: %w", err)
	}
	return block, back, ledger.EntryCID(block), nil
}

func (s *Store) signEntry(e *ledger.Entry, curator Signer) ([]byte, error) {
	e.Time = s.opt.Now().UTC().Truncate(time.Millisecond)
	if err := curator.SignEntry(e, s.LogID()); err != nil {
		return nil, fmt.Errorf("sign entry: %w", err)
	}
	block, err := e.Marshal()
	if err != nil {
		return nil, fmt.Errorf("entry: %w", err)
	}
	return block, nil
}

// A signedAhead entry is signed and checked, but for its place in the ledger.
type signedAhead struct {
	entry *ledger.Entry // as read back from block
	block []byte
	cid   cid.Cid

	stored bool // durable, by the flush that the put has waited for
}

// signAhead signs the entries of a request as they will be if nothing comes between,
// so that the one who commits does not sign for all. What does not work is left to the
// commit, which says why, and so are all but the first of those that come at once under one
// name: each of them follows the one before.
func (s *Store) signAhead(ctx context.Context, r *commitRequest) {
	r.signed = true
	for i := range r.drafts {
		d := &r.drafts[i]
		key, ok := r.curator.(Ed25519Signer) // others may ask somebody each time
		if d.curator != nil {
			key, ok = d.curator.(Ed25519Signer)
		}
		if !ok || !s.claim(r, d.name) {
			continue
		}
		st := s.newStage() // what the claim's last holder has published is in it
		e, _, err := st.compose(ctx, d)
		if err != nil || e == nil {
			continue
		}
		e.Policy = st.base.policyIndex
		block, err := s.signEntry(e, key)
		if err != nil {
			continue
		}
		back, err := ledger.ParseEntry(block)
		if err == nil && back.CheckSignature(s.LogID()) == nil {
			d.ahead = &signedAhead{entry: back, block: block, cid: ledger.EntryCID(block)}
		}
	}
}

// claim says whether no other request on its way claims a name, and then claims it until the
// request is over.
func (s *Store) claim(r *commitRequest, name string) bool {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if s.claimed[name] {
		return false
	}
	if s.claimed == nil {
		s.claimed = make(map[string]bool)
	}
	s.claimed[name] = true
	r.claims = append(r.claims, name)
	return true
}

// unclaim ends the claims of a request.
func (s *Store) unclaim(r *commitRequest) {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	for _, name := range r.claims {
		delete(s.claimed, name)
	}
	r.claims = nil
}

// depositAhead signs the entries of a request ahead and hands their blocks in with what
// they are entries of, so that the commit need not write and sync them by itself.
func (s *Store) depositAhead(ctx context.Context, d *deposit, r *commitRequest) error {
	s.signAhead(ctx, r)
	for i := range r.drafts {
		if a := r.drafts[i].ahead; a != nil {
			if err := d.entry(digestOf(a.cid), a.block); err != nil {
				return err
			}
			a.stored = true // if the wait is a success; else nobody asks
		}
	}
	return nil
}

var _ ledger.State = (*stage)(nil)

// Policy implements ledger.State. Policies are committed alone, so the base has it.
func (st *stage) Policy(context.Context) (int64, *ledger.Entry, error) {
	return st.base.policyIndex, st.base.policy, nil
}

// Newest implements ledger.State.
func (st *stage) Newest(ctx context.Context, name string) (int64, ledger.Kind, error) {
	n, err := st.newestOf(ctx, name)
	if n == nil {
		return -1, 0, err
	}
	return n.index, n.entry.Kind, nil
}

// IndexOf implements ledger.State.
func (st *stage) IndexOf(ctx context.Context, entry cid.Cid) (int64, error) {
	if i, ok := st.places[entry]; ok {
		return i, nil
	}
	b, err := st.s.kv.Get(ctx, digestKey(rowPosition, digestOf(entry)), nil)
	if errors.Is(err, kv.ErrNotFound) {
		return -1, nil
	}
	if err != nil {
		return 0, storeError(err)
	}
	return parseInt(b)
}

// checkNew returns ledger.ErrDuplicate if the ledger holds that entry.
func (st *stage) checkNew(ctx context.Context, entry cid.Cid) error {
	i, err := st.IndexOf(ctx, entry)
	if err == nil && i >= 0 {
		err = fmt.Errorf("%w: %v is entry %d", ledger.ErrDuplicate, entry, i)
	}
	return err
}

// newestOf finds the newest entry of a name, staged or published; nil for none.
func (st *stage) newestOf(ctx context.Context, name string) (*nameEntry, error) {
	if n, ok := st.newest[name]; ok {
		return n, nil
	}
	n := st.s.names.get(name, st.base.checkpoint.Size)
	if n == nil {
		var err error
		if n, err = st.s.newestEntry(ctx, name); err != nil {
			return nil, fmt.Errorf("newest version of %s: %w", name, err)
		}
	}
	st.newest[name] = n
	return n, nil
}
