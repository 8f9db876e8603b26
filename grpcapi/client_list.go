package grpcapi

import (
	"context"
	"fmt"
	"iter"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

const (
	listPage = 1000 // of datasets and versions, the most that a node gives
	treePage = 10_000
)

// Datasets yields the newest version of each name, by name.
func (c *Client) Datasets(ctx context.Context) iter.Seq2[store.Dataset, error] {
	return func(yield func(store.Dataset, error) bool) {
		req := &scalev1.ListDatasetsRequest{PageSize: listPage}
		last := ""
		for {
			r, err := askFor(ctx, c, longer, c.datasets.ListDatasets, req)
			if err != nil {
				yield(store.Dataset{}, err)
				return
			}
			for _, d := range r.GetDatasets() {
				var p parser
				ds := p.dataset(d)
				if ds.Name <= last {
					p.failf("dataset %s comes after %s", ds.Name, last)
				}
				last = ds.Name
				if !yield(ds, p.err) || p.err != nil {
					return
				}
			}
			if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
				return
			}
			if len(r.GetDatasets()) == 0 {
				yield(store.Dataset{}, nodeErrorf("an empty page of datasets that is not the last"))
				return
			}
		}
	}
}

// History yields the versions of a name, the first one first.
func (c *Client) History(ctx context.Context, name string) iter.Seq2[store.Version, error] {
	return func(yield func(store.Version, error) bool) {
		if err := ledger.CheckName(name); err != nil {
			yield(store.Version{}, fmt.Errorf("%w: %w", store.ErrInvalid, err))
			return
		}
		req := &scalev1.ListVersionsRequest{Name: name, PageSize: listPage}
		last := 0
		for {
			r, err := askFor(ctx, c, longer, c.datasets.ListVersions, req)
			if err != nil {
				yield(store.Version{}, err)
				return
			}
			for _, m := range r.GetVersions() {
				v, n, err := parseVersion(m, name)
				if err == nil && n <= last {
					err = nodeErrorf("version %d of %s comes after %d", n, name, last)
				}
				last = n
				if !yield(v, err) || err != nil {
					return
				}
			}
			if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
				return
			}
			if len(r.GetVersions()) == 0 {
				yield(store.Version{}, nodeErrorf("an empty page of versions that is not the last"))
				return
			}
		}
	}
}

func parseVersion(m *scalev1.Version, name string) (v store.Version, number int, err error) {
	var p parser
	found := name
	switch {
	case m.GetDataset() != nil:
		d := p.dataset(m.GetDataset())
		v.Dataset, found, number = &d, d.Name, d.Version
	case m.GetRemoval() != nil:
		r := p.removal(m.GetRemoval())
		v.Removal, found, number = &r, r.Name, r.Version
	default:
		p.failf("a version that is neither a dataset nor a removal")
	}
	if found != name {
		p.failf("asked for versions of %s, got one of %s", name, found)
	}
	return v, number, p.err
}

// List yields everything below o in canonical order, as store.Store.List does.
func (c *Client) List(ctx context.Context, o store.Object) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		req := &scalev1.ListTreeRequest{PageSize: treePage}
		req.Ref, req.Path = place(o)
		order := newReceivedOrder(o)
		for {
			r, err := askFor(ctx, c, longer, c.datasets.ListTree, req)
			if err != nil {
				yield(store.Entry{}, fmt.Errorf("list %s: %w", o, err))
				return
			}
			for _, m := range r.GetEntries() {
				var p parser
				e := p.entry(m, true)
				if p.err == nil {
					p.err = order.next(e)
				}
				if p.err == nil && e.Path == "" && e.Info.Kind == dag.KindDir {
					continue
				}
				if !yield(e, p.err) || p.err != nil {
					return
				}
			}
			if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
				break
			}
			if len(r.GetEntries()) == 0 {
				yield(store.Entry{}, nodeErrorf("an empty page of %s that is not the last", o))
				return
			}
		}
		if err := order.end(); err != nil {
			yield(store.Entry{}, err)
		}
	}
}

// Totals adds up what the node's store holds. It takes time with the size of its index.
func (c *Client) Totals(ctx context.Context) (store.Totals, error) {
	t, err := askFor(ctx, c, 0, c.node.GetTotals, &scalev1.GetTotalsRequest{})
	if err != nil {
		return store.Totals{}, err
	}
	return store.Totals{
		Datasets: t.GetDatasets(), Logical: t.GetLogical(), Unique: t.GetUnique(), Packed: t.GetPacked(), Stored: t.GetStored(),
		Reclaimable: t.GetReclaimable(), Chunks: t.GetChunks(), TreeSize: t.GetTreeSize(),
	}, nil
}
