package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/koii-network/scale/compress"
)

// Frames, by our own reading of pack/FORMAT.md. Integers are big-endian.
const (
	packMagic  = "SCALEpak\x00\x00\x00\x01"
	packHeader = 24
	frameMagic = "\xf5\xca\x1e\x5a\x01"
	frameFixed = 28
	chunkEntry = 36
	maxChunks  = 16384
	minFrame   = frameFixed + chunkEntry + 1
	maxFrame   = frameFixed + maxChunks*chunkEntry + compress.MaxPlain
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A damage says what is wrong with bytes of a pack. Other errors are of the disk.
type damage string

func (d damage) Error() string { return string(d) }

func isDamage(err error) bool { return errors.As(err, new(damage)) }

// A packFile is a pack open for reading.
type packFile struct {
	io.ReaderAt
	io.Closer
	number uint32
	end    int64          // nothing is read from here on
	users  sync.WaitGroup // frames that are being looked at
}

// read reads n bytes at off, or fewer at the end.
func (p *packFile) read(off int64, n int, buf []byte) ([]byte, error) {
	n = int(max(0, min(int64(n), p.end-off)))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	got, err := p.ReadAt(buf[:n], off)
	if err == io.EOF {
		err = nil
	}
	return buf[:got], err
}

// checkStart checks the first bytes of the pack.
func (p *packFile) checkStart() error {
	b, err := p.read(0, packHeader, nil)
	if err != nil {
		return err
	}
	want := binary.BigEndian.AppendUint32([]byte(packMagic), p.number)
	want = append(want, 0, 0, 0, 0)
	want = binary.BigEndian.AppendUint32(want, crc32.Checksum(want, castagnoli))
	if !bytes.Equal(b, want) {
		return damage(fmt.Sprintf("its first bytes are not those of pack %d", p.number))
	}
	return nil
}

// A frame is a frame's header and where it is.
type frame struct {
	file          *packFile
	off           int64
	codec         compress.Codec
	plain, sealed uint32
	sum           uint32 // of the body
	chunks        []frameChunk
}

type frameChunk struct {
	digest hash
	size   uint32
}

func (f *frame) headerLen() int64 { return frameFixed + int64(len(f.chunks))*chunkEntry }
func (f *frame) length() int64    { return f.headerLen() + int64(f.sealed) }

// readHeader reads the header at off into f, whose table is used again. The
// error is a damage when there is none.
func (p *packFile) readHeader(f *frame, off int64, buf []byte) ([]byte, error) {
	const guess = 4 << 10 // holds the header of most frames
	b, err := p.read(off, guess, buf)
	if err != nil {
		return buf, err
	}
	buf = b
	be := binary.BigEndian
	if len(b) < frameFixed || string(b[:5]) != frameMagic || b[6] != 0 || b[7] != 0 {
		return buf, damage("no frame begins there")
	}
	*f = frame{
		file: p, off: off, chunks: f.chunks[:0],
		codec: compress.Codec(b[5]), plain: be.Uint32(b[8:]), sealed: be.Uint32(b[12:]), sum: be.Uint32(b[20:]),
	}
	n, headerSum := be.Uint32(b[16:]), be.Uint32(b[24:])
	if n == 0 || n > maxChunks || f.plain > compress.MaxPlain || f.sealed == 0 || f.sealed > f.plain {
		return buf, damage("the frame's header has impossible sizes")
	}
	if total := frameFixed + int(n)*chunkEntry; total > len(b) {
		if b, err = p.read(off, total, buf); err != nil {
			return buf, err
		}
		if buf = b; len(b) < total {
			return buf, damage("the frame's header is cut short")
		}
	} else {
		b = b[:total]
	}
	place := be.AppendUint64(be.AppendUint32(nil, p.number), uint64(off))
	sum := crc32.Update(crc32.Checksum(place, castagnoli), castagnoli, b[:frameFixed-4])
	if crc32.Update(sum, castagnoli, b[frameFixed:]) != headerSum {
		return buf, damage("the frame's header does not match its checksum")
	}
	plain := uint64(0)
	for t := b[frameFixed:]; len(t) > 0; t = t[chunkEntry:] {
		c := frameChunk{digest: hash(t[:sha256.Size]), size: be.Uint32(t[sha256.Size:])}
		f.chunks = append(f.chunks, c)
		plain += uint64(c.size)
		if c.size == 0 {
			plain = 1 << 63
		}
	}
	if plain != uint64(f.plain) {
		return buf, damage("the frame's chunks do not add up")
	}
	return buf, nil
}

// search returns where the next sound header is from off on, or the end.
func (p *packFile) search(off int64) (int64, error) {
	var window, header []byte
	var f frame
	var err error
	for off < p.end {
		if window, err = p.read(off, 1<<20, window); err != nil {
			return 0, err
		}
		i := bytes.Index(window, []byte(frameMagic))
		if i < 0 {
			if len(window) < len(frameMagic) {
				return p.end, nil
			}
			off += int64(len(window) - len(frameMagic) + 1) // it may straddle the windows
			continue
		}
		off += int64(i)
		if header, err = p.readHeader(&f, off, header); err == nil {
			return off, nil
		} else if !isDamage(err) {
			return 0, err
		}
		off++
	}
	return p.end, nil
}

// open reads, decodes and hashes the frame's body. It returns the chunks that
// are not what the header says, or an error when none can be read. The buffers
// are scratch.
func (f *frame) open(o *compress.Opener, b *buffers) (bad []hash, err error) {
	if b.sealed, err = f.file.read(f.off+f.headerLen(), int(f.sealed), b.sealed); err != nil {
		return nil, err
	}
	if len(b.sealed) != int(f.sealed) {
		return nil, damage("the frame is cut short")
	}
	if crc32.Checksum(b.sealed, castagnoli) != f.sum {
		return nil, damage("the frame does not match its checksum")
	}
	plain := b.sealed
	if f.codec != compress.Raw || f.sealed != f.plain { // else it is as it was
		if b.plain, err = o.Open(b.plain[:0], f.codec, b.sealed, int(f.plain)); err != nil {
			return nil, damage(err.Error())
		}
		plain = b.plain
	}
	at := uint32(0)
	for _, c := range f.chunks {
		if sha256.Sum256(plain[at:at+c.size]) != c.digest {
			bad = append(bad, c.digest)
		}
		at += c.size
	}
	return bad, nil
}

type buffers struct{ sealed, plain, key, row []byte }
