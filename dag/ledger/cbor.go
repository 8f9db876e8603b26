package ledger

import (
	"encoding/binary"
	"math"

	"github.com/ipfs/go-cid"
)

// The major types of CBOR that entries use. Verifying a proof encodes an entry
// twice: going through a tree of IPLD nodes takes ten times as long as this,
// and the tests hold both to the same bytes.
const (
	cborInt    = 0 << 5
	cborBytes  = 2 << 5
	cborText   = 3 << 5
	cborList   = 4 << 5
	cborMap    = 5 << 5
	cborTag    = 6 << 5
	cborSimple = 7 << 5

	cborFalse = 20 // simple values
	cborTrue  = 21
	tagCID    = 42
)

// appendCBOR writes the entry's map, its keys in the order of dag-cbor: the
// shorter first, then bytewise.
func (e *Entry) appendCBOR(b []byte, signed bool) []byte {
	dataset := e.Kind == KindDataset
	keys := uint64(5) // kind, time, curator, version, and the name or the curators
	if dataset {
		keys = 14
	}
	for _, has := range []bool{signed, e.Policy >= 0, e.Previous >= 0, len(e.Predecessor) > 0} {
		if has {
			keys++
		}
	}
	b = appendHead(b, cborMap, keys)
	b = appendHead(appendText(b, "kind"), cborInt, uint64(e.Kind))
	if e.Kind != KindPolicy {
		b = appendText(appendText(b, "name"), e.Name)
	}
	if dataset {
		b = appendLink(appendText(b, "root"), e.Root)
		b = appendHead(appendText(b, "size"), cborInt, e.Size)
	}
	b = appendHead(appendText(b, "time"), cborInt, uint64(e.Time.UnixMilli()))
	if dataset {
		b = appendHead(appendText(b, "files"), cborInt, e.Files)
		times := uint64(cborFalse)
		if e.Times {
			times = cborTrue
		}
		b = appendHead(appendText(b, "times"), cborSimple, times)
		b = appendHead(appendText(b, "chunks"), cborInt, e.Chunks)
		b = appendHead(appendText(b, "leaves"), cborInt, e.Leaves)
	}
	if e.Policy >= 0 {
		b = appendHead(appendText(b, "policy"), cborInt, uint64(e.Policy))
	}
	b = appendBytes(appendText(b, "curator"), e.Curator[:])
	if dataset {
		b = appendHead(appendText(b, "parents"), cborList, uint64(len(e.Parents)))
		for _, c := range e.Parents {
			b = appendLink(b, c)
		}
		b = appendText(appendText(b, "profile"), e.Profile)
	}
	b = appendHead(appendText(b, "version"), cborInt, entryVersion)
	if e.Kind == KindPolicy {
		b = appendHead(appendText(b, "curators"), cborList, uint64(len(e.Curators)))
		for _, k := range e.Curators {
			b = appendBytes(b, k[:])
		}
	}
	if e.Previous >= 0 {
		b = appendHead(appendText(b, "previous"), cborInt, uint64(e.Previous))
	}
	if signed {
		b = appendBytes(appendText(b, "signature"), e.Signature[:])
	}
	if dataset {
		b = appendBytes(appendText(b, "commitment"), e.Commitment[:])
	}
	if len(e.Predecessor) > 0 {
		b = appendBytes(appendText(b, "predecessor"), e.Predecessor)
	}
	return b
}

// appendHead writes a major type and its number in the shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, cborText, uint64(len(s))), s...)
}

func appendBytes(b, v []byte) []byte {
	return append(appendHead(b, cborBytes, uint64(len(v))), v...)
}

// appendLink writes a CID as dag-cbor does: tag 42, a zero byte, the CID.
func appendLink(b []byte, c cid.Cid) []byte {
	s := c.KeyString()
	b = appendHead(appendHead(b, cborTag, tagCID), cborBytes, uint64(1+len(s)))
	return append(append(b, 0), s...)
}
