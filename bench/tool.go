package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A tool is one of the programs compared. All paths are absolute; store is a directory
// that prepare makes.
type tool struct {
	name string
	// durable says whether what was put is on the disk, not only in the page cache,
	// when put has returned.
	durable bool
	version command // prints the version; fails if the program is missing
	prepare func(store string) command
	put     func(store, input string) command
	putPipe func(store string) command // of standard input; SCALE only
	// get gives back what was put from input: a file on standard output, a tree in
	// the directory out, which does not exist.
	get   func(store, input, out string, tree bool) command
	check func(store string) command
}

// object is what zstd compresses into; the other tools have stores.
func object(store string) string { return filepath.Join(store, "data.zst") }

// shell runs a line of sh with its arguments as $1 and so on.
func shell(line string, args ...string) command {
	return command{args: append([]string{"sh", "-c", line, "sh"}, args...)}
}

func tools(scaleBin, peers string) []tool {
	// The name under which SCALE stores: one for a file and its second version.
	name := func(input string) string {
		return strings.TrimSuffix(filepath.Base(input), filepath.Ext(input))
	}
	scale := func(store string, args ...string) command {
		return command{args: append([]string{scaleBin, "--store", store}, args...)}
	}
	restic := func(store string, args ...string) command {
		return command{
			args: append([]string{filepath.Join(peers, "restic"), "--quiet", "--repo", store, "--cache-dir", store + ".cache"}, args...),
			env:  []string{"RESTIC_PASSWORD=bench"},
		}
	}
	return []tool{
		{
			name:    "scale",
			durable: true,
			version: command{args: []string{scaleBin, "version"}},
			prepare: func(store string) command { return scale(store, "init") },
			put: func(store, input string) command {
				return scale(store, "put", input, "--name", name(input))
			},
			putPipe: func(store string) command { return scale(store, "put", "-", "--name", "pipe") },
			get: func(store, input, out string, tree bool) command {
				if tree {
					return scale(store, "get", name(input), "-o", out)
				}
				return scale(store, "get", name(input))
			},
			check: func(store string) command { return scale(store, "check", "--read-data") },
		},
		{
			name:    "restic",
			durable: true,
			version: command{args: []string{filepath.Join(peers, "restic"), "version"}},
			prepare: func(store string) command { return restic(store, "init") },
			put:     func(store, input string) command { return restic(store, "backup", input) },
			get: func(store, input, out string, tree bool) command {
				if tree {
					return restic(store, "restore", "latest:"+input, "--target", out)
				}
				return restic(store, "dump", "latest", input)
			},
			check: func(store string) command { return restic(store, "check", "--read-data") },
		},
		{
			name:    "zstd",
			version: command{args: []string{"zstd", "--version"}},
			prepare: func(store string) command { return command{args: []string{"mkdir", store}} },
			put: func(store, input string) command {
				return shell(`if [ -d "$1" ]; then tar -C "$1" -cf - . | zstd -q -f -1 -T2 -o "$2"; else exec zstd -q -f -1 -T2 -o "$2" "$1"; fi`,
					input, object(store))
			},
			get: func(store, input, out string, tree bool) command {
				if tree {
					return shell(`mkdir "$2" && zstd -q -d -c "$1" | tar -C "$2" -xf -`, object(store), out)
				}
				return command{args: []string{"zstd", "-q", "-d", "-c", object(store)}}
			},
			check: func(store string) command {
				return command{args: []string{"zstd", "-q", "-t", object(store)}}
			},
		},
	}
}

// versions returns what each tool says that it is; it fails for those that are missing.
func versions(tools []tool) (map[string]string, error) {
	said := make(map[string]string)
	var missing error
	for _, t := range tools {
		out, err := exec.Command(t.version.args[0], t.version.args[1:]...).Output()
		if err != nil {
			missing = errors.Join(missing, fmt.Errorf("%s: MISSING: %w", t.name, err))
			continue
		}
		said[t.name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	}
	return said, missing
}

// A trial is one tool's run over one workload.
type trial struct {
	Put    sample `json:"put"`
	Get    sample `json:"get"`
	Stored int64  `json:"stored_bytes"` // allocated; for a second version what it added
}

// try has a tool put a workload into a new store and get it back. With verify it also
// compares what came back, and has the tool check its store.
func try(ctx context.Context, t tool, w workload, scratch string, verify bool) (r trial, err error) {
	if !w.tree {
		defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	}
	// Trees stay until the end of the run: for some minutes after many files were
	// deleted, ext4 passes over their inodes one by one whenever it makes a file, which
	// made restoring ten times slower for whoever came next.
	store, out := filepath.Join(scratch, "store"), filepath.Join(scratch, "out")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return trial{}, err
	}
	if _, err := run(ctx, t.prepare(store)); err != nil {
		return trial{}, err
	}
	input := w.path
	before := int64(0)
	if !w.tree {
		// Both versions of a file are put from one path, as a user would.
		input = filepath.Join(scratch, "input.bin")
		if w.base != "" {
			if err := os.Link(w.base, input); err != nil {
				return trial{}, err
			}
			if _, err := run(ctx, t.put(store, input)); err != nil {
				return trial{}, err
			}
			if err := os.Remove(input); err != nil {
				return trial{}, err
			}
			// zstd writes the second version over the first.
			if t.name != "zstd" {
				if before, err = allocated(store); err != nil {
					return trial{}, err
				}
			}
		}
		if err := os.Link(w.path, input); err != nil {
			return trial{}, err
		}
	}
	if err := settle(input); err != nil {
		return trial{}, err
	}
	if r.Put, err = run(ctx, t.put(store, input)); err != nil {
		return trial{}, err
	}
	after, err := allocated(store)
	if err != nil {
		return trial{}, err
	}
	r.Stored = after - before

	if err := settle(store); err != nil {
		return trial{}, err
	}
	get := t.get(store, input, out, w.tree)
	if !w.tree {
		get.out = os.DevNull
	}
	if r.Get, err = run(ctx, get); err != nil {
		return trial{}, err
	}
	if !verify {
		return r, nil
	}
	if !w.tree {
		get.out = out
		if _, err := run(ctx, get); err != nil {
			return trial{}, err
		}
	}
	if err := same(w.path, out); err != nil {
		return trial{}, fmt.Errorf("%s gave back something else: %w", t.name, err)
	}
	_, err = run(ctx, t.check(store))
	return r, err
}
