package store

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/koii-network/scale/compress"
)

// A batch weighs what is decoded for it. That is about what is wanted as long as chunks are
// read in the order in which they were sealed. Of datasets that name them in another, whose
// files were renamed or which have many versions, it is a handful of chunks, and each of them
// costs a frame. Batches that come behind such a one are wide: they are planned by what is
// wanted, each frame is decoded once for all of it, and what is wanted is copied out, so that
// the memory of the frame is free again.
const (
	// DefaultWide makes 7 rounds over their frames of 579 MB in files of 1 to 16 KiB in random
	// order, which takes 4 s of CPU; 10 rounds take 5 s.
	DefaultWide = 128 << 20
	// wideFirst is what the first may want: the reader may not go on for long.
	wideFirst = 16 << 20
	// wideOps is the most steps, of 224 bytes each: with files of 6 KiB they fill the room.
	wideOps = 48 << 10
)

// wideShares returns how many bytes the wide batches of a reader may want: three quarters of
// Options.Wide or, when somebody has these, the fourth, or he gets along with narrow batches.
func (o *Options) wideShares() (most, least int) {
	quarter := int(o.Wide) / 4 / compress.MaxPlain * compress.MaxPlain
	return 3 * quarter, quarter
}

// A widening is what a reader has wide batches by.
type widening struct {
	next int                 // what the next one should want, or 0; of the goroutine that plans
	room *semaphore.Weighted // bytes, of one batch

	mu      sync.Mutex
	batches int // that are wide
	share   int // of Store.wide, while there are any
}

func (b *batch) wide() bool { return b.most > 0 }

// scattered reports whether much more is decoded for a batch than is wanted: at twice as much
// narrow batches are as fast still, and take less memory. A wide one takes in so much that a
// little more counts.
func (b *batch) scattered() bool {
	if b.wide() {
		return b.weight > b.wanted/4*5
	}
	return b.weight > 3*b.wanted
}

// place returns where a chunk goes in the room of the batch, in which it lies in one piece,
// and where it ends.
func (b *batch) place(size uint32) (at uint32, end int) {
	n := min(int(size), compress.MaxPlain) // a larger one is in no frame
	start := b.wanted
	if rest := compress.MaxPlain - start%compress.MaxPlain; n > rest {
		start += rest
	}
	return uint32(start), start + n
}

// adjoins reports whether the data of a step lies behind that of the step before it, which
// has the same load.
func (b *batch) adjoins(i int) bool {
	o, before := &b.ops[i], &b.ops[i-1]
	return o.row.Start == before.row.Start+before.row.Size && (!b.wide() || o.at == before.at+before.row.Size)
}

// bytes returns n bytes from those of a step on.
func (b *batch) bytes(o *op, n uint32) []byte {
	if b.wide() {
		return b.room[o.at/compress.MaxPlain][o.at%compress.MaxPlain:][:n]
	}
	l := &b.loads[o.load]
	return l.frame.plain[int(o.row.Start)-l.start:][:n]
}

// copyOut copies what is wanted of a frame into the room of the batch.
func (b *batch) copyOut(l *load, f *cachedFrame) {
	for i := l.first; i >= 0; i = b.ops[i].next {
		o := &b.ops[i]
		copy(b.bytes(o, o.row.Size), f.plain[int(o.row.Start)-l.start:])
	}
}

// follow sees how scattered a batch is that is sent, for those that come behind it.
func (r *reader) follow(b *batch) {
	switch {
	case !b.scattered():
		r.wide.next = 0
	case b.wide():
		r.wide.next, _ = r.s.opt.wideShares()
	case r.wide.next == 0:
		r.wide.next = wideFirst
	}
}

// widen makes a batch that is full a wide one, if that is worth it and may be.
func (r *reader) widen(b *batch) bool {
	if b.wide() || r.wide.next == 0 || !b.scattered() {
		return false
	}
	r.wide.mu.Lock()
	defer r.wide.mu.Unlock()
	if r.wide.batches == 0 {
		switch most, least := r.s.opt.wideShares(); {
		case least <= 0:
			return false
		case r.s.wide.TryAcquire(int64(most)):
			r.wide.share = most
		case r.s.wide.TryAcquire(int64(least)):
			r.wide.share = least
		default:
			return false
		}
	}
	r.wide.batches++
	b.most = min(r.wide.next, r.wide.share)
	return true
}

// makeRoom gets the memory of a wide batch, once the one before has been visited.
func (r *reader) makeRoom(ctx context.Context, b *batch) error {
	if !b.wide() {
		return nil
	}
	n := (b.wanted + compress.MaxPlain - 1) / compress.MaxPlain
	if err := r.wide.room.Acquire(ctx, int64(n)*compress.MaxPlain); err != nil {
		return context.Cause(ctx)
	}
	b.room = r.s.frames.lend(n)
	return nil
}

// narrow gives back what a batch has as a wide one.
func (r *reader) narrow(b *batch) {
	if !b.wide() {
		return
	}
	if b.room != nil {
		r.s.frames.takeBack(b.room)
		r.wide.room.Release(int64(len(b.room)) * compress.MaxPlain)
	}
	b.most, b.room = 0, nil
	r.wide.mu.Lock()
	defer r.wide.mu.Unlock()
	if r.wide.batches--; r.wide.batches == 0 {
		r.s.wide.Release(int64(r.wide.share))
	}
}
