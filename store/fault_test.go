package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
	"github.com/koii-network/scale/store/storetest"
)

// faults are the parts of a store that fail on demand.
type faults struct {
	kv    *storetest.KV
	packs *storetest.Packs
}

func newFaultyHarness(t *testing.T) (*harness, *faults) {
	f := &faults{}
	var h *harness
	dir := func() string { return filepath.Join(h.dir, "packs") }
	h = &harness{t: t, ctx: t.Context(), dir: filepath.Join(t.TempDir(), "store"), opt: store.Options{
		FrameSize: 40 << 10,
		WrapKV:    func(s kv.Store) kv.Store { f.kv = storetest.NewKV(s); return f.kv },
		WrapPacks: func(s pack.Store) pack.Store { f.packs = storetest.NewPacks(s, dir()); return f.packs },
	}}
	if err := store.Init(h.ctx, h.dir, store.InitOptions{Origin: "test.example/log"}); err != nil {
		t.Fatal(err)
	}
	h.open()
	t.Cleanup(h.close)
	return h, f
}

// Every write of a put fails once, having landed or not. Whatever happened, the
// store opens again, what was acknowledged is there, the same put goes through, and
// the ledger never shows another tree of a size that was signed.
func TestEveryWriteFails(t *testing.T) {
	kinds := []struct {
		name string
		arm  func(f *faults, n int, landed bool)
	}{
		{"commit", func(f *faults, n int, landed bool) { f.kv.FailAt(n, landed) }},
		{"sync", func(f *faults, n int, landed bool) { f.packs.FailSyncAt(n, landed) }},
		{"append", func(f *faults, n int, landed bool) { f.packs.FailAppendAt(n) }},
	}
	for _, k := range kinds {
		for _, landed := range []bool{false, true} {
			for n := 1; ; n++ {
				survived := false
				t.Run(fmt.Sprintf("%s/%d/landed=%t", k.name, n, landed), func(t *testing.T) {
					h, f := newFaultyHarness(t)
					h.mustPut(stream("before", text(1, 50_000)))
					cosigned := h.s.Published()
					k.arm(f, n, landed)
					a, b := text(2, 150_000), random(3, 150_000)
					res, err := h.put(stream("a", a), stream("b", b))
					if err == nil {
						survived = true
						cosigned = h.s.Published()
						if res[0].TreeSize != cosigned.Size {
							t.Errorf("tree size %d, published %d", res[0].TreeSize, cosigned.Size)
						}
					} else if got := h.s.Published(); got.Size != cosigned.Size {
						t.Errorf("a put that failed published %d entries, had %d", got.Size, cosigned.Size)
					}
					h.reopen()
					if err := h.s.Doubt(); err != nil {
						t.Fatalf("opened again with doubt: %v", err)
					}
					// What was shown before must be a prefix of what is there now.
					if _, err := h.s.Consistency(h.ctx, cosigned.Size, h.s.Published().Size); err != nil {
						t.Error(err)
					}
					h.mustPut(stream("a", a), stream("b", b))
					if !bytes.Equal(h.get("a"), a) || !bytes.Equal(h.get("b"), b) {
						t.Error("put after recovery reads back differently")
					}
					h.check()
				})
				if t.Failed() || survived {
					break
				}
			}
		}
	}
}

// After a write whose outcome is unknown the store appends nothing more, and reads.
func TestStoppedStoreReads(t *testing.T) {
	h, f := newFaultyHarness(t)
	h.mustPut(stream("x", []byte("x")))
	f.kv.FailAt(2, true)
	if _, err := h.put(stream("y", []byte("y"))); !errors.Is(err, store.ErrStopped) {
		t.Fatalf("%v, want ErrStopped", err)
	}
	if _, err := h.put(stream("z", []byte("z"))); !errors.Is(err, store.ErrStopped) {
		t.Errorf("%v, want ErrStopped", err)
	}
	if got := h.get("x"); string(got) != "x" {
		t.Errorf("x reads %q", got)
	}
}

