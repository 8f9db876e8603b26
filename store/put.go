package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/filecache"
	"github.com/koii-network/scale/store/ingest"
)

// Put stores datasets and appends one ledger entry for each, all in one commit.
//
// When it returns nil everything is durable: the chunks, their index, the entries,
// the signed checkpoint and the high-water mark. When it fails or ctx ends, the
// ledger is as it was; chunks that were already stored are found again by the next
// put of the same data. Putting under a name whose newest version is this very
// dataset, signed by the curator that is asked for if one is, appends nothing and
// reports it as Unchanged.
//
// Any number of puts may be under way: they share what they write with, and a slow
// reader holds up its own put only. Put returns when the readers do: a Read that blocks
// for ever must be ended by whoever made it.
func (s *Store) Put(ctx context.Context, in []Input, o PutOptions) ([]PutResult, error) {
	began := time.Now()
	res, err := s.put(ctx, in, o)
	if tell := s.opt.Observer.Put; tell != nil {
		tell(putEvent(len(in), res, err, time.Since(began)))
	}
	return res, err
}

func putEvent(datasets int, res []PutResult, err error, took time.Duration) PutEvent {
	e := PutEvent{Datasets: datasets, Took: took, Err: err}
	for i := range res {
		r := &res[i]
		if r.Unchanged {
			e.Unchanged++
		}
		e.Bytes += r.Size
		e.New += r.NewBytes
		e.Stored += r.Stored
	}
	return e
}

