package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// maxGroup bounds the entries of one commit, so that its last transaction stays
// within what the key-value contract takes.
const maxGroup = 1024

// A draft is a dataset whose blocks are all stored and synced, on its way into the
// ledger.
type draft struct {
	name    string
	profile string
	times   bool
	tree    dag.Tree
	kind    dag.Kind
	parents []int64
	added   tally
}

// A commitRequest is committed whole or not at all.
type commitRequest struct {
	drafts  []draft
	curator Signer
	done    bool // guarded by Store.commitMu, like what follows
	results []PutResult
	err     error
}

// commit appends the drafts to the ledger. Requests that arrive while another
// commit is under way share the next one.
func (s *Store) commit(ctx context.Context, r *commitRequest) ([]PutResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.queueMu.Lock()
	s.queue = append(s.queue, r)
	s.queueMu.Unlock()
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	for !r.done {
		// From here on the commit goes through even when the caller has gone: others
		// may share it.
		s.commitGroup(context.WithoutCancel(ctx), s.takeGroup())
	}
	return r.results, r.err
}

func (s *Store) takeGroup() []*commitRequest {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	n, entries := 0, 0
	for n < len(s.queue) && (n == 0 || entries+len(s.queue[n].drafts) <= maxGroup) {
		entries += len(s.queue[n].drafts)
		n++
	}
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	return group
}

// A staged entry is signed and waits for its place to become durable.
type staged struct {
	index   int64
	version int
	block   []byte
	cid     cid.Cid
	entry   *ledger.Entry
	kind    dag.Kind
	added   tally
}

// stage is the ledger as it will be after the entries staged so far.
type stage struct {
	s       *Store
	base    *state
	entries []staged
	newest  map[string]Dataset // names touched by this commit
}

func (s *Store) commitGroup(ctx context.Context, group []*commitRequest) {
	fail := func(err error) {
		for _, r := range group {
			if !r.done {
				r.done, r.results, r.err = true, nil, err
			}
		}
	}
	if err := s.appendable(); err != nil {
		fail(err)
		return
	}
	if err := s.checkSpace(kv.MaxBatchBytes); err != nil {
		fail(err)
		return
	}
	st := &stage{s: s, base: s.published.Load(), newest: map[string]Dataset{}}
	for _, r := range group {
		mark, newest := len(st.entries), cloneMap(st.newest)
		for i := range r.drafts {
			res, err := st.add(ctx, &r.drafts[i], r.curator)
			if err != nil {
				// This request alone is refused; the others go on without it.
				st.entries, st.newest = st.entries[:mark], newest
				r.done, r.results, r.err = true, nil, err
				break
			}
			r.results = append(r.results, res)
		}
	}
	if len(st.entries) > 0 {
		next, err := st.append(ctx)
		if err != nil {
			fail(err)
			return
		}
		s.published.Store(next)
	}
	size := s.published.Load().checkpoint.Size
	for _, r := range group {
		for i := range r.results {
			r.results[i].TreeSize = size
		}
		r.done = true
	}
}

