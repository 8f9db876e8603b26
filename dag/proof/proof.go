// Package proof writes, reads and verifies SCALE's proofs: small files which
// show that a dataset, one file of it or a range of a file was recorded in a
// ledger by a curator. SPEC.md beside this file describes every byte.
//
// A proof is a C2SP .tlog-proof. Its log part (index, inclusion path, signed
// checkpoint) can be checked by any tool for such proofs, over the RFC 6962
// hash of the entry. Its extra line carries the rest in one canonical
// encoding: the entry, and what leads from the entry to the data.
//
// Verification is pure: no store, no network, no clock. It trusts what the
// caller names in [Trust] and nothing that the proof brings. [Parse] accepts
// one encoding only and [Proof.Verify] checks all but the data; what holds then
// is in [Verified], whose methods compare data with it.
package proof

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unsafe"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
)

var (
	// ErrFormat says that bytes are not a proof, or a damaged one.
	ErrFormat = errors.New("not a valid proof")
	// ErrRefused says that a proof or data does not hold.
	ErrRefused = errors.New("verification refused")
	// ErrLarge says that a proof takes more memory than ParseWithin may use. It may be valid.
	ErrLarge = errors.New("the proof takes too much memory")
	// ErrNoKey says that the caller trusts no log key. The key that could be
	// found beside a proof proves nothing.
	ErrNoKey = errors.New("no trusted log key")
)

const (
	// MaxProof bounds a proof file, and the paths of its manifest together.
	MaxProof = 1 << 30
	// maxPath is the longest path in a tree of less than 2^64 leaves.
	maxPath = 64
)

// A Proof is the content of a proof file.
type Proof struct {
	EntryBlock []byte // of the ledger entry
	Index      int64  // of the entry
	Inclusion  tlog.RecordProof
	Checkpoint []byte // signed note

	// What the proof narrows the dataset to, if anything.
	File     *FileProof
	Range    *RangeProof    // only with File
	Manifest []dag.FileLeaf // all leaves of the file tree; only without File

	Receipts []Receipt // of anchors; see SortReceipts
}

// A FileProof leads from the entry's commitment to one leaf of the file tree.
type FileProof struct {
	Leaf  dag.FileLeaf
	Index uint64
	Path  []dag.Hash // RFC 6962 audit path
}

// A RangeProof leads from a file's chunk tree to a run of whole chunks. Their
// digests are not in it: the verifier computes them from the bytes.
type RangeProof struct {
	First  uint64   // index of the first chunk
	Offset uint64   // of that chunk in the file
	Sizes  []uint32 // of each chunk of the run
	// Compact ranges: the roots of the largest perfect subtrees left and right
	// of the run, from left to right.
	Left, Right []dag.Hash
}

// Size returns the number of bytes in the range.
func (r *RangeProof) Size() uint64 {
	var n uint64
	for _, s := range r.Sizes {
		n += uint64(s)
	}
	return n
}

// header begins every file of C2SP tlog-proof.
const header = "c2sp.org/tlog-proof@v1\n"

// Format returns the proof file.
func (p *Proof) Format() ([]byte, error) {
	extra, err := p.appendExtra(nil)
	if err != nil {
		return nil, err
	}
	if p.Index < 0 || len(p.Inclusion) > maxPath {
		return nil, fmt.Errorf("%w: index %d with %d path hashes", ErrFormat, p.Index, len(p.Inclusion))
	}
	if len(p.Checkpoint) == 0 || len(p.Checkpoint) > ledger.MaxCheckpoint {
		return nil, fmt.Errorf("%w: checkpoint of %d bytes", ErrFormat, len(p.Checkpoint))
	}
	// torchwood.FormatProofWithExtraData writes the same bytes, but copies a
	// manifest of a gigabyte four times.
	size := len(header) + base64.StdEncoding.EncodedLen(len(extra)) + 64 + 45*len(p.Inclusion) + len(p.Checkpoint)
	if size > MaxProof {
		return nil, fmt.Errorf("%w: proof of about %d bytes, limit %d", ErrFormat, size, MaxProof)
	}
	b := append(make([]byte, 0, size), header+"extra "...)
	b = append(base64.StdEncoding.AppendEncode(b, extra), "\nindex "...)
	b = append(strconv.AppendInt(b, p.Index, 10), '\n')
	for _, h := range p.Inclusion {
		b = append(base64.StdEncoding.AppendEncode(b, h[:]), '\n')
	}
	b = append(b, '\n')
	return append(b, p.Checkpoint...), nil
}

// Parse reads a proof file. It accepts exactly what Format writes: no byte can
// vary freely. Nothing in the result is verified, and entry and checkpoint are
// not even parsed: Verify does that.
func Parse(b []byte) (*Proof, error) { return parse(b, limits{paths: MaxProof, memory: math.MaxInt}) }

// ParseWithin is Parse for those who do not know where b comes from: it refuses a proof
// whose manifest takes more than so many bytes of memory, which may be many times those of b,
// with ErrLarge.
func ParseWithin(b []byte, most int) (*Proof, error) {
	return parse(b, limits{paths: MaxProof, memory: most, leaf: int(unsafe.Sizeof(dag.FileLeaf{}))})
}

// limits are those of a manifest.
type limits struct {
	paths  int // bytes of all paths together; more is not valid
	memory int // what paths and leaves may take, in bytes
	leaf   int // what a leaf counts as, besides its path
}

func parse(b []byte, lim limits) (*Proof, error) {
	// torchwood and transparency-dev/formats parse such files too, but not
	// strictly, and the latter takes lines of at most 64 KiB.
	bad := func(format string, args ...any) (*Proof, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
	if len(b) > MaxProof {
		return bad("%d bytes, limit %d", len(b), MaxProof)
	}
	rest, ok := bytes.CutPrefix(b, []byte(header))
	if !ok {
		return bad("no tlog-proof header")
	}
	line, rest, _ := bytes.Cut(rest, newline)
	text, ok := bytes.CutPrefix(line, []byte("extra "))
	if !ok {
		return bad("no extra line: this may be a tlog-proof of another system")
	}
	extra, err := decode64(text)
	if err != nil {
		return bad("extra line: %w", err)
	}
	line, rest, _ = bytes.Cut(rest, newline)
	text, ok = bytes.CutPrefix(line, []byte("index "))
	if !ok {
		return bad("no index line")
	}
	p := new(Proof)
	if p.Index, err = strconv.ParseInt(string(text), 10, 64); err != nil || p.Index < 0 {
		return bad("index %q", text)
	}
	for {
		if line, rest, ok = bytes.Cut(rest, newline); !ok {
			return bad("cut short in the inclusion path")
		}
		if len(line) == 0 {
			break
		}
		h, err := decode64(line)
		if err != nil || len(h) != tlog.HashSize || len(p.Inclusion) == maxPath {
			return bad("inclusion path, hash %d", len(p.Inclusion))
		}
		p.Inclusion = append(p.Inclusion, tlog.Hash(h))
	}
	p.Checkpoint = rest
	if err := p.parseExtra(extra, lim); err != nil {
		return nil, err
	}
	again, err := p.Format()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return bad("not the canonical encoding")
	}
	return p, nil
}

var newline = []byte("\n")

func decode64(text []byte) ([]byte, error) {
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(b, text)
	return b[:n], err
}
