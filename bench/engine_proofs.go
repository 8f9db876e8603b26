package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

// A provenResult is of proofs of one kind, made and verified one after the other. Verifying
// is parsing and checking all but the data, with the signatures of the checkpoint and of
// the entry; hashing the data of a range is Check.
type provenResult struct {
	What    string   `json:"what"`
	Entries int64    `json:"entries"` // in the ledger
	Count   int      `json:"count"`
	Bytes   int      `json:"bytes"` // of one proof, the median
	Most    int      `json:"most_bytes"`
	Resolve latency  `json:"resolve"` // from a name and a path to what is proven
	Prove   latency  `json:"prove"`
	Verify  latency  `json:"verify"`
	Check   *latency `json:"check,omitempty"`
}

// provenEntries are in the ledger at least.
const provenEntries = 1000

func (b *surroundings) proven(ctx context.Context, r *engineReport) error {
	dir, err := b.newStoreOf(ctx, "proven", nil, "source", "files")
	if err != nil {
		return err
	}
	err = withStore(ctx, dir, store.Options{}, func(s *store.Store) error {
		_, err := putMany(ctx, s, 0, provenEntries)
		return err
	})
	if err != nil {
		return err
	}
	count := 300
	if b.full {
		count = 5000
	}
	for _, name := range []string{"source", "files"} {
		var found []provenResult
		req := jobRequest{Kind: "proofs", Store: dir, Ref: name, File: b.workloads[name].path, Count: count, Seed: 12}
		if err := b.ask(ctx, req, &found); err != nil {
			return err
		}
		r.Proofs = append(r.Proofs, found...)
	}
	return os.RemoveAll(dir)
}

// A claimMaker says what the next proof is of.
type claimMaker struct {
	what string
	next func() claim
}

// claims are those of a dataset: of a file, all of it and ranges; of a tree, its files.
func claims(req jobRequest) ([]claimMaker, error) {
	random := rand.New(chacha(req.Seed))
	info, err := os.Stat(req.File)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []claimMaker{
			{"a dataset", func() claim { return claim{ref: req.Ref} }},
			{"64 KiB of a large file", func() claim {
				from := uint64(random.Int64N(info.Size() - rangeSize + 1))
				return claim{req.Ref, &store.Range{From: from, To: from + rangeSize}}
			}},
		}, nil
	}
	var names []string
	err = filepath.WalkDir(req.File, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, req.Ref+strings.TrimPrefix(name, req.File))
		}
		return err
	})
	what := fmt.Sprintf("one of %d files", len(names))
	return []claimMaker{{what, func() claim { return claim{ref: names[random.IntN(len(names))]} }}}, err
}

// proveAndVerify makes proofs of a dataset and verifies them.
func proveAndVerify(ctx context.Context, req jobRequest) (found []provenResult, err error) {
	makers, err := claims(req)
	if err != nil {
		return nil, err
	}
	err = withStore(ctx, req.Store, store.Options{}, func(s *store.Store) error {
		policy, err := proof.TrustKey(s.VerifierKey())
		if err != nil {
			return err
		}
		for _, m := range makers {
			p := prover{s: s, trust: proof.Trust{Policy: policy}}
			for range req.Count {
				if err := p.one(ctx, m.next()); err != nil {
					return fmt.Errorf("a proof of %s: %w", m.what, err)
				}
			}
			res := provenResult{
				What: m.what, Entries: s.Published().Size, Count: req.Count,
				Bytes: middle(p.sizes, func(n int) int { return n }), Most: slices.Max(p.sizes),
				Resolve: latencyOf(p.resolve), Prove: latencyOf(p.prove), Verify: latencyOf(p.verify),
			}
			if p.check != nil {
				l := latencyOf(p.check)
				res.Check = &l
			}
			found = append(found, res)
		}
		return nil
	})
	return found, err
}

// A prover keeps what its proofs took.
type prover struct {
	s                             *store.Store
	trust                         proof.Trust
	resolve, prove, verify, check []time.Duration
	sizes                         []int
}

// one makes a proof and verifies it.
func (p *prover) one(ctx context.Context, c claim) error {
	start := time.Now()
	o, err := p.s.Resolve(ctx, c.ref)
	if err != nil {
		return err
	}
	resolved := time.Now()
	made, err := p.s.Prove(ctx, o, store.ProveOptions{Range: c.rang})
	if err != nil {
		return err
	}
	proved := time.Now()
	b, err := made.Format()
	if err != nil {
		return err
	}
	p.resolve = append(p.resolve, resolved.Sub(start))
	p.prove = append(p.prove, proved.Sub(resolved))
	p.sizes = append(p.sizes, len(b))

	start = time.Now()
	parsed, err := proof.Parse(b)
	if err != nil {
		return err
	}
	v, err := parsed.Verify(p.trust)
	if err != nil {
		return err
	}
	p.verify = append(p.verify, time.Since(start))
	if v.Entry.Root != o.Dataset.CID {
		return errors.New("it verifies, but is of another dataset")
	}
	if v.Range == nil {
		return nil
	}
	var data bytes.Buffer
	if _, err := p.s.Get(ctx, o, &store.Range{From: v.Range.Offset, To: v.Range.Offset + v.Range.Size()}, &data); err != nil {
		return err
	}
	start = time.Now()
	if err := v.CheckRange(&data); err != nil {
		return err
	}
	p.check = append(p.check, time.Since(start))
	return nil
}
