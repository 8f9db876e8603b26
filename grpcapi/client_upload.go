package grpcapi

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

const (
	// uploadPiece is the most of a frame that goes into one message.
	uploadPiece = 1 << 20
	// uploadCalls is how many calls there are at a time. Nodes take little of each before
	// they have worked on it, so one alone would be slow over a distance; and each takes as
	// many plain or sealed bytes as these, and is then answered when they are durable. Until
	// then what was sent is kept.
	uploadCalls  = 4
	uploadPlain  = 32 << 20
	uploadSealed = 12 << 20
	// uploadIdle is how long a call waits for more: nodes end those that wait for long.
	uploadIdle = 5 * time.Second
)

// An uploader sends frames in several calls at a time. When a connection breaks it asks
// which of their chunks have not arrived, and sends those again, in one call at a time.
type uploader struct {
	c    *Client
	ctx  context.Context // of the put, within which the uploader lives
	fail context.CancelCauseFunc
	sent *atomic.Uint64 // sealed bytes

	into    *uploadTally // of the dataset under way
	frames  chan pendingFrame
	workers int
	wg      sync.WaitGroup

	mu   sync.Mutex
	free [][]byte // memory of frames that have arrived, the first the oldest; guarded by mu
	size int      // of free

	turn   sync.Mutex       // held by the one that sends alone
	opener *compress.Opener // nil before the first frame that is cut; guarded by turn
	sealer *compress.Sealer // as opener
}

// An uploadTally is what the uploads of one dataset added.
type uploadTally struct{ new, stored atomic.Uint64 }

// An pendingFrame is a frame that belongs to a dataset.
type pendingFrame struct {
	pack.Frame
	into *uploadTally
}

func newUploader(ctx context.Context, c *Client, sent *atomic.Uint64) *uploader {
	u := &uploader{c: c, sent: sent, frames: make(chan pendingFrame)}
	u.ctx, u.fail = context.WithCancelCause(ctx)
	return u
}

// begin says that what comes from now on belongs to another dataset.
func (u *uploader) begin() *uploadTally {
	u.into = &uploadTally{}
	return u.into
}

// send takes a frame, which it does not keep. Calls come one at a time.
func (u *uploader) send(f pack.Frame) error {
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	f.Chunks, f.Sealed = slices.Clone(f.Chunks), u.keep(f.Sealed)
	uf := pendingFrame{f, u.into}
	select {
	case u.frames <- uf:
		return nil
	default:
	}
	if u.workers < uploadCalls {
		u.workers++
		u.wg.Go(func() { u.work(uf) })
		return nil
	}
	select {
	case u.frames <- uf:
		return nil
	case <-u.ctx.Done():
		return context.Cause(u.ctx)
	}
}

// keep copies sealed bytes to memory of frames before.
func (u *uploader) keep(sealed []byte) []byte {
	return append(u.memory(len(sealed)), sealed...)
}

func (u *uploader) memory(n int) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, b := range slices.Backward(u.free) {
		if cap(b) >= n {
			u.free = slices.Delete(u.free, i, i+1)
			u.size -= cap(b)
			return b[:0]
		}
	}
	const step = 256 << 10 // so that frames of about one size take each other's place
	return make([]byte, 0, (n+step-1)/step*step)
}

// forgo takes back the memory of frames that nothing refers to any more. It keeps no more
// than calls may have under way.
func (u *uploader) forgo(frames []pack.Frame) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range frames {
		u.free = append(u.free, f.Sealed)
		u.size += cap(f.Sealed)
	}
	for u.size > uploadCalls*(uploadSealed+compress.MaxPlain) {
		u.size -= cap(u.free[0])
		u.free = slices.Delete(u.free, 0, 1)
	}
}

// wait returns when everything that was given to send is durable, or why it is not. It
// must be called at the end, once.
func (u *uploader) wait() error {
	close(u.frames)
	u.wg.Wait()
	if u.opener != nil {
		u.opener.Close()
	}
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	u.fail(nil)
	return nil
}

// work makes one call after the other while there are frames.
func (u *uploader) work(f pendingFrame) {
	for more := true; more; {
		var err error
		if most, _ := u.c.link.bears(); most > 0 {
			err = u.alone([]lateFrame{{Frame: f.Frame}}, f.into, nil)
			f = pendingFrame{}
		} else {
			a := &uploadCall{u: u, into: f.into}
			a.begin()
			f, more = a.fill(f)
			err = a.settle()
		}
		if err != nil {
			u.fail(err)
			return // others see it by the context
		}
		if more && f.into == nil {
			f, more = <-u.frames
		}
	}
}

// An uploadCall is one call of Upload, with the frames that were given to it.
type uploadCall struct {
	u      *uploader
	into   *uploadTally
	ctx    context.Context
	idle   *idleWatch
	stream grpc.ClientStream
	err    error // why there is no stream
	broken bool  // sending failed; the answer says why
	frames []pack.Frame
	breaks int // of the link, before the call
}

