package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A result is what one tool took for one step of one workload.
type result struct {
	Workload string   `json:"workload"`
	Tool     string   `json:"tool"`
	Step     string   `json:"step"`       // see steps
	Size     int64    `json:"size_bytes"` // of the content that the step moved
	Encrypts bool     `json:"encrypts,omitempty"`
	Durable  *bool    `json:"durable,omitempty"` // when a put had ended; see durable
	Median   sample   `json:"median"`            // of each figure by itself
	Min      sample   `json:"min"`
	Max      sample   `json:"max"`
	Trials   []sample `json:"trials"` // by round
	Ratio    *ratio   `json:"ratio_to_scale,omitempty"`
}

// A ratio compares a result with SCALE's.
type ratio struct {
	Wall   spread  `json:"wall"`
	CPU    spread  `json:"cpu"`
	Stored *spread `json:"stored,omitempty"` // of what puts added, if SCALE's did
}

// A report is all that one run of this program found.
type report struct {
	Scale    string            `json:"scale"`
	Rounds   int               `json:"rounds"`
	Date     string            `json:"date"` // YYYY-MM-DD, UTC
	Machine  string            `json:"machine"`
	Floor    int64             `json:"peak_floor_bytes"` // peaks up to this are this program's own; see run
	Versions map[string]string `json:"versions"`         // by tool
	What     map[string]string `json:"workloads"`        // what each is, by its name
	Measured map[string]string `json:"measured"`         // when, and with which build, by the name of the part
	Results  []result          `json:"results"`
	Engine   *engineReport     `json:"engine,omitempty"`
	Node     *nodeReport       `json:"node,omitempty"`
	Anchor   *anchorReport     `json:"anchor,omitempty"`
	Memory   *memoryReport     `json:"memory,omitempty"`
}

func newReport(scale string, rounds int) *report {
	return &report{Scale: scale, Rounds: rounds, Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(), What: make(map[string]string)}
}

func newResult(w workload, t tool, step string, trials []sample) result {
	r := result{
		Workload: w.name, Tool: t.name, Step: step, Size: w.size, Encrypts: t.encrypts, Trials: trials,
		Median: medianSample(trials, func(s sample) sample { return s }),
		Min:    extreme(trials, func(values []float64) float64 { return slices.Min(values) }),
		Max:    extreme(trials, func(values []float64) float64 { return slices.Max(values) }),
	}
	if step == stepSmall {
		r.Size = smallSize
	}
	if step == stepPut && t.get != nil {
		r.Durable = durable(trials)
	}
	return r
}

// What may wait in memory when a put counts as durable, the larger of bytes and a part of
// what it stored: logs, caches and headers of files, which a tool can do without.
const (
	unsyncedBytes = 16 << 10
	unsyncedPart  = 0.01
)

// durable says whether what was put was on the disk, not only in the page cache, when the
// tool had ended, in every trial. Nil means that the kernel does not tell. It looks at the
// contents of files: whether their names are durable too it cannot see.
func durable(trials []sample) *bool {
	is := true
	for _, s := range trials {
		if s.Unsynced < 0 {
			return nil
		}
		is = is && float64(s.Unsynced) <= max(unsyncedBytes, unsyncedPart*float64(s.Stored))
	}
	return &is
}

// figures are those of a sample, in a fixed order.
func (s *sample) figures() []*int64 { return []*int64{&s.Peak, &s.Written, &s.Stored, &s.Unsynced} }

func medianSample[T any](trials []T, of func(T) sample) sample {
	samples := make([]sample, len(trials))
	for i, t := range trials {
		samples[i] = of(t)
	}
	return extreme(samples, medianOf)
}

// medianOf sorts the values, of which there is at least one.
func medianOf(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// extreme takes one of the values of each figure.
func extreme(trials []sample, pick func([]float64) float64) (s sample) {
	each := func(of func(*sample) float64) float64 {
		values := make([]float64, len(trials))
		for i := range trials {
			values[i] = of(&trials[i])
		}
		return pick(values)
	}
	s.Wall = each(func(s *sample) float64 { return s.Wall })
	s.CPU = each(func(s *sample) float64 { return s.CPU })
	for i, f := range s.figures() {
		*f = int64(each(func(s *sample) float64 { return float64(*s.figures()[i]) }))
	}
	return s
}

func middle[T any, V cmp.Ordered](trials []T, of func(T) V) V {
	values := make([]V, len(trials))
	for i, t := range trials {
		values[i] = of(t)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// A spread is of one figure's ratio to another's, round by round: what slows one round
// slows both.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// ratios compares a figure of two results; it has to be above zero.
func ratios(a, b *result, of func(sample) float64) spread {
	var values []float64
	for i := range min(len(a.Trials), len(b.Trials)) {
		values = append(values, of(a.Trials[i])/of(b.Trials[i]))
	}
	return spreadOf(values)
}

func spreadOf(values []float64) spread {
	return spread{medianOf(values), slices.Min(values), slices.Max(values)}
}

func wall(s sample) float64   { return s.Wall }
func cpu(s sample) float64    { return s.CPU }
func stored(s sample) float64 { return float64(s.Stored) }

// compare gives the results their ratios.
func (r *report) compare() {
	for i := range r.Results {
		res := &r.Results[i]
		own := r.find(res.Workload, "scale", res.Step)
		if own == nil || own.Min.CPU <= 0 { // of a clock of 10 ms
			continue
		}
		res.Ratio = &ratio{Wall: ratios(res, own, wall), CPU: ratios(res, own, cpu)}
		if own.Min.Stored > 0 {
			s := ratios(res, own, stored)
			res.Ratio.Stored = &s
		}
	}
}

// find returns nil if there is no such result.
func (r *report) find(workload, tool, step string) *result {
	for i := range r.Results {
		if res := &r.Results[i]; res.Workload == workload && res.Tool == tool && res.Step == step {
			return res
		}
	}
	return nil
}

// speed is in MB/s.
func (r *result) speed() float64 { return float64(r.Size) / mb / r.Median.Wall }

const mb = 1e6

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
	memory := field("/proc/meminfo", "MemTotal")
	var kib float64
	if n, _ := fmt.Sscanf(memory, "%g kB", &kib); n == 1 {
		memory = fmt.Sprintf("%.0f GB", kib*1024/1e9)
	}
	return fmt.Sprintf("%d CPUs (%s), %s, %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), memory, runtime.Version())
}

// save writes all figures, not only the medians, to a file.
func (r *report) save(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// publish writes the figures and their chart. What the file has of parts that were not
// measured stays.
func (r *report) publish(name string) error {
	r, err := r.mergeInto(name + ".json")
	if err != nil {
		return err
	}
	if err := r.save(name + ".json"); err != nil {
		return err
	}
	f, err := os.Create(name + ".svg")
	if err != nil {
		return err
	}
	return errors.Join(r.chart(f), f.Close())
}

// load reads what save wrote.
func load(file string) (*report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(r.Results) == 0 || r.Results[0].Step == "" {
		return nil, errors.New(file + " holds no results of tools, or is by an older version: run make bench again")
	}
	return r, nil
}
