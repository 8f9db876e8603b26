package proof_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

// vectorFile is the content of testdata/vectors.json: see SPEC.md.
type vectorFile struct {
	VKey     string                   `json:"vkey"`
	Datasets map[string][]vectorEntry `json:"datasets"`
	Vectors  []vector                 `json:"vectors"`
}

// A vectorEntry is a file, a link or an empty directory of a dataset.
type vectorEntry struct {
	Path   string   `json:"path"` // hex
	Kind   string   `json:"kind"`
	Chunks []string `json:"chunks,omitempty"` // hex
	Target string   `json:"target,omitempty"`
}

// A vector is a proof, whom its verifier trusts, what data it has, and the
// step of SPEC.md that refuses, or "ok".
type vector struct {
	Name     string   `json:"name"`
	Class    string   `json:"class"`
	Key      string   `json:"key,omitempty"`
	Policy   string   `json:"policy,omitempty"`
	Curators []string `json:"curators,omitempty"`
	Dataset  string   `json:"dataset,omitempty"` // the data: this dataset, or
	File     *string  `json:"file,omitempty"`    // this file of it (hex), or
	Range    *string  `json:"range,omitempty"`   // these bytes (hex)
	Proof    string   `json:"proof"`
}

func vectorDataset(d *dataset) (list []vectorEntry) {
	for _, l := range d.leaves {
		e := vectorEntry{Path: hex.EncodeToString([]byte(l.Path)), Kind: l.Kind.String(), Target: l.Target}
		for _, c := range d.chunks[l.Path] {
			e.Chunks = append(e.Chunks, hex.EncodeToString(c))
		}
		list = append(list, e)
	}
	return list
}

