package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koii-network/scale/dag"
)

// Requests that arrive while a commit is under way share the next one.
func TestGroupCommit(t *testing.T) {
	s := newStore(t)
	const puts = 8
	s.commitMu.Lock()
	unlock := sync.OnceFunc(s.commitMu.Unlock)
	defer unlock()
	var wg sync.WaitGroup
	sizes := make([]int64, puts)
	for i := range puts {
		wg.Go(func() {
			d := draft{
				name: fmt.Sprintf("n%d", i), profile: dag.DefaultProfile, kind: dag.KindFile,
				tree: dag.Tree{Root: dag.RawCID(sha256.Sum256(nil)), Commitment: dag.Hash{byte(i)}, Size: 1, Files: 1, Leaves: 1, Chunks: 1},
			}
			curator, err := s.curator()
			if err != nil {
				t.Error(err)
				return
			}
			res, err := s.commit(t.Context(), &commitRequest{curator: curator, drafts: []draft{d}})
			if err != nil {
				t.Error(err)
				return
			}
			sizes[i] = res[0].TreeSize
		})
	}
	until(t, "all puts are queued", s.queued(puts))
	unlock()
	wg.Wait()
	for i, size := range sizes {
		if size != 1+puts {
			t.Errorf("put %d was answered with a tree of %d, want %d", i, size, 1+puts)
		}
	}
	checkpoints := 0
	for _, err := range s.kv.Scan(t.Context(), []byte{rowCheckpoint}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		checkpoints++
	}
	if checkpoints != 2 {
		t.Errorf("%d checkpoints, want that of entry 0 and one more", checkpoints)
	}
}

// What waits for a commit when its caller gives up is not recorded, be it the first or one
// that waits behind it; the others are.
func TestCommitGaveUp(t *testing.T) {
	s := newStore(t)
	const puts = 6
	gaveUp := errors.New("gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	s.commitMu.Lock()
	unlock := sync.OnceFunc(s.commitMu.Unlock)
	defer unlock()
	errs := make([]error, puts)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range puts {
		// Of files: the flush of a stream would wait for the commit of the one before.
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			ctx := ctx // of every other
			if i%2 == 1 {
				ctx = t.Context()
			}
			_, errs[i] = s.Put(ctx, []Input{{Name: fmt.Sprint(i), Path: path}}, PutOptions{})
		})
		until(t, fmt.Sprintf("put %d is queued", i), s.queued(i+1))
	}
	cancel(gaveUp)
	unlock()
	wg.Wait()
	if size := s.Settle(); size != 1+puts/2 {
		t.Errorf("%d entries, want %d", size, 1+puts/2)
	}
	for i, err := range errs {
		_, found := s.Resolve(t.Context(), fmt.Sprint(i))
		if i%2 == 1 && (err != nil || found != nil) {
			t.Errorf("put %d, whose caller waits: %v, %v", i, err, found)
		}
		if i%2 == 0 && (!errors.Is(err, context.Canceled) || !errors.Is(found, ErrNotFound)) {
			t.Errorf("put %d, whose caller gave up: %v, %v", i, err, found)
		}
	}
}

