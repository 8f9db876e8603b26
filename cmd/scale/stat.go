package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

func (a *app) statCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stat [REF]",
		Short: "Show sizes, entry and commitment of a dataset, or the totals of the store",
		Long: `With the REF of a dataset shows its sizes, chunks, new and stored bytes, its entry in
the ledger and its commitment; with a REF inside one shows that file or directory.
Without REF shows the store's totals: logical is the sum over all versions of all
datasets, unique is what is left of it after deduplication, packed is that compressed,
stored is all that the store takes on disk, reclaimable belongs to no dataset.`,
		Example: `  scale stat
  scale stat photos@1`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		ctx := cmd.Context()
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		if len(args) == 0 {
			t, err := s.Totals(ctx)
			if err != nil {
				return err
			}
			return a.printTotals(t)
		}
		o, err := s.Resolve(ctx, args[0])
		if err != nil {
			return err
		}
		if o.Path == "" {
			return a.printDataset(o.Dataset)
		}
		return a.printInside(ctx, s, o)
	}
	return cmd
}

// A field is a line of text output.
type field struct {
	name  string
	value any
}

func (a *app) printFields(fields ...field) error {
	for _, f := range fields {
		if err := a.printf("%-12s %s\n", f.name, grpcapi.Plain(fmt.Sprint(f.value))); err != nil {
			return err
		}
	}
	return nil
}

// sizeText is a size for people that leaves no doubt.
func sizeText(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%s (%d B)", bytesText(n), n)
}

func (a *app) printTotals(t store.Totals) error {
	if a.json {
		return a.print(map[string]any{
			"datasets": t.Datasets, "logical": t.Logical, "unique": t.Unique, "packed": t.Packed,
			"stored": t.Stored, "reclaimable": t.Reclaimable, "chunks": t.Chunks, "tree_size": t.TreeSize,
		})
	}
	return a.printFields(
		field{"datasets", fmt.Sprintf("%d, all versions counted", t.Datasets)},
		field{"logical", sizeText(t.Logical)}, field{"unique", sizeText(t.Unique)},
		field{"packed", sizeText(t.Packed)}, field{"stored", sizeText(t.Stored)},
		field{"reclaimable", sizeText(t.Reclaimable)}, field{"chunks", t.Chunks}, field{"tree size", t.TreeSize},
	)
}

func (a *app) printDataset(d store.Dataset) error {
	if a.json {
		return a.print(viewDataset(d))
	}
	parents := make([]string, len(d.Parents))
	for i, p := range d.Parents {
		parents[i] = p.String()
	}
	return a.printFields(
		field{"name", fmt.Sprintf("%s@%d", d.Name, d.Version)}, field{"cid", d.CID}, field{"kind", d.Kind},
		field{"profile", d.Profile}, field{"size", sizeText(d.Size)}, field{"files", d.Files},
		field{"leaves", d.Leaves}, field{"chunks", d.Chunks},
		field{"new", sizeText(d.NewBytes)}, field{"stored", sizeText(d.Stored)},
		field{"commitment", d.Commitment}, field{"entry", fmt.Sprintf(":%d %v", d.Entry, d.EntryCID)},
		field{"parents", strings.Join(parents, " ")}, field{"curator", d.Curator}, field{"time", timeText(d.Time)},
	)
}

// printInside shows a file, link or directory in a dataset.
func (a *app) printInside(ctx context.Context, s engine, o store.Object) error {
	v := viewEntry(store.Entry{Path: o.Path, CID: o.CID, Info: o.Info})
	files := uint64(1)
	if o.Info.Kind == dag.KindDir {
		v.Size, files = 0, 0
		for e, err := range s.List(ctx, o) {
			if err != nil {
				return err
			}
			if e.Info.Kind == dag.KindFile {
				v.Size += e.Info.Size
				files++
			}
		}
	}
	if a.json {
		return a.print(struct {
			entryView
			Files   uint64 `json:"files"`
			Dataset string `json:"dataset"`
			Version int    `json:"version"`
			Entry   int64  `json:"entry"`
		}{v, files, o.Dataset.Name, o.Dataset.Version, o.Dataset.Entry})
	}
	fields := []field{
		{"path", quote(o.Path)}, {"dataset", fmt.Sprintf("%s@%d, entry :%d", o.Dataset.Name, o.Dataset.Version, o.Dataset.Entry)},
		{"kind", v.Kind}, {"cid", v.CID}, {"size", sizeText(v.Size)},
	}
	switch o.Info.Kind {
	case dag.KindDir:
		fields = append(fields, field{"files", files}, field{"mode", v.Mode})
	case dag.KindFile:
		fields = append(fields, field{"mode", v.Mode})
	case dag.KindLink:
		fields = append(fields, field{"target", quote(o.Info.Target)})
	}
	if v.Mtime != "" {
		fields = append(fields, field{"mtime", v.Mtime})
	}
	return a.printFields(fields...)
}
