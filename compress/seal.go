package compress

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/koii-network/scale/compress/zenc"
)

// SealOptions configure a Sealer.
type SealOptions struct {
	Level Level
	// Check opens every zstd frame again and compares, so that an encoder's
	// error is found while the plain bytes are still at hand. It adds a fifth
	// to two thirds to the time of Default and Fast (see the table at Seal).
	Check bool
}

// An encoder appends a frame of codec Zstd of src to dst.
type encoder interface {
	Encode(dst, src []byte) []byte
}

// best encodes at Best.
type best struct{ e *zstd.Encoder }

func (b best) Encode(dst, src []byte) []byte { return b.e.EncodeAll(src, dst) }

// A Sealer seals frames, one goroutine at a time. It keeps its encoders, which
// take 3 MiB, for Fast 1.5 and for Best 40.
type Sealer struct {
	fast  *zenc.Encoder // of single search
	slow  encoder       // the level's own, nil for Fast
	trial bool          // whether fast is tried against slow
	count int           // frames until the next trial
	every int           // frames between the last trial and the next
	lean  bool          // the last trial said fast does as well
	check *Opener       // nil: not checked
	plain []byte        // what check opened
}

// NewSealer returns a Sealer.
func NewSealer(o SealOptions) (*Sealer, error) {
	s := &Sealer{fast: zenc.New(zenc.Single), trial: o.Level == Default}
	switch o.Level {
	case Fast:
	case Default:
		s.slow = zenc.New(zenc.Double)
	case Best:
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(MaxPlain), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithAllLitEntropyCompression(true))
		if err != nil {
			return nil, fmt.Errorf("compress: new encoder: %w", err)
		}
		s.slow = best{e}
	default:
		return nil, fmt.Errorf("compress: unknown level %v", o.Level)
	}
	if o.Check {
		var err error
		if s.check, err = NewOpener(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Seal returns the frame of plain, at most MaxPlain bytes. If the codec is
// Zstd, sealed lies in dst[:0], which need not grow if it has room for
// len(plain) + 1024; if it is Raw, sealed is plain itself, not a copy.
//
// MB/s of one core and ratio for frames of 1 MiB (AMD EPYC, Go 1.26; Best is ten
// times slower, and makes a tenth less of source code):
//
//	               Default       Default, Check
//	Go's source    363   6.13    301
//	JSON lines     352   2.39    248
//	base64         743   1.33    455
//	random bytes  8450   1      9000
func (s *Sealer) Seal(dst, plain []byte) (c Codec, sealed []byte, err error) {
	if len(plain) > MaxPlain {
		return 0, nil, fmt.Errorf("compress: seal %d bytes, the most is %d", len(plain), MaxPlain)
	}
	dst = dst[:0]
	if !uneven(plain) && !s.fast.Repeats(plain, least(plain)) {
		return Raw, plain, nil
	}
	sealed = s.encode(dst, plain)
	if len(sealed) >= len(plain)-least(plain) {
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

// least is what a frame has to save to be worth opening it: 2 %. That
// costs 0.5 to 1 ns a byte each time it is read, where part of a raw
// frame costs no more than reading that part.
func least(plain []byte) int { return len(plain) / 50 }

// Frames between two trials of the fast encoder against the slow one: the first
// after so few, and twice as many each time that the verdict stays.
const (
	trialFirst = 16
	trialMost  = 64
)

// worth is the part of a frame, one in so many bytes, that the slow encoder has to save to
// be taken: a byte saved then costs at most 70 ns of a core.
const worth = 40

// encode encodes plain to dst with the encoder that does it best, after a trial on it if
// one is due. The slow encoder saves 6 % more than the fast one on source code and takes
// 1.13 times as long. On JSON lines it takes 1.3 times as long, for 0.9 % or for nothing.
// The trial takes the whole frame: on lines the difference only shows from a megabyte on.
func (s *Sealer) encode(dst, plain []byte) []byte {
	switch {
	case s.slow == nil:
		return s.fast.Encode(dst, plain)
	case !s.trial:
		return s.slow.Encode(dst, plain)
	case s.count == 0:
		return s.try(dst, plain)
	}
	s.count--
	if s.lean {
		return s.fast.Encode(dst, plain)
	}
	return s.slow.Encode(dst, plain)
}

// try encodes plain with both encoders. That which the last trial spoke against comes
// first: of a frame that nobody wants only the length is.
func (s *Sealer) try(dst, plain []byte) []byte {
	likely, other := s.slow, encoder(s.fast)
	if s.lean {
		likely, other = other, likely
	}
	n := len(other.Encode(dst, plain))
	sealed := likely.Encode(dst, plain)
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
	return other.Encode(dst, plain)
}

// uneven reports whether entropy coding alone could shrink some part of p by
// 2 %. Where it could not, p is searched for repetitions, and most often that is
// all: random bytes are sealed six times as fast as by an encoder.
//
// It looks at one byte in 64, by parts of at least 64 KiB. The sum of squared
// frequencies bounds the entropy from below (Rényi's of order 2): a sum of
// 1.1/256 means that at most 1.7 % can be saved, and random bytes stay under it
// by four standard deviations.
func uneven(p []byte) bool {
	const part, run, step = 64 << 10, 64, 3847 // not near a page, whose first bytes may differ
	// The runs of a part are gathered before they are counted: counted in place, each waits for
	// memory by itself, which takes seven times as long where p is not in a cache.
	var sample [(2*part/step + 1) * run]byte
	for len(p) > 0 {
		b := p
		if len(p) >= 2*part {
			b = p[:part]
		}
		p = p[len(b):]
		n := 0
		for i := 0; i < len(b); i += step {
			n += copy(sample[n:], b[i:min(i+run, len(b))])
		}
		var count [256]int
		for _, c := range sample[:n] {
			count[c]++
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
