package store

import (
	"errors"
	"fmt"

	"github.com/koii-network/scale/store/ingest"
)

// The store's error classes. Errors wrap one of them and say what was attempted,
// on what, and what to do next; callers use errors.Is.
var (
	// ErrNotFound: the store, name, version, CID, entry or path does not exist.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt: stored bytes are missing, short or do not match their digest.
	ErrCorrupt = errors.New("corrupt")
	// ErrConflict: the ledger moved on; build the entry again and retry.
	ErrConflict = errors.New("conflict")
	// ErrBusy: another process owns the store. See LockedError.
	ErrBusy = errors.New("store is in use")
	// ErrFormat: the store was written in a format this build does not know.
	ErrFormat = errors.New("unknown format")
	// ErrNoSpace: the free-space floor would be passed. Nothing was recorded; reads go on.
	ErrNoSpace = errors.New("no space left")
	// ErrReadOnly: the store reads but does not append; the message says why.
	ErrReadOnly = errors.New("store is read-only")
	// ErrInvalid: an argument makes no sense (a bad name, reference or range).
	ErrInvalid = errors.New("invalid argument")
	// ErrKeys: a key file is missing, malformed or readable by others.
	ErrKeys = errors.New("key not usable")
	// ErrExists: Init found a store, or something else, in the way.
	ErrExists = errors.New("exists already")
	// ErrStopped: a commit failed with unknown outcome. Reopen the store to recover.
	ErrStopped = errors.New("store stopped appending")
	// ErrMismatch: something is not what its digest, its CID or the entry signed for it says.
	ErrMismatch = errors.New("mismatch")
	// ErrLastCurator: the last curator of a policy cannot be removed.
	ErrLastCurator = errors.New("the last curator cannot be removed")
	// ErrManifest: a manifest is larger than ProveOptions.ManifestBytes.
	ErrManifest = errors.New("manifest too large")
	// ErrMissing: a dataset names chunks that are not stored. See MissingError.
	ErrMissing = ingest.ErrMissing
)

// A MissingError lists the chunks that a dataset names and that are not stored.
type MissingError = ingest.MissingError

// A LockedError names the process that owns a store.
type LockedError struct {
	Dir     string
	PID     int    // 0 when it could not be read
	Command string // as the owner wrote it
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("store %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("store %s is in use by process %d (%s)", e.Dir, e.PID, e.Command)
}

func (e *LockedError) Unwrap() error { return ErrBusy }

// A ChunkError reports a chunk of stored data that cannot be given back.
type ChunkError struct {
	CID string // of the chunk, a raw block
	Err error
}

func (e *ChunkError) Error() string { return fmt.Sprintf("chunk %s: %v", e.CID, e.Err) }
func (e *ChunkError) Unwrap() error { return e.Err }
