package grpcapi

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/koii-network/scale/store"
)

// The readers are the places in the engine for calls that read data. A large read has
// several frames of 4 MiB in memory, decoded and ahead of what it gives; so there are few
// at a time, and who does not take what is read, or has had much of it while others wait,
// gives its place up and comes back for the rest.
type readers struct {
	large  lane // whole files, trees
	small  lane // one frame, once
	car    lane // exports, which go over all nodes again to go on
	names  lane // proofs with the names of all files, which are held until they are taken
	totals lane // what looks at every dataset, and waits for nobody
	check  lane
}

func newReaders() *readers {
	// A read has as many goroutines as there are processors, up to 8, and as many frames.
	large := max(2, 4/min(runtime.GOMAXPROCS(0), 8))
	r := &readers{
		large: newLane(large), small: newLane(2 * large), car: newLane(large), names: newLane(1), totals: newLane(1), check: newLane(1),
	}
	r.car.patience, r.car.round = 10*letGoAfter, 16*roundBytes
	return r
}

// A lane is a number of places, which are given in the order in which they are asked for.
type lane struct {
	places chan struct{}
	queue  *atomic.Int32
	round  int // roundBytes
	// patience is how long a reader may have waited for its caller in all, 0 if it goes by
	// letGoAfter alone: for those to whom going on is dear.
	patience time.Duration
}

func newLane(n int) lane {
	return lane{places: make(chan struct{}, n), queue: new(atomic.Int32), round: roundBytes}
}

func (l lane) enter(ctx context.Context) error {
	select {
	case l.places <- struct{}{}:
		return nil
	default:
	}
	l.queue.Add(1)
	defer l.queue.Add(-1)
	select {
	case l.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l lane) leave() { <-l.places }

// wanted reports whether a place should be given up because others wait.
func (l lane) wanted() bool { return l.queue.Load() > 0 }

const (
	// letGoAfter is how long a reader may wait for its caller at a time while others wait for
	// its place.
	letGoAfter = 200 * time.Millisecond
	// roundBytes is how much it may read then, as a rule.
	roundBytes = 16 << 20
	// ahead is how many messages are read ahead of what is sent.
	ahead = 2
)

// errLetGo tells a producer to give its place up; it is called again to go on.
var errLetGo = errors.New("place given up")

// A round is one stay in the engine.
type round struct {
	lane   lane
	done   <-chan struct{}
	ch     chan *encoded
	bytes  int
	waited time.Duration // for the caller, before the message that is being pushed
	// rest is what was made when the place was given up.
	rest *encoded
}

// push hands a message on. It waits for the caller, but not for long if others wait for
// the place. The message is sent whatever push returns but the end of the call.
func (r *round) push(e *encoded) error {
	r.bytes += e.data.Len()
	select {
	case r.ch <- e:
	default:
		if err := r.pushSlowly(e); err != nil {
			return err
		}
	}
	if (r.bytes > r.lane.round || r.lane.patience > 0 && r.waited > r.lane.patience) && r.lane.wanted() {
		return errLetGo
	}
	return nil
}

func (r *round) pushSlowly(e *encoded) error {
	began := time.Now()
	defer func() { r.waited += time.Since(began) }()
	tick := time.NewTicker(letGoAfter)
	defer tick.Stop()
	for {
		select {
		case r.ch <- e:
			return nil
		case <-r.done:
			e.data.Free()
			return context.Canceled
		case <-tick.C:
			if r.waited+time.Since(began) >= r.lane.patience && r.lane.wanted() {
				r.rest = e
				return errLetGo
			}
		}
	}
}

// pump sends what produce pushes. produce runs in a place of the lane, beside the sending;
// when push returns errLetGo it returns that and is called again to go on.
func pump(ctx context.Context, ss grpc.ServerStream, l lane, produce func(ctx context.Context, push func(*encoded) error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		if err := l.enter(ctx); err != nil {
			return err
		}
		r := &round{lane: l, done: ctx.Done(), ch: make(chan *encoded, ahead)}
		made := make(chan error, 1)
		go func() {
			err := protect(func() error { return produce(ctx, r.push) })
			l.leave()
			made <- err
			close(r.ch)
		}()
		var failed error
		for e := range r.ch {
			if failed == nil {
				if failed = ss.SendMsg(e); failed != nil {
					cancel()
				}
			}
			e.data.Free() // none if it was sent
		}
		err := <-made
		if r.rest != nil {
			if failed == nil {
				failed = ss.SendMsg(r.rest)
			}
			r.rest.data.Free()
		}
		switch {
		case failed != nil:
			return failed
		case err == errLetGo:
		default:
			return err
		}
	}
}

// protect turns a panic, which would end the process, into an error that has its stack.
func protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = newPanicError(p)
		}
	}()
	return f()
}

