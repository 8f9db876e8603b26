package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/dag/ledger"
)

// Put stores datasets and appends one ledger entry for each, all in one commit.
//
// When it returns nil everything is durable: the chunks, their index, the entries,
// the signed checkpoint and the high-water mark. When it fails or ctx ends, the
// ledger is as it was; chunks that were already stored are found again by the next
// put of the same data. Putting under a name whose newest version is this very
// dataset appends nothing and reports it as Unchanged.
func (s *Store) Put(ctx context.Context, in []Input, o PutOptions) ([]PutResult, error) {
	if err := checkInputs(in); err != nil {
		return nil, err
	}
	if err := s.appendable(); err != nil {
		return nil, err
	}
	curator := o.Curator
	if curator == nil {
		var err error
		if curator, err = s.curator(); err != nil {
			return nil, err
		}
	}
	// What would fail at the end is better known before terabytes are read.
	if err := s.checkSigning(curator); err != nil {
		return nil, err
	}
	if err := s.checkSpace(0); err != nil {
		return nil, err
	}
	sets := make([]*dataset, len(in))
	for i := range in {
		p, err := profileOf(in[i].Profile)
		if err != nil {
			return nil, err
		}
		sets[i] = &dataset{in: &in[i], profile: p}
	}
	if err := s.ingest(ctx, sets, o.Progress); err != nil {
		return nil, err
	}
	r := &commitRequest{curator: curator, drafts: make([]draft, len(sets))}
	for i, ds := range sets {
		r.drafts[i] = draft{
			name: ds.in.Name, profile: ds.profile.Name, times: ds.in.Times, tree: ds.tree, kind: ds.kind,
			parents: ds.in.Parents, added: ds.added,
		}
	}
	res, err := s.commit(ctx, r)
	if err != nil {
		return nil, err
	}
	for i := range res {
		res[i].Skipped = sets[i].skipped
		if res[i].Unchanged {
			res[i].NewBytes, res[i].Stored = sets[i].added.Plain, sets[i].added.Packed
		}
	}
	return res, nil
}

func checkInputs(in []Input) error {
	if len(in) == 0 || len(in) > maxGroup {
		return fmt.Errorf("%d datasets in one put, must be 1 to %d: %w", len(in), maxGroup, ErrInvalid)
	}
	names := make(map[string]bool, len(in))
	for _, i := range in {
		if err := ledger.CheckName(i.Name); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if names[i.Name] {
			return fmt.Errorf("two datasets are named %s: %w", i.Name, ErrInvalid)
		}
		names[i.Name] = true
		if (i.Reader == nil) == (i.Path == "") {
			return fmt.Errorf("dataset %s needs a reader or a path, not both: %w", i.Name, ErrInvalid)
		}
	}
	return nil
}

func profileOf(name string) (*dag.Profile, error) {
	if name == "" {
		name = dag.DefaultProfile
	}
	p, err := dag.LookupProfile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p, nil
}

func (s *Store) curator() (Signer, error) {
	return LoadCurator(filepath.Join(s.dir, keysDir, curatorFile))
}

func (s *Store) checkSigning(curator Signer) error {
	if _, err := loadLogKey(s.dir, s.vkey); err != nil {
		return err
	}
	e := &ledger.Entry{Curator: curator.Curator()}
	if err := ledger.CheckAdmitted(e, s.published.Load().policy); err != nil {
		return fmt.Errorf("%w; the ledger's policy names who may sign", err)
	}
	return nil
}

// A dataset is one input on its way through ingest.
type dataset struct {
	in      *Input
	profile *dag.Profile
	src     *fstree.Tree // of Input.Path, open until ingest ends
	kind    dag.Kind
	tree    dag.Tree
	added   tally // Chunks and Plain belong to the assembler, Packed to the frame writer

	mu      sync.Mutex
	skipped []Skipped // guarded by mu
}

func (d *dataset) skip(s Skipped) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.skipped = append(d.skipped, s)
}

// ingest stores the blocks of the datasets and fills in their trees. When it
// returns nil, all blocks are durable and indexed.
//
//	reader ──> slabs ──> hashers (several) ──> assembler ──> frames ──> sealers (several) ──> packs, index
//	           └──────────── in order ───────────┘           └──────────── in order ───────────┘
//
// Memory is that of the slabs and frames in circulation, whatever the input.
func (s *Store) ingest(ctx context.Context, sets []*dataset, progress func(Progress)) error {
	workers := min(runtime.GOMAXPROCS(0), 8)
	w, err := s.newFrameWriter(ctx, workers)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(w.ctx)
	depth := workers + 3
	f := &feeder{s: s, ctx: gctx, hash: make(chan *slab, depth), order: make(chan *slab, depth), free: make(chan *slab, depth)}
	for range depth {
		f.free <- s.pools.takeSlab()
	}
	for range workers {
		g.Go(func() error {
			for sl := range f.hash {
				sl.process(gctx, s)
				sl.ready <- struct{}{}
			}
			return nil
		})
	}
	a := &assembler{s: s, w: w, progress: progress}
	g.Go(func() error { return a.run(gctx, f) })
	g.Go(func() error {
		defer close(f.order)
		defer close(f.hash)
		for _, ds := range sets {
			if err := f.feed(ds); err != nil {
				return fmt.Errorf("put %s: %w", ds.in.Name, err)
			}
		}
		return nil
	})
	err = g.Wait()
	if err != nil {
		// The writer stops at its context, so that finish does not flush for nothing.
		w.abort(err)
	}
	werr := w.finish()
	if err == nil || errors.Is(err, context.Canceled) && werr != nil {
		err = werr
	}
	f.release()
	for _, ds := range sets {
		if ds.src != nil {
			err = errors.Join(err, ds.src.Close())
		}
	}
	return err
}
