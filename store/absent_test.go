package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand"
	"path/filepath"
	"sync"
	"testing"

	"github.com/koii-network/scale/dag"
)

func numbered(n int) dag.Digest {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

// What was written is never said to be absent, also while it is filled, and of what was not
// written little is missed.
func TestAbsence(t *testing.T) {
	const keys = 1 << 16
	var a absence
	if d := numbered(0); a.tells(&d) {
		t.Fatal("it tells of a store that it does not know")
	}
	a.stored.Store(newFilter(keys))
	wrong := func(from int) int {
		n := 0
		for i := range keys {
			if d := numbered(from + i); !a.tells(&d) {
				n++
			}
		}
		return n
	}
	if n := wrong(0); n > 0 {
		t.Errorf("%d of an empty store are not told", n)
	}
	var wg sync.WaitGroup
	written := make(chan int, keys)
	wg.Go(func() {
		defer close(written)
		for i := 0; i < keys; i += 64 {
			var digests []dag.Digest
			for j := range 64 {
				digests = append(digests, numbered(i+j))
			}
			a.wrote(digests)
			written <- i
		}
	})
	for range 2 {
		wg.Go(func() {
			for i := range written {
				for j := range 64 {
					if d := numbered(i + j); a.tells(&d) {
						t.Errorf("%d was written and is told to be absent", i+j)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := wrong(keys); n > keys/100 {
		t.Errorf("%d of %d are not told", n, keys)
	}
	for i := range keys {
		if d := numbered(i); a.tells(&d) {
			t.Fatalf("%d was written and is told to be absent", i)
		}
	}
	for i := keys; a.stored.Load() != nil; i++ {
		if i > 3*keys {
			t.Fatal("it is never full")
		}
		a.wrote([]dag.Digest{numbered(i)})
	}
	if d := numbered(-1); a.tells(&d) {
		t.Error("it tells though it was full")
	}
}

// A new store does without look-ups of chunks, finds those that it was given, and when it is
// opened again looks them up.
func TestFirstImport(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(ctx, dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4<<20)
	rand.New(rand.NewSource(1)).Read(data)
	put := func(s *Store, name string) PutResult {
		t.Helper()
		res, err := s.Put(ctx, []Input{{Name: name, Reader: bytes.NewReader(data)}}, PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return res[0]
	}
	for round, known := range []bool{true, false} {
		s, err := Open(ctx, dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.absent.stored.Load() != nil; got != known {
			t.Errorf("round %d: it knows the store: %t", round, got)
		}
		if d := numbered(7); s.absent.tells(&d) != known {
			t.Errorf("round %d: it tells of what is not there: %t", round, !known)
		}
		for i, name := range []string{"a", "b"} {
			want := uint64(0)
			if round+i == 0 {
				want = uint64(len(data))
			}
			if res := put(s, name+string(rune('0'+round))); res.NewBytes != want {
				t.Errorf("round %d, put %d: %d new bytes, want %d", round, i, res.NewBytes, want)
			}
		}
		// By now the first put's chunks are remembered by nobody else.
		s.writer.mu.Lock()
		clear(s.writer.chunks)
		s.writer.mu.Unlock()
		if res := put(s, "c"+string(rune('0'+round))); res.NewBytes != 0 {
			t.Errorf("round %d: %d new bytes, though all is there", round, res.NewBytes)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
