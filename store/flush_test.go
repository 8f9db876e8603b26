package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// A heldPacks holds its first sync up.
type heldPacks struct {
	pack.Store
	syncs   atomic.Int64
	held    chan struct{} // closed when the sync is held up
	release chan struct{}
}

func (p *heldPacks) Sync(ctx context.Context) error {
	if p.syncs.Add(1) == 1 {
		close(p.held)
		<-p.release
	}
	return p.Store.Sync(ctx)
}

// A tailKV counts the commits of flushes.
type tailKV struct {
	kv.Store
	flushes atomic.Int64
}

func (k *tailKV) Commit(ctx context.Context, b *kv.Batch) error {
	for r := range b.Rows() {
		if r.Key[0] == rowTail || r.Key[0] == rowCommitment {
			k.flushes.Add(1)
			break
		}
	}
	return k.Store.Commit(ctx, b)
}

// Puts that have handed in everything while a flush is under way share the next
// one: one sync, one commit. One of them that has been called off by then is no harm
// to the others, nor is it waited for.
func TestGroupFlush(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(t.Context(), dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	packs, rows := &heldPacks{held: make(chan struct{}), release: make(chan struct{})}, &tailKV{}
	s, err := Open(t.Context(), dir, Options{
		WrapPacks: func(p pack.Store) pack.Store { packs.Store = p; return packs },
		WrapKV:    func(k kv.Store) kv.Store { rows.Store = k; return rows },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(ctx context.Context, i int) error {
		in := Input{Name: fmt.Sprintf("n%d", i), Reader: strings.NewReader(fmt.Sprint(i))}
		_, err := s.Put(ctx, []Input{in}, PutOptions{})
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := put(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
	<-packs.held
	release := sync.OnceFunc(func() { close(packs.release) })
	defer release()
	const puts = 16
	ctx, cancel := context.WithCancel(t.Context())
	for i := range puts {
		wg.Go(func() {
			if i > 0 {
				if err := put(t.Context(), 1+i); err != nil {
					t.Error(err)
				}
			} else if err := put(ctx, 1+i); err == nil {
				t.Error("a put that was called off did not fail")
			}
		})
	}
	until(t, "all puts have handed in", func() bool {
		s.writer.mu.Lock()
		defer s.writer.mu.Unlock()
		return len(s.writer.bins[small].names) >= puts // each hands in one row, after its chunk
	})
	cancel()
	release()
	wg.Wait()
	if n := packs.syncs.Load(); n != 2 {
		t.Errorf("%d syncs for 1 and %d puts, want 2", n, puts)
	}
	if n := rows.flushes.Load(); n != 2 {
		t.Errorf("%d commits of flushes, want 2", n)
	}
	if n := s.Published().Size; n != 1+1+puts-1 {
		t.Errorf("%d entries, want %d", n, 1+puts)
	}
}

// A chunk that was looked up before it was stored, and is handed in after flushes of
// others have come and gone, is not stored twice.
func TestLateChunk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(t.Context(), dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(data string) {
		t.Helper()
		if _, err := s.Put(t.Context(), []Input{{Name: data, Reader: strings.NewReader(data)}}, PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	data := []byte("late")
	c := ingest.Chunk{Digest: sha256.Sum256(data), Size: uint32(len(data))}
	d, known := s.writer.newDeposit(t.Context()), make([]bool, 1)
	var added tally
	d.count(&added)
	if err := d.Known(t.Context(), []ingest.Chunk{c}, known); err != nil || known[0] {
		t.Fatalf("known %v, %v", known, err)
	}
	for _, data := range []string{"late", "a", "b", "c"} {
		put(data)
	}
	if err := d.Add(t.Context(), []ingest.NewChunk{{Chunk: c, Data: data}}, true); err != nil {
		t.Fatal(err)
	}
	if err := d.wait(t.Context()); err != nil || added != (tally{}) {
		t.Errorf("%+v was added, %v", added, err)
	}
	// What is remembered is bounded.
	w := s.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 3 {
		f := newFlush(w.next.n)
		for i := range recentChunks {
			d := dag.Digest{byte(f.n), byte(i), byte(i >> 8)}
			f.digests = append(f.digests, d)
			w.chunks[d] = pending{size: 1, bin: &bin{flush: f}}
		}
		w.next.n++
		w.forget(f)
	}
	if n := len(w.chunks); n != 2*recentChunks {
		t.Errorf("%d chunks are remembered, want %d", n, 2*recentChunks)
	}
}
