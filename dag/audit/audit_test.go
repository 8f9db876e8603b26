package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/proof"
)

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

// refPositions is SPEC.md, with numbers of any size.
func refPositions(seed []byte, entry [32]byte, size uint64, count int) (list []uint64) {
	n := new(big.Int).SetUint64(size)
	all := new(big.Int).Lsh(big.NewInt(1), 64)
	whole := new(big.Int).Sub(all, new(big.Int).Mod(all, n))
	for draw := range count {
		for try := 0; ; try++ {
			var b bytes.Buffer
			fmt.Fprintf(&b, "scale-audit/position/v1\n%c", 0)
			b.Bytes()[b.Len()-1] = byte(len(seed))
			b.Write(seed)
			b.Write(entry[:])
			binary.Write(&b, binary.BigEndian, [2]uint32{uint32(draw), uint32(try)})
			h := sha256.Sum256(b.Bytes())
			if x := new(big.Int).SetBytes(h[:8]); x.Cmp(whole) < 0 {
				list = append(list, x.Mod(x, n).Uint64())
				break
			}
		}
	}
	return list
}

func TestPositions(t *testing.T) {
	for i, size := range []uint64{1, 2, 3, 255, 256, 1 << 20, 1<<32 + 1, 1<<62 + 1, math.MaxInt64, 1 << 63, 1<<63 + 1, math.MaxUint64} {
		for _, n := range []int{audit.MinSeed, 32, audit.MaxSeed} {
			c := audit.Challenge{Seed: seed(fmt.Sprint(i), n), Count: 50}
			entry := sha256.Sum256([]byte{byte(i)})
			got, err := c.Positions(entry, size)
			if err != nil {
				t.Fatal(err)
			}
			if want := refPositions(c.Seed, entry, size, c.Count); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("size %d: %v, want %v", size, got, want)
			}
		}
	}
	ok := audit.Challenge{Seed: seed("", 16), Count: 1}
	_, err := ok.Positions([32]byte{}, 0)
	wantErr(t, "no bytes", err, audit.ErrFormat)
	for what, c := range map[string]audit.Challenge{
		"no seed": {Count: 1}, "short seed": {Seed: make([]byte, 15), Count: 1}, "long seed": {Seed: make([]byte, 65), Count: 1},
		"none": {Seed: ok.Seed}, "less than none": {Seed: ok.Seed, Count: -1}, "too many": {Seed: ok.Seed, Count: 1025},
	} {
		_, err := c.Positions([32]byte{}, 1)
		wantErr(t, what, err, audit.ErrFormat)
	}
}

// Every position is as likely as any other: chi-square over many seeds, of which the
// limit is passed once in a million times, for seeds that are fixed.
func TestPositionsAreUniform(t *testing.T) {
	const size, draws = 11, 11 * 4000
	var count [size]float64
	for i := range draws / 1000 {
		c := audit.Challenge{Seed: seed(fmt.Sprint("uniform", i), 32), Count: 1000}
		list, err := c.Positions([32]byte{1}, size)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			count[p]++
		}
	}
	var chi float64
	for _, n := range count {
		chi += (n - draws/size) * (n - draws/size) / (draws / size)
	}
	if chi > 46 { // 10 degrees of freedom
		t.Errorf("chi-square %.1f of %v", chi, count)
	}
}

