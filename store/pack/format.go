package pack

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/koii-network/scale/compress"
)

// The layout that FORMAT.md specifies. All integers are big-endian.
const (
	fileMagic   = "SCALEpak"
	fileVersion = 1
	fileHeader  = 24 // bytes of a pack before its first frame

	frameMagic   = 0xf5ca1e5a
	frameVersion = 1
	frameFixed   = 28 // bytes of a frame header before its table
	chunkEntry   = 36

	maxHeader = frameFixed + MaxChunks*chunkEntry
	minFrame  = frameFixed + chunkEntry + 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFileHeader appends the first bytes of pack number n.
func appendFileHeader(b []byte, n uint32) []byte {
	b = append(b, fileMagic...)
	b = binary.BigEndian.AppendUint32(b, fileVersion)
	b = binary.BigEndian.AppendUint32(b, n)
	b = binary.BigEndian.AppendUint32(b, 0)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[len(b)-20:], castagnoli))
}

// checkFileHeader says whether b begins as pack number n does.
func checkFileHeader(b []byte, n uint32) error {
	if len(b) < fileHeader {
		return fmt.Errorf("pack %d has no header: %w", n, ErrCorrupt)
	}
	want := appendFileHeader(make([]byte, 0, fileHeader), n)
	if !slices.Equal(b[:fileHeader], want) {
		return fmt.Errorf("pack %d has the header %x, want %x: %w", n, b[:fileHeader], want, ErrCorrupt)
	}
	return nil
}

// check says whether the frame is within the limits that parsing enforces.
func (f *Frame) check() error {
	var sum uint64
	for _, c := range f.Chunks {
		if c.Size == 0 {
			return fmt.Errorf("empty chunk %x: %w", c.Digest, ErrTooLarge)
		}
		sum += uint64(c.Size)
	}
	switch {
	case len(f.Chunks) == 0 || len(f.Chunks) > MaxChunks:
		return fmt.Errorf("%d chunks: %w", len(f.Chunks), ErrTooLarge)
	case f.PlainSize > compress.MaxPlain || sum != uint64(f.PlainSize):
		return fmt.Errorf("%d plain bytes in chunks of %d: %w", f.PlainSize, sum, ErrTooLarge)
	case len(f.Sealed) == 0 || len(f.Sealed) > int(f.PlainSize):
		return fmt.Errorf("%d sealed bytes of %d plain ones: %w", len(f.Sealed), f.PlainSize, ErrTooLarge)
	}
	return nil
}

// seed begins the checksum of a header with its place, so that a frame is
// valid nowhere else: not after a misdirected write, and not inside the body of
// another frame that stores a pack.
func seed(pack uint32, off uint64) uint32 {
	var b [12]byte
	binary.BigEndian.PutUint32(b[:], pack)
	binary.BigEndian.PutUint64(b[4:], off)
	return crc32.Checksum(b[:], castagnoli)
}

// appendHeader appends the header that f has at off of pack.
func appendHeader(b []byte, f *Frame, pack uint32, off uint64) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, frameMagic)
	b = append(b, frameVersion, byte(f.Codec), 0, 0)
	b = binary.BigEndian.AppendUint32(b, f.PlainSize)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Sealed)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Chunks)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(f.Sealed, castagnoli))
	sumAt := len(b)
	b = append(b, 0, 0, 0, 0)
	for i := range f.Chunks {
		b = append(b, f.Chunks[i].Digest[:]...)
		b = binary.BigEndian.AppendUint32(b, f.Chunks[i].Size)
	}
	binary.BigEndian.PutUint32(b[sumAt:], headerSum(b[start:], pack, off))
	return b
}

// headerSum is the checksum of a whole header, its own field taken out.
func headerSum(b []byte, pack uint32, off uint64) uint32 {
	sum := crc32.Update(seed(pack, off), castagnoli, b[:frameFixed-4])
	return crc32.Update(sum, castagnoli, b[frameFixed:])
}

// A prefix is the fixed part of a frame header.
type prefix struct {
	codec                compress.Codec
	plain, sealed, count uint32
	bodySum, headerSum   uint32
}

func (p *prefix) headerLen() int { return frameFixed + int(p.count)*chunkEntry }
func (p *prefix) frameLen() int  { return p.headerLen() + int(p.sealed) }

// parsePrefix reads the fixed part of a header, of which b has all bytes, and
// bounds what it declares.
func parsePrefix(b []byte) (prefix, error) {
	be := binary.BigEndian
	p := prefix{
		codec: compress.Codec(b[5]),
		plain: be.Uint32(b[8:]), sealed: be.Uint32(b[12:]), count: be.Uint32(b[16:]),
		bodySum: be.Uint32(b[20:]), headerSum: be.Uint32(b[24:]),
	}
	if be.Uint32(b) != frameMagic || b[4] != frameVersion || b[6] != 0 || b[7] != 0 ||
		p.plain > compress.MaxPlain || p.sealed == 0 || p.sealed > p.plain || p.count == 0 || p.count > MaxChunks {
		return prefix{}, fmt.Errorf("no frame header: %w", ErrCorrupt)
	}
	return p, nil
}

// parseHeader reads the header of the frame at off of pack from the start of
// b, which may hold more or less.
func parseHeader(b []byte, pack uint32, off uint64) (prefix, []Chunk, error) {
	if len(b) < frameFixed {
		return prefix{}, nil, fmt.Errorf("frame header cut short: %w", ErrCorrupt)
	}
	p, err := parsePrefix(b)
	if err != nil {
		return prefix{}, nil, err
	}
	if len(b) < p.headerLen() {
		return prefix{}, nil, fmt.Errorf("frame header cut short: %w", ErrCorrupt)
	}
	b = b[:p.headerLen()]
	if headerSum(b, pack, off) != p.headerSum {
		return prefix{}, nil, fmt.Errorf("frame header does not match its checksum: %w", ErrCorrupt)
	}
	chunks := make([]Chunk, p.count)
	var sum uint64
	for i, table := 0, b[frameFixed:]; i < len(chunks); i, table = i+1, table[chunkEntry:] {
		c := &chunks[i]
		copy(c.Digest[:], table)
		c.Size = binary.BigEndian.Uint32(table[32:])
		if c.Size == 0 {
			return prefix{}, nil, fmt.Errorf("frame with an empty chunk: %w", ErrCorrupt)
		}
		sum += uint64(c.Size)
	}
	if sum != uint64(p.plain) {
		return prefix{}, nil, fmt.Errorf("frame of %d bytes with chunks of %d: %w", p.plain, sum, ErrCorrupt)
	}
	return p, chunks, nil
}

// parseFrame reads the frame at off of pack, which is all of b.
func parseFrame(b []byte, pack uint32, off uint64) (Frame, error) {
	p, chunks, err := parseHeader(b, pack, off)
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Codec: p.codec, PlainSize: p.plain, Chunks: chunks}
	if len(b) != p.frameLen() {
		return f, fmt.Errorf("frame of %d bytes in a place of %d: %w", p.frameLen(), len(b), ErrCorrupt)
	}
	f.Sealed = b[p.headerLen():]
	if crc32.Checksum(f.Sealed, castagnoli) != p.bodySum {
		return f, fmt.Errorf("frame body does not match its checksum: %w", ErrCorrupt)
	}
	return f, nil
}
