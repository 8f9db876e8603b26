package storetest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/koii-network/scale/store/badgerkv"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
	"github.com/koii-network/scale/store/storetest"
)

func openKV(t *testing.T, dir string) *storetest.KV {
	t.Helper()
	s, err := badgerkv.Open(dir, badgerkv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return storetest.NewKV(s)
}

func TestFailingKV(t *testing.T) {
	for _, landed := range []bool{false, true} {
		for name, arm := range map[string]func(*storetest.KV){
			"FailAt": func(f *storetest.KV) { f.FailAt(2, landed) },
			"FailWhen": func(f *storetest.KV) {
				f.FailWhen(func(b *kv.Batch) bool {
					for row := range b.Rows() {
						return string(row.Key) == "two"
					}
					return false
				}, landed)
			},
		} {
			t.Run(fmt.Sprintf("%s/landed=%t", name, landed), func(t *testing.T) {
				dir := t.TempDir()
				f := openKV(t, dir)
				commit := func(key string) error {
					var b kv.Batch
					b.Set([]byte(key), []byte("v"))
					defer b.Reset()
					return f.Commit(t.Context(), &b)
				}
				has := func(key string) bool {
					there, err := f.Has(t.Context(), []byte(key))
					if err != nil {
						t.Error(err)
					}
					return there
				}
				if err := commit("zero"); err != nil {
					t.Fatal(err)
				}
				arm(f)
				if err := commit("one"); err != nil {
					t.Fatal(err)
				}
				for _, key := range []string{"two", "three"} {
					if err := commit(key); !errors.Is(err, storetest.ErrInjected) {
						t.Errorf("commit of %s: %v", key, err)
					}
				}
				if !has("zero") || !has("one") || has("two") || has("three") {
					t.Error("rows of failed commits are seen")
				}
				if n := f.Commits(); n != 4 {
					t.Errorf("%d commits were tried, want 4", n)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				f = openKV(t, dir)
				defer f.Close()
				if !has("zero") || !has("one") || has("two") != landed || has("three") {
					t.Error("the reopened store has other rows")
				}
				if err := commit("four"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestFailingPacks(t *testing.T) {
	for _, c := range []struct {
		name string
		arm  func(*storetest.Packs)
		sync bool // it is the sync that fails
		kept int  // frames that are there when the packs are reopened
	}{
		{"append", func(f *storetest.Packs) { f.FailAppendAt(2) }, false, 1},
		{"sync", func(f *storetest.Packs) { f.FailSyncAt(1, false) }, true, 1},
		{"sync landed", func(f *storetest.Packs) { f.FailSyncAt(1, true) }, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			open := func(tail pack.Tail) *storetest.Packs {
				p, err := pack.Open(dir, pack.Options{Target: 100}, tail)
				if err != nil {
					t.Fatal(err)
				}
				return storetest.NewPacks(p, dir)
			}
			f := open(pack.Tail{})
			var locs []pack.Loc
			add := func() error {
				loc, err := f.Append(t.Context(), pack.Frame{Chunks: []pack.Chunk{{Size: 5}}, PlainSize: 5, Sealed: []byte("12345")})
				locs = append(locs, loc)
				return err
			}
			if err := errors.Join(add(), f.Sync(t.Context())); err != nil {
				t.Fatal(err)
			}
			c.arm(f)
			first, second := add(), add()
			sync := f.Sync(t.Context())
			if first != nil || errors.Is(second, storetest.ErrInjected) == c.sync || !errors.Is(sync, storetest.ErrInjected) {
				t.Errorf("append %v, append %v, sync %v", first, second, sync)
			}
			if err := add(); !errors.Is(err, storetest.ErrInjected) {
				t.Errorf("append after the failure: %v", err)
			}
			if err := f.Sync(t.Context()); !errors.Is(err, storetest.ErrInjected) {
				t.Errorf("sync after the failure: %v", err)
			}
			if f.Appends() != 4 || f.Syncs() != 3 {
				t.Errorf("%d appends and %d syncs were tried, want 4 and 3", f.Appends(), f.Syncs())
			}
			tail := f.Tail()
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			f = open(tail)
			defer f.Close()
			for i, loc := range locs[:3] {
				if _, _, err := f.ReadFrame(t.Context(), loc, nil); (err == nil) != (i < c.kept) {
					t.Errorf("frame %d: %v", i, err)
				}
			}
		})
	}
}
