package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/extension"
	"github.com/koii-network/scale/store"
)

// A restoreResult is of a ledger that came back from its extensions.
type restoreResult struct {
	Entries    int64  `json:"entries"`
	Extensions int    `json:"extensions"`
	Bytes      int64  `json:"extension_bytes"`
	Took       sample `json:"restore"` // this process; downloading is not in it
	Stored     int64  `json:"stored_bytes"`
}

// perExtension entries are some 30 MB, of 64 MiB that fit into one.
const perExtension = 1 << 16

// restore makes a ledger of so many small datasets, its extensions, and a store of these.
func (b *nodeBench) restore(ctx context.Context, entries int) (_ *restoreResult, err error) {
	dir := filepath.Join(b.scratch, "anchor-restore")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newStore(ctx, filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for size := int64(1); size < int64(entries); {
		if size, err = putMany(ctx, s, int(size), min(1024, entries-int(size))); err != nil {
			return nil, err
		}
	}
	r := &restoreResult{}
	var files []string
	var base anchor.Link
	for base.Size < s.Published().Size {
		size, note, err := s.CheckpointAt(ctx, min(base.Size+perExtension, s.Published().Size))
		if err != nil {
			return nil, err
		}
		body, err := encodeFrom(ctx, s, &base, size, note)
		if err != nil {
			return nil, err
		}
		files = append(files, filepath.Join(dir, fmt.Sprintf("extension-%d", len(files))))
		if err := os.WriteFile(files[len(files)-1], body, 0o600); err != nil {
			return nil, err
		}
		r.Bytes += int64(len(body))
	}
	r.Entries, r.Extensions = base.Size, len(files)
	to, want, vkey := filepath.Join(dir, "restored"), s.Published(), s.VerifierKey()
	if err := errors.Join(s.Close(), settle(dir)); err != nil {
		return nil, err
	}
	// From here on the peak is that of restoring.
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return nil, err
	}
	r.Took, err = own(func() error {
		restoring, err := store.NewRestore(ctx, to, vkey, store.Options{})
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := addExtension(ctx, restoring, f); err != nil {
				return errors.Join(err, restoring.Abort())
			}
		}
		return restoring.Finish(ctx)
	})
	if err != nil {
		return nil, err
	}
	if r.Took.Peak, err = peakOf("self"); err != nil {
		return nil, err
	}
	if r.Stored, err = allocated(to); err != nil {
		return nil, err
	}
	back, err := store.Open(ctx, to, store.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, back.Close()) }()
	if got := back.Published(); got.Size != want.Size || got.Root != want.Root {
		return nil, fmt.Errorf("what came back is a ledger of %d entries with root %v, not %d with %v", got.Size, got.Root, want.Size, want.Root)
	}
	return r, nil
}

// encodeFrom makes the extension that follows base, which becomes the base of the next.
func encodeFrom(ctx context.Context, s *store.Store, base *anchor.Link, size int64, note []byte) ([]byte, error) {
	body, err := extension.Encode(ctx, anchor.Extension{Base: *base, Size: size, Checkpoint: note}, func(yield func([]byte, error) bool) {
		for e, err := range s.Entries(ctx, base.Size, size) {
			if !yield(e.Block, err) {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	root, err := s.RootAt(ctx, size)
	*base = anchor.Link{ID: fmt.Sprintf("extension-to-%d", size), Size: size, Root: root[:]}
	return body, err
}

func addExtension(ctx context.Context, r *store.Restore, file string) error {
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	x, err := extension.Parse(body)
	if err != nil {
		return err
	}
	return r.Add(ctx, store.RestoreStep{
		BaseSize: x.Base.Size, BaseRoot: tlog.Hash(x.Base.Root), Checkpoint: x.Checkpoint,
		Records: func(entry func([]byte) error, _ func(store.RestoredAnchor) error) error {
			return x.Records(func(_ int64, block []byte) error { return entry(block) }, func(anchor.Receipt) error { return nil })
		},
	})
}
