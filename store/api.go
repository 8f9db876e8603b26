package store

import (
	"context"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// Options configures Open. The zero value is the production default.
type Options struct {
	// WaitLock is how long Open waits while another process owns the store.
	WaitLock time.Duration
	// Command is what a waiting process is told about this one; default os.Args[0].
	Command string
	// Level is the compression of frames written by this process.
	Level compress.Level
	// FrameSize is the plain size at which a frame is closed, in bytes; 0 means what the
	// store was made with. See InitOptions.
	FrameSize int
	// CheckFrames decodes every frame just sealed and compares before it is written.
	CheckFrames bool
	// Floor is the free space, in bytes, below which nothing is written; 0 means 32 MiB.
	Floor int64
	// Cache bounds the decoded frames kept for reads, in bytes; 0 means 32 MiB.
	Cache int64
	// Wide bounds, in bytes, what all reads together hold besides where data is read in another
	// order than it was stored in, so that no frame is decoded again for every chunk; 0 means
	// DefaultWide, less than 16 MiB nothing.
	Wide int64
	// SortMemory bounds what a put or a walk through a dataset holds of the names of the
	// directories that it is in, in bytes; 0 means 8 MiB. A put of a directory on disk
	// holds twice as much. What is more is sorted in a file without a name in the
	// store's directory.
	SortMemory int
	// TempDir is where reading sorts large directories when the store's file system has
	// less than 1 GiB of room and this one more; empty means nowhere else.
	TempDir string
	// FileCache is a directory, made when it is missing, where Put
	// remembers what the files of trees on disk were made of: see Input.Rescan. Any number of
	// stores and processes of one user may share it. Empty has every file read each time.
	FileCache string
	// Logger receives diagnostics; nil discards them.
	Logger *slog.Logger
	// WrapKV and WrapPacks let tests put faults between the engine and its parts.
	WrapKV    func(kv.Store) kv.Store
	WrapPacks func(pack.Store) pack.Store
	// Now is the clock of entries; nil is time.Now.
	Now func() time.Time
	// Observer is told what the store does.
	Observer Observer
	// Seen, if set, asks the chains and witnesses that can be reached for the size of the
	// largest ledger that the log's key was seen to have signed, 0 for none. It is asked
	// once, before the first append by a process that finds the store not closed or put
	// back from a copy, and has a few seconds. A larger one than is here ends appending;
	// an error does not.
	Seen func(ctx context.Context) (size int64, err error)

	bulk bool // for a Restore: nothing is durable before Close
}

// InitOptions configures Init.
type InitOptions struct {
	// Origin is the log's name (C2SP checkpoint origin), at most 100 bytes.
	// Empty makes a unique one.
	Origin string
	// FrameSize is how many plain bytes are compressed together, at most: MinFrame to
	// MaxFrame; 0 means 4 MiB. Reading a few bytes decodes all that is before them in their
	// frame, so small frames make small ranges fast, and compress less.
	FrameSize int
	// Successor, if set, has entry 0 name the log that this one carries on.
	Successor *Successor
}

// A Successor is what a new log says of the one before it.
type Successor struct {
	Checkpoint []byte // the old log's last one, as it was signed
	VKey       string // the old log's public key
}

// A Source is a dataset that comes piece by piece.
type (
	Source      = ingest.Source
	SourceEntry = ingest.SourceEntry
	// A Chunk is a run of bytes by its digest and size.
	Chunk = ingest.Chunk
)

// An Input is one dataset to put. Exactly one of Reader, Path, Source and Known is set.
type Input struct {
	// Name of the dataset; see ledger.CheckName.
	Name string
	// Reader is a single stream.
	Reader io.Reader
	// Path is a file or a directory; a symbolic link is followed.
	Path string
	// Source is a tree or a file that comes piece by piece. Its names, modes, order and
	// so on are checked.
	Source Source
	// Known is the CID of a dataset that is in the ledger already, under any name, with
	// the same Profile and Times: it gets an entry under Name too. What is not there is
	// ErrNotFound.
	Known cid.Cid
	// Heal stores the blocks of a dataset that the ledger has an entry of, and appends
	// nothing: they were lost, or the ledger was restored without them. The dataset comes
	// with the Profile and Times of that entry; Name may be empty. If no entry has its root
	// and commitment, under Name if there is one, that is ErrMismatch. It works where
	// the ledger was restored and does not append. All or none of a put are healed.
	Heal bool
	// Curator signs the entry; nil is that of PutOptions.
	Curator Signer
	// Root, if defined, is the CID that the dataset must have; if it has another one
	// the put fails with ErrMismatch and nothing is recorded.
	Root cid.Cid
	// Profile is the profile's name; empty means dag.DefaultProfile.
	Profile string
	// Parents are further entries this dataset derives from, by entry index.
	Parents []int64
	// Times records modification times.
	Times bool
	// Exclude holds globs as fstree.Options takes them.
	Exclude []string
	// SkipUnreadable leaves out files that cannot be read or that change while they
	// are read, instead of failing.
	SkipUnreadable bool
	// Rescan reads every file of Path. Otherwise a file that has the path, device, inode,
	// size, modification and change time that it had when it was last put from there with
	// the same Profile and Options.FileCache is taken to have the same content and is not read again, as long as
	// all of its chunks are stored. Of a file that had just changed then, that is not
	// believed. Heal implies Rescan. See package filecache for what that trusts.
	Rescan bool
}

// PutOptions configures one Put.
type PutOptions struct {
	// Curator signs the entries; nil is the store's own curator key.
	Curator Signer
	// Progress, if set, is called now and then from one goroutine at a time.
	Progress func(Progress)
}

// A Signer signs entries with a curator's Ed25519 key.
type Signer interface {
	Curator() ledger.CuratorKey
	SignEntry(e *ledger.Entry, id ledger.LogID) error
}

// Progress of a running put or get.
type Progress struct {
	Bytes  uint64 // plain bytes so far
	Files  uint64
	Unread uint64 // of Bytes, those of files that a put did not read again: see Input.Rescan
	Total  uint64 // plain bytes expected; 0 when unknown
	Sent   uint64 // compressed bytes that went to a node
}

// A Dataset is a ledger entry of kind dataset with what the store knows about it.
type Dataset struct {
	Name       string
	Version    int // 1 is the first put under this name
	CID        cid.Cid
	Kind       dag.Kind // KindFile or KindDir; 0 if it was restored without its blocks
	Profile    string
	Size       uint64 // plain bytes of all files
	Files      uint64 // regular files
	Leaves     uint64 // leaves of the file tree: files, links and empty directories
	Chunks     uint64
	NewBytes   uint64 // plain bytes that were not stored before this put
	Stored     uint64 // bytes these took in packs
	Commitment dag.Hash
	Times      bool
	Entry      int64 // index in the ledger
	EntryCID   cid.Cid
	Parents    []cid.Cid
	Previous   int64 // index of the previous version of the name, -1 for none
	Time       time.Time
	Curator    ledger.CuratorKey
}

// A PutResult says what became of one Input.
type PutResult struct {
	Dataset
	Unchanged bool // the newest version was this very dataset, of the curator asked for; nothing was appended
	TreeSize  int64
	Unread    uint64 // plain bytes of files that were not read again: see Input.Rescan
	Skipped   []Skipped
}

// Skipped is something in a tree that was not put.
type Skipped struct {
	Path    string
	Why     error
	Special bool // a device, socket or pipe: expected, not a fault
}

// An Object is what a reference names: a dataset and a place in it.
type Object struct {
	Dataset Dataset
	Path    string // inside the dataset; "" is the dataset itself
	CID     cid.Cid
	Info    dag.Info // Size is known, and for the dataset itself that of all files
}

// A Range is a half-open byte range of a file. A To past the end means the end.
type Range struct{ From, To uint64 }

// ToEnd as the To of a Range reaches to the end of any file.
const ToEnd = math.MaxUint64

// An Entry is one element of a listing inside a dataset.
type Entry struct {
	Path string // relative to what was listed
	CID  cid.Cid
	Info dag.Info
}

// A Visitor receives a tree in canonical order: directories before their contents.
type Visitor interface {
	Dir(path string, a dag.Attr) error
	Link(path, target string, a dag.Attr) error
	// File returns where the file's bytes go; Close ends the file.
	File(path string, a dag.Attr, size uint64) (io.WriteCloser, error)
}

// Totals describes a whole store, in bytes.
type Totals struct {
	Datasets    int64  // entries of kind dataset
	Logical     uint64 // sum of the sizes of all datasets, every version counted
	Unique      uint64 // plain bytes stored once
	Packed      uint64 // what these take in packs
	Stored      uint64 // all the store takes on disk
	Reclaimable uint64 // bytes in packs that no entry reaches
	Chunks      uint64
	TreeSize    int64
}

// ProveOptions says what a proof is to cover.
type ProveOptions struct {
	Range    *Range // of a file
	Manifest bool   // of a dataset: carry the file leaves
	// ManifestBytes bounds what the leaves take in memory, making the proof file takes three
	// times that; beyond it Prove fails with ErrManifest. 0 is no bound.
	ManifestBytes uint64
	// At is the size of the checkpoint against which is proven: one that was signed, and
	// that covers the entry; else ErrNotFound or ErrInvalid. 0 is the newest.
	At int64
}

// Published is the ledger as readers see it.
type Published struct {
	Size       int64
	Root       [32]byte
	Checkpoint []byte // the signed note
}

var _ dag.Reader = (*Store)(nil)
