package main

import (
	"fmt"
	"io"
	"strings"
)

// benchstat writes the trials of every tool as lines that benchstat reads.
func (r *report) benchstat(out io.Writer) error {
	// Results of different scales are no pairs, which benchstat sees by this line.
	fmt.Fprintf(out, "scale: %s\n", r.Scale)
	for i := range r.Results {
		res := &r.Results[i]
		name := "Benchmark" + strings.ToUpper(res.Step[:1]) + res.Step[1:] + "/" + res.Workload + "/" + res.Tool
		for _, t := range res.Trials {
			fmt.Fprintf(out, "%s 1 %.0f ns/op %.6f cpu-sec/op %d peak-B %d written-B", name, 1e9*t.Wall, t.CPU, t.Peak, t.Written)
			if res.Step != stepSmall {
				fmt.Fprintf(out, " %.6g B/s", float64(res.Size)/t.Wall)
			}
			if res.Step != stepGet && res.Step != stepRestore {
				fmt.Fprintf(out, " %d stored-B", t.Stored)
			}
			fmt.Fprintln(out)
		}
	}
	if r.Engine == nil {
		return nil
	}
	one := func(name string, l latency) {
		fmt.Fprintf(out, "Benchmark%s 1 %.0f p50-ns %.0f p99-ns\n", strings.ReplaceAll(name, " ", "-"), 1e9*l.P50, 1e9*l.P99)
	}
	for _, g := range r.Engine.Ranges {
		one("Range/"+g.Workload, g.Took)
	}
	for _, p := range r.Engine.Proofs {
		one("Prove/"+p.What, p.Prove)
		one("Verify/"+p.What, p.Verify)
	}
	if g := r.Engine.Growth; g != nil {
		for _, s := range g.Open {
			fmt.Fprintf(out, "BenchmarkOpen/%d-blocks 1 %.0f ns/op\n", g.Blocks[1], 1e9*s)
		}
	}
	return nil
}
