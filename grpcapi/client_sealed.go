package grpcapi

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/compress"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

// A getter is a range of a file on its way. What comes in frames it opens and compares with
// its digests, several frames at a time, and writes in order.
type getter struct {
	w       io.Writer
	at, to  uint64 // what is written, and what is to be
	plain   bool   // frames are not asked for
	came    uint64 // the place that what came reaches to; what is between is in queue
	opener  *compress.Opener
	workers int

	cur    *opening   // a frame that did not come whole, the last of recent
	size   int        // of its sealed form
	run    fileRun    // the bytes of it that are wanted
	recent []*opening // the last frames that came, which may be referred to
	queue  []fileRun  // in order
	opened int        // of queue, those that came with a frame
	free   []*opening
}

// A fileRun is bytes of a file that wait for those before them.
type fileRun struct {
	from       *opening // nil: plain is all there is
	first      bool     // it came with its frame
	start, end int      // of from
	plain      []byte
}

// An opening is a frame that is being opened.
type opening struct {
	frame      pack.Frame
	buf, plain []byte // memory of both forms
	uses       int    // by recent and queue
	err        error
	done       chan struct{} // closed when it is open
}

// errUnsound is what opening a frame fails with. The node can say what is wrong.
var errUnsound = nodeErrorf("a frame that does not hold what it should")

func newGetter(w io.Writer, from, to uint64) *getter {
	return &getter{w: w, at: from, came: from, to: to, workers: ingest.Workers()}
}

// close waits for what is being opened.
func (g *getter) close() {
	g.reset()
	if g.opener != nil {
		g.opener.Close()
	}
}

// reset forgets what came and is not written.
func (g *getter) reset() {
	for _, r := range g.queue {
		if r.from != nil {
			<-r.from.done
			g.drop(r.from)
		}
	}
	for _, o := range g.recent {
		g.drop(o)
	}
	g.queue, g.recent, g.cur, g.opened, g.came = nil, nil, nil, 0, g.at
}

// drop ends a use of a frame. One that is being opened is in the queue.
func (g *getter) drop(o *opening) {
	if o.uses--; o.uses == 0 {
		g.free = append(g.free, o)
	}
}

// request begins anew with what is not written, and asks for it.
func (g *getter) request(o store.Object) proto.Message {
	g.reset()
	ref, path := place(o)
	return &scalev1.GetRequest{Ref: ref, Path: path, Range: &scalev1.ByteRange{Start: g.at, End: &g.to}, Sealed: !g.plain}
}

func (g *getter) take(m *wireMessage) error {
	if len(m.b) == 0 {
		return errNothing
	}
	return m.fields(func(n protowire.Number, v []byte) error {
		switch n {
		case getDataField:
			return g.data(v)
		case getFrameField:
			return g.frame(v)
		}
		return nil
	})
}

// data takes plain bytes, or more of a frame.
func (g *getter) data(b []byte) error {
	if len(b) == 0 {
		return errNothing
	}
	if g.cur != nil {
		return g.sealed(b)
	}
	if err := g.within(len(b)); err != nil {
		return err
	}
	// Between frames little comes as plain bytes, as a rule.
	if len(g.queue) > 0 && len(b) <= pieceSize {
		return g.push(fileRun{plain: bytes.Clone(b)})
	}
	if err := g.flush(); err != nil {
		return err
	}
	k, err := g.w.Write(b)
	g.at += uint64(k)
	g.came = g.at
	return err
}

// queueRuns is how many runs wait at most; those of plain bytes take a piece each.
const queueRuns = 64

// within refuses bytes beyond those that were asked for.
func (g *getter) within(n int) error {
	if uint64(n) > g.to-g.came {
		return nodeErrorf("it goes on behind byte %d", g.to)
	}
	return nil
}

// push puts a run behind the others, and writes what is ready.
func (g *getter) push(r fileRun) error {
	g.queue = append(g.queue, r)
	g.came += uint64(r.bytes())
	for len(g.queue) > 0 && (g.opened > g.workers || len(g.queue) > queueRuns || g.queue[0].ready()) {
		if err := g.first(); err != nil {
			return err
		}
	}
	return nil
}

func (r *fileRun) bytes() int {
	if r.from == nil {
		return len(r.plain)
	}
	return r.end - r.start
}

func (r *fileRun) ready() bool {
	if r.from == nil {
		return true
	}
	select {
	case <-r.from.done:
		return true
	default:
		return false
	}
}

// first writes the first run of the queue.
func (g *getter) first() error {
	r := g.queue[0]
	g.queue = append(g.queue[:0], g.queue[1:]...)
	b := r.plain
	if o := r.from; o != nil {
		<-o.done
		defer g.drop(o)
		if r.first {
			g.opened--
		}
		if o.err != nil {
			return o.err
		}
		b = o.plain[r.start:r.end]
	}
	n, err := g.w.Write(b)
	g.at += uint64(n)
	return err
}

// flush writes what came whole.
func (g *getter) flush() error {
	for len(g.queue) > 0 {
		if err := g.first(); err != nil {
			return err
		}
	}
	return nil
}

