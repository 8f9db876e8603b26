package store

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// What was looked for before something was written is not noted after it, and what was
// written replaces what was noted.
func TestLookedUp(t *testing.T) {
	l := newLookedUp()
	digest := func(slot, n uint64) (d dag.Digest) {
		binary.LittleEndian.PutUint64(d[:], slot+n*lookedSlots)
		return d
	}
	row := chunkRow{Loc: pack.Loc{Pack: 1, Off: 8, Len: 100}, Start: 3, Size: 5}
	write := func(digests ...dag.Digest) {
		var b batches
		for _, d := range digests {
			b.set(digestKey(rowNode, d), []byte("not the row of a chunk"))
			b.set(digestKey(rowChunk, d), row.append(nil))
		}
		l.wrote(b)
	}
	want := func(what string, d dag.Digest, r chunkRow, ok bool) {
		t.Helper()
		if got, found := l.find(&d); got != r || found != ok {
			t.Errorf("%s: %+v, %t, want %+v, %t", what, got, found, r, ok)
		}
	}
	zero, a, b := dag.Digest{}, digest(7, 1), digest(7, 2)
	want("nothing was noted", zero, chunkRow{}, false)
	gen := l.gen.Load()
	l.note(gen, &zero, chunkRow{})
	l.note(gen, &a, chunkRow{})
	want("a missing one", zero, chunkRow{}, true)
	want("another of the same slot", b, chunkRow{}, false)
	write(a)
	want("written", a, row, true)
	l.note(gen, &a, chunkRow{})
	want("looked for before", a, row, true)
	l.note(gen, &b, chunkRow{})
	want("looked for before, never noted", b, chunkRow{}, false)
	l.note(l.gen.Load(), &b, row)
	want("looked for after", b, row, true)
	want("driven out", a, chunkRow{}, false)
}

// Whoever reads that a chunk is missing and then reads the generation anew finds it, however
// writers and those who note meet: a chunk that was written is never said to be missing after.
func TestLookedUpMeets(t *testing.T) {
	l := newLookedUp()
	const chunks = 2000
	var index sync.Map // stands for the index: what is in it is found
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for n := range uint64(chunks) {
				var d dag.Digest
				binary.LittleEndian.PutUint64(d[:], n)
				for range 3 {
					gen := l.gen.Load()
					r, _ := index.Load(d)
					row, _ := r.(chunkRow)
					l.note(gen, &d, row)
				}
			}
		})
	}
	wg.Go(func() {
		for n := range uint64(chunks) {
			var d dag.Digest
			binary.LittleEndian.PutUint64(d[:], n)
			row := chunkRow{Loc: pack.Loc{Pack: 1, Len: 1}, Size: 1}
			index.Store(d, row)
			var b batches
			b.set(digestKey(rowChunk, d), row.append(nil))
			l.wrote(b)
			if got, ok := l.find(&d); ok && got != row {
				t.Errorf("chunk %d was written and is said to be %+v", n, got)
			}
		}
	})
	wg.Wait()
	for n := range uint64(chunks) {
		var d dag.Digest
		binary.LittleEndian.PutUint64(d[:], n)
		if got, ok := l.find(&d); ok && got.Size != 1 {
			t.Errorf("chunk %d was written and is said to be missing", n)
		}
	}
}
