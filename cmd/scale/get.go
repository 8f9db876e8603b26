package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store"
)

const rangeHelp = "half-open byte range `FROM:TO` of a file, or FROM: to its end; K, M and G are powers of 1024"

type getFlags struct {
	out, rng              string
	tar, overwrite, setID bool
}

func (a *app) getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get REF",
		Short: "Get a file or a directory back",
		Long: `A file goes to standard output unless -o is given. A directory goes to -o OUT, which
must not exist, or with --tar as a tar stream to standard output or to the file OUT.
OUT appears complete or not at all; --overwrite replaces what is there as a whole.

A range that reaches beyond the end of the file is an error that names its size.

Every byte is checked against its digest before it is written; through a node, with the
digests that the node names, also where REF is a CID. What a node gives that you do not
trust is checked by "scale prove" and "scale verify", or as it comes by "scale export CID".
Modes are restored as recorded, and times where they were recorded; set-user-ID and
set-group-ID bits only with --setid, because what is restored belongs to whoever restores it.`,
		Example: `  scale get photos -o photos.back
  scale get photos/a.jpg > a.jpg
  scale get big.tar --range 1G:1025M | sha256sum
  scale get photos@1 --tar | tar -t`,
		Args: cobra.ExactArgs(1),
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.out, "output", "o", "", "`file` or directory to write")
	fl.StringVar(&f.rng, "range", "", rangeHelp)
	fl.BoolVar(&f.tar, "tar", false, "write a tar stream")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace OUT if it exists")
	fl.BoolVar(&f.setID, "setid", false, "restore set-user-ID and set-group-ID bits")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.get(cmd, args[0], f) }
	return cmd
}

func (a *app) get(cmd *cobra.Command, ref string, f getFlags) (err error) {
	ctx := cmd.Context()
	toStdout := f.out == "" || f.out == "-"
	if f.tar && f.rng != "" {
		return usagef("--tar and --range do not go together")
	}
	if f.tar && toStdout && a.stdout.terminal() {
		return usagef("a tar stream is binary; not written to a terminal")
	}
	s, err := a.open(cmd, compress.Default)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	o, err := s.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	if f.tar {
		write := func(w io.Writer) error {
			return writeTar(ctx, s, o, a.meter.count(w, o.Info.Size))
		}
		if toStdout {
			return write(a.stdout)
		}
		return a.writeFile(ctx, f.out, 0o666, f.overwrite, write)
	}
	switch o.Info.Kind {
	case dag.KindLink:
		return usagef("%s is a symbolic link to %s; get what it leads to, or the directory it is in", quote(ref), quote(o.Info.Target))
	case dag.KindDir:
		switch {
		case f.rng != "":
			return usagef("--range: %s is a directory, not a file", quote(ref))
		case toStdout:
			return usagef("%s is a directory: pass -o OUT, or --tar for a tar stream", quote(ref))
		}
		return a.restore(cmd, s, o, f)
	}
	r := &store.Range{To: o.Info.Size}
	if f.rng != "" {
		if r, err = parseRange(f.rng, o.Info.Size); err != nil {
			return err
		}
	}
	if toStdout {
		// Straight to the descriptor: what comes out is large already.
		return a.getRange(ctx, s, o, *r, a.stdout.file)
	}
	attr := o.Info.Attr
	opts := fstree.RestoreOptions{Overwrite: f.overwrite, SetID: f.setID}
	return fstree.WriteFile(f.out, attr, opts, func(file io.Writer) error {
		return a.getRange(ctx, s, o, *r, file)
	})
}

// restore writes a tree to disk.
func (a *app) restore(cmd *cobra.Command, s engine, o store.Object, f getFlags) error {
	r, err := fstree.Create(f.out, fstree.RestoreOptions{Overwrite: f.overwrite, SetID: f.setID})
	if err != nil {
		return err
	}
	v := newRestorer(r, func(n uint64) { a.meter.update(n, o.Info.Size) })
	err = s.GetTree(cmd.Context(), o, v)
	if werr := v.wait(); werr != nil {
		err = werr // the cause, where there are both
	}
	if err != nil {
		return errors.Join(err, r.Abort())
	}
	if err := r.Commit(); err != nil {
		return err
	}
	if v.setID > 0 && !f.setID {
		a.note("left out set-user-ID or set-group-ID bits of %d entries; --setid restores them", v.setID)
	}
	return nil
}

// parseRange parses FROM:TO for a file of size bytes.
func parseRange(s string, size uint64) (*store.Range, error) {
	from, to, ok := strings.Cut(s, ":")
	if !ok {
		return nil, usagef("--range %q: want FROM:TO or FROM:", s)
	}
	r := &store.Range{To: size}
	var err error
	if r.From, err = parseSize(from); err == nil && to != "" {
		r.To, err = parseSize(to)
	}
	if err != nil {
		return nil, usagef("--range %q: %w", s, err)
	}
	if r.From >= r.To {
		if to == "" {
			return nil, usagef("--range %q begins at or after the end: the file has %d bytes", s, size)
		}
		return nil, usagef("--range %q is empty", s)
	}
	if r.To > size {
		return nil, usagef("--range %q reaches beyond the end: the file has %d bytes; FROM: goes to the end", s, size)
	}
	return r, nil
}

// parseSize parses a number of bytes: digits, then K, M or G, if anything.
func parseSize(s string) (uint64, error) {
	shift := 0
	digits := s
	if n := len(s); n > 0 {
		switch s[n-1] {
		case 'K', 'k':
			shift = 10
		case 'M', 'm':
			shift = 20
		case 'G', 'g':
			shift = 30
		}
		if shift > 0 {
			digits = s[:n-1]
		}
	}
	v, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || v > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a number of bytes", s)
	}
	return v << shift, nil
}
