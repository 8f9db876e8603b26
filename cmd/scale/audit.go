package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

const (
	// freshSeed is the length of seeds that are made here.
	freshSeed = 32
	// auditConfidence is how sure the bound is that an audit gives for what is lost.
	auditConfidence = 0.99
)

type auditFlags struct {
	verifyFlags
	seed, check string
	count       int
	manifest    bool
}

func (a *app) auditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit [REF]",
		Short: "Have a node or store show that it holds the bytes of a dataset",
		Long: `Asks for the chunks at random places of a dataset, with their bytes and proofs, and
verifies all of them. The places follow from a seed that nobody knew before: who has kept
only digests cannot answer. Prints what was shown and a line that a task can submit to a
chain, or refuses with exit code 4.

A seed of one's own (--seed) counts only if nobody who answers could know it beforehand.
With --check it asks again what a submission says it asked, and compares.

What is trusted comes from you, as with "scale verify": --key or --policy, and --curator.
Without a key the log's is taken from the node or store itself, and the output says so.`,
		Example: `  scale audit photos
  scale audit photos@1 --count 1000 --key log.vkey --node node.example.org:7070
  scale audit --check "$SUBMISSION" --key log.vkey`,
		Args: cobra.MaximumNArgs(1),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.seed, "seed", "", "`HEX` of 16 to 64 bytes; default is 32 random ones")
	fl.IntVar(&f.count, "count", 50, "`number` of samples, 1 to 1024")
	fl.StringVar(&f.check, "check", "", "`LINE` that somebody submitted; its seed and count are used")
	fl.BoolVar(&f.manifest, "manifest", true, "verify by the dataset's manifest which file each place is in")
	fl.StringVar(&f.key, "key", "", "the log's public `key` (vkey), or a file that holds it")
	fl.StringVar(&f.policy, "policy", "", "`file` with a C2SP tlog-policy: logs and witness quorum")
	fl.StringArrayVar(&f.curators, "curator", nil, "accept only entries signed by this curator `key`; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref := ""
		if len(args) > 0 {
			ref = args[0]
		}
		return a.audit(cmd, ref, f)
	}
	return cmd
}

func (a *app) audit(cmd *cobra.Command, ref string, f auditFlags) (err error) {
	challenge, submitted, err := f.challenge(cmd)
	if err != nil {
		return err
	}
	if submitted != nil && ref == "" {
		ref = ":" + strconv.FormatInt(submitted.Entry, 10)
	}
	if ref == "" {
		return usagef("audit needs a REF, or --check with a submission")
	}
	var trust proof.Trust
	given := f.key != "" || f.policy != ""
	if given || len(f.curators) > 0 {
		if trust, err = f.trust(); err != nil {
			return err
		}
	}
	s, err := a.open(cmd, compress.Default)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	if !given {
		if trust.Policy, err = proof.TrustKey(s.VerifierKey()); err != nil {
			return err
		}
	}
	ctx := cmd.Context()
	o, err := s.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	if o.Path != "" {
		return usagef("%s is inside a dataset: only a whole dataset can be audited", quote(ref))
	}
	w := auditor{a: a, s: s, o: o, trust: trust, manifest: f.manifest && o.Dataset.Files > 1}
	r, err := w.run(ctx, challenge)
	if err != nil {
		return fmt.Errorf("audit of %s: %w", quote(ref), err)
	}
	if submitted != nil {
		if err := r.Check(*submitted); err != nil {
			return fmt.Errorf("the submission does not hold: %w", err)
		}
	}
	return w.print(r, given, len(f.curators) > 0, submitted != nil)
}

// challenge returns what to ask, and the submission of --check.
func (f *auditFlags) challenge(cmd *cobra.Command) (audit.Challenge, *audit.Submission, error) {
	if f.check != "" {
		if cmd.Flags().Changed("seed") || cmd.Flags().Changed("count") {
			return audit.Challenge{}, nil, usagef("--check brings its own seed and count")
		}
		s, err := audit.ParseSubmission(f.check)
		if err != nil {
			return audit.Challenge{}, nil, usagef("--check: %w", err)
		}
		return audit.Challenge{Seed: s.Seed, Count: s.Count}, &s, nil
	}
	c := audit.Challenge{Seed: make([]byte, freshSeed), Count: f.count}
	rand.Read(c.Seed) // never fails
	if cmd.Flags().Changed("seed") {
		var err error
		if c.Seed, err = hex.DecodeString(f.seed); err != nil || len(c.Seed) < audit.MinSeed || len(c.Seed) > audit.MaxSeed {
			return c, nil, usagef("--seed %q: must be %d to %d bytes in hexadecimal", f.seed, audit.MinSeed, audit.MaxSeed)
		}
	}
	if c.Count < 1 || c.Count > audit.MaxCount {
		return c, nil, usagef("--count %d: must be 1 to %d", c.Count, audit.MaxCount)
	}
	return c, nil, nil
}

// An auditor audits one dataset.
type auditor struct {
	a        *app
	s        engine
	o        store.Object
	trust    proof.Trust
	manifest bool
	bytes    uint64 // of all samples
}

