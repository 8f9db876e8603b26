// Package chunk cuts byte streams into chunks, where their content says so or
// at fixed places. Where it cuts decides the CIDs of all that is built above,
// so the cuts of a splitter that a profile uses never change: SPEC.md says
// exactly how they are found, and testdata/cuts.json freezes them.
//
// Splitters do no I/O, copy nothing and keep nothing between calls.
package chunk

import "fmt"

// A Splitter cuts a byte stream into chunks. The cuts depend on the bytes of
// the stream alone, never on how they arrive. It is safe for concurrent use.
type Splitter interface {
	// Min and Max bound the size of a chunk in bytes. Only the last chunk of
	// a stream may be shorter than Min.
	Min() int
	Max() int

	// Split appends to ends the end offsets of the chunks of p, which starts
	// at a chunk boundary. Unless final is set it stops as soon as fewer than
	// Max bytes remain uncut: the caller carries those to the start of its
	// next call. With final set p is the end of the stream and is cut to its
	// last byte. Split does not keep p.
	Split(ends []int, p []byte, final bool) []int
}

// Fixed returns a splitter that cuts every size bytes. It panics if size is
// not positive.
func Fixed(size int) Splitter {
	if size <= 0 {
		panic(fmt.Sprintf("chunk: Fixed(%d)", size))
	}
	return fixed(size)
}

type fixed int

func (f fixed) Min() int { return int(f) }
func (f fixed) Max() int { return int(f) }

func (f fixed) Split(ends []int, p []byte, final bool) []int {
	start, size := 0, int(f)
	for ; len(p)-start >= size; start += size {
		ends = append(ends, start+size)
	}
	if final && start < len(p) {
		ends = append(ends, len(p))
	}
	return ends
}
