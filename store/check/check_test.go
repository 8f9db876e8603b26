package check_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/badgerkv"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/rowpack"
)

// noise returns bytes that do not compress.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// prose returns bytes that do.
func prose(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of %d: the quick brown fox\n", r.IntN(1000), seed)
	}
	return b.Bytes()[:n]
}

func write(t testing.TB, dir, name string, data []byte, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// tree makes a tree with everything small that a tree can hold.
func tree(t testing.TB) string {
	dir := t.TempDir()
	write(t, dir, "a-b", []byte("before what is in a"), 0o644)
	write(t, dir, "a/one", prose(1, 300_000), 0o644)
	write(t, dir, "a/same", prose(1, 300_000), 0o644)
	write(t, dir, "a/two", noise(2, 300_000), 0o600)
	write(t, dir, "a/run", []byte("#!/bin/sh\n"), 0o755)
	write(t, dir, "a.b", nil, 0o644)
	write(t, dir, "a/none", nil, 0o400)
	write(t, dir, "new\nline \xff", []byte("x"), 0o644)
	for i := range 300 {
		write(t, dir, fmt.Sprintf("many/%d/file%d", i%7, i), prose(uint64(i+10), 20), 0o644)
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "empty/of/all"), 0o755),
		os.Symlink("a/one", filepath.Join(dir, "link")),
		os.Symlink("/nowhere", filepath.Join(dir, "a/link")),
		os.Chmod(filepath.Join(dir, "empty"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func stream(name string, b []byte) store.Input {
	return store.Input{Name: name, Reader: bytes.NewReader(b)}
}

// newStore makes a store and does puts, one commit each.
func newStore(t testing.TB, puts ...[]store.Input) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(t.Context(), dir, store.InitOptions{Origin: "test.example/log"}); err != nil {
		t.Fatal(err)
	}
	putAll(t, dir, puts...)
	return dir
}

func putAll(t testing.TB, dir string, puts ...[]store.Input) {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range puts {
		if _, err := s.Put(t.Context(), in, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// small is a store that tests copy and damage: 5 entries, one pack.
var small = sync.OnceValue(func() string {
	t := &onceTB{}
	defer t.clean()
	dir := tree(t)
	write(t, dir, "a/three", noise(3, 5000), 0o644)
	s := newStore(t,
		[]store.Input{{Name: "tree", Path: dir}, stream("stream", prose(4, 400_000))},
		[]store.Input{stream("stream", prose(5, 400_000))},
		[]store.Input{{Name: "copy", Path: dir, Parents: []int64{1}}})
	keep, err := os.MkdirTemp("", "scale-check-test-")
	if err == nil {
		err = copyTree(s, keep)
	}
	if err != nil {
		t.Fatal(err)
	}
	return keep
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(small())
	os.Exit(code)
}

// copySmall returns a copy of the small store.
func copySmall(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := copyTree(small(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyTree keeps modes, which matter for keys.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "ballast" {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), fi.Mode().Perm())
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, fi.Mode().Perm())
	})
}

func run(t testing.TB, dir string, o check.Options) ([]check.Finding, check.Summary) {
	t.Helper()
	var found []check.Finding
	o.Report = func(f check.Finding) { found = append(found, f) }
	sum, err := check.Run(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := tally(found, sum); err != nil {
		t.Error(err)
	}
	return found, sum
}

// tally compares what was reported with the summary.
func tally(found []check.Finding, sum check.Summary) error {
	n := map[check.Severity]uint64{}
	for _, f := range found {
		n[f.Severity]++
	}
	if n[check.Error] > sum.Errors || n[check.Error] == 0 && sum.Errors > 0 || n[check.Warning] > sum.Warnings {
		return fmt.Errorf("summary %+v of findings %v", sum, found)
	}
	return nil
}

// edit changes rows of a store that is closed.
func edit(t testing.TB, dir string, f func(db kv.Store, b *kv.Batch)) {
	t.Helper()
	db, err := badgerkv.Open(filepath.Join(dir, "kv"), badgerkv.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var b kv.Batch
	f(db, &b)
	if err := db.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// rowsOf returns the rows with a prefix.
func rowsOf(t testing.TB, db kv.Store, prefix string) (rows []kv.Row) {
	t.Helper()
	for r, err := range db.Scan(t.Context(), []byte(prefix), nil) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, kv.Row{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)})
	}
	if len(rows) == 0 {
		t.Fatalf("no rows begin with %q", prefix)
	}
	return rows
}

// opened returns a node or commitment row as it was before it was packed.
func opened(t testing.TB, value []byte) []byte {
	t.Helper()
	o, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	p, err := rowpack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Open(nil, value, dag.MaxRow)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantSound(t testing.TB, dir string, o check.Options) check.Summary {
	t.Helper()
	found, sum := run(t, dir, o)
	for _, f := range found {
		t.Errorf("%v: %s %q", f.Severity, f.What, f.Affected)
	}
	return sum
}

func TestSound(t *testing.T) {
	dir := tree(t)
	// A directory that is sharded, with a file in it that has attributes.
	for i := range 1500 {
		write(t, dir, fmt.Sprintf("sharded/%s%d", strings.Repeat("n", 180), i), []byte{byte(i), byte(i >> 8)}, fs.FileMode(0o644-i%2*0o44))
	}
	// More than 256 chunks, more than 256 nodes' worth of leaves.
	write(t, dir, "large", noise(9, 17<<20+12345), 0o644)
	one := []store.Input{{Name: "tree", Path: dir}, {Name: "fixed", Path: dir, Profile: "scale-fixed-1"}, {Name: "times", Path: dir, Times: true}}
	s := newStore(t, one, []store.Input{
		stream("empty", nil), stream("byte", []byte{1}), {Name: "nothing", Path: t.TempDir()},
		{Name: "file", Path: filepath.Join(dir, "a/two")}, {Name: "again", Path: dir, Parents: []int64{1, 2}},
	})
	// A second version, which shares nearly all.
	write(t, dir, "a/one", prose(77, 300_000), 0o644)
	if err := os.RemoveAll(filepath.Join(dir, "many/3")); err != nil {
		t.Fatal(err)
	}
	putAll(t, s, []store.Input{{Name: "tree", Path: dir}})
	for _, read := range []bool{false, true} {
		sum := wantSound(t, s, check.Options{ReadData: read})
		if sum.Datasets != 9 || sum.Entries != 10 || !sum.Sound() || sum.Chunks == 0 || (sum.Read == sum.Plain) != read || sum.Garbage != 0 {
			t.Errorf("summary %+v", sum)
		}
	}
	wantSound(t, newStore(t), check.Options{ReadData: true})
}