// run asks and verifies. Nothing that comes is believed.
func (w *auditor) run(ctx context.Context, c audit.Challenge) (*audit.Result, error) {
	var manifest *proof.Proof
	if w.manifest {
		var err error
		if manifest, err = w.s.Prove(ctx, w.o, store.ProveOptions{Manifest: true}); err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
	}
	return w.s.Audit(ctx, w.o, grpcapi.AuditOptions{Challenge: c, Trust: w.trust, Manifest: manifest, Progress: func(bytes uint64) {
		w.bytes = bytes
		w.a.meter.update(bytes, 0)
	}})
}

// Audit does on a store of this process what a client does on a node.
func (o *owner) Audit(ctx context.Context, of store.Object, q grpcapi.AuditOptions) (*audit.Result, error) {
	answer, err := o.Challenge(ctx, of, q.Seed, q.Count)
	if err != nil {
		return nil, err
	}
	bytes := uint64(0)
	return audit.Verify(q.Challenge, answer.Head, func(yield func(audit.Sample, error) bool) {
		for s, err := range answer.Samples {
			bytes += uint64(len(s.Data))
			q.Progress(bytes)
			if !yield(s, err) {
				return
			}
		}
	}, q.Trust, q.Manifest)
}

// An auditView is what an audit has shown, in JSON.
type auditView struct {
	Holds          bool    `json:"holds"`
	Dataset        string  `json:"dataset"`
	CID            string  `json:"cid"`
	Size           uint64  `json:"size"`
	Seed           string  `json:"seed"`
	Count          int     `json:"count"`
	SampledBytes   uint64  `json:"sampled_bytes"`
	LostBelow      float64 `json:"lost_below"` // share of the bytes
	Confidence     float64 `json:"confidence"` // of that
	FilesProven    bool    `json:"files_proven"`
	Entry          int64   `json:"entry"`
	EntryCID       string  `json:"entry_cid"`
	Origin         string  `json:"origin"`
	KeyGiven       bool    `json:"key_given"` // the log's key, by the auditor
	TreeSize       int64   `json:"tree_size"`
	CheckpointHash string  `json:"checkpoint_hash"`
	Curator        string  `json:"curator"`
	CuratorTrusted bool    `json:"curator_trusted"`
	Response       string  `json:"response"`
	Submission     string  `json:"submission"`
	Checked        bool    `json:"checked"` // the submission of --check holds
}

func (w *auditor) print(r *audit.Result, keyGiven, curatorChecked, checked bool) error {
	sub := r.Submission()
	line, err := sub.Format()
	if err != nil {
		return err
	}
	v, e := r.Verified, r.Verified.Entry
	view := auditView{
		Holds: true, Dataset: e.Name, CID: e.Root.String(), Size: e.Size, Seed: hex.EncodeToString(sub.Seed), Count: sub.Count,
		SampledBytes: w.bytes, LostBelow: lostBelow(sub.Count), Confidence: auditConfidence, FilesProven: r.FilesProven,
		Entry: v.Index, EntryCID: v.CID.String(), Origin: v.Checkpoint.Origin, KeyGiven: keyGiven, TreeSize: v.Checkpoint.Size,
		CheckpointHash: hex.EncodeToString(sub.Checkpoint[:]), Curator: e.Curator.String(), CuratorTrusted: v.CuratorTrusted,
		Response: hex.EncodeToString(sub.Response[:]), Submission: line, Checked: checked,
	}
	w.a.meter.clear()
	if w.a.json {
		return w.a.print(view)
	}
	files := "proven, by the dataset's manifest"
	switch {
	case !r.FilesProven:
		files = "which file each sample is from is claimed"
	case e.Files == 1:
		files = "there is one"
	}
	log, curator := view.Origin+" (by your key)", view.Curator+" (checked)"
	if !keyGiven {
		log = view.Origin + " (by the key that came from there, not by yours)"
	}
	if !curatorChecked {
		curator = view.Curator + " (admitted by the log, not checked by you)"
	}
	fields := []field{
		{"audit", fmt.Sprintf("holds: %d samples, %s", view.Count, sizeText(view.SampledBytes))},
		{"lost", fmt.Sprintf("less than %.2g %% of the bytes (%.0f %% confidence)", 100*view.LostBelow, 100*view.Confidence)},
		{"dataset", view.Dataset}, {"cid", view.CID}, {"size", sizeText(view.Size)}, {"files", files},
		{"entry", fmt.Sprintf(":%d %s", view.Entry, view.EntryCID)},
		{"log", log}, {"tree size", view.TreeSize}, {"curator", curator}, {"seed", view.Seed},
		{"submission", line},
	}
	if checked {
		fields = append(fields, field{"checked", "the submission holds"})
	}
	return w.a.printFields(fields...)
}

// lostBelow returns the least share of the bytes that, if lost, would have been found with
// auditConfidence: who lost the share p passes n samples with probability (1-p)^n.
func lostBelow(n int) float64 { return 1 - math.Pow(1-auditConfidence, 1/float64(n)) }
