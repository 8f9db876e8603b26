package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	r := newResult(workload{name: "w", size: 9}, tool{name: "t"}, stepPut, []sample{
		{Wall: 3, CPU: 1, Peak: 5, Written: 9, Stored: 7},
		{Wall: 1, CPU: 2, Peak: 6, Written: 8, Stored: 9, Unsynced: 4},
		{Wall: 2, CPU: 9, Peak: 4, Written: 7, Stored: 8},
	})
	if want := (sample{Wall: 2, CPU: 2, Peak: 5, Written: 8, Stored: 8}); r.Median != want {
		t.Errorf("median = %+v, want %+v", r.Median, want)
	}
	if want := (sample{Wall: 1, CPU: 1, Peak: 4, Written: 7, Stored: 7}); r.Min != want {
		t.Errorf("least = %+v, want %+v", r.Min, want)
	}
	if want := (sample{Wall: 3, CPU: 9, Peak: 6, Written: 9, Stored: 9, Unsynced: 4}); r.Max != want {
		t.Errorf("most = %+v, want %+v", r.Max, want)
	}
}

func TestMedianOf(t *testing.T) {
	for want, values := range map[float64][]float64{7: {7}, 2.5: {4, 1}, 3: {9, 3, 1}, 5: {8, 6, 4, 1}} {
		if got := medianOf(values); got != want {
			t.Errorf("median of %v = %v, want %v", values, got, want)
		}
	}
}

