// Command bench measures SCALE beside zstd and restic on the same data in the same run.
//
// It makes seeded workloads, runs each tool over each of them in turn and prints
// medians: time, CPU seconds, peak memory, bytes stored, and what of it was durable
// when the tool returned. It compares what the tools give back with what they were
// given and has them check their stores. In the full scale it ends with the targets,
// and fails if SCALE misses one. It only uses the tools' command lines, and the API of a
// node: what "scale serve" does, it compares with what the command line does alone. Anchors
// it measures in its own process, against the local chains, and restoring without them.
//
// Making the data takes a while; it stays in the data directory for the next run.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

type options struct {
	scale, bin, dir, out, only string
	rounds                     int
	memory                     bool
}

func main() {
	var o options
	flag.StringVar(&o.scale, "scale", "quick", "how much data: quick or full")
	flag.StringVar(&o.bin, "bin", "bin/scale", "the SCALE binary")
	flag.StringVar(&o.dir, "dir", "", "directory for data and scratch stores, with restic in it (required)")
	flag.StringVar(&o.out, "out", "bench/out", "directory for the JSON results")
	flag.StringVar(&o.only, "only", "", "names of workloads, of parts of the node's, or anchor, separated by commas; default all")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each tool runs over each workload")
	flag.BoolVar(&o.memory, "memory", false, "instead put and get under a limit of 512 MiB of memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, o options, out, progress io.Writer) error {
	if o.dir == "" || o.rounds < 1 || flag.NArg() > 0 {
		return fmt.Errorf("usage: bench -dir DIR [-scale quick|full] [-only NAMES] [-rounds N] [-memory]")
	}
	for _, p := range []*string{&o.bin, &o.dir} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	scratch := filepath.Join(o.dir, "scratch")
	if o.only == anchorPart { // it needs neither the data nor the tools
		return anchorsAlone(ctx, o, scratch, out, progress)
	}
	all := tools(o.bin, o.dir)
	if o.memory {
		all = all[:1]
	}
	said, err := versions(all)
	if err != nil {
		return err
	}
	workloads, err := prepare(o.dir, o.scale, progress)
	if err != nil {
		return err
	}
	data := make(map[string]workload)
	for _, w := range workloads {
		data[w.name] = w
	}
	var names []string
	if o.only != "" {
		names = strings.Split(o.only, ",")
		workloads = slices.DeleteFunc(workloads, func(w workload) bool { return !slices.Contains(names, w.name) })
	}
	for _, name := range names {
		if _, ok := data[name]; !ok && !isNodePart(name) && name != anchorPart {
			return fmt.Errorf("-only %s: there is no %s", o.only, name)
		}
	}
	// What a run that was killed left.
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if o.memory {
		return memory(ctx, all[0], workloads, scratch, out)
	}

	r := report{Scale: o.scale, Rounds: o.rounds, Machine: machine(), Versions: said}
	for _, w := range workloads {
		results := make([]result, len(all))
		for round := range o.rounds {
			for i := range all {
				// Another tool begins each round, so that none always runs on what
				// the same one left behind.
				at := (round + i) % len(all)
				t := all[at]
				fmt.Fprintf(progress, "round %d of %d: %s, %s\n", round+1, o.rounds, w.name, t.name)
				dir := filepath.Join(scratch, fmt.Sprintf("%s-%d-%s", w.name, round, t.name))
				got, err := try(ctx, t, w, dir, round == o.rounds-1)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, t.name, err)
				}
				results[at].Trials = append(results[at].Trials, got)
			}
		}
		for i, t := range all {
			results[i].Workload, results[i].Tool, results[i].Durable, results[i].Size = w.name, t.name, t.durable, w.size
			results[i].Median = median(results[i].Trials)
		}
		r.Results = append(r.Results, results...)
	}
	b := &nodeBench{bin: o.bin, scratch: scratch, rounds: o.rounds, full: o.scale == "full", progress: progress, workloads: data}
	if r.Node, err = b.run(ctx, names); err != nil {
		return err
	}
	if len(names) == 0 || slices.Contains(names, anchorPart) {
		if r.Anchor, err = b.anchors(ctx); err != nil {
			return err
		}
	}
	if err := r.save(o.out); err != nil {
		return err
	}
	r.print(out, workloads)
	fmt.Fprintf(progress, "the data stays in %s for the next run; make clean removes it\n", o.dir)
	if o.scale != "full" {
		// What a store takes at least would decide, not how it grows.
		return nil
	}
	return r.verdict(out)
}

// anchorsAlone measures anchors and nothing else.
func anchorsAlone(ctx context.Context, o options, scratch string, out, progress io.Writer) (err error) {
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	r := report{Scale: o.scale, Rounds: 1, Machine: machine()}
	b := &nodeBench{scratch: scratch, full: o.scale == "full", progress: progress}
	if r.Anchor, err = b.anchors(ctx); err != nil {
		return err
	}
	if err := r.save(o.out); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n", r.Machine)
	r.Anchor.print(out)
	if o.scale != "full" {
		return nil
	}
	return r.verdict(out)
}
