package ledger

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multihash"
	"golang.org/x/mod/sumdb/tlog"
)

// Kind says what an entry records. Numbers are only ever appended.
type Kind uint64

const (
	// KindPolicy names the curators whose entries are admitted from here on.
	KindPolicy Kind = 0
	// KindDataset records a version of a dataset.
	KindDataset Kind = 1
	// KindRemoval takes a name away until the next version of it.
	KindRemoval Kind = 2
)

func (k Kind) String() string {
	switch k {
	case KindPolicy:
		return "policy"
	case KindDataset:
		return "dataset"
	case KindRemoval:
		return "removal"
	}
	return fmt.Sprintf("kind %d", uint64(k))
}

// Limits of an entry. A block above MaxEntry is refused before it is decoded.
const (
	MaxEntry    = 16 << 10
	MaxParents  = 256
	MaxCurators = 256
	MaxProfile  = 64
	// maxTime is the last millisecond of the year 9999, the last that RFC 3339 can write.
	maxTime = 253402300799999
)

// entryVersion is the value of the key "version".
const entryVersion = 1

// An Entry is one record of the ledger, signed by a curator. Which fields apply
// depends on Kind; the others must be zero (Previous and Policy: -1).
type Entry struct {
	Kind Kind

	// Of a dataset and of a removal.
	Name     string // see CheckName
	Previous int64  // index of the newest earlier entry of Name, -1 if there is none

	// Of a dataset.
	Root       cid.Cid // of the DAG: CIDv1, raw or dag-pb, sha2-256
	Size       uint64  // bytes of content
	Files      uint64
	Leaves     uint64   // of the file tree
	Chunks     uint64   // of all files
	Commitment [32]byte // root of the file tree
	Profile    string
	Times      bool      // modification times are recorded in the DAG
	Parents    []cid.Cid // CIDs of earlier entries, unique

	// Of a policy.
	Curators []CuratorKey // sorted, unique
	// Predecessor is the last signed checkpoint of the log that this one carries on, if
	// any; only in entry 0. See OpenPredecessor.
	Predecessor []byte

	// Of all kinds.
	Policy    int64     // index of the policy entry in force before this entry, -1 in entry 0
	Time      time.Time // claimed by the curator; UTC, whole milliseconds
	Curator   CuratorKey
	Signature [64]byte
}

// Marshal returns the entry's block: canonical dag-cbor, at most MaxEntry bytes.
func (e *Entry) Marshal() ([]byte, error) { return e.encode(true) }

func (e *Entry) encode(signed bool) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b := e.appendCBOR(make([]byte, 0, 768), signed)
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("%w: entry of %d bytes, limit %d", ErrFormat, len(b), MaxEntry)
	}
	return b, nil
}

