package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

// A meter shows progress on one line of a terminal: bytes, rate and time left. A nil
// meter shows nothing.
type meter struct {
	w     io.Writer
	start time.Time
	next  time.Time // when to draw again
	shown bool
}

func newMeter(f *os.File) *meter {
	if !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &meter{w: f}
}

// update shows done of total bytes; a total of 0 is not known.
func (m *meter) update(done, total uint64) {
	if !m.due() {
		return
	}
	rate := float64(done) / max(time.Since(m.start).Seconds(), 0.001)
	line := fmt.Sprintf("%s, %s/s", bytesText(done), bytesText(uint64(rate)))
	if total > 0 && done <= total {
		line = fmt.Sprintf("%s of %s (%d%%), %s/s", bytesText(done), bytesText(total), done*100/total, bytesText(uint64(rate)))
		if rate > 0 {
			left := time.Duration(float64(total-done) / rate * float64(time.Second))
			line += fmt.Sprintf(", %v left", left.Round(time.Second))
		}
	}
	m.show(line)
}

// put shows a put: what was read, and if that differs, what went to a node.
func (m *meter) put(p store.Progress) {
	if p.Sent == 0 {
		m.update(p.Bytes, p.Total)
		return
	}
	if m.due() {
		rate := float64(p.Bytes) / max(time.Since(m.start).Seconds(), 0.001)
		m.show(fmt.Sprintf("%s hashed, %s sent, %s/s", bytesText(p.Bytes), bytesText(p.Sent), bytesText(uint64(rate))))
	}
}

// due says whether it is time to draw again: five times a second.
func (m *meter) due() bool {
	if m == nil {
		return false
	}
	now := time.Now()
	if m.start.IsZero() {
		m.start = now
	}
	return !now.Before(m.next)
}

// show draws a line if it is time to.
func (m *meter) show(line string) {
	if !m.due() {
		return
	}
	m.next = time.Now().Add(200 * time.Millisecond)
	m.shown = true
	fmt.Fprintf(m.w, "\r\x1b[K%s", grpcapi.Plain(line))
}

// clear takes the line away, so that something else can be printed.
func (m *meter) clear() {
	if m != nil && m.shown {
		fmt.Fprint(m.w, "\r\x1b[K")
		m.shown = false
	}
}

// count returns a writer to w that drives the meter.
func (m *meter) count(w io.Writer, total uint64) io.Writer {
	if m == nil {
		return w
	}
	return &countingWriter{w: w, m: m, total: total}
}

type countingWriter struct {
	w           io.Writer
	m           *meter
	done, total uint64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.done += uint64(n)
	c.m.update(c.done, c.total)
	return n, err
}
