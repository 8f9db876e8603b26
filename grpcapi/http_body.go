package grpcapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/koii-network/scale/store"
)

// A pacedBody is the body of a request as a series of messages. Each message must arrive
// within a time and a size, and only some requests at a time may send large ones. It is
// for one goroutine, that of the handler.
type pacedBody struct {
	body  io.ReadCloser
	ctl   *http.ResponseController
	done  <-chan struct{}
	idle  time.Duration
	large chan struct{} // a token for each request that may send large messages
	held  bool

	size    int       // bytes of this message so far
	objects int       // and JSON objects in it, at most
	since   time.Time // when its first byte was asked for
	fault   error     // why reading ended before the end

	single bool        // the call takes one message
	inPath []pathField // what the path says already
}

func newPacedBody(w http.ResponseWriter, r *http.Request, idle time.Duration, large chan struct{}) *pacedBody {
	return &pacedBody{body: r.Body, ctl: http.NewResponseController(w), done: r.Context().Done(), idle: idle, large: large}
}

// maxObjects is more entries than fit into a message of 1 MiB of data with paths.
const maxObjects = 1 << 16

// next begins another message.
func (b *pacedBody) next() { b.size, b.objects, b.since = 0, 0, time.Time{} }

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.fault != nil {
		return 0, b.fault
	}
	n, err := b.read(p)
	if err != nil && err != io.EOF {
		b.fault = err
	}
	return n, err
}

func (b *pacedBody) read(p []byte) (int, error) {
	if b.since.IsZero() {
		b.since = time.Now()
	}
	if b.size >= smallMessage && !b.held {
		wait := time.NewTimer(time.Until(b.since.Add(b.idle)))
		defer wait.Stop()
		select {
		case b.large <- struct{}{}:
			b.held = true
		case <-b.done:
			return 0, errors.New("the caller is gone")
		case <-wait.C:
			return 0, busy("too many callers send messages above %d bytes", smallMessage)
		}
	}
	left := maxJSON - b.size
	if !b.held {
		left = min(left, smallMessage-b.size)
	}
	if left <= 0 {
		return 0, fmt.Errorf("%w: a message is at most %d bytes of JSON", ErrLimit, maxJSON)
	}
	p = p[:min(len(p), left)]
	if err := b.ctl.SetReadDeadline(b.since.Add(b.idle)); err != nil {
		return 0, err
	}
	n, err := b.body.Read(p)
	b.size += n
	// Empty ones take many times their two bytes when they are read.
	if b.objects += bytes.Count(p[:n], []byte("{")); b.objects > maxObjects {
		return 0, fmt.Errorf("%w: a message has at most %d objects of JSON", ErrLimit, maxObjects)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w: a message did not arrive within %v", ErrTooSlow, b.idle)
	case err != nil && err != io.EOF: // it ends too early, or its chunks are malformed
		err = fmt.Errorf("%w: the body did not arrive whole: %w", store.ErrInvalid, err)
	}
	// The server watches the connection while the handler runs, and must not take the end
	// of this time for the end of the caller.
	if cerr := b.ctl.SetReadDeadline(time.Time{}); cerr != nil && err == nil {
		err = cerr
	}
	return n, err
}

func (b *pacedBody) Close() error { return b.body.Close() }

// release gives others their turn.
func (b *pacedBody) release() {
	if b.held {
		<-b.large
		b.held = false
	}
}

// writeBytes is how much is written at a time, so that an answer that is long is taken in as
// many times.
const writeBytes = 64 << 10

// A pacedWriter gives the client a time to take each write.
type pacedWriter struct {
	http.ResponseWriter
	ctl  *http.ResponseController
	idle time.Duration
}

func newPacedWriter(w http.ResponseWriter, idle time.Duration) *pacedWriter {
	p := &pacedWriter{ResponseWriter: w, ctl: http.NewResponseController(w), idle: idle}
	p.extend() // what the handler leaves in buffers is written after it
	return p
}

func (w *pacedWriter) extend() {
	// An error means a connection that is gone, which the write will tell.
	_ = w.ctl.SetWriteDeadline(time.Now().Add(w.idle))
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	done := 0
	for {
		w.extend()
		n, err := w.ResponseWriter.Write(p[done:min(len(p), done+writeBytes)])
		if done += n; err != nil || done == len(p) {
			return done, err
		}
	}
}

// Unwrap is for http.ResponseController.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
