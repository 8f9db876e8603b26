package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/koii-network/scale/store"
)

// An engineReport is of what the engine does in the process of its caller.
type engineReport struct {
	Ranges []rangesResult `json:"ranges,omitempty"`
	Proofs []provenResult `json:"proofs,omitempty"`
	Growth *growthResult  `json:"growth,omitempty"`
	Parts  []*partsResult `json:"parts,omitempty"`
}

// engineParts are what there is to measure of the engine, by the names that -only takes.
var engineParts = []struct {
	name string
	run  func(*surroundings, context.Context, *engineReport) error
}{
	{"engine-ranges", (*surroundings).ranges},
	{"engine-proofs", (*surroundings).proven},
	{"engine-growth", (*surroundings).growth},
	{"engine-parts", (*surroundings).parts},
}

// engine measures the parts that are chosen.
func (b *surroundings) engine(ctx context.Context, c choice) (r *engineReport, err error) {
	for _, part := range engineParts {
		if !c.takes(part.name, enginePart) {
			continue
		}
		if r == nil {
			r = &engineReport{}
		}
		fmt.Fprintln(b.progress, part.name)
		if err := part.run(b, ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return r, nil
}

// A jobRequest is what a process of its own is asked to do with the engine, so that its
// memory is not counted as this process's, which what this one starts inherits.
type jobRequest struct {
	Kind  string // see engineJob
	Store string
	Ref   string // a file in the store
	File  string // with the same bytes
	Count int
	Seed  uint64
	Cache int64
}

// ask runs a job to its end. out receives what it found, a pointer.
func (b *surroundings) ask(ctx context.Context, req jobRequest, out any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	arg, err := json.Marshal(req)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-engine", string(arg))
	cmd.Stderr = b.progress
	said, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", arg, err)
	}
	return json.Unmarshal(said, out)
}

// engineJob does what ask asks for.
func engineJob(ctx context.Context, arg string, out io.Writer) (err error) {
	var req jobRequest
	if err := json.Unmarshal([]byte(arg), &req); err != nil {
		return err
	}
	var found any
	switch req.Kind {
	case "ranges":
		found, err = readRanges(ctx, req)
	case "fill":
		found, err = fill(ctx, req)
	case "proofs":
		found, err = proveAndVerify(ctx, req)
	case "parts":
		found, err = measureParts(ctx, req.Ref, req.File, req.Store)
	case "open":
		found, err = openOnce(ctx, req)
	default:
		err = fmt.Errorf("no job %q", req.Kind)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(found)
}

// newStoreOf makes a store with the command line, with those options of init, and puts
// workloads into it, each under its own name.
func (b *surroundings) newStoreOf(ctx context.Context, name string, options []string, workloads ...string) (dir string, err error) {
	dir = filepath.Join(b.scratch, name)
	if err := os.MkdirAll(b.scratch, 0o755); err != nil {
		return "", err
	}
	scale := func(args ...string) error {
		_, err := run(ctx, command{args: append([]string{b.bin, "--store", dir}, args...), out: os.DevNull})
		return err
	}
	if err := scale(append([]string{"init"}, options...)...); err != nil {
		return "", err
	}
	for _, name := range workloads {
		if err := scale("put", b.workloads[name].path, "--name", name); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// withStore opens a store for as long as use runs.
func withStore(ctx context.Context, dir string, o store.Options, use func(*store.Store) error) error {
	s, err := store.Open(ctx, dir, o)
	if err != nil {
		return err
	}
	return errors.Join(use(s), s.Close())
}
