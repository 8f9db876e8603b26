package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A tool is one of the programs compared. All paths are absolute; store is a directory
// that prepare makes, and what a tool keeps beside a store is in files whose names begin
// with the store's.
type tool struct {
	name     string
	optional bool     // compared where it is there
	encrypts bool     // which costs it time that the others do not spend
	replaces bool     // a second version is written over the first
	toFile   bool     // get cannot write to standard output
	only     []string // workloads it takes part in, nil for all
	version  command  // prints the version; fails if the program is missing
	prepare  func(store string) []command
	put      func(j job) command
	putPipe  func(store string) command // of standard input; SCALE only
	// id finds in what a put printed the name that get and restore want.
	id func(said []byte) (string, error)
	// get writes a file, or a tree as a tar archive, to standard output; nil if the tool
	// reads nothing back. noTar says that it does so for files only.
	get   func(j job) command
	noTar bool
	// restore writes a tree to the directory out, which does not exist.
	restore func(j job) command
	check   func(j job) command
}

// ours reports whether the tool is SCALE.
func (t *tool) ours() bool { return t.putPipe != nil }

// A job is something to put, or that was put.
type job struct {
	store, input string
	tree         bool
	n            int    // which put into the store it is, from 1
	id           string // see tool
	out          string // for restore, and for get where it writes to a file
}

// name is one for a file and its second version.
func (j job) name() string {
	return strings.TrimSuffix(filepath.Base(j.input), filepath.Ext(j.input))
}

// takes says whether a tool takes part in a workload.
func (t *tool) takes(workload string) bool {
	return t.only == nil || slices.Contains(t.only, workload)
}

// shell runs a line of sh with its arguments as $1 and so on.
func shell(line string, args ...string) command {
	return command{args: append([]string{"sh", "-c", line, "sh"}, args...)}
}

// scaleTool is SCALE at a level of compression.
func scaleTool(name, bin, level string) tool {
	scale := func(store string, args ...string) command {
		return command{args: append([]string{bin, "--store", store}, args...), env: []string{"XDG_CACHE_HOME=" + store + ".cache"}}
	}
	return tool{
		name:    name,
		version: command{args: []string{bin, "version"}},
		prepare: func(store string) []command { return []command{scale(store, "init")} },
		put: func(j job) command {
			return scale(j.store, "put", j.input, "--name", j.name(), "--level", level)
		},
		putPipe: func(store string) command { return scale(store, "put", "-", "--name", "pipe", "--level", level) },
		get: func(j job) command {
			if j.tree {
				return scale(j.store, "get", j.name(), "--tar")
			}
			return scale(j.store, "get", j.name())
		},
		restore: func(j job) command { return scale(j.store, "get", j.name(), "-o", j.out) },
		check:   func(j job) command { return scale(j.store, "check", "--read-data") },
	}
}

// tools returns SCALE, its peers and the yardsticks. The peers are in the directory peers
// or in the PATH.
func tools(scaleBin, peers string) []tool {
	fast := scaleTool("scale-fast", scaleBin, "fast")
	fast.only = []string{"source"}
	all := []tool{scaleTool("scale", scaleBin, "default"), fast}
	return append(all, peerTools(peers)...)
}

// pick leaves those tools that are named, separated by commas; all for "". SCALE is always
// among them: the others are compared with it.
func pick(all []tool, names string) ([]tool, error) {
	if names == "" {
		return all, nil
	}
	want := strings.Split(names, ",")
	for _, name := range want {
		if !slices.ContainsFunc(all, func(t tool) bool { return t.name == name }) {
			return nil, fmt.Errorf("-peers %s: there is no %s", names, name)
		}
	}
	return slices.DeleteFunc(all, func(t tool) bool { return t.name != "scale" && !slices.Contains(want, t.name) }), nil
}

// present returns the tools that are there, and what each says that it is. It fails for
// those that are missing; an optional one is left out, and its version is "absent".
func present(ctx context.Context, tools []tool) (there []tool, said map[string]string, err error) {
	said = make(map[string]string)
	for _, t := range tools {
		cmd := exec.CommandContext(ctx, t.version.args[0], t.version.args[1:]...)
		cmd.Env = append(os.Environ(), t.version.env...)
		out, runErr := cmd.Output()
		if runErr == nil {
			said[t.name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
			there = append(there, t)
			continue
		}
		if t.optional {
			said[t.name] = "absent"
			continue
		}
		err = errors.Join(err, fmt.Errorf("%s: MISSING: %w; \"make bench-peers\" installs the peers", t.name, runErr))
	}
	return there, said, err
}
