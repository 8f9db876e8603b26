package store

import (
	"context"
	"fmt"
)

// heal stores the blocks of datasets that the ledger has.
func (s *Store) heal(ctx context.Context, in []Input, o PutOptions) ([]PutResult, error) {
	if err := s.writable(); err != nil {
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
	if err := s.ingest(ctx, sets, o.Progress, nil); err != nil {
		return nil, err
	}
	results := make([]PutResult, len(sets))
	for i, ds := range sets {
		var err error
		d := ds.draft()
		d.added = ds.added
		if results[i], err = s.healed(ctx, &d); err != nil {
			return nil, fmt.Errorf("heal: %w", err)
		}
		results[i].Skipped = ds.skipped
	}
	return results, nil
}

// draft is the dataset on its way into the ledger. What it added is known after the wait.
func (ds *dataset) draft() draft {
	return draft{
		name: ds.in.Name, profile: ds.profile.Name, times: ds.in.Times, tree: ds.tree, kind: ds.kind,
		parents: ds.in.Parents, curator: ds.in.Curator,
	}
}
