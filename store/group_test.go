package store

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Puts that arrive while a commit is under way share the next one.
func TestGroupCommit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(t.Context(), dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const puts = 8
	s.commitMu.Lock()
	var wg sync.WaitGroup
	sizes := make([]int64, puts)
	for i := range puts {
		wg.Go(func() {
			in := []Input{{Name: fmt.Sprintf("n%d", i), Reader: strings.NewReader(fmt.Sprint(i))}}
			res, err := s.Put(t.Context(), in, PutOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			sizes[i] = res[0].TreeSize
		})
	}
	for queued := 0; queued < puts; runtime.Gosched() {
		s.queueMu.Lock()
		queued = len(s.queue)
		s.queueMu.Unlock()
	}
	s.commitMu.Unlock()
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
