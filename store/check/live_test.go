package check_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

func open(t *testing.T, dir string, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// live checks an open store.
func live(t *testing.T, s *store.Store, o check.Options) ([]check.Finding, check.Summary) {
	t.Helper()
	v, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	o.Live = &check.Live{Rows: v.Rows, HighWater: v.HighWater}
	return run(t, v.Dir, o)
}

// The owner checks itself while puts, removals and changes of policy go on.
func TestLive(t *testing.T) {
	dir := newStore(t, []store.Input{stream("first", prose(1, 100_000))})
	// Small frames, so that there are many.
	s := open(t, dir, store.Options{FrameSize: 64 << 10})
	stop, rounds := make(chan struct{}), 6
	if testing.Short() {
		rounds = 2
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("n%d.%d", w, i%5)
				in := []store.Input{stream(name, noise(uint64(1000*w+i), 20_000+i%7*30_000)), stream(name+"x", prose(uint64(i), 9000))}
				if _, err := s.Put(t.Context(), in, store.PutOptions{}); err != nil {
					t.Error(err)
					return
				}
				if i%5 == 3 {
					if _, err := s.Remove(t.Context(), name, store.PutOptions{}); err != nil {
						t.Error(err)
						return
					}
				}
				if i%20 == w {
					key := ed25519.NewKeyFromSeed(noise(uint64(1000*w+i), ed25519.SeedSize))
					curator := ledger.CuratorKey(key.Public().(ed25519.PublicKey))
					if _, _, err := s.AddCurator(t.Context(), curator, nil); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	var entries int64
	for i := range rounds {
		for _, err := range s.Follow(t.Context(), entries) {
			if err != nil {
				t.Fatal(err)
			}
			break // there is more than the last time
		}
		found, sum := live(t, s, check.Options{ReadData: i%2 == 0})
		for _, f := range found {
			// Puts side by side store the same chunk twice now and then.
			if f.Severity != check.Note || !strings.Contains(f.What, "of no use") {
				t.Errorf("%+v", f)
			}
		}
		if sum.Entries <= entries || sum.Entries > s.Published().Size {
			t.Errorf("%d entries after %d", sum.Entries, entries)
		}
		entries = sum.Entries
	}
	close(stop)
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, sum := run(t, dir, check.Options{ReadData: true})
	if sum.Warnings != 0 || sum.Errors != 0 {
		t.Errorf("%+v", sum)
	}
}

// A store that is damaged while it is open is found damaged.
func TestLiveDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(testing.TB, string)
		want   string
	}{
		"nothing":      {func(testing.TB, string) {}, ""},
		"pack byte":    {inPlace(packOne, func(b []byte) { b[len(b)-50] ^= 1 }), "does not match its checksum"},
		"frame header": {inPlace(packOne, func(b []byte) { b[24+30] ^= 1 }), "header does not match its checksum"},
		"pack cut":     {onDisk(func(dir string) error { return os.Truncate(filepath.Join(dir, packOne), 5000) }), "bytes were lost"},
		"pack missing": {onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, packOne)) }), "pack 1: the file is missing"},
		"mark missing": {onDisk(func(dir string) error { return os.Remove(filepath.Join(dir, "highwater")) }), "high-water mark cannot be read"},
		"mark damaged": {inPlace("highwater", func(b []byte) { b[30] ^= 1 }), "high-water mark is damaged"},
		"key open":     {onDisk(func(dir string) error { return os.Chmod(filepath.Join(dir, "keys/log.key"), 0o644) }), "can be read by others"},
		"configuration": {inPlace("scale.json", func(b []byte) {
			copy(b[bytes.Index(b, []byte("test.example/log")):], "test.example/lag")
		}), "not of one log"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copySmall(t)
			s := open(t, dir, store.Options{})
			c.damage(t, dir)
			found, sum := live(t, s, check.Options{ReadData: true})
			if sum.Sound() != (c.want == "") || !strings.Contains(fmt.Sprint(found), c.want) {
				t.Errorf("nothing says %q: %+v", c.want, found)
			}
		})
	}
}

// A mark that is behind the ledger, or rows that are not the ledger's, are found from
// the rows of the open store.
func TestLiveLedgerDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(testing.TB, string)
		want   string
	}{
		"entry":  {deleteRow("e", 1), "is missing or damaged"},
		"place":  {deleteRow("x", 1), "the row of its place says -1"},
		"name":   {deleteRow("nstream", 0), "follows entry 2"},
		"chunk":  {deleteRow("b", 1), "a chunk is not in the index"},
		"totals": {deleteRow("s", 0), "the row of totals is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copySmall(t)
			c.damage(t, dir)
			found, _ := live(t, open(t, dir, store.Options{}), check.Options{})
			if !strings.Contains(fmt.Sprint(found), c.want) {
				t.Errorf("nothing says %q: %+v", c.want, found)
			}
		})
	}
}

func TestLiveForgetsNothing(t *testing.T) {
	s := open(t, copySmall(t), store.Options{})
	v, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := check.Options{Forget: true, Live: &check.Live{Rows: v.Rows, HighWater: v.HighWater}}
	if _, err := check.Run(t.Context(), v.Dir, o); err == nil {
		t.Error("rows of an open store can be forgotten")
	}
	v.Close()
	o.Forget = false
	if _, err := check.Run(t.Context(), v.Dir, o); err == nil {
		t.Error("a snapshot that is closed can be checked")
	}
}

// inPlace changes a file where it is, as a disk does.
func inPlace(name string, change func([]byte)) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(b, 0)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
