package grpcapi

import (
	"context"
	"fmt"
	"slices"

	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Policy returns the policy in force, as store.Store.Policy does.
func (c *Client) Policy(ctx context.Context) (store.PolicyInfo, error) {
	r, err := ask(ctx, c, c.curators.ListCurators, &scalev1.ListCuratorsRequest{})
	if err != nil {
		return store.PolicyInfo{}, err
	}
	return parsePolicy(r.GetPolicy())
}

func parsePolicy(m *scalev1.Policy) (store.PolicyInfo, error) {
	var p parser
	out := store.PolicyInfo{Entry: p.index("policy entry", m.GetEntry(), 0)}
	if len(m.GetOwn()) > 0 {
		out.Own = p.curator(m.GetOwn())
	}
	if n := len(m.GetCurators()); n == 0 || n > ledger.MaxCurators {
		p.failf("a policy of %d curators", n)
		return out, p.err
	}
	for i, k := range m.GetCurators() {
		out.Curators = append(out.Curators, p.curator(k))
		if i > 0 && out.Curators[i].Compare(out.Curators[i-1]) <= 0 {
			p.failf("the curators of a policy are not in order")
		}
	}
	return out, p.err
}

// Curators returns the keys that the policy in force admits.
func (c *Client) Curators(ctx context.Context) ([]ledger.CuratorKey, error) {
	p, err := c.Policy(ctx)
	return p.Curators, err
}

// AddCurator admits a key, as store.Store.AddCurator does. The entry is signed by signer
// at this end, or if that is nil by the node.
func (c *Client) AddCurator(ctx context.Context, key ledger.CuratorKey, signer store.Signer) (store.PolicyInfo, bool, error) {
	if err := ledger.CheckCuratorKey(key); err != nil {
		return store.PolicyInfo{}, false, fmt.Errorf("%w: %w", err, store.ErrInvalid)
	}
	p, changed, err := c.changePolicy(ctx, signer, true, key)
	if err != nil {
		err = fmt.Errorf("add curator %v: %w", key, err)
	}
	return p, changed, err
}

// RemoveCurator admits a key no longer, as store.Store.RemoveCurator does.
func (c *Client) RemoveCurator(ctx context.Context, key ledger.CuratorKey, signer store.Signer) (store.PolicyInfo, bool, error) {
	p, changed, err := c.changePolicy(ctx, signer, false, key)
	if err != nil {
		err = fmt.Errorf("remove curator %v: %w", key, err)
	}
	return p, changed, err
}

// changePolicy is repeated when the connection breaks: what has been done already changes
// nothing the second time.
func (c *Client) changePolicy(ctx context.Context, signer store.Signer, add bool, key ledger.CuratorKey) (out store.PolicyInfo, changed bool, err error) {
	err = signing(signer, func() error {
		var block []byte
		if signer != nil {
			var err error
			if out, err = c.Policy(ctx); err != nil {
				return err
			}
			if slices.Contains(out.Curators, key) == add {
				return nil
			}
			if block, err = c.signPolicy(ctx, signer, out, add, key); err != nil {
				return err
			}
		}
		if add {
			r, err := askFor(ctx, c, longer, c.curators.AddCurator, &scalev1.AddCuratorRequest{Curator: key[:], SignedEntry: block})
			if err == nil {
				changed = !r.GetUnchanged()
				out, err = parsePolicy(r.GetPolicy())
			}
			return err
		}
		r, err := askFor(ctx, c, longer, c.curators.RemoveCurator, &scalev1.RemoveCuratorRequest{Curator: key[:], SignedEntry: block})
		if err == nil {
			changed = !r.GetUnchanged()
			out, err = parsePolicy(r.GetPolicy())
		}
		return err
	})
	return out, changed, err
}

// Remove takes a name away, as store.Store.Remove does.
func (c *Client) Remove(ctx context.Context, name string, o store.PutOptions) (out store.Removal, err error) {
	if err := ledger.CheckName(name); err != nil {
		return store.Removal{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	err = signing(o.Curator, func() error {
		req := &scalev1.RemoveRequest{Name: name}
		if o.Curator != nil {
			var err error
			if req.SignedEntry, err = c.signRemoval(ctx, o.Curator, name); err != nil {
				return err
			}
		}
		r, err := once(ctx, c, c.datasets.Remove, req)
		if err != nil {
			return err
		}
		var p parser
		if out = p.removal(r.GetRemoval()); out.Name != name {
			p.failf("asked to remove %s, got %s", name, out.Name)
		}
		return p.err
	})
	return out, err
}
