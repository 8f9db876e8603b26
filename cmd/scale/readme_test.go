package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fenced returns the fenced blocks of the README in a language.
func fenced(t *testing.T, language string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for i, part := range strings.Split(string(b), "\n```") {
		if i%2 == 1 {
			if text, ok := strings.CutPrefix(part, language+"\n"); ok {
				blocks = append(blocks, text)
			}
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("the README has no block of %s", language)
	}
	return blocks
}

// TestReadmeCommands runs the README's tour in an empty directory.
func TestReadmeCommands(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("bash", "-euxo", "pipefail", "-c", strings.Join(fenced(t, "sh"), "\n"))
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"not really a photo", `"version":2`, "photos@1", "2025/a.jpg\nnumbers.txt\n", "verified     the whole dataset",
		"covers bytes", "changed  2025/a.jpg", "photos.example.org\n3\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

// TestReadmeProgram runs the README's example of embedding. An overlay makes it a
// package of this module without a file in it.
func TestReadmeProgram(t *testing.T) {
	dir := t.TempDir()
	src, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(root, "cmd", "scale", "testdata", "embed", "main.go"): src},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{src: []byte(fenced(t, "go")[0]), overlay: replace} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "-overlay", overlay, "./testdata/embed", filepath.Join(dir, "store"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "\nhello, world\n"; !strings.HasSuffix(string(out), want) {
		t.Errorf("printed %q, want it to end with %q", out, want)
	}
}
