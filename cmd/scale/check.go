package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

func (a *app) checkCommand() *cobra.Command {
	var o check.Options
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the store by recomputing what it holds",
		Long: `Recomputes everything from what is on disk, by a reading of its own: the ledger's
entries, tiles, checkpoint and high-water mark, DAG nodes and commitments, the index;
with --read-data also every chunk. Lists what is affected and what to do, and exits
with 4 if anything is damaged.

While another process uses the store, that one checks it; what is appended meanwhile is
left out. It changes nothing, unless --forget-damaged makes the store forget the chunks and
nodes that cannot be read any more. Only then does putting the same data again mend it.`,
		Example: `  scale check
  scale check --read-data`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&o.ReadData, "read-data", false, "read every pack and recompute every digest")
	cmd.Flags().BoolVar(&o.Forget, "forget-damaged", false, "with --read-data: forget what is damaged, so that it can be put again")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Forget && !o.ReadData {
			return usagef("--forget-damaged needs --read-data, which finds out what is damaged")
		}
		return a.check(cmd, o)
	}
	return cmd
}

func (a *app) check(cmd *cobra.Command, o check.Options) (err error) {
	var perr error
	o.Report = func(f check.Finding) {
		if err := a.printFinding(f); perr == nil {
			perr = err
		}
	}
	o.Progress = func(p check.Progress) {
		a.meter.show(fmt.Sprintf("%s: %d of %d", p.Stage, p.Done, p.Total))
	}
	o.Sort = sorting()
	sum, err := a.runCheck(cmd, o)
	if errors.Is(err, extsort.ErrScratch) {
		err = fmt.Errorf("%w; $TMPDIR can name another place", err)
	}
	if err = errors.Join(err, perr); err != nil {
		return err
	}
	if err := a.printSummary(sum, o); err != nil {
		return err
	}
	if !sum.Sound() {
		return fmt.Errorf("%w: %d errors", errDamaged, sum.Errors)
	}
	return nil
}

// runCheck checks the store by a reading that leaves the engine out, or has the process
// that owns it do so.
func (a *app) runCheck(cmd *cobra.Command, o check.Options) (sum check.Summary, err error) {
	ctx := cmd.Context()
	if a.remote() {
		if o.Forget {
			return sum, usagef("--forget-damaged works on a store, not on a node that serves it")
		}
		c, err := a.dial(cmd, compress.Default)
		if err != nil {
			return sum, err
		}
		defer c.Close()
		return c.Check(ctx, o)
	}
	dir, err := a.existing(ctx)
	if err != nil {
		return sum, err
	}
	p := &place{a: a, ctx: ctx, dir: dir, command: cmd.CommandPath()}
	reported := false
	report := o.Report
	o.Report = func(f check.Finding) {
		reported = true
		report(f)
	}
	for deadline := time.Now().Add(a.waitLock); ; {
		lock, locked := store.AcquireLock(ctx, dir, 0, p.command)
		if locked == nil {
			defer func() { err = errors.Join(err, lock.Release()) }()
			return check.Run(ctx, dir, o)
		}
		if !errors.Is(locked, store.ErrBusy) {
			return sum, locked
		}
		failed := fmt.Errorf("%w: forgetting needs it for itself", grpcapi.ErrNotServed)
		if !o.Forget {
			sum, failed = p.check(locked, o)
		}
		switch {
		case failed == nil:
			return sum, nil
		case !errors.Is(failed, grpcapi.ErrNotServed) && (reported || !errors.Is(failed, grpcapi.ErrClosing) && !errors.Is(failed, grpcapi.ErrUnreachable)):
			return sum, failed
		case !time.Now().Before(deadline) && o.Forget:
			return sum, fmt.Errorf("%w; --forget-damaged needs it for itself", locked)
		case !time.Now().Before(deadline):
			return sum, locked
		}
		select {
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-time.After(ownerPoll):
		}
	}
}

// check has the owner of a store check it.
func (p *place) check(locked error, o check.Options) (check.Summary, error) {
	c, err := p.join(locked, grpcapi.DialOptions{Revive: gone})
	if err != nil {
		return check.Summary{}, err
	}
	defer c.Close()
	return c.Check(p.ctx, o)
}

func (a *app) printFinding(f check.Finding) error {
	a.meter.clear()
	if a.json {
		affected := f.Affected
		if affected == nil {
			affected = []string{}
		}
		return a.print(map[string]any{
			"severity": f.Severity.String(), "what": f.What, "affected": affected, "more": f.More, "do": f.Do,
		})
	}
	if err := a.printf("%v: %s\n", f.Severity, grpcapi.Plain(f.What)); err != nil {
		return err
	}
	for _, s := range f.Affected {
		if err := a.printf("  affected: %s\n", quote(s)); err != nil {
			return err
		}
	}
	if f.More > 0 {
		if err := a.printf("  affected: %d more\n", f.More); err != nil {
			return err
		}
	}
	if f.Do == "" {
		return nil
	}
	return a.printf("  to do: %s\n", grpcapi.Plain(f.Do))
}

func (a *app) printSummary(s check.Summary, o check.Options) error {
	if a.json {
		return a.print(map[string]any{
			"sound": s.Sound(), "errors": s.Errors, "warnings": s.Warnings, "notes": s.Notes, "read_data": o.ReadData,
			"entries": s.Entries, "datasets": s.Datasets, "rows": s.Rows, "packs": s.Packs, "frames": s.Frames,
			"chunks": s.Chunks, "plain": s.Plain, "garbage": s.Garbage, "read": s.Read, "forgotten": s.Forgotten,
		})
	}
	verdict := "sound"
	if !s.Sound() {
		verdict = "damaged"
	}
	data := "not read (--read-data does)"
	if o.ReadData {
		data = sizeText(s.Read) + " read and hashed"
	}
	fields := []field{
		{"store", fmt.Sprintf("%s: %d errors, %d warnings, %d notes", verdict, s.Errors, s.Warnings, s.Notes)},
		{"ledger", fmt.Sprintf("%d entries, %d datasets", s.Entries, s.Datasets)},
		{"index", fmt.Sprintf("%d rows, %d chunks of %s", s.Rows, s.Chunks, sizeText(s.Plain))},
		{"packs", fmt.Sprintf("%d, %d frames, data %s", s.Packs, s.Frames, data)},
		{"reclaimable", sizeText(s.Garbage)},
	}
	if o.Forget {
		fields = append(fields, field{"forgotten", fmt.Sprintf("%d rows", s.Forgotten)})
	}
	return a.printFields(fields...)
}
