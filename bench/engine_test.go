package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koii-network/scale/store"
)

// job runs one of the engine's jobs in this process.
func runJob(t *testing.T, req jobRequest, out any) error {
	t.Helper()
	arg, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := engineJob(t.Context(), string(arg), &said); err != nil {
		return err
	}
	return json.Unmarshal(said.Bytes(), out)
}

func TestEngineJobs(t *testing.T) {
	dir := t.TempDir()
	w := struct{ file, tree, store string }{filepath.Join(dir, "file"), filepath.Join(dir, "tree"), filepath.Join(dir, "store")}
	data := make([]byte, 2<<20)
	if _, err := io.ReadFull(&text{files: sources(t), seed: 1}, data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := smallFiles(w.tree, &text{files: sources(t), seed: 3}, 3, 20); err != nil {
		t.Fatal(err)
	}
	s, err := newStore(t.Context(), w.store)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(t.Context(), []store.Input{{Name: "file", Path: w.file}, {Name: "tree", Path: w.tree}}, store.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	var ranges rangesResult
	if err := runJob(t, jobRequest{Kind: "ranges", Store: w.store, Ref: "file", File: w.file, Count: 50, Cache: 1 << 30}, &ranges); err != nil {
		t.Fatal(err)
	}
	// The one frame is read twice at most: to the end of a range, and then to its own.
	if ranges.Count != 50 || ranges.Hits < 0.9 || ranges.Frames <= 0 || ranges.Frames > 0.1 || ranges.Took.P50 <= 0 || ranges.Peak <= 0 {
		t.Errorf("%+v", ranges)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, bytes.Repeat([]byte{1}, len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	err = runJob(t, jobRequest{Kind: "ranges", Store: w.store, Ref: "file", File: other, Count: 5}, &ranges)
	if err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("ranges of another file: %v", err)
	}

	for ref, kinds := range map[string]int{"file": 2, "tree": 1} {
		var proofs []provenResult
		if err := runJob(t, jobRequest{Kind: "proofs", Store: w.store, Ref: ref, File: filepath.Join(dir, ref), Count: 5}, &proofs); err != nil {
			t.Fatal(err)
		}
		if len(proofs) != kinds {
			t.Errorf("%s: %d kinds of proofs, want %d", ref, len(proofs), kinds)
		}
		for _, p := range proofs {
			if p.Entries != 3 || p.Bytes < 500 || p.Most < p.Bytes || p.Prove.P50 <= 0 || p.Verify.P50 <= 0 || (p.Check != nil) != strings.HasPrefix(p.What, "64 KiB") {
				t.Errorf("%+v", p)
			}
		}
	}

	var had, has opened
	if err := runJob(t, jobRequest{Kind: "open", Store: w.store}, &had); err != nil {
		t.Fatal(err)
	}
	if err := runJob(t, jobRequest{Kind: "fill", Store: w.store, Count: 300}, &has); err != nil {
		t.Fatal(err)
	}
	if err := runJob(t, jobRequest{Kind: "open", Store: w.store}, &has); err != nil {
		t.Fatal(err)
	}
	if has.Blocks != had.Blocks+300 || has.Seconds <= 0 || has.Peak <= 0 {
		t.Errorf("%+v, before it was filled %+v", has, had)
	}
	if err := runJob(t, jobRequest{Kind: "nothing"}, &has); err == nil {
		t.Error("a job that there is not was done")
	}
}
