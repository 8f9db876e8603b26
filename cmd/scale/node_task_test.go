package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The tests below run the example of a task node in JavaScript, which knows of SCALE only
// its .proto files and specifications.

const jsDir = "../../grpcapi/examples/node-task"

// needNPM installs the packages of the example, unless they are there.
func needNPM(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(jsDir, "node_modules", "@grpc", "grpc-js")); err == nil {
		return
	}
	if out, err := exec.Command("npm", "ci", "--prefix", jsDir, "--ignore-scripts", "--no-audit", "--no-fund").CombinedOutput(); err != nil {
		t.Fatalf("the packages of the example are not there, run make deps: %v\n%s", err, out)
	}
}

// TestJSVectors runs the example's own tests: its verifier against the vectors.
func TestJSVectors(t *testing.T) {
	needNPM(t)
	cmd := exec.Command("node", "--test")
	cmd.Dir = jsDir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A jsCaller runs the scripts against a node.
type jsCaller struct {
	node, token, vkey string
	ca, cert, key     string // paths, where the node wants TLS
}

func (p *nodeProcess) js(t *testing.T) jsCaller {
	t.Helper()
	needNPM(t)
	vkey := stringField(t, scale(t, "key", "show", "--json", "--store", p.dir), "vkey")
	return jsCaller{node: p.grpc, token: p.write, vkey: vkey}
}

// run runs a script and returns what it prints, and the exit code.
func (c jsCaller) run(t *testing.T, script string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{filepath.Join(jsDir, script), "--key", c.vkey}, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "SCALE_NODE=" + c.node, "SCALE_TOKEN=" + c.token,
		"SCALE_NODE_CA=" + c.ca, "SCALE_NODE_CERT=" + c.cert, "SCALE_NODE_KEY=" + c.key,
		"http_proxy=http://127.0.0.1:1", // not to be asked for a node on this machine
	}
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), diag.String(), cmd.ProcessState.ExitCode()
}

// task returns the submission that the task node prints.
func (c jsCaller) task(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := c.run(t, "task.js", args...)
	if code != 0 {
		t.Fatalf("task %q ended with exit code %d: %s", args, code, stderr)
	}
	line := strings.TrimSuffix(stdout, "\n")
	if len(line) > 512 || !strings.HasPrefix(line, "scale-audit-1 ") || strings.Contains(line, "\n") {
		t.Errorf("task %q printed %q, which is no submission", args, stdout)
	}
	return line
}

// holds fails unless the auditor accepts a submission.
func (c jsCaller) holds(t *testing.T, line string) {
	t.Helper()
	if stdout, stderr, code := c.run(t, "auditor.js", line); code != 0 || !strings.Contains(stdout, "the submission holds") {
		t.Errorf("the auditor ended with exit code %d: %s%s", code, stdout, stderr)
	}
}

// refused fails unless a script ends with exit code 1, says why, and prints nothing else.
func (c jsCaller) refused(t *testing.T, what, why, script string, args ...string) {
	t.Helper()
	stdout, stderr, code := c.run(t, script, args...)
	if code != 1 || stdout != "" || !strings.Contains(stderr, why) {
		t.Errorf("%s: exit code %d, %q, %q; expected 1 and %q", what, code, stdout, stderr, why)
	}
}

