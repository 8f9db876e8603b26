package badgerkv

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The logs have their blocks before anything is written to them, those that Badger
// begins by itself too. Who only reads allocates nothing, and nothing is left behind.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	allocated := func(log uint32) int64 {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(logPath(dir, log), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if n := allocated(s.log); n >= memTable {
		t.Errorf("%d bytes are allocated before the first commit", n)
	}
	// As after a crash: with a log that was not begun. Later on tables would be written
	// while the files are copied.
	const before = 100
	fill(t, s, 0, before)
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(logPath(crashed, s.log+1)); err != nil || fi.Size() > 0 {
		t.Errorf("the next log: %v, %v, want it empty", fi, err)
	}
	logs, rows := map[uint32]bool{}, before
	for ; len(logs) < 4; rows += 16_000 {
		fill(t, s, rows, 16_000)
		logs[s.log] = true
		if n := allocated(s.log); n < logBytes {
			t.Fatalf("log %d has %d bytes, want %d", s.log, n, logBytes)
		}
		var b [1]byte
		f, err := os.Open(logPath(dir, s.log+1))
		if err == nil {
			if n, _ := f.Read(b[:]); n > 0 {
				t.Error("the next log was begun before its time")
			}
			f.Close()
		}
	}
	shut(t, s)
	s = open(t, crashed)
	fill(t, s, before, 10)
	wantRows(t, s, before+10)
	shut(t, s)
	for _, dir := range []string{dir, crashed} {
		if left, err := filepath.Glob(filepath.Join(dir, "*.mem")); err != nil || len(left) > 0 {
			t.Errorf("%v is left, %v", left, err)
		}
	}
}
