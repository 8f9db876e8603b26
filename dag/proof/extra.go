package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
)

// The extra data: magic, sections in ascending order, SHA-256 of all before.
// A section is its number, its length and its content. Every integer is an
// unsigned varint in its shortest form, below 2^63.
const magic = "scale-proof/v1\n"

// Section numbers are only ever appended.
const (
	sectionEntry    = 1
	sectionFile     = 2
	sectionRange    = 3
	sectionManifest = 4
	sectionReceipts = 5
)

// appendExtra encodes what the extra line carries.
func (p *Proof) appendExtra(b []byte) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	start := len(b)
	b = append(b, magic...)
	b = appendSection(b, sectionEntry, p.EntryBlock)
	if f := p.File; f != nil {
		leaf := f.Leaf.Marshal()
		s := binary.AppendUvarint(nil, uint64(len(leaf)))
		s = append(s, leaf...)
		s = binary.AppendUvarint(s, f.Index)
		s = appendHashes(s, f.Path)
		b = appendSection(b, sectionFile, s)
	}
	if r := p.Range; r != nil {
		s := binary.AppendUvarint(nil, r.First)
		s = binary.AppendUvarint(s, r.Offset)
		s = binary.AppendUvarint(s, uint64(len(r.Sizes)))
		for _, n := range r.Sizes {
			s = binary.AppendUvarint(s, uint64(n))
		}
		s = appendHashes(s, r.Left)
		s = appendHashes(s, r.Right)
		b = appendSection(b, sectionRange, s)
	}
	if p.Manifest != nil {
		// What is by far the largest is written once, where it belongs.
		size := manifestSize(p.Manifest)
		b = slices.Grow(b, size+64<<10)
		b = binary.AppendUvarint(b, sectionManifest)
		b = binary.AppendUvarint(b, uint64(size))
		b = appendManifest(b, p.Manifest)
	}
	if len(p.Receipts) > 0 {
		b = appendSection(b, sectionReceipts, appendReceipts(nil, p.Receipts))
	}
	sum := sha256.Sum256(b[start:])
	return append(b, sum[:]...), nil
}

// check holds the rules that need nothing but the proof itself.
func (p *Proof) check() error {
	if len(p.EntryBlock) == 0 || len(p.EntryBlock) > ledger.MaxEntry {
		return fmt.Errorf("%w: entry of %d bytes", ErrFormat, len(p.EntryBlock))
	}
	if p.File == nil && p.Range != nil || p.File != nil && p.Manifest != nil {
		return fmt.Errorf("%w: a range belongs to a file, a manifest to a whole dataset", ErrFormat)
	}
	if f := p.File; f != nil {
		if err := checkLeaf(f.Leaf); err != nil {
			return err
		}
		if f.Index > math.MaxInt64 || len(f.Path) > maxPath {
			return fmt.Errorf("%w: leaf %d with %d path hashes", ErrFormat, f.Index, len(f.Path))
		}
	}
	if r := p.Range; r != nil {
		if r.First > math.MaxInt64 || r.Offset > math.MaxInt64 || len(r.Left) > maxPath || len(r.Right) > maxPath {
			return fmt.Errorf("%w: range at chunk %d, offset %d", ErrFormat, r.First, r.Offset)
		}
	}
	if p.Manifest != nil && len(p.Manifest) == 0 {
		return fmt.Errorf("%w: empty manifest", ErrFormat)
	}
	for i, l := range p.Manifest {
		if err := checkLeaf(l); err != nil {
			return err
		}
		if i > 0 && p.Manifest[i-1].Path >= l.Path {
			return fmt.Errorf("%w: manifest is not in order at %q", ErrFormat, l.Path)
		}
	}
	return p.checkReceipts()
}

