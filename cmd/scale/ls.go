package main

import (
	"context"
	"fmt"
	"path"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
)

func (a *app) lsCommand() *cobra.Command {
	var null, long bool
	cmd := &cobra.Command{
		Use:   "ls [REF]",
		Short: "List the datasets, or what is in one",
		Long: `Without REF lists the newest version of every dataset: name, version, size, files, CID
and time. With REF lists every path below it, directories with a "/" at the end.`,
		Example: `  scale ls
  scale ls photos/2025
  scale ls -0 photos | xargs -0 -n1 echo`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().BoolVarP(&null, "null", "0", false, "only names, as they are, each ended by a NUL")
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with REF: mode, size and CID too")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if null && (a.json || long) {
			return usagef("-0 goes with neither --json nor --long")
		}
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		if len(args) == 0 {
			return a.lsDatasets(cmd.Context(), s, null)
		}
		return a.lsBelow(cmd.Context(), s, args[0], null, long)
	}
	return cmd
}

func (a *app) lsDatasets(ctx context.Context, s engine, null bool) error {
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for d, err := range s.Datasets(ctx) {
		if err != nil {
			return err
		}
		switch {
		case a.json:
			err = a.print(viewDataset(d))
		case null:
			err = a.printf("%s\x00", d.Name)
		default:
			_, err = fmt.Fprintf(tw, "%s\t@%d\t%s\t%d files\t%v\t%s\n", d.Name, d.Version, bytesText(d.Size), d.Files, d.CID, timeText(d.Time))
		}
		if err != nil {
			return err
		}
	}
	return tw.Flush()
}

// An entryView is an element of a listing in JSON.
type entryView struct {
	pathView
	Kind      string `json:"kind"`
	Size      uint64 `json:"size"`
	Mode      string `json:"mode,omitempty"`
	Mtime     string `json:"mtime,omitempty"`
	Target    string `json:"target,omitempty"`
	TargetB64 string `json:"target_b64,omitempty"`
	CID       string `json:"cid"`
}

func viewEntry(e store.Entry) entryView {
	target := viewPath(e.Info.Target)
	v := entryView{
		pathView: viewPath(e.Path), Kind: e.Info.Kind.String(), Size: e.Info.Size, CID: e.CID.String(),
		Target: target.Path, TargetB64: target.B64,
	}
	if e.Info.Kind != dag.KindLink {
		v.Mode = fmt.Sprintf("%04o", e.Info.Attr.Mode)
	}
	if t := e.Info.Attr.Mtime; !t.IsZero() {
		v.Mtime = timeText(t)
	}
	return v
}

func (a *app) lsBelow(ctx context.Context, s engine, ref string, null, long bool) error {
	o, err := s.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	for e, err := range s.List(ctx, o) {
		if err != nil {
			return err
		}
		if e.Path == "" {
			if e.Info.Kind == dag.KindDir {
				continue // REF itself
			}
			e.Path = nameOf(o)
		}
		v := viewEntry(e)
		if e.Info.Kind == dag.KindDir {
			e.Path += "/"
		}
		switch {
		case a.json:
			err = a.print(v)
		case null:
			err = a.printf("%s\x00", e.Path)
		case long:
			mode := v.Mode
			if mode == "" {
				mode = "link"
			}
			name := quote(e.Path)
			if v.Kind == dag.KindLink.String() {
				name += " -> " + quote(e.Info.Target)
			}
			err = a.printf("%s %12d  %v  %s\n", mode, e.Info.Size, e.CID, name)
		default:
			err = a.printf("%s\n", quote(e.Path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nameOf is what to call an object that is taken out of its place.
func nameOf(o store.Object) string {
	if o.Path == "" {
		return o.Dataset.Name
	}
	return path.Base(o.Path)
}
