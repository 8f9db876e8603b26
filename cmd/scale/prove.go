package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor/agent"
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

type proveFlags struct {
	rng, out, data      string
	manifest, overwrite bool
	anchored            bool
	rule                string
	timeout             time.Duration
}

func (a *app) proveCommand() *cobra.Command {
	var f proveFlags
	cmd := &cobra.Command{
		Use:   "prove REF",
		Short: "Make a proof of a dataset, a file in it, or a range of a file",
		Long: `Makes a .tlog-proof that REF is in the log, on standard output unless -o is given.
Whoever has the proof, the data and the log's public key can verify it.

A range is proven as the smallest run of whole chunks around it; standard error says
which bytes these are, and --data writes them, ready for "scale verify".
With --manifest the proof of a dataset holds the list of its files, so that
verification can name what differs; it grows with the number of files.

The receipts of anchors that cover it are put into the proof. --anchored waits for one that
is final first; --anchors says on how many of the configured chains. "scale upgrade" adds
those that come later.`,
		Example: `  scale prove photos -o photos.tlog-proof
  scale prove photos/a.jpg > a.tlog-proof
  scale prove photos --anchored --anchors all -o photos.tlog-proof
  scale prove big.tar --range 1G:1025M --data part.bin -o part.tlog-proof`,
		Args: cobra.ExactArgs(1),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.rng, "range", "", rangeHelp)
	fl.BoolVar(&f.manifest, "manifest", false, "of a dataset: add the list of its files")
	fl.StringVarP(&f.out, "output", "o", "", "`file` for the proof instead of standard output")
	fl.StringVar(&f.data, "data", "", "`file` for the bytes that the proof covers")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace files that exist")
	fl.BoolVar(&f.anchored, "anchored", false, "wait until a final anchor covers it")
	fl.StringVar(&f.rule, "anchors", "any", "with --anchored: "+rulePlain)
	fl.DurationVar(&f.timeout, "timeout", 0, "with --anchored: how long to wait at most; then the exit code is 8. 0 is for ever")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.prove(cmd, args[0], f) }
	return cmd
}

func (a *app) prove(cmd *cobra.Command, ref string, f proveFlags) (err error) {
	ctx := cmd.Context()
	if _, err := parseRule(f.rule, math.MaxInt); err != nil {
		return err
	}
	open := func() (engine, error) { return a.open(cmd, compress.Default) }
	if f.anchored {
		open = func() (engine, error) { return a.openAnchoring(cmd, (*agent.Agent).Start) }
	}
	s, err := open()
	if err != nil {
		return err
	}
	defer closing(s, &err)
	o, err := s.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	isFile := o.Info.Kind == dag.KindFile
	switch {
	case f.rng != "" && !isFile:
		return usagef("--range: %s is a %v, not a file", quote(ref), o.Info.Kind)
	case f.data != "" && !isFile:
		return usagef("--data: %s is a %v, not a file; take it out with: scale get", quote(ref), o.Info.Kind)
	case f.manifest && o.Path != "":
		return usagef("--manifest: %s is inside a dataset, and only a whole one has a manifest", quote(ref))
	case f.manifest && f.rng != "":
		return usagef("--manifest and --range do not go together")
	}
	po := store.ProveOptions{Manifest: f.manifest}
	if f.rng != "" {
		if po.Range, err = parseRange(f.rng, o.Info.Size); err != nil {
			return err
		}
	}
	if f.anchored {
		if err := a.awaitAnchors(ctx, s, o, f); err != nil {
			return err
		}
	}
	p, err := s.Prove(ctx, o, po)
	if err != nil {
		return err
	}
	b, err := p.Format()
	if err != nil {
		return err
	}
	covered := store.Range{To: o.Info.Size}
	if p.Range != nil {
		covered = store.Range{From: p.Range.Offset, To: p.Range.Offset + p.Range.Size()}
		a.note("the proof covers bytes %d:%d of %d, chunks %d to %d of %d", covered.From, covered.To, o.Info.Size,
			p.Range.First, p.Range.First+uint64(len(p.Range.Sizes))-1, p.File.Leaf.Chunks)
	}
	if f.data != "" {
		err := a.writeFile(ctx, f.data, 0o666, f.overwrite, func(w io.Writer) error {
			return a.getRange(ctx, s, o, covered, w)
		})
		if err != nil {
			return err
		}
	}
	if f.out != "" {
		err := a.writeFile(ctx, f.out, 0o666, f.overwrite, func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
		if err != nil {
			return err
		}
	}
	return a.printProof(f, o, p, b, covered)
}

// A proofView describes a proof that was made.
type proofView struct {
	Dataset  string    `json:"dataset"`
	CID      string    `json:"cid"`
	File     *pathView `json:"file,omitempty"`
	From     uint64    `json:"from"`
	To       uint64    `json:"to"`
	Entry    int64     `json:"entry"`
	Manifest bool      `json:"manifest"`
	Receipts int       `json:"receipts"`
	Bytes    int       `json:"bytes"`
	Output   string    `json:"output,omitempty"`
	Proof    string    `json:"proof,omitempty"` // unless it went to a file
}

func (a *app) printProof(f proveFlags, o store.Object, p *proof.Proof, b []byte, covered store.Range) error {
	switch {
	case !a.json && f.out == "":
		return a.printf("%s", b)
	case !a.json:
		a.note("wrote a proof of %d bytes to %s", len(b), quote(f.out))
		return nil
	}
	v := proofView{
		Dataset: o.Dataset.Name, CID: o.Dataset.CID.String(), From: covered.From, To: covered.To,
		Entry: p.Index, Manifest: f.manifest, Receipts: len(p.Receipts), Bytes: len(b), Output: f.out,
	}
	if p.File != nil {
		file := viewPath(p.File.Leaf.Path)
		v.File = &file
	}
	if f.out == "" {
		v.Proof = string(b)
	}
	return a.print(v)
}

// getRange writes a range of a file; that of an empty file is empty.
func (a *app) getRange(ctx context.Context, s engine, o store.Object, r store.Range, w io.Writer) error {
	if r.From == r.To {
		return nil
	}
	n, err := s.Get(ctx, o, &r, a.meter.count(w, r.To-r.From))
	if err == nil && uint64(n) != r.To-r.From {
		err = fmt.Errorf("%d bytes came, not %d: %w", n, r.To-r.From, store.ErrCorrupt)
	}
	return err
}
