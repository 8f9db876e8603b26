package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

func (r *report) print(out io.Writer) {
	if len(r.Results) > 0 {
		r.printTools(out)
	} else {
		fmt.Fprintf(out, "%s, %s\n", r.Machine, r.Date)
	}
	if r.Engine != nil {
		r.Engine.print(out)
	}
	if r.Node != nil {
		r.Node.print(out)
	}
	if r.Anchor != nil {
		r.Anchor.print(out)
	}
	if r.Memory != nil {
		r.Memory.print(out)
	}
}

func (r *report) printTools(out io.Writer) {
	fmt.Fprintf(out, "%s, %s; medians of %d, warm cache\n", r.Machine, r.Date, r.Rounds)
	for _, name := range r.names(func(res *result) string { return res.Tool }) {
		fmt.Fprintf(out, "%s: %s\n", name, r.Versions[name])
	}
	for name, version := range r.Versions {
		if version == "absent" {
			fmt.Fprintf(out, "%s: not on this machine, left out\n", name)
		}
	}
	fmt.Fprintln(out)
	workloads := r.names(func(res *result) string { return res.Workload })
	for _, name := range workloads {
		fmt.Fprintf(out, "%s: %s\n", name, r.What[name])
	}
	fmt.Fprintln(out, `put: into a new store; of a second version what that took and added, for zstd the whole of it
again: put of a tree that is unchanged; get: to /dev/null, a tree as a tar archive (casync: to a file)
restore: of a tree to a directory; small: put of 1 KiB, whole process, into a store that holds the workload
x: times SCALE's of the same round, median (least to most); *: encrypts, too
durable: nothing of what it stored was in memory alone when it had ended; written: bytes given to the disk`)
	fmt.Fprintf(out, "peaks up to %.0f MB are the harness's own\n", float64(r.Floor)/mb)
	fmt.Fprintln(out)
	for _, workload := range workloads {
		tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(tw, "workload\tstep\ttool\ts\tleast to most\tx\tleast to most\tMB/s\tCPU s\tx\tpeak MB\twritten MB\tstored MB\tx\tdurable\t")
		for _, step := range steps {
			for i := range r.Results {
				if res := &r.Results[i]; res.Workload == workload && res.Step == step {
					r.printRow(tw, res)
				}
			}
		}
		tw.Flush()
		fmt.Fprintln(out)
	}
}

func (r *report) printRow(out io.Writer, res *result) {
	m, tool := res.Median, res.Tool
	if res.Encrypts {
		tool += "*"
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%.3f\t%.3f to %.3f\t", res.Workload, res.Step, tool, m.Wall, res.Min.Wall, res.Max.Wall)
	if x := res.Ratio; x != nil {
		fmt.Fprintf(out, "%.2f\t%.2f to %.2f\t", x.Wall.Median, x.Wall.Min, x.Wall.Max)
	} else {
		fmt.Fprint(out, "\t\t")
	}
	if res.Step == stepSmall {
		fmt.Fprint(out, "\t")
	} else {
		fmt.Fprintf(out, "%.0f\t", res.speed())
	}
	fmt.Fprintf(out, "%.2f\t", m.CPU)
	if x := res.Ratio; x != nil {
		fmt.Fprintf(out, "%.2f\t", x.CPU.Median)
	} else {
		fmt.Fprint(out, "\t")
	}
	fmt.Fprintf(out, "%.0f\t%.2f\t", float64(m.Peak)/mb, float64(m.Written)/mb)
	if res.Step == stepGet || res.Step == stepRestore {
		fmt.Fprintln(out, "\t\t\t")
		return
	}
	fmt.Fprintf(out, "%.2f\t", float64(m.Stored)/mb)
	if x := res.Ratio; x != nil && x.Stored != nil {
		fmt.Fprintf(out, "%.2f\t", x.Stored.Median)
	} else {
		fmt.Fprint(out, "\t")
	}
	switch {
	case res.Step != stepPut || m.Stored == 0:
		fmt.Fprintln(out, "\t")
	case res.Durable == nil:
		fmt.Fprintln(out, "?\t")
	case *res.Durable:
		fmt.Fprintln(out, "yes\t")
	default:
		fmt.Fprintln(out, "no\t")
	}
}

// names lists what results are of, each once, in their order.
func (r *report) names(of func(*result) string) []string {
	var names []string
	for i := range r.Results {
		if name := of(&r.Results[i]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
