package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// A Restore rebuilds a ledger from what was published of it, in a directory that is
// empty. Nothing is believed: each step has to lead from the tree that is there to one
// that the log's key signed. The directory becomes a store with Finish, and holds
// leftovers until then, which Init or another Restore takes away: nothing is durable
// before. It takes up to twice the space of the ledger. It is for one goroutine.
type Restore struct {
	s          *Store
	conf       config
	marker     *os.File
	signatures *ledger.SignatureChecker
	last       []byte // the newest checkpoint
	failed     error
}

// A RestoreStep is what was new in the ledger since a tree of BaseSize entries.
type RestoreStep struct {
	BaseSize int64
	BaseRoot tlog.Hash // ledger.EmptyRoot if BaseSize is 0
	// Checkpoint is the signed note of the tree after the step.
	Checkpoint []byte
	// Records calls entry for each block in the order of the ledger, and anchor for each
	// anchor, in any order. What they are given is copied.
	Records func(entry func(block []byte) error, anchor func(RestoredAnchor) error) error
}

// A RestoredAnchor is evidence of a checkpoint on a chain, for the outbox.
type RestoredAnchor struct {
	Chain      string
	Size       int64  // of the tree, which is not larger than that after the step
	Checkpoint []byte // signed note
	Row        []byte // for Outbox.Get and the like, which the store does not look into
}

// Bounds of the anchors of one step, which wait for its entries.
const (
	maxRestoredAnchors = 8192
	maxRestoredBytes   = 64 << 20
)

// NewRestore begins to rebuild the log with that public key in dir, which must not
// exist or be empty. The FrameSize of the options is that of the store for its life, as that of
// InitOptions is.
func NewRestore(ctx context.Context, dir, vkey string, o Options) (*Restore, error) {
	v, err := note.NewVerifier(vkey)
	if err == nil {
		err = ledger.CheckOrigin(v.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("restore: log key %q: %w: %w", vkey, ErrInvalid, err)
	}
	if err := checkFrameSize(o.FrameSize); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	dir, marker, err := claim(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	r := &Restore{conf: config{Format: Format, Origin: v.Name(), VKey: vkey, FrameSize: o.FrameSize}, marker: marker}
	err = makeParts(dir)
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, keysDir), 0o700)
	}
	if err == nil {
		o.bulk = true
		r.s, err = open(ctx, dir, o, r.conf, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("restore %s: %w", dir, err), removeParts(dir), marker.Close())
	}
	r.signatures = ledger.NewSignatureChecker(r.s.LogID())
	return r, nil
}

// Size returns how many entries are there.
func (r *Restore) Size() int64 { return r.s.size() }

// Add verifies and adds a step. After an error nothing can be added any more.
func (r *Restore) Add(ctx context.Context, x RestoreStep) error {
	if r.failed != nil {
		return r.failed
	}
	if err := r.add(ctx, x); err != nil {
		r.failed = fmt.Errorf("restore %s, after entry %d: %w", r.conf.Origin, r.Size()-1, storeError(err))
	}
	return r.failed
}

func (r *Restore) add(ctx context.Context, x RestoreStep) error {
	s, base := r.s, r.s.published.Load().checkpoint
	cp, err := ledger.OpenCheckpoint(x.Checkpoint, s.verifier)
	if err != nil {
		return fmt.Errorf("checkpoint: %w: %w", ErrMismatch, err)
	}
	switch {
	case x.BaseSize != base.Size || x.BaseRoot != base.Root:
		return fmt.Errorf("what comes next follows a tree of %d entries with root %v, there are %d with root %v: %w", x.BaseSize, x.BaseRoot, base.Size, base.Root, ErrMismatch)
	case cp.Size <= base.Size:
		return fmt.Errorf("a checkpoint of %d entries adds nothing: %w", cp.Size, ErrMismatch)
	}
	anchors, err := r.entries(ctx, x, cp.Size)
	if err != nil {
		return err
	}
	if got := s.published.Load().checkpoint; got.Size != cp.Size || got.Root != cp.Root {
		return fmt.Errorf("the entries give a tree of %d with root %v, signed is one of %d with root %v: %w", got.Size, got.Root, cp.Size, cp.Root, ErrMismatch)
	}
	var b kv.Batch
	b.Set(indexKey(rowCheckpoint, cp.Size), x.Checkpoint)
	if err := s.kv.Commit(ctx, &b); err != nil {
		return err
	}
	r.last = append([]byte(nil), x.Checkpoint...)
	for _, a := range anchors {
		if err := r.anchor(ctx, a); err != nil {
			return fmt.Errorf("anchor of %d entries on %s: %w", a.Size, a.Chain, err)
		}
	}
	return nil
}

