// Command bench measures SCALE beside its peers on the same data in the same run.
//
// It makes seeded workloads, runs each tool over each of them in turn and prints
// medians and spreads: time, CPU seconds, peak memory, bytes written and stored, and
// whether that was durable when the tool returned. It compares what the tools give back
// with what they were given and has them check their stores. In the full scale it ends
// with the targets, and fails if SCALE misses one. It uses the tools' command lines, the API
// of a node (what "scale serve" does, it compares with what the command line does alone), and
// for ranges and proofs the engine, in processes of their own. Anchors it measures in its own
// process, against the local chains, and restoring without them.
//
// Making the data takes a while; it stays in the data directory for the next run.
package main

import (
	"context"
	"errors"
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
	scale, bin, dir, out, only, peers, publish string
	rounds                                     int
	memory                                     bool
}

func main() {
	var o options
	flag.StringVar(&o.scale, "scale", "quick", "how much data: quick or full")
	flag.StringVar(&o.bin, "bin", "bin/scale", "the SCALE binary")
	flag.StringVar(&o.dir, "dir", "", "directory for data and scratch stores, with the peers that were built in it (required)")
	flag.StringVar(&o.out, "out", "bench/out", "directory for the JSON results")
	flag.StringVar(&o.only, "only", "", "names of workloads, of parts of the engine's or the node's, anchor or memory, separated by commas; default all, with the quick scale neither node nor anchor nor memory")
	flag.StringVar(&o.peers, "peers", "", "names of what to compare SCALE with, separated by commas; default all")
	flag.StringVar(&o.publish, "publish", "", "also write the results to this file with .json behind it, in place of what it has of the same parts, and the chart of them with .svg")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each tool runs over each workload")
	flag.BoolVar(&o.memory, "memory", false, "only put and get under a limit of 512 MiB of memory")
	chart := flag.String("chart", "", "draw the results of this JSON file, as SVG to standard output, and measure nothing")
	judge := flag.String("verdict", "", "say which targets the results of this JSON file meet, and measure nothing")
	stat := flag.String("benchstat", "", "print the results of this JSON file as benchstat reads them, and measure nothing")
	engine := flag.String("engine", "", "measure the engine by this job, as bench itself asks for it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *engine != "":
		err = engineJob(ctx, *engine, os.Stdout)
	case *chart != "":
		err = convert(*chart, os.Stdout, (*report).chart)
	case *judge != "":
		err = convert(*judge, os.Stdout, (*report).verdict)
	case *stat != "":
		err = convert(*stat, os.Stdout, (*report).benchstat)
	default:
		err = bench(ctx, o, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// convert writes the results in a file in another form.
func convert(file string, out io.Writer, as func(*report, io.Writer) error) error {
	r, err := load(file)
	if err != nil {
		return err
	}
	return as(r, out)
}

// Names that -only takes besides those of workloads and of parts.
const (
	enginePart = "engine"
	nodePart   = "node"
	anchorPart = "anchor"
	memoryPart = "memory"
)

// A choice is what -only says.
type choice struct {
	names []string // nil for all of the scale
	full  bool
}

// takes says whether something was chosen by its own name or that of its group. Without
// names a quick run leaves out what takes long and is no comparison.
func (c choice) takes(name, group string) bool {
	if len(c.names) == 0 {
		return c.full || group == "" || group == enginePart
	}
	return slices.Contains(c.names, name) || group != "" && slices.Contains(c.names, group)
}

func bench(ctx context.Context, o options, out, progress io.Writer) error {
	if o.dir == "" || o.rounds < 1 || flag.NArg() > 0 {
		return errors.New("usage: bench -dir DIR [-scale quick|full] [-only NAMES] [-peers NAMES] [-rounds N] [-memory]")
	}
	for _, p := range []*string{&o.bin, &o.dir} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if o.memory {
		o.only = memoryPart
	}
	c := choice{full: o.scale == "full"}
	if o.only != "" {
		c.names = strings.Split(o.only, ",")
	}
	b := &surroundings{bin: o.bin, scratch: filepath.Join(o.dir, "scratch"), rounds: o.rounds, full: c.full, progress: progress}
	// What a run that was killed left.
	if err := os.RemoveAll(b.scratch); err != nil {
		return err
	}
	defer os.RemoveAll(b.scratch)
	// What SCALE remembers of files that were put: not between runs.
	if err := os.Setenv("XDG_CACHE_HOME", filepath.Join(b.scratch, "cache")); err != nil {
		return err
	}
	r := newReport(o.scale, o.rounds)
	if o.only != anchorPart { // which needs neither the data nor the tools
		if err := compareTools(ctx, o, c, b, r); err != nil {
			return err
		}
	}
	var err error
	if r.Engine, err = b.engine(ctx, c); err != nil {
		return err
	}
	if r.Node, err = (&nodeBench{b}).run(ctx, c); err != nil {
		return err
	}
	if c.takes(anchorPart, anchorPart) {
		if r.Anchor, err = (&nodeBench{b}).anchors(ctx); err != nil {
			return err
		}
	}
	if c.takes(memoryPart, memoryPart) {
		if r.Memory, err = b.memory(ctx); err != nil {
			return err
		}
	}
	r.stamp()
	file := filepath.Join(o.out, "bench-"+o.scale+".json")
	if err := r.save(file); err != nil {
		return err
	}
	if o.publish != "" {
		if err := r.publish(o.publish); err != nil {
			return err
		}
	}
	r.print(out)
	fmt.Fprintf(progress, "all figures are in %s; the data stays in %s for the next run, make clean removes it\n", file, o.dir)
	if !c.full {
		// What a store takes at least would decide, not how it grows.
		return nil
	}
	return r.verdict(out)
}

// surroundings are what everything that is measured has in common.
type surroundings struct {
	bin, scratch string
	rounds       int
	full         bool
	progress     io.Writer
	workloads    map[string]workload
}

// compareTools prepares the workloads, and runs the tools over those that were chosen.
func compareTools(ctx context.Context, o options, c choice, b *surroundings, r *report) error {
	all, err := pick(tools(o.bin, o.dir), o.peers)
	if err != nil {
		return err
	}
	if o.only == memoryPart {
		all = all[:1]
	}
	if all, r.Versions, err = present(ctx, all); err != nil {
		return err
	}
	workloads, err := prepare(o.dir, o.scale, b.progress)
	if err != nil {
		return err
	}
	b.workloads = make(map[string]workload)
	for _, w := range workloads {
		b.workloads[w.name] = w
	}
	for _, name := range c.names {
		if _, ok := b.workloads[name]; !ok && !isPart(name) {
			return fmt.Errorf("-only %s: there is no %s", o.only, name)
		}
	}
	for _, w := range workloads {
		if !c.takes(w.name, "") {
			continue
		}
		r.What[w.name] = fmt.Sprintf("%s, %.0f MB", w.what, float64(w.size)/mb)
		results, err := measure(ctx, all, w, o.rounds, b.scratch, func(round int, t tool) {
			fmt.Fprintf(b.progress, "round %d of %d: %s, %s\n", round+1, o.rounds, w.name, t.name)
		})
		if err != nil {
			return err
		}
		r.Results = append(r.Results, results...)
	}
	r.compare()
	r.Floor, err = peakOf("self")
	return err
}

// isPart says whether -only takes a name that is not a workload's.
func isPart(name string) bool {
	for _, p := range nodeParts {
		if name == p.name {
			return true
		}
	}
	for _, p := range engineParts {
		if name == p.name {
			return true
		}
	}
	return slices.Contains([]string{enginePart, nodePart, anchorPart, memoryPart}, name)
}
