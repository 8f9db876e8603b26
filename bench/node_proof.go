package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// A proofResult is of proofs of one kind, made by the engine in this process and by a node
// that is asked for them, one after the other.
type proofResult struct {
	What  string  `json:"what"`
	Count int     `json:"count"`
	Bytes int     `json:"bytes"` // of one proof, the median
	Local latency `json:"local"`
	Node  latency `json:"node"`
}

// A claim is what a proof is asked for.
type claim struct {
	ref  string
	rang *store.Range
}

func readRange(path string, from, n int64, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, io.NewSectionReader(f, from, n))
	return err
}

func (b *nodeBench) proofs(ctx context.Context, r *nodeReport) error {
	dir := filepath.Join(b.scratch, "proofs")
	source, files := b.workloads["source"], b.workloads["files"]
	for _, args := range [][]string{{"init"}, {"put", source.path, "--name", "source"}, {"put", files.path, "--name", "files"}} {
		if _, err := run(ctx, command{args: append([]string{b.bin, "--store", dir}, args...)}); err != nil {
			return err
		}
	}
	const count = 1000
	random := rand.New(chacha(9))
	var names []string
	err := filepath.WalkDir(files.path, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, "files"+strings.TrimPrefix(name, files.path))
		}
		return err
	})
	if err != nil {
		return err
	}
	ranges, leaves := make([]claim, count), make([]claim, count)
	for i := range count {
		from := uint64(random.Int64N(source.size))
		ranges[i] = claim{"source", &store.Range{From: from, To: from + 1}}
		leaves[i] = claim{ref: names[random.IntN(len(names))]}
	}
	kinds := []struct {
		what   string
		claims []claim
	}{{"a byte of one large file", ranges}, {"one of many files", leaves}}

	// The engine first: one process has a store at a time.
	proofs := make([][][]byte, len(kinds))
	s, err := store.Open(ctx, dir, store.Options{})
	if err != nil {
		return err
	}
	for k, kind := range kinds {
		res := proofResult{What: kind.what, Count: count}
		var took []time.Duration
		for _, c := range kind.claims {
			start := time.Now()
			p, err := proveLocally(ctx, s, c)
			if err != nil {
				return errors.Join(err, s.Close())
			}
			took = append(took, time.Since(start))
			proofs[k] = append(proofs[k], p)
		}
		res.Local = latencyOf(took)
		res.Bytes = middle(proofs[k], func(p []byte) int { return len(p) })
		r.Proofs = append(r.Proofs, res)
	}
	if err := s.Close(); err != nil {
		return err
	}

	n := &nodeProcess{bin: b.bin, store: dir, log: dir + ".log"}
	if err := n.start(ctx); err != nil {
		return err
	}
	conn, err := n.dial()
	for k, kind := range kinds {
		var took []time.Duration
		for i, c := range kind.claims {
			if err != nil {
				break
			}
			start := time.Now()
			var p []byte
			p, err = proveRemotely(ctx, conn, c)
			took = append(took, time.Since(start))
			if err == nil && !bytes.Equal(p, proofs[k][i]) {
				err = fmt.Errorf("the node's proof of %s is another one", c.ref)
			}
		}
		r.Proofs[k].Node = latencyOf(took)
	}
	if err != nil {
		return errors.Join(err, n.kill())
	}
	return n.stop()
}

func proveLocally(ctx context.Context, s *store.Store, c claim) ([]byte, error) {
	o, err := s.Resolve(ctx, c.ref)
	if err != nil {
		return nil, err
	}
	p, err := s.Prove(ctx, o, store.ProveOptions{Range: c.rang})
	if err != nil {
		return nil, err
	}
	return p.Format()
}

func proveRemotely(ctx context.Context, conn grpc.ClientConnInterface, c claim) ([]byte, error) {
	req := &scalev1.ProveRequest{Ref: c.ref}
	if c.rang != nil {
		req.Range = &scalev1.ByteRange{Start: c.rang.From, End: &c.rang.To}
	}
	s, err := scalev1.NewProofServiceClient(conn).Prove(ctx, req)
	var proof []byte
	for err == nil {
		var m *scalev1.ProveResponse
		if m, err = s.Recv(); err == nil {
			proof = append(proof, m.GetProof()...)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return proof, err
}