// pieceSize is how much data goes into one message: large enough that the cost of a message
// does not show, small enough that many calls can have some under way.
const pieceSize = 128 << 10

// streamBytes is what a call holds that sends data through pump: the pieces that are read
// ahead, one that waits to be, one that is being sent and one in the transport.
const streamBytes = (ahead + 3) * (pieceSize + answerSlack)

// A pieceWriter cuts what is written to it into messages whose one field is data.
type pieceWriter struct {
	field byte // number of the field, up to 15
	push  func(*encoded) error
	to    *account
	buf   *lentBuffer
	n     int
	total uint64 // written
}

// Write implements io.Writer. When it fails it has taken what it says.
func (w *pieceWriter) Write(p []byte) (int, error) {
	taken := 0
	for len(p) > 0 {
		if w.buf == nil {
			w.buf = answers.take(pieceSize)
		}
		n := copy(w.buf.all[w.n:], p)
		w.n, p, taken = w.n+n, p[n:], taken+n
		w.total += uint64(n)
		if w.n == pieceSize {
			if err := w.flush(); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

// flush sends what is there.
func (w *pieceWriter) flush() error {
	if w.n == 0 {
		return nil
	}
	e := &encoded{mem.BufferSlice{fieldHead(w.field, w.n), w.to.send(w.buf, w.n)}}
	w.buf, w.n = nil, 0
	return w.push(e)
}

// fieldHead is what stands before n bytes of a field.
func fieldHead(field byte, n int) mem.Buffer {
	return mem.SliceBuffer(binary.AppendUvarint([]byte{field<<3 | 2}, uint64(n)))
}

// smallRead is the size up to which a read is done at once and sent then.
const smallRead = 2 * pieceSize

// sendFile sends a range of a file as messages with one field of data.
func (s *Server) sendFile(ctx context.Context, ss grpc.ServerStream, o store.Object, r store.Range, field byte) error {
	w := &pieceWriter{field: field, to: accountOf(ctx)}
	from := r.From
	if r.To-r.From > smallRead {
		if err := s.reserve(ctx, streamBytes); err != nil {
			return err
		}
		return pump(ctx, ss, s.reads.large, func(ctx context.Context, push func(*encoded) error) error {
			w.push = push
			if at := from + w.total; at < r.To {
				if _, err := s.store.Get(ctx, o, &store.Range{From: at, To: r.To}, w); err != nil {
					return letGo(err)
				}
			}
			return w.flush()
		})
	}
	// A part of a piece takes all of it.
	if err := s.reserve(ctx, (int(r.To-r.From)/pieceSize+1)*(pieceSize+answerSlack)); err != nil {
		return err
	}
	var all []*encoded
	w.push = func(e *encoded) error { all = append(all, e); return nil }
	if err := s.reads.small.enter(ctx); err != nil {
		return err
	}
	_, err := s.store.Get(ctx, o, &r, w)
	s.reads.small.leave()
	if err == nil {
		err = w.flush()
	}
	for _, e := range all {
		if err == nil {
			err = ss.SendMsg(e)
		}
		e.data.Free()
	}
	return err
}

// letGo returns errLetGo itself if that is what a read ended with.
func letGo(err error) error {
	if errors.Is(err, errLetGo) {
		return errLetGo
	}
	return err
}
