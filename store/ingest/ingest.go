// Package ingest is the way of a dataset's bytes into blocks: it reads a stream, a
// tree on disk or a tree that comes piece by piece, cuts it into chunks, hashes them,
// asks which of them are known, hands over the others and builds DAG and commitment.
//
// Where chunks are known and where new ones go is the caller's: the engine asks its
// index and writes packs, a client asks a node and sends frames. [Pools] bound the
// memory of all datasets under way together, [Frames] that of frames being sealed.
//
// A reader that is slow holds up its own dataset and nobody else's: what is shared is
// held only while the bytes are at hand.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/koii-network/scale/dag"
)

var (
	// ErrMissing reports chunks that a dataset names and that are not stored. See
	// MissingError.
	ErrMissing = errors.New("chunks are missing")
	// ErrInvalid reports a Source that is no dataset, or an option that makes no sense.
	ErrInvalid = errors.New("not a valid dataset")
)

// MaxMissing is the most digests that a MissingError lists.
const MaxMissing = 1000

// A MissingError lists chunks that a dataset names by digest and that are not stored
// with the size it gives them.
type MissingError struct {
	Digests []dag.Digest // the first ones, at most MaxMissing, each once
	Sizes   []uint32     // with which the dataset names them, or nil
}

func (e *MissingError) Error() string {
	n := fmt.Sprint(len(e.Digests))
	if len(e.Digests) >= MaxMissing {
		n = "at least " + n
	}
	return fmt.Sprintf("%s chunks that the dataset names are not stored, the first is %v: send them and put again", n, e.Digests[0])
}

func (e *MissingError) Unwrap() error { return ErrMissing }

// A Chunk is a run of bytes by its SHA-256 and its length in bytes.
type Chunk struct {
	Digest dag.Digest
	Size   uint32
}

// A Source is a dataset that comes piece by piece, from one goroutine.
type Source interface {
	// Next returns the next entry: the root first, then in canonical order (see
	// dag.TreeBuilder), and io.EOF after the last. What is left of the body or the
	// chunks of the entry before is not read any more.
	Next(ctx context.Context) (*SourceEntry, error)
}

// A SourceEntry is an entry of a Source. The first one has an empty path and says
// whether the dataset is a tree (KindDir) or a single file (KindFile), which then is
// its only entry.
type SourceEntry struct {
	Path   string // relative, with slashes
	Kind   dag.Kind
	Attr   dag.Attr
	Target string // of a link
	// Body holds the bytes of a file; nil for an empty one.
	Body io.Reader
	// Chunks names the bytes of a file instead, in order: chunks that are stored
	// already, as the profile's chunker cuts them. Those that are not stored with that
	// size give a MissingError when the source has ended.
	Chunks iter.Seq2[Chunk, error]
}
