package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// TestDamagedIndexNeverForks flips single bits in every file of the key-value store,
// of a store that was closed and of one whose process was killed, and then puts. It
// may be refused, but no checkpoint may appear that contradicts the one before.
func TestDamagedIndexNeverForks(t *testing.T) {
	f := newFixture(t)
	for i := range 4 {
		f.put(t, fmt.Sprint("data", i), noise(10<<10*(i+1)))
	}
	killed := copyStore(t, filepath.Join(f.dir, "store"))
	last := f.store.Published()
	f.close(t)
	closed := copyStore(t, filepath.Join(f.dir, "store"))
	verifier, err := note.NewVerifier(f.vkey)
	if err != nil {
		t.Fatal(err)
	}
	more := filepath.Join(f.dir, "more")
	if err := os.WriteFile(more, noise(77<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	flips := 8
	if testing.Short() {
		flips = 2
	}
	outcomes := map[int]int{}
	for _, dir := range []string{closed, killed} {
		for _, name := range kvFiles(t, dir) {
			size := contentSize(t, filepath.Join(dir, name))
			for i := range min(flips, size) {
				at := size * i / flips
				if i == flips-1 {
					at = size - 1
				}
				what := fmt.Sprintf("%s of %s, byte %d", name, filepath.Base(dir), at)
				damaged := copyStore(t, dir)
				flip(t, filepath.Join(damaged, name), at)
				_, stderr, code := runVerb(t, "put", more, "--store", damaged)
				outcomes[code]++
				if code != 0 && code != exitFailed && code != exitRefused {
					t.Errorf("%s: put ended with exit code %d: %s", what, code, stderr)
				}
				checkContinues(t, what, damaged, verifier, last, code == 0)
				if err := os.RemoveAll(damaged); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if outcomes[0] == 0 || outcomes[exitRefused] == 0 {
		t.Errorf("exit codes of the puts: %v; expected some to work and some to be refused", outcomes)
	}
}

// checkContinues asks what the log of a store says now, if it says anything.
func checkContinues(t *testing.T, what, dir string, v note.Verifier, last store.Published, appended bool) {
	t.Helper()
	signed, _, code := runVerb(t, "log", "--store", dir)
	if code != 0 {
		if appended {
			t.Errorf("%s: the put worked, but then the log cannot be read", what)
		}
		return
	}
	c, err := ledger.OpenCheckpoint([]byte(signed), v)
	switch {
	case err != nil:
		t.Errorf("%s: %v", what, err)
	case appended != (c.Size > last.Size):
		t.Errorf("%s: put worked: %t, and the log has size %d after %d", what, appended, c.Size, last.Size)
	case c.Size == last.Size && c.Root != last.Root:
		t.Errorf("%s: another root for size %d", what, c.Size)
	case c.Size > last.Size:
		stdout, stderr, code := runVerb(t, "log", "consistency", fmt.Sprint(last.Size), fmt.Sprint(c.Size), "--json", "--store", dir)
		if code != 0 {
			t.Errorf("%s: no consistency proof: %s", what, stderr)
			return
		}
		var p struct{ Hashes tlog.TreeProof }
		if err := json.Unmarshal([]byte(stdout), &p); err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(p.Hashes, c.Size, c.Root, last.Size, last.Root); err != nil {
			t.Errorf("%s: the log forked: %v", what, err)
		}
	}
}

func copyStore(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(dir))
	// Badger's logs are mostly holes.
	if out, err := exec.Command("cp", "-a", "--sparse=always", dir, to).CombinedOutput(); err != nil {
		t.Fatalf("copy store: %v\n%s", err, out)
	}
	return to
}

// kvFiles lists the files of the key-value store that hold anything.
func kvFiles(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(filepath.Join(dir, "kv"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && contentSize(t, path) > 0 {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 3 {
		t.Fatalf("the key-value store has only %q", names)
	}
	return names
}

// contentSize is the size of a file without the zeros at its end.
func contentSize(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return len(bytes.TrimRight(b, "\x00"))
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x04
	if _, err := f.WriteAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
}
