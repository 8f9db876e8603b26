package store_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// BenchmarkRestore rebuilds a ledger from extensions that are in memory. Of a million
// entries, on two busy processors: 39 to 51 µs an entry, 72 of CPU; 120 of CPU with signatures by
// crypto/ed25519 and a Badger that syncs and compacts as it does beside puts.
func BenchmarkRestore(b *testing.B) {
	const entries = 100_000
	p := madeLog(b, entries)
	before := cpuTime(b)
	for b.Loop() {
		r := newRestore(b, filepath.Join(b.TempDir(), "restored"), p.vkey)
		const most = 1 << 17
		for from := int64(0); from < entries; from = min(from+most, entries) {
			if err := r.Add(b.Context(), p.step(b, from, min(from+most, entries))); err != nil {
				b.Fatal(err)
			}
		}
		if err := r.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(entries)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(entries)/float64(b.N), "cpu-µs/entry")
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime))
}

// madeLog makes a log without a store: a policy, and datasets of which every fourth is
// another version of a name.
func madeLog(t testing.TB, n int64) *published {
	t.Helper()
	signer, vkey, id := testLog(t, "made.example")
	curator := curatorKey("made")
	p := &published{vkey: vkey, notes: map[int64][]byte{}}
	newest := map[string]int64{}
	hashes := make([]tlog.Hash, 0, 2*n)
	reader := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for i := range n {
		e := &ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: -1, Curators: []ledger.CuratorKey{curator.Curator()}}
		if i > 0 {
			name := fmt.Sprintf("dataset-%d", i)
			if i%4 == 0 {
				name = fmt.Sprintf("dataset-%d", i-1)
			}
			var d dag.Digest
			copy(d[:], fmt.Sprint(i))
			e = &ledger.Entry{
				Kind: ledger.KindDataset, Name: name, Root: dag.NodeCID(d), Size: 12345, Files: 1, Leaves: 1, Chunks: 1, Profile: "scale-1", Previous: -1,
			}
			if prev, ok := newest[name]; ok {
				e.Previous = prev
			}
			newest[name] = i
		}
		e.Time = time.UnixMilli(1790000000000 + i)
		if err := curator.SignEntry(e, id); err != nil {
			t.Fatal(err)
		}
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		p.blocks = append(p.blocks, b)
		h, err := tlog.StoredHashesForRecordHash(i, ledger.LeafHash(b), reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h...)
		if size := i + 1; size == n || size%(1<<17) == 0 {
			root, err := tlog.TreeHash(size, reader)
			if err != nil {
				t.Fatal(err)
			}
			if p.notes[size], err = ledger.SignCheckpoint(ledger.Checkpoint{Origin: id.Origin, Size: size, Root: root}, signer); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

func testLog(t testing.TB, origin string) (note.Signer, string, ledger.LogID) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey, ledger.LogID{Origin: origin, KeyID: s.KeyHash()}
}

// A ledger of several commits and steps is what a store of it would be.
func TestRestoreMade(t *testing.T) {
	n := int64(3000)
	p := madeLog(t, n)
	dir := filepath.Join(t.TempDir(), "restored")
	r := newRestore(t, dir, p.vkey)
	if err := r.Add(t.Context(), p.step(t, 0, n)); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, ctx: t.Context(), dir: dir}
	h.open()
	t.Cleanup(h.close)
	found, sum := h.findings()
	if !sum.Sound() || sum.Entries != n || sum.Missing != uint64(n-1) {
		t.Errorf("%+v %+v", sum, found)
	}
	h.verify("dataset-7@2", store.ProveOptions{})
	if _, err := h.s.Resolve(h.ctx, "dataset-7@3"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
