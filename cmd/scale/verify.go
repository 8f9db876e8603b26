package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"filippo.io/torchwood"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

type verifyFlags struct {
	key, policy string
	curators    []string
	strict      bool
	anchors     anchorFlags
}

func (a *app) verifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify PROOF DATA",
		Short: "Check that DATA is what a proof says, with no store and no network",
		Long: `Checks PROOF and computes anew, from DATA, what it commits to. DATA is the directory or
file that the proof is of, "-" for standard input, or for a range the bytes that
"prove --data" wrote. Says what was proven, or refuses with exit code 4.

What is trusted comes from you: the log's public key (--key, the text or a file that
holds it) or a C2SP tlog-policy (--policy), and the curators that you accept. Never the
key that comes with a proof.

Content decides. Modes and times that differ from what was recorded are reported, and
decide only with --strict.

Receipts of anchors in the proof are checked as far as bytes go: that their transactions are
sound and hold a checkpoint of this log that covers the entry. That they are on a chain, and
since when, is only claimed. --online asks the chains, at servers that you name and that must
agree, and prints before what time the data existed. When they cannot be reached or an anchor
is not final yet the exit code is 8, when they contradict the proof 4.`,
		Example: `  scale verify photos.tlog-proof photos --key log.vkey
  scale verify part.tlog-proof part.bin --policy scale.policy --curator 9xQe...
  scale verify photos.tlog-proof photos --key log.vkey --online --k2-rpc https://mainnet.koii.network \
    --arweave-gateway https://arweave.net`,
		Args: cobra.ExactArgs(2),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.key, "key", "", "the log's public `key` (vkey), or a file that holds it")
	fl.StringVar(&f.policy, "policy", "", "`file` with a C2SP tlog-policy: logs and witness quorum")
	fl.StringArrayVar(&f.curators, "curator", nil, "accept only entries signed by this curator `key`; may be repeated")
	fl.BoolVar(&f.strict, "strict", false, "modes and recorded times must be the same too")
	f.anchors.add(fl)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0], args[1], f) }
	return cmd
}

func (a *app) verify(ctx context.Context, proofPath, data string, f verifyFlags) error {
	trust, err := f.trust()
	if err != nil {
		return err
	}
	if err := f.anchors.check(); err != nil {
		return err
	}
	b, err := readProof(proofPath)
	if err != nil {
		return err
	}
	p, err := proof.Parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", quote(proofPath), err)
	}
	v, err := p.Verify(trust)
	if err != nil {
		return fmt.Errorf("%s: %w", quote(proofPath), err)
	}
	if f.strict && v.Scope != proof.ScopeDataset {
		return usagef("--strict needs the proof of a whole dataset: that of a %v does not tell modes", v.Scope)
	}
	c := &checker{a: a, v: v, data: data}
	if err := c.check(ctx); err != nil {
		return err
	}
	if c.rootErr != nil && f.strict {
		a.note("the content is proven, but modes or times differ from what was recorded")
		return &refusal{err: c.rootErr}
	}
	evidence, err := checkReceipts(p, v, f.anchors.keys)
	if err != nil {
		return fmt.Errorf("%s: %w", quote(proofPath), err)
	}
	verdict := f.anchors.confirm(ctx, evidence)
	return errors.Join(a.printVerified(c, len(f.curators) > 0, verdict), verdict.err)
}

// trust gathers what the verifier brings.
func (f verifyFlags) trust() (proof.Trust, error) {
	var t proof.Trust
	var err error
	switch {
	case f.key != "" && f.policy != "":
		return t, usagef("--key and --policy: pass one of them")
	case f.policy != "":
		b, err := os.ReadFile(f.policy)
		if err != nil {
			return t, fmt.Errorf("--policy: %w", err)
		}
		if t.Policy, err = proof.ParsePolicy(b); err != nil {
			return t, usagef("--policy %s: %w", quote(f.policy), err)
		}
	case f.key != "":
		if t.Policy, err = trustKey(f.key); err != nil {
			return t, err
		}
	default:
		return t, usagef("%w: pass --key or --policy; scale never trusts the key that a proof brings.\n"+
			"Get the log's key from its owner, who has it from: scale key show", proof.ErrNoKey)
	}
	for _, s := range f.curators {
		k, err := ledger.ParseCuratorKey(s)
		if err != nil {
			return t, usagef("--curator: %w", err)
		}
		t.Curators = append(t.Curators, k)
	}
	return t, nil
}

// trustKey takes the key itself or a file with it.
func trustKey(s string) (torchwood.Policy, error) {
	s, err := logKey(s)
	if err != nil {
		return nil, usagef("--key: %w", err)
	}
	p, err := proof.TrustKey(s)
	if err != nil {
		return nil, usagef("--key: %w", err)
	}
	return p, nil
}

// logKey returns a log's public key from the text of it, or from a file with that.
func logKey(s string) (string, error) {
	if _, err := note.NewVerifier(s); err != nil {
		f, ferr := os.Open(s)
		if ferr != nil {
			return "", fmt.Errorf("%q is neither a log's public key (%w) nor a file with one", s, err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 4<<10))
		if err != nil {
			return "", err
		}
		s = strings.TrimSpace(string(b))
	}
	_, err := note.NewVerifier(s)
	return s, err
}