// Whatever goes into a challenge changes what is drawn.
func TestPositionsDependOnAll(t *testing.T) {
	seen := map[string]string{}
	for what, c := range map[string]struct {
		seed  []byte
		entry [32]byte
	}{
		"one": {seed("a", 32), [32]byte{}}, "another seed": {seed("b", 32), [32]byte{}}, "a longer seed": {append(seed("a", 32), 0), [32]byte{}},
		"another entry": {seed("a", 32), [32]byte{31: 1}},
		// The same bytes, cut elsewhere between seed and entry.
		"moved": {append(seed("a", 32), make([]byte, 16)...), [32]byte{}},
	} {
		list, err := audit.Challenge{Seed: c.seed, Count: 8}.Positions(c.entry, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(list)
		if other, ok := seen[text]; ok {
			t.Errorf("%s draws what %s draws", what, other)
		}
		seen[text] = what
	}
}

func TestCheckpointHash(t *testing.T) {
	w := newWorld(t)
	want := sha256.Sum256(w.checkpoint)
	signed := w.checkpoint
	for i := range 3 {
		got, err := audit.CheckpointHash(signed)
		if err != nil || got != want {
			t.Errorf("with %d witnesses: %x, %v, want %x", i, got, err, want)
		}
		s, err := torchwood.NewCosignatureSigner(fmt.Sprintf("w%d.example", i), testKey("witness"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = note.Open(signed, nil)
		var unverified *note.UnverifiedNoteError
		if !errors.As(err, &unverified) {
			t.Fatal(err)
		}
		if signed, err = note.Sign(unverified.Note, s); err != nil {
			t.Fatal(err)
		}
	}
	_, err := audit.CheckpointHash([]byte("no note"))
	wantErr(t, "no note", err, audit.ErrFormat)
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	for _, d := range []*dataset{&w.tree, &w.stream, &w.single} {
		for _, count := range []int{1, 2, 40} {
			c := audit.Challenge{Seed: seed(d.name, 24), Count: count}
			answer := w.answer(d, c)
			full, err := audit.Verify(c, w.head(d), each(answer), w.trust(), w.manifest(d))
			if err != nil {
				t.Fatalf("%s, %d samples: %v", d.name, count, err)
			}
			claimed, err := audit.Verify(c, w.head(d), each(answer), w.trust(), nil)
			if err != nil {
				t.Fatalf("%s, %d samples, without manifest: %v", d.name, count, err)
			}
			if !full.FilesProven || claimed.FilesProven != (d != &w.tree) || full.Verified.Index != d.index {
				t.Errorf("%s: %+v, %+v", d.name, full, claimed)
			}
			s := full.Submission()
			if err := errors.Join(full.Check(s), claimed.Check(s)); err != nil {
				t.Error(err)
			}
		}
	}
	c := audit.Challenge{Seed: seed("", 16), Count: 1}
	_, err := audit.Verify(c, w.head(&w.empty), each(nil), w.trust(), nil)
	wantErr(t, "empty dataset", err, audit.ErrFormat)
	_, err = audit.Verify(c, audit.Head{Entry: w.entries[0], Checkpoint: w.checkpoint}, each(nil), w.trust(), nil)
	wantErr(t, "policy", err, audit.ErrRefused)
	_, err = audit.Verify(c, w.head(&w.tree), each(nil), proof.Trust{}, nil)
	wantErr(t, "no key", err, proof.ErrNoKey)
	_, err = audit.Verify(audit.Challenge{Count: 1}, w.head(&w.tree), each(nil), w.trust(), nil)
	wantErr(t, "no seed", err, audit.ErrFormat)
	broken := errors.New("broken off")
	_, err = audit.Verify(c, w.head(&w.tree), func(yield func(audit.Sample, error) bool) { yield(audit.Sample{}, broken) }, w.trust(), nil)
	wantErr(t, "broken off", err, broken)
}

// After a sample that does not hold nothing helps.
func TestVerifierStaysRefused(t *testing.T) {
	w := newWorld(t)
	c := audit.Challenge{Seed: seed("", 16), Count: 2}
	answer := w.answer(&w.tree, c)
	v, err := audit.NewVerifier(c, w.head(&w.tree), w.trust(), nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := answer[0]
	bad.Data = append(bytes.Clone(bad.Data), 0)
	wantErr(t, "bad sample", v.Add(bad), audit.ErrRefused)
	for _, s := range answer {
		wantErr(t, "after it", v.Add(s), audit.ErrRefused)
	}
	_, err = v.Finish()
	wantErr(t, "finish", err, audit.ErrRefused)
}

// No byte of an answer varies freely.
func TestEveryByteOfAnAnswer(t *testing.T) {
	w := newWorld(t)
	c := audit.Challenge{Seed: seed("", 16), Count: 1}
	honest := w.answer(&w.stream, c)[0]
	verify := func(h audit.Head, s audit.Sample) error {
		_, err := audit.Verify(c, h, each([]audit.Sample{s}), w.trust(), nil)
		return err
	}
	if err := verify(w.head(&w.stream), honest); err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	for i := range honest.Proof {
		s := honest
		s.Proof = flip(s.Proof, i)
		wantErr(t, fmt.Sprintf("byte %d of the proof", i), verify(w.head(&w.stream), s), audit.ErrRefused)
	}
	for i := range honest.Data {
		s := honest
		s.Data = flip(s.Data, i)
		wantErr(t, fmt.Sprintf("byte %d of the data", i), verify(w.head(&w.stream), s), audit.ErrRefused)
	}
	for i := range w.checkpoint {
		h := w.head(&w.stream)
		h.Checkpoint = flip(h.Checkpoint, i)
		wantErr(t, fmt.Sprintf("byte %d of the checkpoint", i), verify(h, honest), audit.ErrRefused)
	}
	for i := range w.entries[w.stream.index] {
		h := w.head(&w.stream)
		h.Entry = flip(h.Entry, i)
		wantErr(t, fmt.Sprintf("byte %d of the entry", i), verify(h, honest), audit.ErrRefused)
	}
	for what, edit := range map[string]func(*audit.Sample){
		"draw":        func(s *audit.Sample) { s.Draw++ },
		"position":    func(s *audit.Sample) { s.Position++ },
		"path":        func(s *audit.Sample) { s.Path = "x" },
		"file start":  func(s *audit.Sample) { s.FileStart++ },
		"far start":   func(s *audit.Sample) { s.FileStart = math.MaxUint64 },
		"chunk start": func(s *audit.Sample) { s.ChunkStart++ },
		"no data":     func(s *audit.Sample) { s.Data = nil },
		"much data":   func(s *audit.Sample) { s.Data = make([]byte, dag.MaxBlock+1) },
		"no proof":    func(s *audit.Sample) { s.Proof = nil },
	} {
		s := honest
		edit(&s)
		wantErr(t, what, verify(w.head(&w.stream), s), audit.ErrRefused)
	}
}

func TestCheckSubmission(t *testing.T) {
	w := newWorld(t)
	c := audit.Challenge{Seed: seed("", 32), Count: 5}
	answer := w.answer(&w.tree, c)
	r, err := audit.Verify(c, w.head(&w.tree), each(answer), w.trust(), nil)
	if err != nil {
		t.Fatal(err)
	}
	honest := r.Submission()
	// The log grows: an auditor who asks later gets another checkpoint, and still
	// computes what was submitted.
	more := dataset{name: "more"}
	more.file("", 10)
	w.put(&more)
	w.sign()
	later, err := audit.Verify(c, w.head(&w.tree), each(w.answer(&w.tree, c)), w.trust(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if later.Submission().Response == honest.Response {
		t.Error("the response does not depend on the checkpoint")
	}
	if err := later.Check(honest); err != nil {
		t.Error(err)
	}
	for what, edit := range map[string]func(*audit.Submission){
		"checkpoint": func(s *audit.Submission) { s.Checkpoint[0] ^= 1 },
		"seed":       func(s *audit.Submission) { s.Seed = seed("other", 32) },
		"entry":      func(s *audit.Submission) { s.Entry++ },
		"count":      func(s *audit.Submission) { s.Count-- },
		"response":   func(s *audit.Submission) { s.Response[31] ^= 1 },
	} {
		s := honest
		edit(&s)
		wantErr(t, what, r.Check(s), audit.ErrRefused)
		wantErr(t, what+", later", later.Check(s), audit.ErrRefused)
	}
}

func TestSubmission(t *testing.T) {
	largest := audit.Submission{Size: 1 << 60, Entry: 1<<60 - 1, Seed: seed("", 64), Count: 1024}
	text, err := largest.Format()
	if err != nil || len(text) != 317 || len(text) > audit.MaxSubmission {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	back, err := audit.ParseSubmission(text)
	if err != nil || fmt.Sprint(back) != fmt.Sprint(largest) {
		t.Errorf("%+v, %v", back, err)
	}
	for what, edit := range map[string]func(*audit.Submission){
		"no size": func(s *audit.Submission) { s.Size = 0 }, "large": func(s *audit.Submission) { s.Size++ }, "entry": func(s *audit.Submission) { s.Entry++ },
		"negative": func(s *audit.Submission) { s.Entry = -1 }, "count": func(s *audit.Submission) { s.Count++ }, "seed": func(s *audit.Submission) { s.Seed = nil },
	} {
		s := largest
		edit(&s)
		_, err := s.Format()
		wantErr(t, what, err, audit.ErrFormat)
	}
	for i := range text {
		for _, c := range []byte{' ', '0', 'A', 'f', 0, 0xff, '\n'} {
			b := []byte(text)
			b[i] = c
			s, err := audit.ParseSubmission(string(b))
			if err != nil {
				wantErr(t, fmt.Sprintf("byte %d", i), err, audit.ErrFormat)
			} else if again, err := s.Format(); err != nil || again != string(b) {
				t.Errorf("%q parses, and is written as %q, %v", b, again, err)
			}
		}
	}
	for _, bad := range []string{"", " ", text + " ", text + "\n", " " + text, strings.ToUpper(text), strings.Replace(text, "scale-audit-1", "scale-audit-2", 1), strings.Repeat("x", 1<<20)} {
		_, err := audit.ParseSubmission(bad)
		wantErr(t, fmt.Sprintf("%.40q", bad), err, audit.ErrFormat)
	}
}

func FuzzParseSubmission(f *testing.F) {
	w := newWorld(f)
	c := audit.Challenge{Seed: seed("", 32), Count: 3}
	r, err := audit.Verify(c, w.head(&w.tree), each(w.answer(&w.tree, c)), w.trust(), nil)
	if err != nil {
		f.Fatal(err)
	}
	text, err := r.Submission().Format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("scale-audit-1 0 0 0 0 0 0")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := audit.ParseSubmission(line)
		if err != nil {
			wantErr(t, "parse", err, audit.ErrFormat)
			return
		}
		if again, err := s.Format(); err != nil || again != line || len(line) > audit.MaxSubmission {
			t.Fatalf("%q parses, and is written as %q, %v", line, again, err)
		}
	})
}

// Whatever a node sends as a sample, it is refused unless it is the one that is right.
func FuzzSample(f *testing.F) {
	w := newWorld(f)
	c := audit.Challenge{Seed: seed("", 16), Count: 1}
	honest, head, trust := w.answer(&w.single, c)[0], w.head(&w.single), w.trust()
	f.Add(honest.Position, honest.Path, honest.FileStart, honest.ChunkStart, honest.Proof, honest.Data)
	f.Fuzz(func(t *testing.T, position uint64, path string, fileStart, chunkStart uint64, text, data []byte) {
		s := audit.Sample{Position: position, Path: path, FileStart: fileStart, ChunkStart: chunkStart, Proof: text, Data: data}
		_, err := audit.Verify(c, head, each([]audit.Sample{s}), trust, nil)
		if err != nil {
			wantErr(t, "sample", err, audit.ErrRefused)
		} else if fmt.Sprintf("%+v", s) != fmt.Sprintf("%+v", honest) {
			t.Fatalf("%+v is taken for %+v", s, honest)
		}
	})
}

// Whatever a node sends as head and manifest, nothing but ErrRefused or ErrFormat comes of
// it, and of no other head does an honest sample hold.
func FuzzHead(f *testing.F) {
	w := newWorld(f)
	c := audit.Challenge{Seed: seed("", 16), Count: 1}
	honest, head, trust := w.answer(&w.single, c), w.head(&w.single), w.trust()
	f.Add(head.Entry, head.Checkpoint, []byte(nil))
	f.Add(head.Entry, head.Checkpoint, w.format(w.manifest(&w.single)))
	f.Add(w.entries[0], head.Checkpoint, w.format(w.prove(&w.tree)))
	f.Fuzz(func(t *testing.T, entry, checkpoint, manifest []byte) {
		if hash, err := audit.CheckpointHash(checkpoint); err == nil && hash == [32]byte{} {
			t.Fatal("a hash of zeroes")
		}
		var m *proof.Proof
		if len(manifest) > 0 {
			var err error
			if m, err = proof.Parse(manifest); err != nil {
				return
			}
		}
		_, err := audit.Verify(c, audit.Head{Entry: entry, Checkpoint: checkpoint}, each(honest), trust, m)
		switch {
		case err != nil && !errors.Is(err, audit.ErrRefused) && !errors.Is(err, audit.ErrFormat):
			t.Fatalf("error %v", err)
		case err == nil && (!bytes.Equal(entry, head.Entry) || !bytes.Equal(checkpoint, head.Checkpoint)):
			t.Fatalf("an answer under another head holds: %x %q", entry, checkpoint)
		}
	})
}
