package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/arweave"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/extension"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// RestoreOptions says what is restored and from where. All but Store, TempDir and the
// functions is required.
type RestoreOptions struct {
	Dir         string // of the store to be, which must not exist or be empty
	Transaction string // id of the extension that holds the newest entries
	VKey        string // the log's public key
	Gateways    *endpoint.Pool
	// Confirmations that make an extension final; 0 is the default.
	Confirmations uint64
	Store         store.Options
	// TempDir is where extensions wait, which come the newest first; "" is the system's.
	TempDir string
	// Progress, if set, is told of how many entries were fetched, then added, of how many.
	Progress func(fetched, added, all int64)
	// Note, if set, is told what a person should know.
	Note func(string)
}

// A part is one extension that was fetched.
type part struct {
	id        string
	raw       []byte // header
	offset, n int64  // of the body in the file
	base      anchor.Link
	size      int64
}

// Restore rebuilds a ledger from the chain of its extensions alone: entries, tiles, the
// anchored checkpoints, receipts. Every step is verified against the log's key. The store
// then reads and proves, and does not append. It returns the number of entries.
func Restore(ctx context.Context, o RestoreOptions) (size int64, err error) {
	v, err := note.NewVerifier(o.VKey)
	if err != nil {
		return 0, fmt.Errorf("log key: %w: %w", store.ErrInvalid, err)
	}
	if o.Progress == nil {
		o.Progress = func(_, _, _ int64) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	f, err := os.CreateTemp(o.TempDir, "scale-restore-")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // it goes with this process
		return 0, err
	}
	parts, err := fetch(ctx, o, v, f)
	if err != nil {
		return 0, err
	}
	r, err := store.NewRestore(ctx, o.Dir, o.VKey, o.Store)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Abort()) }()
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		body := make([]byte, p.n)
		if _, err := f.ReadAt(body, p.offset); err != nil {
			return 0, err
		}
		if err := o.add(ctx, r, p, body); err != nil {
			return 0, fmt.Errorf("extension %s: %w", p.id, err)
		}
		o.Progress(parts[0].size, p.size, parts[0].size)
	}
	size = r.Size()
	return size, r.Finish(ctx)
}

// fetch follows the chain of extensions to its beginning.
func fetch(ctx context.Context, o RestoreOptions, v note.Verifier, f *os.File) ([]part, error) {
	var parts []part
	id, below, end := o.Transaction, int64(ledger.MaxSize), int64(0)
	var root []byte // that the extension has to lead to
	for {
		h, body, err := arweave.Fetch(ctx, o.Gateways, id, extension.MaxBody)
		if err != nil {
			return nil, err
		}
		bad := func(format string, a ...any) error {
			return fmt.Errorf("extension %s: %s: %w", id, fmt.Sprintf(format, a...), store.ErrMismatch)
		}
		x, err := extension.Parse(body)
		if err != nil {
			return nil, bad("%v", err)
		}
		c, err := ledger.OpenCheckpoint(x.Checkpoint, v)
		switch {
		case err != nil:
			return nil, bad("its checkpoint is not one of the log %s: %v", v.Name(), err)
		case !bytes.Equal(x.Checkpoint, h.Checkpoint):
			return nil, bad("header and body have two checkpoints")
		case c.Size >= below || parts != nil && (c.Size != end || !bytes.Equal(c.Root[:], root)):
			return nil, bad("it ends at %d entries, the next one begins at %d", c.Size, end)
		}
		if _, err := f.WriteAt(body, offsetOf(parts)); err != nil {
			return nil, err
		}
		parts = append(parts, part{
			id: id, raw: h.Raw, offset: offsetOf(parts), n: int64(len(body)), base: x.Base, size: c.Size,
		})
		o.Progress(parts[0].size-x.Base.Size, 0, parts[0].size)
		if x.Base.Size == 0 {
			return parts, nil
		}
		id, below, end, root = x.Base.ID, c.Size, x.Base.Size, x.Base.Root
	}
}

func offsetOf(parts []part) int64 {
	if len(parts) == 0 {
		return 0
	}
	last := parts[len(parts)-1]
	return last.offset + last.n
}

// add adds what one extension holds.
func (o *RestoreOptions) add(ctx context.Context, r *store.Restore, p part, body []byte) error {
	x, err := extension.Parse(body)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrMismatch, err)
	}
	own, err := o.row(ctx, p)
	if err != nil {
		return err
	}
	return r.Add(ctx, store.RestoreStep{
		BaseSize: x.Base.Size, BaseRoot: tlog.Hash(x.Base.Root), Checkpoint: x.Checkpoint,
		Records: func(entry func([]byte) error, add func(store.RestoredAnchor) error) error {
			put := func(row *anchor.Row) error {
				b, err := row.Encode()
				if err != nil {
					return err
				}
				return add(store.RestoredAnchor{Chain: row.Chain, Size: row.Size, Checkpoint: row.Checkpoint, Row: b})
			}
			err := x.Records(func(_ int64, block []byte) error { return entry(block) }, func(c anchor.Receipt) error {
				if c.Chain != k2.Name {
					return nil // of a chain that this program does not know
				}
				row, err := anchor.RestoredRow(c, k2.Verifier{})
				if err != nil {
					return fmt.Errorf("%w: %w", store.ErrMismatch, err)
				}
				return put(row)
			})
			if err == nil && own != nil {
				err = put(own)
			}
			if errors.Is(err, extension.ErrFormat) {
				err = fmt.Errorf("%w: %w", store.ErrMismatch, err)
			}
			return err
		},
	})
}

// row returns that of the extension itself, nil if it is not final yet.
func (o *RestoreOptions) row(ctx context.Context, p part) (*anchor.Row, error) {
	network, err := arweave.Network(ctx, o.Gateways)
	if err != nil {
		return nil, err
	}
	c := anchor.Receipt{Chain: arweave.Name, Raw: p.raw, Network: network}
	said, err := arweave.Observer{Endpoints: o.Gateways, Confirmations: o.Confirmations}.Confirm(ctx, c)
	switch {
	case errors.Is(err, anchor.ErrNotFinal):
		o.Note(fmt.Sprintf("extension %s of %d entries is not final yet: its receipt is left out", p.id, p.size))
		return nil, nil
	case err != nil:
		return nil, err
	}
	c.Height, c.Block, c.Time, c.Depth, c.Final = said.Height, said.Block, said.Time.Unix(), said.Depth, true
	row, err := anchor.RestoredRow(c, arweave.Verifier{})
	if err == nil && p.base.Size > 0 {
		row.Base = p.base
	}
	return row, err
}
