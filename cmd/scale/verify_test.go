package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

// A fixture is a store with datasets in it, and what a verifier has.
type fixture struct {
	dir   string
	store *store.Store
	vkey  string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	dir := filepath.Join(f.dir, "store")
	if err := store.Init(t.Context(), dir, store.InitOptions{Origin: "log.example"}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.store, f.vkey = s, s.VerifierKey()
	t.Cleanup(func() { f.close(t) })
	return f
}

func (f *fixture) close(t *testing.T) {
	t.Helper()
	if f.store == nil {
		return
	}
	if err := f.store.Close(); err != nil {
		t.Error(err)
	}
	f.store = nil
}

// put stores a file and returns its path.
func (f *fixture) put(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Put(t.Context(), []store.Input{{Name: name, Path: path}}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return path
}

// prove returns the proof of a dataset, of its manifest, or of a range, and the bytes
// that it covers.
func (f *fixture) prove(t *testing.T, name string, o store.ProveOptions) (proofBytes, data []byte) {
	t.Helper()
	obj, err := f.store.Resolve(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.store.Prove(t.Context(), obj, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Format()
	if err != nil {
		t.Fatal(err)
	}
	var r *store.Range
	if p.Range != nil {
		r = &store.Range{From: p.Range.Offset, To: p.Range.Offset + p.Range.Size()}
	}
	var buf bytes.Buffer
	if _, err := f.store.Get(t.Context(), obj, r, &buf); err != nil {
		t.Fatal(err)
	}
	return b, buf.Bytes()
}

// verify runs the verb in this process and returns its exit code.
func (f *fixture) verify(t *testing.T, proofBytes, data []byte) int {
	t.Helper()
	p, d := filepath.Join(f.dir, "proof"), filepath.Join(f.dir, "data")
	for path, b := range map[string][]byte{p: proofBytes, d: data} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stdout, _, code := runVerb(t, "verify", p, d, "--key", f.vkey)
	switch {
	case code != 0 && stdout != "":
		t.Errorf("refused, but wrote to standard output: %s", stdout)
	case code == 0 && !strings.Contains(stdout, "verified"):
		t.Errorf("accepted without a word: %s", stdout)
	}
	return code
}

// runVerb runs a command line in this process.
func runVerb(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp()
	a.stdout.Reset(&out)
	a.stderr, a.meter = &errs, nil
	err := a.run(t.Context(), args)
	if err != nil {
		a.report(err, exitCode(err))
	}
	return out.String(), errs.String(), exitCode(err)
}

// TestVerifyRefusesEveryChange changes, drops and adds bytes of proofs of every kind.
func TestVerifyRefusesEveryChange(t *testing.T) {
	f := newFixture(t)
	f.put(t, "small", []byte("small"))
	f.put(t, "big", noise(300<<10))
	for i := range 3 { // so that there are paths to the root
		f.put(t, fmt.Sprint("other", i), []byte{byte(i)})
	}
	bits := []byte{1, 0x20, 0x80}
	if testing.Short() {
		bits = bits[:1]
	}
	for _, c := range []struct {
		name string
		of   string
		o    store.ProveOptions
	}{
		{"dataset", "small", store.ProveOptions{}},
		{"manifest", "small", store.ProveOptions{Manifest: true}},
		{"range", "big", store.ProveOptions{Range: &store.Range{From: 100 << 10, To: 110 << 10}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			good, data := f.prove(t, c.of, c.o)
			if code := f.verify(t, good, data); code != 0 {
				t.Fatalf("the proof itself: exit code %d", code)
			}
			refuse := func(what string, b []byte) {
				t.Helper()
				if code := f.verify(t, b, data); code != exitRefused {
					t.Errorf("%s: exit code %d, want %d", what, code, exitRefused)
				}
			}
			for i := range good {
				for _, bit := range bits {
					b := bytes.Clone(good)
					b[i] ^= bit
					refuse(fmt.Sprintf("byte %d of %d changed by %#x", i, len(good), bit), b)
				}
				refuse(fmt.Sprintf("cut to %d of %d bytes", i, len(good)), good[:i])
			}
			for _, more := range []string{"\n", " ", "x", "\x00", "\n\n", string(good)} {
				refuse(fmt.Sprintf("with %d bytes appended", len(more)), append(bytes.Clone(good), more...))
			}
			refuse("with CRLF", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")))
			for i, line := range bytes.Split(good, []byte("\n")) {
				if sloppy, ok := sloppyBase64(line); ok {
					refuse(fmt.Sprintf("line %d in other base64", i), bytes.Replace(good, line, sloppy, 1))
				}
			}
			for i := range data[:min(len(data), 64)] {
				b := bytes.Clone(data)
				b[i] ^= 1
				if code := f.verify(t, good, b); code != exitRefused {
					t.Errorf("data, byte %d changed: exit code %d", i, code)
				}
			}
		})
	}
}

// sloppyBase64 returns another encoding of the same bytes of a line that ends in
// base64 with padding.
func sloppyBase64(line []byte) ([]byte, bool) {
	i := bytes.LastIndexByte(line, ' ') + 1
	text := line[i:]
	n := bytes.IndexByte(text, '=')
	if n < 0 {
		return nil, false
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	sloppy := bytes.Clone(line)
	last := strings.IndexByte(alphabet, text[n-1])
	sloppy[i+n-1] = alphabet[last^1]
	a, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return nil, false
	}
	b, err := base64.StdEncoding.DecodeString(string(sloppy[i:]))
	return sloppy, err == nil && bytes.Equal(a, b)
}

// TestVerifyRefusesOtherData takes proofs to data of another dataset or range.
func TestVerifyRefusesOtherData(t *testing.T) {
	f := newFixture(t)
	f.put(t, "a", noise(300<<10))
	f.put(t, "b", noise(301 << 10)[1<<10:]) // the same bytes elsewhere in the file
	type part struct{ proof, data []byte }
	parts := map[string]part{}
	for _, name := range []string{"a", "b"} {
		p, d := f.prove(t, name, store.ProveOptions{})
		parts[name] = part{p, d}
		for _, from := range []uint64{0, 150 << 10} {
			p, d := f.prove(t, name, store.ProveOptions{Range: &store.Range{From: from, To: from + 1}})
			parts[fmt.Sprint(name, from)] = part{p, d}
		}
	}
	for name, p := range parts {
		for other, d := range parts {
			want := exitRefused
			// A range is proven by the whole of its file too, and by the same bytes
			// wherever they come from.
			if other == name[:1] || bytes.Equal(p.data, d.data) {
				want = 0
			}
			if code := f.verify(t, p.proof, d.data); code != want {
				t.Errorf("proof of %s with data of %s: exit code %d, want %d", name, other, code, want)
			}
		}
	}
}

// TestVerifyIgnoresKeyInProof gives a proof of one log the name of another.
func TestVerifyIgnoresKeyInProof(t *testing.T) {
	f, g := newFixture(t), newFixture(t)
	data := []byte("data")
	f.put(t, "x", data)
	g.put(t, "x", data)
	p, _ := g.prove(t, "x", store.ProveOptions{})
	if code := f.verify(t, p, data); code != exitRefused {
		t.Errorf("a proof of another log of the same name: exit code %d", code)
	}
	own, _ := f.prove(t, "x", store.ProveOptions{})
	a, err := proof.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proof.Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	a.EntryBlock = b.EntryBlock
	mixed, err := a.Format()
	if err != nil {
		t.Fatal(err)
	}
	if code := f.verify(t, mixed, data); code != exitRefused {
		t.Errorf("an entry of another log: exit code %d", code)
	}
}
