package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// memoryLimit is the memory of the cgroup under which put and get must work, their
// share of the page cache included.
const memoryLimit = 512 << 20

// memory puts and gets each workload, the files through a pipe too, and fails if a
// process is killed or its peak is beyond peakLimit. In the full scale each workload is
// larger than the limit.
func memory(ctx context.Context, t tool, workloads []workload, scratch string, out io.Writer) error {
	limited, remove, err := limiter(memoryLimit)
	if err != nil {
		return fmt.Errorf("no limit of memory can be set here, run it as root or in a user session of systemd: %w", err)
	}
	defer remove()
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	store := filepath.Join(scratch, "store")
	if _, err := run(ctx, t.prepare(store)); err != nil {
		return err
	}
	under := func(what string, c command) error {
		c.args = limited(c.args)
		s, err := run(ctx, c)
		if err != nil {
			return fmt.Errorf("under %d MiB: %w", memoryLimit>>20, err)
		}
		fmt.Fprintf(out, "%-32s peak %3d MiB, %6.2f s\n", what, s.Peak>>20, s.Wall)
		if s.Peak > peakLimit {
			return fmt.Errorf("%s: peak %d MiB, at most %d allowed", what, s.Peak>>20, peakLimit>>20)
		}
		return nil
	}
	fmt.Fprintf(out, "under a cgroup of %d MiB; the peak is of the process alone\n", memoryLimit>>20)
	for _, w := range workloads {
		if w.base != "" {
			continue
		}
		got := filepath.Join(scratch, "got")
		get := t.get(store, w.path, got, w.tree)
		if !w.tree {
			get.out = got
		}
		if err := under("put "+w.name, t.put(store, w.path)); err != nil {
			return err
		}
		if err := under("get "+w.name, get); err != nil {
			return err
		}
		if err := same(w.path, got); err != nil {
			return err
		}
		if err := os.RemoveAll(got); err != nil {
			return err
		}
		if w.tree {
			continue
		}
		// A store of its own, because the one above has these bytes already.
		piped := store + "-" + w.name
		if _, err := run(ctx, t.prepare(piped)); err != nil {
			return err
		}
		pipe := t.putPipe(piped)
		pipe.in = w.path
		if err := under("put "+w.name+" through a pipe", pipe); err != nil {
			return err
		}
		if err := os.RemoveAll(piped); err != nil {
			return err
		}
	}
	return nil
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
