package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

func TestRestoreRefuses(t *testing.T) {
	src, _ := sourceStore(t)
	p := publish(src)
	size := int64(len(p.blocks))
	other := publish(func() *harness { h, _ := sourceStore(t); return h }())
	swapped := &published{vkey: p.vkey, notes: p.notes, blocks: slices.Clone(p.blocks)}
	swapped.blocks[1], swapped.blocks[2] = swapped.blocks[2], swapped.blocks[1]
	changed := func(f func(*store.RestoreStep)) store.RestoreStep {
		x := p.step(t, 0, size)
		f(&x)
		return x
	}
	blocks := func(list ...[]byte) func(func([]byte) error, func(store.RestoredAnchor) error) error {
		return func(entry func([]byte) error, _ func(store.RestoredAnchor) error) error {
			for _, b := range list {
				if err := entry(b); err != nil {
					return err
				}
			}
			return nil
		}
	}
	anchored := func(a store.RestoredAnchor) store.RestoreStep {
		return changed(func(x *store.RestoreStep) {
			x.Records = func(entry func([]byte) error, anchor func(store.RestoredAnchor) error) error {
				return errors.Join(blocks(p.blocks...)(entry, nil), anchor(a))
			}
		})
	}
	foreign, err := ledger.ParseEntry(other.blocks[0])
	if err != nil || foreign.Policy != -1 {
		t.Fatal(err)
	}
	down := errors.New("gateway down")
	for what, c := range map[string]struct {
		step store.RestoreStep
		want error
	}{
		"base that is not there":    {p.step(t, 2, size), store.ErrMismatch},
		"another base root":         {changed(func(x *store.RestoreStep) { x.BaseRoot = tlog.Hash{1} }), store.ErrMismatch},
		"checkpoint of another log": {other.step(t, 0, size), store.ErrMismatch},
		"checkpoint changed": {changed(func(x *store.RestoreStep) {
			x.Checkpoint = bytes.Replace(x.Checkpoint, []byte("\n39"), []byte("\n38"), 1)
		}), store.ErrMismatch},
		"smaller checkpoint":   {changed(func(x *store.RestoreStep) { x.Checkpoint = p.notes[4] }), store.ErrMismatch},
		"larger checkpoint":    {changed(func(x *store.RestoreStep) { x.Records = blocks(p.blocks[:size-1]...) }), store.ErrMismatch},
		"an entry too many":    {changed(func(x *store.RestoreStep) { x.Records = blocks(append(slices.Clone(p.blocks), p.blocks[3])...) }), store.ErrMismatch},
		"an entry twice":       {changed(func(x *store.RestoreStep) { x.Records = blocks(p.blocks[0], p.blocks[1], p.blocks[1]) }), store.ErrMismatch},
		"entries swapped":      {swapped.step(t, 0, size), store.ErrMismatch},
		"no policy first":      {changed(func(x *store.RestoreStep) { x.Records = blocks(p.blocks[1:]...) }), store.ErrMismatch},
		"entry of another log": {changed(func(x *store.RestoreStep) { x.Records = blocks(other.blocks...) }), store.ErrMismatch},
		"no entry":             {changed(func(x *store.RestoreStep) { x.Records = blocks([]byte("hello")) }), store.ErrMismatch},
		"entry above 16 KiB":   {changed(func(x *store.RestoreStep) { x.Records = blocks(make([]byte, 1<<20)) }), store.ErrMismatch},
		"source that fails": {changed(func(x *store.RestoreStep) {
			x.Records = func(func([]byte) error, func(store.RestoredAnchor) error) error { return down }
		}), down},
		"anchor of another log":  {anchored(store.RestoredAnchor{Chain: "k2", Size: 4, Checkpoint: other.notes[4], Row: []byte("r")}), store.ErrMismatch},
		"anchor of another size": {anchored(store.RestoredAnchor{Chain: "k2", Size: 5, Checkpoint: p.notes[4], Row: []byte("r")}), store.ErrMismatch},
		"anchor of no chain":     {anchored(store.RestoredAnchor{Chain: "K2/", Size: 4, Checkpoint: p.notes[4], Row: []byte("r")}), store.ErrInvalid},
	} {
		dir := filepath.Join(t.TempDir(), "restored")
		r := newRestore(t, dir, p.vkey)
		if err := r.Add(t.Context(), c.step); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if err := r.Add(t.Context(), p.step(t, 0, size)); !errors.Is(err, c.want) {
			t.Errorf("%s: it goes on after the error: %v", what, err)
		}
		if err := r.Finish(t.Context()); !errors.Is(err, c.want) || store.Exists(dir) {
			t.Errorf("%s: finishes: %v", what, err)
		}
		if err := r.Abort(); err != nil {
			t.Error(err)
		}
		// What is left is nobody's.
		if err := store.Init(t.Context(), dir, store.InitOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := store.NewRestore(t.Context(), src.dir, p.vkey, store.Options{}); !errors.Is(err, store.ErrExists) {
		t.Errorf("over a store: %v", err)
	}
	if _, err := store.NewRestore(t.Context(), filepath.Join(t.TempDir(), "x"), p.vkey, store.Options{FrameSize: store.MinFrame - 1}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("frames that are too small: %v", err)
	}
	if _, err := store.NewRestore(t.Context(), filepath.Join(t.TempDir(), "x"), "hello", store.Options{}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
	r := newRestore(t, filepath.Join(t.TempDir(), "x"), p.vkey)
	if err := r.Finish(t.Context()); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("nothing added: %v", err)
	}
}

// What a restore leaves that was killed is no store, and in nobody's way.
func TestRestoreKilled(t *testing.T) {
	p := madeLog(t, 50)
	dir := filepath.Join(t.TempDir(), "restored")
	r := newRestore(t, dir, p.vkey)
	if err := r.Add(t.Context(), p.step(t, 0, 50)); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), left, store.Options{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("opens: %v", err)
	}
	again := newRestore(t, left, p.vkey)
	if again.Size() != 0 {
		t.Errorf("%d entries", again.Size())
	}
	if err := again.Add(t.Context(), p.step(t, 0, 50)); err != nil {
		t.Fatal(err)
	}
	if err := again.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := again.Abort(); err != nil || !store.Exists(left) {
		t.Errorf("Abort after Finish: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newRestore(t, filepath.Join(t.TempDir(), "x"), p.vkey).Add(ctx, p.step(t, 0, 50)); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
}
