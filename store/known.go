package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// known drafts an entry for a dataset that the ledger has under any name. It was whole
// when it was recorded, and nothing of it goes while an entry reaches it.
func (s *Store) known(ctx context.Context, in *Input, p *dag.Profile) (draft, error) {
	e, err := s.knownEntry(ctx, in.Known, p.Name, in.Times)
	if err != nil {
		return draft{}, fmt.Errorf("dataset %v for %s: %w", in.Known, in.Name, err)
	}
	info, err := s.prover.Stat(ctx, e.Root)
	if err != nil {
		return draft{}, fmt.Errorf("dataset %v for %s: %w", in.Known, in.Name, storeError(err))
	}
	if s.restored > 0 {
		w := wholeness{s: s}
		if n, err := w.missing(ctx, e.Root); err != nil {
			return draft{}, err
		} else if n > 0 {
			return draft{}, fmt.Errorf("dataset %v for %s: %w", in.Known, in.Name, s.gone(fmt.Errorf("%d of its blocks are missing", n)))
		}
	}
	return draft{
		name: in.Name, profile: p.Name, times: in.Times, kind: info.Kind, parents: in.Parents, curator: in.Curator,
		tree: dag.Tree{Root: e.Root, Commitment: e.Commitment, Size: e.Size, Files: e.Files, Leaves: e.Leaves, Chunks: e.Chunks},
	}, nil
}

// knownEntry finds an entry of a dataset with that profile, which decides the commitment,
// and with or without times.
func (s *Store) knownEntry(ctx context.Context, root cid.Cid, profile string, times bool) (*ledger.Entry, error) {
	d, err := dag.DigestOf(root)
	if err != nil {
		return nil, fmt.Errorf("no dataset has such a CID: %w", ErrNotFound)
	}
	match := func(row kv.Row) (*ledger.Entry, error) {
		i, err := parseInt(row.Key[min(33, len(row.Key)):])
		if err != nil || !s.visible(i) {
			return nil, err
		}
		e, err := s.entryAt(ctx, i)
		if err != nil || e.Entry.Kind != ledger.KindDataset || e.Entry.Root != root || e.Entry.Profile != profile || e.Entry.Times != times {
			return nil, err
		}
		return e.Entry, nil
	}
	// All entries of one root are alike, but for a few.
	last, err := s.kv.Last(ctx, digestKey(rowRoot, d))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, fmt.Errorf("the ledger has none with that CID: %w", ErrNotFound)
	}
	if err != nil {
		return nil, storeError(err)
	}
	if e, err := match(last); e != nil || err != nil {
		return e, err
	}
	for row, err := range s.kv.Scan(ctx, digestKey(rowRoot, d), nil) {
		if err != nil {
			return nil, storeError(err)
		}
		if e, err := match(row); e != nil || err != nil {
			return e, err
		}
	}
	return nil, fmt.Errorf("the ledger has none with that CID, profile %s and times %t: %w", profile, times, ErrNotFound)
}
