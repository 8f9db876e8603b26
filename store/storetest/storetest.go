// Package storetest tests stores: conformance suites that every implementation
// of the contracts in packages kv and pack passes, and wrappers that fail on
// demand, with which the engine tests what it does when they do.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// ErrInjected is the failure that the wrappers report.
var ErrInjected = errors.New("injected failure")

// A trigger counts calls with an argument, and fails one of them and all that
// follow.
type trigger[T any] struct {
	mu     sync.Mutex
	calls  int
	when   func(call int, arg T) bool // nil: never; call counts from 1
	landed bool
	failed bool
}

func (t *trigger[T]) set(when func(int, T) bool, landed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.when, t.landed = when, landed
}

// failNth makes the nth call from now on fail.
func (t *trigger[T]) failNth(n int, landed bool) {
	n += t.count()
	t.set(func(call int, _ T) bool { return call == n }, landed)
}

// call counts a call and says whether it fails. Landed says that it is the
// first one to fail and shall take effect nonetheless.
func (t *trigger[T]) call(arg T) (fail, landed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	if t.failed {
		return true, false
	}
	t.failed = t.when != nil && t.when(t.calls, arg)
	return t.failed, t.failed && t.landed
}

func (t *trigger[T]) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls
}

// A KV is a kv.Store whose commits fail on demand. After the first failure all
// commits fail, while reads go on and see none of the failed batch, until it is
// closed and the store is opened anew.
type KV struct {
	kv.Store
	commits trigger[*kv.Batch]

	mu   sync.Mutex
	late *kv.Batch // the failed one, if it landed; written by Close
}

// NewKV wraps a store.
func NewKV(s kv.Store) *KV { return &KV{Store: s} }

// FailAt makes the nth commit from now on (the next is 1) report failure. If
// landed, its rows are there when the store is reopened.
func (f *KV) FailAt(n int, landed bool) { f.commits.failNth(n, landed) }

// FailWhen makes the first commit whose batch matches report failure.
func (f *KV) FailWhen(match func(b *kv.Batch) bool, landed bool) {
	f.commits.set(func(_ int, b *kv.Batch) bool { return match(b) }, landed)
}

// Commits returns how many commits were tried.
func (f *KV) Commits() int { return f.commits.count() }

// Commit implements kv.Store.
func (f *KV) Commit(ctx context.Context, b *kv.Batch) error {
	fail, landed := f.commits.call(b)
	if !fail {
		return f.Store.Commit(ctx, b)
	}
	if landed {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.late = clone(b)
	}
	return fmt.Errorf("storetest: commit: %w", ErrInjected)
}

// Close implements kv.Store.
func (f *KV) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.late != nil {
		err = f.Store.Commit(context.Background(), f.late)
		f.late = nil
	}
	return errors.Join(err, f.Store.Close())
}

func clone(b *kv.Batch) *kv.Batch {
	c := new(kv.Batch)
	for row, deleted := range b.Rows() {
		if deleted {
			c.Delete(row.Key)
		} else {
			c.Set(row.Key, row.Value)
		}
	}
	return c
}

// Packs is a pack.Store in a directory whose appends and syncs fail on demand.
// After the first failure all appends and syncs fail until it is closed and the
// packs are opened anew. Close then drops what no sync made durable, as a crash
// may.
type Packs struct {
	pack.Store
	dir     string
	appends trigger[pack.Frame]
	syncs   trigger[pack.Tail]

	mu      sync.Mutex
	failed  bool
	durable pack.Tail
}

// NewPacks wraps the packs in dir.
func NewPacks(s pack.Store, dir string) *Packs {
	return &Packs{Store: s, dir: dir, durable: s.Tail()}
}

// FailAppendAt makes the nth append from now on (the next is 1) report failure.
func (f *Packs) FailAppendAt(n int) { f.appends.failNth(n, false) }

// FailSyncAt makes the nth sync from now on (the next is 1) report failure. If
// landed, what was appended before it is durable nonetheless.
func (f *Packs) FailSyncAt(n int, landed bool) { f.syncs.failNth(n, landed) }

// Appends and Syncs return how many were tried.
func (f *Packs) Appends() int { return f.appends.count() }
func (f *Packs) Syncs() int   { return f.syncs.count() }

// Append implements pack.Store.
func (f *Packs) Append(ctx context.Context, fr pack.Frame) (pack.Loc, error) {
	if fail, _ := f.appends.call(fr); f.fails(fail) {
		return pack.Loc{}, fmt.Errorf("storetest: append: %w", ErrInjected)
	}
	return f.Store.Append(ctx, fr)
}

// Sync implements pack.Store.
func (f *Packs) Sync(ctx context.Context) error {
	tail := f.Store.Tail()
	fail, landed := f.syncs.call(tail)
	if f.fails(fail) && !landed {
		return fmt.Errorf("storetest: sync: %w", ErrInjected)
	}
	if err := f.Store.Sync(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.durable = tail
	if fail {
		return fmt.Errorf("storetest: sync: %w", ErrInjected)
	}
	return nil
}

// fails records a failure and says whether there was one so far.
func (f *Packs) fails(now bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = f.failed || now
	return f.failed
}

// Close implements pack.Store.
func (f *Packs) Close() error {
	err := f.Store.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed {
		f.failed = false
		err = errors.Join(err, Lose(f.dir, f.durable))
	}
	return err
}

// Lose drops from the packs in dir what lies behind the tail, as a crash may
// do with what was not synced.
func Lose(dir string, tail pack.Tail) error {
	ns, err := pack.List(dir)
	if err != nil {
		return err
	}
	for _, n := range ns {
		path := filepath.Join(dir, pack.Name(n))
		if n > tail.Pack {
			err = errors.Join(err, os.Remove(path))
		} else if n == tail.Pack {
			err = errors.Join(err, os.Truncate(path, int64(tail.End)))
		}
	}
	return err
}
