package dag

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/ipfs/go-cid"
)

// The encoding of dag-pb nodes and of the UnixFS message in them, written by
// hand because it runs for every chunk and file. Tests hold it against boxo.
//
// All field numbers are below 16, so a tag is one byte: number<<3 | wire type,
// which is 0 for numbers, 2 for bytes and messages, 5 for four fixed bytes.
const (
	nodeData  = 1<<3 | 2
	nodeLinks = 2<<3 | 2

	linkHash  = 1<<3 | 2
	linkName  = 2<<3 | 2
	linkTsize = 3 << 3

	fsType      = 1 << 3
	fsData      = 2<<3 | 2
	fsFilesize  = 3 << 3
	fsBlocksize = 4 << 3
	fsHashType  = 5 << 3
	fsFanout    = 6 << 3
	fsMode      = 7 << 3
	fsMtime     = 8<<3 | 2

	timeSeconds = 1 << 3
	timeNanos   = 2<<3 | 5
)

// The values of fsType that occur.
const (
	typeDirectory = 1
	typeFile      = 2
	typeSymlink   = 4
	typeHAMT      = 5
)

// Every HAMT node says how it is made: 64 bits of MurmurHash3 x64, 256 ways.
const (
	hamtHash  = 0x22
	hamtWidth = 256
)

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// A link is one link of a dag-pb node.
type link struct {
	codec  byte
	digest Digest
	tsize  uint64 // bytes of all blocks below, as often as they are linked
}

func (l link) cid() cid.Cid { return makeCID(l.codec, l.digest) }

// innerSize is the length of the message that appendLink makes, without its
// own tag and length.
func (l link) innerSize(name int) int {
	return 2 + cidLen + 1 + uvarintLen(uint64(name)) + name + 1 + uvarintLen(l.tsize)
}

// size is the number of bytes that appendLink appends.
func (l link) size(name int) int {
	n := l.innerSize(name)
	return 1 + uvarintLen(uint64(n)) + n
}

// appendLink appends the link under the name prefix+name.
func appendLink(b []byte, l link, prefix string, name []byte) []byte {
	n := len(prefix) + len(name)
	b = append(b, nodeLinks)
	b = binary.AppendUvarint(b, uint64(l.innerSize(n)))
	b = append(b, linkHash, cidLen, 1, l.codec, 0x12, byte(len(l.digest)))
	b = append(b, l.digest[:]...)
	b = append(b, linkName)
	b = binary.AppendUvarint(b, uint64(n))
	b = append(b, prefix...)
	b = append(b, name...)
	b = append(b, linkTsize)
	return binary.AppendUvarint(b, l.tsize)
}

// appendData ends a node, whose links are already in b, with its UnixFS
// message.
func appendData(b, message []byte) []byte {
	b = append(b, nodeData)
	b = binary.AppendUvarint(b, uint64(len(message)))
	return append(b, message...)
}

// dataSize is the number of bytes that appendData appends.
func dataSize(message int) int { return 1 + uvarintLen(uint64(message)) + message }

// appendAttr appends mode and time; the mode only if it is not the one that
// is assumed without it.
func appendAttr(b []byte, a Attr, assumed uint32) []byte {
	if a.Mode != assumed {
		b = append(b, fsMode)
		b = binary.AppendUvarint(b, uint64(a.Mode))
	}
	if a.Mtime.IsZero() {
		return b
	}
	sec, nsec := uint64(a.Mtime.Unix()), uint32(a.Mtime.Nanosecond())
	n := 1 + uvarintLen(sec)
	if nsec != 0 {
		n += 1 + 4
	}
	b = append(b, fsMtime, byte(n), timeSeconds)
	b = binary.AppendUvarint(b, sec)
	if nsec != 0 {
		b = append(b, timeNanos)
		b = binary.LittleEndian.AppendUint32(b, nsec)
	}
	return b
}

func fileMessage(b []byte, size uint64, blocksizes []byte) []byte {
	b = append(b, fsType, typeFile, fsFilesize)
	b = binary.AppendUvarint(b, size)
	return append(b, blocksizes...)
}

func appendBlocksize(b []byte, size uint64) []byte {
	return binary.AppendUvarint(append(b, fsBlocksize), size)
}

func dirMessage(b []byte, a Attr) []byte {
	return appendAttr(append(b, fsType, typeDirectory), a, DefaultDirMode)
}

func linkMessage(b []byte, target string, mtime time.Time) []byte {
	b = append(b, fsType, typeSymlink, fsData)
	b = binary.AppendUvarint(b, uint64(len(target)))
	b = append(b, target...)
	return appendAttr(b, Attr{Mode: linkMode, Mtime: mtime}, linkMode)
}

// hamtMessage is that of a HAMT node below the root, or with attributes of
// the root itself. The bitfield is a big-endian number.
func hamtMessage(b []byte, bitfield *[hamtWidth / 8]byte, a Attr) []byte {
	bits := bitfield[:]
	for bits[0] == 0 {
		bits = bits[1:]
	}
	b = append(b, fsType, typeHAMT, fsData, byte(len(bits)))
	b = append(b, bits...)
	b = append(b, fsHashType, hamtHash, fsFanout)
	b = binary.AppendUvarint(b, hamtWidth)
	return appendAttr(b, a, DefaultDirMode)
}
