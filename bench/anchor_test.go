package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// A ledger comes back whole, and what is printed and judged is of it.
func TestRestore(t *testing.T) {
	b := &nodeBench{&surroundings{scratch: t.TempDir(), progress: io.Discard}}
	r, err := b.restore(t.Context(), 2000)
	if err != nil {
		t.Fatal(err)
	}
	if r.Entries != 2000 || r.Extensions != 1 || r.density() < 1 || r.density() > 20 || r.Took.Wall <= 0 || r.Took.Peak <= 0 || r.Stored <= 0 {
		t.Errorf("%+v", r)
	}
	report := report{Anchor: &anchorReport{Restore: r, Chains: []chainsResult{{
		Slot: 0.4, K2: chainCost{Entries: 1, Bytes: 300, Fee: 500_000}, Arweave: chainCost{Entries: hourly, Fee: 1e9},
	}}}}
	var out bytes.Buffer
	report.Anchor.print(&out)
	for _, want := range []string{"slots of 400 ms", "0.720 KOII a day", "0.024000 AR a day", "restore: 2000 entries out of 1 extensions"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	r.Took.Wall, r.Took.Peak = 1, 1<<20
	if err := report.verdict(io.Discard); (err == nil) != (r.rate() >= restoreLeast) {
		t.Errorf("%.0f entries a second: %v", r.rate(), err)
	}
	r.Took.Wall = 0.01
	if err := report.verdict(io.Discard); err != nil {
		t.Errorf("%.0f entries a second: %v", r.rate(), err)
	}
}
