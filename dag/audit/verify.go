package audit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"iter"
	"slices"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

// A Head is what all samples of an answer share.
type Head struct {
	Entry      []byte // the signed entry of the dataset
	Checkpoint []byte // the signed note in which all samples are proven
}

// A Sample is the answer to one draw.
type Sample struct {
	Draw       int    // from 0
	Position   uint64 // the byte that was drawn, in the files one behind the other in leaf order
	Path       string // of the file that it is in, as its leaf has it; empty if the dataset is a single stream
	FileStart  uint64 // where that file begins among the bytes of the dataset
	ChunkStart uint64 // where the chunk begins in the file
	Proof      []byte // a .tlog-proof of the chunk's range
	Data       []byte // the chunk's bytes
}

// A Result is what an answer that holds has shown.
type Result struct {
	Challenge Challenge
	Verified  *proof.Verified // the entry, its place in the log and who signed it
	// FilesProven says that the positions lead to these files. If not, each sample is
	// proven data of the dataset and lies in its file where the position says, but which file
	// a position falls into is the node's claim: there was no manifest, and there are
	// several files.
	FilesProven bool

	checkpoint [32]byte
	entry      [32]byte
	samples    [32]byte
}

// Response returns the digest of the answer, bound to the checkpoint with that hash: the
// answer's own, or the one that someone else got the same answer under.
func (r *Result) Response(checkpoint [32]byte) [32]byte {
	return r.Challenge.response(r.entry, checkpoint, r.samples)
}

// Submission returns what a task node submits.
func (r *Result) Submission() Submission {
	return Submission{
		Checkpoint: r.checkpoint, Size: r.Verified.Checkpoint.Size, Seed: r.Challenge.Seed,
		Entry: r.Verified.Index, Count: r.Challenge.Count, Response: r.Response(r.checkpoint),
	}
}

// Verify judges an answer: all samples of a challenge, in the order of their draws. The
// trust is that of proof.Verify. The manifest, if any, is a proof of the whole dataset
// with its manifest; it decides which file each position falls into. An answer that does
// not hold is ErrRefused, and the message names the draw; errors of samples itself are
// returned as they are. Memory is that of one sample.
func Verify(c Challenge, h Head, samples iter.Seq2[Sample, error], t proof.Trust, manifest *proof.Proof) (*Result, error) {
	v, err := NewVerifier(c, h, t, manifest)
	if err != nil {
		return nil, err
	}
	for s, err := range samples {
		if err != nil {
			return nil, err
		}
		if err := v.Add(s); err != nil {
			return nil, err
		}
	}
	return v.Finish()
}

// A Verifier is Verify for samples that come one by one.
type Verifier struct {
	c          Challenge
	h          Head
	trust      proof.Trust
	entry      *ledger.Entry
	digest     [32]byte // of the entry
	checkpoint [32]byte
	key        [32]byte
	positions  []uint64
	starts     map[string]uint64 // of the files, from the manifest; nil without one
	next       int               // draw
	samples    hash.Hash
	verified   *proof.Verified // of the first sample
	files      []place
}

