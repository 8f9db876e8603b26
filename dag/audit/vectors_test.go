package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/proof"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

// vectors is the content of testdata/vectors.json: see SPEC.md. Numbers that may be above
// 2^53 are text.
type vectors struct {
	VKey        string             `json:"vkey"`
	Positions   []positionVector   `json:"positions"`
	Answers     []answerVector     `json:"answers"`
	Submissions []submissionVector `json:"submissions"`
}

type positionVector struct {
	Seed      string   `json:"seed"`
	Entry     string   `json:"entry"` // SHA-256 of an entry
	Size      string   `json:"size"`
	Positions []string `json:"positions"`
}

type answerVector struct {
	Name       string         `json:"name"`
	Class      string         `json:"class"`
	Seed       string         `json:"seed"`
	Count      int            `json:"count"`
	Entry      string         `json:"entry"` // block
	Checkpoint string         `json:"checkpoint"`
	Manifest   string         `json:"manifest,omitempty"` // proof of the dataset
	Samples    []sampleVector `json:"samples"`

	// Of those that hold.
	FilesProven    bool   `json:"files_proven,omitempty"`
	CheckpointHash string `json:"checkpoint_hash,omitempty"`
	Key            string `json:"key,omitempty"`
	Response       string `json:"response,omitempty"`
	Submission     string `json:"submission,omitempty"`
}

type sampleVector struct {
	Draw       int    `json:"draw"`
	Position   uint64 `json:"position"`
	Path       string `json:"path"` // hexadecimal
	FileStart  uint64 `json:"file_start"`
	ChunkStart uint64 `json:"chunk_start"`
	Proof      string `json:"proof"`
	Data       string `json:"data"`
}

