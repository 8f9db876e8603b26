package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store"
)

// A store from a stranger must not make its reader write to, or wait for, anything
// outside.
func TestHostileDirectory(t *testing.T) {
	for _, name := range []string{"lock", "ballast", "highwater", "packs/00000001.pack", "packs/00000002.pack", "kv/MANIFEST", "keys/log.key"} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, store.Options{})
			h.mustPut(stream("x", text(1, 100_000)))
			h.close()
			victim := filepath.Join(t.TempDir(), "victim")
			if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(h.dir, name)
			os.Remove(path)
			if err := os.Symlink(victim, path); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Open(h.ctx, h.dir, h.opt); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("a link: %v, want ErrCorrupt", err)
			}
			if _, err := store.AcquireLock(h.ctx, h.dir, 0, "test"); name == "lock" && !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("lock a link: %v, want ErrCorrupt", err)
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
				t.Errorf("the victim holds %q, %v", b, err)
			}
			os.Remove(path)
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Open(h.ctx, h.dir, h.opt); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("a pipe: %v, want ErrCorrupt", err)
			}
		})
	}
}

// What lies in packs that were lost does not count as stored.
func TestLostPacks(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed": os.Remove, "cut short": func(p string) error { return os.Truncate(p, 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, store.Options{})
			b := text(1, 300_000)
			h.mustPut(stream("x", b))
			h.close()
			if err := lose(filepath.Join(h.dir, "packs", "00000001.pack")); err != nil {
				t.Fatal(err)
			}
			h.open()
			if res := h.mustPut(stream("y", b))[0]; res.NewBytes != uint64(len(b)) {
				t.Errorf("stored %d bytes anew, want %d", res.NewBytes, len(b))
			}
			if string(h.get("x")) != string(b) || string(h.get("y")) != string(b) {
				t.Error("reads back differently")
			}
		})
	}
}