// check does what a verifier with this trust and this data does. It says
// whether the proof without the data was sound.
func (v *vector) check(t testing.TB, f *vectorFile) (sound bool, err error) {
	var trust proof.Trust
	if v.Key != "" {
		trust.Policy, err = proof.TrustKey(v.Key)
	} else if v.Policy != "" {
		trust.Policy, err = proof.ParsePolicy([]byte(v.Policy))
	}
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	for _, s := range v.Curators {
		k, err := ledger.ParseCuratorKey(s)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		trust.Curators = append(trust.Curators, k)
	}
	got, err := parseVerify([]byte(v.Proof), trust)
	if err != nil {
		return false, err
	}
	switch {
	case v.Range != nil:
		return true, got.CheckRange(bytes.NewReader(unhex(t, *v.Range)))
	case v.Dataset == "":
		return true, nil
	}
	d := dataset{chunks: map[string][][]byte{}}
	for _, e := range f.Datasets[v.Dataset] {
		l := dag.FileLeaf{Kind: dag.KindDir, Path: string(unhex(t, e.Path)), Target: e.Target, Size: uint64(len(e.Target))}
		var chunks [][]byte
		switch e.Kind {
		case "file":
			l.Kind = dag.KindFile
			for _, c := range e.Chunks {
				chunks = append(chunks, unhex(t, c))
			}
		case "link":
			l.Kind = dag.KindLink
		}
		d.add(l, chunks...)
	}
	if v.File == nil {
		d.finish(v.Dataset)
		return true, got.CheckTree(d.tree)
	}
	name := string(unhex(t, *v.File))
	if l := d.leaves[d.file(name)]; l.Kind == dag.KindLink {
		return true, got.CheckLink(l.Target)
	}
	return true, got.CheckFile(fileOf(&d, name))
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func buildVectors(t testing.TB) *vectorFile {
	w := newWorld(t)
	f := &vectorFile{VKey: w.vkey, Datasets: map[string][]vectorEntry{
		"tree": vectorDataset(&w.tree), "stream": vectorDataset(&w.stream), "other": vectorDataset(&w.other),
	}}
	text := func(p *proof.Proof) string { return string(format(t, p)) }
	add := func(v vector) {
		if v.Key == "" && v.Policy == "" && v.Class != "no key" {
			v.Key = w.vkey
		}
		f.Vectors = append(f.Vectors, v)
	}
	str := func(b []byte) *string { s := hex.EncodeToString(b); return &s }
	big, odd, link, none := str([]byte("dir/big")), str([]byte("dir/\xff\nodd")), str([]byte("link")), str(nil)
	file := func() *proof.Proof { return w.proveFile(&w.tree, "dir/big") }
	rng := func() *proof.Proof { return w.proveRange(&w.tree, "dir/big", 5, 9) }
	_, otherKey, _ := logKey(t, "other.example", "log")
	_, otherLogKey, _ := logKey(t, testOrigin, "log 2")
	me := []string{curatorKey("curator").String()}

	add(vector{Name: "policy entry", Class: "ok", Proof: text(w.prove(0))})
	add(vector{Name: "dataset", Class: "ok", Dataset: "tree", Proof: text(w.prove(w.tree.index))})
	add(vector{Name: "dataset of one stream", Class: "ok", Dataset: "stream", Proof: text(w.prove(w.stream.index))})
	add(vector{Name: "dataset of one stream, as a file", Class: "ok", Dataset: "stream", File: none, Proof: text(w.prove(w.stream.index))})
	add(vector{Name: "manifest", Class: "ok", Dataset: "tree", Proof: text(w.proveManifest(&w.tree))})
	add(vector{Name: "trusted curator", Class: "ok", Curators: me, Dataset: "tree", Proof: text(w.prove(w.tree.index))})
	add(vector{Name: "file", Class: "ok", Dataset: "tree", File: big, Proof: text(file())})
	add(vector{Name: "file whose name is not text", Class: "ok", Dataset: "tree", File: odd, Proof: text(w.proveFile(&w.tree, "dir/\xff\nodd"))})
	add(vector{Name: "empty file", Class: "ok", Dataset: "tree", File: str([]byte("dir/empty")), Proof: text(w.proveFile(&w.tree, "dir/empty"))})
	add(vector{Name: "link", Class: "ok", Dataset: "tree", File: link, Proof: text(w.proveFile(&w.tree, "link"))})
	add(vector{Name: "empty directory", Class: "ok", Proof: text(w.proveFile(&w.tree, "void/"))})
	add(vector{Name: "range", Class: "ok", Range: str(w.rangeData(rng())), Proof: text(rng())})
	for _, run := range [][2]int{{0, 1}, {0, 21}, {20, 21}, {7, 17}} {
		p := w.proveRange(&w.tree, "dir/big", run[0], run[1])
		add(vector{Name: "another range", Class: "ok", Range: str(w.rangeData(p)), Proof: text(p)})
	}

	witnesses := "witness one " + newWitness(t, "w1.example").vkey() + "\nwitness two " + newWitness(t, "w2.example").vkey() + "\n"
	both := "log " + w.vkey + "\n" + witnesses + "group both all one two\nquorum both\n"
	cosigned := w.prove(1)
	cosigned.Checkpoint = cosign(t, cosigned.Checkpoint, "w1.example")
	add(vector{Name: "cosignature of which the verifier knows nothing", Class: "ok", Proof: text(cosigned)})
	add(vector{Name: "one witness of two", Class: "log", Policy: both, Proof: text(cosigned)})
	cosigned.Checkpoint = cosign(t, cosigned.Checkpoint, "w2.example")
	add(vector{Name: "two witnesses of two", Class: "ok", Policy: both, Proof: text(cosigned)})
	add(vector{Name: "one log of two", Class: "ok", Policy: "log " + otherKey + "\nlog " + w.vkey + "\nquorum none\n", Proof: text(cosigned)})
	add(vector{Name: "policy that does not know the log", Class: "log", Policy: "log " + otherKey + "\nquorum none\n", Proof: text(cosigned)})
	cosigned.Checkpoint = bytes.Replace(cosigned.Checkpoint, []byte("w2.example "), []byte("w1.example "), 1)
	add(vector{Name: "cosignature under another name", Class: "log", Policy: both, Proof: text(cosigned)})
	cosigned.Checkpoint = append(bytes.Clone(w.checkpoint), w.checkpoint[bytes.LastIndex(w.checkpoint, []byte("—")):]...)
	add(vector{Name: "log signature twice", Class: "checkpoint", Proof: text(cosigned)})

	add(vector{Name: "no trusted key", Class: "no key", Proof: text(w.prove(1))})
	add(vector{Name: "another key of the same origin", Class: "log", Key: otherLogKey, Proof: text(w.prove(1))})
	add(vector{Name: "same key for another origin", Class: "log", Key: otherKey, Proof: text(w.prove(1))})
	add(vector{Name: "another curator trusted", Class: "curator", Curators: []string{curatorKey("x").String()}, Proof: text(w.prove(1))})

	edited := func(name, class string, p *proof.Proof, edit func(*proof.Proof)) {
		edit(p)
		add(vector{Name: name, Class: class, Proof: text(p)})
	}
	// Logs that took what they should not have.
	bad := newWorld(t)
	bad.id = ledger.LogID{Origin: "other.example", KeyID: w.id.KeyID}
	bad.append(&ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: 0, Curators: []ledger.CuratorKey{curatorKey("curator")}})
	bad.entries = append(bad.entries, bytes.Replace(w.entries[1], []byte("\x66leaves\x06"), []byte("\x66leaves\x18\x06"), 1), []byte{0xa0})
	bad.id = w.id
	bad.sign()
	add(vector{Name: "entry signed for another log", Class: "signature", Proof: text(bad.prove(logSize))})
	add(vector{Name: "entry not canonical", Class: "entry", Proof: text(bad.prove(logSize + 1))})
	add(vector{Name: "entry of nothing", Class: "entry", Proof: text(bad.prove(logSize + 2))})

	removed := newWorld(t)
	removed.append(&ledger.Entry{Kind: ledger.KindRemoval, Name: "tree", Previous: removed.tree.index, Policy: 0})
	removed.sign()
	add(vector{Name: "entry of a removal", Class: "entry", Proof: text(removed.prove(logSize))})
	add(vector{Name: "dataset whose name was removed", Class: "ok", Dataset: "tree", Proof: text(removed.prove(removed.tree.index))})
	add(vector{Name: "removal in the place of the dataset", Class: "inclusion", Proof: text(func() *proof.Proof {
		p := removed.prove(removed.tree.index)
		p.EntryBlock = removed.entries[logSize]
		return p
	}())})

	edited("checkpoint changed", "log", w.prove(1), func(p *proof.Proof) {
		p.Checkpoint = bytes.Replace(p.Checkpoint, []byte("\n11\n"), []byte("\n12\n"), 1)
	})
	edited("another entry", "inclusion", w.prove(1), func(p *proof.Proof) { p.EntryBlock = w.entries[2] })
	edited("another index", "inclusion", w.prove(1), func(p *proof.Proof) { p.Index = 2 })
	edited("index beyond the log", "inclusion", w.prove(10), func(p *proof.Proof) { p.Index = 11 })
	edited("inclusion path too long", "inclusion", w.prove(1), func(p *proof.Proof) { p.Inclusion = append(p.Inclusion, p.Inclusion[0]) })
	edited("inclusion path too short", "inclusion", w.prove(1), func(p *proof.Proof) { p.Inclusion = p.Inclusion[1:] })
	edited("another leaf", "file", file(), func(p *proof.Proof) { p.File.Leaf = w.other.leaves[0] })
	edited("leaf at another place", "file", file(), func(p *proof.Proof) { p.File.Index = 2 })
	edited("leaf beyond the dataset", "file", file(), func(p *proof.Proof) { p.File.Index = 6 })
	edited("file path changed", "file", file(), func(p *proof.Proof) { p.File.Path[1][0] ^= 1 })
	edited("file path too long", "file", file(), func(p *proof.Proof) { p.File.Path = append(p.File.Path, dag.Hash{}) })
	edited("manifest of another dataset", "manifest", w.proveManifest(&w.tree), func(p *proof.Proof) { p.Manifest = w.other.leaves })
	edited("leaf missing in the manifest", "manifest", w.proveManifest(&w.tree), func(p *proof.Proof) { p.Manifest = p.Manifest[1:] })
	edited("file of a policy", "file", w.prove(0), func(p *proof.Proof) { p.File = file().File })
	edited("range beyond the file", "range", rng(), func(p *proof.Proof) { p.Range.First = 18 })
	edited("range at the wrong end", "range", rng(), func(p *proof.Proof) { p.Range.First, p.Range.Left = 0, nil })
	edited("range of no chunks", "range", rng(), func(p *proof.Proof) { p.Range.Sizes = nil })
	edited("range with an empty chunk", "range", rng(), func(p *proof.Proof) { p.Range.Sizes[1] = 0 })
	edited("range longer than the file", "range", rng(), func(p *proof.Proof) { p.Range.Sizes[0] = 1 << 31 })
	edited("range with a hash too many", "range", rng(), func(p *proof.Proof) { p.Range.Left = append(p.Range.Left, dag.Hash{}) })
	edited("range of a link", "range", w.proveFile(&w.tree, "link"), func(p *proof.Proof) { p.Range = &proof.RangeProof{Sizes: []uint32{7}} })

	data := w.rangeData(rng())
	flipped := bytes.Clone(data)
	flipped[100] ^= 1
	for i, b := range [][]byte{flipped, data[:len(data)-1], append(bytes.Clone(data), 0), data[1:], nil} {
		what := []string{"range with one bit changed", "range one byte short", "range one byte long", "range shifted", "range without data"}[i]
		add(vector{Name: what, Class: "data", Range: str(b), Proof: text(rng())})
	}
	ranged := func(name string, edit func(*proof.RangeProof)) {
		p := rng()
		edit(p.Range)
		add(vector{Name: name, Class: "data", Range: str(data), Proof: text(p)})
	}
	edited("range moved by a chunk", "range", rng(), func(p *proof.Proof) { p.Range.First = 6 })
	ranged("range moved by a byte", func(r *proof.RangeProof) { r.Offset++ })
	ranged("range cut into other chunks", func(r *proof.RangeProof) { r.Sizes[0]++; r.Sizes[1]-- })
	ranged("range with a left hash changed", func(r *proof.RangeProof) { r.Left[0][0] ^= 1 })
	ranged("range with a right hash changed", func(r *proof.RangeProof) { r.Right[0][0] ^= 1 })
	add(vector{Name: "another dataset's data", Class: "data", Dataset: "other", Proof: text(w.prove(w.tree.index))})
	add(vector{Name: "another file's data", Class: "data", Dataset: "tree", File: odd, Proof: text(file())})

	whole, good := openExtra(t, []byte(text(w.prove(1)))), text(rng())
	raw := func(name string, b []byte) { add(vector{Name: name, Class: "format", Proof: string(b)}) }
	extra := func(name string, body []byte) { raw(name, sealExtra([]byte(good), body)) }
	raw("empty", nil)
	raw("cut short", []byte(good[:strings.Index(good, "\n\n")]))
	raw("Windows line ends", []byte(strings.ReplaceAll(good, "\n", "\r\n")))
	raw("index with a leading zero", []byte(strings.Replace(good, "\nindex 1\n", "\nindex 01\n", 1)))
	raw("no extra line", []byte(good[:len("c2sp.org/tlog-proof@v1\n")]+good[strings.Index(good, "index "):]))
	raw("base64 with stray bits", strayBits(text(file()), text(rng()), text(w.prove(1)), text(w.prove(2))))
	raw("extra damaged", []byte(good[:200]+flip(good[200:201])+good[201:]))
	extra("unknown section", append(bytes.Clone(whole), 6, 0))
	extra("entry twice", append(bytes.Clone(whole), whole[len("scale-proof/v1\n"):]...))
	extra("newer version", bytes.Replace(whole, []byte("/v1\n"), []byte("/v2\n"), 1))
	extra("integer not in its shortest form", append(append([]byte("scale-proof/v1\n"), 0x81, 0), whole[len("scale-proof/v1\n")+1:]...))
	extra("range without a file", append(bytes.Clone(whole), 3, 6, 0, 0, 1, 1, 0, 0))
	extra("manifest out of order", append(bytes.Clone(whole), 4, 9, 2, 0, 2, 'b', '/', 3, 0, 2, 'a', '/', 3))
	extra("manifest shares less than it could", append(bytes.Clone(whole), 4, 11, 2, 0, 2, 'a', '/', 3, 0, 3, 'a', 'b', '/', 3))
	extra("manifest with a path that leaves the dataset", append(bytes.Clone(whole), 4, 7, 1, 0, 3, '.', '.', '/', 3))
	receiptVectors(w, add, extra)
	return f
}

