package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
)

func (a *app) exportCommand() *cobra.Command {
	var out string
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "export REF -o FILE.car",
		Short: "Write a dataset as a CAR file, which IPFS tools import",
		Long: `Writes what REF names as a CARv1 file with one root: every block once, in the order in
which reading the tree from its root meets them. The same REF always gives the same
bytes. "-o -" writes to standard output.`,
		Example: `  scale export photos -o photos.car
  ipfs dag import photos.car`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace FILE if it exists")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if out == "" {
			return usagef("pass -o FILE.car, or -o - for standard output")
		}
		ctx := cmd.Context()
		s, err := a.open(cmd, compress.Default)
		if err != nil {
			return err
		}
		defer closing(s, &err)
		o, err := s.Resolve(ctx, args[0])
		if err != nil {
			return err
		}
		if out == "-" {
			if a.stdout.terminal() {
				return usagef("a CAR file is binary; not written to a terminal")
			}
			return s.ExportCAR(ctx, o, a.stdout)
		}
		err = a.writeFile(ctx, out, 0o666, overwrite, func(w io.Writer) error {
			return s.ExportCAR(ctx, o, a.meter.count(w, 0))
		})
		if err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]any{"root": o.CID.String(), "output": out})
		}
		a.note("exported %v to %s", o.CID, quote(out))
		return nil
	}
	return cmd
}