// Ratios are of the same round: a slow round slows both.
func TestRatios(t *testing.T) {
	peer, own := result{Trials: []sample{{Wall: 4}, {Wall: 40}, {Wall: 6}}}, result{Trials: []sample{{Wall: 2}, {Wall: 10}, {Wall: 2}}}
	if got, want := ratios(&peer, &own, wall), (spread{3, 2, 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDurable(t *testing.T) {
	for _, c := range []struct {
		name   string
		trials []sample
		want   string
	}{
		{"nothing left", []sample{{Stored: 1e9}, {Stored: 1e9}}, "true"},
		{"a header left", []sample{{Stored: 1e5, Unsynced: 8 << 10}}, "true"},
		{"all left once", []sample{{Stored: 1e9}, {Stored: 1e9, Unsynced: 1e9}}, "false"},
		{"a little of much left", []sample{{Stored: 1e9, Unsynced: 9e6}}, "true"},
		{"much of a little left", []sample{{Stored: 1e6, Unsynced: 9e5}}, "false"},
		{"unknown", []sample{{Stored: 1e9, Unsynced: -1}}, "nil"},
	} {
		got := "nil"
		if d := durable(c.trials); d != nil {
			got = fmt.Sprint(*d)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// made is a report of SCALE and peers over some workloads.
func made() *report {
	r := &report{
		Scale: "full", Rounds: 3, Date: "2026-01-02", Machine: "2 CPUs <&>", Versions: map[string]string{"scale": "1", "desync": "absent"},
		What: map[string]string{"source": "source & more, 1000 MB", "files": "files, 500 MB"},
	}
	yes, no := true, false
	for i, workload := range []string{"source", "files"} {
		for j, tool := range []string{"scale", "restic", "kopia", "zstd"} {
			for _, step := range []string{stepPut, stepGet} {
				res := result{Workload: workload, Tool: tool, Step: step, Size: 1e9, Encrypts: tool == "restic" || tool == "kopia"}
				for round := range 3 {
					took := sample{Wall: float64(1+i+5*j) + 0.1*float64(round), CPU: 2, Peak: 1e8, Written: 2e8}
					if step == stepPut {
						took.Stored = int64(1+2*j) * 1e8
					}
					res.Trials = append(res.Trials, took)
				}
				res.Median, res.Min, res.Max = res.Trials[1], res.Trials[0], res.Trials[2]
				if step == stepPut {
					res.Durable = &yes
					if tool == "zstd" {
						res.Durable = &no
					}
				}
				r.Results = append(r.Results, res)
			}
		}
	}
	r.Engine = &engineReport{
		Ranges: []rangesResult{{Workload: "source", Took: latency{P50: 1e-4, P99: 1e-3}, Hits: 0.03}},
		Proofs: []provenResult{{What: "a range", Prove: latency{P50: 2e-5}, Verify: latency{P50: 1e-4}, Bytes: 1800, Most: 2000, Check: &latency{P50: 1e-4}}},
		Growth: &growthResult{Blocks: [2]int64{10, 1000}, Open: []float64{0.3, 0.1, 0.2}, Puts: [2]result{r.Results[0], r.Results[0]}},
	}
	r.compare()
	return r
}

func TestSaveAndLoad(t *testing.T) {
	want := made()
	name := filepath.Join(t.TempDir(), "new", "results")
	if err := want.publish(name); err != nil {
		t.Fatal(err)
	}
	got, err := load(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("it came back as another one:\n%s", diff)
	}
	// The chart of what was saved is that which was published.
	var again bytes.Buffer
	if err := convert(name+".json", &again, (*report).chart); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(name + ".svg"); err != nil || !bytes.Equal(b, again.Bytes()) {
		t.Errorf("the chart is drawn differently from the file: %v", err)
	}
	for _, old := range []string{`{"results":[{"workload":"source","tool":"scale"}]}`, `{}`, `[`} {
		if err := os.WriteFile(name+".json", []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(name + ".json"); err == nil {
			t.Errorf("%s was loaded", old)
		}
	}
}

// Every put of every tool has its bars and figures, and the picture is XML.
func TestChart(t *testing.T) {
	r := made()
	var out bytes.Buffer
	if err := r.chart(&out); err != nil {
		t.Fatal(err)
	}
	bars, texts := 0, make(map[string]int)
	for d := xml.NewDecoder(bytes.NewReader(out.Bytes())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, &out)
		}
		switch x := token.(type) {
		case xml.StartElement:
			if x.Name.Local == "rect" {
				bars++
			}
		case xml.CharData:
			texts[string(x)]++
		}
	}
	if bars != 2*2*4 {
		t.Errorf("%d bars, want two for each of 8 puts", bars)
	}
	for want, times := range map[string]int{
		"scale": 2, "restic*": 2, "kopia*": 2, "zstd°": 2, "source: source & more, 1000 MB": 1, "909": 1, "476": 1, "100.0": 2, "700.0": 2,
		"2 CPUs <&>; 2026-01-02, medians of 3, warm cache": 1,
	} {
		if texts[want] != times {
			t.Errorf("%q is there %d times, want %d", want, texts[want], times)
		}
	}
	if !strings.Contains(out.String(), "prefers-color-scheme:dark") {
		t.Error("it has no colours for dark pages")
	}
}

func TestPrint(t *testing.T) {
	r := made()
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{"2026-01-02; medians of 3", "desync: not on this machine", "kopia*", "1.100 ", "1.000 to 1.200", "  5.55  ", "hit rate 0.030"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if x := r.find("source", "restic", stepPut).Ratio; math.Abs(x.Wall.Median-6.1/1.1) > 1e-9 || x.Stored.Median != 3 {
		t.Errorf("%+v", x)
	}
	if x := r.find("source", "restic", stepGet).Ratio; x.Stored != nil {
		t.Error("a get has a ratio of stored bytes")
	}
}

func TestBenchstat(t *testing.T) {
	var out bytes.Buffer
	if err := made().benchstat(&out); err != nil {
		t.Fatal(err)
	}
	for want, times := range map[string]int{
		"BenchmarkPut/source/restic 1 6100000000 ns/op 2.000000 cpu-sec/op 100000000 peak-B 200000000 written-B 1.63934e+08 B/s 300000000 stored-B\n": 1,
		"BenchmarkGet/files/zstd 1 ": 3, "BenchmarkRange/source 1 100000 p50-ns 1000000 p99-ns\n": 1, "BenchmarkOpen/1000-blocks 1 ": 3,
		"BenchmarkProve/a-range 1 ": 1,
	} {
		if got := strings.Count(out.String(), want); got != times {
			t.Errorf("%q is there %d times, want %d, in\n%s", want, got, times, &out)
		}
	}
}

// A run of some parts replaces these in what was published, all tools of a workload together,
// and says so of each.
func TestMerge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	old := &report{
		Date: "2026-01-01", Versions: map[string]string{"scale": "old", "restic": "1", "borg": "1", "desync": "absent"},
		What: map[string]string{"source": "s", "random": "r"},
		Results: []result{
			{Workload: "source", Tool: "scale", Step: stepPut}, {Workload: "source", Tool: "borg", Step: stepPut},
			{Workload: "random", Tool: "scale", Step: stepPut}, {Workload: "random", Tool: "restic", Step: stepPut},
		},
		Engine: &engineReport{Growth: &growthResult{Bytes: 1}, Proofs: []provenResult{{What: "old"}}},
		Node:   &nodeReport{Small: &smallResult{}},
	}
	old.stamp()
	fresh := &report{
		Date: "2026-01-02", Versions: map[string]string{"scale": "new", "restic": "2"}, What: map[string]string{"source": "s", "lines": "l"},
		Results: []result{{Workload: "source", Tool: "scale", Step: stepGet}, {Workload: "source", Tool: "restic", Step: stepPut}, {Workload: "lines", Tool: "scale", Step: stepPut}},
		Engine:  &engineReport{Proofs: []provenResult{{What: "new"}}},
	}
	fresh.stamp()
	if r, err := fresh.mergeInto(file); err != nil || r != fresh {
		t.Errorf("into nothing: %v, %v", r, err)
	}
	if err := old.save(file); err != nil {
		t.Fatal(err)
	}
	r, err := fresh.mergeInto(file)
	if err != nil {
		t.Fatal(err)
	}
	var results []string
	for _, res := range r.Results {
		results = append(results, res.Workload+" "+res.Tool+" "+res.Step)
	}
	if diff := cmp.Diff([]string{"source scale get", "source restic put", "random scale put", "random restic put", "lines scale put"}, results); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"scale": "new", "restic": "2", "desync": "absent"}, r.Versions); diff != "" {
		t.Error(diff)
	}
	was, is := "2026-01-01, old", "2026-01-02, new"
	if diff := cmp.Diff(map[string]string{"source": is, "lines": is, "random": was, "engine-growth": was, "engine-proofs": is, "node-small": was}, r.Measured); diff != "" {
		t.Error(diff)
	}
	if r.Engine.Growth == nil || r.Engine.Proofs[0].What != "new" || r.Node.Small == nil || r.Date != fresh.Date {
		t.Errorf("%+v", r)
	}
}