// jsFile writes a file of some chunks.
func jsFile(t *testing.T, seed byte, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, randomBytes(seed, n), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestJSTask(t *testing.T) {
	noLeaks(t)
	tree, file := filepath.Join(t.TempDir(), "tree"), jsFile(t, 1, 2<<20)
	strangeTree(t, tree)
	// A script that stops in the middle of an answer must not wait for the node to end it.
	p := startNode(t, newNodeStore(t), "--idle-timeout", "1h")
	js := p.js(t)

	ofTree := js.task(t, "tree", tree)
	ofFile := js.task(t, "file", file, "--samples", "7")
	js.holds(t, ofTree)
	js.holds(t, ofFile)
	// The same data, and the same dataset by its name alone, challenged anew.
	for _, args := range [][]string{{"tree", tree}, {"tree"}} {
		again := js.task(t, args...)
		if again == ofTree {
			t.Error("two challenges with fresh seeds are alike")
		}
		js.holds(t, again)
	}
	seed := strings.Repeat("5e", 32)
	if a, b := js.task(t, "tree", "--seed", seed), js.task(t, "tree", "--seed", seed); a != b || !strings.Contains(a, seed) {
		t.Errorf("with one seed:\n%s\n%s", a, b)
	}
	local := newNodeStore(t).dir
	// What it put is what "scale put" makes of the same files.
	for name, path := range map[string]string{"tree": tree, "file": file} {
		if want, got := scale(t, "put", "--json", "--store", local, path), scale(t, "stat", "--json", "--store", p.dir, name); stringField(t, got, "cid") != stringField(t, want, "cid") {
			t.Errorf("%s: %s\nscale put: %s", name, got, want)
		}
	}

	for i, field := range []string{"checkpoint", "size", "seed", "index", "count", "response"} {
		js.refused(t, "another "+field, "", "auditor.js", otherDigit(ofFile, i+1))
	}
	js.refused(t, "submission of another dataset", "its response is not", "auditor.js", otherEntry(t, ofFile, ofTree))
	js.refused(t, "no submission", "not a submission", "auditor.js", "nothing")

	wrong := js
	wrong.vkey = stringField(t, scale(t, "key", "show", "--json", "--store", local), "vkey")
	wrong.refused(t, "another log's key, task", "trusted is node.example", "task.js", "tree")
	wrong.refused(t, "another log's key, auditor", "trusted is node.example", "auditor.js", ofTree)
	js.refused(t, "another curator trusted", "not one of those you trust", "auditor.js", ofTree, "--curator", strings.Repeat("1", 32))
	js.refused(t, "too many samples", "1025 samples", "task.js", "file", file, "--samples", "1025")
	js.refused(t, "no such file", "ENOENT", "task.js", "file", filepath.Join(tree, "not"))
	js.refused(t, "no such name", "NOT_FOUND", "task.js", "nothing")

	for _, args := range [][]string{{}, {"file", file, "too many"}, {"file", "--samples", "x"}, {"file", "--seed", "5"}, {"file", "--unknown"}} {
		if _, stderr, code := js.run(t, "task.js", args...); code != 2 || !strings.Contains(stderr, "usage: ") {
			t.Errorf("task %q ended with exit code %d: %s", args, code, stderr)
		}
	}

	wrong = js
	wrong.token = p.read
	wrong.refused(t, "token that may not write", "PERMISSION_DENIED", "task.js", "tree", tree)
	wrong.holds(t, ofTree)
	p.stop(t)
	js.refused(t, "no node", "UNAVAILABLE", "auditor.js", ofTree)
}

// otherDigit changes the last digit of a field.
func otherDigit(line string, field int) string {
	f := strings.Fields(line)
	last := len(f[field]) - 1
	digit := "1"
	if f[field][last] == '1' {
		digit = "2"
	}
	f[field] = f[field][:last] + digit
	return strings.Join(f, " ")
}

// otherEntry makes a submission tell the seed, count and response of one of another entry.
func otherEntry(t *testing.T, line, other string) string {
	t.Helper()
	f, from := strings.Fields(line), strings.Fields(other)
	if len(f) != 7 || len(from) != 7 || f[4] == from[4] {
		t.Fatalf("unexpected submissions %q and %q", line, other)
	}
	f[3], f[5], f[6] = from[3], from[5], from[6]
	return strings.Join(f, " ")
}

// A node that has not the bytes any more fails, though its index and all digests are whole.
func TestJSNodeWithoutData(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	// So small, and asked for so much of it, that every chunk is drawn.
	line := p.js(t).task(t, "file", jsFile(t, 1, 1<<20), "--samples", "1000")
	p.stop(t)
	packs, err := filepath.Glob(filepath.Join(p.dir, "packs", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("packs: %q, %v", packs, err)
	}
	for how, damage := range map[string]func(t *testing.T, pack string) error{
		"one byte of a pack flipped": func(t *testing.T, pack string) error {
			flip(t, pack, contentSize(t, pack)/2)
			return nil
		},
		"packs emptied": func(_ *testing.T, pack string) error { return os.Truncate(pack, 0) },
		"packs removed": func(_ *testing.T, pack string) error { return os.Remove(pack) },
	} {
		t.Run(how, func(t *testing.T) {
			s := &nodeStore{dir: copyStore(t, p.dir), write: p.write}
			for _, pack := range packs {
				if err := damage(t, filepath.Join(s.dir, "packs", filepath.Base(pack))); err != nil {
					t.Fatal(err)
				}
			}
			js := startNode(t, s).js(t)
			js.refused(t, "the task", "DATA_LOSS", "task.js", "file", "--samples", "1000")
			js.refused(t, "the audit", "DATA_LOSS", "auditor.js", line)
		})
	}
}

// The scripts go over TLS with the authorities that they are given, and with no others.
func TestJSTLS(t *testing.T) {
	noLeaks(t)
	own, other := newCertifier(t), newCertifier(t)
	dir := t.TempDir()
	cert := own.issue(t)
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	crt := writePEM(t, filepath.Join(dir, "crt"), "CERTIFICATE", cert.Certificate[0])
	key := writePEM(t, filepath.Join(dir, "key"), "PRIVATE KEY", der)
	ca := writePEM(t, filepath.Join(dir, "ca"), "CERTIFICATE", own.cert.Raw)
	p := startNode(t, newNodeStore(t), "--tls-cert", crt, "--tls-key", key, "--client-ca", ca)

	js := p.js(t)
	js.ca, js.cert, js.key = ca, crt, key
	js.holds(t, js.task(t, "file", jsFile(t, 1, 1<<17)))
	wrong := js
	wrong.ca = writePEM(t, filepath.Join(dir, "other"), "CERTIFICATE", other.cert.Raw)
	wrong.refused(t, "the node's authority unknown", "UNAVAILABLE", "task.js", "file")
	wrong = js
	wrong.cert, wrong.key = "", ""
	wrong.refused(t, "no certificate of its own", "UNAVAILABLE", "task.js", "file")
}
