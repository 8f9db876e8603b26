package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

// restoredStore makes a store of the ledger of another one, without its blocks.
func restoredStore(t *testing.T, from, dir string) {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, from, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var blocks [][]byte
	for e, err := range s.Entries(ctx, 0, s.Published().Size) {
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, e.Block)
	}
	size, note, err := s.CheckpointAt(ctx, int64(len(blocks)))
	if err != nil || size != int64(len(blocks)) {
		t.Fatalf("checkpoint of %d entries: %d, %v", len(blocks), size, err)
	}
	r, err := store.NewRestore(ctx, dir, s.VerifierKey(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Abort()
	step := store.RestoreStep{BaseRoot: ledger.EmptyRoot(), Checkpoint: note, Records: func(entry func([]byte) error, _ func(store.RestoredAnchor) error) error {
		for _, b := range blocks {
			if err := entry(b); err != nil {
				return err
			}
		}
		return nil
	}}
	if err := r.Add(ctx, step); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestHealThreeWays gives its blocks back to a restored ledger, in each of the three ways to a
// copy of it. Nothing is appended, and with a scope less nothing is done.
func TestHealThreeWays(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	strangeTree(t, at("tree"))
	for name, b := range map[string][]byte{"big": noise(2 << 20), "text": bytes.Repeat([]byte("compressible\n"), 50_000), "empty": nil, "other": []byte("other")} {
		if err := os.WriteFile(at(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	source := at("source")
	scale(t, "init", "--store", source, "--origin", "heal.example")
	scale(t, "put", at("tree"), at("big"), at("empty"), "--store", source)
	scale(t, "put", at("text"), "--name", "named", "--store", source)
	scale(t, "put", at("text"), "--name", "again", "--mtime", "--profile", "scale-fixed-1", "--store", source)
	var all []way
	var nodes []*nodeProcess
	for i, name := range []string{"owner", "socket", "node"} {
		restoredStore(t, source, at(name))
		if i == 0 {
			all = append(all, way{name, []string{"--store", at(name)}})
			continue
		}
		p := startNode(t, &nodeStore{dir: at(name)})
		nodes = append(nodes, p)
		all = append(all, p.ways(t)[i-1])
	}
	read := filepath.Join(top, "read.token")
	if err := os.WriteFile(read, []byte(nodes[1].token(t, "reader", "--scope", "read")), 0o600); err != nil {
		t.Fatal(err)
	}
	before := scale(t, "log", "--store", source)
	in := strings.NewReplacer("TREE", at("tree"), "BIG", at("big"), "TEXT", at("text"), "EMPTY", at("empty"), "OTHER", at("other"))
	for _, line := range []string{
		"get big",
		"get tree -o OUTtree",
		"get tree --tar",
		"get tree/x",
		"ls",
		"ls --json",
		"ls tree",
		"ls big --json",
		"stat big",
		"stat tree --json",
		"history big --json",
		"export big -o OUTcar",
		"prove big",
		"prove big --range 0:1",
		"prove tree --manifest",
		"audit big",
		"put --heal OTHER",
		"put --heal OTHER --json",
		"put BIG",
		"put --heal BIG --parent big",
		"put --heal BIG --name tree",
		"get big",
		"put --heal BIG",
		"put --heal BIG --json",
		"get big",
		"put --heal TREE EMPTY TEXT --json",
		"put --heal TEXT --name again",
		"put --heal TEXT --name again --mtime --profile scale-fixed-1 --json",
		"put --heal BIG missing",
		"get tree -o OUTtree",
		"get named",
		"get again",
		"log",
		"check --read-data",
	} {
		same(t, in.Replace(line), all, always)
	}
	for _, w := range all {
		if got, stderr := w.run(t, "log"); got.stdout != before {
			t.Errorf("the log that %s has is another one: %s%s", w.name, got.stdout, stderr)
		}
		if got, stderr := w.run(t, "get big"); got.stdout != string(noise(2<<20)) {
			t.Errorf("%s did not get its blocks: %s", w.name, stderr)
		}
	}
	reader := way{"reader", []string{"--node", nodes[1].grpc, "--token-file", read}}
	if got, stderr := reader.run(t, in.Replace("put --heal BIG")); got.code != exitFailed || !strings.Contains(stderr, "scope") {
		t.Errorf("with a token for reading: exit code %d, %s", got.code, stderr)
	}
	for _, p := range nodes {
		p.sound(t)
	}
}
