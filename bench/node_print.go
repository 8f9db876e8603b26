package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// nodePeak is what a node must stay within, whatever its clients do.
const nodePeak = 400 << 20

func (r *nodeReport) print(out io.Writer) {
	r.printWays(out)
	r.printSecond(out)
	r.printLatencies(out)
	if s := r.Small; s != nil {
		each := 1e3 / float64(s.Puts)
		fmt.Fprintf(out, "small puts: %d clients, %d bytes each, %.0f durable puts a second, ms of CPU each: node %.2f, clients %.2f; node's peak %.0f MB\n",
			s.Clients, s.Bytes, s.Rate, s.CPU*each, s.Client*each, float64(s.Peak)/mb)
	}
	if l := r.Load; l != nil {
		fmt.Fprintf(out, "load: %d idle connections, %d puts and %d gets in %.1f s by %d clients, %.0f MB/s, %d failures, node's peak %.0f MB\n",
			l.Idle, l.Puts, l.Gets, l.Seconds, loadWorkers, float64(l.Bytes)/mb/l.Seconds, l.Failures, float64(l.Peak)/mb)
	}
	fmt.Fprintln(out)
}

func (r *nodeReport) printWays(out io.Writer) {
	if len(r.Ways) == 0 {
		return
	}
	fmt.Fprintln(out, "A node: the command line alone (local), through a node on this machine (client), and a client that")
	fmt.Fprintln(out, "sends and gets plain bytes (stream); client and node share the processors. x: local's throughput is 1.")
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "workload\tway\tput s\tx\tMB/s\tCPU s\tof node\tget s\tx\tMB/s\tCPU s\tof node\tnode MB\t")
	for _, res := range r.Ways {
		local, m, size := r.local(res.Workload), res.Median, float64(res.Size)/mb
		fmt.Fprintf(tw, "%s\t%s\t%.2f\t%.2f\t%.0f\t%.1f\t%.1f\t%.2f\t%.2f\t%.0f\t%.1f\t%.1f\t%.0f\t\n",
			res.Workload, res.Way,
			m.Put.Wall, local.Put.Wall/m.Put.Wall, size/m.Put.Wall, m.Put.CPU, m.NodePut,
			m.Get.Wall, local.Get.Wall/m.Get.Wall, size/m.Get.Wall, m.Get.CPU, m.NodeGet, float64(m.Peak)/mb)
	}
	tw.Flush()
	fmt.Fprintln(out)
}

func (r *nodeReport) printSecond(out io.Writer) {
	if len(r.Second) == 0 {
		return
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "the source put again\tMB on the wire\tof size\ts\tof the first put\t")
	for _, s := range r.Second {
		fmt.Fprintf(tw, "%s\t%.2f\t%.3f %%\t%.2f\t%.2f\t\n", s.What, float64(s.Wire)/mb, 100*s.share(), s.Wall, s.Wall/s.First)
	}
	tw.Flush()
	fmt.Fprintln(out)
}

func (r *nodeReport) printLatencies(out io.Writer) {
	if r.Small == nil && r.Load == nil && len(r.Proofs) == 0 {
		return
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "latencies\tp50 ms\tp99 ms\tmax ms\t")
	row := func(what string, l latency) {
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.2f\t\n", what, 1e3*l.P50, 1e3*l.P99, 1e3*l.Max)
	}
	if s := r.Small; s != nil {
		row(fmt.Sprintf("put of %d bytes, %d clients", s.Bytes, s.Clients), s.Took)
	}
	if r.Load != nil {
		row("stat under load", r.Load.Stat)
	}
	for _, p := range r.Proofs {
		row(fmt.Sprintf("proof of %s, %d bytes: local", p.What, p.Bytes), p.Local)
		row("through the node", p.Node)
	}
	tw.Flush()

	fmt.Fprintln(out)
}

// share is what went over the wire as a part of the size.
func (s *secondPut) share() float64 { return float64(s.Wire) / float64(s.Size) }

// local returns the medians of the command line alone.
func (r *nodeReport) local(workload string) wayTrial {
	i := slices.IndexFunc(r.Ways, func(w wayResult) bool { return w.Workload == workload && w.Way == "local" })
	return r.Ways[i].Median
}

// wayNames say what is measured beside the local way.
var wayNames = map[string]string{"client": "scale --node", "stream": "plain stream"}

// judge says which targets the node met.
func (r *nodeReport) judge(say sayFunc) {
	for _, res := range r.Ways {
		how := wayNames[res.Way]
		if how == "" {
			continue
		}
		local, least := r.local(res.Workload), 0.75
		if res.Workload == "random" {
			least = 0.55
		}
		put, get := local.Put.Wall/res.Median.Put.Wall, local.Get.Wall/res.Median.Get.Wall
		say(put >= least, "node, %s, %s: put has %.2f of the local throughput (at least %.2f)", res.Workload, how, put, least)
		say(get >= 0.7, "node, %s, %s: get has %.2f of the local throughput (at least 0.70)", res.Workload, how, get)
		say(res.Median.Peak <= nodePeak, "node, %s, %s: peak memory %d MiB (at most %d)", res.Workload, how, res.Median.Peak>>20, nodePeak>>20)
	}
	for _, s := range r.Second {
		say(s.share() <= s.Most, "node, %s: %.3f %% of the bytes moved (at most %.1f %%)", s.What, 100*s.share(), 100*s.Most)
	}
	if len(r.Second) > 0 {
		same := r.Second[0]
		say(same.Wall < same.First/2, "node, nothing changed: %.2f s, the first put %.2f s (less than half)", same.Wall, same.First)
	}
	if s := r.Small; s != nil {
		say(s.Rate >= 3000, "node: %.0f small puts a second (at least 3000)", s.Rate)
	}
	if l := r.Load; l != nil {
		say(l.Failures == 0, "node: %d failures under load (none)", l.Failures)
		say(l.Peak <= nodePeak, "node: peak memory %d MiB under load (at most %d)", l.Peak>>20, nodePeak>>20)
	}
}
