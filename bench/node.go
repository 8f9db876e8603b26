package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// A nodeReport is what "scale serve" did.
type nodeReport struct {
	Ways   []wayResult   `json:"throughput,omitempty"`
	Second []secondPut   `json:"second_puts,omitempty"`
	Small  *smallResult  `json:"small_puts,omitempty"`
	Load   *loadResult   `json:"load,omitempty"`
	Proofs []proofResult `json:"proofs,omitempty"`
}

// A nodeBench measures a node beside the command line that has the store to itself.
type nodeBench struct{ *surroundings }

// nodeParts are what there is to measure of a node, by the names that -only takes.
var nodeParts = []struct {
	name string
	run  func(*nodeBench, context.Context, *nodeReport) error
}{
	{"node-throughput", (*nodeBench).throughput},
	{"node-again", (*nodeBench).second},
	{"node-small", (*nodeBench).small},
	{"node-load", (*nodeBench).load},
	{"node-proofs", (*nodeBench).proofs},
}

// run measures the parts that are chosen. Without a part to measure there is no report.
// Files of trees stay until the end; see empty.
func (b *nodeBench) run(ctx context.Context, c choice) (*nodeReport, error) {
	var r *nodeReport
	for _, part := range nodeParts {
		if !c.takes(part.name, nodePart) {
			continue
		}
		if r == nil {
			r = &nodeReport{}
		}
		fmt.Fprintln(b.progress, part.name)
		if err := part.run(b, ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return r, nil
}

// withNode serves a new store for as long as use runs, and has it checked before it goes.
func (b *nodeBench) withNode(ctx context.Context, name string, use func(*nodeProcess) error) error {
	n, err := newNode(ctx, b.bin, filepath.Join(b.scratch, name))
	if err != nil {
		return err
	}
	if err := use(n); err != nil {
		return errors.Join(fmt.Errorf("%w\nlog of the node:\n%s", err, n.logged()), n.kill())
	}
	return n.stop()
}

// A way is one to put and get a workload.
type way struct {
	name string
	node bool
	put  func(ctx context.Context, n *nodeProcess, store, name, path string) (sample, error)
	// get writes a file to out, or a tree to the directory out, which does not exist.
	get func(ctx context.Context, n *nodeProcess, store, name, out string, tree bool) (sample, error)
}

// ways are the command line alone, the command line through a node, and a plain stream to
// and from a node. The stream's client is this process.
func (b *nodeBench) ways() []way {
	get := func(ctx context.Context, c command, out string, tree bool) (sample, error) {
		c.args = append(c.args, "-o", out)
		if !tree {
			c.args, c.out = c.args[:len(c.args)-2], out
		}
		return run(ctx, c)
	}
	local := func(store string, args ...string) command {
		return command{args: append([]string{b.bin, "--store", store}, args...)}
	}
	return []way{
		{
			name: "local",
			put: func(ctx context.Context, _ *nodeProcess, store, name, path string) (sample, error) {
				return run(ctx, local(store, "put", path, "--name", name))
			},
			get: func(ctx context.Context, _ *nodeProcess, store, name, out string, tree bool) (sample, error) {
				return get(ctx, local(store, "get", name), out, tree)
			},
		},
		{
			name: "client", node: true,
			put: func(ctx context.Context, n *nodeProcess, _, name, path string) (sample, error) {
				return run(ctx, n.client(n.grpc, "put", path, "--name", name))
			},
			get: func(ctx context.Context, n *nodeProcess, _, name, out string, tree bool) (sample, error) {
				return get(ctx, n.client(n.grpc, "get", name), out, tree)
			},
		},
		{
			name: "stream", node: true,
			put: func(ctx context.Context, n *nodeProcess, _, name, path string) (sample, error) {
				return own(func() error {
					conn, err := n.dial()
					if err != nil {
						return err
					}
					return streamPut(n.as(ctx), conn, name, path)
				})
			},
			get: func(ctx context.Context, n *nodeProcess, _, name, out string, tree bool) (sample, error) {
				return own(func() (err error) {
					conn, err := n.dial()
					if err != nil {
						return err
					}
					if tree {
						return streamGetTree(n.as(ctx), conn, name, out)
					}
					f, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY, 0o600)
					if err != nil {
						return err
					}
					return errors.Join(streamGet(n.as(ctx), conn, name, f), f.Close())
				})
			},
		},
	}
}

// own measures what this process does. It has no peak of its own.
func own(do func() error) (sample, error) {
	used := func() (float64, error) {
		var u syscall.Rusage
		err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return (time.Duration(u.Utime.Nano()) + time.Duration(u.Stime.Nano())).Seconds(), err
	}
	before, err := used()
	if err != nil {
		return sample{}, err
	}
	start := time.Now()
	if err := do(); err != nil {
		return sample{}, err
	}
	wall := time.Since(start)
	after, err := used()
	return sample{Wall: wall.Seconds(), CPU: after - before}, err
}

// A wayTrial is one put and get of a workload in one way.
type wayTrial struct {
	Put     sample  `json:"put"` // of the client
	Get     sample  `json:"get"`
	NodePut float64 `json:"node_put_cpu_seconds"`
	NodeGet float64 `json:"node_get_cpu_seconds"`
	Peak    int64   `json:"node_peak_bytes"` // VmHWM, page cache not included
}

// A wayResult is what one way did with one workload.
type wayResult struct {
	Workload string     `json:"workload"`
	Size     int64      `json:"size_bytes"`
	Way      string     `json:"way"`
	Median   wayTrial   `json:"median"`
	Trials   []wayTrial `json:"trials"`
}

func (b *nodeBench) throughput(ctx context.Context, r *nodeReport) error {
	ways := b.ways()
	for _, name := range []string{"source", "lines", "random", "files"} {
		w := b.workloads[name]
		results := make([]wayResult, len(ways))
		for round := range b.rounds {
			for i := range ways {
				at := (round + i) % len(ways)
				fmt.Fprintf(b.progress, "round %d of %d: %s, %s\n", round+1, b.rounds, w.name, ways[at].name)
				dir := filepath.Join(b.scratch, fmt.Sprintf("%s-%d-%s", w.name, round, ways[at].name))
				got, err := b.tryWay(ctx, ways[at], w, dir, round == b.rounds-1)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, ways[at].name, err)
				}
				results[at].Trials = append(results[at].Trials, got)
			}
		}
		for i := range ways {
			res := &results[i]
			res.Workload, res.Size, res.Way = w.name, w.size, ways[i].name
			res.Median = wayTrial{
				Put:     medianSample(res.Trials, func(t wayTrial) sample { return t.Put }),
				Get:     medianSample(res.Trials, func(t wayTrial) sample { return t.Get }),
				NodePut: middle(res.Trials, func(t wayTrial) float64 { return t.NodePut }),
				NodeGet: middle(res.Trials, func(t wayTrial) float64 { return t.NodeGet }),
				Peak:    middle(res.Trials, func(t wayTrial) int64 { return t.Peak }),
			}
		}
		r.Ways = append(r.Ways, results...)
	}
	return nil
}

