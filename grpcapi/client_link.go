package grpcapi

import (
	"fmt"
	"slices"
	"sync"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

// A link is what the uploads of a client have seen of its connection. A node keeps frames
// whole or not at all, so that what is under way is lost with a connection: after a break
// calls go one at a time and are short, and grow again while they are answered.
type link struct {
	mu       sync.Mutex
	most     int // plain bytes of a call that goes alone; 0: calls go side by side
	answered int // plain bytes, since most has changed
	breaks   int
}

const (
	// shortestCall is the least that calls are made for. It has room for a chunk of any
	// profile, of which frames are made.
	shortestCall = 128 << 10
	// A break makes calls so many times shorter, and so many of them that are answered
	// make them twice as long. A connection that breaks each time after the same number of
	// bytes then loses about a tenth of them.
	linkShorter = 4
	linkSteady  = 8
)

// bears returns how many plain bytes a call is to have that goes alone, or 0 if calls may go
// side by side; and a number for broke.
func (l *link) bears() (most, breaks int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.most, l.breaks
}

// broke says that the connection of a call has broken, before which bears had returned
// breaks: calls that were side by side break together, and that counts once.
func (l *link) broke(breaks int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if breaks != l.breaks {
		return
	}
	if l.most == 0 {
		l.most = compress.MaxPlain
	}
	l.most = max(l.most/linkShorter, shortestCall)
	l.answered = 0
	l.breaks++
}

// held says that a call with so many plain bytes was answered.
func (l *link) held(plain int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answered += plain; l.most == 0 || l.answered < linkSteady*l.most {
		return
	}
	l.answered = 0
	if l.most *= 2; l.most > compress.MaxPlain {
		l.most = 0
	}
}

// A lateFrame is a frame that goes alone.
type lateFrame struct {
	pack.Frame
	tried bool // some of it may have arrived
}

// alone sends frames while nobody else does, as much in a call as the link bears. failed is
// what became of the call that had them, if there was one.
func (u *uploader) alone(frames []lateFrame, into *uploadTally, failed error) error {
	p := patience{c: u.c}
	if failed != nil {
		if err := p.again(u.ctx, failed); err != nil {
			return err
		}
	}
	u.turn.Lock()
	defer u.turn.Unlock()
	for len(frames) > 0 {
		parts, err := u.missing(frames[0], into, &p)
		if err != nil {
			return err
		}
		if frames = append(parts, frames[1:]...); len(parts) == 0 {
			continue
		}
		a := &uploadCall{u: u, into: into}
		a.begin()
		a.transmit(frames[0].Frame)
		if err := a.answer(); err == nil {
			frames = frames[1:]
			p.progress()
		} else if err := p.again(u.ctx, err); err != nil {
			return err
		} else {
			frames[0].tried = true
		}
	}
	return nil
}

// missing returns frames of those chunks of a frame that the node lacks, each with as much
// as the link bears.
func (u *uploader) missing(f lateFrame, into *uploadTally, p *patience) ([]lateFrame, error) {
	known := make([]bool, len(f.Chunks))
	if f.tried {
		chunks := make([]ingest.Chunk, len(f.Chunks))
		for i, c := range f.Chunks {
			chunks[i] = ingest.Chunk{Digest: c.Digest, Size: c.Size}
		}
		if err := (lookup{u.c}).Known(u.ctx, chunks, known); err != nil {
			return nil, err
		}
		arrived := uint64(0)
		for i, k := range known {
			if k {
				arrived += uint64(chunks[i].Size)
			}
		}
		if arrived > 0 {
			p.progress()
		}
		// What came in before the connection broke was not in any answer.
		into.new.Add(arrived)
		into.stored.Add(arrived * uint64(len(f.Sealed)) / uint64(f.PlainSize))
	}
	most, _ := u.c.link.bears()
	if most == 0 {
		most = compress.MaxPlain
	}
	return u.cut(f.Frame, known, most)
}

// cut returns frames of those chunks of a frame that are not known, each of at most so many
// plain bytes or of one chunk.
func (u *uploader) cut(f pack.Frame, known []bool, most int) ([]lateFrame, error) {
	switch {
	case !slices.Contains(known, false):
		return nil, nil
	case !slices.Contains(known, true) && int(f.PlainSize) <= most:
		return []lateFrame{{Frame: f}}, nil
	}
	if u.opener == nil {
		var err error
		if u.sealer, err = compress.NewSealer(compress.SealOptions{Level: u.c.opt.Level}); err != nil {
			return nil, err
		}
		if u.opener, err = compress.NewOpener(); err != nil {
			return nil, err
		}
	}
	plain, err := u.opener.Open(nil, f.Codec, f.Sealed, int(f.PlainSize))
	if err != nil {
		return nil, fmt.Errorf("cut a frame: %w", err)
	}
	var out []lateFrame
	var part []byte // a new one for each frame, which may keep it
	var chunks []pack.Chunk
	seal := func() error {
		codec, sealed, err := u.sealer.Seal(nil, part)
		if err != nil {
			return fmt.Errorf("seal frame: %w", err)
		}
		out = append(out, lateFrame{Frame: pack.Frame{Codec: codec, PlainSize: uint32(len(part)), Chunks: chunks, Sealed: sealed}})
		part, chunks = nil, nil
		return nil
	}
	for i, c := range f.Chunks {
		data := plain[:c.Size]
		plain = plain[c.Size:]
		if known[i] {
			continue
		}
		if len(part) > 0 && len(part)+len(data) > most {
			if err := seal(); err != nil {
				return nil, err
			}
		}
		part, chunks = append(part, data...), append(chunks, c)
	}
	return out, seal()
}