// ParseEntry parses an entry's block. It accepts exactly what Marshal returns.
// The signature is not checked: see [Entry.CheckSignature].
func ParseEntry(b []byte) (*Entry, error) {
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("%w: entry of %d bytes, limit %d", ErrFormat, len(b), MaxEntry)
	}
	nb := basicnode.Prototype.Map.NewBuilder()
	// The budget counts content bytes and a few more for each element.
	opts := dagcbor.DecodeOptions{AllowLinks: true, AllocationBudget: 4 * MaxEntry, MaxCollectionPrealloc: 32, MaxDepth: 4}
	if err := opts.Decode(nb, bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("%w: entry is not dag-cbor: %w", ErrFormat, err)
	}
	f := fields{n: nb.Build()}
	if v := f.int("version"); f.err == nil && v != entryVersion {
		return nil, fmt.Errorf("%w: entry of version %d, know %d", ErrFormat, v, entryVersion)
	}
	e := &Entry{
		Kind:     Kind(f.int("kind")),
		Policy:   f.index("policy"),
		Previous: -1,
		Time:     time.UnixMilli(f.int("time")).UTC(),
	}
	f.bytes("curator", e.Curator[:])
	f.bytes("signature", e.Signature[:])
	switch e.Kind {
	case KindPolicy:
		f.list("curators", MaxCurators, func(n datamodel.Node) error {
			var k CuratorKey
			e.Curators = append(e.Curators, k)
			return copyBytes(e.Curators[len(e.Curators)-1][:], n)
		})
		e.Predecessor = f.optional("predecessor", MaxPredecessor)
	case KindDataset:
		e.Name = f.string("name")
		e.Root = f.link("root")
		e.Size = uint64(f.int("size"))
		e.Files = uint64(f.int("files"))
		e.Leaves = uint64(f.int("leaves"))
		e.Chunks = uint64(f.int("chunks"))
		f.bytes("commitment", e.Commitment[:])
		e.Profile = f.string("profile")
		e.Times = f.bool("times")
		f.list("parents", MaxParents, func(n datamodel.Node) error {
			c, err := asCID(n)
			e.Parents = append(e.Parents, c)
			return err
		})
		e.Previous = f.index("previous")
	case KindRemoval:
		e.Name = f.string("name")
		e.Previous = f.index("previous")
	}
	if f.err != nil {
		return nil, fmt.Errorf("%w: entry: %w", ErrFormat, f.err)
	}
	again, err := e.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: entry is not canonical: an unknown key, or not the one encoding of its values", ErrFormat)
	}
	return e, nil
}

// check holds the rules of a single entry, those that need no other entry.
func (e *Entry) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %v entry: %s", ErrFormat, e.Kind, fmt.Sprintf(format, args...))
	}
	if ms := e.Time.UnixMilli(); ms < 0 || ms > maxTime {
		return bad("time %v is not within 1970 to 9999", e.Time)
	}
	if e.Policy < -1 || e.Previous < -1 {
		return bad("negative index")
	}
	if e.Kind != KindDataset && (e.Root.Defined() || e.Size != 0 || e.Files != 0 || e.Leaves != 0 || e.Chunks != 0 ||
		e.Commitment != [32]byte{} || e.Profile != "" || e.Times || len(e.Parents) != 0) {
		return bad("has fields of a dataset")
	}
	if e.Kind != KindPolicy && len(e.Predecessor) != 0 {
		return bad("has a predecessor")
	}
	switch e.Kind {
	case KindPolicy:
		if e.Name != "" || e.Previous != -1 {
			return bad("has fields of a dataset")
		}
		if err := e.checkPredecessor(); err != nil {
			return bad("predecessor: %v", err)
		}
		if len(e.Curators) < 1 || len(e.Curators) > MaxCurators {
			return bad("%d curators, must be 1 to %d", len(e.Curators), MaxCurators)
		}
		for i := 1; i < len(e.Curators); i++ {
			if e.Curators[i-1].Compare(e.Curators[i]) >= 0 {
				return bad("curators are not sorted and unique at %v", e.Curators[i])
			}
		}
	case KindDataset:
		if len(e.Curators) != 0 {
			return bad("has curators")
		}
		if e.Policy < 0 {
			return bad("names no policy")
		}
		if err := CheckName(e.Name); err != nil {
			return err
		}
		if err := checkWord("profile", e.Profile, MaxProfile); err != nil {
			return err
		}
		if err := checkCID(e.Root, cid.Raw, cid.DagProtobuf); err != nil {
			return bad("root: %v", err)
		}
		if max(e.Size, e.Files, e.Leaves, e.Chunks) > math.MaxInt64 {
			return bad("a count is above 2^63-1")
		}
		if e.Leaves < 1 || e.Files > e.Leaves {
			return bad("%d leaves for %d files", e.Leaves, e.Files)
		}
		if len(e.Parents) > MaxParents {
			return bad("%d parents, limit %d", len(e.Parents), MaxParents)
		}
		for i, c := range e.Parents {
			if err := checkCID(c, cid.DagCBOR); err != nil {
				return bad("parent: %v", err)
			}
			if slices.Contains(e.Parents[:i], c) {
				return bad("parent %v twice", c)
			}
		}
	case KindRemoval:
		if len(e.Curators) != 0 {
			return bad("has curators")
		}
		if e.Policy < 0 || e.Previous < 0 {
			return bad("names no policy, or no entry that it follows")
		}
		return CheckName(e.Name)
	default:
		return bad("unknown to this version")
	}
	return nil
}

