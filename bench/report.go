package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A result is what one tool did with one workload.
type result struct {
	Workload string  `json:"workload"`
	Size     int64   `json:"size_bytes"`
	Tool     string  `json:"tool"`
	Durable  bool    `json:"durable"`
	Median   trial   `json:"median"`
	Trials   []trial `json:"trials"`
}

type report struct {
	Scale    string            `json:"scale"`
	Rounds   int               `json:"rounds"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Results  []result          `json:"results"`
	Node     *nodeReport       `json:"node,omitempty"`
	Anchor   *anchorReport     `json:"anchor,omitempty"`
}

// median takes the median of each figure by itself.
func median(trials []trial) trial {
	return trial{
		Put:    medianSample(trials, func(t trial) sample { return t.Put }),
		Get:    medianSample(trials, func(t trial) sample { return t.Get }),
		Stored: middle(trials, func(t trial) int64 { return t.Stored }),
	}
}

func medianSample[T any](trials []T, of func(T) sample) sample {
	return sample{
		Wall: middle(trials, func(t T) float64 { return of(t).Wall }),
		CPU:  middle(trials, func(t T) float64 { return of(t).CPU }),
		Peak: middle(trials, func(t T) int64 { return of(t).Peak }),
	}
}

func middle[T any, V cmp.Ordered](trials []T, of func(T) V) V {
	values := make([]V, len(trials))
	for i, t := range trials {
		values[i] = of(t)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// machine describes where the figures come from.
func machine() string {
	field := func(file, name string) string {
		f, err := os.Open(file)
		if err != nil {
			return "unknown"
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
				return strings.TrimSpace(value)
			}
		}
		return "unknown"
	}
	return fmt.Sprintf("%d CPUs (%s), memory %s, %s", runtime.NumCPU(),
		field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"), runtime.Version())
}

// save writes all figures, not only the medians, to DIR/bench-SCALE.json.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bench-"+r.Scale+".json"), append(b, '\n'), 0o644)
}

const mb = 1e6

func (r *report) print(out io.Writer, workloads []workload) {
	r.printTools(out, workloads)
	if r.Node != nil {
		r.Node.print(out)
	}
	if r.Anchor != nil {
		r.Anchor.print(out)
	}
}

func (r *report) printTools(out io.Writer, workloads []workload) {
	fmt.Fprintf(out, "%s, %s; medians of %d, warm cache\n", r.Machine, time.Now().UTC().Format(time.DateOnly), r.Rounds)
	for _, tool := range []string{"scale", "restic", "zstd"} {
		fmt.Fprintf(out, "%s: %s\n", tool, r.Versions[tool])
	}
	fmt.Fprintln(out)
	for _, w := range workloads {
		fmt.Fprintf(out, "%s: %s, %.0f MB\n", w.name, w.what, float64(w.size)/mb)
	}
	fmt.Fprintln(out, "(two versions: what the second took and added, for zstd the whole of it; x: times SCALE's)")
	fmt.Fprintln(out)

	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "workload\ttool\tput s\tx\tMB/s\tCPU s\tpeak MB\tdurable\tstored MB\tx\tget s\tx\tMB/s\tCPU s\tpeak MB\t")
	for _, res := range r.Results {
		own := r.find(res.Workload, "scale").Median
		m, size := res.Median, float64(res.Size)/mb
		durable := "no"
		if res.Durable {
			durable = "yes"
		}
		fmt.Fprintf(tw, "%s\t%s\t%.2f\t%.2f\t%.0f\t%.1f\t%.0f\t%s\t%.1f\t%.2f\t%.2f\t%.2f\t%.0f\t%.1f\t%.0f\t\n",
			res.Workload, res.Tool,
			m.Put.Wall, m.Put.Wall/own.Put.Wall, size/m.Put.Wall, m.Put.CPU, float64(m.Put.Peak)/mb, durable,
			float64(m.Stored)/mb, float64(m.Stored)/float64(own.Stored),
			m.Get.Wall, m.Get.Wall/own.Get.Wall, size/m.Get.Wall, m.Get.CPU, float64(m.Get.Peak)/mb)
	}
	tw.Flush()
	fmt.Fprintln(out)
}

func (r *report) find(workload, tool string) result {
	i := slices.IndexFunc(r.Results, func(res result) bool { return res.Workload == workload && res.Tool == tool })
	return r.Results[i]
}

// peakLimit is what any put and any get must stay within.
const peakLimit = 400 << 20

// verdict says which targets SCALE met, and fails if it missed one.
func (r *report) verdict(out io.Writer) error {
	missed := false
	say := func(met bool, format string, args ...any) {
		word := "met"
		if !met {
			word, missed = "MISSED", true
		}
		fmt.Fprintf(out, "%-7s%s\n", word, fmt.Sprintf(format, args...))
	}
	if r.Node != nil {
		r.Node.judge(say)
	}
	if r.Anchor != nil {
		r.Anchor.judge(say)
	}
	for _, res := range r.Results {
		if res.Tool != "scale" {
			continue
		}
		own, peer := res.Median, r.find(res.Workload, "restic").Median
		say(own.Put.Wall < peer.Put.Wall, "%s: put takes %.2f s, restic %.2f s", res.Workload, own.Put.Wall, peer.Put.Wall)
		if res.Workload == "random" {
			share := float64(own.Stored) / float64(res.Size)
			say(share <= 1.01, "%s: stored %.4f of its size (at most 1.01)", res.Workload, share)
		} else {
			say(own.Stored < peer.Stored, "%s: stored %.1f MB, restic %.1f MB", res.Workload, float64(own.Stored)/mb, float64(peer.Stored)/mb)
		}
		peak := max(own.Put.Peak, own.Get.Peak)
		say(peak <= peakLimit, "%s: peak memory %d MiB (at most %d)", res.Workload, peak>>20, peakLimit>>20)
	}
	if missed {
		return errors.New("a target was missed")
	}
	return nil
}
