package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store"
)

// storeDir returns where the store is. Only the default place is made without being
// asked for: a store that was named and is missing is more likely a typing error.
func (a *app) storeDir() (dir string, isDefault bool, err error) {
	if a.store != "" {
		return a.store, false, nil
	}
	if env := os.Getenv("SCALE_STORE"); env != "" {
		return env, false, nil
	}
	// The XDG specification has relative paths ignored.
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "scale"), true, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", false, usagef("where is the store? %w; give --store or set $SCALE_STORE", err)
	}
	return filepath.Join(home, ".local", "share", "scale"), true, nil
}

// fileCache returns where is remembered what the files of trees are made of, for all
// stores and nodes; "" if the user has no place for it.
func fileCache() string {
	if cache := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(cache) {
		return filepath.Join(cache, "scale", "files")
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".cache", "scale", "files")
}

// existing returns the directory of a store that exists, if need be because it has
// just been made.
func (a *app) existing(ctx context.Context) (string, error) {
	dir, isDefault, err := a.storeDir()
	if err != nil {
		return "", err
	}
	if store.Exists(dir) {
		return dir, nil
	}
	if !isDefault {
		return "", fmt.Errorf("no store in %s: %w; to make one, run: scale init --store %[1]s", dir, store.ErrNotFound)
	}
	// Two processes may come here at once; one of them makes it.
	if err := store.Init(ctx, dir, store.InitOptions{}); err != nil && !store.Exists(dir) {
		return "", err
	}
	vkey, err := store.VerifierKeyOf(dir)
	if err != nil {
		return "", err
	}
	a.note("made a store in %s\nits log's public key, which verifiers need: %s", dir, vkey)
	return dir, nil
}

// tempDir is where large directories are sorted that have no store to be sorted in.
// /tmp is often memory, and memory is what is to be saved.
func tempDir() string {
	if os.Getenv("TMPDIR") == "" && unix.Access("/var/tmp", unix.W_OK|unix.X_OK) == nil {
		return "/var/tmp"
	}
	return os.TempDir()
}

// sorting bounds the memory for large directories outside of a store.
func sorting() extsort.Options { return extsort.Options{Scratch: fstree.Scratch(tempDir())} }