func (s *Store) put(ctx context.Context, in []Input, o PutOptions) ([]PutResult, error) {
	if err := checkInputs(in); err != nil {
		return nil, err
	}
	if len(in) > 0 && in[0].Heal {
		return s.heal(ctx, in, o)
	}
	if err := s.appendable(); err != nil {
		return nil, err
	}
	// What would fail at the end is better known before terabytes are read.
	curator, err := s.signers(in, o)
	if err != nil {
		return nil, err
	}
	if err := s.checkSpace(0); err != nil {
		return nil, err
	}
	r := &commitRequest{curator: curator, drafts: make([]draft, len(in))}
	defer s.unclaim(r)
	sets := make([]*dataset, len(in)) // nil for those that are known
	var fresh []*dataset
	for i := range in {
		p, err := profileOf(in[i].Profile)
		if err != nil {
			return nil, err
		}
		if in[i].Known.Defined() {
			if r.drafts[i], err = s.known(ctx, &in[i], p); err != nil {
				return nil, err
			}
			continue
		}
		sets[i] = &dataset{in: &in[i], profile: p}
		fresh = append(fresh, sets[i])
	}
	err = s.ingest(ctx, fresh, o.Progress, func(d *deposit) error {
		walked := false // what is known of files is written between the wait and the commit
		for i, ds := range sets {
			if ds != nil {
				r.drafts[i] = ds.draft()
				walked = walked || ds.in.Path != ""
			}
			if d := &r.drafts[i]; d.curator == nil {
				d.curator = o.Curator
			}
		}
		if err := s.depositAhead(ctx, d, r); err != nil {
			return err
		}
		if !walked {
			d.precedes(r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, ds := range sets {
		if ds != nil {
			r.drafts[i].added = ds.added // complete only now
		}
	}
	res, err := s.commit(ctx, r)
	if err != nil {
		return nil, err
	}
	for i := range res {
		if sets[i] == nil {
			continue
		}
		res[i].Skipped, res[i].Unread = sets[i].skipped, sets[i].unread
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
		if err := ledger.CheckName(i.Name); err != nil && (!i.Heal || i.Name != "") {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if i.Heal != in[0].Heal || i.Heal && i.Known.Defined() {
			return fmt.Errorf("a put that gives blocks back needs the data, and appends nothing else: %w", ErrInvalid)
		}
		if names[i.Name] && !i.Heal {
			return fmt.Errorf("two datasets are named %s: %w", i.Name, ErrInvalid)
		}
		names[i.Name] = true
		given := 0
		for _, is := range []bool{i.Reader != nil, i.Path != "", i.Source != nil, i.Known.Defined()} {
			if is {
				given++
			}
		}
		if given != 1 {
			return fmt.Errorf("dataset %s needs one of a reader, a path, a source and a known dataset: %w", i.Name, ErrInvalid)
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

// A dataset is one input on its way.
type dataset struct {
	in      *Input
	profile *dag.Profile
	kind    dag.Kind
	tree    dag.Tree
	added   tally // guarded by writer.mu until the put has waited
	skipped []Skipped
	unread  uint64
}

// ingest stores the blocks of the datasets and fills in their trees. When it
// returns nil, all blocks are durable and indexed. When it does not, chunks that were
// handed over are kept. Last, if it is set, may hand in more before the wait for the disk.
func (s *Store) ingest(ctx context.Context, sets []*dataset, progress func(Progress), last func(*deposit) error) error {
	var before Progress
	var walks []filecache.Walk
	cache := FileCache(s.opt.FileCache)
	cache.Now = s.opt.Now
	d := s.writer.newDeposit(ctx)
	for _, ds := range sets {
		d.count(&ds.added)
		files := cache.Begin(ds.in.Path, ds.profile.Name, ds.in.Rescan || ds.in.Heal)
		defer files.Close()
		walks = append(walks, files)
		out := ingest.Output{Index: d, Chunks: d, Nodes: d, Files: files.Next}
		var now ingest.Progress
		out.Progress = func(p ingest.Progress) {
			if now = p; progress != nil {
				progress(Progress{Bytes: before.Bytes + p.Bytes, Files: before.Files + p.Files, Unread: before.Unread + p.Unread})
			}
		}
		in := &ingest.Input{
			Reader: ds.in.Reader, Path: ds.in.Path, Source: ds.in.Source, Profile: ds.profile,
			Times: ds.in.Times, Exclude: ds.in.Exclude, SkipUnreadable: ds.in.SkipUnreadable, Sort: s.sorting(),
			Files: files.Past,
		}
		if in.Source != nil {
			in.Sort.Memory = sourceSort
		}
		res, err := s.pools.Run(ctx, in, &out)
		if err == nil && ds.in.Root.Defined() && ds.in.Root != res.Tree.Root {
			err = fmt.Errorf("its root is %v, not %v: %w", res.Tree.Root, ds.in.Root, ErrMismatch)
		}
		if err != nil {
			d.want() // so that a second attempt finds what is there
			if in.Source != nil {
				err = inputError(d.misnamed(err))
			}
			return fmt.Errorf("put %s: %w", ds.in.Name, err)
		}
		before = Progress{Bytes: before.Bytes + now.Bytes, Files: before.Files + now.Files, Unread: before.Unread + now.Unread}
		ds.kind, ds.tree, ds.unread = res.Kind, res.Tree, res.Unread
		for _, sk := range res.Skipped {
			ds.skipped = append(ds.skipped, Skipped{Path: sk.Path, Why: sk.Why, Special: errors.Is(sk.Why, fstree.ErrSpecial)})
		}
	}
	if last != nil {
		if err := last(d); err != nil {
			d.want()
			return err
		}
	}
	if err := d.wait(ctx); err != nil {
		return err
	}
	for _, files := range walks {
		if err := files.Next.Commit(); err != nil {
			s.log.Warn("what was put is read again the next time", "err", err)
		}
	}
	return nil
}

// sourceSort is the memory for entries of directories of one Source, of which there may
// be many at a time: some 5,000 entries.
const sourceSort = 512 << 10

// inputError gives what the builders refuse the class of a bad argument.
func inputError(err error) error {
	for _, bad := range []error{ingest.ErrInvalid, dag.ErrPath, dag.ErrAttr, dag.ErrOrder, dag.ErrRange} {
		if errors.Is(err, bad) {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return err
}
