package badgerkv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/koii-network/scale/store/kv"
)

// damaged is a store whose files a test damages, kept in memory.
type damaged struct {
	files   map[string][]byte
	commits []map[string]string // the rows that each commit set; never the same twice
}

// newDamaged makes a store of tables on several levels and, unless it was
// closed, of commits in the log.
func newDamaged(t *testing.T, closed bool) *damaged {
	t.Helper()
	dir := t.TempDir()
	d := new(damaged)
	commit := func(s *KV, rows int) {
		t.Helper()
		var b kv.Batch
		set := make(map[string]string)
		for i := range rows {
			key := fmt.Sprintf("key %04d of commit %d", i*37%rows, len(d.commits))
			value := fmt.Sprintf("value %d", i)
			b.Set([]byte(key), []byte(value))
			set[key] = value
		}
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		d.commits = append(d.commits, set)
	}
	for range l0Close + 2 {
		s := open(t, dir)
		commit(s, 40)
		shut(t, s)
	}
	s := open(t, dir)
	defer shut(t, s)
	if !closed {
		for range 4 {
			commit(s, 10)
		}
		d.files = readDir(t, dir)
		return d
	}
	d.files = readDir(t, dir)
	for name := range d.files {
		if strings.HasSuffix(name, ".mem") {
			delete(d.files, name)
		}
	}
	return d
}

func readDir(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = b
	}
	return files
}

