package badgerkv

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzLog reads any bytes as a write-ahead log.
func FuzzLog(f *testing.F) {
	dir := f.TempDir()
	s := open(f, dir)
	fill(f, s, 0, 2)
	fill(f, s, 2, 1)
	b, err := os.ReadFile(logPath(dir, 1))
	if err != nil {
		f.Fatal(err)
	}
	shut(f, s)
	f.Add(b[:1024])
	f.Fuzz(func(t *testing.T, b []byte) {
		var w walFile
		later := w.read(b)
		if w.end > max(int64(len(b)), walHeader) || (w.last == 0) != (w.end == walHeader) || w.last < w.first {
			t.Errorf("read %+v from %d bytes", w, len(b))
		}
		// What is behind the whole commits has no part in them.
		var again walFile
		if again.read(b[:min(w.end, int64(len(b)))]); again.first != w.first || again.last != w.last || again.end != w.end {
			t.Errorf("read %+v, and %+v without the %d records behind", w, again, len(later))
		}
	})
}

// FuzzTable reads any bytes as a table.
func FuzzTable(f *testing.F) {
	dir := f.TempDir()
	s := open(f, dir)
	fill(f, s, 0, 3)
	shut(f, s)
	b, err := os.ReadFile(filepath.Join(dir, "000001.sst"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, full := verifyTable(bytes.NewReader(b), int64(len(b)), true)
		if _, err := verifyTable(bytes.NewReader(b), int64(len(b)), false); full == nil && err != nil {
			t.Errorf("the table is sound, but not its end: %v", err)
		}
	})
}