// anchor keeps an anchor whose checkpoint is one of this ledger. Proofs can be made
// against that checkpoint again.
func (r *Restore) anchor(ctx context.Context, a RestoredAnchor) error {
	cp, err := ledger.OpenCheckpoint(a.Checkpoint, r.s.verifier)
	if err != nil {
		return fmt.Errorf("checkpoint: %w: %w", ErrMismatch, err)
	}
	if cp.Size != a.Size || cp.Size < 1 || cp.Size > r.Size() {
		return fmt.Errorf("checkpoint of %d entries in a ledger of %d: %w", cp.Size, r.Size(), ErrMismatch)
	}
	root, err := ledger.Root(ctx, tiles{r.s}, cp.Size)
	if err != nil {
		return err
	}
	if root != cp.Root {
		return fmt.Errorf("the log signed root %v, its entries have %v: the log forked: %w", cp.Root, root, ErrMismatch)
	}
	var b kv.Batch
	b.Set(indexKey(rowCheckpoint, cp.Size), a.Checkpoint)
	if err := r.s.kv.Commit(ctx, &b); err != nil {
		return err
	}
	return r.s.Outbox().Put(ctx, a.Chain, a.Size, a.Row, false)
}

// Finish makes the directory a store that reads and proves, and appends after Resume.
func (r *Restore) Finish(ctx context.Context) (err error) {
	if r.failed != nil {
		return r.failed
	}
	dir := r.s.dir
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("restore %s: %w", dir, storeError(err)), r.Abort())
		}
	}()
	if r.last == nil {
		return fmt.Errorf("nothing was added: %w", ErrInvalid)
	}
	var b kv.Batch
	b.Set([]byte{rowRestored}, restoredRow{size: r.Size()}.append(nil))
	if err := r.s.kv.Commit(ctx, &b); err != nil {
		return err
	}
	if err := r.s.writeHighWater(r.last); err != nil {
		return err
	}
	// This makes all of it durable, and it is no store before.
	if err := r.s.Close(); err != nil {
		return err
	}
	if err := r.conf.write(dir); err != nil {
		return err
	}
	r.failed = fmt.Errorf("restore %s: it is finished: %w", dir, ErrInvalid)
	return errors.Join(unclaim(dir, r.marker), r.marker.Close())
}

// Abort takes away what was restored. After Finish it does nothing.
func (r *Restore) Abort() error {
	if Exists(r.s.dir) {
		return nil
	}
	err := errors.Join(r.s.Close(), removeParts(r.s.dir), r.marker.Close())
	if r.failed == nil {
		r.failed = fmt.Errorf("restore %s: it was called off: %w", r.s.dir, ErrInvalid)
	}
	return err
}

// A restoreChunk is a run of entries that is verified and committed together.
type restoreChunk struct {
	buf     []byte
	ends    []int // of the blocks in buf
	entries []*ledger.Entry
	cids    []cid.Cid
	leaves  []tlog.Hash
	done    chan error
}

// Bounds of a chunk; see maxGroup for the first.
const (
	chunkEntries = maxGroup
	chunkBytes   = 1 << 20
)

func (c *restoreChunk) block(i int) []byte {
	if i == 0 {
		return c.buf[:c.ends[0]]
	}
	return c.buf[c.ends[i-1]:c.ends[i]]
}

// verify checks what can be checked of an entry by itself.
func (c *restoreChunk) verify(id ledger.LogID, signatures *ledger.SignatureChecker) error {
	n := len(c.ends)
	c.entries, c.cids, c.leaves = make([]*ledger.Entry, n), make([]cid.Cid, n), make([]tlog.Hash, n)
	for i := range c.ends {
		b := c.block(i)
		e, err := ledger.ParseEntry(b)
		if err == nil {
			err = signatures.Check(e)
		}
		if err == nil {
			err = e.CheckSuccession(id)
		}
		if err != nil {
			return fmt.Errorf("an entry: %w: %w", ErrMismatch, err)
		}
		c.entries[i], c.cids[i], c.leaves[i] = e, ledger.EntryCID(b), ledger.LeafHash(b)
	}
	return nil
}