type submissionVector struct {
	Name  string `json:"name"`
	Class string `json:"class"`
	Text  string `json:"text"`
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func vectorOf(name string, c audit.Challenge, h audit.Head, samples []audit.Sample) answerVector {
	v := answerVector{Name: name, Class: "refused", Seed: hexOf(c.Seed), Count: c.Count, Entry: hexOf(h.Entry), Checkpoint: string(h.Checkpoint)}
	for _, s := range samples {
		v.Samples = append(v.Samples, sampleVector{s.Draw, s.Position, hexOf([]byte(s.Path)), s.FileStart, s.ChunkStart, string(s.Proof), hexOf(s.Data)})
	}
	return v
}

// verify does what an auditor does with a vector.
func (v *answerVector) verify(t testing.TB, vkey string) (*audit.Result, error) {
	t.Helper()
	policy, err := proof.TrustKey(vkey)
	if err != nil {
		t.Fatal(err)
	}
	var manifest *proof.Proof
	if v.Manifest != "" {
		if manifest, err = proof.Parse([]byte(v.Manifest)); err != nil {
			t.Fatal(err)
		}
	}
	var samples []audit.Sample
	for _, s := range v.Samples {
		samples = append(samples, audit.Sample{
			Draw: s.Draw, Position: s.Position, Path: string(unhex(t, s.Path)), FileStart: s.FileStart, ChunkStart: s.ChunkStart,
			Proof: []byte(s.Proof), Data: unhex(t, s.Data),
		})
	}
	c := audit.Challenge{Seed: unhex(t, v.Seed), Count: v.Count}
	h := audit.Head{Entry: unhex(t, v.Entry), Checkpoint: []byte(v.Checkpoint)}
	return audit.Verify(c, h, each(samples), proof.Trust{Policy: policy}, manifest)
}

func buildVectors(t testing.TB) *vectors {
	w := newWorld(t)
	v := &vectors{VKey: w.vkey}
	for i, size := range []uint64{1, 10, 1000, 1 << 32, 3 << 61, 1<<62 + 1, math.MaxInt64} {
		c := audit.Challenge{Seed: seed(fmt.Sprint("vector", i), []int{16, 20, 32, 64}[i%4]), Count: 12}
		entry := sha256.Sum256(fmt.Appendf(nil, "entry %d", i))
		list, err := c.Positions(entry, size)
		if err != nil {
			t.Fatal(err)
		}
		p := positionVector{Seed: hexOf(c.Seed), Entry: hexOf(entry[:]), Size: strconv.FormatUint(size, 10)}
		for _, x := range list {
			p.Positions = append(p.Positions, strconv.FormatUint(x, 10))
		}
		v.Positions = append(v.Positions, p)
	}

	sound := func(name string, d *dataset, c audit.Challenge, manifest bool) *audit.Result {
		t.Helper()
		a := vectorOf(name, c, w.head(d), w.answer(d, c))
		a.Class = "ok"
		if manifest {
			a.Manifest = string(w.format(w.manifest(d)))
		}
		r, err := a.verify(t, w.vkey)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		v.Answers = append(v.Answers, describe(t, a, r))
		return r
	}
	tree := audit.Challenge{Seed: seed("tree", 32), Count: 6}
	r := sound("several files", &w.tree, tree, false)
	sound("several files, with manifest", &w.tree, tree, true)
	sound("single stream", &w.stream, audit.Challenge{Seed: seed("stream", 16), Count: 4}, false)
	sound("one file among other leaves", &w.single, audit.Challenge{Seed: seed("single", 64), Count: 3}, false)

	honest := w.answer(&w.tree, tree)
	refused := func(name string, edit func(h *audit.Head, list []audit.Sample) []audit.Sample) {
		h := w.head(&w.tree)
		list := edit(&h, slices.Clone(honest))
		v.Answers = append(v.Answers, vectorOf(name, tree, h, list))
	}
	one := func(name string, edit func(s *audit.Sample)) {
		refused(name, func(_ *audit.Head, list []audit.Sample) []audit.Sample {
			edit(&list[2])
			return list
		})
	}
	one("another position", func(s *audit.Sample) { s.Position ^= 1 })
	one("data changed", func(s *audit.Sample) {
		s.Data = bytes.Clone(s.Data)
		s.Data[3] ^= 1
	})
	one("data cut", func(s *audit.Sample) { s.Data = s.Data[1:] })
	one("no data", func(s *audit.Sample) { s.Data = nil })
	one("digest instead of data", func(s *audit.Sample) {
		d := sha256.Sum256(s.Data)
		s.Data = d[:]
	})
	one("another path", func(s *audit.Sample) { s.Path += "x" })
	one("another beginning of the chunk", func(s *audit.Sample) { s.ChunkStart++ })
	one("file that begins elsewhere", func(s *audit.Sample) { s.FileStart++ })
	one("file that begins behind the dataset", func(s *audit.Sample) { s.FileStart = 1 << 40 })
	one("proof of two chunks", func(s *audit.Sample) { s.Proof = w.format(w.chunks(&w.tree, 0, 0, 2)) })
	one("proof of a file", func(s *audit.Sample) {
		p := w.chunks(&w.tree, 0, 0, 1)
		p.Range = nil
		s.Proof = w.format(p)
	})
	one("proof of another dataset", func(s *audit.Sample) { s.Proof = w.format(w.chunks(&w.stream, 0, 0, 1)) })
	one("no proof", func(s *audit.Sample) { s.Proof = nil })
	other := func(list []audit.Sample) int { // the first draw of another chunk than draw 0
		return slices.IndexFunc(list, func(s audit.Sample) bool { return !bytes.Equal(s.Data, list[0].Data) })
	}
	refused("another chunk, sound by itself", func(_ *audit.Head, list []audit.Sample) []audit.Sample {
		s := list[other(list)]
		s.Draw, s.Position = 0, list[0].Position
		list[0] = s
		return list
	})
	refused("draws exchanged", func(_ *audit.Head, list []audit.Sample) []audit.Sample {
		i := other(list)
		list[0], list[i] = list[i], list[0]
		return list
	})
	refused("last draw missing", func(_ *audit.Head, list []audit.Sample) []audit.Sample { return list[:5] })
	refused("no samples", func(*audit.Head, []audit.Sample) []audit.Sample { return nil })
	refused("one draw too many", func(_ *audit.Head, list []audit.Sample) []audit.Sample {
		s := list[5]
		s.Draw++
		return append(list, s)
	})
	refused("head of another dataset", func(h *audit.Head, list []audit.Sample) []audit.Sample {
		*h = w.head(&w.stream)
		return list
	})
	refused("head with another checkpoint", func(h *audit.Head, list []audit.Sample) []audit.Sample {
		bigger := newWorld(t)
		extra := dataset{name: "extra"}
		extra.file("", 1)
		bigger.put(&extra)
		bigger.sign()
		h.Checkpoint = bigger.checkpoint
		return list
	})
	refused("head that is a policy", func(h *audit.Head, list []audit.Sample) []audit.Sample {
		h.Entry = w.entries[0]
		return list
	})

	// A node that lacks the file which a position falls into gives a chunk of another one,
	// and says that this begins elsewhere. Only a manifest, or a sample that leaves no room
	// for it, tells.
	claim := audit.Challenge{Seed: seed("claim", 32), Count: 1}
	s := w.answer(&w.tree, claim)[0]
	lie := claimElsewhere(w, s)
	a := vectorOf("chunk of another file than the position falls into", claim, w.head(&w.tree), []audit.Sample{lie})
	a.Class = "ok"
	got, err := a.verify(t, w.vkey)
	if err != nil {
		t.Fatal(err)
	}
	v.Answers = append(v.Answers, describe(t, a, got))
	a = vectorOf("the same, with manifest", claim, w.head(&w.tree), []audit.Sample{lie})
	a.Manifest = string(w.format(w.manifest(&w.tree)))
	v.Answers = append(v.Answers, a)
	a = vectorOf("manifest of another dataset", tree, w.head(&w.tree), honest)
	a.Manifest = string(w.format(w.manifest(&w.single)))
	v.Answers = append(v.Answers, a)
	a = vectorOf("proof without a manifest in its place", tree, w.head(&w.tree), honest)
	a.Manifest = string(w.format(w.prove(&w.tree)))
	v.Answers = append(v.Answers, a)

	text, err := r.Submission().Format()
	if err != nil {
		t.Fatal(err)
	}
	largest, err := audit.Submission{Size: 1 << 60, Entry: 1<<60 - 1, Seed: seed("", 64), Count: 1024}.Format()
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Split(text, " ")
	field := func(i int, value string) string {
		g := slices.Clone(f)
		g[i] = value
		return strings.Join(g, " ")
	}
	v.Submissions = []submissionVector{
		{"sound", "ok", text}, {"largest", "ok", largest},
		{"empty", "format", ""},
		{"another version", "format", field(0, "scale-audit-2")},
		{"upper case", "format", field(1, strings.ToUpper(f[1]))},
		{"short hash", "format", field(1, f[1][2:])},
		{"size with a leading zero", "format", field(2, "0"+f[2])},
		{"size with a sign", "format", field(2, "+"+f[2])},
		{"size of zero", "format", field(2, "0")},
		{"size too large", "format", field(2, "1152921504606846977")},
		{"short seed", "format", field(3, "00112233445566778899aabbccddee")},
		{"long seed", "format", field(3, strings.Repeat("0", 130))},
		{"seed of half a byte", "format", field(3, f[3]+"0")},
		{"entry beyond the log", "format", field(4, f[2])},
		{"no samples", "format", field(5, "0")},
		{"too many samples", "format", field(5, "1025")},
		{"long response", "format", field(6, f[6]+"00")},
		{"field too many", "format", text + " 0"},
		{"field missing", "format", strings.Join(f[:6], " ")},
		{"two spaces", "format", strings.Replace(text, " ", "  ", 1)},
		{"line feed", "format", text + "\n"},
	}
	return v
}

// claimElsewhere answers a draw with the chunk of another file.
func claimElsewhere(w *world, s audit.Sample) audit.Sample {
	w.t.Helper()
	d := &w.tree
	for i, l := range d.leaves {
		// Leaves in the middle may begin nearly anywhere.
		if l.Path == s.Path || l.Chunks == 0 || i == 0 || i == len(d.leaves)-1 || s.Position+l.Size > 290 {
			continue
		}
		return audit.Sample{
			Draw: s.Draw, Position: s.Position, Path: l.Path, FileStart: s.Position, ChunkStart: 0,
			Proof: w.format(w.chunks(d, i, 0, 1)), Data: d.chunks[l.Path][0],
		}
	}
	w.t.Fatal("no other file")
	return s
}

// describe adds what a verifier computes.
func describe(t testing.TB, v answerVector, r *audit.Result) answerVector {
	t.Helper()
	s := r.Submission()
	text, err := s.Format()
	if err != nil {
		t.Fatal(err)
	}
	entry := sha256.Sum256(unhex(t, v.Entry))
	raw := unhex(t, v.Seed)
	key := sha256.Sum256(slices.Concat([]byte("scale-audit/key/v1\n"), []byte{byte(len(raw))}, raw, entry[:]))
	v.FilesProven, v.CheckpointHash, v.Key = r.FilesProven, hexOf(s.Checkpoint[:]), hexOf(key[:])
	v.Response, v.Submission = hexOf(s.Response[:]), text
	return v
}

func TestVectors(t *testing.T) {
	const path = "testdata/vectors.json"
	got, err := json.MarshalIndent(buildVectors(t), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Fatalf("the format changed, which is a promise broken:\n%s", diff)
	}

	// What the file says holds, whoever wrote it.
	var v vectors
	if err := json.Unmarshal(want, &v); err != nil {
		t.Fatal(err)
	}
	for _, p := range v.Positions {
		size, err := strconv.ParseUint(p.Size, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, x := range refPositions(unhex(t, p.Seed), [32]byte(unhex(t, p.Entry)), size, len(p.Positions)) {
			list = append(list, strconv.FormatUint(x, 10))
		}
		if d := cmp.Diff(list, p.Positions); d != "" {
			t.Errorf("size %s: %s", p.Size, d)
		}
	}
	for _, a := range v.Answers {
		r, err := a.verify(t, v.VKey)
		if (a.Class == "ok") != (err == nil) || err != nil && !errors.Is(err, audit.ErrRefused) {
			t.Errorf("%s: %v, want %s", a.Name, err, a.Class)
		}
		if err == nil {
			if d := cmp.Diff(a, describe(t, a, r)); d != "" {
				t.Errorf("%s: %s", a.Name, d)
			}
			if want := refResponse(t, a); a.Response != want {
				t.Errorf("%s: response %s, by the specification %s", a.Name, a.Response, want)
			}
		}
	}
	for _, s := range v.Submissions {
		if _, err := audit.ParseSubmission(s.Text); (s.Class == "ok") != (err == nil) || err != nil && !errors.Is(err, audit.ErrFormat) {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// refResponse is SPEC.md to the letter.
func refResponse(t testing.TB, a answerVector) string {
	t.Helper()
	be := func(v uint64, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[n-1-i] = byte(v >> (8 * i))
		}
		return b
	}
	sum := func(parts ...[]byte) []byte {
		h := sha256.Sum256(slices.Concat(parts...))
		return h[:]
	}
	raw := unhex(t, a.Seed)
	prefixed := append([]byte{byte(len(raw))}, raw...)
	entry := sum(unhex(t, a.Entry))
	key := sum([]byte("scale-audit/key/v1\n"), prefixed, entry)
	samples := []byte("scale-audit/samples/v1\n")
	for _, s := range a.Samples {
		path, data := unhex(t, s.Path), unhex(t, s.Data)
		samples = slices.Concat(samples, be(s.Position, 8), be(uint64(len(path)), 4), path, be(s.FileStart, 8), be(s.ChunkStart, 8),
			be(uint64(len(data)), 4), sum(data), sum(key, data))
	}
	return hexOf(sum([]byte("scale-audit/response/v1\n"), prefixed, entry, be(uint64(a.Count), 4), sum([]byte(a.Checkpoint)), sum(samples)))
}
