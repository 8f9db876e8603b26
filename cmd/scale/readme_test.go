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
	// The node that it starts ends with it, however that is.
	lines := append([]string{"trap 'jobs -p | xargs -r kill' EXIT"}, fenced(t, "sh")...)
	cmd := exec.Command("bash", "-euxo", "pipefail", "-c", strings.Join(lines, "\n"))
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GORACE=" + os.Getenv("GORACE")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"not really a photo", `"version":2`, "photos@1", "2025/a.jpg\nnumbers.txt\n", "verified     the whole dataset",
		"covers bytes", "changed  2025/a.jpg", "photos.example.org\n3\n",
		"holds: 50 samples", "the submission holds", "auditor  read", "mine@2  :5  removed", "the store's own",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

// TestReadmeOtherLanguages runs the README's lines for grpcurl and curl on a node, which
// listens elsewhere than at the addresses that they name.
func TestReadmeOtherLanguages(t *testing.T) {
	noLeaks(t)
	tool := exec.Command("go", "tool", "-modfile=.ci/tools.mod", "-n", "grpcurl")
	tool.Dir = filepath.Join("..", "..")
	grpcurl, err := tool.Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(strings.TrimSpace(string(grpcurl)), filepath.Join(dir, "grpcurl")); err != nil {
		t.Fatal(err)
	}
	p := startNode(t, newNodeStore(t))
	lines := strings.NewReplacer("127.0.0.1:7070", p.grpc, "127.0.0.1:7071", p.http).Replace(strings.Join(fenced(t, "bash"), "\n"))
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", lines)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "SCALE_STORE=" + p.dir, "GORACE=" + os.Getenv("GORACE")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"rpc Put ( stream .scale.v1.PutRequest )", // described
		`"name": "greeting"`, `"size": "13"`,      // put and stat over gRPC
		`"name":"farewell"`, `"size":"8"`, // over HTTP
		`"data":"d29ybGQK"`, // the range: "world"
		`"draw":2`,          // the challenge
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
