package store

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// A SealedRun is bytes of a file that follow one another in a frame, which is given as it
// is stored.
type SealedRun struct {
	Loc pack.Loc
	// Frame is valid during the call that gives it. Without chunks it is the one that was
	// given Back frames before the last.
	Frame pack.Frame
	Back  int
	// The bytes are those of the opened frame from Start to End.
	Start, End uint32
}

// SealedBack is how many of the frames given last a run may be of.
const SealedBack = 4

// A SealedWriter takes a file in order: runs in frames, and plain bytes that have been
// checked.
type SealedWriter interface {
	io.Writer
	// Sealed takes a run. Its chunks are those that the file names, by their digests; the
	// bytes of the frame have passed its checksum, and whoever opens it MUST compare the
	// chunks of the run with their digests.
	Sealed(r *SealedRun) error
}

// GetSealed gives what Get gives, and leaves the work of opening frames, and the room that
// this saves on the way, to w: frames that are less than half as long as what is wanted of
// them are given as they are stored. What is not, and what is damaged, is given or refused as
// Get does. The range must be within the file. If the last call was given up in the middle of
// a run, under is the place of its frame, and else zero; the first run is then that run again.
func (s *Store) GetSealed(ctx context.Context, o Object, r Range, under pack.Loc, w SealedWriter) error {
	if o.Info.Kind != dag.KindFile || r.From > r.To || r.To > o.Info.Size {
		return fmt.Errorf("range %d:%d of %s, a %v of %d bytes: %w", r.From, r.To, o, o.Info.Kind, o.Info.Size, ErrInvalid)
	}
	g := sealedGetter{s: s, ctx: ctx, o: o, w: w, at: r.From, to: r.To, under: under, buf: s.frames.buffer(compress.MaxPlain / 2)}
	defer s.frames.give(g.buf)
	plain := uint64(sealedWindow)
	for g.at < g.to {
		from := g.at
		if err := g.windows(); err != nil {
			return fmt.Errorf("get %s: %w", o, storeError(err))
		}
		if g.at > from {
			plain = sealedWindow
			continue
		}
		// What follows is likely to be of the same kind.
		if err := g.plain(min(g.to, g.at+plain)); err != nil {
			return err
		}
		plain *= 2
	}
	return nil
}

const (
	// sealedWindow is how much of a file is looked at together, in plain bytes, to find out
	// what is wanted of each frame: chunks that came before interrupt the run of a frame.
	sealedWindow = 4 * compress.MaxPlain
	// sealedChunks is the most chunks of a frame that is given as it is: their list goes
	// with it.
	sealedChunks = 2048
)

// A sealedGetter is a GetSealed under way.
type sealedGetter struct {
	s      *Store
	ctx    context.Context // of the call
	o      Object
	w      SealedWriter
	at, to uint64 // the place in the file, and its end
	under  pack.Loc
	buf    []byte // lent by Store.frames
	recent []givenFrame
}

// A givenFrame is one that w has.
type givenFrame struct {
	loc    pack.Loc
	chunks []pack.Chunk
}

// A fileRun is chunks of a file that follow one another in a frame.
type fileRun struct {
	loc        pack.Loc
	first      uint32 // where the first chunk begins
	start, end uint32
	refs       []dag.ChunkRef
}

// windows gives what there is until a window with nothing that is worth giving sealed.
func (g *sealedGetter) windows() error {
	var runs []fileRun
	size := 0
	from, at := g.at, locator{s: g.s}
	for p, err := range g.s.fileOps(g.ctx, g.o.CID, from, g.to) {
		if err != nil {
			return err
		}
		row, err := at.find(g.ctx, p.ref)
		if err != nil {
			break // Get says what is wrong, once it comes there
		}
		if p.ref.Size = row.Size; size > 0 {
			if r := &runs[len(runs)-1]; r.loc == row.Loc && r.end == row.Start {
				r.end += row.Size
				r.refs = append(r.refs, p.ref)
				size += int(row.Size)
				continue
			}
		}
		// A run is never cut, so that one that begins at the same place is the same.
		if size >= sealedWindow {
			if ok, err := g.window(runs); !ok {
				return err
			}
			runs, size = runs[:0], 0
		}
		r := fileRun{loc: row.Loc, first: row.Start, start: row.Start, end: row.Start + row.Size, refs: []dag.ChunkRef{p.ref}}
		if p.ref.Offset < from {
			r.start += uint32(from - p.ref.Offset)
		}
		runs = append(runs, r)
		size += int(row.Size)
	}
	if size > 0 {
		r := &runs[len(runs)-1]
		last := &r.refs[len(r.refs)-1]
		if end := last.Offset + uint64(last.Size); end > g.to {
			r.end -= uint32(end - g.to)
		}
		_, err := g.window(runs)
		return err
	}
	return nil
}

