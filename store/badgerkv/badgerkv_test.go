package badgerkv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.TestKV(t, func(dir string) (kv.Store, error) { return Open(dir, Options{}) })
}

func TestOpen(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	parent := t.TempDir()
	if _, err := Open(filepath.Join(parent, "none", "kv"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a parent: %v", err)
	}
	dir := filepath.Join(parent, "kv")
	s := open(t, dir)
	if _, err := Open(dir, Options{}); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second time: %v", err)
	}
	fill(t, s, 0, 10)
	shut(t, s)
	s = open(t, dir)
	defer shut(t, s)
	wantRows(t, s, 10)
}

// wantRows checks that the first n index rows are there and no more.
func wantRows(t *testing.T, s *KV, n int) {
	t.Helper()
	for i := range n + 10 {
		key, value := indexRow(i)
		got, err := s.Get(t.Context(), key, nil)
		if i < n && (err != nil || string(got) != string(value)) || i >= n && !errors.Is(err, kv.ErrNotFound) {
			t.Fatalf("row %d of %d: %x, %v", i, n, got, err)
		}
	}
}

// TestRotation commits more than several tables in memory hold, and has all of
// it in a copy of the files made after the last commit.
func TestRotation(t *testing.T) {
	const rows = 160_000
	dir := t.TempDir()
	s := open(t, dir)
	defer shut(t, s)
	fill(t, s, 0, rows)
	s.unmap()
	wantRows(t, s, rows)
	if _, err := os.Stat(logPath(dir, s.log)); err != nil || s.log < 2 {
		t.Errorf("the log is number %d: %v", s.log, err)
	}
	if fi, err := os.Stat(logPath(dir, s.log+1)); err != nil || fi.Size() > 0 {
		t.Errorf("and the next one was begun: %v", err)
	}
	if got := residentFiles(); got == 0 {
		t.Error("cannot tell how much is resident")
	}
}

// What was filled in bulk is all in tables of one level once it is closed, and what
// comes later is committed as ever.
func TestBulk(t *testing.T) {
	const rows = 160_000
	dir := t.TempDir()
	s, err := Open(dir, Options{Bulk: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.db.Opts().SyncWrites {
		t.Error("every commit is synced")
	}
	fill(t, s, 0, rows)
	wantRows(t, s, rows)
	if s.log < 2 {
		t.Error("it all fits into one table")
	}
	s.room.tables = 1 << 30
	if got, want := s.room.forCommit(0), slack+s.room.written+1<<30; got < want {
		t.Errorf("%d bytes are kept free for a compaction of all there is, must be %d", got, want)
	}
	shut(t, s)
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil || len(logs) > 0 {
		t.Errorf("logs that nobody synced are left: %v, %v", logs, err)
	}
	s = open(t, dir)
	wantRows(t, s, rows)
	for _, table := range s.db.Tables() {
		if table.Level != 6 {
			t.Errorf("a table of level %d", table.Level)
		}
	}
	fill(t, s, rows, 10)
	shut(t, s)
	s = open(t, dir)
	defer shut(t, s)
	wantRows(t, s, rows+10)
}

// Pages are given back beside the calls too, until the store is closed.
func TestWatch(t *testing.T) {
	tick, trimmed := make(chan time.Time), 0
	stop := watch(tick, func() { trimmed++ })
	for range 3 {
		tick <- time.Time{}
	}
	stop()
	if trimmed != 3 {
		t.Errorf("trimmed %d times at 3 ticks", trimmed)
	}
	select {
	case tick <- time.Time{}:
		t.Error("goes on after its end")
	default:
	}
	s := open(t, t.TempDir())
	stop, stopped := s.unwatch, 0
	s.unwatch = func() { stopped++; stop() }
	shut(t, s)
	shut(t, s)
	if stopped != 1 {
		t.Errorf("closing stopped it %d times", stopped)
	}
}

func TestRoom(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer shut(t, s)
	fill(t, s, 0, 10)
	var b kv.Batch
	b.Set([]byte("key"), []byte("value"))
	for _, c := range []struct {
		st   unix.Statfs_t
		want error
	}{
		{unix.Statfs_t{Frsize: 4096, Bavail: 100, Files: 1 << 20, Ffree: 1 << 20}, kv.ErrNoSpace},
		{unix.Statfs_t{Frsize: 4096, Bavail: 1 << 20, Files: 1 << 20, Ffree: 10}, kv.ErrNoSpace},
		{unix.Statfs_t{Frsize: 4096, Bavail: 1 << 20}, nil}, // no limit on inodes
	} {
		s.room.statfs = func(_ string, st *unix.Statfs_t) error {
			*st = c.st
			return nil
		}
		if err := s.Commit(t.Context(), &b); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.st, err, c.want)
		}
		if has, err := s.Has(t.Context(), []byte("key")); err != nil || has != (c.want == nil) {
			t.Errorf("%+v: Has = %v, %v", c.st, has, err)
		}
	}
	wantRows(t, s, 10)
}

func TestSystemError(t *testing.T) {
	flat := fmt.Errorf("while opening memtable err: %+v", &os.PathError{Op: "open", Path: "00001.mem", Err: unix.ENOSPC})
	if err := openError(flat); !errors.Is(err, kv.ErrNoSpace) || !errors.Is(err, unix.ENOSPC) || errors.Is(err, kv.ErrCorrupt) {
		t.Error(err)
	}
	if err := openError(errors.New("checksum mismatch")); !errors.Is(err, kv.ErrCorrupt) {
		t.Error(err)
	}
	if err := systemError(nil); err != nil {
		t.Error(err)
	}
}

// TestLargeStore checks what is verified of the tables that are too many to be
// read as a whole.
func TestLargeStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 0, 5000)
	shut(t, s)
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	whole, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what     string
		at       int
		full     bool
		wantGood bool
	}{
		{"nothing", -1, true, true},
		{"nothing", -1, false, true},
		{"first block", 100, true, false},
		{"first block", 100, false, true},
		{"index", len(whole) - 100, false, false},
		{"checksum", len(whole) - 5, false, false},
	} {
		b := append([]byte(nil), whole...)
		if c.at >= 0 {
			b[c.at] ^= 4
		}
		newest, err := verifyTable(bytes.NewReader(b), int64(len(b)), c.full)
		if good := err == nil && newest == 1; good != c.wantGood {
			t.Errorf("damage to %s, full=%t: version %d, %v", c.what, c.full, newest, err)
		}
	}
}