// A high-water mark that cannot be written is a failed commit that landed. It is not
// published, so readers do not see it before the store is opened again.
func TestHighWaterFails(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", []byte("old")))
	block := filepath.Join(h.dir, "highwater.new")
	if err := os.MkdirAll(filepath.Join(block, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := h.put(stream("x", []byte("x")), stream("y", nil)); !errors.Is(err, store.ErrStopped) {
		t.Fatalf("%v, want ErrStopped", err)
	}
	if got := h.get("x"); string(got) != "old" {
		t.Errorf("x reads %q before its new version is published", got)
	}
	for d, err := range h.s.Datasets(h.ctx) {
		if err != nil || d.Version != 1 {
			t.Errorf("version %d of %s listed, %v", d.Version, d.Name, err)
		}
	}
	if _, err := h.s.Totals(h.ctx); err != nil {
		t.Error(err)
	}
	if _, err := h.s.Resolve(h.ctx, "y"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a name whose only version is not published: %v, want ErrNotFound", err)
	}
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	if err := h.s.Doubt(); err != nil {
		t.Fatal(err)
	}
	if res := h.mustPut(stream("x", []byte("x")))[0]; !res.Unchanged {
		t.Errorf("the commit did not land: %+v", res)
	}
	h.check()
}

func TestHighWaterGuards(t *testing.T) {
	// An older copy of the index under the mark of a newer one.
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", []byte("one")))
	h.close()
	old := filepath.Join(t.TempDir(), "old")
	copyDir(t, filepath.Join(h.dir, "kv"), old)
	h.open()
	h.mustPut(stream("x", []byte("two")))
	h.close()
	mark, err := os.ReadFile(filepath.Join(h.dir, "highwater"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "kv")); err != nil {
		t.Fatal(err)
	}
	copyDir(t, old, filepath.Join(h.dir, "kv"))
	other := otherCheckpoint(t, h, 2)
	for name, b := range map[string][]byte{"older index": mark, "no mark": nil, "damaged": []byte("mark"), "other tree": other} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(h.dir, "highwater")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if b != nil {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			} else {
				defer os.WriteFile(path, mark, 0o600)
			}
			h.open()
			defer h.close()
			if _, err := h.put(stream("y", nil)); !errors.Is(err, store.ErrReadOnly) {
				t.Errorf("%v, want ErrReadOnly", err)
			}
			if got := h.get("x"); string(got) != "one" {
				t.Errorf("x reads %q", got)
			}
			if err := h.s.Doubt(); err == nil || !strings.Contains(err.Error(), "scale check") {
				t.Errorf("doubt %v does not say what to do", err)
			}
		})
	}
}

