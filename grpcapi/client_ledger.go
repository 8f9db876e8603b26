package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Head returns the newest checkpoint and where a name stands, as store.Store.Head does.
// The checkpoint is signed by the key that the node says is its log's.
func (c *Client) Head(ctx context.Context, name string) (store.Head, error) {
	r, err := ask(ctx, c, c.ledger.GetHead, &scalev1.GetHeadRequest{Name: name})
	if err != nil {
		return store.Head{}, err
	}
	var p parser
	h := store.Head{
		Published: p.checkpoint(r.GetCheckpoint()), VerifierKey: r.GetVkey(),
		Policy: p.index("policy entry", r.GetPolicy(), -1), Newest: p.index("newest entry", r.GetNewest(), -1),
	}
	if h.VerifierKey != c.info.VKey {
		p.failf("the log's key has changed")
	}
	if p.err == nil {
		p.err = c.checkSigned(h.Published)
	}
	if h.Policy >= h.Size || h.Newest >= h.Size {
		p.failf("entries %d and %d of a ledger of %d", h.Policy, h.Newest, h.Size)
	}
	return h, p.err
}

// checkSigned checks that the log's key has signed what a checkpoint is said to be.
func (c *Client) checkSigned(p store.Published) error {
	v, err := note.NewVerifier(c.info.VKey)
	if err != nil {
		return nodeErrorf("the log's key: %w", err)
	}
	cp, err := ledger.OpenCheckpoint(p.Checkpoint, v)
	if err != nil {
		return nodeErrorf("checkpoint: %w", err)
	}
	if cp.Size != p.Size || cp.Root != p.Root {
		return nodeErrorf("the signed checkpoint is of size %d, not %d, or has another root", cp.Size, p.Size)
	}
	return nil
}

func (p *parser) ledgerEntry(m *scalev1.LedgerEntry) store.LedgerEntry {
	block := m.GetBlock()
	e, err := ledger.ParseEntry(block)
	if err != nil {
		p.failf("entry :%d: %w", m.GetIndex(), err)
		return store.LedgerEntry{}
	}
	return store.LedgerEntry{Index: p.index("entry", m.GetIndex(), 0), CID: ledger.EntryCID(block), Block: block, Entry: e}
}

// Entry returns one entry of the ledger, read from its signed block.
func (c *Client) Entry(ctx context.Context, index int64) (store.LedgerEntry, error) {
	r, err := ask(ctx, c, c.ledger.GetEntry, &scalev1.GetEntryRequest{Index: index})
	if err != nil {
		return store.LedgerEntry{}, err
	}
	var p parser
	e := p.ledgerEntry(r.GetEntry())
	if e.Index != index {
		p.failf("asked for entry :%d, got :%d", index, e.Index)
	}
	return e, p.err
}

// Entries yields the entries from index from up to, not including, to, as
// store.Store.Entries does; a to past the end means the end.
func (c *Client) Entries(ctx context.Context, from, to int64) iter.Seq2[store.LedgerEntry, error] {
	return func(yield func(store.LedgerEntry, error) bool) {
		if from < 0 || from > to {
			yield(store.LedgerEntry{}, fmt.Errorf("entries %d to %d: %w", from, to, store.ErrInvalid))
			return
		}
		h, err := c.Head(ctx, "")
		if err != nil {
			yield(store.LedgerEntry{}, err)
			return
		}
		if to = min(to, h.Size); from < to {
			c.stream(ctx, &scalev1.StreamEntriesRequest{Start: from, End: &to}, yield)
		}
	}
}

// Follow yields the entries from index from on, and those that are published later, until
// ctx ends, as store.Store.Follow does.
func (c *Client) Follow(ctx context.Context, from int64) iter.Seq2[store.LedgerEntry, error] {
	return func(yield func(store.LedgerEntry, error) bool) {
		c.stream(ctx, &scalev1.StreamEntriesRequest{Start: from, Follow: true}, yield)
	}
}

// stream yields entries and goes on where it was when a connection breaks.
func (c *Client) stream(ctx context.Context, req *scalev1.StreamEntriesRequest, yield func(store.LedgerEntry, error) bool) {
	p := patience{c: c}
	for {
		more, callErr := c.streamOnce(ctx, req, func(e store.LedgerEntry, err error) bool {
			p.progress()
			return yield(e, err)
		})
		switch {
		case !more:
			return
		case callErr != nil:
			callErr = p.again(ctx, callErr)
		case req.Follow:
			// The node never ends such a stream by itself, unless it closes.
			callErr = callError(ctx, errors.New("the node has ended the stream"))
		case req.Start < req.GetEnd():
			callErr = nodeErrorf("entries :%d to :%d did not come", req.Start, req.GetEnd())
		default:
			return
		}
		if callErr != nil {
			yield(store.LedgerEntry{}, callErr)
			return
		}
	}
}

// streamOnce yields what one call brings, and moves req.Start behind it. More is false
// when yield wants no more, or has been told an error.
func (c *Client) streamOnce(ctx context.Context, req *scalev1.StreamEntriesRequest, yield func(store.LedgerEntry, error) bool) (more bool, callErr error) {
	ctx, idle := watchIdle(ctx)
	defer idle.stop()
	if req.Follow {
		idle.pause() // it may bring nothing for days
	}
	s, err := c.ledger.StreamEntries(ctx, req)
	if err != nil {
		return true, idle.cause(err)
	}
	for empty := 0; ; {
		r, err := s.Recv()
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return true, idle.cause(err)
		}
		idle.pause()
		// One may have a checkpoint alone, which the entries before it lead to.
		if len(r.GetEntries()) > 0 {
			empty = 0
		} else if empty++; empty > 1 {
			yield(store.LedgerEntry{}, errNothing)
			return false, nil
		}
		for _, m := range r.GetEntries() {
			var p parser
			e := p.ledgerEntry(m)
			if e.Index != req.Start || req.End != nil && e.Index >= req.GetEnd() {
				p.failf("entry :%d in the place of :%d", e.Index, req.Start)
			}
			if !yield(e, p.err) || p.err != nil {
				return false, nil
			}
			req.Start++
		}
		if !req.Follow {
			idle.wait()
		}
	}
}

// Consistency proves that the tree of size from is a prefix of that of size to. The proof
// has been checked against the roots that the node names.
func (c *Client) Consistency(ctx context.Context, from, to int64) (tlog.TreeProof, error) {
	r, err := ask(ctx, c, c.ledger.GetConsistencyProof, &scalev1.GetConsistencyProofRequest{OldSize: from, Size: &to})
	if err != nil {
		return nil, err
	}
	var p parser
	if len(r.GetHashes()) > 128 {
		p.failf("a consistency proof of %d hashes", len(r.GetHashes()))
		return nil, p.err
	}
	proof := make(tlog.TreeProof, 0, len(r.GetHashes()))
	for _, h := range r.GetHashes() {
		proof = append(proof, p.hash("hash of a consistency proof", h))
	}
	old, root := p.hash("root", r.GetOldRoot()), p.hash("root", r.GetRoot())
	if r.GetSize() != to {
		p.failf("asked for size %d, got %d", to, r.GetSize())
	}
	if p.err != nil {
		return nil, p.err
	}
	if err := ledger.CheckConsistency(proof, from, old, to, root); err != nil {
		return nil, nodeErrorf("consistency of %d with %d: %w", from, to, err)
	}
	return proof, nil
}