// queued reports whether so many requests wait for a commit.
func (s *Store) queued(n int) func() bool {
	return func() bool {
		s.queueMu.Lock()
		defer s.queueMu.Unlock()
		return len(s.queue) == n
	}
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(100*time.Microsecond), time.NewTimer(time.Minute)
	defer tick.Stop()
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// newStore opens an empty store, which is closed when the test ends.
func newStore(t testing.TB) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(t.Context(), dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A flush waits for the commit of those whom the one before has set free, and for those of
// them who give up. An entry that is handed in is durable with its dataset, and the commit
// does not write it again.
func TestFlushAndCommitTakeTurns(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	put := func(name string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := s.Put(ctx, []Input{{Name: name, Reader: strings.NewReader(name)}}, PutOptions{})
			done <- err
		}()
		return done
	}
	queued := func(n int) func() bool {
		return func() bool {
			s.queueMu.Lock()
			defer s.queueMu.Unlock()
			return len(s.queue) == n && s.coming == 0
		}
	}
	waiting := func() bool {
		s.writer.mu.Lock()
		defer s.writer.mu.Unlock()
		return s.writer.next.wanted
	}
	held := func() {
		t.Helper()
		s.writer.kick()
		s.writer.mu.Lock()
		defer s.writer.mu.Unlock()
		if s.writer.now != nil || !s.writer.next.wanted {
			t.Error("the flush has begun")
		}
	}

	s.commitMu.Lock()
	unlock := sync.OnceFunc(s.commitMu.Unlock) // also if the test ends early
	defer unlock()
	first := put("first")
	until(t, "the first is queued", queued(1))
	entry := s.queue[0].drafts[0].ahead
	if entry == nil || !entry.stored {
		t.Fatal("the entry was not handed in")
	}
	if has, err := s.kv.Has(ctx, digestKey(rowEntry, digestOf(entry.cid))); err != nil || !has {
		t.Errorf("the entry is not stored: %v", err)
	}
	second := put("second")
	until(t, "the second waits for a flush", waiting)
	held()
	unlock()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}

	// One that is set free and gives up.
	d, r := s.writer.newDeposit(ctx), &commitRequest{signed: true}
	d.precedes(r)
	if err := d.entry([32]byte{1}, []byte("reached by nothing")); err != nil {
		t.Fatal(err)
	}
	if err := d.wait(ctx); err != nil {
		t.Fatal(err)
	}
	third := put("third")
	until(t, "the third waits for a flush", waiting)
	held()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.commit(gone, r); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if err := <-third; err != nil {
		t.Error(err)
	}

	// One that gives up while it waits for the disk, and is waited for by nobody.
	s.indexMu.Lock()
	d, r = s.writer.newDeposit(ctx), &commitRequest{signed: true}
	d.precedes(r)
	if err := d.entry([32]byte{2}, []byte("reached by nothing")); err != nil {
		t.Fatal(err)
	}
	if err := d.wait(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	s.indexMu.Unlock()
	if err := <-put("fourth"); err != nil {
		t.Error(err)
	}
	if !queued(0)() || len(s.claimed) > 0 {
		t.Errorf("somebody is expected still, or claims one of %v", s.claimed)
	}
	if size := s.Published().Size; size != 5 {
		t.Errorf("%d entries, want 5", size)
	}
}

// Of those who come at once under one name only the first is signed ahead: the others would
// be signed again, and leave blocks that nothing reaches.
func TestClaims(t *testing.T) {
	ctx := t.Context()
	s := newStore(t)
	curator, err := s.curator()
	if err != nil {
		t.Fatal(err)
	}
	ahead := func(name string) (*commitRequest, bool) {
		r := &commitRequest{curator: curator, drafts: []draft{{
			name: name, profile: dag.DefaultProfile, kind: dag.KindFile,
			tree: dag.Tree{Root: dag.RawCID(sha256.Sum256(nil)), Size: 1, Files: 1, Leaves: 1, Chunks: 1},
		}}}
		s.signAhead(ctx, r)
		return r, r.drafts[0].ahead != nil
	}
	first, ok := ahead("a")
	if !ok {
		t.Fatal("the first is not signed ahead")
	}
	second, ok := ahead("a")
	if ok {
		t.Error("the second is signed ahead")
	}
	if _, ok := ahead("b"); !ok {
		t.Error("another name is not signed ahead")
	}
	s.unclaim(second)
	if _, ok := ahead("a"); ok {
		t.Error("the second gave up the claim of the first")
	}
	if _, err := s.commit(ctx, first); err != nil {
		t.Error(err)
	}
	if r, ok := ahead("a"); ok || len(r.claims) != 1 { // it is what there is already
		t.Errorf("after the first: signed %t, claims %v", ok, r.claims)
	}
	// A put that is called off while it waits for the disk gives up its claim.
	s.indexMu.Lock()
	unlock := sync.OnceFunc(s.indexMu.Unlock)
	defer unlock()
	gone, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := s.Put(gone, []Input{{Name: "c", Reader: strings.NewReader("c")}}, PutOptions{})
		done <- err
	}()
	until(t, "the name is claimed", func() bool {
		s.queueMu.Lock()
		defer s.queueMu.Unlock()
		return s.claimed["c"]
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	unlock()
	if s.claimed["c"] {
		t.Error("a put that failed keeps its claim")
	}
}