// tryWay is try for a way.
func (b *nodeBench) tryWay(ctx context.Context, w way, in workload, dir string, verify bool) (t wayTrial, err error) {
	defer func() {
		if in.tree {
			err = errors.Join(err, empty(dir))
		} else {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return t, err
	}
	store, out := filepath.Join(dir, "store"), filepath.Join(dir, "out")
	use := func(n *nodeProcess) error {
		node := func(took *float64, do func() (sample, error)) (s sample, err error) {
			before, after := 0.0, 0.0
			if n != nil {
				if before, err = n.cpu(); err != nil {
					return s, err
				}
			}
			if s, err = do(); err != nil || n == nil {
				return s, err
			}
			after, err = n.cpu()
			*took = after - before
			return s, err
		}
		if err := settle(in.path); err != nil {
			return err
		}
		if t.Put, err = node(&t.NodePut, func() (sample, error) { return w.put(ctx, n, store, in.name, in.path) }); err != nil {
			return err
		}
		if err := settle(store); err != nil {
			return err
		}
		to := os.DevNull
		if in.tree {
			to = out
		}
		if t.Get, err = node(&t.NodeGet, func() (sample, error) { return w.get(ctx, n, store, in.name, to, in.tree) }); err != nil {
			return err
		}
		if n != nil {
			if t.Peak, err = n.peak(); err != nil {
				return err
			}
		}
		if !verify {
			return nil
		}
		if !in.tree {
			if _, err := w.get(ctx, n, store, in.name, out, false); err != nil {
				return err
			}
		}
		if err := same(in.path, out); err != nil {
			return fmt.Errorf("what came back is something else: %w", err)
		}
		_, err = run(ctx, command{args: []string{b.bin, "--store", store, "check", "--read-data"}})
		return err
	}
	if !w.node {
		if _, err := run(ctx, command{args: []string{b.bin, "--store", store, "init"}}); err != nil {
			return t, err
		}
		return t, use(nil)
	}
	n, err := newNode(ctx, b.bin, store)
	if err != nil {
		return t, err
	}
	if err := use(n); err != nil {
		return t, errors.Join(fmt.Errorf("%w\nlog of the node:\n%s", err, n.logged()), n.kill())
	}
	return t, n.stop()
}

// A secondPut is one of something that the node has already, or most of it.
type secondPut struct {
	What  string  `json:"what"`
	Size  int64   `json:"size_bytes"`
	Wire  int64   `json:"wire_bytes"` // both ways
	Wall  float64 `json:"wall_seconds"`
	First float64 `json:"first_put_seconds"`
	Most  float64 `json:"most_of_size"` // share of the size that may go over the wire
}

// second counts what the command line's client moves when it puts other versions.
func (b *nodeBench) second(ctx context.Context, r *nodeReport) error {
	source := b.workloads["source"]
	return b.withNode(ctx, "second", func(n *nodeProcess) error {
		put := func(path string) (int64, float64, error) {
			if err := settle(path); err != nil {
				return 0, 0, err
			}
			way, err := newRelay(n.grpc)
			if err != nil {
				return 0, 0, err
			}
			s, err := run(ctx, n.client(way.listener.Addr().String(), "put", path, "--name", "source"))
			return way.bytes.Load(), s.Wall, errors.Join(err, way.close())
		}
		_, first, err := put(source.path)
		if err != nil {
			return err
		}
		for _, p := range []struct {
			what, path string
			most       float64
		}{
			{"nothing changed", source.path, 0.003},
			{"2 % in few large edits", b.workloads["few-edits"].path, 0.02},
			{"2 % in many small edits", b.workloads["many-edits"].path, 0.08},
		} {
			info, err := os.Stat(p.path)
			if err != nil {
				return err
			}
			moved, wall, err := put(p.path)
			if err != nil {
				return err
			}
			r.Second = append(r.Second, secondPut{p.what, info.Size(), moved, wall, first, p.most})
			out := filepath.Join(b.scratch, "second.out")
			get := n.client(n.grpc, "get", "source")
			get.out = out
			if _, err := run(ctx, get); err != nil {
				return err
			}
			if err := errors.Join(same(p.path, out), os.Remove(out)); err != nil {
				return err
			}
		}
		return n.check(ctx)
	})
}

// A latency is of many calls.
type latency struct {
	P50 float64 `json:"p50_seconds"`
	P99 float64 `json:"p99_seconds"`
	Max float64 `json:"max_seconds"`
}

func latencyOf(took []time.Duration) latency {
	if len(took) == 0 {
		return latency{}
	}
	slices.Sort(took)
	at := func(share float64) float64 { return took[min(int(share*float64(len(took))), len(took)-1)].Seconds() }
	return latency{at(0.5), at(0.99), at(1)}
}
