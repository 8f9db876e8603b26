package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// memoryLimit is the memory of the cgroup under which put and get must work, their
// share of the page cache included.
const memoryLimit = 512 << 20

// A memoryReport is what SCALE's command line had resident.
type memoryReport struct {
	// Limited is of runs in a cgroup of memoryLimit, each of which would have been killed
	// beyond it. Unlimited says why there are none.
	Limited   []memoryResult `json:"limited"`
	Unlimited string         `json:"unlimited,omitempty"`
	// Streams are puts of JSON lines that come through a pipe: of one amount, and of
	// several times as much.
	Streams []memoryResult `json:"streams"`
}

// A memoryResult is of one run.
type memoryResult struct {
	What string  `json:"what"`
	Size int64   `json:"size_bytes,omitempty"`
	Peak int64   `json:"peak_bytes"` // of the process alone
	Wall float64 `json:"wall_seconds"`
}

// memory puts and gets each workload, the files through a pipe too, and streams. A process
// that is killed is an error.
func (b *surroundings) memory(ctx context.Context) (*memoryReport, error) {
	r := &memoryReport{}
	dir := filepath.Join(b.scratch, "memory")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	t := scaleTool("scale", b.bin, "default")
	if limited, remove, err := limiter(memoryLimit); err != nil {
		r.Unlimited = fmt.Sprintf("no limit of memory can be set here, run it as root or in a user session of systemd: %v", err)
	} else {
		defer remove()
		fmt.Fprintln(b.progress, "memory: under a limit")
		if r.Limited, err = b.limited(ctx, t, dir, limited); err != nil {
			return nil, fmt.Errorf("under %d MiB: %w", memoryLimit>>20, err)
		}
	}
	sizes := []int64{32 << 20, 128 << 20}
	if b.full {
		sizes = []int64{1 << 30, 8 << 30}
	}
	for _, size := range sizes {
		fmt.Fprintf(b.progress, "memory: a stream of %d MiB\n", size>>20)
		store := filepath.Join(dir, fmt.Sprint("stream-", size))
		if _, err := run(ctx, t.prepare(store)[0]); err != nil {
			return nil, err
		}
		put := t.putPipe(store)
		put.feed = func(w io.Writer) error { return jsonLines(w, 7, size) }
		s, err := run(ctx, put)
		if err != nil {
			return nil, err
		}
		r.Streams = append(r.Streams, memoryResult{fmt.Sprintf("put of a stream of %d MiB", size>>20), size, s.Peak, s.Wall})
		if err := b.gone(ctx, t, store); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// limited puts and gets under a limit. In the full scale each workload is larger than that.
func (b *surroundings) limited(ctx context.Context, t tool, dir string, limited func([]string) []string) ([]memoryResult, error) {
	var results []memoryResult
	under := func(what string, c command) error {
		c.args = limited(c.args)
		s, err := run(ctx, c)
		results = append(results, memoryResult{What: what, Peak: s.Peak, Wall: s.Wall})
		return err
	}
	store := filepath.Join(dir, "store")
	if _, err := run(ctx, t.prepare(store)[0]); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(b.workloads)) {
		w := b.workloads[name]
		if w.base != "" {
			continue
		}
		got := filepath.Join(dir, "got-"+w.name)
		j := job{store: store, input: w.path, tree: w.tree, out: got}
		get := t.restore(j)
		if !w.tree {
			get = t.get(j)
			get.out = got
		}
		if err := under("put "+w.name, t.put(j)); err != nil {
			return nil, err
		}
		if err := under("get "+w.name, get); err != nil {
			return nil, err
		}
		if err := same(w.path, got); err != nil {
			return nil, err
		}
		if w.tree {
			continue // its files stay; see empty
		}
		if err := os.Remove(got); err != nil {
			return nil, err
		}
		// A store of its own, because the one above has these bytes already.
		piped := store + "-" + w.name
		if _, err := run(ctx, t.prepare(piped)[0]); err != nil {
			return nil, err
		}
		pipe := t.putPipe(piped)
		pipe.in = w.path
		if err := under("put "+w.name+" through a pipe", pipe); err != nil {
			return nil, err
		}
		if err := b.gone(ctx, t, piped); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// gone removes a store, once all that is in it has been read and is what it should be.
func (b *surroundings) gone(ctx context.Context, t tool, store string) error {
	if _, err := run(ctx, t.check(job{store: store})); err != nil {
		return err
	}
	return os.RemoveAll(store)
}

func (r *memoryReport) print(out io.Writer) {
	fmt.Fprintf(out, "Memory of SCALE's command line; under a cgroup of %d MiB where it says limited\n", memoryLimit>>20)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tlimited\tpeak MiB\ts\t")
	for _, m := range r.Limited {
		fmt.Fprintf(tw, "%s\tyes\t%d\t%.2f\t\n", m.What, m.Peak>>20, m.Wall)
	}
	for _, m := range r.Streams {
		fmt.Fprintf(tw, "%s\tno\t%d\t%.2f\t\n", m.What, m.Peak>>20, m.Wall)
	}
	tw.Flush()
	fmt.Fprintln(out)
}

// streamGrowth is how much more than the first the larger stream may have resident: what
// the garbage collector's timing changes from run to run.
const streamGrowth = 1.15

func (r *memoryReport) judge(say sayFunc) {
	if r.Unlimited != "" {
		say(false, "memory: %s", r.Unlimited)
	}
	for _, m := range append(append([]memoryResult(nil), r.Limited...), r.Streams...) {
		say(m.Peak <= peakLimit, "memory, %s: peak %d MiB (at most %d)", m.What, m.Peak>>20, peakLimit>>20)
	}
	if n := len(r.Streams); n > 1 {
		small, large := r.Streams[0], r.Streams[n-1]
		x := float64(large.Peak) / float64(small.Peak)
		say(x <= streamGrowth, "memory: of a stream %d times as long the peak is %.2f times as large (at most %.2f)", large.Size/small.Size, x, streamGrowth)
	}
}

// limiter returns what turns a program's arguments into ones that run it under a limit
// of memory: in a cgroup made for it (version 2, or 1), or through systemd.
func limiter(limit int64) (wrap func([]string) []string, remove func(), err error) {
	name := fmt.Sprintf("scale-bench-%d", os.Getpid())
	for _, c := range []struct{ parent, file string }{
		{ownCgroup(), "memory.max"},
		{"/sys/fs/cgroup", "memory.max"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	} {
		dir := filepath.Join(c.parent, name)
		if c.parent == "" || os.Mkdir(dir, 0o755) != nil {
			continue
		}
		remove := func() { os.Remove(dir) }
		if _, err := os.Stat(filepath.Join(dir, c.file)); err != nil {
			remove()
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), fmt.Appendf(nil, "%d", limit), 0o644); err != nil {
			remove()
			return nil, nil, err
		}
		join := `echo $$ > "$0" && exec "$@"`
		return func(args []string) []string {
			return append([]string{"sh", "-c", join, filepath.Join(dir, "cgroup.procs")}, args...)
		}, remove, nil
	}
	scope := []string{"systemd-run", "--user", "--scope", "--quiet", "-p", fmt.Sprintf("MemoryMax=%d", limit), "-p", "MemorySwapMax=0"}
	if out, err := exec.Command(scope[0], append(scope[1:], "true")...).CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("systemd-run: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return func(args []string) []string { return append(append([]string(nil), scope...), args...) }, func() {}, nil
}

// ownCgroup returns the directory of the version 2 cgroup that this process is in.
func ownCgroup() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join("/sys/fs/cgroup", dir)
		}
	}
	return ""
}
