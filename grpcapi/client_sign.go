package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// Entries that are signed at this end are composed from what the node says of its ledger.
// It records them only if it has found the same, and if nothing came between.

// maxConflicts is how often an entry is signed again because something came between.
const maxConflicts = 5

// signing carries out do, again if the ledger has moved on under a signature.
func signing(signer store.Signer, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if signer == nil || try == maxConflicts || !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// checkSigner says before anything is sent what the node would say at the end.
func (c *Client) checkSigner(ctx context.Context, signer store.Signer) error {
	keys, err := c.Curators(ctx)
	if err != nil {
		return err
	}
	if err := ledger.CheckAdmitted(&ledger.Entry{Curator: signer.Curator()}, &ledger.Entry{Kind: ledger.KindPolicy, Curators: keys}); err != nil {
		return fmt.Errorf("%w; the ledger's policy names who may sign", err)
	}
	return nil
}

func (c *Client) sign(signer store.Signer, e *ledger.Entry) ([]byte, error) {
	e.Time = time.Now().UTC().Truncate(time.Millisecond)
	if err := signer.SignEntry(e, c.LogID()); err != nil {
		return nil, fmt.Errorf("sign entry: %w", err)
	}
	block, err := e.Marshal()
	if err != nil {
		return nil, fmt.Errorf("entry: %w", err)
	}
	return block, nil
}

// signDataset returns the entry of a dataset that is put. Its parents are the version
// before, unless the name was removed, and then those given.
func (c *Client) signDataset(ctx context.Context, signer store.Signer, in *store.Input, profile string, t *dag.Tree) ([]byte, error) {
	h, err := c.Head(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	var parents []cid.Cid
	if h.Newest >= 0 {
		prev, err := c.Entry(ctx, h.Newest)
		if err != nil {
			return nil, err
		}
		if prev.Entry.Name != in.Name {
			return nil, nodeErrorf("the newest entry of %s is one of %s", in.Name, prev.Entry.Name)
		}
		if prev.Entry.Kind == ledger.KindDataset {
			parents = append(parents, prev.CID)
		}
	}
	for _, i := range in.Parents {
		e, err := c.Entry(ctx, i)
		if err != nil {
			return nil, fmt.Errorf("parent :%d: %w", i, err)
		}
		if !slices.Contains(parents, e.CID) {
			parents = append(parents, e.CID)
		}
	}
	return c.sign(signer, &ledger.Entry{
		Kind: ledger.KindDataset, Name: in.Name, Root: t.Root, Size: t.Size, Files: t.Files, Leaves: t.Leaves, Chunks: t.Chunks,
		Commitment: t.Commitment, Profile: profile, Times: in.Times, Parents: parents, Previous: h.Newest, Policy: h.Policy,
	})
}

func (c *Client) signRemoval(ctx context.Context, signer store.Signer, name string) ([]byte, error) {
	h, err := c.Head(ctx, name)
	if err != nil || h.Newest < 0 {
		return nil, err // without a signature the node says that there is no such name
	}
	return c.sign(signer, &ledger.Entry{Kind: ledger.KindRemoval, Name: name, Previous: h.Newest, Policy: h.Policy})
}

func (c *Client) signPolicy(ctx context.Context, signer store.Signer, now store.PolicyInfo, add bool, key ledger.CuratorKey) ([]byte, error) {
	keys := slices.DeleteFunc(slices.Clone(now.Curators), func(k ledger.CuratorKey) bool { return k == key })
	if add {
		keys = append(keys, key)
		slices.SortFunc(keys, ledger.CuratorKey.Compare)
	}
	if !ledger.CanSign(keys) {
		return nil, store.ErrLastCurator
	}
	return c.sign(signer, &ledger.Entry{Kind: ledger.KindPolicy, Curators: keys, Previous: -1, Policy: now.Entry})
}
