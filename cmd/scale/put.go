package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

type putFlags struct {
	name, profile, level, curatorKey string
	parents, exclude                 []string
	each, skipUnreadable, mtime      bool
	rescan                           bool
	heal, privateName                bool
	nameKey                          string
}

func (a *app) putCommand() *cobra.Command {
	var f putFlags
	cmd := &cobra.Command{
		Use:   "put PATH...",
		Short: "Store files and directories, one dataset each",
		Long: `Stores each PATH as a dataset and records it in the ledger, all in one commit. Prints
the CID of each on a line of its own.

A dataset is named after the last element of its path. Putting under a name again
makes a new version; putting the same data again appends nothing, unless --curator-key
is of another curator than the one who signed it. "-" is standard input. A PATH that is
a symbolic link is followed, links below it are kept. Devices, sockets and pipes in a
directory are left out and named.

Files that did not change since they were last put from the same PATH are not read again:
those of the same path, size, times of modification and of change, inode and device, unless
they had changed within 2 seconds before that put. --rescan reads all of them: do that now
and then where someone might set the system's clock, or write to the disk itself, to hide a
change. What is remembered is in $XDG_CACHE_HOME/scale/files or ~/.cache/scale/files.

Through a node only what it lacks is sent: each PATH is cut and hashed here first.

When a file cannot be read, or changes while it is read, nothing is recorded, unless
--skip-unreadable leaves it out; the exit code is then 7.

With --private-name the ledger, which may be public, does not show the name but a salted
digest of it: private-... . Versions of one name get the same. "scale key name NAME" says
which it is, and gives what proves the name to others.

--heal stores the blocks of datasets that the ledger has already and appends nothing: after
"scale restore", or when blocks were lost. PATH must be what was put, with the same --profile
and --mtime; another one is refused with exit code 4.`,
		Example: `  scale put photos
  tar -c dir | scale put - --name dir.tar
  scale put model --parent corpus@3 --exclude '*.tmp'`,
		Args: cobra.MinimumNArgs(1),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "`name` of the dataset: 1 to 128 of A-Z a-z 0-9 . _ -")
	fl.BoolVar(&f.each, "each", false, "commit each PATH by itself")
	fl.StringVar(&f.profile, "profile", dag.DefaultProfile, "how bytes become a CID: "+strings.Join(dag.ProfileNames(), " or "))
	fl.StringVar(&f.level, "level", compress.Default.String(), "compression: fast, default or best")
	fl.StringArrayVar(&f.parents, "parent", nil, "`REF` of a dataset that this one derives from; may be repeated")
	fl.StringArrayVar(&f.exclude, "exclude", nil, "leave out what matches the `glob`; may be repeated")
	fl.BoolVar(&f.skipUnreadable, "skip-unreadable", false, "leave out what cannot be read or changes meanwhile")
	fl.BoolVar(&f.rescan, "rescan", false, "read every file, also those that did not change since they were last put")
	fl.BoolVar(&f.mtime, "mtime", false, "record modification times")
	fl.StringVar(&f.curatorKey, "curator-key", "", curatorKeyHelp)
	fl.BoolVar(&f.privateName, "private-name", false, "record a salted digest instead of the name")
	fl.StringVar(&f.nameKey, "name-key", "", "`file` with the key of private names (default STORE/keys/"+nameKeyFile+")")
	fl.BoolVar(&f.heal, "heal", false, "give blocks back to datasets that the ledger has; append nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.put(cmd, args, f) }
	return cmd
}

func (a *app) put(cmd *cobra.Command, paths []string, f putFlags) (err error) {
	ctx := cmd.Context()
	inputs, err := a.putInputs(ctx, paths, f)
	if err != nil {
		return err
	}
	level, err := compress.ParseLevel(f.level)
	if err != nil {
		return usagef("%w", err)
	}
	o := store.PutOptions{Progress: a.meter.put}
	if f.curatorKey != "" {
		if o.Curator, err = store.LoadCurator(f.curatorKey); err != nil {
			return err
		}
	}
	if !a.remote() {
		if err := a.outside(inputs); err != nil {
			return err
		}
	}
	if err := a.privateNames(ctx, inputs, f); err != nil {
		return err
	}
	s, err := a.openForPut(cmd, level, inputs, f)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	parents, err := parentEntries(ctx, s, f.parents)
	if err != nil {
		return err
	}
	for i := range inputs {
		inputs[i].Parents = parents
	}
	commits := [][]store.Input{inputs}
	if f.each {
		commits = commits[:0]
		for i := range inputs {
			commits = append(commits, inputs[i:i+1])
		}
	}
	skipped := 0
	for i, in := range commits {
		start := time.Now()
		results, err := s.Put(ctx, in, o)
		if err != nil {
			return putError(ctx, err, i > 0)
		}
		for _, r := range results {
			skipped += a.reportSkipped(r)
			if err := a.printPut(r, time.Since(start)); err != nil {
				return err
			}
		}
		// With --each a reader may act on every dataset as soon as it is recorded.
		if err := a.stdout.Flush(); err != nil {
			return err
		}
	}
	if skipped > 0 {
		return fmt.Errorf("%w: %d left out by --skip-unreadable", errSkipped, skipped)
	}
	return nil
}

// putInputs turns the command line into inputs, with a name for each.
func (a *app) putInputs(ctx context.Context, paths []string, f putFlags) ([]store.Input, error) {
	if f.name != "" && len(paths) > 1 {
		return nil, usagef("--name names one dataset, and there are %d paths", len(paths))
	}
	if _, err := dag.LookupProfile(f.profile); err != nil {
		return nil, usagef("--profile: %w; have %s", err, strings.Join(dag.ProfileNames(), ", "))
	}
	inputs := make([]store.Input, 0, len(paths))
	seen := make(map[string]string)
	for _, p := range paths {
		in := store.Input{
			Name: f.name, Profile: f.profile, Times: f.mtime, Exclude: f.exclude, SkipUnreadable: f.skipUnreadable, Rescan: f.rescan,
		}
		switch {
		case p == "":
			return nil, usagef("a PATH is empty")
		case p == "-":
			if f.name == "" {
				return nil, usagef("standard input has no name: pass --name")
			}
			if term.IsTerminal(int(a.stdin.Fd())) {
				return nil, usagef("standard input is a terminal; pipe the data in, or give a path")
			}
			in.Reader = newInterruptible(ctx, a.stdin)
		default:
			in.Path = p
			if in.Name == "" {
				abs, err := filepath.Abs(p)
				if err != nil {
					return nil, err
				}
				in.Name = filepath.Base(abs)
			}
		}
		if err := ledger.CheckName(in.Name); err != nil {
			if f.name == "" {
				return nil, usagef("%w; pass --name", err)
			}
			return nil, usagef("--name: %w", err)
		}
		if other, ok := seen[in.Name]; ok {
			return nil, usagef("%s and %s would both be named %q; put them one by one with --name", quote(other), quote(p), in.Name)
		}
		seen[in.Name] = p
		inputs = append(inputs, in)
	}
	return inputs, nil
}

// outside refuses to put the store into itself: it changes meanwhile, and it holds
// private keys.
func (a *app) outside(inputs []store.Input) error {
	dir, _, err := a.storeDir()
	if err != nil {
		return err
	}
	if dir, err = realPath(dir); err != nil {
		return nil // there is none yet
	}
	for _, in := range inputs {
		p, err := realPath(in.Path)
		if err != nil || in.Path == "" {
			continue // put says what is wrong with it
		}
		rel, err := filepath.Rel(p, dir)
		switch {
		case err != nil || rel == ".." || strings.HasPrefix(rel, "../"):
			continue
		case rel == ".":
			return usagef("%s is the store itself", quote(in.Path))
		}
		pattern := "/" + globEscaper.Replace(rel) + "/"
		if !slices.Contains(in.Exclude, pattern) {
			return usagef("the store is inside %s; leave it out with --exclude '%s'", quote(in.Path), pattern)
		}
	}
	return nil
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func realPath(p string) (string, error) {
	p, err := filepath.EvalSymlinks(p)
	if err != nil {
		return "", err
	}
	return filepath.Abs(p)
}

func parentEntries(ctx context.Context, s engine, refs []string) ([]int64, error) {
	var out []int64
	for _, ref := range refs {
		o, err := s.Resolve(ctx, ref)
		if err != nil {
			return nil, fmt.Errorf("--parent: %w", err)
		}
		if o.Path != "" {
			return nil, usagef("--parent %s is inside a dataset: only a whole dataset can be a parent", quote(ref))
		}
		out = append(out, o.Dataset.Entry)
	}
	return out, nil
}

// putError says what became of the data when a put failed.
func putError(ctx context.Context, err error, earlier bool) error {
	what := "nothing recorded"
	if earlier {
		what = "nothing recorded but the datasets printed above"
	}
	switch {
	case errors.Is(err, store.ErrStopped), errors.Is(err, grpcapi.ErrOutcome):
		return outcome(err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w, %s (%w)", errInterrupted, what, err)
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, store.ErrKeys):
		return fmt.Errorf("%w; %s; --skip-unreadable leaves out what cannot be read", err, what)
	}
	return fmt.Errorf("%w; %s", err, what)
}

// outcome says how to find out what became of a change when that is not known.
func outcome(err error) error {
	if errors.Is(err, store.ErrStopped) || errors.Is(err, grpcapi.ErrOutcome) {
		return fmt.Errorf("%w; run scale history to see whether it was recorded", err)
	}
	return err
}

// reportSkipped names what was left out, and counts what should not have been.
func (a *app) reportSkipped(r store.PutResult) (unreadable int) {
	for _, s := range r.Skipped {
		a.note("skipped %v", s.Why) // which names it
		if !s.Special {
			unreadable++
		}
	}
	return unreadable
}

type skippedView struct {
	pathView
	Why     string `json:"why"`
	Special bool   `json:"special"`
}

type putView struct {
	datasetView
	TreeSize  int64         `json:"tree_size"`
	Unchanged bool          `json:"unchanged"`
	Unread    uint64        `json:"unread_bytes"`
	Seconds   float64       `json:"seconds"`
	Skipped   []skippedView `json:"skipped"`
}

func (a *app) printPut(r store.PutResult, took time.Duration) error {
	if !a.json {
		return a.printf("%v\n", r.CID)
	}
	v := putView{
		datasetView: viewDataset(r.Dataset), TreeSize: r.TreeSize, Unchanged: r.Unchanged, Unread: r.Unread,
		Seconds: took.Seconds(), Skipped: []skippedView{},
	}
	for _, s := range r.Skipped {
		v.Skipped = append(v.Skipped, skippedView{viewPath(s.Path), s.Why.Error(), s.Special})
	}
	return a.print(v)
}
