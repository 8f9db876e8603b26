package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/store"
)

const rulePlain = "how many chains it takes: any, all or a `number`"

// parseRule returns on how many of so many chains something has to be.
func parseRule(rule string, chains int) (int, error) {
	switch rule {
	case "any":
		return 1, nil
	case "all":
		return chains, nil
	}
	n, err := strconv.Atoi(rule)
	if err != nil || n < 1 {
		return 0, usagef("--anchors %q: must be any, all or a number from 1", rule)
	}
	if n > chains {
		return 0, usagef("--anchors %d: there are %d chains", n, chains)
	}
	return n, nil
}

// awaitAnchors waits until an object's entry is anchored, as the rule says.
func (a *app) awaitAnchors(ctx context.Context, s engine, o store.Object, f proveFlags) error {
	chains, working, err := s.AnchorChains(ctx)
	if err != nil {
		return err
	}
	if len(chains) == 0 {
		return fmt.Errorf("--anchored: no chain is configured; run scale anchor configure: %w", anchor.ErrNoChain)
	}
	need, err := parseRule(f.rule, len(chains))
	if err != nil {
		return err
	}
	if !working {
		a.note("waiting, but nobody anchors: run scale serve, or scale anchor run")
	}
	ctx, cancel := a.waiting(ctx, f.timeout)
	defer cancel()
	w := waiter{a: a, e: s, state: anchor.Final, most: need, open: map[string]int64{}}
	for _, c := range chains {
		w.open[c.Chain] = o.Dataset.Entry + 1
	}
	_, err = w.wait(ctx)
	return waited(ctx, err)
}
