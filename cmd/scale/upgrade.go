package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

func (a *app) upgradeCommand() *cobra.Command {
	var out string
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "upgrade PROOF",
		Short: "Add to a proof the receipts of anchors that came after it",
		Long: `Adds to PROOF the receipts of those anchors that cover its entry and were not there, or not
final, when it was made, and puts it in its place, or into the file that -o names. The rest
of the proof stays what it is. It needs the store, or the node, that the proof is from.`,
		Example: `  scale upgrade photos.tlog-proof`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` for the new proof, \"-\" for standard output, instead of PROOF itself")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace the file of -o if it exists")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		ctx := cmd.Context()
		old, err := readProof(args[0])
		if err != nil {
			return err
		}
		p, err := proof.Parse(old)
		if err != nil {
			return fmt.Errorf("%s: %w", quote(args[0]), err)
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		policy, err := proof.TrustKey(s.VerifierKey())
		if err != nil {
			return err
		}
		v, err := p.Verify(proof.Trust{Policy: policy})
		if err != nil {
			return fmt.Errorf("%s is no proof from this store: %w", quote(args[0]), err)
		}
		news, _, err := s.AnchorReceipts(ctx, v.Index)
		if err != nil {
			return err
		}
		var claims []anchor.Claim
		for _, r := range v.Receipts {
			claims = append(claims, anchor.Claim{Receipt: r.Data, Size: r.Size, Path: r.Path})
		}
		var list []proof.Receipt
		for _, c := range anchor.MergeClaims(claims, news) {
			list = append(list, proof.Receipt{Data: c.Receipt, Size: c.Size, Path: c.Path})
		}
		if err := p.SetReceipts(list); err != nil {
			return err
		}
		b, err := p.Format()
		if err != nil {
			return err
		}
		// What a node sent is looked at like what a stranger sent.
		if v, err = p.Verify(proof.Trust{Policy: policy}); err == nil {
			_, err = checkReceipts(p, v, nil)
		}
		if err != nil {
			return fmt.Errorf("receipts of entry :%d: %w", p.Index, err)
		}
		changed := !bytes.Equal(b, old)
		switch {
		case out == "-":
			if !a.json {
				return a.printf("%s", b)
			}
		case out != "" || changed:
			to, replace := out, overwrite
			if out == "" {
				to, replace = args[0], true
			}
			err := a.writeFile(ctx, to, 0o666, replace, func(w io.Writer) error {
				_, err := w.Write(b)
				return err
			})
			if err != nil {
				return err
			}
		}
		return a.printUpgrade(p, b, changed, out == "-")
	}
	return cmd
}

// printUpgrade says what a proof has now.
func (a *app) printUpgrade(p *proof.Proof, b []byte, changed, stdout bool) error {
	chains, final := []string{}, []string{}
	for _, r := range p.Receipts {
		receipt, err := anchor.ParseReceipt(r.Data)
		if err != nil {
			return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
		}
		chains = append(chains, receipt.Chain)
		if receipt.Final {
			final = append(final, receipt.Chain)
		}
	}
	for _, l := range []*[]string{&chains, &final} {
		slices.Sort(*l)
		*l = slices.Compact(*l)
	}
	if !a.json {
		what := "nothing new"
		if changed {
			what = "upgraded"
		}
		a.note("%s: %d receipts, on %v, final on %v", what, len(p.Receipts), chains, final)
		return nil
	}
	v := map[string]any{"entry": p.Index, "receipts": len(p.Receipts), "chains": chains, "final": final, "changed": changed, "bytes": len(b)}
	if stdout {
		v["proof"] = string(b)
	}
	return a.print(v)
}
