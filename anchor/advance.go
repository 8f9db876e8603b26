package anchor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// call runs a call to the chain under its deadline. The outbox is written outside of
// it: what a late answer or none means must be recorded even so.
func (l *lane) call(ctx context.Context, bytes int64, f func(context.Context) error) error {
	limit := l.sched.Call + time.Duration(bytes/slowest)*time.Second
	cctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(cctx)
	if err != nil && cctx.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("no answer within %v: %w: %w", limit, ErrUnavailable, err)
	}
	return err
}

// slowest is the rate, in bytes a second, that is expected of an upload.
const slowest = 64 << 10

// advance brings a row as far as it goes now. An error holds up the lane for a while.
func (l *lane) advance(ctx context.Context, r *Row) error {
	if r.State == Pending {
		if err := l.sign(ctx, r); err != nil {
			return err
		}
	}
	if r.State == Signed {
		// From here on the transaction may be out there, whatever becomes of this process.
		if err := l.put(ctx, r, Sent, ""); err != nil {
			return err
		}
		return l.send(ctx, r, true)
	}
	return l.look(ctx, r)
}

// sign makes the transaction of a pending row, for the newest checkpoint.
func (l *lane) sign(ctx context.Context, r *Row) error {
	stand, err := l.standing(ctx)
	if err != nil {
		return err
	}
	j, base, err := l.job(ctx, r, stand)
	if err != nil {
		return l.say(ctx, r, err)
	}
	var tx Tx
	err = l.call(ctx, 0, func(ctx context.Context) (err error) {
		tx, err = l.chain.Prepare(ctx, j)
		return err
	})
	if err != nil {
		return l.say(ctx, r, err)
	}
	if len(j.Body) > 0 {
		if err := l.w.opt.Outbox.PutBody(ctx, l.name, r.Size, j.Body); err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
	}
	r.Tx, r.Base, r.Body = tx, base, int64(len(j.Body))
	r.Attempt++
	return l.put(ctx, r, Signed, "")
}

// job collects what is to be anchored. The row moves on to the newest checkpoint, which
// covers its own: nobody was given that yet.
func (l *lane) job(ctx context.Context, r *Row, stand standing) (Job, Link, error) {
	var base Link
	final := stand.final
	if final != nil && l.chain.Extends() {
		root, err := l.w.opt.Ledger.RootAt(ctx, final.Size)
		if err != nil {
			return Job{}, base, err
		}
		base = Link{ID: final.Tx.ID, Size: final.Size, Root: root[:]}
	}
	for most := int64(MaxEntries); ; {
		g, err := l.goal(ctx, final, most)
		if err != nil {
			return Job{}, base, err
		}
		if g.size <= stand.covered {
			return Job{}, base, fmt.Errorf("the extension of %d entries has to be final first: the next does not reach further from the one before", stand.covered)
		}
		if g.size != r.Size {
			if err := l.supersede(ctx, r, g); err != nil {
				return Job{}, base, err
			}
		}
		j := Job{Checkpoint: g.note, Origin: l.w.opt.Ledger.Origin(), Size: g.size}
		if !l.chain.Extends() {
			return j, base, nil
		}
		receipts, err := l.w.receiptsSince(ctx, final, l.name, g.size)
		if err != nil {
			return Job{}, base, err
		}
		j.Body, err = l.w.opt.Encode(ctx, Extension{Base: base, Size: g.size, Checkpoint: g.note, Receipts: receipts})
		var large *TooLargeError
		if errors.As(err, &large) && large.Fits > 0 && large.Fits < g.size-base.Size {
			most = large.Fits
			continue
		}
		return j, base, err
	}
}

// A TooLargeError is Options.Encode's where the entries do not fit into one extension.
type TooLargeError struct {
	Fits int64 // so many do
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("one extension holds only the next %d entries", e.Fits)
}

// supersede turns a pending row into that of another checkpoint.
func (l *lane) supersede(ctx context.Context, r *Row, g goal) error {
	var err error
	if r.Attempt == 0 {
		err = l.w.opt.Outbox.Delete(ctx, l.name, r.Size)
	} else {
		err = l.put(ctx, r, Expired, fmt.Sprintf("goes on with the checkpoint of %d entries", g.size))
	}
	if err != nil {
		return err
	}
	next, err := l.begin(ctx, g)
	if err == nil {
		*r = *next
	}
	return err
}

