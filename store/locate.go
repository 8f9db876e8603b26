package store

import (
	"context"
	"slices"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/pack"
)

// A locator finds where the chunks of a dataset are, which are asked for in order. A frame
// lists its chunks, and what follows one of them in a dataset mostly follows it there too:
// of a frame that three look-ups in the index have led to, the list is read, and the chunks
// after need no look-up, which takes 5 to 10 µs: as long as checking a small file.
//
// What the list says is a guess: the chunk is in that frame, but the index may have it
// elsewhere, because it was there before or because the frame is damaged and the chunk was
// given back since. See reader.regain. It is for one goroutine.
type locator struct {
	s      *Store
	lists  []frameList // the one used last comes first
	seen   []pack.Loc  // frames without a list that the index led to lately, once for each time
	digest dag.Digest  // of the chunk found last
	last   located     // where it is; zero at first
	buf    []byte
}

// A located is a place of a chunk.
type located struct {
	chunkRow
	guess bool
}

// A frameList is the chunks of a frame.
type frameList struct {
	loc    pack.Loc
	chunks []pack.Chunk
	next   int    // the chunk that is expected next
	start  uint32 // its place in the frame
}

const (
	// locatorFrames is how many frames a locator knows: versions of a dataset go to and
	// fro between those of several.
	locatorFrames = 4
	// locatorSeen is how often the index leads to a frame before its list is read the next
	// time: short ranges have few chunks.
	locatorSeen = 2
	// locatorAhead is how many chunks of a list may be left out, as a later version does
	// that has others in their place.
	locatorAhead = 4
)

// find finds a chunk. Its errors are those of chunkRow.
func (l *locator) find(ctx context.Context, ref dag.ChunkRef) (located, error) {
	if l.last.Size != 0 && ref.Digest == l.digest && (ref.Size == 0 || ref.Size == l.last.Size) {
		return l.last, nil // the same again
	}
	for i := range l.lists {
		if row, ok := l.lists[i].find(ref); ok {
			l.use(i)
			return l.found(ref.Digest, located{row, true}), nil
		}
	}
	row, err := l.s.chunkRow(ctx, ref)
	if err != nil {
		return located{}, err
	}
	l.expect(ctx, row)
	return l.found(ref.Digest, located{chunkRow: row}), nil
}

func (l *locator) found(d dag.Digest, at located) located {
	l.digest, l.last = d, at
	return at
}

// use moves a list to the front.
func (l *locator) use(i int) {
	f := l.lists[i]
	copy(l.lists[1:i+1], l.lists[:i])
	l.lists[0] = f
}

// expect makes ready for the chunks behind one that the index led to.
func (l *locator) expect(ctx context.Context, row chunkRow) {
	i := slices.IndexFunc(l.lists, func(f frameList) bool { return f.loc == row.Loc })
	if i < 0 {
		before := 0
		for _, at := range l.seen {
			if at == row.Loc {
				before++
			}
		}
		if before < locatorSeen {
			if len(l.seen) == locatorFrames*locatorSeen {
				l.seen = slices.Delete(l.seen, 0, 1)
			}
			l.seen = append(l.seen, row.Loc)
			return
		}
		l.seen = slices.DeleteFunc(l.seen, func(at pack.Loc) bool { return at == row.Loc })
		if len(l.lists) < locatorFrames {
			l.lists = append(l.lists, frameList{})
		}
		i = len(l.lists) - 1
		f := frameList{loc: row.Loc}
		var err error
		if f.chunks, l.buf, err = l.s.packs.ReadList(ctx, row.Loc, l.buf); err != nil {
			f.chunks = nil // whoever reads the frame says what is wrong with it
		}
		l.lists[i] = f
	}
	l.use(i)
	l.lists[0].behind(row)
}

// behind makes the list expect what follows a chunk.
func (f *frameList) behind(row chunkRow) {
	f.next, f.start = 0, 0
	for f.next < len(f.chunks) && f.start <= row.Start {
		f.start += f.chunks[f.next].Size
		f.next++
	}
}

// find looks for a chunk where it is expected.
func (f *frameList) find(ref dag.ChunkRef) (chunkRow, bool) {
	start := f.start
	for i, c := range f.chunks[f.next:min(f.next+1+locatorAhead, len(f.chunks))] {
		if c.Digest == ref.Digest && (ref.Size == 0 || ref.Size == c.Size) {
			f.next, f.start = f.next+i+1, start+c.Size
			return chunkRow{Loc: f.loc, Start: start, Size: c.Size}, true
		}
		start += c.Size
	}
	return chunkRow{}, false
}
