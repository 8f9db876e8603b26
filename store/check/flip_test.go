package check_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// A digester is a store.Visitor that hashes all that it is given.
type digester struct{ w io.Writer }

func (d digester) Dir(path string, a dag.Attr) error {
	_, err := fmt.Fprintf(d.w, "dir %q %v\n", path, a)
	return err
}

func (d digester) Link(path, target string, a dag.Attr) error {
	_, err := fmt.Fprintf(d.w, "link %q %q %v\n", path, target, a)
	return err
}

func (d digester) File(path string, a dag.Attr, size uint64) (io.WriteCloser, error) {
	_, err := fmt.Fprintf(d.w, "file %q %v %d\n", path, a, size)
	return nopCloser{d.w}, err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// readAll hashes everything that can be asked of a store.
func readAll(ctx context.Context, dir string) (sum [32]byte, err error) {
	s, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		return sum, err
	}
	defer s.Close()
	if s.Doubt() != nil {
		return sum, s.Doubt()
	}
	h := sha256.New()
	fmt.Fprintln(h, s.VerifierKey(), s.Published())
	for e, err := range s.Entries(ctx, 0, s.Published().Size) {
		if err != nil {
			return sum, err
		}
		fmt.Fprintln(h, e.Index, e.CID)
		if e.Index == 0 {
			continue
		}
		o, err := s.Resolve(ctx, fmt.Sprintf(":%d", e.Index))
		if err == nil {
			fmt.Fprintln(h, o.Dataset)
			err = s.GetTree(ctx, o, digester{h})
		}
		if err == nil {
			_, err = s.Prove(ctx, o, store.ProveOptions{Manifest: true})
		}
		if err != nil {
			return sum, err
		}
	}
	for d, err := range s.Datasets(ctx) {
		if err != nil {
			return sum, err
		}
		fmt.Fprintln(h, d)
	}
	return [32]byte(h.Sum(nil)), nil
}

// Whichever byte of a store's files is changed, check finds it, or it changes
// nothing of what the store gives back.
func TestFlips(t *testing.T) {
	closed := copySmall(t)
	t.Run("closed", func(t *testing.T) { testFlips(t, closed, 5) })

	// What a machine leaves that stops: the logs of the key-value store are there.
	crashed := filepath.Join(t.TempDir(), "crashed")
	open := copySmall(t)
	s, err := store.Open(t.Context(), open, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), []store.Input{stream("late", prose(8, 100_000))}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(open, crashed); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Run("crashed", func(t *testing.T) { testFlips(t, crashed, 3) })
}

func testFlips(t *testing.T, dir string, perFile int) {
	// Each run has a copy of its own: opening a store may change its files.
	work := func() string {
		to := filepath.Join(t.TempDir(), "store")
		if err := copyTree(dir, to); err != nil {
			t.Fatal(err)
		}
		return to
	}
	wantSound(t, work(), check.Options{ReadData: true})
	want, err := readAll(t.Context(), work())
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	found, harmless := 0, 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		// A log of Badger is mostly room: only what was written counts.
		n := len(bytes.TrimRight(b, "\x00"))
		for i := range perFile {
			at := r.IntN(max(n, 1))
			switch i {
			case 0:
				at = 0
			case 1:
				at = max(n, 1) - 1
			}
			bit := byte(1 << r.IntN(8))
			to := work()
			changed := bytes.Clone(b)
			changed[at] ^= bit
			if err := os.WriteFile(filepath.Join(to, rel), changed, d.Type().Perm()); err != nil {
				return err
			}
			if sum, err := check.Run(t.Context(), to, check.Options{ReadData: true}); err != nil || sum.Warnings+sum.Errors > 0 {
				found++
				continue
			}
			if got, err := readAll(t.Context(), to); err != nil || got != want {
				t.Errorf("byte %d of %s ^ %#x: not found, and then the store reads differently: %v", at, rel, bit, err)
			}
			harmless++
			if err := os.RemoveAll(to); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d found, %d harmless", found, harmless)
}