// open opens a copy of the store and returns which commits are whole; the
// others must be missing altogether. It fails the test if a row is wrong.
func (d *damaged) open(t *testing.T, files map[string][]byte) (whole []bool, err error) {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		// Logs are as long as they may become. Their zeros are left out.
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.TrimRight(b, "\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(dir, Options{})
	if err != nil {
		return nil, err
	}
	defer shut(t, s)
	want := make(map[string]string)
	for n, rows := range d.commits {
		there := 0
		for key, value := range rows {
			got, err := s.Get(t.Context(), []byte(key), nil)
			if err == nil && string(got) != value {
				t.Errorf("%q reads as %q, want %q", key, got, value)
			} else if err == nil {
				there++
				want[key] = value
			} else if !errors.Is(err, kv.ErrNotFound) {
				return nil, err
			}
		}
		if there != 0 && there != len(rows) {
			t.Errorf("%d of %d rows of commit %d are there", there, len(rows), n)
		}
		whole = append(whole, there > 0)
	}
	got := make(map[string]string)
	for row, err := range s.Scan(t.Context(), nil, nil) {
		if err != nil {
			return nil, err
		}
		got[string(row.Key)] = string(row.Value)
	}
	if !maps.Equal(got, want) {
		t.Errorf("a scan finds %d rows, lookups %d", len(got), len(want))
	}
	return whole, nil
}

// flips returns places to flip in a file: all of them in a short one, the ends
// and some between in a long one.
func flips(b []byte) []int {
	end := len(bytes.TrimRight(b, "\x00"))
	var at []int
	for i := 0; i < end; i += 1 + end/20 {
		at = append(at, i)
	}
	for i := max(0, end-5); i < end; i++ {
		at = append(at, i)
	}
	return append(at, end)
}

// TestDamage flips bytes in every file of a store. Rows are right or missing,
// commits are there as a whole or not at all, and what is missing without an error
// is at most the last commit, and only of a store that was not closed.
func TestDamage(t *testing.T) {
	for _, closed := range []bool{true, false} {
		d := newDamaged(t, closed)
		all := slices.Repeat([]bool{true}, len(d.commits))
		if whole, err := d.open(t, d.files); err != nil || !slices.Equal(whole, all) {
			t.Fatalf("undamaged: commits %v, %v", whole, err)
		}
		for _, name := range slices.Sorted(maps.Keys(d.files)) {
			t.Run(fmt.Sprintf("closed=%t/%s", closed, name), func(t *testing.T) {
				var refused, lost int
				for _, at := range flips(d.files[name]) {
					if at >= len(d.files[name]) {
						continue
					}
					files := maps.Clone(d.files)
					files[name] = bytes.Clone(files[name])
					files[name][at] ^= 1 << (at % 8)
					whole, err := d.open(t, files)
					switch n := len(all) - 1; {
					case err != nil && !errors.Is(err, kv.ErrCorrupt):
						t.Errorf("byte %d: %v", at, err)
					case err != nil:
						refused++
					case slices.Equal(whole, all):
					case strings.HasSuffix(name, ".mem") && slices.Equal(whole[:n], all[:n]):
						lost++
					default:
						t.Errorf("byte %d: commits %v are there, and no error", at, whole)
					}
				}
				t.Logf("%d refused, %d without the last commit", refused, lost)
			})
		}
	}
}

// TestMissing removes and cuts files.
func TestMissing(t *testing.T) {
	for _, closed := range []bool{true, false} {
		d := newDamaged(t, closed)
		for _, name := range slices.Sorted(maps.Keys(d.files)) {
			for _, cut := range []string{"removed", "emptied", "cut"} {
				t.Run(fmt.Sprintf("closed=%t/%s/%s", closed, name, cut), func(t *testing.T) {
					files := maps.Clone(d.files)
					switch b := bytes.TrimRight(files[name], "\x00"); cut {
					case "removed":
						delete(files, name)
					case "emptied":
						files[name] = nil
					case "cut":
						files[name] = b[:max(0, len(b)-1)]
					}
					whole, err := d.open(t, files)
					vital := strings.HasSuffix(name, ".sst") || name == badger.ManifestFilename
					if vital && !errors.Is(err, kv.ErrCorrupt) || !vital && err != nil {
						t.Errorf("commits %v, %v", whole, err)
					}
				})
			}
		}
	}
}

// TestLogs cuts one log into several, as they are when commits come faster
// than Badger writes tables, and loses parts of them.
func TestLogs(t *testing.T) {
	d := newDamaged(t, false)
	const name, next = "00001.mem", "00002.mem"
	b := d.files[name]
	var ends []int // of the commits
	for pos, w := walHeader, 0; ; w++ {
		r, n := parseRecord(b, pos)
		if n == 0 {
			break
		}
		if pos += n; r.meta&metaFin != 0 {
			ends = append(ends, pos)
		}
	}
	if len(ends) != 4 {
		t.Fatalf("the log has %d commits, want 4", len(ends))
	}
	head, end := b[:walHeader], ends[3]
	n := len(d.commits)
	for _, c := range []struct {
		what        string
		first, then []byte
		want        int // commits, -1 for damage
	}{
		{"two logs", b[:ends[1]], slices.Concat(head, b[ends[1]:end]), n},
		{"an empty one behind", b[:end], nil, n},
		{"one without commits behind", b[:end], head, n},
		{"the second is torn", b[:ends[1]], slices.Concat(head, b[ends[1]:end-1]), n - 1},
		{"the first is torn", b[:ends[1]-1], slices.Concat(head, b[ends[1]:end]), -1},
		{"the first lacks a commit", b[:ends[0]], slices.Concat(head, b[ends[1]:end]), -1},
		{"the first is empty", nil, slices.Concat(head, b[ends[1]:end]), -1},
		{"the second lacks its first commit", b[:ends[1]], slices.Concat(head, b[ends[2]:end]), -1},
	} {
		t.Run(c.what, func(t *testing.T) {
			files := maps.Clone(d.files)
			files[name], files[next] = c.first, c.then
			whole, err := d.open(t, files)
			if c.want < 0 {
				if !errors.Is(err, kv.ErrCorrupt) {
					t.Errorf("commits %v, %v, want ErrCorrupt", whole, err)
				}
				return
			}
			if got := strings.Count(fmt.Sprint(whole), "true"); err != nil || got != c.want {
				t.Errorf("commits %v, %v, want %d", whole, err, c.want)
			}
		})
	}
}

// TestTornManifest has MANIFEST end in the middle of a record, which is what a
// crash may leave.
func TestTornManifest(t *testing.T) {
	d := newDamaged(t, false)
	files := maps.Clone(d.files)
	files[badger.ManifestFilename] = append(bytes.Clone(files[badger.ManifestFilename]), 0, 0, 0, 4, 'x')
	whole, err := d.open(t, files)
	if err != nil || slices.Contains(whole, false) {
		t.Errorf("commits %v, %v", whole, err)
	}
}