// flip changes one base64 digit.
func flip(s string) string {
	if s == "A" {
		return "B"
	}
	return "A"
}

// strayBits sets bits of the last digit of the extra line that no byte needs.
func strayBits(files ...string) []byte {
	for _, f := range files {
		if at := strings.Index(f, "=\nindex "); at > 0 {
			b := []byte(f)
			for at--; b[at] == '='; at-- {
			}
			b[at]++
			return b
		}
	}
	return nil
}

func TestVectors(t *testing.T) {
	const path = "testdata/vectors.json"
	built, err := json.MarshalIndent(buildVectors(t), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	built = append(built, '\n')
	if *update {
		if err := os.WriteFile(path, built, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(built), "\n")); diff != "" {
		t.Fatalf("the format changed, which is a promise broken:\n%s", diff)
	}

	var f vectorFile
	if err := json.Unmarshal(want, &f); err != nil {
		t.Fatal(err)
	}
	classes := map[string]error{
		"ok": nil, "no key": proof.ErrNoKey, "format": proof.ErrFormat, "checkpoint": proof.ErrFormat, "log": proof.ErrRefused,
		"inclusion": proof.ErrRefused, "entry": proof.ErrFormat, "signature": proof.ErrRefused, "curator": proof.ErrRefused,
		"file": proof.ErrRefused, "manifest": proof.ErrRefused, "range": proof.ErrRefused, "data": proof.ErrRefused,
	}
	for _, v := range f.Vectors {
		want, known := classes[v.Class]
		sound, got := v.check(t, &f)
		if !known || !errors.Is(got, want) || (got == nil) != (want == nil) || sound != (v.Class == "ok" || v.Class == "data") {
			t.Errorf("%s: %v, want %s", v.Name, got, v.Class)
		}
	}
}
