// Package dag turns files and trees into content-addressed blocks, and reads
// them back.
//
// It makes two things of the same input. The DAG is UnixFS in dag-pb: the CID
// of its root names the whole tree, modes and links included, and any IPFS
// tool reads it. The commitment is a pair of RFC 6962 Merkle trees, one over
// the chunks of each file and one over the files: it is what proofs of
// inclusion are made of. A [Profile] freezes every choice that decides the
// results, so that the same input gives the same CID and the same commitment
// everywhere and for ever.
//
// Builders write to a [Sink] and readers read from a [Reader]; both are the
// caller's. The package does no other I/O. Whatever it reads is parsed
// strictly and bounded before anything is allocated for it; rows are checked
// against their names here, blocks by the Reader.
//
// SPEC.md describes the formats byte by byte, and testdata holds vectors.
package dag

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

var (
	// ErrPath reports a path, a name or a link target that a tree cannot hold.
	ErrPath = errors.New("not a valid path in a dataset")
	// ErrAttr reports a mode or a time that a node cannot hold.
	ErrAttr = errors.New("not a valid mode or time")
	// ErrOrder reports entries that did not come in canonical order, once
	// each, and after their directories.
	ErrOrder = errors.New("not in canonical order")
	// ErrFormat reports a block, row, leaf or CID that is not well formed, or
	// that contradicts another one. Bytes that hash to their name and are
	// refused with it were made wrong; they did not rot.
	ErrFormat = errors.New("malformed")
	// ErrCorrupt reports a row whose bytes do not match its name, or chunks
	// that do not match the chunk root.
	ErrCorrupt = errors.New("stored bytes do not match their name")
	// ErrNotFound reports that a tree does not have the path asked for.
	ErrNotFound = errors.New("not in the dataset")
	// ErrRange reports an index or byte range that is empty or outside.
	ErrRange = errors.New("out of range")
	// ErrProof reports a proof that does not lead to the root.
	ErrProof = errors.New("proof does not match the root")
)

// MaxBlock is the largest block, chunk or node, in bytes. It is what Bitswap
// and the IPFS tools take.
const MaxBlock = 2 << 20

// A Digest is the SHA-256 of a block's plain bytes: what its CID names.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// A Hash is a node of one of the commitment's Merkle trees, or the name of a
// row of one. It is never the digest of a block.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// EmptyDigest names the empty block, the content of every empty file. A
// Reader need not have it stored.
var EmptyDigest Digest = sha256.Sum256(nil)

// RawCID returns the CID of a chunk.
func RawCID(d Digest) cid.Cid { return makeCID(cid.Raw, d) }

// NodeCID returns the CID of a dag-pb node.
func NodeCID(d Digest) cid.Cid { return makeCID(cid.DagProtobuf, d) }

// A CID as it appears in links and elsewhere in binary: version 1, codec,
// sha2-256, length, digest. All four numbers take one byte.
const cidLen = 4 + sha256.Size

func makeCID(codec byte, d Digest) cid.Cid {
	var b [cidLen]byte
	b[0], b[1], b[2], b[3] = 1, codec, multihash.SHA2_256, sha256.Size
	copy(b[4:], d[:])
	_, c, err := cid.CidFromBytes(b[:])
	if err != nil {
		panic(err) // the bytes above are a CID
	}
	return c
}

// splitCID takes apart what makeCID made.
func splitCID[B []byte | string](b B) (codec byte, d Digest, ok bool) {
	if len(b) != cidLen || b[0] != 1 || b[2] != multihash.SHA2_256 || b[3] != sha256.Size {
		return 0, d, false
	}
	copy(d[:], b[4:])
	return b[1], d, true
}

// DigestOf returns the digest that c names. It refuses any CID but version 1
// with sha2-256 and the codecs raw, dag-pb and dag-cbor.
func DigestOf(c cid.Cid) (Digest, error) {
	codec, d, ok := splitCID(c.KeyString())
	if !ok || codec != cid.Raw && codec != cid.DagProtobuf && codec != cid.DagCBOR {
		return d, fmt.Errorf("CID %v is not one of ours: %w", c, ErrFormat)
	}
	return d, nil
}

// A Kind is the kind of a leaf or of an entry in a tree. The numbers are part
// of the commitment and never change.
type Kind uint8

const (
	KindFile Kind = 1
	KindLink Kind = 2
	KindDir  Kind = 3 // as a leaf, only an empty one
)

func (k Kind) String() string {
	switch k {
	case KindFile:
		return "file"
	case KindLink:
		return "link"
	case KindDir:
		return "dir"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Modes that are not written into the DAG because readers assume them. Links
// have no mode of their own.
const (
	DefaultFileMode = 0o644
	DefaultDirMode  = 0o755
	linkMode        = 0o777
)

// Attr is what a tree records of an entry besides its content. The commitment
// does not cover it, the root CID does.
type Attr struct {
	Mode  uint32    // permission bits, 07777
	Mtime time.Time // zero: not recorded
}

// The years that the UnixFS specification allows for times.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

func (a Attr) check() error {
	if a.Mode&^0o7777 != 0 {
		return fmt.Errorf("mode %#o has more than permission bits: %w", a.Mode, ErrAttr)
	}
	if s := a.Mtime.Unix(); s < minTime || s > maxTime {
		return fmt.Errorf("time %v: %w", a.Mtime, ErrAttr)
	}
	return nil
}

// A Sink receives what the builders make. The bytes are valid only during the
// call. The same block or row may come more than once. An error ends the
// build and is returned by it.
type Sink interface {
	// Node receives a dag-pb block.
	Node(d Digest, block []byte) error
	// Row receives a row of a commitment tree, at most MaxRow bytes.
	Row(h Hash, row []byte) error
}

// discard is the Sink of who wants only the names.
type discard struct{}

func (discard) Node(Digest, []byte) error { return nil }
func (discard) Row(Hash, []byte) error    { return nil }

// A Reader gives back what a Sink was given. The bytes it returns must not
// change afterwards. Every function of this package that takes a Reader calls
// it from the goroutine of its caller only.
type Reader interface {
	// Node returns the dag-pb block with that digest. The implementation has
	// checked that the bytes have that digest.
	Node(ctx context.Context, d Digest) ([]byte, error)
	// Row returns the row of that name. This package checks it.
	Row(ctx context.Context, h Hash) ([]byte, error)
}