// fill sends frames until the call has enough or is broken, or none comes for a while. It
// returns a frame that belongs to the next call, if it has got one, and whether more may come.
func (a *uploadCall) fill(f pendingFrame) (next pendingFrame, more bool) {
	plain, sealed := 0, 0
	timer := time.NewTimer(uploadIdle)
	defer timer.Stop()
	for {
		plain, sealed = plain+int(f.PlainSize), sealed+len(f.Sealed)
		a.transmit(f.Frame)
		if a.broken || plain >= uploadPlain || sealed >= uploadSealed {
			return pendingFrame{}, true
		}
		timer.Reset(uploadIdle)
		var ok bool
		select {
		case f, ok = <-a.u.frames:
		case <-timer.C:
			return pendingFrame{}, true
		case <-a.u.ctx.Done():
			return pendingFrame{}, false
		}
		if !ok || f.into != a.into {
			return f, ok
		}
	}
}

func (a *uploadCall) begin() {
	a.ctx, a.idle = watchIdle(a.u.ctx)
	a.idle.pause()
	_, a.breaks = a.u.c.link.bears()
	a.stream, a.err = a.u.c.conn.NewStream(a.ctx, &grpc.StreamDesc{ClientStreams: true}, scalev1.BlockService_Upload_FullMethodName, grpc.ForceCodecV2(wireCodec{}))
	a.broken = a.err != nil
}

// transmit gives a frame to the call, and sends it unless the call is broken.
func (a *uploadCall) transmit(f pack.Frame) {
	a.frames = append(a.frames, f)
	piece := f.Sealed[:min(len(f.Sealed), uploadPiece)]
	head, err := proto.Marshal(frameHead(&f))
	if err != nil {
		a.u.fail(err)
		a.broken = true
		return
	}
	head = appendField(head, frameDataField, len(piece))
	msg := &splitMessage{append(appendField(nil, uploadFrameField, len(head)+len(piece)), head...), piece}
	for rest := f.Sealed; !a.broken; {
		a.idle.wait()
		err := a.stream.SendMsg(msg)
		a.idle.pause()
		if err != nil {
			a.broken = true // RecvMsg has the reason
			return
		}
		a.u.sent.Add(uint64(len(piece)))
		if rest = rest[len(piece):]; len(rest) == 0 {
			return
		}
		piece = rest[:min(len(rest), uploadPiece)]
		msg = &splitMessage{appendField(nil, uploadDataField, len(piece)), piece}
	}
}

// appendField appends the tag and length of a field, which n bytes have to follow.
func appendField(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(n))
}

// answer ends the call and returns what became of it.
func (a *uploadCall) answer() error {
	defer a.idle.stop()
	if a.stream == nil {
		return a.err
	}
	a.idle.wait()
	r := &scalev1.UploadResponse{}
	err := a.stream.CloseSend()
	if err == nil {
		err = a.stream.RecvMsg(r)
	}
	if err == io.EOF {
		err = nodeErrorf("an upload without an answer")
	}
	if err != nil {
		err = a.idle.cause(err)
		if errors.Is(callError(a.u.ctx, err), ErrUnreachable) {
			a.u.c.link.broke(a.breaks)
		}
		return err
	}
	if a.broken {
		return nodeErrorf("the answer to an upload came before its end")
	}
	a.into.new.Add(r.GetNewBytes())
	a.into.stored.Add(r.GetStoredBytes())
	for _, f := range a.frames {
		a.u.c.link.held(int(f.PlainSize))
	}
	return nil
}

// settle waits for the answer, and if the call has failed in a way that passes, sends
// again what has not arrived.
func (a *uploadCall) settle() error {
	err := a.answer()
	if err == nil {
		// The node has all of it. Of a call that was cut off, the transport might still
		// be reading what was to be sent.
		a.u.forgo(a.frames)
		return nil
	}
	late := make([]lateFrame, len(a.frames))
	for i, f := range a.frames {
		late[i] = lateFrame{f, true}
	}
	return a.u.alone(late, a.into, err)
}

// lookup asks a node which chunks it holds.
type lookup struct{ c *Client }

var _ ingest.Index = lookup{}

// Known implements ingest.Index.
func (l lookup) Known(ctx context.Context, chunks []ingest.Chunk, known []bool) error {
	const most = 16_384 // digests in one request
	for len(chunks) > 0 {
		n := min(len(chunks), most)
		req := &scalev1.FindMissingRequest{Digests: make([][]byte, n)}
		for i := range n {
			req.Digests[i] = chunks[i].Digest[:]
		}
		r, err := ask(ctx, l.c, l.c.blocks.FindMissing, req)
		if err != nil {
			return err
		}
		for i := range n {
			known[i] = true
		}
		last := -1
		for _, i := range r.GetMissing() {
			if int64(i) >= int64(n) || int(i) <= last {
				clear(known[:n])
				return nodeErrorf("missing chunk %d of %d", i, n)
			}
			last = int(i)
			known[i] = false
		}
		chunks, known = chunks[n:], known[n:]
	}
	return nil
}

// discard takes the nodes of a DAG that the node builds by itself.
type discard struct{}

func (discard) Node(dag.Digest, []byte) error { return nil }
func (discard) Row(dag.Hash, []byte) error    { return nil }

// One of these is added to what a put fails with, once something was sent: errKept if the
// node has said that it has some of it.
var (
	errKept = errors.New("the node keeps what arrived: a repeated put sends only what is missing")
	errSent = errors.New("the node has told of nothing that arrived: a repeated put sends only what is missing")
)
