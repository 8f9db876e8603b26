package proof

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
)

// CheckTree compares a tree that the caller built from its data, under the
// entry's profile, with the entry. Modes and times do not count: see CheckRoot.
func (v *Verified) CheckTree(t dag.Tree) error {
	if v.Scope != ScopeDataset {
		return refuse("the proof is of a %v, not of a whole dataset", v.Scope)
	}
	e := v.Entry
	return errors.Join(
		mismatch("commitment of "+e.Name, dag.Hash(e.Commitment), t.Commitment),
		mismatch("leaves of "+e.Name, e.Leaves, t.Leaves),
		mismatch("bytes of "+e.Name, e.Size, t.Size),
		mismatch("files of "+e.Name, e.Files, t.Files),
		mismatch("chunks of "+e.Name, e.Chunks, t.Chunks),
	)
}

// CheckRoot compares the CID of the data's DAG with the entry's. It differs
// from CheckTree in that modes and, where the entry has them, times count.
func (v *Verified) CheckRoot(root cid.Cid) error {
	if v.Scope != ScopeDataset {
		return refuse("the proof is of a %v, which does not tell modes", v.Scope)
	}
	return mismatch("root of "+v.Entry.Name, v.Entry.Root, root)
}

// CheckFile compares a file that the caller chunked under the entry's profile
// with the proof's leaf, or with a dataset that is a single stream. Whoever has
// the whole file may check it with a proof of a range, too.
func (v *Verified) CheckFile(f dag.File) error {
	got := dag.FileLeaf{Kind: dag.KindFile, Size: f.Size, Chunks: f.Chunks, ChunkRoot: f.ChunkRoot}
	if v.Scope == ScopeDataset {
		return v.CheckTree(dag.Tree{Commitment: got.Hash(), Leaves: 1, Size: f.Size, Files: 1, Chunks: f.Chunks})
	}
	if v.File == nil {
		return refuse("the proof is of a %v, not of a file", v.Scope)
	}
	l := v.File.Leaf
	if l.Kind != dag.KindFile {
		return refuse("%q is a %v in the dataset, not a file", l.Path, l.Kind)
	}
	return errors.Join(
		mismatch(fmt.Sprintf("chunk root of %q", l.Path), l.ChunkRoot, got.ChunkRoot),
		mismatch(fmt.Sprintf("bytes of %q", l.Path), l.Size, got.Size),
		mismatch(fmt.Sprintf("chunks of %q", l.Path), l.Chunks, got.Chunks),
	)
}

// CheckLink compares the target of a symbolic link with the proof's leaf.
func (v *Verified) CheckLink(target string) error {
	if v.Scope != ScopeFile || v.File.Leaf.Kind != dag.KindLink {
		return refuse("the proof is not of a symbolic link")
	}
	return mismatch(fmt.Sprintf("target of %q", v.File.Leaf.Path), v.File.Leaf.Target, target)
}

// CheckRange reads the bytes of the proof's whole chunks, no fewer and no
// more, and compares them with the file's chunk root. An error of r itself is
// returned as it is.
func (v *Verified) CheckRange(r io.Reader) error {
	if v.Scope != ScopeRange {
		return refuse("the proof is of a %v, not of a range", v.Scope)
	}
	p, l := v.Range, v.File.Leaf
	run := make([]dag.Hash, len(p.Sizes))
	digest, buf := sha256.New(), make([]byte, 32<<10)
	offset := p.Offset
	for i, size := range p.Sizes {
		digest.Reset()
		n, err := io.CopyBuffer(digest, io.LimitReader(r, int64(size)), buf)
		if err != nil {
			return fmt.Errorf("read range: %w", err)
		}
		if n < int64(size) {
			return mismatch("bytes of the range", p.Size(), offset-p.Offset+uint64(n))
		}
		run[i] = dag.ChunkLeafHash(dag.ChunkRef{Digest: dag.Digest(digest.Sum(nil)), Offset: offset, Size: size})
		offset += uint64(size)
	}
	if n, err := io.ReadFull(r, buf[:1]); n > 0 {
		return &MismatchError{What: "bytes of the range", Want: fmt.Sprint(p.Size()), Got: "more"}
	} else if err != io.EOF {
		return fmt.Errorf("read range: %w", err)
	}
	root, err := runRoot(l.Chunks, p.First, run, p.Left, p.Right)
	if err != nil {
		return err
	}
	return mismatch(fmt.Sprintf("chunk root of %q", l.Path), l.ChunkRoot, root)
}

// Diff compares the leaves of the caller's data, in canonical order, with the
// proof's manifest: what only the data has, what only the manifest has, and
// what differs.
func (v *Verified) Diff(leaves iter.Seq2[dag.FileLeaf, error]) (extra, missing, changed []string, err error) {
	if !v.HasManifest {
		return nil, nil, nil, refuse("the proof has no manifest")
	}
	rest, last, first := v.manifest, "", true
	for l, err := range leaves {
		if err != nil {
			return nil, nil, nil, err
		}
		if !first && l.Path <= last {
			return nil, nil, nil, fmt.Errorf("leaves are not in order at %q", l.Path)
		}
		first, last = false, l.Path
		for len(rest) > 0 && rest[0].Path < l.Path {
			missing, rest = append(missing, rest[0].Path), rest[1:]
		}
		switch {
		case len(rest) == 0 || rest[0].Path != l.Path:
			extra = append(extra, l.Path)
		case rest[0] != l:
			changed, rest = append(changed, l.Path), rest[1:]
		default:
			rest = rest[1:]
		}
	}
	for _, l := range rest {
		missing = append(missing, l.Path)
	}
	return extra, missing, changed, nil
}
