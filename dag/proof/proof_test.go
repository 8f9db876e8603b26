package proof_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"

	"filippo.io/torchwood"
	"github.com/google/go-cmp/cmp"
	fproof "github.com/transparency-dev/formats/proof"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

func refused(err error) bool {
	return errors.Is(err, proof.ErrRefused) || errors.Is(err, proof.ErrFormat)
}

// parseVerify is what a verifier does with a file, up to the data.
func parseVerify(b []byte, t proof.Trust) (*proof.Verified, error) {
	p, err := proof.Parse(b)
	if err != nil {
		return nil, err
	}
	return p.Verify(t)
}

func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.proofs() {
		b := format(t, p)
		got, err := proof.Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if _, err := got.Verify(w.trust()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Any tool for tlog proofs reads ours and checks their log part.
func TestOtherTools(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.proofs() {
		b := format(t, p)
		var other fproof.TLogProof
		if err := other.Unmarshal(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(other.Marshal(), b) {
			t.Errorf("%s: transparency-dev writes other bytes", name)
		}
		extra, err := torchwood.ProofExtraData(b)
		if err != nil || !bytes.Equal(torchwood.FormatProofWithExtraData(p.Index, extra, p.Inclusion, p.Checkpoint), b) {
			t.Errorf("%s: torchwood writes other bytes, %v", name, err)
		}
		if err := torchwood.VerifyProof(w.trust().Policy, ledger.LeafHash(p.EntryBlock), b); err != nil {
			t.Errorf("%s: torchwood: %v", name, err)
		}
	}
}

func TestEveryByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	trust := w.trust()
	for name, p := range w.proofs() {
		good := format(t, p)
		try := func(what string, b []byte) {
			t.Helper()
			if v, err := parseVerify(b, trust); !refused(err) {
				t.Errorf("%s, %s: %v, %v", name, what, v, err)
			}
		}
		b := bytes.Clone(good)
		for i, old := range good {
			values := []byte{0, '\n', ' ', '=', '0', 'A', old + 1, old - 1}
			for bit := range 8 {
				values = append(values, old^1<<bit)
			}
			for _, c := range values {
				if c != old {
					b[i] = c
					try(fmt.Sprintf("byte %d set to %q", i, c), b)
				}
			}
			b[i] = old
		}
		for n := range good {
			try(fmt.Sprintf("cut to %d bytes", n), good[:n])
		}
		for _, more := range []string{"\x00", "\n", " ", "x", "\r\n", string(good)} {
			try("appended bytes", append(bytes.Clone(good), more...))
			try("prepended bytes", append([]byte(more), good...))
		}
		try("DOS line ends", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")))
		try("no padding", bytes.ReplaceAll(good, []byte("=\n"), []byte("\n")))
		try("URL alphabet", bytes.ReplaceAll(bytes.ReplaceAll(good, []byte("+"), []byte("-")), []byte("_"), []byte("-")))
		try("leading zero", bytes.Replace(good, []byte("\nindex "), []byte("\nindex 0"), 1))
		try("plus sign", bytes.Replace(good, []byte("\nindex "), []byte("\nindex +"), 1))
		try("line break in extra", bytes.Replace(good, []byte("extra "), []byte("extra c2Nh\n"), 1))
	}
}

// sealExtra replaces the extra data by body and a digest that holds.
func sealExtra(file, body []byte) []byte {
	lines := bytes.SplitN(file, []byte("\n"), 3)
	sum := sha256.Sum256(body)
	lines[1] = []byte("extra " + base64.StdEncoding.EncodeToString(append(bytes.Clone(body), sum[:]...)))
	return bytes.Join(lines, []byte("\n"))
}

// openExtra returns the extra data without its digest.
func openExtra(t testing.TB, file []byte) []byte {
	t.Helper()
	extra, err := torchwood.ProofExtraData(file)
	if err != nil {
		t.Fatal(err)
	}
	return extra[:len(extra)-sha256.Size]
}

// As TestEveryByte, but by one who writes the digest anew: only signatures and
// hashes are left to notice.
func TestEveryExtraByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	trust := w.trust()
	for name, p := range w.proofs() {
		good := format(t, p)
		body := openExtra(t, good)
		for i, old := range body {
			for _, c := range []byte{old ^ 1, old ^ 0x80, old + 1, old - 1, 0, 0xff} {
				if c == old {
					continue
				}
				body[i] = c
				v, err := parseVerify(sealExtra(good, body), trust)
				if err == nil && p.Range != nil {
					err = v.CheckRange(bytes.NewReader(w.rangeData(p))) // sizes and side hashes take part only here
				}
				if !refused(err) {
					t.Errorf("%s: byte %d of extra set to %#x: %v", name, i, c, err)
				}
			}
			body[i] = old
		}
	}
}

func TestParseRefuses(t *testing.T) {
	w := newWorld(t)
	ranged := w.proveRange(&w.tree, "dir/big", 5, 9)
	file, whole := openExtra(t, format(t, ranged)), openExtra(t, format(t, w.prove(1)))
	good := format(t, ranged)
	magic := "scale-proof/v1\n"
	entry := whole[len(magic):]
	rest := file[len(magic)+len(entry):]
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for what, body := range map[string][]byte{
		"nothing":               {},
		"no entry":              []byte(magic),
		"newer version":         cat([]byte("scale-proof/v2\n"), entry),
		"sections swapped":      cat([]byte(magic), rest, entry),
		"entry twice":           cat([]byte(magic), entry, entry, rest),
		"unknown section":       cat([]byte(magic), entry, []byte{5, 0}),
		"section 0":             cat([]byte(magic), []byte{0, 0}, entry),
		"long section":          cat([]byte(magic), entry, []byte{2, 9, 0}),
		"range without file":    cat([]byte(magic), entry, []byte{3, 6, 0, 0, 1, 1, 0, 0}),
		"number not shortest":   cat([]byte(magic), []byte{0x81, 0}, entry[1:], rest),
		"number of ten bytes":   cat([]byte(magic), bytes.Repeat([]byte{0xff}, 10), entry),
		"empty manifest":        cat([]byte(magic), entry, []byte{4, 1, 0}),
		"manifest and file":     cat([]byte(magic), entry, rest, []byte{4, 5, 1, 0, 1, '/', 3}),
		"long list":             cat([]byte(magic), entry, []byte{4, 6, 0xff, 0xff, 3, 0, 0, 3}),
		"bytes after the lists": cat([]byte(magic), entry, []byte{4, 6, 1, 0, 1, '/', 3, 0}),
		"bad leaf kind":         cat([]byte(magic), entry, []byte{4, 5, 1, 0, 1, 'a', 9}),
		"bad path":              cat([]byte(magic), entry, []byte{4, 7, 1, 0, 3, '.', '.', '/', 3}),
		"shares too much":       cat([]byte(magic), entry, []byte{4, 5, 1, 1, 1, '/', 3}),
		"shares too little":     cat([]byte(magic), entry, []byte{4, 11, 2, 0, 2, 'a', '/', 3, 0, 3, 'a', 'b', '/', 3}),
		"manifest not sorted":   cat([]byte(magic), entry, []byte{4, 9, 2, 0, 2, 'b', '/', 3, 0, 2, 'a', '/', 3}),
		"leaf twice":            cat([]byte(magic), entry, []byte{4, 8, 2, 0, 2, 'b', '/', 3, 2, 0, 3}),
	} {
		_, err := proof.Parse(sealExtra(good, body))
		wantErr(t, what, err, proof.ErrFormat)
	}
	for what, b := range map[string][]byte{
		"empty":          nil,
		"another text":   []byte("hello\n"),
		"no extra":       torchwood.FormatProof(1, ranged.Inclusion, ranged.Checkpoint),
		"other extra":    torchwood.FormatProofWithExtraData(1, []byte("age"), ranged.Inclusion, ranged.Checkpoint),
		"negative index": torchwood.FormatProofWithExtraData(-1, nil, ranged.Inclusion, ranged.Checkpoint),
	} {
		_, err := proof.Parse(b)
		wantErr(t, what, err, proof.ErrFormat)
	}
}

func TestFormatRefuses(t *testing.T) {
	w := newWorld(t)
	for what, edit := range map[string]func(*proof.Proof){
		"no entry":           func(p *proof.Proof) { p.EntryBlock = nil },
		"large entry":        func(p *proof.Proof) { p.EntryBlock = make([]byte, ledger.MaxEntry+1) },
		"negative index":     func(p *proof.Proof) { p.Index = -1 },
		"long path":          func(p *proof.Proof) { p.File.Path = make([]dag.Hash, 65) },
		"range without file": func(p *proof.Proof) { p.File, p.Range = nil, &proof.RangeProof{} },
		"manifest with file": func(p *proof.Proof) { p.Manifest = w.tree.leaves },
		"bad leaf":           func(p *proof.Proof) { p.File.Leaf.Path = ".." },
		"no checkpoint":      func(p *proof.Proof) { p.Checkpoint = nil },
	} {
		p := w.proveFile(&w.tree, "a.txt")
		edit(p)
		_, err := p.Format()
		wantErr(t, what, err, proof.ErrFormat)
	}
}

// A large manifest makes an extra line that bufio.Scanner's default would not take.
func TestLargeManifest(t *testing.T) {
	w := newWorld(t)
	d := dataset{chunks: map[string][][]byte{}}
	for i := range 5000 {
		d.add(dag.FileLeaf{Kind: dag.KindFile, Path: fmt.Sprintf("some/directory/%06d", i)}, fmt.Append(nil, i))
	}
	d.finish("large")
	w.put("large", &d)
	w.sign()
	p := w.proveManifest(&d)
	b := format(t, p)
	if v, err := parseVerify(b, w.trust()); err != nil || !v.HasManifest {
		t.Fatal(err)
	}
	if perLeaf := len(b) / 5000; perLeaf > 60 {
		t.Errorf("%d bytes for each leaf", perLeaf)
	}
	if err := torchwood.VerifyProof(w.trust().Policy, ledger.LeafHash(p.EntryBlock), b); err != nil {
		t.Errorf("torchwood: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	w := newWorld(f)
	for _, p := range w.proofs() {
		f.Add(format(f, p))
	}
	f.Add(format(f, w.proveAnchored()))
	trust := w.trust()
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := proof.Parse(b)
		if err != nil {
			wantErr(t, "parse", err, proof.ErrFormat)
			return
		}
		again, err := p.Format()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q parses, and is written as %q, %v", b, again, err)
		}
		if _, err := p.Verify(trust); err != nil && !refused(err) {
			t.Fatal(err)
		}
	})
}

// FuzzParseExtra reaches past the digest, which no fuzzer will guess.
func FuzzParseExtra(f *testing.F) {
	w := newWorld(f)
	for _, p := range w.proofs() {
		f.Add(openExtra(f, format(f, p)))
	}
	f.Add(openExtra(f, format(f, w.proveAnchored())))
	file := format(f, w.prove(1))
	trust := w.trust()
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := proof.Parse(sealExtra(file, body))
		if err != nil {
			wantErr(t, "parse", err, proof.ErrFormat)
			return
		}
		if _, err := p.Verify(trust); err != nil && !refused(err) {
			t.Fatal(err)
		}
	})
}
