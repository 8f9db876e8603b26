package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Stages of a put, in the order in which bytes pass them.
const (
	partRead   = "read"
	partChunk  = "chunk"
	partHash   = "hash"
	partLookup = "look up"
	partSeal   = "seal"
	partAppend = "append"
	partBuild  = "build the DAG"
	partCommit = "commit"
	partSync   = "sync"
)

var putParts = []string{partRead, partChunk, partHash, partLookup, partSeal, partAppend, partBuild, partCommit, partSync}

// A partResult is one stage alone, over all bytes of a workload.
type partResult struct {
	Part string  `json:"part"`
	CPU  float64 `json:"cpu_seconds"`
	Wall float64 `json:"wall_seconds"`
}

// A partsResult compares the stages of a put, one after the other in one process, with
// the whole put. What the parts leave out is what holds them together: queues, copies
// between them, the ledger, the start of a process.
type partsResult struct {
	Workload string       `json:"workload"`
	Size     int64        `json:"size_bytes"`
	Chunks   int          `json:"chunks"`
	Parts    []partResult `json:"parts"`
	// CPU is the sum of the parts' CPU seconds, and Ideal what that takes on two
	// processors that are never idle.
	CPU   float64 `json:"cpu_seconds"`
	Ideal float64 `json:"ideal_seconds"`
	// Bottleneck is the part with the most CPU seconds.
	Bottleneck string  `json:"bottleneck"`
	PutWall    float64 `json:"put_wall_seconds"` // of the whole put
	PutCPU     float64 `json:"put_cpu_seconds"`
}

// partsCPUs is how many processors the sum of the parts is spread over.
const partsCPUs = 2

// The engine's own sizes: of a read, a frame, of what one flush makes durable, and of a
// part of a row of the commitment.
const (
	partsRead  = 1 << 20
	partsFrame = 4 << 20
	partsFlush = 64 << 20
	partsRow   = 12 << 10
)

// parts measures whole puts of some workloads, each into a store of its own, and their
// stages alone. Of several rounds the one counts whose put took the median of CPU.
func (b *surroundings) parts(ctx context.Context, r *engineReport) error {
	names := []string{"source", "lines", "random", "files"}
	if !b.full {
		names = names[:1]
	}
	for _, name := range names {
		w := b.workloads[name]
		var rounds []*partsResult
		for range b.rounds {
			if err := settle(w.path); err != nil {
				return err
			}
			whole, err := b.wholePut(ctx, w)
			if err != nil {
				return err
			}
			res := &partsResult{}
			if err := b.ask(ctx, jobRequest{Kind: "parts", Store: filepath.Join(b.scratch, "parts"), Ref: name, File: w.path}, res); err != nil {
				return err
			}
			res.PutWall, res.PutCPU = whole.Wall, whole.CPU
			rounds = append(rounds, res)
		}
		slices.SortFunc(rounds, func(a, b *partsResult) int { return cmp.Compare(a.PutCPU, b.PutCPU) })
		r.Parts = append(r.Parts, rounds[len(rounds)/2])
	}
	return nil
}

// wholePut puts a workload into a new store, which it removes.
func (b *surroundings) wholePut(ctx context.Context, w workload) (took sample, err error) {
	dir, err := b.newStoreOf(ctx, "whole", nil)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(dir+".cache")) }()
	return run(ctx, scaleTool("scale", b.bin, "default").put(job{store: dir, input: w.path}))
}

// measureParts measures the stages of a put of a file or tree, with a scratch directory of
// its own.
func measureParts(ctx context.Context, name, input, scratch string) (_ *partsResult, err error) {
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	l, err := newLine(ctx, scratch)
	if err != nil {
		return nil, err
	}
	err = l.put(input)
	err = errors.Join(err, l.close())
	if err != nil {
		return nil, fmt.Errorf("the parts of a put of %s: %w", name, err)
	}
	r := &partsResult{Workload: name, Size: l.size, Chunks: l.count}
	most := 0.0
	for _, part := range putParts {
		p := l.took[part]
		r.Parts = append(r.Parts, partResult{Part: part, CPU: p.cpu.Seconds(), Wall: p.wall.Seconds()})
		r.CPU += p.cpu.Seconds()
		if p.cpu.Seconds() > most {
			most, r.Bottleneck = p.cpu.Seconds(), part
		}
	}
	r.Ideal = r.CPU / partsCPUs
	return r, nil
}

// print writes a table, and how far the whole is from the sum of its parts.
func (r *partsResult) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d MB in %d chunks: the parts of a put, each alone on one processor\n", r.Workload, r.Size/1e6, r.Chunks)
	for _, p := range r.Parts {
		rate := "-"
		if p.CPU > 0 {
			rate = fmt.Sprintf("%.0f", float64(r.Size)/1e6/p.CPU)
		}
		fmt.Fprintf(w, "  %-14s CPU s %7.3f  %4.0f %%  MB/s %6s  s %7.3f\n", p.Part, p.CPU, 100*p.CPU/r.CPU, rate, p.Wall)
	}
	fmt.Fprintf(w, "  together       CPU s %7.3f; on %d processors %.2f s; the put took %.2f s and %.2f s of CPU: %.2f times the sum by the clock, %.2f by CPU; the bottleneck is %q\n",
		r.CPU, partsCPUs, r.Ideal, r.PutWall, r.PutCPU, r.PutWall/r.Ideal, r.PutCPU/r.CPU, r.Bottleneck)
}
