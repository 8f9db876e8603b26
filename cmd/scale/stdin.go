package main

import (
	"context"
	"io"
)

// An interruptible reads from a stream that cannot be interrupted, such as a pipe on
// standard input, and gives up when its context ends. Its goroutine then stays in the
// last read until the process ends.
type interruptible struct {
	ctx  context.Context
	full chan []byte // read and not given out yet
	free chan []byte // two buffers: one is filled while the other is emptied
	err  error       // set before full is closed
	rest []byte      // of buf
	buf  []byte
}

func newInterruptible(ctx context.Context, r io.Reader) *interruptible {
	i := &interruptible{ctx: ctx, full: make(chan []byte, 2), free: make(chan []byte, 2)}
	for range 2 {
		i.free <- make([]byte, 256<<10)
	}
	go i.pump(r)
	return i
}

func (i *interruptible) pump(r io.Reader) {
	defer close(i.full)
	for buf := range i.free {
		n, err := r.Read(buf[:cap(buf)])
		if n > 0 {
			i.full <- buf[:n]
		} else {
			i.free <- buf
		}
		if err != nil {
			i.err = err
			return
		}
	}
}

func (i *interruptible) Read(p []byte) (int, error) {
	if len(i.rest) == 0 {
		if i.buf != nil {
			i.free <- i.buf
			i.buf = nil
		}
		select {
		case <-i.ctx.Done():
			return 0, i.ctx.Err()
		case buf, ok := <-i.full:
			if !ok {
				return 0, i.err
			}
			i.buf, i.rest = buf, buf
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}
