package main

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// parts names what a report has figures of, as -only does.
func (r *report) parts() []string {
	names := slices.Collect(maps.Keys(r.What))
	add := func(name string, has bool) {
		if has {
			names = append(names, name)
		}
	}
	if e := r.Engine; e != nil {
		add("engine-ranges", e.Ranges != nil)
		add("engine-proofs", e.Proofs != nil)
		add("engine-growth", e.Growth != nil)
		add("engine-parts", e.Parts != nil)
	}
	if n := r.Node; n != nil {
		add("node-throughput", n.Ways != nil)
		add("node-again", n.Second != nil)
		add("node-small", n.Small != nil)
		add("node-load", n.Load != nil)
		add("node-proofs", n.Proofs != nil)
	}
	add(anchorPart, r.Anchor != nil)
	add(memoryPart, r.Memory != nil)
	return names
}

// stamp notes of all parts when they were measured, and with which build.
func (r *report) stamp() {
	r.Measured = make(map[string]string)
	for _, name := range r.parts() {
		r.Measured[name] = r.Date
		if v := r.Versions["scale"]; v != "" {
			r.Measured[name] += ", " + strings.Join(strings.Fields(v), " ")
		}
	}
}

// mergeInto returns the report that is in a file with the parts of r in place of its own:
// tools are compared within a run, so that of a workload all of them are replaced. Without
// the file that is r.
func (r *report) mergeInto(file string) (*report, error) {
	old, err := load(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return nil, err
	}
	out := *old
	out.Date, out.Machine = r.Date, r.Machine
	out.Measured = maps.Clone(old.Measured)
	if out.Measured == nil {
		out.Measured = make(map[string]string)
	}
	maps.Copy(out.Measured, r.Measured)
	if len(r.Results) > 0 {
		out.Rounds, out.Floor = r.Rounds, r.Floor
		out.What = maps.Clone(old.What)
		maps.Copy(out.What, r.What)
		out.Results = nil
		put := make(map[string]bool) // workloads of r that are in
		for _, res := range slices.Concat(old.Results, r.Results) {
			if _, again := r.What[res.Workload]; !again {
				out.Results = append(out.Results, res)
			} else if !put[res.Workload] {
				put[res.Workload] = true
				out.Results = append(out.Results, r.of(res.Workload)...)
			}
		}
		out.Versions = maps.Clone(old.Versions)
		maps.Copy(out.Versions, r.Versions)
		maps.DeleteFunc(out.Versions, func(tool, version string) bool {
			return version != "absent" && !slices.ContainsFunc(out.Results, func(res result) bool { return res.Tool == tool })
		})
	}
	if e := r.Engine; e != nil {
		to := engineReport{}
		if old.Engine != nil {
			to = *old.Engine
		}
		to.Growth = cmp.Or(e.Growth, to.Growth)
		to.Ranges, to.Proofs, to.Parts = either(e.Ranges, to.Ranges), either(e.Proofs, to.Proofs), either(e.Parts, to.Parts)
		out.Engine = &to
	}
	if n := r.Node; n != nil {
		to := nodeReport{}
		if old.Node != nil {
			to = *old.Node
		}
		to.Small, to.Load = cmp.Or(n.Small, to.Small), cmp.Or(n.Load, to.Load)
		to.Ways, to.Second, to.Proofs = either(n.Ways, to.Ways), either(n.Second, to.Second), either(n.Proofs, to.Proofs)
		out.Node = &to
	}
	out.Anchor, out.Memory = cmp.Or(r.Anchor, old.Anchor), cmp.Or(r.Memory, old.Memory)
	return &out, nil
}

// of returns the results of a workload.
func (r *report) of(workload string) (of []result) {
	for _, res := range r.Results {
		if res.Workload == workload {
			of = append(of, res)
		}
	}
	return of
}

// either returns a, or b if that is nil.
func either[T any](a, b []T) []T {
	if a != nil {
		return a
	}
	return b
}
