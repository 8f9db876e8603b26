package store

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// Key prefixes of the rows in Badger. The letters are append-only; FORMAT.md
// describes keys and values byte by byte.
const (
	rowChunk      = 'b' // chunk digest -> where its bytes are
	rowNode       = 'd' // node digest -> dag-pb block, as it is or packed
	rowCommitment = 'm' // row name, part -> part of a commitment row, as it is or packed
	rowEntry      = 'e' // entry digest -> dag-cbor block
	rowIndex      = 'i' // entry index -> entry digest
	rowPosition   = 'x' // entry digest -> entry index
	rowTile       = 't' // level, index -> hash tile of the ledger
	rowCheckpoint = 'c' // tree size -> signed checkpoint
	rowPolicy     = 'o' // entry index of each policy entry -> nothing
	rowName       = 'n' // name, version -> entry index
	rowRoot       = 'k' // root digest, entry index -> nothing
	rowPut        = 'q' // entry index -> what the put added
	rowTail       = 'p' // end of the durable part of the packs
	rowAnchor     = 'a' // chain, kind of row, size -> outbox of anchors
	rowRestored   = 'r' // how much of the ledger came without its blocks
	rowTotals     = 's' // running totals of chunks, plain and packed bytes
)

// rowPart is the most of one commitment row, packed or not, that is kept under one key. A row of 256
// leaves with paths of 4 KiB is larger than the key-value contract allows, and one that
// is longer than a block of Badger's tables costs it several times its length in memory.
const rowPart = 12 << 10

func digestKey(prefix byte, d [32]byte) []byte {
	k := make([]byte, 33)
	k[0] = prefix
	copy(k[1:], d[:])
	return k
}

func indexKey(prefix byte, i int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, uint64(i))
}

func tileKey(level int, index int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{rowTile, byte(level)}, uint64(index))
}

func commitmentKey(h dag.Hash, part int) []byte {
	return append(digestKey(rowCommitment, h), byte(part))
}

// maxVersion is the last version that a name can have: every int holds it, and so do rows
// and messages.
const maxVersion = math.MaxInt32

// nameKey orders the versions of a name. No name holds a zero byte. Of numbers that are no
// version it returns ErrNotFound.
func nameKey(name string, version int) ([]byte, error) {
	if version < 1 || version > maxVersion {
		return nil, errNoVersion(name, version)
	}
	return binary.BigEndian.AppendUint32(namePrefix(name), uint32(version)), nil
}

func namePrefix(name string) []byte {
	return append(append([]byte{rowName}, name...), 0)
}

func rootKey(d dag.Digest, entry int64) []byte {
	return binary.BigEndian.AppendUint64(digestKey(rowRoot, d), uint64(entry))
}

func putInt(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

func parseInt(b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("integer row of %d bytes: %w", len(b), ErrCorrupt)
	}
	v := binary.BigEndian.Uint64(b)
	if v > 1<<62 {
		return 0, fmt.Errorf("integer row out of range: %w", ErrCorrupt)
	}
	return int64(v), nil
}

// A chunkRow says where a chunk's plain bytes are: at offset Start of the frame's
// plain bytes.
type chunkRow struct {
	Loc   pack.Loc
	Start uint32
	Size  uint32
}

func (r chunkRow) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.Loc.Pack))
	dst = binary.AppendUvarint(dst, r.Loc.Off)
	dst = binary.AppendUvarint(dst, uint64(r.Loc.Len))
	dst = binary.AppendUvarint(dst, uint64(r.Start))
	return binary.AppendUvarint(dst, uint64(r.Size))
}

func parseChunkRow(b []byte) (chunkRow, error) {
	v, err := uvarints(b, 5)
	if err != nil {
		return chunkRow{}, fmt.Errorf("chunk row: %w", err)
	}
	if v[0] < 1 || v[0] > math.MaxUint32 || v[2] > math.MaxUint32 || v[4] < 1 || v[3] > compress.MaxPlain || v[4] > compress.MaxPlain-v[3] {
		return chunkRow{}, fmt.Errorf("chunk row %d: %w", v, ErrCorrupt)
	}
	return chunkRow{
		Loc:   pack.Loc{Pack: uint32(v[0]), Off: v[1], Len: uint32(v[2])},
		Start: uint32(v[3]), Size: uint32(v[4]),
	}, nil
}

// A tally counts what was added to the packs.
type tally struct {
	Chunks uint64
	Plain  uint64 // bytes before compression
	Packed uint64 // bytes taken in packs, frame headers included
}

func (t *tally) add(o tally) {
	t.Chunks += o.Chunks
	t.Plain += o.Plain
	t.Packed += o.Packed
}

func (t tally) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, t.Chunks)
	dst = binary.AppendUvarint(dst, t.Plain)
	return binary.AppendUvarint(dst, t.Packed)
}

func parseTally(b []byte) (tally, error) {
	v, err := uvarints(b, 3)
	if err != nil {
		return tally{}, fmt.Errorf("totals row: %w", err)
	}
	return tally{Chunks: v[0], Plain: v[1], Packed: v[2]}, nil
}

func uvarints(b []byte, n int) ([]uint64, error) {
	out := make([]uint64, n)
	for i := range out {
		v, w := binary.Uvarint(b)
		if w <= 0 {
			return nil, fmt.Errorf("cut short: %w", ErrCorrupt)
		}
		out[i], b = v, b[w:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes too many: %w", len(b), ErrCorrupt)
	}
	return out, nil
}

// A putRow is what the store remembers of a put besides its entry.
type putRow struct {
	version int
	added   tally
}

func (r putRow) append(dst []byte) []byte {
	return r.added.append(binary.AppendUvarint(dst, uint64(r.version)))
}

func parsePutRow(b []byte) (putRow, error) {
	v, err := uvarints(b, 4)
	if err != nil {
		return putRow{}, fmt.Errorf("put row: %w", err)
	}
	if v[0] < 1 || v[0] > maxVersion {
		return putRow{}, fmt.Errorf("put row of version %d: %w", v[0], ErrCorrupt)
	}
	return putRow{version: int(v[0]), added: tally{Chunks: v[1], Plain: v[2], Packed: v[3]}}, nil
}

func appendTail(dst []byte, t pack.Tail) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(t.Pack)), t.End)
}