// checkLeaf says whether the leaf is one that dag could have made.
func checkLeaf(l dag.FileLeaf) error {
	again, err := dag.ParseFileLeaf(l.Marshal())
	if err == nil && again != l {
		err = fmt.Errorf("leaf %q has fields that its kind does not have", l.Path)
	}
	if err == nil && (l.Size > math.MaxInt64 || l.Chunks > math.MaxInt64) {
		err = fmt.Errorf("leaf %q has a size above 2^63-1", l.Path)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

func appendSection(b []byte, number uint64, content []byte) []byte {
	b = binary.AppendUvarint(b, number)
	b = binary.AppendUvarint(b, uint64(len(content)))
	return append(b, content...)
}

func appendHashes(b []byte, hashes []dag.Hash) []byte {
	b = binary.AppendUvarint(b, uint64(len(hashes)))
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// emptyRoot is the chunk root of an empty file, which a manifest leaves out.
var emptyRoot = dag.Hash(sha256.Sum256(nil))

// appendManifest writes the leaves as dag's rows have them, each path as what
// it shares with the path before and the rest.
func appendManifest(b []byte, leaves []dag.FileLeaf) []byte {
	b = binary.AppendUvarint(b, uint64(len(leaves)))
	prev := ""
	for i := range leaves {
		b = appendLeaf(b, prev, &leaves[i])
		prev = leaves[i].Path
	}
	return b
}

// manifestSize returns how many bytes appendManifest writes.
func manifestSize(leaves []dag.FileLeaf) int {
	b := binary.AppendUvarint(nil, uint64(len(leaves)))
	n := len(b)
	prev := ""
	for i := range leaves {
		b = appendLeaf(b[:0], prev, &leaves[i])
		n += len(b)
		prev = leaves[i].Path
	}
	return n
}

func appendLeaf(b []byte, prev string, l *dag.FileLeaf) []byte {
	shared := sharedPrefix(prev, l.Path)
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(l.Path)-shared))
	b = append(b, l.Path[shared:]...)
	b = append(b, byte(l.Kind))
	switch l.Kind {
	case dag.KindFile:
		b = binary.AppendUvarint(b, l.Size)
		b = binary.AppendUvarint(b, l.Chunks)
		if l.Chunks > 0 {
			b = append(b, l.ChunkRoot[:]...)
		}
	case dag.KindLink:
		b = binary.AppendUvarint(b, uint64(len(l.Target)))
		b = append(b, l.Target...)
	}
	return b
}

func sharedPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// parseExtra is the inverse of appendExtra. What it does not check here, Parse
// does by encoding again.
func (p *Proof) parseExtra(extra []byte, lim limits) error {
	body, ok := bytes.CutPrefix(extra, []byte(magic))
	if !ok || len(body) < sha256.Size {
		return fmt.Errorf("%w: extra data is not SCALE's, or of a newer version", ErrFormat)
	}
	body, sum := body[:len(body)-sha256.Size], body[len(body)-sha256.Size:]
	if got := sha256.Sum256(extra[:len(extra)-sha256.Size]); !bytes.Equal(got[:], sum) {
		return fmt.Errorf("%w: damaged: digest of the extra data is %x, must be %x", ErrFormat, got, sum)
	}
	in := &decoder{b: body}
	last := uint64(0)
	for in.err == nil && len(in.b) > 0 {
		number := in.uint()
		s := &decoder{b: in.bytes(in.uint())}
		if in.err != nil {
			break
		}
		if number <= last {
			return fmt.Errorf("%w: section %d after %d", ErrFormat, number, last)
		}
		switch number {
		case sectionEntry:
			p.EntryBlock = s.bytes(uint64(len(s.b)))
		case sectionFile:
			p.File = s.file()
		case sectionRange:
			p.Range = s.run()
		case sectionManifest:
			p.Manifest = s.manifest(lim)
		case sectionReceipts:
			p.Receipts = s.receipts()
		default:
			return fmt.Errorf("%w: section %d is unknown to this version", ErrFormat, number)
		}
		if s.err == nil && len(s.b) > 0 {
			s.fail("%d bytes too many", len(s.b))
		}
		if errors.Is(s.err, ErrLarge) {
			return fmt.Errorf("section %d: %w", number, s.err)
		}
		if s.err != nil {
			return fmt.Errorf("%w: section %d: %w", ErrFormat, number, s.err)
		}
		last = number
	}
	if in.err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, in.err)
	}
	return nil
}

// A decoder takes values off b and keeps the first error.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > math.MaxInt64 {
		d.fail("bad integer")
	}
	if d.err != nil {
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads the length of a list whose elements take at least size bytes
// each, so that what is allocated is bounded by what was sent.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail("list of %d elements in %d bytes", n, len(d.b))
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail("%d bytes of %d", len(d.b), n)
	}
	if d.err != nil {
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) hash() (h dag.Hash) {
	copy(h[:], d.bytes(uint64(len(h))))
	return h
}

func (d *decoder) hashes() []dag.Hash {
	var list []dag.Hash
	for range d.count(len(dag.Hash{})) {
		list = append(list, d.hash())
	}
	return list
}

func (d *decoder) file() *FileProof {
	leaf, err := dag.ParseFileLeaf(d.bytes(d.uint()))
	if err != nil {
		d.fail("leaf: %w", err)
	}
	return &FileProof{Leaf: leaf, Index: d.uint(), Path: d.hashes()}
}

func (d *decoder) run() *RangeProof {
	r := &RangeProof{First: d.uint(), Offset: d.uint()}
	r.Sizes = make([]uint32, d.count(1))
	for i := range r.Sizes {
		n := d.uint()
		if n > math.MaxUint32 {
			d.fail("chunk of %d bytes", n)
		}
		r.Sizes[i] = uint32(n)
	}
	r.Left, r.Right = d.hashes(), d.hashes()
	return r
}

// manifest reads leaves within limits: shared prefixes let a small file unfold to a large one.
func (d *decoder) manifest(lim limits) []dag.FileLeaf {
	// The shortest leaf has two integers for its path and a kind.
	n := d.count(3)
	leafBytes, paths, prev := n*lim.leaf, 0, ""
	if leafBytes > lim.memory {
		d.fail("%w: %d leaves are more than %d bytes", ErrLarge, n, lim.memory)
		return nil
	}
	leaves := make([]dag.FileLeaf, n)
	for i := range leaves {
		l := &leaves[i]
		shared := d.uint()
		rest := d.bytes(d.uint())
		if shared > uint64(len(prev)) {
			d.fail("leaf %d shares %d bytes with a path of %d", i, shared, len(prev))
		}
		if n := shared + uint64(len(rest)); n > dag.MaxPath+1 { // an empty directory has a / more
			d.fail("leaf %d has a path of %d bytes", i, n)
		}
		if paths += int(shared) + len(rest); paths > lim.paths {
			d.fail("more than %d bytes of paths", lim.paths)
		}
		if paths > lim.memory-leafBytes {
			d.fail("%w: more than %d bytes with all paths", ErrLarge, lim.memory)
		}
		kind := d.bytes(1)
		if d.err != nil {
			return nil
		}
		l.Path = prev[:shared] + string(rest)
		switch l.Kind = dag.Kind(kind[0]); l.Kind {
		case dag.KindFile:
			l.Size, l.Chunks, l.ChunkRoot = d.uint(), d.uint(), emptyRoot
			if l.Chunks > 0 {
				l.ChunkRoot = d.hash()
			}
		case dag.KindLink:
			l.Target = string(d.bytes(d.uint()))
			l.Size = uint64(len(l.Target))
		}
		prev = l.Path
	}
	return leaves
}