// receiptsSince returns the final receipts of the other chains, up to a size, that the
// extension before cannot hold: of larger trees, and of those that became final only
// after it was made. What comes twice, or by a wrong clock not at all, harms nothing.
func (w *Worker) receiptsSince(ctx context.Context, before *Row, but string, to int64) ([]Receipt, error) {
	var from, held int64
	var made time.Time
	if before != nil {
		from, held = before.Base.Size, before.Size
		for _, h := range before.History {
			if h.State == Signed && h.Attempt == before.Attempt {
				made = h.Time
			}
		}
	}
	var out []Receipt
	for _, l := range w.lanes {
		if l.name == but {
			continue
		}
		for r, err := range ChainRows(ctx, w.opt.Outbox, l.name, from+1) {
			if err != nil {
				return nil, err
			}
			if r.Size > to || len(out) == MaxReceipts {
				break
			}
			if r.State == Final && (r.Size > held || !r.Updated().Before(made)) {
				out = append(out, *r.Receipt)
			}
		}
	}
	return out, nil
}

// Bounds of one extension.
const (
	MaxEntries  = 1 << 17
	MaxReceipts = 4096
)

// send hands a transaction over. Only the refusal of bytes that nobody was ever given
// before leaves the checkpoint free to be signed anew: any other may yet land.
func (l *lane) send(ctx context.Context, r *Row, first bool) error {
	var body []byte
	if r.Body > 0 {
		var err error
		if body, err = l.w.opt.Outbox.Body(ctx, l.name, r.Size, r.Body); err != nil {
			return l.say(ctx, r, fmt.Errorf("body of the extension: %w", err))
		}
	}
	err := l.call(ctx, r.Body, func(ctx context.Context) error { return l.chain.Send(ctx, r.Tx, body) })
	switch {
	case err == nil:
		l.delivered = r.Tx.ID
		return nil
	case first && errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnavailable):
		return errors.Join(err, l.put(ctx, r, Refused, err.Error()))
	default:
		return l.say(ctx, r, err)
	}
}

// look asks the chain about a transaction that may be out there.
func (l *lane) look(ctx context.Context, r *Row) error {
	var st Status
	err := l.call(ctx, r.Body, func(ctx context.Context) (err error) {
		st, err = l.chain.Status(ctx, r.Tx)
		return err
	})
	if err != nil {
		return l.say(ctx, r, err)
	}
	// What a chain has of a body cannot be seen before it is in a block: as long as the
	// transaction is not, this process sends it until it was taken whole once.
	onTheWay := st.Phase == Waiting || st.Phase == Included
	if st.Missing || onTheWay && r.Body > 0 && r.State == Sent && l.delivered != r.Tx.ID {
		if err := l.send(ctx, r, false); err != nil {
			return err
		}
	}
	switch c, text := st.Receipt, st.words(); st.Phase {
	case Absent, Waiting:
		was := "dropped out of the chain: "
		if st.Phase == Waiting {
			was = "waits for a block again: "
		}
		if r.State == Seen {
			r.Receipt = nil
			if err := l.put(ctx, r, Sent, was+text); err != nil {
				return err
			}
		} else if st.Dissent != "" {
			if err := l.note(ctx, r, text); err != nil {
				return err
			}
		}
		if st.Phase == Waiting {
			return nil
		}
		return l.send(ctx, r, false)
	case Included:
		if r.State == Seen && r.Receipt.Block == c.Block && r.Receipt.Depth == c.Depth {
			return l.note(ctx, r, text)
		}
		r.Receipt = &c
		return l.put(ctx, r, Seen, text)
	case Settled:
		c.Final = true
		r.Receipt = &c
		return l.put(ctx, r, Final, text)
	case Failed:
		err := fmt.Errorf("in a block, but failed: %s: %w", text, ErrRefused)
		r.Receipt = nil
		return errors.Join(err, l.put(ctx, r, Refused, err.Error()))
	case Dead:
		r.Receipt = nil
		return l.put(ctx, r, Expired, text)
	default:
		return fmt.Errorf("%s: phase %d of transaction %s", l.name, st.Phase, r.Tx.ID)
	}
}
