package store

import "time"

// An Observer is told what a store does, for metrics. Functions that are nil are not
// called; the others are called from many goroutines and must return soon.
type Observer struct {
	// Put: a Put ended.
	Put func(PutEvent)
	// Commit: entries were appended in one commit, which took so long.
	Commit func(entries int, took time.Duration)
	// Proof: a proof was made, or failed.
	Proof func(took time.Duration, err error)
	// Frame: a frame was wanted for reading, and was in memory, or was not.
	Frame func(hit bool)
	// Read: plain bytes of chunks were read and checked, or given in their frame, for whoever
	// opens it to check.
	Read func(bytes int)
}

// A PutEvent says what became of a Put.
type PutEvent struct {
	Datasets  int
	Unchanged int           // of them
	Bytes     uint64        // plain bytes of all datasets
	New       uint64        // plain bytes that were not stored before
	Stored    uint64        // bytes that these took in packs
	Took      time.Duration // all of the call
	Err       error         // if it failed; then the sizes are zero
}
