package store

import (
	"context"
	"fmt"
	"time"
)

// A Batch is a Put whose datasets are not known beforehand: each is stored as it comes,
// and all of them are recorded in one commit at the end. It is for one goroutine.
type Batch struct {
	s      *Store
	began  time.Time
	names  map[string]bool
	drafts []draft
	heals  bool // the drafts are of entries that exist
}

// NewBatch begins a batch. One that is not committed leaves nothing in the ledger.
func (s *Store) NewBatch() (*Batch, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	return &Batch{s: s, began: time.Now(), names: map[string]bool{}}, nil
}

// Uploaded is what an Upload has added for a dataset that is made of its chunks, in
// bytes as FrameResult and PutResult have them.
type Uploaded struct{ New, Stored uint64 }

// Add stores a dataset, as Put does. up is for the books. The datasets of a batch are all
// healed (Input.Heal) or all recorded.
func (b *Batch) Add(ctx context.Context, in Input, up Uploaded) error {
	err := b.add(ctx, in, up)
	if tell := b.s.opt.Observer.Put; tell != nil && err != nil {
		tell(putEvent(len(b.drafts)+1, nil, err, time.Since(b.began)))
	}
	return err
}

func (b *Batch) add(ctx context.Context, in Input, up Uploaded) error {
	if err := checkInputs([]Input{in}); err != nil {
		return err
	}
	if len(b.drafts) > 0 && b.heals != in.Heal {
		return fmt.Errorf("a put that gives blocks back appends nothing else: %w", ErrInvalid)
	}
	if b.heals = in.Heal; b.names[in.Name] && !b.heals {
		return fmt.Errorf("two datasets are named %s: %w", in.Name, ErrInvalid)
	}
	if len(b.drafts) >= maxGroup {
		return fmt.Errorf("more than %d datasets in one commit: %w", maxGroup, ErrInvalid)
	}
	if err := b.s.writable(); err != nil {
		return err
	}
	if !b.heals {
		if err := b.s.appendable(); err != nil {
			return err
		}
	}
	p, err := profileOf(in.Profile)
	if err != nil {
		return err
	}
	if err := b.s.checkSpace(0); err != nil {
		return err
	}
	var d draft
	if in.Known.Defined() {
		if d, err = b.s.known(ctx, &in, p); err != nil {
			return err
		}
	} else {
		ds := &dataset{in: &in, profile: p}
		if err := b.s.ingest(ctx, []*dataset{ds}, nil, nil); err != nil {
			return err
		}
		d = ds.draft()
		d.added = ds.added
	}
	d.added.Plain += min(up.New, d.tree.Size)
	d.added.Packed += min(up.Stored, d.tree.Size)
	b.names[in.Name] = true
	b.drafts = append(b.drafts, d)
	return nil
}

// Sign says who signs the entry of the dataset that was added last.
func (b *Batch) Sign(curator Signer) { b.drafts[len(b.drafts)-1].curator = curator }

// Commit records the datasets, signed by the store's own curator where Sign was not
// called. It is durable, or not there at all, as with Put.
func (b *Batch) Commit(ctx context.Context) ([]PutResult, error) {
	res, err := b.commit(ctx)
	if tell := b.s.opt.Observer.Put; tell != nil {
		tell(putEvent(len(b.drafts), res, err, time.Since(b.began)))
	}
	return res, err
}

func (b *Batch) commit(ctx context.Context) ([]PutResult, error) {
	if len(b.drafts) == 0 {
		return nil, fmt.Errorf("a commit without a dataset: %w", ErrInvalid)
	}
	if b.heals {
		res := make([]PutResult, len(b.drafts))
		for i := range b.drafts {
			var err error
			if res[i], err = b.s.healed(ctx, &b.drafts[i]); err != nil {
				return nil, fmt.Errorf("heal: %w", err)
			}
		}
		return res, nil
	}
	r := &commitRequest{drafts: b.drafts}
	for i := range b.drafts {
		c := b.drafts[i].curator
		if c == nil && r.curator != nil {
			continue // checked for an earlier one
		}
		signer, err := b.s.signer(c)
		if err != nil {
			return nil, fmt.Errorf("dataset %s: %w", b.drafts[i].name, err)
		}
		if c == nil {
			r.curator = signer
		}
	}
	res, err := b.s.commit(ctx, r)
	for i := range res {
		if res[i].Unchanged {
			res[i].NewBytes, res[i].Stored = b.drafts[i].added.Plain, b.drafts[i].added.Packed
		}
	}
	return res, err
}
