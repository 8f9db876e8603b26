package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Steps of a trial, in their order.
const (
	stepPut     = "put"
	stepAgain   = "again"   // of a tree that is unchanged
	stepGet     = "get"     // to /dev/null, a tree as a tar archive
	stepRestore = "restore" // of a tree, to a directory
	stepSmall   = "small"   // put of a file of smallSize, into a store that holds the workload
)

var steps = []string{stepPut, stepAgain, stepGet, stepRestore, stepSmall}

const (
	smallSize  = 1 << 10
	smallCount = 3 // puts in one trial, of which the median counts
)

// A trial is one tool's turn at one workload.
type trial struct {
	tool    tool
	work    workload
	scratch string // directory, made by run
	verify  bool   // compare what comes back, and have the tool check its store

	job job
	got map[string]sample // by step
}

// run has the tool put the workload into a new store and get it back.
func (t *trial) run(ctx context.Context) (_ map[string]sample, err error) {
	defer func() {
		if t.work.tree {
			err = errors.Join(err, empty(t.scratch))
		} else {
			err = errors.Join(err, os.RemoveAll(t.scratch))
		}
	}()
	if err := os.MkdirAll(t.scratch, 0o755); err != nil {
		return nil, err
	}
	t.got = make(map[string]sample)
	t.job = job{store: t.at("store"), input: t.work.path, tree: t.work.tree, out: t.at("out")}
	for _, c := range t.tool.prepare(t.job.store) {
		c.out = os.DevNull
		if _, err := run(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := t.puts(ctx); err != nil {
		return nil, err
	}
	if t.tool.get == nil {
		return t.got, nil
	}
	if err := t.gets(ctx); err != nil {
		return nil, err
	}
	if t.work.small {
		if err := t.smallPuts(ctx); err != nil {
			return nil, err
		}
	}
	if t.verify {
		_, err = run(ctx, t.tool.check(t.job))
	}
	return t.got, err
}

func (t *trial) at(name string) string { return filepath.Join(t.scratch, name) }

// puts takes the steps that store.
func (t *trial) puts(ctx context.Context) (err error) {
	if !t.work.tree {
		// Both versions of a file are put from one path, as a user would.
		t.job.input = t.at("input.bin")
		if t.work.base != "" {
			if err := os.Link(t.work.base, t.job.input); err != nil {
				return err
			}
			if _, err := t.put(ctx); err != nil {
				return err
			}
			if err := os.Remove(t.job.input); err != nil {
				return err
			}
		}
		if err := os.Link(t.work.path, t.job.input); err != nil {
			return err
		}
	}
	if t.got[stepPut], err = t.measuredPut(ctx); err != nil || !t.work.tree {
		return err
	}
	t.got[stepAgain], err = t.measuredPut(ctx)
	return err
}

// put stores the input of the job.
func (t *trial) put(ctx context.Context) (sample, error) {
	t.job.n++
	c := t.tool.put(t.job)
	c.out = t.at("said")
	s, err := run(ctx, c)
	if err != nil || t.tool.id == nil {
		return s, err
	}
	said, err := os.ReadFile(c.out)
	if err == nil {
		t.job.id, err = t.tool.id(said)
	}
	if err != nil {
		return s, fmt.Errorf("what %s said of a put: %w", t.tool.name, err)
	}
	return s, nil
}

// measuredPut stores the input, warm, and looks at what that left in the store.
func (t *trial) measuredPut(ctx context.Context) (s sample, err error) {
	var before, after int64
	if !t.tool.replaces {
		if before, err = allocated(t.job.store); err != nil {
			return s, err
		}
	}
	if err := settle(t.job.input); err != nil {
		return s, err
	}
	if s, err = t.put(ctx); err != nil {
		return s, err
	}
	if s.Unsynced, err = unsynced(t.job.store); err != nil {
		return s, err
	}
	after, err = allocated(t.job.store)
	s.Stored = after - before
	return s, err
}

// gets takes the steps that read.
func (t *trial) gets(ctx context.Context) (err error) {
	if !t.tool.noTar || !t.work.tree {
		if err := settle(t.job.store); err != nil {
			return err
		}
		if t.got[stepGet], err = t.get(ctx, os.DevNull); err != nil {
			return err
		}
		if t.verify {
			if err := t.verifyGet(ctx); err != nil {
				return err
			}
		}
	}
	if !t.work.tree {
		return nil
	}
	if err := settle(t.job.store); err != nil {
		return err
	}
	if t.got[stepRestore], err = run(ctx, t.tool.restore(t.job)); err != nil || !t.verify {
		return err
	}
	return t.gaveBack(same(t.work.path, t.job.out))
}

// get reads the input of the job back and writes it to a file.
func (t *trial) get(ctx context.Context, to string) (s sample, err error) {
	j := t.job
	if !t.tool.toFile {
		c := t.tool.get(j)
		c.out = to
		return run(ctx, c)
	}
	j.out = to
	if to == os.DevNull { // which such a tool does not take for a file
		j.out = t.at("discarded")
		defer func() { err = errors.Join(err, os.Remove(j.out)) }()
	}
	return run(ctx, t.tool.get(j))
}

// verifyGet compares what get writes with the input.
func (t *trial) verifyGet(ctx context.Context) (err error) {
	to := t.at("verify")
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	if _, err := t.get(ctx, to); err != nil {
		return err
	}
	if t.job.tree {
		return t.gaveBack(sameTar(t.job.input, to))
	}
	return t.gaveBack(same(t.job.input, to))
}

func (t *trial) gaveBack(err error) error {
	if err != nil {
		return fmt.Errorf("%s gave back something else: %w", t.tool.name, err)
	}
	return nil
}

// smallPuts stores files of smallSize bytes, one after the other.
func (t *trial) smallPuts(ctx context.Context) error {
	var took []sample
	for i := range smallCount {
		t.job.input, t.job.tree = t.at(fmt.Sprintf("small-%d.bin", i)), false
		data := make([]byte, smallSize)
		chacha(uint64(100 + i)).Read(data)
		if err := os.WriteFile(t.job.input, data, 0o644); err != nil {
			return err
		}
		s, err := t.measuredPut(ctx)
		if err != nil {
			return err
		}
		took = append(took, s)
	}
	t.got[stepSmall] = medianSample(took, func(s sample) sample { return s })
	if !t.verify {
		return nil
	}
	return t.verifyGet(ctx)
}

// measure has every tool take its turn at a workload, in every round.
func measure(ctx context.Context, tools []tool, w workload, rounds int, scratch string, say func(round int, t tool)) ([]result, error) {
	tools = slices.DeleteFunc(slices.Clone(tools), func(t tool) bool { return !t.takes(w.name) })
	took := make([]map[string][]sample, len(tools))
	for i := range took {
		took[i] = make(map[string][]sample)
	}
	for round := range rounds {
		for i := range tools {
			// Another tool begins each round, so that none always runs on what the same one
			// left behind.
			at := (round + i) % len(tools)
			say(round, tools[at])
			t := trial{
				tool: tools[at], work: w, verify: round == rounds-1 || tools[at].ours(), // others are slow to check
				scratch: filepath.Join(scratch, fmt.Sprintf("%s-%d-%s", w.name, round, tools[at].name)),
			}
			got, err := t.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", w.name, t.tool.name, err)
			}
			for step, s := range got {
				took[at][step] = append(took[at][step], s)
			}
		}
	}
	var results []result
	for _, step := range steps {
		for i, t := range tools {
			if trials := took[i][step]; trials != nil {
				results = append(results, newResult(w, t, step, trials))
			}
		}
	}
	return results, nil
}