func cloneMap(m map[string]Dataset) map[string]Dataset {
	c := make(map[string]Dataset, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// add signs the entry of one draft, or finds that the name's newest version is
// this very dataset.
func (st *stage) add(ctx context.Context, d *draft, curator Signer) (PutResult, error) {
	parents := make([]cid.Cid, 0, len(d.parents)+1)
	prev, err := st.newestOf(ctx, d.name)
	if err != nil {
		return PutResult{}, err
	}
	if prev != nil {
		parents = append(parents, prev.EntryCID)
	}
	fresh := false // a parent that the newest version does not name already
	for _, p := range d.parents {
		e, err := st.s.entryAt(ctx, p)
		if err != nil {
			return PutResult{}, fmt.Errorf("parent :%d: %w", p, err)
		}
		if !slices.Contains(parents, e.CID) {
			parents = append(parents, e.CID)
		}
		if prev != nil && e.CID != prev.EntryCID && !slices.Contains(prev.Parents, e.CID) {
			fresh = true
		}
	}
	if prev != nil && !fresh && prev.CID == d.tree.Root && prev.Commitment == d.tree.Commitment &&
		prev.Profile == d.profile && prev.Times == d.times {
		return PutResult{Dataset: *prev, Unchanged: true}, nil
	}
	e := &ledger.Entry{
		Kind: ledger.KindDataset, Name: d.name, Root: d.tree.Root, Size: d.tree.Size, Files: d.tree.Files,
		Leaves: d.tree.Leaves, Chunks: d.tree.Chunks, Commitment: d.tree.Commitment, Profile: d.profile,
		Times: d.times, Parents: parents, Previous: -1, Policy: st.base.policyIndex,
	}
	version := 1
	if prev != nil {
		e.Previous, version = prev.Entry, prev.Version+1
	}
	n, err := st.sign(ctx, e, version, d.kind, d.added, curator)
	if err != nil {
		return PutResult{}, fmt.Errorf("dataset %s: %w", d.name, err)
	}
	ds := n.dataset()
	st.newest[d.name] = ds
	return PutResult{Dataset: ds}, nil
}

func (st *stage) sign(ctx context.Context, e *ledger.Entry, version int, kind dag.Kind, added tally, curator Signer) (*staged, error) {
	e.Time = st.s.opt.Now().UTC().Truncate(time.Millisecond)
	if err := curator.SignEntry(e, st.s.LogID()); err != nil {
		return nil, fmt.Errorf("sign entry: %w", err)
	}
	block, err := e.Marshal()
	if err != nil {
		return nil, fmt.Errorf("entry: %w", err)
	}
	// The signed entry is read as anyone else will read it before it is kept.
	back, err := ledger.Admit(ctx, st, st.s.LogID(), block)
	if err != nil {
		return nil, fmt.Errorf("entry just signed: %w", err)
	}
	st.entries = append(st.entries, staged{
		index: st.base.checkpoint.Size + int64(len(st.entries)), version: version, block: block,
		cid: ledger.EntryCID(block), entry: back, kind: kind, added: added,
	})
	return &st.entries[len(st.entries)-1], nil
}

var _ ledger.State = (*stage)(nil)

// Policy implements ledger.State. Policies are committed alone, so the base has it.
func (st *stage) Policy(context.Context) (int64, *ledger.Entry, error) {
	return st.base.policyIndex, st.base.policy, nil
}

// Newest implements ledger.State.
func (st *stage) Newest(ctx context.Context, name string) (int64, error) {
	d, err := st.newestOf(ctx, name)
	if d == nil {
		return -1, err
	}
	return d.Entry, nil
}

// IndexOf implements ledger.State.
func (st *stage) IndexOf(ctx context.Context, entry cid.Cid) (int64, error) {
	for i := range st.entries {
		if st.entries[i].cid == entry {
			return st.entries[i].index, nil
		}
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

// newestOf finds the newest version of a name, staged or published; nil for none.
func (st *stage) newestOf(ctx context.Context, name string) (*Dataset, error) {
	if d, ok := st.newest[name]; ok {
		return &d, nil
	}
	d, err := st.s.newest(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("newest version of %s: %w", name, err)
	}
	return &d, nil
}

func (n *staged) dataset() Dataset {
	return datasetOf(n.index, n.cid, n.entry, n.kind, putRow{version: n.version, added: n.added})
}

// append makes the staged entries durable and returns the state to publish. Any
// failure from the first write on leaves an unknown outcome and stops the store.
func (st *stage) append(ctx context.Context) (*state, error) {
	s, base := st.s, st.base
	signer, err := loadLogKey(s.dir, s.vkey)
	if err != nil {
		return nil, err
	}

	// Step 2: the entries' blocks. Nothing points at them yet, so a crash after this
	// leaves garbage only.
	if err := st.writeBlocks(ctx); err != nil {
		return nil, s.stop(err)
	}
	leaves, err := st.readBack(ctx)
	if err != nil {
		return nil, s.stop(err)
	}
	// Append recomputes the stored right edge against the last signed root first:
	// over a ledger that does not match it nothing is ever signed.
	root, edge, err := ledger.Append(ctx, tiles{s}, base.checkpoint.Size, base.checkpoint.Root, leaves)
	if err != nil {
		return nil, s.stop(err)
	}
	next := &state{
		checkpoint: ledger.Checkpoint{Origin: s.Origin(), Size: base.checkpoint.Size + int64(len(leaves)), Root: root},
		policy:     base.policy, policyIndex: base.policyIndex,
	}
	if next.signed, err = ledger.SignCheckpoint(next.checkpoint, signer); err != nil {
		return nil, s.stop(err)
	}

	// Step 3: one transaction. Before it lands the ledger is what it was, after it
	// the entries are in; there is nothing in between.
	var b kv.Batch
	for i := range st.entries {
		n := &st.entries[i]
		d := digestOf(n.cid)
		b.Set(indexKey(rowIndex, n.index), d[:])
		b.Set(digestKey(rowPosition, d), putInt(n.index))
		switch n.entry.Kind {
		case ledger.KindPolicy:
			b.Set(indexKey(rowPolicy, n.index), nil)
			next.policy, next.policyIndex = n.entry, n.index
		case ledger.KindDataset:
			b.Set(nameKey(n.entry.Name, n.version), putInt(n.index))
			b.Set(rootKey(digestOf(n.entry.Root), n.index), nil)
			b.Set(indexKey(rowPut, n.index), putRow{version: n.version, added: n.added}.append(nil))
		}
	}
	for _, t := range edge {
		b.Set(tileKey(t.Level, t.Index), t.Data)
	}
	b.Set(indexKey(rowCheckpoint, next.checkpoint.Size), next.signed)
	if err := s.kv.Commit(ctx, &b); err != nil {
		return nil, s.stop(err)
	}

	// Step 4: a crash before the mark is written is repaired at the next open, which
	// checks that the ledger extends the older mark.
	if err := s.writeHighWater(next.signed); err != nil {
		return nil, s.stop(err)
	}
	return next, nil
}

func (st *stage) writeBlocks(ctx context.Context) error {
	var b kv.Batch
	for i := range st.entries {
		n := &st.entries[i]
		b.Set(digestKey(rowEntry, digestOf(n.cid)), n.block)
		if b.Bytes() > kv.MaxBatchBytes/2 || i == len(st.entries)-1 {
			if err := st.s.kv.Commit(ctx, &b); err != nil {
				return fmt.Errorf("write entries: %w", err)
			}
			b.Reset()
		}
	}
	return nil
}

// readBack reads the entries as stored; what is signed is what is there.
func (st *stage) readBack(ctx context.Context) ([]tlog.Hash, error) {
	leaves := make([]tlog.Hash, len(st.entries))
	for i := range st.entries {
		n := &st.entries[i]
		b, err := st.s.kv.Get(ctx, digestKey(rowEntry, digestOf(n.cid)), nil)
		if err != nil {
			return nil, fmt.Errorf("read entry %d back: %w", n.index, err)
		}
		if !bytes.Equal(b, n.block) {
			return nil, fmt.Errorf("entry %d reads back differently: %w", n.index, ErrCorrupt)
		}
		leaves[i] = ledger.LeafHash(b)
	}
	return leaves, nil
}

// genesis appends entry 0, the policy that admits the store's own curator.
func (s *Store) genesis(ctx context.Context) error {
	curator, err := s.curator()
	if err != nil {
		return err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	st := &stage{s: s, base: s.published.Load()}
	e := &ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: -1, Curators: []ledger.CuratorKey{curator.Curator()}}
	if _, err := st.sign(ctx, e, 0, 0, tally{}, curator); err != nil {
		return err
	}
	next, err := st.append(ctx)
	if err != nil {
		return err
	}
	s.published.Store(next)
	return nil
}

// digestOf is for CIDs that this package made or read from verified blocks.
func digestOf(c cid.Cid) dag.Digest {
	d, err := dag.DigestOf(c)
	if err != nil {
		panic(err)
	}
	return d
}
