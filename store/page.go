package store

import (
	"context"
	"fmt"
	"iter"

	"github.com/koii-network/scale/dag"
)

// ListFrom yields what List yields, but only what comes after the given path, which
// is one that List yielded; an empty one is the beginning. It finds its place in
// logarithmic time, so that a listing can be given in pages; a listing in one go is
// faster with List. A path that is not there is ErrNotFound.
func (s *Store) ListFrom(ctx context.Context, o Object, after string) iter.Seq2[Entry, error] {
	if o.Info.Kind != dag.KindDir && after == "" {
		return s.List(ctx, o)
	}
	return func(yield func(Entry, error) bool) {
		if o.Info.Kind != dag.KindDir {
			yield(Entry{}, fmt.Errorf("list %s, a %v, after %q: %w", o, o.Info.Kind, after, ErrNotFound))
			return
		}
		at := dag.Place{Below: o.Path, After: after}
		for e, err := range dag.WalkFrom(ctx, s, o.Dataset.CID, o.Dataset.Commitment, o.Dataset.Leaves, at) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("list %s: %w", o, storeError(err)))
				return
			}
			if !yield(Entry{Path: e.Path, CID: e.Info.CID, Info: e.Info}, nil) {
				return
			}
		}
	}
}
