package store

import (
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

// An opKind is one step of giving a tree back.
type opKind uint8

const (
	opData opKind = iota // bytes of the file under way
	opDir
	opLink
	opFile // a file begins
	opEnd  // it ends
	opNode // a block that is no chunk
)

// An op is a step with what it needs. Steps are carried out in order.
type op struct {
	kind   opKind
	path   string
	target string
	attr   dag.Attr
	size   uint64
	ref    dag.ChunkRef
	row    chunkRow // of ref; zero until it is looked up
	guess  bool     // the index may have another row
	block  block    // of opNode

	load int32  // where its data is; -1: it has none
	next int32  // the step after it that has the same load; -1: none
	at   uint32 // its place in the room of a batch, if that is wide
}

// A batch is a run of steps that are planned together, so that each frame is decoded once
// and as far as any of them wants it.
type batch struct {
	ops    []op
	loads  []load
	at     map[pack.Loc]int32 // place in loads
	last   int32              // load of the last step that has one
	weight int                // of the loads
	wanted int                // bytes of the chunks, laid out in room
	others int                // bytes of nodes and names

	// Of a wide batch.
	most int      // bytes wanted; 0: it is not wide
	room [][]byte // for them, of compress.MaxPlain each, lent by Store.frames
}

// A load is a frame with what a batch wants of it.
type load struct {
	loc         pack.Loc
	from, need  int   // the plain bytes [from, need) hold all that is wanted
	used        int   // plain bytes wanted
	first, last int32 // steps, chained by op.next
	guess       bool  // some of them have rows that are guessed
	left        int   // of them that are not carried out yet
	seen        bool  // ready has been received
	returns     bool  // other frames are wanted in between
	whole       bool  // the rest of it is likely to be wanted soon
	copied      bool  // what is wanted goes into the room of the batch
	held        int64 // of the budget
	ready       chan error

	// Set by whoever loads, then owned by whoever visits.
	frame *cachedFrame
	start int   // place of frame.plain in the frame
	bad   int32 // the first step that has no data, after an error
	err   error // received from ready
}

// A batch has at most so many steps, so that a tree of empty files still flows, and bytes of
// nodes and names. A frame of small files, three steps each, fits into one.
const (
	batchOps    = 3*ingest.MaxFrameChunks + 1024
	batchOthers = 2 << 20
)

// weight is what the load may take in memory.
func (l *load) weight() int {
	if l.whole {
		return compress.MaxPlain
	}
	return min(l.need, compress.MaxPlain)
}

// keep reports whether the frame should stay in memory. One that is read through is not
// wanted again soon.
func (l *load) keep() bool { return l.whole || !l.copied && (l.returns || l.used*2 < l.need) }

// all reports whether all of the frame should be read, though less is wanted now.
func (l *load) all() bool { return l.whole || !l.copied && l.returns }

// partFrom is where reading begins in a frame that is stored as it is.
func (l *load) partFrom() int {
	if l.all() {
		return 0
	}
	return min(l.from, compress.MaxPlain)
}

func (b *batch) reset() {
	clear(b.ops) // lets go of names and nodes
	clear(b.loads)
	clear(b.at)
	b.ops, b.loads, b.weight, b.wanted, b.others = b.ops[:0], b.loads[:0], 0, 0, 0
}

// full reports whether o should go into another batch. Those that it leaves weigh no more
// than most.
func (b *batch) full(o *op, most int) bool {
	ops := batchOps
	if b.wide() {
		ops = wideOps
	}
	if len(b.ops) >= ops || b.others >= batchOthers {
		return true
	}
	if o.kind != opData || len(b.loads) == 0 {
		return false
	}
	if b.wide() {
		_, end := b.place(o.row.Size)
		return end > b.most
	}
	end := min(int(o.row.Start)+int(o.row.Size), compress.MaxPlain)
	if i, ok := b.at[o.row.Loc]; ok {
		end = max(0, end-b.loads[i].need)
	}
	return b.weight+end > most
}

// add adds a step.
func (b *batch) add(o *op) {
	i := int32(len(b.ops))
	o.load, o.next = -1, -1
	if o.kind == opData {
		at, ok := b.at[o.row.Loc]
		if !ok {
			at = int32(len(b.loads))
			if b.at == nil {
				b.at = make(map[pack.Loc]int32)
			}
			b.at[o.row.Loc] = at
			b.loads = append(b.loads, load{loc: o.row.Loc, from: int(o.row.Start), first: i, ready: make(chan error, 1)})
		}
		l := &b.loads[at]
		if ok {
			b.ops[l.last].next = i
			l.returns = l.returns || at != b.last
		}
		b.weight -= l.weight()
		l.from, l.need = min(l.from, int(o.row.Start)), max(l.need, int(o.row.Start)+int(o.row.Size))
		b.weight += l.weight()
		l.used += int(o.row.Size)
		o.at, b.wanted = b.place(o.row.Size)
		l.guess = l.guess || o.guess
		l.last, b.last, o.load = i, at, at
		l.left++
	}
	b.others += len(o.block.bytes)
	if o.kind != opEnd { // which has the path of its opFile
		b.others += len(o.path) + len(o.target)
	}
	b.ops = append(b.ops, *o)
}

// expect ends a batch that next comes after. Frames that the steps went back to, and the last
// one, are likely to be wanted further on: they are decoded as a whole at once, as far as most
// allows.
func (b *batch) expect(next *op, most int) {
	if b.wide() {
		return
	}
	for i := range b.loads {
		l := &b.loads[i]
		if l.returns || int32(i) == b.last || next.kind == opData && l.loc == next.row.Loc {
			if more := compress.MaxPlain - l.weight(); b.weight+more <= most {
				b.weight += more
				l.whole = true
			}
		}
	}
}
