package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/proof"
)

// A refusal says how data differs from what was put: by roots and counts, and by name
// where the proof's manifest tells the names.
type refusal struct {
	err                     error
	extra, missing, changed []string
}

func (r *refusal) Unwrap() error { return r.err }

func (r *refusal) Error() string {
	all := mismatches(r.err)
	if len(all) == 0 {
		return r.err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v: the data is not what was put", proof.ErrRefused)
	for _, m := range all {
		fmt.Fprintf(&b, "\n  %s\n    expected %s\n    computed %s", m.What, m.Want, m.Got)
	}
	for _, l := range []struct {
		what  string
		names []string
	}{{"extra", r.extra}, {"missing", r.missing}, {"changed", r.changed}} {
		for _, n := range l.names {
			fmt.Fprintf(&b, "\n  %-8s %s", l.what, quote(n))
		}
	}
	return b.String()
}

func (r *refusal) evidence() map[string]any {
	type mismatch struct {
		What     string `json:"what"`
		Expected string `json:"expected"`
		Computed string `json:"computed"`
	}
	list := []mismatch{}
	for _, m := range mismatches(r.err) {
		list = append(list, mismatch{m.What, m.Want, m.Got})
	}
	views := func(names []string) []pathView {
		list := make([]pathView, len(names))
		for i, n := range names {
			list[i] = viewPath(n)
		}
		return list
	}
	return map[string]any{
		"mismatches": list, "extra": views(r.extra), "missing": views(r.missing), "changed": views(r.changed),
	}
}

// mismatches returns every mismatch that err is made of.
func mismatches(err error) []*proof.MismatchError {
	switch e := err.(type) {
	case *proof.MismatchError:
		return []*proof.MismatchError{e}
	case interface{ Unwrap() []error }:
		var all []*proof.MismatchError
		for _, sub := range e.Unwrap() {
			all = append(all, mismatches(sub)...)
		}
		return all
	}
	return nil
}

// refuse gives words to data that does not match, with names if leaves are given and
// the proof has a manifest. Other errors stay what they are.
func (c *checker) refuse(err error, leaves ...dag.FileLeaf) error {
	if !errors.Is(err, proof.ErrRefused) {
		return err
	}
	r := &refusal{err: err}
	if c.v.HasManifest {
		var derr error
		r.extra, r.missing, r.changed, derr = c.v.Diff(func(yield func(dag.FileLeaf, error) bool) {
			for _, l := range leaves {
				if !yield(l, nil) {
					return
				}
			}
		})
		if derr != nil {
			return errors.Join(err, derr)
		}
	}
	return r
}

// A verifiedView says what was proven.
type verifiedView struct {
	Verified       bool      `json:"verified"`
	Scope          string    `json:"scope"`
	Dataset        string    `json:"dataset"`
	CID            string    `json:"cid"`
	Profile        string    `json:"profile"`
	File           *pathView `json:"file,omitempty"`
	From           *uint64   `json:"from,omitempty"`
	To             *uint64   `json:"to,omitempty"`
	Size           uint64    `json:"size"`
	Entry          int64     `json:"entry"`
	EntryCID       string    `json:"entry_cid"`
	Origin         string    `json:"origin"`
	TreeSize       int64     `json:"tree_size"`
	Curator        string    `json:"curator"`
	CuratorTrusted bool      `json:"curator_trusted"`
	ClaimedTime    string    `json:"claimed_time"`
	// AttrsMatch is absent where the proof does not tell modes.
	AttrsMatch *bool `json:"attrs_match,omitempty"`
	// Anchors are the receipts in the proof. ExistedBefore is set if --online confirmed as
	// many of them as were asked for.
	Anchors       []evidenceView `json:"anchors,omitempty"`
	ExistedBefore string         `json:"existed_before,omitempty"`
}

func (a *app) printVerified(c *checker, curatorChecked bool, anchors anchorVerdict) error {
	v, e := c.v, c.v.Entry
	view := verifiedView{
		Verified: true, Scope: v.Scope.String(), Dataset: e.Name, CID: e.Root.String(), Profile: e.Profile, Size: e.Size,
		Entry: v.Index, EntryCID: v.CID.String(), Origin: v.Checkpoint.Origin, TreeSize: v.Checkpoint.Size,
		Curator: e.Curator.String(), CuratorTrusted: v.CuratorTrusted, ClaimedTime: timeText(e.Time),
	}
	if v.File != nil {
		file := viewPath(v.File.Leaf.Path)
		view.File, view.Size = &file, v.File.Leaf.Size
	}
	if r := v.Range; r != nil {
		to := r.Offset + r.Size()
		view.From, view.To = &r.Offset, &to
	}
	if v.Scope == proof.ScopeDataset {
		same := c.rootErr == nil
		view.AttrsMatch = &same
		if !same {
			a.note("content proven; modes or times differ from what was recorded: root %s, recorded %s", c.rootCID(), e.Root)
		}
	}
	view.Anchors = anchors.views()
	if anchors.err == nil && !anchors.time.IsZero() {
		view.ExistedBefore = timeText(anchors.time)
	}
	if a.json {
		return a.print(view)
	}
	fields := []field{
		{"verified", c.what()}, {"dataset", e.Name}, {"cid", e.Root},
	}
	if v.File != nil && v.File.Leaf.Path != "" {
		fields = append(fields, field{"path", quote(v.File.Leaf.Path)})
	}
	if view.From != nil {
		fields = append(fields, field{"range", fmt.Sprintf("%d:%d of %d", *view.From, *view.To, view.Size)})
	} else {
		fields = append(fields, field{"size", sizeText(view.Size)})
	}
	curator := view.Curator + " (checked)"
	if !curatorChecked {
		curator = view.Curator + " (admitted by the log, not checked by you)"
	}
	fields = append(fields,
		field{"entry", fmt.Sprintf(":%d %v", view.Entry, view.EntryCID)},
		field{"log", view.Origin}, field{"tree size", view.TreeSize},
		field{"curator", curator}, field{"time", view.ClaimedTime + " (claimed)"})
	for _, s := range v.Cosignatures {
		status := "claimed"
		if s.Verified {
			status = "checked"
		}
		fields = append(fields, field{"cosigned by", fmt.Sprintf("%s %s (%s)", quote(s.Name), timeText(s.Time), status)})
	}
	return a.printFields(append(fields, anchors.fields()...)...)
}

// rootCID is the root of the data as it was computed.
func (c *checker) rootCID() string {
	var m *proof.MismatchError
	if errors.As(c.rootErr, &m) {
		return m.Got
	}
	return "unknown"
}

// what says in words what was proven.
func (c *checker) what() string {
	switch c.v.Scope {
	case proof.ScopeFile:
		return "this " + c.v.File.Leaf.Kind.String() + " of the dataset"
	case proof.ScopeRange:
		if c.whole {
			return "the whole file of which the range is a part"
		}
		return "these bytes of a file of the dataset"
	}
	return "the whole dataset"
}
