package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// maxStage bounds what a node calls a part of a check.
const maxStage = 100

// Check has the node check its store while it serves, as package check does. Of o, Forget
// is refused: that needs a store which nobody uses. A check is not repeated when the
// connection breaks.
func (c *Client) Check(ctx context.Context, o check.Options) (check.Summary, error) {
	if o.Forget {
		return check.Summary{}, fmt.Errorf("a store that is served cannot forget what is damaged: %w", store.ErrInvalid)
	}
	// Between two words of it there may be minutes: it ends with ctx alone.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.node.Check(ctx, &scalev1.CheckRequest{ReadData: o.ReadData})
	if err != nil {
		return check.Summary{}, callError(ctx, err)
	}
	var found check.Summary // of the findings
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return check.Summary{}, nodeErrorf("a check without a result")
		}
		if err != nil {
			return check.Summary{}, callError(ctx, err)
		}
		switch {
		case r.GetFinding() != nil:
			f, err := parseFinding(r.GetFinding())
			if err != nil {
				return check.Summary{}, err
			}
			switch f.Severity {
			case check.Error:
				found.Errors++
			case check.Warning:
				found.Warnings++
			}
			if o.Report != nil {
				o.Report(f)
			}
		case r.GetProgress() != nil:
			if p := r.GetProgress(); o.Progress != nil {
				o.Progress(check.Progress{Stage: plain(p.GetStage(), maxStage), Done: p.GetDone(), Total: p.GetTotal()})
			}
		case r.GetSummary() != nil:
			m := r.GetSummary()
			// Of many of one kind only the first are told, and all are counted.
			if found.Errors > m.GetErrors() || found.Warnings > m.GetWarnings() {
				return check.Summary{}, nodeErrorf("a check of %d errors and %d warnings that counts %d and %d", found.Errors, found.Warnings, m.GetErrors(), m.GetWarnings())
			}
			return check.Summary{
				Rows: m.GetRows(), Entries: m.GetEntries(), Datasets: m.GetDatasets(), Packs: int(m.GetPacks()), Frames: m.GetFrames(),
				Chunks: m.GetChunks(), Plain: m.GetPlain(), Garbage: m.GetGarbage(), Read: m.GetRead(),
				Notes: m.GetNotes(), Warnings: m.GetWarnings(), Errors: m.GetErrors(),
			}, nil
		}
	}
}

func parseFinding(m *scalev1.CheckFinding) (check.Finding, error) {
	f := check.Finding{What: plain(m.GetWhat(), maxErrorText), More: m.GetMore(), Do: plain(m.GetDo(), maxErrorText)}
	for _, a := range m.GetAffected() {
		f.Affected = append(f.Affected, cutText(a, maxRef)) // as it is: it may be a REF
	}
	for _, s := range []check.Severity{check.Note, check.Warning, check.Error} {
		if m.GetSeverity() == s.String() {
			f.Severity = s
			return f, nil
		}
	}
	return f, nodeErrorf("a finding of severity %.30q", m.GetSeverity())
}