// Numbers of the fields of a FrameRange; TestFieldNumbers compares them with the API.
const (
	getFrameField   = 2
	rangeFrameField = 1
	rangeStartField = 2
	rangeEndField   = 3
	rangeBackField  = 4
)

// A frameRange is a FrameRange.
type frameRange struct {
	has              bool // a frame
	m                uploadMessage
	start, end, back uint64
}

func (r *frameRange) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, typ protowire.Type, v, raw []byte) error {
		switch {
		case num == rangeFrameField && typ == protowire.BytesType:
			r.m, r.has = uploadMessage{}, true
			return r.m.decodeFrame(v)
		case num == rangeStartField && typ == protowire.VarintType:
			r.start = uintOf(raw)
		case num == rangeEndField && typ == protowire.VarintType:
			r.end = uintOf(raw)
		case num == rangeBackField && typ == protowire.VarintType:
			r.back = uintOf(raw)
		case num <= rangeBackField:
			return wrongType("a frame's range")
		}
		return nil
	})
}

// in checks that the range is one of a frame.
func (r *frameRange) in(f *pack.Frame) error {
	if r.start >= r.end || r.end > uint64(f.PlainSize) {
		return nodeErrorf("bytes %d:%d of a frame of %d", r.start, r.end, f.PlainSize)
	}
	return nil
}

// frame takes bytes that are in a frame, one that came before or that begins here.
func (g *getter) frame(b []byte) error {
	if g.cur != nil || g.plain {
		return nodeErrorf("a frame that has no place here")
	}
	var r frameRange
	if err := r.decode(b); err != nil {
		return nodeErrorf("a frame: %v", err)
	}
	if r.has {
		return g.begin(&r)
	}
	if r.back >= uint64(len(g.recent)) {
		return nodeErrorf("a frame that did not come, %d before the last", r.back)
	}
	o := g.recent[len(g.recent)-1-int(r.back)]
	if err := r.in(&o.frame); err != nil {
		return err
	}
	if err := g.within(int(r.end - r.start)); err != nil {
		return err
	}
	o.uses++
	return g.push(fileRun{from: o, start: int(r.start), end: int(r.end)})
}

// begin takes the beginning of a frame.
func (g *getter) begin(r *frameRange) error {
	f, sum := &r.m.frame, uint64(0)
	for _, c := range f.Chunks {
		sum += uint64(c.Size)
	}
	if size := uint64(f.PlainSize); size > compress.MaxPlain || sum != size || r.m.sealedSize == 0 || uint64(r.m.sealedSize) > size {
		return nodeErrorf("a frame of %d bytes, its chunks have %d, sealed %d", size, sum, r.m.sealedSize)
	}
	if err := r.in(f); err != nil {
		return err
	}
	if err := g.within(int(r.end - r.start)); err != nil {
		return err
	}
	if len(g.recent) == store.SealedBack {
		g.drop(g.recent[0])
		g.recent = append(g.recent[:0], g.recent[1:]...)
	}
	o := &opening{}
	if n := len(g.free); n > 0 {
		o, g.free = g.free[n-1], g.free[:n-1]
	}
	if g.size = int(r.m.sealedSize); cap(o.buf) < g.size {
		o.buf = make([]byte, g.size)
	}
	o.frame, o.done, o.err, o.uses = *f, make(chan struct{}), nil, 1
	o.frame.Sealed = o.buf[:0]
	g.cur, g.run = o, fileRun{from: o, first: true, start: int(r.start), end: int(r.end)}
	g.recent = append(g.recent, o)
	if len(r.m.data) > 0 {
		return g.sealed(r.m.data)
	}
	return nil
}

// sealed takes more of the frame under way.
func (g *getter) sealed(b []byte) error {
	o := g.cur
	f := &o.frame
	if len(b) > g.size-len(f.Sealed) {
		return nodeErrorf("more of a frame than it has")
	}
	if f.Sealed = append(f.Sealed, b...); len(f.Sealed) < g.size {
		return nil
	}
	if g.opener == nil {
		var err error
		if g.opener, err = compress.NewOpener(); err != nil {
			return err
		}
	}
	g.cur = nil
	o.uses++
	g.opened++
	go func() {
		defer close(o.done)
		o.err = o.open(g.opener)
	}()
	return g.push(g.run)
}

// open opens the frame and compares all of it with its digests.
func (o *opening) open(opener *compress.Opener) error {
	var err error
	f := &o.frame
	if o.plain, err = opener.Open(o.plain[:0], f.Codec, f.Sealed, int(f.PlainSize)); err != nil {
		return fmt.Errorf("%w: %v", errUnsound, err)
	}
	rest := o.plain
	for i, c := range f.Chunks {
		if sha256.Sum256(rest[:c.Size]) != c.Digest {
			return fmt.Errorf("%w: chunk %d does not have the digest %x", errUnsound, i, c.Digest)
		}
		rest = rest[c.Size:]
	}
	return nil
}

// unsound reports whether err is that a frame is, and from now on asks for plain bytes.
func (g *getter) unsound(err error) bool {
	if g.plain || !errors.Is(err, errUnsound) {
		return false
	}
	g.plain = true
	return true
}