func readProof(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, proof.MaxProof+1))
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return b, nil
}

// A checker compares data with a proof that holds.
type checker struct {
	a    *app
	v    *proof.Verified
	data string

	rootErr error // content is the same, but the root CID is not: modes or times
	whole   bool  // of a range proof: data was the whole file
}

func (c *checker) check(ctx context.Context) error {
	if c.v.Scope == proof.ScopeEntry {
		return fmt.Errorf("%w: the proof is of an entry of kind %v, which has no data", proof.ErrRefused, c.v.Entry.Kind)
	}
	profile, err := dag.LookupProfile(c.v.Entry.Profile)
	if err != nil {
		return fmt.Errorf("%w: use a newer scale", err)
	}
	if c.data == "-" {
		return c.stream(ctx, profile, newInterruptible(ctx, c.a.stdin), dag.Attr{Mode: dag.DefaultFileMode})
	}
	if c.v.File != nil && c.v.File.Leaf.Kind == dag.KindLink {
		target, err := os.Readlink(c.data)
		switch {
		case errors.Is(err, syscall.EINVAL):
			return fmt.Errorf("%w: the proof is of a symbolic link, and %s is none", proof.ErrRefused, quote(c.data))
		case err != nil:
			return err
		}
		return c.refuse(c.v.CheckLink(target))
	}
	st, err := os.Stat(c.data)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return c.tree(ctx, profile)
	}
	if !st.Mode().IsRegular() {
		// The shell's <(...) and the like.
		f, err := os.Open(c.data)
		if err != nil {
			return err
		}
		defer f.Close()
		return c.stream(ctx, profile, newInterruptible(ctx, f), dag.Attr{Mode: dag.DefaultFileMode})
	}
	t, err := fstree.Open(c.data, fstree.Options{Times: c.v.Entry.Times})
	if err != nil {
		return err
	}
	defer t.Close()
	e := &fstree.Entry{Kind: dag.KindFile}
	f, err := t.Open(e)
	if err != nil {
		return err
	}
	defer f.Close()
	// The bytes of a range are what is expected; the file they are from is as good.
	if r := c.v.Range; r != nil && uint64(e.Size) != r.Size() && uint64(e.Size) == c.v.File.Leaf.Size {
		c.whole = true
	}
	return c.stream(ctx, profile, f, e.Attr)
}

// stream checks a file.
func (c *checker) stream(ctx context.Context, p *dag.Profile, r io.Reader, attr dag.Attr) error {
	if m := c.a.meter; m != nil {
		r = io.TeeReader(r, m.count(io.Discard, 0))
	}
	if c.v.Scope == proof.ScopeRange && !c.whole {
		return c.refuse(c.v.CheckRange(r))
	}
	f, err := dag.HashFile(ctx, p, r, nil, attr)
	if err != nil {
		return err
	}
	v := *c.v
	if c.whole {
		v.Scope = proof.ScopeFile // its leaf is in the proof of the range
	}
	if err := v.CheckFile(f); err != nil {
		return c.refuse(err, dag.FileLeaf{Kind: dag.KindFile, Size: f.Size, Chunks: f.Chunks, ChunkRoot: f.ChunkRoot})
	}
	if v.Scope == proof.ScopeDataset {
		c.rootErr = v.CheckRoot(f.CID)
	}
	return nil
}

// fileOf names the file that a proof is of.
func fileOf(v *proof.Verified) string {
	if v.File.Leaf.Path == "" {
		return "a dataset that is one file"
	}
	return "the file " + quote(v.File.Leaf.Path)
}

// tree checks a directory.
func (c *checker) tree(ctx context.Context, p *dag.Profile) error {
	if c.v.Scope != proof.ScopeDataset {
		if l := c.v.File.Leaf; c.v.Scope == proof.ScopeFile && l.Kind == dag.KindDir {
			return c.emptyDir()
		}
		return fmt.Errorf("%w: %s is a directory, and the proof is of %s; pass that file", proof.ErrRefused, quote(c.data), fileOf(c.v))
	}
	h := treeHasher{profile: p, keep: c.v.HasManifest, progress: func(n uint64) { c.a.meter.update(n, c.v.Entry.Size) }}
	t, err := h.hash(ctx, c.data, c.v.Entry.Times)
	for _, s := range h.skipped {
		c.a.note("not looked at: %v", s)
	}
	if err != nil {
		return err
	}
	if err := c.v.CheckTree(t); err != nil {
		return c.refuse(err, h.leaves...)
	}
	c.rootErr = c.v.CheckRoot(t.Root)
	return nil
}

// emptyDir checks the proof of an empty directory.
func (c *checker) emptyDir() error {
	names, err := os.ReadDir(c.data)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: the proof is of an empty directory, and %s is not empty", proof.ErrRefused, quote(c.data))
	}
	return nil
}
