package compress

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// SealOptions configure a Sealer.
type SealOptions struct {
	Level Level
	// Check opens every zstd frame again and compares, so that an encoder's
	// error is found while the plain bytes are still at hand. It adds a
	// quarter to the time of Default and Fast (see the table at Seal).
	Check bool
}

// A Sealer seals frames, one goroutine at a time. It keeps its encoders, which
// take 12 MiB, for Fast 10 and for Best 44.
type Sealer struct {
	scan  *zstd.Encoder // fastest; entropy coding only where there are matches
	fast  *zstd.Encoder // fastest
	slow  *zstd.Encoder // the level's own, nil for Fast
	trial bool          // whether fast is tried against slow
	count int           // frames until the next trial
	every int           // frames between the last trial and the next
	lean  bool          // the last trial said fast does as well
	check *Opener       // nil: not checked
	plain []byte        // what check opened
}

// NewSealer returns a Sealer.
func NewSealer(o SealOptions) (*Sealer, error) {
	s := &Sealer{trial: o.Level == Default}
	var err error
	if s.scan, err = newEncoder(zstd.SpeedFastest, false); err != nil {
		return nil, err
	}
	if s.fast, err = newEncoder(zstd.SpeedFastest, true); err != nil {
		return nil, err
	}
	switch o.Level {
	case Fast:
	case Default:
		s.slow, err = newEncoder(zstd.SpeedDefault, true)
	case Best:
		s.slow, err = newEncoder(zstd.SpeedBestCompression, true)
	default:
		err = fmt.Errorf("compress: unknown level %v", o.Level)
	}
	if err != nil {
		return nil, err
	}
	if o.Check {
		if s.check, err = NewOpener(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// newEncoder returns an encoder that makes frames as Zstd promises them.
// Literals says whether blocks without matches are entropy coded.
func newEncoder(l zstd.EncoderLevel, literals bool) (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(MaxPlain), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(l), zstd.WithAllLitEntropyCompression(literals))
	if err != nil {
		return nil, fmt.Errorf("compress: new encoder: %w", err)
	}
	return e, nil
}

// Seal returns the frame of plain, at most MaxPlain bytes. If the codec is
// Zstd, sealed lies in dst[:0], which need not grow if it has room for
// len(plain) + 1024; if it is Raw, sealed is plain itself, not a copy.
//
// MB/s of one core and ratio for frames of 1 MiB (AMD EPYC, Go 1.26):
//
//	               Fast          Default       Best          Default, Check
//	linux source   397   6.35    304   6.87     40   8.04    248
//	JSON lines     332   2.35    314   2.35     14   2.41    251
//	ELF binaries   262   2.28    153   2.45     16   2.64    117
//	base64         722   1.35    740   1.35    165   1.33    446
//	random bytes  5400   1      5800   1      5900   1      5800
func (s *Sealer) Seal(dst, plain []byte) (c Codec, sealed []byte, err error) {
	if len(plain) > MaxPlain {
		return 0, nil, fmt.Errorf("compress: seal %d bytes, the most is %d", len(plain), MaxPlain)
	}
	dst = dst[:0]
	if uneven(plain) {
		sealed = s.encode(dst, plain)
	} else {
		switch {
		case !s.repeats(dst, plain):
			return Raw, plain, nil
		case s.slow != nil:
			sealed = s.encode(dst, plain)
		default:
			sealed = s.scan.EncodeAll(plain, dst)
		}
	}
	if !shrunk(sealed, plain) {
		return Raw, plain, nil
	}
	if s.check != nil {
		s.plain, err = s.check.Open(s.plain[:0], Zstd, sealed, len(plain))
		if err != nil {
			return 0, nil, fmt.Errorf("compress: open what was just sealed: %w", err)
		}
		if !bytes.Equal(s.plain, plain) {
			return 0, nil, fmt.Errorf("compress: what was just sealed opens to other bytes: %w", ErrCorrupt)
		}
	}
	return Zstd, sealed, nil
}

// Of a frame that is not uneven so many pieces of that size are searched for repetitions.
const (
	samplePieces = 4
	sampleSize   = 256 << 10
)

// repeats reports whether some piece of plain, which is not uneven, repeats itself: only
// that could shrink it. Frames of up to all pieces together are searched whole. To search
// all of a larger one takes a twelfth of a put's CPU where there is nothing to find.
func (s *Sealer) repeats(dst, plain []byte) bool {
	if len(plain) <= samplePieces*sampleSize {
		return shrunk(s.scan.EncodeAll(plain, dst), plain)
	}
	for i := range samplePieces {
		at := (len(plain) - sampleSize) / (samplePieces - 1) * i
		piece := plain[at : at+sampleSize]
		if shrunk(s.scan.EncodeAll(piece, dst), piece) {
			return true
		}
	}
	return false
}

// shrunk reports whether a frame saves the 2 % that make it worth opening it.
// That costs 0.5 to 1 ns a byte each time it is read, where part of a raw
// frame costs no more than reading that part.
func shrunk(sealed, plain []byte) bool { return len(sealed) < len(plain)-len(plain)/50 }

// Frames between two trials of the fastest encoder against the default one: the first
// after so few, and twice as many each time that the verdict stays.
const (
	trialFirst = 16
	trialMost  = 64
)

// worth is the part of a frame, one in so many bytes, that the default encoder has to save
// to be taken: a byte saved then costs at most 100 ns of a core, and not 200 as on lines.
const worth = 25

// encode encodes plain to dst with the encoder that does it best, after a trial on it if
// one is due. The default encoder saves 7 to 9 % more than the fastest on source code and
// takes 1.3 times as long. On JSON lines it takes 1.6 times as long, for 2.7 % or for
// nothing. The trial takes the whole frame: on lines the difference only shows from a
// megabyte on.
func (s *Sealer) encode(dst, plain []byte) []byte {
	switch {
	case s.slow == nil:
		return s.fast.EncodeAll(plain, dst)
	case !s.trial:
		return s.slow.EncodeAll(plain, dst)
	case s.count == 0:
		return s.try(dst, plain)
	}
	s.count--
	if s.lean {
		return s.fast.EncodeAll(plain, dst)
	}
	return s.slow.EncodeAll(plain, dst)
}

// try encodes plain with both encoders. That which the last trial spoke against comes
// first: of a frame that nobody wants only the length is.
func (s *Sealer) try(dst, plain []byte) []byte {
	likely, other := s.slow, s.fast
	if s.lean {
		likely, other = other, likely
	}
	n := len(other.EncodeAll(plain, dst))
	sealed := likely.EncodeAll(plain, dst)
	slow, fast := len(sealed), n
	if s.lean {
		slow, fast = fast, slow
	}
	lean := fast <= slow+slow/worth
	if lean == s.lean {
		s.every = max(trialFirst, min(2*s.every, trialMost))
		s.count = s.every - 1
		return sealed
	}
	s.lean, s.every, s.count = lean, trialFirst, trialFirst-1
	return other.EncodeAll(plain, dst)
}

// uneven reports whether entropy coding alone could shrink some part of p by
// 2 %. Where it could not, the fastest encoder need not try: that triples its
// speed on random bytes, and what it then finds nothing in is spared the slow
// encoders.
//
// It looks at one byte in 64, by parts of at least 64 KiB. The sum of squared
// frequencies bounds the entropy from below (Rényi's of order 2): a sum of
// 1.1/256 means that at most 1.7 % can be saved, and random bytes stay under it
// by four standard deviations.
func uneven(p []byte) bool {
	const part, run, step = 64 << 10, 64, 3847 // not near a page, whose first bytes may differ
	for len(p) > 0 {
		b := p
		if len(p) >= 2*part {
			b = p[:part]
		}
		p = p[len(b):]
		var count [256]int
		n := 0
		for i := 0; i < len(b); i += step {
			r := b[i:min(i+run, len(b))]
			n += len(r)
			for _, c := range r {
				count[c]++
			}
		}
		pairs := 0 // n*(n-1)/256 are expected
		for _, c := range count {
			pairs += c * (c - 1)
		}
		if pairs*2560 > n*(n-1)*11 {
			return true
		}
	}
	return false
}
