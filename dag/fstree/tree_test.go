package fstree

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want one that is %q", got, want)
	}
}

// put writes a file, and the directories above it, below dir.
func put(t testing.TB, dir, path, content string) {
	t.Helper()
	name := filepath.Join(dir, path)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

// openDir returns a directory that everyone can reach, nobody included.
func openDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

// asNobody runs f without the privileges of root, which reads and writes
// everything. Only the thread changes, so f must not start goroutines.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := errors.Join(unix.Setfsgid(nobody), unix.Setfsuid(nobody)); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func open(t testing.TB, root string, o Options) *Tree {
	t.Helper()
	tree, err := Open(root, o)
	must(t, err)
	t.Cleanup(func() { tree.Close() })
	return tree
}

// walk returns all entries, and what was skipped.
func walk(t testing.TB, root string, o Options) (entries []*Entry, skipped map[string]error) {
	t.Helper()
	skipped = map[string]error{}
	o.Skipped = func(path string, why error) { skipped[path] = why }
	for e, err := range open(t, root, o).Walk(t.Context()) {
		must(t, err)
		entries = append(entries, e)
	}
	return entries, skipped
}

func paths(entries []*Entry) []string {
	var all []string
	for _, e := range entries {
		if e.Kind == dag.KindDir {
			all = append(all, e.Path+"/")
		} else {
			all = append(all, e.Path)
		}
	}
	return all
}

func walkErr(root string, o Options) error {
	tree, err := Open(root, o)
	if err != nil {
		return err
	}
	defer tree.Close()
	for _, err = range tree.Walk(context.Background()) {
	}
	return err
}