// checkCID accepts CIDv1 with sha2-256 and one of the codecs.
func checkCID(c cid.Cid, codecs ...uint64) error {
	if !c.Defined() {
		return fmt.Errorf("no CID")
	}
	p := c.Prefix()
	if p.Version != 1 || p.MhType != multihash.SHA2_256 || p.MhLength != sha256.Size || !slices.Contains(codecs, p.Codec) {
		return fmt.Errorf("CID %v must be version 1, sha2-256, codec one of %#x", c, codecs)
	}
	return nil
}

// EntryCID returns the CID of an entry's block.
func EntryCID(block []byte) cid.Cid {
	d := sha256.Sum256(block)
	// Encode fails only for codes it does not know.
	mh, err := multihash.Encode(d[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.DagCBOR, mh)
}

// LeafHash returns the RFC 6962 leaf hash of an entry's block.
func LeafHash(block []byte) tlog.Hash { return tlog.RecordHash(block) }

// fields reads the values of a map and keeps the first error.
type fields struct {
	n   datamodel.Node
	err error
}

func (f *fields) get(key string, read func(datamodel.Node) error) {
	if f.err != nil {
		return
	}
	n, err := f.n.LookupByString(key)
	if err == nil {
		err = read(n)
	}
	if err != nil {
		f.err = fmt.Errorf("key %q: %w", key, err)
	}
}

func (f *fields) int(key string) (v int64) {
	f.get(key, func(n datamodel.Node) (err error) {
		if v, err = n.AsInt(); err == nil && v < 0 {
			err = fmt.Errorf("%d is negative", v)
		}
		return err
	})
	return v
}

// index reads a number that may be absent: -1.
func (f *fields) index(key string) int64 {
	if _, err := f.n.LookupByString(key); err != nil {
		return -1
	}
	return f.int(key)
}

func (f *fields) bool(key string) (v bool) {
	f.get(key, func(n datamodel.Node) (err error) { v, err = n.AsBool(); return err })
	return v
}

func (f *fields) string(key string) (v string) {
	f.get(key, func(n datamodel.Node) (err error) { v, err = n.AsString(); return err })
	return v
}

func (f *fields) bytes(key string, dst []byte) {
	f.get(key, func(n datamodel.Node) error { return copyBytes(dst, n) })
}

func (f *fields) link(key string) (c cid.Cid) {
	f.get(key, func(n datamodel.Node) (err error) { c, err = asCID(n); return err })
	return c
}

func (f *fields) list(key string, limit int64, each func(datamodel.Node) error) {
	f.get(key, func(n datamodel.Node) error {
		if n.Kind() != datamodel.Kind_List || n.Length() > limit {
			return fmt.Errorf("must be a list of at most %d", limit)
		}
		for it := n.ListIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err == nil {
				err = each(v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func copyBytes(dst []byte, n datamodel.Node) error {
	b, err := n.AsBytes()
	if err == nil && len(b) != len(dst) {
		err = fmt.Errorf("%d bytes, must be %d", len(b), len(dst))
	}
	copy(dst, b)
	return err
}

func asCID(n datamodel.Node) (cid.Cid, error) {
	l, err := n.AsLink()
	if err != nil {
		return cid.Undef, err
	}
	c, ok := l.(cidlink.Link)
	if !ok {
		return cid.Undef, fmt.Errorf("link %v is not a CID", l)
	}
	return c.Cid, nil
}
