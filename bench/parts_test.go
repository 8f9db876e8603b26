package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParts(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 9<<20) // more than two frames, in more than one read
	chacha(1).Read(large)
	for name, content := range map[string][]byte{"a/empty": nil, "a/b/one": []byte("one"), "a.b": []byte("two"), "z": large} {
		if err := os.WriteFile(filepath.Join(tree, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		input string
		size  int64
	}{{tree, 9<<20 + 6}, {filepath.Join(tree, "z"), 9 << 20}, {filepath.Join(tree, "a.b"), 3}} {
		scratch := filepath.Join(dir, "scratch")
		r, err := measureParts(t.Context(), "some", c.input, scratch)
		if err != nil {
			t.Fatal(err)
		}
		r.PutWall, r.PutCPU = 3, 5
		if r.Size != c.size || r.Chunks < 1 || len(r.Parts) != len(putParts) {
			t.Errorf("%s: %+v, want %d bytes", c.input, r, c.size)
		}
		sum, most := 0.0, partResult{}
		for i, p := range r.Parts {
			if sum += p.CPU; p.CPU > most.CPU {
				most = p
			}
			if p.Part != putParts[i] || p.Wall <= 0 {
				t.Errorf("%s: part %d is %+v", c.input, i, p)
			}
		}
		if math.Abs(sum-r.CPU) > 1e-9 || r.Ideal != r.CPU/2 || r.Bottleneck != most.Part {
			t.Errorf("%s: %+v, the sum is %v and the most %v", c.input, r, sum, most)
		}
		var out strings.Builder
		r.print(&out)
		for _, part := range append(putParts, "the put took 3.00 s") {
			if !strings.Contains(out.String(), part) {
				t.Errorf("no %q in\n%s", part, out.String())
			}
		}
		if _, err := os.Stat(scratch); !os.IsNotExist(err) {
			t.Errorf("the scratch directory is left: %v", err)
		}
	}
	if _, err := measureParts(t.Context(), "none", filepath.Join(dir, "none"), filepath.Join(dir, "scratch")); err == nil {
		t.Error("a workload that is not there has parts")
	}
}
