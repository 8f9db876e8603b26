// Package kv is the contract between the storage engine and the ordered
// key-value store that holds everything it looks up.
//
// The engine needs little: point lookups, ordered scans of a prefix and one
// atomic, durable commit at a time. Package storetest holds the conformance
// suite that every implementation passes, and a store that fails on demand.
package kv

import (
	"context"
	"errors"
	"iter"
)

var (
	// ErrNotFound reports a key that the store does not hold.
	ErrNotFound = errors.New("key not found")
	// ErrCorrupt reports files that do not hold what was written to them.
	ErrCorrupt = errors.New("key-value store is corrupt")
	// ErrTooLarge reports a key, a value or a batch beyond the limits. Nothing of
	// the batch was written, and the store can go on.
	ErrTooLarge = errors.New("beyond the limits of the key-value store")
	// ErrNoSpace reports a file system that is full.
	ErrNoSpace = errors.New("no space left for the key-value store")
	// ErrClosed reports a store that was closed.
	ErrClosed = errors.New("key-value store is closed")
)

// Limits that every implementation accepts and enforces. Sizes are bytes.
const (
	MaxKey        = 160       // length of a key, at least 1
	MaxValue      = 256 << 10 // length of a value, which may be empty
	MaxBatchRows  = 8192      // sets and deletes of one batch
	MaxBatchBytes = 1 << 20   // keys and values of one batch
)

// A Row is a key with its value. It is valid until the iteration that yielded
// it goes on.
type Row struct {
	Key, Value []byte
}

// A Store is an ordered map from keys to values, both byte strings.
//
// Keys MUST have 1 to MaxKey bytes and MUST NOT begin with '!', which is left
// to implementations. Order is bytewise.
//
// All methods MUST be safe for concurrent use. A method called after Close, or
// while Close waits, returns ErrClosed. Readers see the rows of a commit all at
// once, no earlier than the commit is durable and no later than Commit returns;
// rows of a commit that failed MUST NOT be seen before the store is reopened.
//
// Rows that are damaged on disk MUST give an error that wraps ErrCorrupt or
// read as absent, never a wrong value and never a panic. An implementation MAY
// lose the newest commits to damage without noticing, so a caller that must
// know keeps a high-water mark of its own.
type Store interface {
	Reader

	// Snapshot returns the rows as they are now, whatever is committed later. It holds
	// back the space of rows that are replaced while it is open, and MUST be closed. It does not
	// keep the store from being closed: then its methods return ErrClosed.
	Snapshot() (Snapshot, error)

	// Commit applies the batch atomically: after a crash all of it is there or
	// nothing. When it returns nil the rows are on stable storage. It does not
	// keep the batch. Batches over the limits give ErrTooLarge and a full disk
	// that was noticed beforehand ErrNoSpace: then nothing was written. After any
	// other error the outcome is unknown, and this and every later Commit MUST
	// fail until the store is reopened, while reads MAY go on.
	Commit(ctx context.Context, b *Batch) error

	// Size returns the bytes that the store's files allocate on disk.
	Size() (int64, error)

	// Close waits for the calls in flight, scans included, and frees the store.
	// What was committed is durable without it. Closing twice is harmless.
	Close() error
}

// A Reader looks rows up.
type Reader interface {
	// Get appends the value of key to dst, or returns ErrNotFound and dst as it
	// was. It MUST NOT keep key.
	Get(ctx context.Context, key, dst []byte) ([]byte, error)

	// Has says whether key is there. A miss SHOULD cost no disk access.
	Has(ctx context.Context, key []byte) (bool, error)

	// Scan yields the rows whose key begins with prefix and is not less than
	// from, in ascending order, as they were at one moment not before the
	// iteration began. A nil from starts at prefix. The error, if any, comes
	// last. The loop body MAY call any method but Close.
	Scan(ctx context.Context, prefix, from []byte) iter.Seq2[Row, error]

	// Last returns the row with the greatest key that begins with prefix, or
	// ErrNotFound. The row belongs to the caller.
	Last(ctx context.Context, prefix []byte) (Row, error)
}

// A Snapshot is a Reader of one moment. Its methods are safe for concurrent use.
type Snapshot interface {
	Reader

	// Close gives the snapshot up. Calls after it return ErrClosed. Closing twice is
	// harmless.
	Close()
}