// entries adds the entries of a step up to a size, and returns its anchors. Signatures
// are verified on all processors, ahead of what follows in order.
func (r *Restore) entries(ctx context.Context, x RestoreStep, size int64) (anchors []RestoredAnchor, err error) {
	workers := runtime.GOMAXPROCS(0)
	ahead := 2*workers + 2 // so that nobody waits for a compaction
	work, order := make(chan *restoreChunk, ahead), make(chan *restoreChunk, ahead)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(order)
		defer close(work)
		c := &restoreChunk{done: make(chan error, 1)}
		send := func() error {
			for _, to := range []chan *restoreChunk{order, work} {
				select {
				case to <- c:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
			}
			c = &restoreChunk{done: make(chan error, 1)}
			return nil
		}
		more, waiting := size-x.BaseSize, 0
		err := x.Records(func(block []byte) error {
			if more--; more < 0 || len(block) > ledger.MaxEntry {
				return fmt.Errorf("more entries than the checkpoint signs, or one of %d bytes: %w", len(block), ErrMismatch)
			}
			c.buf = append(c.buf, block...)
			if c.ends = append(c.ends, len(c.buf)); len(c.ends) >= chunkEntries || len(c.buf) >= chunkBytes {
				return send()
			}
			return gctx.Err()
		}, func(a RestoredAnchor) error {
			if waiting += len(a.Checkpoint) + len(a.Row); len(anchors) == maxRestoredAnchors || waiting > maxRestoredBytes {
				return fmt.Errorf("more than %d anchors, or %d bytes of them, in one step: %w", maxRestoredAnchors, maxRestoredBytes, ErrInvalid)
			}
			a.Checkpoint, a.Row = append([]byte(nil), a.Checkpoint...), append([]byte(nil), a.Row...)
			anchors = append(anchors, a)
			return gctx.Err()
		})
		if err == nil && len(c.ends) > 0 {
			err = send()
		}
		return err
	})
	for range workers {
		g.Go(func() error {
			for c := range work {
				c.done <- c.verify(r.s.LogID(), r.signatures)
			}
			return nil
		})
	}
	g.Go(func() error {
		for c := range order {
			select {
			case err := <-c.done:
				if err != nil {
					return err
				}
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			if err := r.append(gctx, c); err != nil {
				return err
			}
		}
		return nil
	})
	return anchors, g.Wait()
}

// append gives verified entries their places. A policy counts from the entry after it,
// so it is committed before that.
func (r *Restore) append(ctx context.Context, c *restoreChunk) error {
	st, done := r.s.newStage(), 0
	flush := func() (err error) {
		if n := len(st.entries); n > 0 {
			err = r.commit(ctx, st, c.leaves[done:done+n])
			st, done = r.s.newStage(), done+n
		}
		return err
	}
	for i, e := range c.entries {
		if e.Kind == ledger.KindPolicy {
			if err := flush(); err != nil {
				return err
			}
		}
		n := staged{block: c.block(i), cid: c.cids[i], entry: e}
		// An entry that comes twice follows neither the newest of its name nor, if it is a
		// policy, the one in force, so it need not be looked up.
		if err := ledger.CheckFollows(ctx, st, e); err != nil {
			return fmt.Errorf("entry %d: %w: %w", st.base.checkpoint.Size+int64(len(st.entries)), ErrMismatch, err)
		}
		if e.Kind != ledger.KindPolicy {
			prev, err := st.newestOf(ctx, e.Name)
			if err != nil {
				return err
			}
			if n.version, err = nextVersion(e.Name, prev); err != nil {
				return err
			}
		}
		st.push(n)
		if e.Kind == ledger.KindPolicy {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// commit writes staged entries. Nothing is a store yet, so the order does not matter.
func (r *Restore) commit(ctx context.Context, st *stage, leaves []tlog.Hash) error {
	s, base := r.s, st.base
	if err := s.checkSpace(2 * kv.MaxBatchBytes); err != nil {
		return err
	}
	size := 0
	for i := range st.entries {
		size += len(st.entries[i].block) + 33
	}
	root, edge, err := ledger.Append(ctx, tiles{s}, base.checkpoint.Size, base.checkpoint.Root, leaves)
	if err != nil {
		return err
	}
	next := &state{
		checkpoint: ledger.Checkpoint{Origin: s.Origin(), Size: base.checkpoint.Size + int64(len(leaves)), Root: root},
		policy:     base.policy, policyIndex: base.policyIndex,
	}
	var b kv.Batch
	if err := st.rows(&b, next, edge); err != nil {
		return err
	}
	// Usually all of it is one commit, which costs less than two.
	if b.Fits(len(st.entries), size) {
		for i := range st.entries {
			b.Set(digestKey(rowEntry, digestOf(st.entries[i].cid)), st.entries[i].block)
		}
	} else if err := st.writeBlocks(ctx); err != nil {
		return err
	}
	if err := s.kv.Commit(ctx, &b); err != nil {
		return err
	}
	s.publish(next)
	for _, n := range st.newest {
		s.names.put(n)
	}
	return nil
}
