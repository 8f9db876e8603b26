package ledger

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipld/go-ipld-prime/datamodel"
	"golang.org/x/mod/sumdb/note"
)

// MaxPredecessor bounds a checkpoint that names the log before, in bytes. One with the
// log's own signature alone is always within it.
const MaxPredecessor = 512

// checkPredecessor holds the form of a predecessor: it is in entry 0 only, and is the
// checkpoint of a log with something in it, with the log's own signature alone.
func (e *Entry) checkPredecessor() error {
	if len(e.Predecessor) == 0 {
		return nil
	}
	if e.Policy != -1 {
		return errors.New("only entry 0 can have one")
	}
	if len(e.Predecessor) > MaxPredecessor {
		return fmt.Errorf("%d bytes, limit %d", len(e.Predecessor), MaxPredecessor)
	}
	c, lines, err := ParseCheckpointUnverified(e.Predecessor)
	if err != nil {
		return err
	}
	if c.Size < 1 || len(lines) != 1 {
		return fmt.Errorf("a checkpoint of %d entries with %d signatures, must be of at least one with the log's own", c.Size, len(lines))
	}
	return nil
}

// CheckSuccession returns ErrFormat if the entry names the log that it is in as the
// one before.
func (e *Entry) CheckSuccession(id LogID) error {
	if len(e.Predecessor) == 0 {
		return nil
	}
	c, lines, err := ParseCheckpointUnverified(e.Predecessor)
	if err != nil {
		return err
	}
	if old := (LogID{Origin: c.Origin, KeyID: lines[0].Hash}); old == id {
		return fmt.Errorf("%w: log %v cannot be its own predecessor", ErrFormat, id)
	}
	return nil
}

// OpenPredecessor returns the last checkpoint of the log that this one carries on.
// ErrSignature says that it is not signed by the key given: the entry's curator claims
// the succession, and only the old log's key shows that the old log was as it says.
func (e *Entry) OpenPredecessor(v note.Verifier) (Checkpoint, error) {
	if len(e.Predecessor) == 0 {
		return Checkpoint{}, fmt.Errorf("%w: the entry names no log before", ErrFormat)
	}
	return OpenCheckpoint(e.Predecessor, v)
}

// optional reads bytes that may be absent: nil. There is no other form of none.
func (f *fields) optional(key string, limit int) (v []byte) {
	if _, err := f.n.LookupByString(key); err != nil {
		return nil
	}
	f.get(key, func(n datamodel.Node) error {
		b, err := n.AsBytes()
		if err == nil && (len(b) == 0 || len(b) > limit) {
			err = fmt.Errorf("%d bytes, must be 1 to %d", len(b), limit)
		}
		v = bytes.Clone(b)
		return err
	})
	return v
}
