package store

import (
	"context"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

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
	curator Signer // who was asked for; nil is that of the request

	ahead *signedAhead // made before the draft is queued; nil if that did not work
}

// A commitRequest is committed whole or not at all. It is one of three: datasets,
// the removal of a name, or a change of policy.
type commitRequest struct {
	ctx     context.Context // of who asks
	drafts  []draft
	remove  string
	policy  *policyChange
	curator Signer

	signed bool     // ahead, where that works
	coming bool     // counted in Store.coming
	claims []string // in Store.claimed

	// turn tells a request in the queue that it is done (false), or that it is the first
	// one now and to commit what is queued (true).
	turn chan bool

	// What follows belongs to whoever commits until the request is done.
	done    bool
	results []PutResult
	removal Removal
	changed bool // of a change of policy: an entry was appended
	err     error
}

// entries is how many entries the request may append.
func (r *commitRequest) entries() int { return max(1, len(r.drafts)) }

// commit appends what r asks for to the ledger. Requests that arrive while another
// commit is under way share the next one, which the first of them carries out.
func (s *Store) commit(ctx context.Context, r *commitRequest) ([]PutResult, error) {
	defer s.unclaim(r)
	if err := ctx.Err(); err != nil {
		s.missed(r)
		return nil, err
	}
	if !r.signed {
		s.expect(r)
		s.signAhead(ctx, r)
	}
	r.ctx, r.turn = ctx, make(chan bool, 1)
	s.queueMu.Lock()
	s.queue = append(s.queue, r)
	s.arrived(r)
	first := !s.committing
	s.committing = true
	s.queueMu.Unlock()
	if !first {
		first = <-r.turn
	}
	if first {
		s.gather()
		s.commitMu.Lock()
		group := s.takeGroup() // begins with r
		// The commit goes through even when the caller has gone: others may share it.
		s.commitGroup(context.WithoutCancel(ctx), group)
		s.commitMu.Unlock()
		// In this order: who gives up while there is a committer leaves it to him to release a
		// flush that waits, also one that came to wait meanwhile.
		s.nextTurn()
		s.writer.release()
		for _, other := range group[1:] {
			other.turn <- false
		}
	}
	return r.results, r.err
}

// expect counts requests that are about to be queued.
func (s *Store) expect(coming ...*commitRequest) {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	for _, r := range coming {
		r.coming = true
	}
	s.coming += len(coming)
}

// missed says that a request will not be queued.
func (s *Store) missed(r *commitRequest) {
	s.queueMu.Lock()
	s.arrived(r)
	nobody := s.coming == 0 && !s.committing
	s.queueMu.Unlock()
	if nobody {
		s.writer.release()
	}
}

// arrived says that a request has been queued, or never will be. Under queueMu.
func (s *Store) arrived(r *commitRequest) {
	if !r.coming {
		return
	}
	r.coming = false
	if s.coming--; s.coming == 0 && s.allQueued != nil {
		close(s.allQueued)
		s.allQueued = nil
	}
}

// gatherWait bounds how long a commit waits for requests that are about to be queued. A
// commit takes several times as long.
const gatherWait = time.Millisecond

// gather waits for the requests that are about to be queued, so that those whom a flush
// has set free together do not wait for the commit of the first among them.
func (s *Store) gather() {
	s.queueMu.Lock()
	if s.coming == 0 || len(s.queue) >= maxGroup {
		s.queueMu.Unlock()
		return
	}
	if s.allQueued == nil {
		s.allQueued = make(chan struct{})
	}
	all := s.allQueued
	s.queueMu.Unlock()
	t := time.NewTimer(gatherWait)
	defer t.Stop()
	select {
	case <-all:
	case <-t.C:
	}
}

// takeGroup takes what is committed together off the queue. A change of policy goes
// alone: what follows is admitted under the new one.
func (s *Store) takeGroup() []*commitRequest {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	n, entries := 0, 0
	for _, r := range s.queue {
		if n > 0 && (entries+r.entries() > maxGroup || r.policy != nil || s.queue[0].policy != nil) {
			break
		}
		entries += r.entries()
		n++
	}
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	return group
}

// nextTurn makes the first request of the queue commit.
func (s *Store) nextTurn() {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if s.committing = len(s.queue) > 0; s.committing {
		s.queue[0].turn <- true
	}
}

// commitGroup carries a group out. When it returns all its requests are done. The
// caller holds commitMu.
func (s *Store) commitGroup(ctx context.Context, group []*commitRequest) {
	began := time.Now()
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
	if err := s.beforeAppend(ctx); err != nil {
		fail(err)
		return
	}
	if err := s.checkSpace(kv.MaxBatchBytes); err != nil {
		fail(err)
		return
	}
	st := s.newStage()
	for _, r := range group {
		mark := st.mark()
		err := r.ctx.Err() // from here on it counts no more: what is recorded is told
		if err == nil {
			err = st.request(ctx, r)
		}
		if err != nil {
			// This request alone is refused; the others go on without it.
			st.undo(mark)
			r.done, r.results, r.err = true, nil, err
		}
	}
	if len(st.entries) > 0 {
		next, err := st.append(ctx)
		if err != nil {
			fail(err)
			return
		}
		s.publish(next)
		for _, n := range st.newest {
			s.names.put(n)
		}
		if f := s.opt.Observer.Commit; f != nil {
			f(len(st.entries), time.Since(began))
		}
	}
	size := s.published.Load().checkpoint.Size
	for _, r := range group {
		for i := range r.results {
			r.results[i].TreeSize = size
		}
		r.done = true
	}
}

// Settle waits for the commit that is under way, if there is one, and returns the size of the
// tree: what was asked for with a context that had ended before Settle was called is not
// recorded afterwards.
func (s *Store) Settle() int64 {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	return s.published.Load().checkpoint.Size
}

// publish lets readers see a tree, and wakes those that follow the ledger. It is called
// with commitMu held.
func (s *Store) publish(next *state) {
	next.superseded = make(chan struct{})
	if old := s.published.Swap(next); old != nil {
		close(old.superseded)
	}
}

// genesis appends entry 0, the policy that admits the store's own curator.
func (s *Store) genesis(ctx context.Context, predecessor []byte) error {
	curator, err := s.curator()
	if err != nil {
		return err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.begun = true
	st := s.newStage()
	e := &ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Curators: []ledger.CuratorKey{curator.Curator()}, Predecessor: predecessor}
	if _, err := st.add(ctx, e, staged{}, curator, nil); err != nil {
		return err
	}
	next, err := st.append(ctx)
	if err != nil {
		return err
	}
	s.publish(next)
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
