package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

func (r *engineReport) print(out io.Writer) {
	fmt.Fprintln(out, "The engine in one process, warm page cache")
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(r.Ranges)+len(r.Proofs) > 0 {
		fmt.Fprintln(tw, "\tp50 µs\tp99 µs\tmax µs\t")
	}
	row := func(what string, l latency) {
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.0f\t\n", what, 1e6*l.P50, 1e6*l.P99, 1e6*l.Max)
	}
	for _, g := range r.Ranges {
		row(fmt.Sprintf("64 KiB anywhere in %s, frames of %d KiB", g.Workload, g.Frame>>10), g.Took)
	}
	for _, p := range r.Proofs {
		row("resolve "+p.What, p.Resolve)
		row("prove it", p.Prove)
		row("verify, both signatures", p.Verify)
		if p.Check != nil {
			row("and hash its data", *p.Check)
		}
	}
	tw.Flush()
	fmt.Fprintln(out)
	for _, g := range r.Ranges {
		fmt.Fprintf(out, "ranges of %s, %.0f MB, frames of %d KiB: cache of decoded frames %.0f MB, hit rate %.3f, %.2f frames read for a range, peak %.0f MB\n",
			g.Workload, float64(g.Size)/mb, g.Frame>>10, float64(g.Cache)/mb, g.Hits, g.Frames, float64(g.Peak)/mb)
	}
	for _, p := range r.Proofs {
		fmt.Fprintf(out, "proof of %s in a ledger of %d entries: %d bytes, at most %d\n", p.What, p.Entries, p.Bytes, p.Most)
	}
	for _, p := range r.Parts {
		p.print(out)
	}
	if g := r.Growth; g != nil {
		for i := range g.Puts {
			m := g.Puts[i].Median
			fmt.Fprintf(out, "put of %.0f MB of new source into a store of %d blocks: %.2f s (%.2f to %.2f), CPU %.2f s (%.2f to %.2f), peak %.0f MB\n",
				float64(g.Bytes)/mb, g.Blocks[i], m.Wall, g.Puts[i].Min.Wall, g.Puts[i].Max.Wall, m.CPU, g.Puts[i].Min.CPU, g.Puts[i].Max.CPU, float64(m.Peak)/mb)
		}
		fmt.Fprintf(out, "open of the store of %d blocks: %.0f ms (%.0f to %.0f), peak %.0f MB\n",
			g.Blocks[1], 1e3*g.open().Median, 1e3*g.open().Min, 1e3*g.open().Max, float64(g.Peak)/mb)
	}
	fmt.Fprintln(out)
}

// Targets of the engine: seconds, bytes, parts.
const (
	rangeP50, rangeP99 = 0.4e-3, 2e-3
	proveP50           = 150e-6
	verifyP50          = 150e-6
	rangeProofMost     = 2500
	openMost           = 0.5
	growthMost         = 0.10
)

func (r *engineReport) judge(say sayFunc) {
	for _, g := range r.Ranges {
		say(g.Took.P50 <= rangeP50 && g.Took.P99 <= rangeP99, "ranges of %s, frames of %d KiB: p50 %.2f ms, p99 %.2f ms (at most %.1f and %.0f; hit rate %.3f)",
			g.Workload, g.Frame>>10, 1e3*g.Took.P50, 1e3*g.Took.P99, 1e3*rangeP50, 1e3*rangeP99, g.Hits)
		say(g.Peak <= peakLimit, "ranges of %s, frames of %d KiB: peak memory %d MiB (at most %d)", g.Workload, g.Frame>>10, g.Peak>>20, peakLimit>>20)
	}
	for _, p := range r.Proofs {
		say(p.Prove.P50 <= proveP50, "prove %s: p50 %.0f µs (at most %.0f)", p.What, 1e6*p.Prove.P50, 1e6*proveP50)
		say(p.Verify.P50 <= verifyP50, "verify %s: p50 %.0f µs (at most %.0f)", p.What, 1e6*p.Verify.P50, 1e6*verifyP50)
		if p.Check != nil {
			say(p.Most <= rangeProofMost, "proof of %s: %d bytes (at most %d)", p.What, p.Most, rangeProofMost)
		}
	}
	if g := r.Growth; g != nil {
		say(g.open().Median <= openMost, "open of %d blocks: %.2f s (at most %.1f)", g.Blocks[1], g.open().Median, openMost)
		small, large := g.Puts[0], g.Puts[1]
		clock, work := ratios(&large, &small, wall), ratios(&large, &small, cpu)
		say(work.Median <= 1+growthMost, "put into %d blocks: %.2f times the CPU of that into %d (at most %.2f; rounds %.2f to %.2f; by the clock %.2f, %.2f to %.2f)",
			g.Blocks[1], work.Median, g.Blocks[0], 1+growthMost, work.Min, work.Max, clock.Median, clock.Min, clock.Max)
		peak := max(large.Max.Peak, g.Peak)
		say(peak <= peakLimit, "put into and open of %d blocks: peak memory %d MiB (at most %d)", g.Blocks[1], peak>>20, peakLimit>>20)
	}
}

// open is of the times that opening took.
func (g *growthResult) open() spread { return spreadOf(slices.Clone(g.Open)) }