// otherCheckpoint is signed by the store's own key over a tree it never had.
func otherCheckpoint(t *testing.T, h *harness, size int64) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "keys", "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: s.Name(), Size: size, Root: [32]byte{1}}, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// A process that is killed in the middle of puts leaves a store that opens, holds
// everything that was acknowledged, and takes the next put.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("SCALE_TEST_KILLED"); dir != "" {
		killedChild(t, dir)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, store.Options{})
	h.close()
	acked := map[string]int{}
	for round := range 6 {
		cmd := exec.Command(exe, "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "SCALE_TEST_KILLED="+h.dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed after a number of acknowledgements, wherever it is then.
		var name string
		var size int
		for range 3 + round {
			if _, err := fmt.Fscanf(out, "%s %d\n", &name, &size); err != nil {
				t.Fatalf("child: %v", err)
			}
			acked[name] = size
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		h.open()
		if err := h.s.Doubt(); err != nil {
			t.Fatal(err)
		}
		for name, size := range acked {
			if got := h.get(name); len(got) != size {
				t.Errorf("%s has %d bytes, %d were acknowledged", name, len(got), size)
			}
		}
		h.mustPut(stream(fmt.Sprintf("after%d", round), text(uint64(round), 100_000)))
		h.check()
		h.close()
	}
}

func killedChild(t *testing.T, dir string) {
	s, err := store.Open(t.Context(), dir, store.Options{FrameSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		name, size := fmt.Sprintf("c%d", s.Published().Size), 100_000+i*50_000
		if _, err := s.Put(t.Context(), []store.Input{stream(name, text(uint64(i), size))}, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s %d\n", name, size)
	}
}

func TestNoSpace(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", []byte("x")))
	h.close()
	h.opt.Floor = 1 << 60
	h.open()
	if _, err := h.put(stream("y", []byte("y"))); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("%v, want ErrNoSpace", err)
	}
	if got := h.get("x"); string(got) != "x" {
		t.Errorf("x reads %q", got)
	}
}

func TestLocked(t *testing.T) {
	h := newHarness(t, store.Options{})
	_, err := store.Open(h.ctx, h.dir, store.Options{})
	var locked *store.LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || !errors.Is(err, store.ErrBusy) {
		t.Errorf("%v, want a LockedError that names this process", err)
	}
}

func TestKeys(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", []byte("x")))
	for _, name := range []string{"log.key", "curator.json"} {
		path := filepath.Join(h.dir, "keys", name)
		key, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		spoil := map[string]func() error{
			"readable by others": func() error { return os.Chmod(path, 0o644) },
			"missing":            func() error { return os.Remove(path) },
			"malformed":          func() error { return os.WriteFile(path, []byte("[1,2]"), 0o600) },
			"cut short":          func() error { return os.WriteFile(path, key[:len(key)/2], 0o600) },
		}
		for what, f := range spoil {
			t.Run(name+" "+what, func(t *testing.T) {
				if err := f(); err != nil {
					t.Fatal(err)
				}
				_, err := h.put(stream("y", []byte(what)))
				if !errors.Is(err, store.ErrKeys) || !strings.Contains(err.Error(), path) {
					t.Errorf("%v, want ErrKeys that names the file", err)
				}
				if bytes.Contains([]byte(err.Error()), key[20:40]) {
					t.Error("the error holds key bytes")
				}
				h.get("x")
				os.Remove(path)
				if err := os.WriteFile(path, key, 0o600); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	h.mustPut(stream("y", []byte("y")))
}

func TestFormats(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.close()
	path := filepath.Join(h.dir, "scale.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]error{
		`"format": 3`: store.ErrFormat, `"format": 0`: store.ErrFormat, `"format": -1`: store.ErrFormat, `"format": "one"`: store.ErrCorrupt,
	} {
		if err := os.WriteFile(path, bytes.Replace(b, []byte(`"format": 2`), []byte(to), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(h.ctx, h.dir, store.Options{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", to, err, want)
		}
	}
	if _, err := store.Open(h.ctx, t.TempDir(), store.Options{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("empty directory: %v, want ErrNotFound", err)
	}
	if err := store.Init(h.ctx, h.dir, store.InitOptions{}); !errors.Is(err, store.ErrExists) {
		t.Errorf("init over a store: %v, want ErrExists", err)
	}
	if err := store.Init(h.ctx, filepath.Dir(h.dir), store.InitOptions{}); !errors.Is(err, store.ErrExists) {
		t.Errorf("init over other files: %v, want ErrExists", err)
	}
	if err := store.Init(h.ctx, filepath.Join(t.TempDir(), "s"), store.InitOptions{Origin: "a b"}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("init with a bad origin: %v, want ErrInvalid", err)
	}
}

// What an interrupted Init left behind does not stand in the way of the next one, and
// somebody's files do.
func TestInitAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store.Init(t.Context(), dir, store.InitOptions{}); !errors.Is(err, store.ErrExists) {
		t.Errorf("over somebody's keys: %v, want ErrExists", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "init"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keys", "log.key"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := store.Init(t.Context(), dir, store.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "init")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the marker stays: %v", err)
	}
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}