// window gives runs. It reports false if none is worth giving sealed, or the others are so
// scattered that Get should read them together, and then gives none.
func (g *sealedGetter) window(runs []fileRun) (bool, error) {
	left := map[pack.Loc]uint64{} // what is still wanted of each frame
	for i := range runs {
		left[runs[i].loc] += runs[i].bytes()
	}
	if runs[0].loc == g.under {
		left[g.under] += 2 * uint64(g.under.Len)
	}
	g.under = pack.Loc{}
	worth := func(r *fileRun) bool { return left[r.loc] >= 2*uint64(r.loc.Len) }
	plain := int64(0) // what the frames are opened to of which parts are given plain
	for loc, n := range left {
		if n < 2*uint64(loc.Len) {
			plain += int64(g.s.opt.FrameSize)
		}
	}
	if plain > g.s.opt.Cache || !slices.ContainsFunc(runs, func(r fileRun) bool { return worth(&r) }) {
		return false, nil
	}
	at := g.at // where the run begins; from g.at to there nothing is given yet
	for i := range runs {
		r := &runs[i]
		s := SealedRun{Loc: r.loc, Start: r.start, End: r.end, Back: g.back(r.loc)}
		if s.Back >= 0 || worth(r) {
			ok, err := g.frame(&s, r)
			if err == nil && ok {
				err = g.plain(at)
			}
			if err == nil && ok {
				err = g.w.Sealed(&s)
			}
			if err != nil {
				return false, err
			}
			if ok {
				g.gave(&s, r)
				g.at = at + r.bytes()
			}
		}
		at += r.bytes()
		left[r.loc] -= r.bytes()
	}
	return true, g.plain(at)
}

func (r *fileRun) bytes() uint64 { return uint64(r.end - r.start) }

// back returns how many frames w was given after that at loc, or -1 if it does not have it.
func (g *sealedGetter) back(loc pack.Loc) int {
	for back := range g.recent {
		if g.recent[len(g.recent)-1-back].loc == loc {
			return back
		}
	}
	return -1
}

// frame brings the frame of a run, unless w has it. It reports false if it cannot be given:
// Get says why.
func (g *sealedGetter) frame(s *SealedRun, r *fileRun) (bool, error) {
	if s.Back >= 0 {
		return r.within(g.recent[len(g.recent)-1-s.Back].chunks), nil
	}
	s.Back = 0
	if int(r.loc.Len) > len(g.buf) {
		return false, nil
	}
	f, _, err := g.s.packs.ReadFrame(g.ctx, r.loc, g.buf)
	if err != nil || len(f.Chunks) > sealedChunks || !r.within(f.Chunks) {
		return false, context.Cause(g.ctx) // nil as a rule
	}
	s.Frame = f
	return true, nil
}

// gave notes that w has a run.
func (g *sealedGetter) gave(s *SealedRun, r *fileRun) {
	if tell := g.s.opt.Observer.Read; tell != nil {
		tell(int(r.bytes()))
	}
	if len(s.Frame.Chunks) == 0 {
		return
	}
	if len(g.recent) == SealedBack {
		g.recent = append(g.recent[:0], g.recent[1:]...)
	}
	g.recent = append(g.recent, givenFrame{r.loc, s.Frame.Chunks})
}

// plain gives what is before a place as Get does.
func (g *sealedGetter) plain(to uint64) error {
	if to <= g.at {
		return nil
	}
	if _, err := g.s.Get(g.ctx, g.o, &Range{From: g.at, To: to}, g.w); err != nil {
		return err
	}
	g.at = to
	return nil
}

// within reports whether the chunks of the run are where the index has them in the frame.
func (r *fileRun) within(chunks []pack.Chunk) bool {
	at, want, refs := uint32(0), r.first, r.refs
	for _, c := range chunks {
		if at >= want && len(refs) > 0 {
			if at != want || c.Digest != refs[0].Digest || c.Size != refs[0].Size {
				return false
			}
			want, refs = at+c.Size, refs[1:]
		}
		at += c.Size
	}
	return len(refs) == 0
}
