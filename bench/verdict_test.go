package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// against is a report of SCALE's tool beside a peer at one step.
func against(workload, step, tool, peer string, own, its sample) *report {
	r := &report{}
	for _, res := range []result{{Tool: tool, Median: own}, {Tool: peer, Median: its}} {
		res.Workload, res.Step, res.Size = workload, step, 1e9
		res.Min, res.Max, res.Trials = res.Median, res.Median, []sample{res.Median}
		r.Results = append(r.Results, res)
	}
	r.compare()
	return r
}

// Each target is met at its bound and missed beyond it.
func TestTargets(t *testing.T) {
	const slack = 0.001
	for _, c := range targets {
		tool := c.tool
		if tool == "" {
			tool = "scale"
		}
		try := func(what string, met bool, own, its sample) {
			t.Helper()
			if err := against(c.workload, c.step, tool, c.peer, own, its).verdict(io.Discard); (err == nil) != met {
				t.Errorf("%+v: %s: %v", c, what, err)
			}
		}
		good := sample{Wall: 0.001, CPU: 0.001, Stored: 1, Peak: peakLimit}
		its := sample{Wall: 1, CPU: 1, Stored: 1e9}
		try("good", true, good, its)
		if c.times > 0 {
			own := good
			own.Wall = (1 - slack) / c.times
			try("just fast enough", true, own, its)
			own.Wall = (1 + slack) / c.times
			try("too slow", false, own, its)
		}
		if c.stored > 0 {
			own := good
			own.Stored = int64((c.stored - slack) * 1e9)
			try("just small enough", true, own, its)
			own.Stored = int64((c.stored + slack) * 1e9)
			try("too large", false, own, its)
		}
		if c.cpu > 0 {
			own := good
			own.CPU = c.cpu - slack
			try("just little CPU enough", true, own, its)
			own.CPU = c.cpu + slack
			try("too much CPU", false, own, its)
		}
		own := good
		own.Peak = peakLimit + 1<<20
		try("too much memory", false, own, its)
	}
}

// alone is a report of SCALE by itself.
func alone(workload, step string, s sample) *report {
	r := against(workload, step, "scale", "none", s, sample{})
	r.Results = r.Results[:1]
	return r
}

func TestVerdict(t *testing.T) {
	no := false
	durable := alone("source", stepPut, sample{Wall: 1, Stored: 1})
	durable.Results[0].Durable = &no
	edits := func(wall float64) *report {
		r := alone("source", stepPut, sample{Wall: 1})
		r.Results = append(r.Results, alone("many-edits", stepPut, sample{Wall: wall}).Results...)
		return r
	}
	engine := func(change func(*engineReport)) *report {
		r := made()
		r.Results = nil
		change(r.Engine)
		return r
	}
	receipts := func(bytes int) *report {
		r := engine(func(*engineReport) {})
		r.Anchor = &anchorReport{Chains: []chainsResult{{Slot: 0.4, Receipts: bytes}}}
		return r
	}
	memory := func(peaks ...int64) *report {
		m := &memoryReport{}
		for i, p := range peaks {
			m.Streams = append(m.Streams, memoryResult{What: "s", Size: int64(1 + 7*i), Peak: p << 20})
		}
		return &report{Memory: m}
	}
	for name, c := range map[string]struct {
		r   *report
		met bool
	}{
		"nothing measured":        {&report{}, true},
		"a peer was not compared": {alone("source", stepPut, sample{Wall: 9}), true},
		"incompressible":          {alone("random", stepPut, sample{Stored: 1.01e9}), true},
		"incompressible, more":    {alone("random", stepPut, sample{Stored: 1.011e9}), false},
		"not durable":             {durable, false},
		"small":                   {alone("source", stepSmall, sample{Wall: 0.049}), true},
		"small, slower":           {alone("source", stepSmall, sample{Wall: 0.051}), false},
		"second version":          {edits(0.59), true},
		"second version, slower":  {edits(0.61), false},
		"engine":                  {engine(func(*engineReport) {}), true},
		"slow range":              {engine(func(e *engineReport) { e.Ranges[0].Took.P50 = 0.41e-3 }), false},
		"slowest ranges":          {engine(func(e *engineReport) { e.Ranges[0].Took.P99 = 2.1e-3 }), false},
		"slow proof":              {engine(func(e *engineReport) { e.Proofs[0].Prove.P50 = 151e-6 }), false},
		"slow verification":       {engine(func(e *engineReport) { e.Proofs[0].Verify.P50 = 151e-6 }), false},
		"large proof":             {engine(func(e *engineReport) { e.Proofs[0].Most = 2501 }), false},
		"slow open":               {engine(func(e *engineReport) { e.Growth.Open = []float64{0.6, 0.1, 0.6} }), false},
		"slower as it grows": {engine(func(e *engineReport) {
			e.Growth.Puts[1] = alone("source", stepPut, sample{Wall: 1.1, CPU: 2.3}).Results[0]
		}), false},
		"receipts":                 {receipts(4000), true},
		"large receipts":           {receipts(4001), false},
		"memory":                   {memory(100, 114), true},
		"memory grows":             {memory(100, 116), false},
		"too much memory":          {memory(401, 401), false},
		"memory could not be seen": {&report{Memory: &memoryReport{Unlimited: "no"}}, false},
	} {
		var out bytes.Buffer
		err := c.r.verdict(&out)
		if (err == nil) != c.met || strings.Contains(out.String(), "MISSED") == c.met {
			t.Errorf("%s: %v\n%s", name, err, &out)
		}
	}
}

// What a file is judged by is what the run was judged by.
func TestVerdictOfFile(t *testing.T) {
	r := made()
	r.Node = &nodeReport{Second: []secondPut{{What: "edits", Size: 1000, Wire: 19, First: 1, Most: 0.02}}}
	file := filepath.Join(t.TempDir(), "results.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	var want, got bytes.Buffer
	wantErr, gotErr := r.verdict(&want), convert(file, &got, (*report).verdict)
	if (wantErr == nil) != (gotErr == nil) || got.String() != want.String() || !strings.Contains(want.String(), "1.900 %") {
		t.Errorf("of the run: %v\n%s\nof the file: %v\n%s", wantErr, &want, gotErr, &got)
	}
}

// What a run takes part in depends on the scale only where nothing was named.
func TestChoice(t *testing.T) {
	for _, c := range []struct {
		names string
		full  bool
		want  string
	}{
		{"", true, "source engine-ranges node-load anchor memory"},
		{"", false, "source engine-ranges"},
		{"source", true, "source"},
		{"engine", false, "engine-ranges"},
		{"node,anchor", false, "node-load anchor"},
		{"node-load,memory", false, "node-load memory"},
	} {
		chosen := choice{full: c.full}
		if c.names != "" {
			chosen.names = strings.Split(c.names, ",")
		}
		var got []string
		for _, x := range [][2]string{{"source", ""}, {"engine-ranges", enginePart}, {"node-load", nodePart}, {anchorPart, anchorPart}, {memoryPart, memoryPart}} {
			if chosen.takes(x[0], x[1]) {
				got = append(got, x[0])
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("-only %q, full %t: %q, want %q", c.names, c.full, got, c.want)
		}
	}
	for name, is := range map[string]bool{"node-load": true, "engine-growth": true, "memory": true, "source": false, "node-": false} {
		if isPart(name) != is {
			t.Errorf("%s is a part: %t", name, !is)
		}
	}
}