// A place is where a sample says that its file lies.
type place struct {
	leaf, start, size uint64
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// NewVerifier begins to judge an answer.
func NewVerifier(c Challenge, h Head, t proof.Trust, manifest *proof.Proof) (*Verifier, error) {
	if t.Policy == nil {
		return nil, proof.ErrNoKey
	}
	e, err := ledger.ParseEntry(h.Entry)
	if err != nil {
		return nil, refuse("entry: %w", err)
	}
	if e.Kind != ledger.KindDataset {
		return nil, refuse("a %v entry has no data", e.Kind)
	}
	v := &Verifier{c: c, h: h, trust: t, entry: e, digest: sha256.Sum256(h.Entry), samples: sha256.New()}
	if v.positions, err = c.Positions(v.digest, e.Size); err != nil {
		return nil, err
	}
	if v.checkpoint, err = CheckpointHash(h.Checkpoint); err != nil {
		return nil, refuse("%w", err)
	}
	v.key = c.key(v.digest)
	v.samples.Write([]byte(samplesDomain))
	if manifest != nil {
		err = v.useManifest(manifest)
	}
	return v, err
}

// useManifest works out where each file begins.
func (v *Verifier) useManifest(p *proof.Proof) error {
	if !bytes.Equal(p.EntryBlock, v.h.Entry) {
		return refuse("the manifest is of another entry")
	}
	got, err := p.Verify(v.trust)
	if err != nil {
		return refuse("manifest: %w", err)
	}
	if !got.HasManifest {
		return refuse("the proof of the dataset has no manifest")
	}
	v.starts = make(map[string]uint64)
	var at uint64
	for _, l := range p.Manifest {
		if l.Kind == dag.KindFile && l.Size > 0 {
			v.starts[l.Path] = at
			at += l.Size
		}
	}
	if at != v.entry.Size {
		return refuse("the files of the manifest have %d bytes, its entry says %d", at, v.entry.Size)
	}
	return nil
}

// Add judges the next sample. After an error the answer does not hold.
func (v *Verifier) Add(s Sample) error {
	if err := v.add(s); err != nil {
		v.next = len(v.positions) + 1 // nothing more is taken
		return fmt.Errorf("draw %d: %w", s.Draw, err)
	}
	return nil
}

func (v *Verifier) add(s Sample) error {
	if v.next >= len(v.positions) || s.Draw != v.next {
		return refuse("draw %d of %d was due", v.next, len(v.positions))
	}
	if want := v.positions[v.next]; s.Position != want {
		return refuse("position %d, the seed leads to %d", s.Position, want)
	}
	if len(s.Data) > dag.MaxBlock {
		return refuse("a chunk of %d bytes", len(s.Data))
	}
	p, err := proof.Parse(s.Proof)
	if err != nil {
		return refuse("%w", err)
	}
	if !bytes.Equal(p.EntryBlock, v.h.Entry) || !bytes.Equal(p.Checkpoint, v.h.Checkpoint) {
		return refuse("the proof is of another entry, or under another checkpoint, than the head")
	}
	got, err := p.Verify(v.trust)
	if err != nil {
		return refuse("%w", err)
	}
	if got.Scope != proof.ScopeRange || len(got.Range.Sizes) != 1 {
		return refuse("the proof is not of one chunk")
	}
	if err := v.place(s, got); err != nil {
		return err
	}
	if err := got.CheckRange(bytes.NewReader(s.Data)); err != nil {
		return refuse("%w", err)
	}
	if v.verified == nil {
		v.verified = got
	} else if got.Index != v.verified.Index {
		return refuse("entry %d after entry %d", got.Index, v.verified.Index)
	}
	v.files = append(v.files, place{got.File.Index, s.FileStart, got.File.Leaf.Size})
	v.hash(s)
	v.next++
	return nil
}

// place checks that the position lies in the chunk.
func (v *Verifier) place(s Sample, got *proof.Verified) error {
	l, r := got.File.Leaf, got.Range
	if s.Path != l.Path || s.ChunkStart != r.Offset {
		return refuse("the proof is of byte %d of %q, not of byte %d of %q", r.Offset, l.Path, s.ChunkStart, s.Path)
	}
	if start, ok := v.starts[l.Path]; v.starts != nil && (!ok || start != s.FileStart) {
		return refuse("%q begins at byte %d of the dataset, not at %d", l.Path, start, s.FileStart)
	}
	if v.entry.Size < l.Size || s.FileStart > v.entry.Size-l.Size || v.entry.Files == 1 && s.FileStart != 0 {
		return refuse("%q, of %d bytes, cannot begin at byte %d of a dataset of %d", l.Path, l.Size, s.FileStart, v.entry.Size)
	}
	if from := s.FileStart + r.Offset; s.Position < from || s.Position-from >= r.Size() {
		return refuse("byte %d is not in the chunk, which has %d bytes from %d on", s.Position, r.Size(), from)
	}
	return nil
}

// hash adds a sample to the digest of the answer.
func (v *Verifier) hash(s Sample) {
	var b []byte
	b = binary.BigEndian.AppendUint64(b, s.Position)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Path)))
	b = append(b, s.Path...)
	b = binary.BigEndian.AppendUint64(b, s.FileStart)
	b = binary.BigEndian.AppendUint64(b, s.ChunkStart)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Data)))
	digest := sha256.Sum256(s.Data)
	b = append(b, digest[:]...)
	keyed := sha256.New()
	keyed.Write(v.key[:])
	keyed.Write(s.Data)
	v.samples.Write(keyed.Sum(b))
}

// Finish says whether the answer is complete, and what it has shown.
func (v *Verifier) Finish() (*Result, error) {
	if v.next != len(v.positions) {
		return nil, refuse("the answer ends before draw %d of %d", v.next, len(v.positions))
	}
	if err := v.layout(); err != nil {
		return nil, err
	}
	return &Result{
		Challenge: v.c, Verified: v.verified, FilesProven: v.starts != nil || v.entry.Files == 1,
		checkpoint: v.checkpoint, entry: v.digest, samples: [32]byte(v.samples.Sum(nil)),
	}, nil
}

// layout checks that there can be a dataset in which the files lie where the samples
// say: in the order of their leaves, none over another, without gaps where no leaf is
// between them.
func (v *Verifier) layout() error {
	slices.SortFunc(v.files, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.leaf, b.leaf), cmp.Compare(a.start, b.start))
	})
	end, before := uint64(0), place{}
	for i, f := range v.files {
		if i > 0 && f == before {
			continue
		}
		// How many leaves, of which no sample tells, lie before this file.
		between := f.leaf
		if i > 0 {
			between = f.leaf - before.leaf - 1
		}
		if i > 0 && f.leaf == before.leaf || f.start < end || between == 0 && f.start != end {
			return refuse("leaf %d begins at byte %d, where it cannot be", f.leaf, f.start)
		}
		end, before = f.start+f.size, f
	}
	if before.leaf == v.entry.Leaves-1 && end != v.entry.Size {
		return refuse("the last leaf ends at byte %d of %d", end, v.entry.Size)
	}
	return nil
}

// Check says whether someone's submission is what this result leads to: the same
// challenge of the same entry, answered alike. ErrRefused says what differs. That the
// submission's checkpoint is one of the log's, which this log extends, is another
// question: see SPEC.md.
func (r *Result) Check(s Submission) error {
	var errs []error
	if !bytes.Equal(s.Seed, r.Challenge.Seed) || s.Count != r.Challenge.Count {
		errs = append(errs, refuse("it answers another challenge"))
	}
	if s.Entry != r.Verified.Index {
		errs = append(errs, refuse("it is of entry %d, this is of entry %d", s.Entry, r.Verified.Index))
	}
	if s.Size == r.Verified.Checkpoint.Size && s.Checkpoint != r.checkpoint {
		errs = append(errs, refuse("it names another checkpoint of size %d", s.Size))
	}
	if got := r.Response(s.Checkpoint); len(errs) == 0 && s.Response != got {
		errs = append(errs, refuse("its response is %x, the answer gives %x", s.Response, got))
	}
	return errors.Join(errs...)
}
