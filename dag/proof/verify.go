package proof

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"filippo.io/torchwood"
	"github.com/ipfs/go-cid"
	"github.com/transparency-dev/merkle/compact"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
)

// Trust is what a verifier brings: whom it believes.
type Trust struct {
	// Policy says which signatures a checkpoint needs: see TrustKey and
	// ParsePolicy. Without one nothing can be verified.
	Policy torchwood.Policy
	// Curators, if any, are those whose entries are accepted. If there are
	// none the log's own admission has to do, and Verified says so.
	Curators []ledger.CuratorKey
}

// Scope says what a proof is about.
type Scope uint8

const (
	ScopeEntry   Scope = iota // an entry without data: a policy
	ScopeDataset              // all of a dataset
	ScopeFile                 // one leaf of a dataset
	ScopeRange                // a run of whole chunks of a file
)

func (s Scope) String() string {
	return [...]string{"entry", "dataset", "file", "range"}[s]
}

// Verified is what a proof was found to show. The data has not been looked at
// until one of the Check methods returned nil.
type Verified struct {
	Entry          *ledger.Entry
	CID            cid.Cid // of the entry
	Index          int64
	Checkpoint     ledger.Checkpoint
	KeyID          uint32 // of the log key
	CuratorTrusted bool   // the curator is one of Trust.Curators; false when these are empty
	Cosignatures   []Cosignature

	Scope       Scope
	File        *FileProof  // of ScopeFile and ScopeRange
	Range       *RangeProof // of ScopeRange
	HasManifest bool

	// Receipts of anchors, each with its path. Nothing but their form was checked: see
	// package anchor, and OpenCheckpoint.
	Receipts []Receipt

	manifest []dag.FileLeaf
	policy   torchwood.Policy
}

// A Cosignature is a signature on the checkpoint besides the log's own.
type Cosignature struct {
	Name     string
	KeyID    uint32
	Time     time.Time // zero if it carries none
	Verified bool      // under a key of the policy; otherwise all of it is claimed only
}

// A MismatchError reports data, or a part of a proof, that leads to another
// value than it must. It unwraps to ErrRefused.
type MismatchError struct{ What, Want, Got string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s: expected %s, computed %s", ErrRefused, e.What, e.Want, e.Got)
}
func (e *MismatchError) Unwrap() error { return ErrRefused }

