package main

import (
	"errors"
	"fmt"
	"io"
)

// peakLimit is what any put and any get must stay within.
const peakLimit = 400 << 20

// A target is a bound on how SCALE compares with a peer at one step of a workload, in
// medians.
type target struct {
	workload, step, tool, peer string
	// times as fast as the peer by the clock, at least.
	times float64
	// stored is the part of what the peer stores, cpu of the CPU seconds that it takes, that
	// SCALE's may be; 0 for no bound.
	stored, cpu float64
}

var targets = []target{
	{workload: "source", step: stepPut, peer: "kopia", times: 1.4},
	{workload: "source", step: stepPut, peer: "restic", times: 2.2, stored: 1},
	{workload: "source", step: stepPut, tool: "scale-fast", peer: "kopia", times: 1.6},
	{workload: "source", step: stepPut, tool: "scale-fast", peer: "zstd", cpu: 2.1},
	{workload: "lines", step: stepPut, peer: "kopia", times: 1.5},
	{workload: "lines", step: stepPut, peer: "restic", times: 2.8, stored: 1},
	{workload: "random", step: stepPut, peer: "kopia", times: 2},
	{workload: "random", step: stepPut, peer: "restic", times: 3.3},
	{workload: "random", step: stepPut, peer: "openssl", cpu: 3},
	{workload: "files", step: stepPut, peer: "kopia", times: 3.5},
	{workload: "files", step: stepPut, peer: "restic", times: 4.3, stored: 0.75},
	{workload: "files", step: stepPut, peer: "ipfs", times: 10},
	{workload: "files", step: stepAgain, peer: "restic", times: 1},
	{workload: "files", step: stepGet, peer: "restic", times: 1.5},
	{workload: "files", step: stepRestore, peer: "restic", times: 2},
	{workload: "files", step: stepRestore, peer: "kopia", times: 2},
	{workload: "few-edits", step: stepPut, peer: "restic", times: 1, stored: 0.15},
	{workload: "many-edits", step: stepPut, peer: "restic", times: 1, stored: 0.4},
	{workload: "source", step: stepGet, peer: "restic", times: 1.5},
	{workload: "lines", step: stepGet, peer: "restic", times: 1.5},
	{workload: "random", step: stepGet, peer: "restic", times: 1.5},
	{workload: "few-edits", step: stepGet, peer: "restic", times: 1.5},
	{workload: "many-edits", step: stepGet, peer: "restic", times: 1.5},
}

const (
	// againMost is the time of the put of a second version as a part of the first one's.
	againMost = 0.6
	// smallMost is in seconds.
	smallMost = 0.050
	// randomMost is what incompressible bytes may take, as a part of their size.
	randomMost = 1.01
)

// A sayFunc is told of one target.
type sayFunc func(met bool, format string, args ...any)

// judge says whether the target was met. A tool or a workload that was not measured says
// nothing.
func (t target) judge(r *report, say sayFunc) {
	tool := t.tool
	if tool == "" {
		tool = "scale"
	}
	own, peer := r.find(t.workload, tool, t.step), r.find(t.workload, t.peer, t.step)
	if own == nil || peer == nil {
		return
	}
	what := fmt.Sprintf("%s, %s, %s", t.workload, t.step, tool)
	o, p := own.Median, peer.Median
	if t.times > 0 {
		x := ratios(peer, own, wall)
		say(p.Wall/o.Wall >= t.times, "%s: %.2f times as fast as %s (at least %.2f; rounds %.2f to %.2f; CPU %.2f)",
			what, p.Wall/o.Wall, t.peer, t.times, x.Min, x.Max, p.CPU/o.CPU)
	}
	if t.stored > 0 {
		share := float64(o.Stored) / float64(p.Stored)
		met := share <= t.stored
		if t.stored == 1 {
			met = share < 1
		}
		say(met, "%s: stores %.3f of what %s does (at most %.2f)", what, share, t.peer, t.stored)
	}
	if t.cpu > 0 {
		say(o.CPU/p.CPU <= t.cpu, "%s: takes %.2f times the CPU of %s (at most %.2f)", what, o.CPU/p.CPU, t.peer, t.cpu)
	}
}

// judge says which of the other targets of the comparison were met.
func (r *report) judge(say sayFunc) {
	for _, t := range targets {
		t.judge(r, say)
	}
	for _, version := range []string{"few-edits", "many-edits"} {
		first, second := r.find("source", "scale", stepPut), r.find(version, "scale", stepPut)
		if first != nil && second != nil {
			part := second.Median.Wall / first.Median.Wall
			say(part <= againMost, "%s: put takes %.2f of the first put (at most %.2f)", version, part, againMost)
		}
	}
	if s := r.find("source", "scale", stepSmall); s != nil {
		say(s.Median.Wall <= smallMost, "small: put of 1 KiB takes %.1f ms (at most %.0f)", 1e3*s.Median.Wall, 1e3*smallMost)
	}
	if s := r.find("random", "scale", stepPut); s != nil {
		share := float64(s.Median.Stored) / float64(s.Size)
		say(share <= randomMost, "random: stored %.4f of its size (at most %.2f)", share, randomMost)
	}
	for i := range r.Results {
		res := &r.Results[i]
		if res.Tool != "scale" && res.Tool != "scale-fast" {
			continue
		}
		what := fmt.Sprintf("%s, %s, %s", res.Workload, res.Step, res.Tool)
		say(res.Max.Peak <= peakLimit, "%s: peak memory %d MiB (at most %d)", what, res.Max.Peak>>20, peakLimit>>20)
		if res.Durable != nil {
			say(*res.Durable, "%s: durable, %d bytes were in memory alone", what, res.Max.Unsynced)
		}
	}
}

// receiptsMost is what a proof of a range takes with the receipts of both chains, in bytes.
const receiptsMost = 6000

func (r *report) judgeReceipts(say sayFunc) {
	for _, p := range r.Engine.Proofs {
		for _, c := range r.Anchor.Chains {
			if p.Check != nil {
				bytes := p.Most + c.Receipts
				say(bytes <= receiptsMost, "proof of %s with receipts of both chains, slots of %.0f ms: %d bytes (at most %d)", p.What, 1e3*c.Slot, bytes, receiptsMost)
			}
		}
	}
}

// verdict says which targets SCALE met, and fails if it missed one.
func (r *report) verdict(out io.Writer) error {
	missed := 0
	say := func(met bool, format string, args ...any) {
		word := "met"
		if !met {
			word = "MISSED"
			missed++
		}
		fmt.Fprintf(out, "%-7s%s\n", word, fmt.Sprintf(format, args...))
	}
	r.judge(say)
	if r.Engine != nil {
		r.Engine.judge(say)
	}
	if r.Memory != nil {
		r.Memory.judge(say)
	}
	if r.Node != nil {
		r.Node.judge(say)
	}
	if r.Anchor != nil {
		r.Anchor.judge(say)
	}
	if r.Engine != nil && r.Anchor != nil {
		r.judgeReceipts(say)
	}
	if missed > 0 {
		return errors.New("a target was missed")
	}
	return nil
}
