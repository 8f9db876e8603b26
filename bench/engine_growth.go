package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
)

// A growthResult is of the same new data put into a store, and into one with a hundred times
// as many blocks; and of opening that.
type growthResult struct {
	Blocks [2]int64  `json:"blocks"`    // of the smaller store and of the larger
	Bytes  int64     `json:"put_bytes"` // new in each put
	Puts   [2]result `json:"puts"`
	Open   []float64 `json:"open_seconds"` // of the larger, each in a new process
	Peak   int64     `json:"open_peak_bytes"`
}

// growTimes is how many times as many blocks the larger store has: the index entries of
// 100 GiB beside those of 1 GiB, in blocks that hold a few bytes each.
const growTimes = 100

func (b *surroundings) growth(ctx context.Context, r *engineReport) error {
	res := &growthResult{Bytes: 16 << 20}
	times, rounds := 2, max(b.rounds, 3)
	if b.full {
		res.Bytes, times, rounds = 1<<30, growTimes, max(b.rounds, 4) // as much as the workload, and noisy
	}
	small, err := b.newStoreOf(ctx, "small", nil, "source")
	if err != nil {
		return err
	}
	large, err := b.newStoreOf(ctx, "large", nil)
	if err != nil {
		return err
	}
	var had opened
	if err := b.ask(ctx, jobRequest{Kind: "open", Store: small}, &had); err != nil {
		return err
	}
	res.Blocks[0] = had.Blocks
	fmt.Fprintf(b.progress, "filling a store with %d blocks\n", had.Blocks*int64(times))
	if err := b.ask(ctx, jobRequest{Kind: "fill", Store: large, Count: int(had.Blocks) * times}, &had); err != nil {
		return err
	}
	if err := settle(large); err != nil {
		return err
	}
	fmt.Fprintln(b.progress, "filled; opening it, and putting into it")
	for range 5 {
		if err := b.ask(ctx, jobRequest{Kind: "open", Store: large}, &had); err != nil {
			return err
		}
		res.Open = append(res.Open, had.Seconds)
		res.Blocks[1], res.Peak = had.Blocks, max(res.Peak, had.Peak)
	}
	files, err := sourceFiles()
	if err != nil {
		return err
	}
	scale := scaleTool("scale", b.bin, "default")
	var trials [2][]sample
	w := workload{name: "growth", size: res.Bytes}
	for round := range rounds {
		input := filepath.Join(b.scratch, fmt.Sprintf("growth-%d.tar", round))
		err := write(input, func(out io.Writer) error {
			return sourceTar(out, &text{files: files, seed: uint64(50 + round)}, res.Bytes)
		})
		if err != nil {
			return err
		}
		for i := range trials {
			at := (round + i) % len(trials)
			t := trial{tool: scale, work: w, job: job{store: []string{small, large}[at], input: input}, scratch: b.scratch}
			s, err := t.measuredPut(ctx)
			if err != nil {
				return err
			}
			trials[at] = append(trials[at], s)
			if err := t.verifyGet(ctx); err != nil {
				return err
			}
		}
		if err := os.Remove(input); err != nil {
			return err
		}
	}
	for i := range trials {
		w.name = fmt.Sprintf("%d blocks", res.Blocks[i])
		res.Puts[i] = newResult(w, scale, stepPut, trials[i])
	}
	r.Growth = res
	// What was put came back. To check all of the larger store takes many minutes, and
	// finds nothing that the smaller does not have.
	if _, err := run(ctx, scale.check(job{store: small})); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(small), os.RemoveAll(large))
}

// opened is what was found of a store that was just opened.
type opened struct {
	Seconds float64
	Blocks  int64 // of its datasets, those that several have counted each time
	Peak    int64
}

func openOnce(ctx context.Context, req jobRequest) (*opened, error) {
	start := time.Now()
	s, err := store.Open(ctx, req.Store, store.Options{})
	took := time.Since(start)
	if err != nil {
		return nil, err
	}
	o := &opened{Seconds: took.Seconds()}
	if o.Peak, err = peakOf("self"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for d, err := range s.Datasets(ctx) {
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		o.Blocks += int64(d.Chunks)
	}
	return o, s.Close()
}

// perFill is how many blocks of a fill are one dataset.
const perFill = 100_000

// fill puts so many blocks of a few bytes, each different, and leaves the store when its
// background work is done: what it leaves undone would be charged to the puts that follow,
// and a store that has grown for months has none left from millions of blocks.
func fill(ctx context.Context, req jobRequest) (*opened, error) {
	err := withStore(ctx, req.Store, store.Options{}, func(s *store.Store) error {
		for from := 0; from < req.Count; from += perFill {
			in := store.Input{Name: fmt.Sprintf("fill-%d", from), Source: &tinyFiles{next: from - 1, from: from, end: min(from+perFill, req.Count)}}
			if _, err := s.Put(ctx, []store.Input{in}, store.PutOptions{}); err != nil {
				return err
			}
		}
		return quiet(ctx)
	})
	return &opened{}, err
}

// quiet waits until this process leaves the processors alone.
func quiet(ctx context.Context) error {
	for range 120 {
		used, err := own(func() error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil || used.CPU < 0.02 {
			return err
		}
	}
	return errors.New("the store is still at work two minutes after it was filled")
}

// tinyFiles is the source of a tree of files that hold their numbers.
type tinyFiles struct{ next, from, end int }

func (t *tinyFiles) Next(context.Context) (*store.SourceEntry, error) {
	i := t.next
	t.next++
	switch {
	case i < t.from:
		return &store.SourceEntry{Kind: dag.KindDir, Attr: dag.Attr{Mode: dag.DefaultDirMode}}, nil
	case i >= t.end:
		return nil, io.EOF
	}
	return &store.SourceEntry{
		Path: fmt.Sprintf("%09d", i), Kind: dag.KindFile, Attr: dag.Attr{Mode: dag.DefaultFileMode},
		Body: bytes.NewReader(fmt.Appendf(nil, "block %d", i)),
	}, nil
}