func mismatch[T comparable](what string, want, got T) error {
	if want == got {
		return nil
	}
	return &MismatchError{What: what, Want: fmt.Sprint(want), Got: fmt.Sprint(got)}
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// Verify checks everything but the data: that the checkpoint satisfies the
// policy, that the entry is in its tree, that its curator signed it for this
// log, and that what the proof says of the data follows from the entry.
func (p *Proof) Verify(t Trust) (*Verified, error) {
	if t.Policy == nil {
		return nil, ErrNoKey
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	v := &Verified{
		CID: ledger.EntryCID(p.EntryBlock), Index: p.Index,
		File: p.File, Range: p.Range, HasManifest: p.Manifest != nil, manifest: p.Manifest,
		policy: t.Policy,
	}
	if err := v.verifyCheckpoint(p.Checkpoint, t.Policy); err != nil {
		return nil, err
	}
	if err := v.verifyEntry(p, t.Curators); err != nil {
		return nil, err
	}
	v.Receipts = p.verifiedReceipts(v.Checkpoint.Size)
	return v, v.verifyScope()
}

func (v *Verified) verifyCheckpoint(b []byte, policy torchwood.Policy) error {
	c, lines, err := ledger.ParseCheckpointUnverified(b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	_, n, err := torchwood.VerifyCheckpoint(b, policy)
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		return refuse("the trusted policy does not accept the checkpoint of log %q, signed by key %08x: %w", c.Origin, lines[0].Hash, err)
	} else if err != nil {
		return refuse("checkpoint of log %q: %w", c.Origin, err)
	}
	isVerified := func(s note.Signature) bool { return slices.Contains(n.Sigs, s) }
	if !isVerified(lines[0]) {
		return refuse("the trusted policy does not know key %08x, by which log %q signed", lines[0].Hash, c.Origin)
	}
	v.Checkpoint, v.KeyID = c, lines[0].Hash
	for _, s := range lines[1:] {
		v.Cosignatures = append(v.Cosignatures, Cosignature{Name: s.Name, KeyID: s.Hash, Time: cosignedAt(s), Verified: isVerified(s)})
	}
	return nil
}

// cosignedAt returns the time in a C2SP cosignature/v1: key id, time, Ed25519.
func cosignedAt(s note.Signature) time.Time {
	if b, err := base64.StdEncoding.DecodeString(s.Base64); err != nil || len(b) != 4+8+64 {
		return time.Time{}
	}
	sec, err := torchwood.CosignatureTimestamp(s)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

func (v *Verified) verifyEntry(p *Proof, trusted []ledger.CuratorKey) error {
	leaf := ledger.LeafHash(p.EntryBlock)
	path := make([][]byte, len(p.Inclusion))
	for i := range path {
		path[i] = p.Inclusion[i][:]
	}
	root, err := merkle.RootFromInclusionProof(rfc6962.DefaultHasher, uint64(p.Index), uint64(v.Checkpoint.Size), leaf[:], path)
	if err != nil {
		return refuse("entry %d in a log of size %d: %w", p.Index, v.Checkpoint.Size, err)
	}
	if err := mismatch("root of the log at size "+fmt.Sprint(v.Checkpoint.Size), dag.Hash(v.Checkpoint.Root), dag.Hash(root)); err != nil {
		return err
	}
	if v.Entry, err = ledger.ParseEntry(p.EntryBlock); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if v.Entry.Kind == ledger.KindRemoval {
		return fmt.Errorf("%w: entry %d takes the name %s away: such an entry has nothing to prove", ErrFormat, p.Index, v.Entry.Name)
	}
	id := ledger.LogID{Origin: v.Checkpoint.Origin, KeyID: v.KeyID}
	if err := v.Entry.CheckSignature(id); err != nil {
		return refuse("%w", err)
	}
	if err := v.Entry.CheckSuccession(id); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	v.CuratorTrusted = slices.Contains(trusted, v.Entry.Curator)
	if len(trusted) > 0 && !v.CuratorTrusted {
		return refuse("curator %v is not one of those you trust", v.Entry.Curator)
	}
	return nil
}

// verifyScope checks the parts that narrow the dataset down.
func (v *Verified) verifyScope() error {
	e := v.Entry
	if e.Kind != ledger.KindDataset {
		if v.File != nil || v.HasManifest {
			return refuse("a %v entry has no files", e.Kind)
		}
		v.Scope = ScopeEntry
		return nil
	}
	v.Scope = ScopeDataset
	if v.HasManifest {
		if err := mismatch("leaves in the manifest", e.Leaves, uint64(len(v.manifest))); err != nil {
			return err
		}
		hashes := make([]dag.Hash, len(v.manifest))
		for i, l := range v.manifest {
			hashes[i] = l.Hash()
		}
		root, err := runRoot(e.Leaves, 0, hashes, nil, nil)
		if err != nil {
			return err
		}
		return mismatch("commitment of the manifest", dag.Hash(e.Commitment), root)
	}
	if v.File == nil {
		return nil
	}
	v.Scope = ScopeFile
	f := v.File
	leaf := f.Leaf.Hash()
	path := make([][]byte, len(f.Path))
	for i := range path {
		path[i] = f.Path[i][:]
	}
	root, err := merkle.RootFromInclusionProof(rfc6962.DefaultHasher, f.Index, e.Leaves, leaf[:], path)
	if err != nil {
		return refuse("leaf %d of %d, %q: %w", f.Index, e.Leaves, f.Leaf.Path, err)
	}
	if err := mismatch(fmt.Sprintf("commitment of the dataset over %q", f.Leaf.Path), dag.Hash(e.Commitment), dag.Hash(root)); err != nil {
		return err
	}
	if v.Range == nil {
		return nil
	}
	v.Scope = ScopeRange
	return v.verifyRange()
}

// verifyRange checks what can be said of a range without its bytes.
func (v *Verified) verifyRange() error {
	r, l := v.Range, v.File.Leaf
	if l.Kind != dag.KindFile {
		return refuse("a range of %q, which is a %v", l.Path, l.Kind)
	}
	count := uint64(len(r.Sizes))
	if count == 0 || r.First >= l.Chunks || count > l.Chunks-r.First {
		return refuse("chunks %d to %d of %d", r.First, r.First+count, l.Chunks)
	}
	if slices.Contains(r.Sizes, 0) {
		return refuse("a chunk of no bytes")
	}
	size := r.Size()
	if size > l.Size || r.Offset > l.Size-size {
		return refuse("bytes %d to %d of %d", r.Offset, r.Offset+size, l.Size)
	}
	if (r.First == 0) != (r.Offset == 0) || (r.First+count == l.Chunks) != (r.Offset+size == l.Size) {
		return refuse("chunks %d to %d of %d cannot be bytes %d to %d of %d", r.First, r.First+count, l.Chunks, r.Offset, r.Offset+size, l.Size)
	}
	left, right := compact.RangeSize(0, r.First), compact.RangeSize(r.First+count, l.Chunks)
	if len(r.Left) != left || len(r.Right) != right {
		return refuse("range path of %d and %d hashes, must be %d and %d", len(r.Left), len(r.Right), left, right)
	}
	return nil
}

// runRoot computes the RFC 6962 root of a tree of n leaves from those that
// begin at first and the compact ranges left and right of them.
func runRoot(n, first uint64, run, left, right []dag.Hash) (dag.Hash, error) {
	factory := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	tree, err := factory.NewRange(0, first, byteSlices(left))
	if err != nil {
		return dag.Hash{}, refuse("range path: %w", err)
	}
	for i := range run {
		if err := tree.Append(run[i][:], nil); err != nil {
			return dag.Hash{}, refuse("range path: %w", err)
		}
	}
	rest, err := factory.NewRange(tree.End(), n, byteSlices(right))
	if err == nil {
		err = tree.AppendRange(rest, nil)
	}
	if err != nil {
		return dag.Hash{}, refuse("range path: %w", err)
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return dag.Hash{}, refuse("range path: %w", err)
	}
	return dag.Hash(root), nil
}

func byteSlices(hashes []dag.Hash) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return list
}
