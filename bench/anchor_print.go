package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

const (
	roePerKOII   = 1e9
	winstonPerAR = 1e12
)

// restoreLeast is how many entries a second come back at least: a million in a minute.
const restoreLeast = 1e6 / 60

func (r *anchorReport) print(out io.Writer) {
	fmt.Fprintln(out, "Anchors, against the local chains: their slots, blocks and fees are settings of theirs.")
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "since the put's answer\tp50 s\tmax s\t")
	for _, c := range r.Chains {
		row := func(what string, l latency) { fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t\n", what, l.P50, l.Max) }
		row(fmt.Sprintf("K2 confirmed, slots of %.0f ms", 1e3*c.Slot), c.Confirmed)
		row("finalized", c.Finalized)
		row(fmt.Sprintf("Arweave seen, blocks of %.2f s", c.Block), c.Seen)
	}
	tw.Flush()
	fmt.Fprintln(out)
	if n := len(r.Chains); n > 0 {
		k, a := r.Chains[n-1].K2, r.Chains[n-1].Arweave
		fmt.Fprintf(out, "K2: %d bytes, %d ROE an anchor; one a minute %.3f KOII a day\n", k.Bytes, k.Fee, float64(k.Fee)*24*60/roePerKOII)
		fmt.Fprintf(out, "Arweave: %d entries, header %d and body %d bytes, %d winston; one an hour %.6f AR a day\n",
			a.Entries, a.Bytes, a.Body, a.Fee, float64(a.Fee)*24/winstonPerAR)
		fmt.Fprintf(out, "receipts of both make a proof %d bytes larger\n", r.Chains[n-1].Receipts)
	}
	if s := r.Restore; s != nil {
		fmt.Fprintf(out, "restore: %d entries out of %d extensions, %.2f entries a KiB; %.1f s, %.0f entries a second, %.0f µs of CPU each; peak %.0f MB, %.0f MB stored\n",
			s.Entries, s.Extensions, s.density(), s.Took.Wall, s.rate(), 1e6*s.Took.CPU/float64(s.Entries), float64(s.Took.Peak)/mb, float64(s.Stored)/mb)
	}
	fmt.Fprintln(out)
}

// density is how many entries a KiB of an extension carries.
func (s *restoreResult) density() float64 { return float64(s.Entries) / float64(s.Bytes) * 1024 }

// rate is in entries a second.
func (s *restoreResult) rate() float64 { return float64(s.Entries) / s.Took.Wall }

// judge says which targets were met.
func (r *anchorReport) judge(say sayFunc) {
	if s := r.Restore; s != nil {
		say(s.rate() >= restoreLeast, "restore: %.0f entries a second (at least %.0f)", s.rate(), restoreLeast)
	}
}
