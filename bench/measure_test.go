package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSame(t *testing.T) {
	tree := func(files map[string]string) string {
		dir := t.TempDir()
		for name, data := range files {
			name = filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	long := strings.Repeat("x", 1<<17)
	want := tree(map[string]string{"a": long, "d/b": "b"})
	for name, c := range map[string]struct {
		files map[string]string
		same  bool
	}{
		"equal":     {map[string]string{"a": long, "d/b": "b"}, true},
		"missing":   {map[string]string{"a": long}, false},
		"extra":     {map[string]string{"a": long, "d/b": "b", "d/c": ""}, false},
		"renamed":   {map[string]string{"a": long, "d/c": "b"}, false},
		"changed":   {map[string]string{"a": long[1:] + "y", "d/b": "b"}, false},
		"cut short": {map[string]string{"a": long[:1<<16], "d/b": "b"}, false},
		"longer":    {map[string]string{"a": long + "x", "d/b": "b"}, false},
	} {
		if err := same(want, tree(c.files)); (err == nil) != c.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// copies is a tool that keeps its input as it is.
var copies = tool{
	name:    "scale",
	prepare: func(store string) command { return command{args: []string{"mkdir", store}} },
	put:     func(store, input string) command { return command{args: []string{"cp", input, store + "/copy"}} },
	get: func(store, input, out string, tree bool) command {
		return command{args: []string{"cat", store + "/copy"}}
	},
	check: func(store string) command { return command{args: []string{"true"}} },
}

func TestTry(t *testing.T) {
	dir := t.TempDir()
	w := workload{name: "w", path: filepath.Join(dir, "data")}
	if err := os.WriteFile(w.path, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(dir, "scratch")
	got, err := try(t.Context(), copies, w, scratch, true)
	if err != nil {
		t.Fatal(err)
	}
	if got.Stored < 1<<20 || got.Stored > 1<<20+64<<10 {
		t.Errorf("%d bytes stored for a MiB", got.Stored)
	}
	if got.Put.Wall <= 0 || got.Put.Peak <= 0 {
		t.Errorf("nothing was measured: %+v", got.Put)
	}
	if _, err := os.Stat(scratch); !os.IsNotExist(err) {
		t.Errorf("the scratch directory is left: %v", err)
	}

	lossy := copies
	lossy.get = func(store, _, _ string, _ bool) command {
		return command{args: []string{"head", "-c", "1000", store + "/copy"}}
	}
	if _, err := try(t.Context(), lossy, w, scratch, true); err == nil {
		t.Error("a tool that loses bytes passed")
	}
	unsound := copies
	unsound.check = func(string) command { return shell("echo broken >&2; exit 4") }
	if _, err := try(t.Context(), unsound, w, scratch, true); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a store that does not check: %v", err)
	}
}

func TestVersionsMissing(t *testing.T) {
	if _, err := versions([]tool{{name: "peer", version: command{args: []string{"/nonexistent/peer"}}}}); err == nil || !strings.Contains(err.Error(), "peer: MISSING") {
		t.Errorf("a missing peer: %v", err)
	}
}

func TestMedian(t *testing.T) {
	got := median([]trial{
		{Put: sample{Wall: 3, CPU: 1, Peak: 5}, Stored: 7},
		{Put: sample{Wall: 1, CPU: 2, Peak: 6}, Stored: 9},
		{Put: sample{Wall: 2, CPU: 9, Peak: 4}, Stored: 8},
	})
	if want := (trial{Put: sample{Wall: 2, CPU: 2, Peak: 5}, Stored: 8}); got != want {
		t.Errorf("median = %+v, want %+v", got, want)
	}
}

func TestVerdict(t *testing.T) {
	good := trial{Put: sample{Wall: 1, Peak: 100 << 20}, Get: sample{Wall: 1, Peak: 100 << 20}, Stored: 100}
	peer := trial{Put: sample{Wall: 2}, Stored: 200}
	for name, c := range map[string]struct {
		workload string
		change   func(*trial)
		met      bool
	}{
		"good":                 {"w", func(*trial) {}, true},
		"slower":               {"w", func(t *trial) { t.Put.Wall = 3 }, false},
		"larger":               {"w", func(t *trial) { t.Stored = 201 }, false},
		"too much memory":      {"w", func(t *trial) { t.Get.Peak = 401 << 20 }, false},
		"incompressible":       {"random", func(t *trial) { t.Stored = 1010 }, true},
		"incompressible, more": {"random", func(t *trial) { t.Stored = 1011 }, false},
	} {
		own := good
		c.change(&own)
		r := report{Results: []result{
			{Workload: c.workload, Tool: "scale", Size: 1000, Median: own},
			{Workload: c.workload, Tool: "restic", Size: 1000, Median: peer},
		}}
		if err := r.verdict(io.Discard); (err == nil) != c.met {
			t.Errorf("%s: %v", name, err)
		}
	}
}
