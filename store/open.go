package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/semaphore"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/badgerkv"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
	"github.com/koii-network/scale/store/rowpack"
)

// A Store is an open store directory. It is safe for concurrent use.
type Store struct {
	dir      string
	format   int // of its layout
	opt      Options
	log      *slog.Logger
	lock     *Lock
	kv       kv.Store
	packs    pack.Store
	opener   *compress.Opener
	packer   *rowpack.Packer
	buffers  rowBuffers
	verifier note.Verifier
	vkey     string
	frames   *frameCache
	wide     *semaphore.Weighted // bytes for wide batches
	pools    *ingest.Pools
	writer   *writer
	openers  openers
	looked   atomic.Pointer[lookedUp] // nil before the first Missing
	absent   absence

	prover     *dag.Prover    // of leaves and chunks
	inclusions *ledger.Prover // of entries

	// published is what readers see; only a commit that went all the way moves it.
	published atomic.Pointer[state]
	// doubt says why nothing may be appended, or is nil. Set at open.
	doubt error

	// frozen says why the ledger does not grow though blocks may be stored, or is nil;
	// restored is how many of the first entries came without their blocks. Set at open.
	frozen   error
	restored int64

	// behind is set when a chain was found to know a larger ledger.
	behind atomic.Pointer[error]

	clean bool // the one who appended last closed the store
	begun bool // something was appended, or is about to be; guarded by commitMu

	// stopped is set by a commit whose outcome is unknown.
	stopped atomic.Pointer[error]

	closed bool // by Close, which has no company

	keys keyCache

	commitMu   sync.Mutex // one commit at a time
	queueMu    sync.Mutex
	queue      []*commitRequest // guarded by queueMu, like what follows
	committing bool             // somebody commits, or was told to
	coming     int              // requests that are about to be queued
	allQueued  chan struct{}    // closed when there are none any more; nil if nobody waits
	claimed    map[string]bool  // names of entries that are signed ahead and on their way
	names      nameCache

	indexMu sync.Mutex // one flush of index rows at a time
	totals  tally      // guarded by indexMu
}

// Open takes ownership of the store in dir. When Open returns, the ledger's
// right edge has been recomputed and compared with its signed checkpoint and with
// the high-water mark; if they do not agree the store opens for reading only, and
// Doubt says why.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := plainFiles(dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	c, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	return open(ctx, dir, o, c, false)
}

// plainFiles refuses a store with links, pipes or the like where files belong. A store
// may come from a stranger, and its files are opened, cut and replaced by name.
func plainFiles(dir string) error {
	for _, sub := range []string{"", kvDir, packsDir, keysDir} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			if sub == "" || !Exists(dir) {
				return fmt.Errorf("no store in %s: %w", dir, ErrNotFound)
			}
			if sub != keysDir { // which reading does without
				return fmt.Errorf("%s is missing: %w", filepath.Join(dir, sub), ErrCorrupt)
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			t := e.Type()
			if sub == "" && e.Name() == SocketFile && t == fs.ModeSocket {
				continue // of the process that owns the store, or did
			}
			if !t.IsRegular() && (sub != "" || !t.IsDir()) {
				return fmt.Errorf("%s is not a regular file but %v: %w", filepath.Join(dir, sub, e.Name()), t, ErrCorrupt)
			}
		}
	}
	return nil
}

// defaultFrame is the plain size at which frames are closed. Measured at the default
// level, from 1 MiB to 4 MiB JSON lines shrink by another 4 % and source code by 3 %;
// a range in a frame costs the decoding of all that is before it, up to 3 ms.
const defaultFrame = MaxFrame

// Limits of the size of frames that a store is made with.
const (
	MinFrame = 64 << 10
	MaxFrame = compress.MaxPlain
)

func (o *Options) setDefaults() error {
	if o.Command == "" {
		o.Command = filepath.Base(os.Args[0])
	}
	if o.FrameSize == 0 {
		o.FrameSize = defaultFrame
	}
	if o.FrameSize < 0 || o.FrameSize > compress.MaxPlain {
		return fmt.Errorf("frame size %d is not between 1 and %d: %w", o.FrameSize, compress.MaxPlain, ErrInvalid)
	}
	if o.Floor == 0 {
		o.Floor = defaultFloor
	}
	if o.Cache == 0 {
		o.Cache = 32 << 20
	}
	if o.Wide == 0 {
		o.Wide = DefaultWide
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

func open(ctx context.Context, dir string, o Options, c config, fresh bool) (_ *Store, err error) {
	if o.FrameSize == 0 {
		o.FrameSize = c.FrameSize
	}
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, format: c.Format, opt: o, log: o.Logger, vkey: c.VKey, frames: newFrameCache(o.Cache)}
	s.wide = semaphore.NewWeighted(o.Wide)
	s.prover, s.inclusions = dag.NewProver(s, proverBytes), ledger.NewProver(tiles{s})
	s.pools = ingest.NewPools(ingest.PoolOptions{})
	s.openers.slots = make(chan struct{}, ingest.Workers())
	if s.verifier, err = note.NewVerifier(c.VKey); err != nil {
		return nil, fmt.Errorf("the log's public key in %s: %w (%v)", filepath.Join(dir, configFile), ErrCorrupt, err)
	}
	if s.verifier.Name() != c.Origin {
		return nil, fmt.Errorf("%s: origin and vkey do not agree: %w", filepath.Join(dir, configFile), ErrCorrupt)
	}
	if s.lock, err = AcquireLock(ctx, dir, o.WaitLock, o.Command); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := trimBallast(dir, o.Floor); err != nil {
		s.log.Warn("ballast", "err", err)
	}
	if s.opener, err = compress.NewOpener(); err != nil {
		return nil, err
	}
	if s.packer, err = rowpack.New(s.opener); err != nil {
		return nil, err
	}
	db, err := badgerkv.Open(filepath.Join(dir, kvDir), badgerkv.Options{Logger: o.Logger, Bulk: o.bulk})
	if err != nil {
		return nil, fmt.Errorf("open the index of store %s: %w", dir, storeError(err))
	}
	s.kv = db
	if o.WrapKV != nil {
		s.kv = o.WrapKV(db)
	}
	s.clean = closedCleanly(dir)
	if err := s.loadRestored(ctx); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	tail, err := s.loadTail(ctx)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	if err := s.loadAbsence(ctx); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	files, err := pack.Open(filepath.Join(dir, packsDir), pack.Options{ReadOnly: s.doubt != nil}, tail)
	if err != nil {
		return nil, fmt.Errorf("open the packs of store %s: %w", dir, storeError(err))
	}
	s.packs = files
	if o.WrapPacks != nil {
		s.packs = o.WrapPacks(files)
	}
	if s.writer, err = s.newWriter(); err != nil {
		return nil, err
	}
	if s.doubt == nil {
		if err := s.checkTail(ctx, tail); err != nil {
			s.doubt = s.doubtf("the end of its packs is not the one it recorded last: %v", err)
		}
	}
	if err := s.loadState(ctx, fresh); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

// Close flushes and gives the directory up. It must not run beside other calls.
// Closing again does nothing.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	if s.writer != nil {
		s.writer.drain()
	}
	if s.packs != nil {
		errs = append(errs, s.packs.Close())
	}
	if s.kv != nil {
		errs = append(errs, s.kv.Close())
	}
	if s.opener != nil {
		s.opener.Close()
	}
	if s.begun && s.stopped.Load() == nil && errors.Join(errs...) == nil {
		if err := markClosed(s.dir); err != nil {
			s.log.Warn("the store is closed, but cannot be marked so", "err", err)
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, storeError(err))
	}
	return nil
}

// Doubt returns nil, or why the store reads but does not append.
func (s *Store) Doubt() error {
	if p := s.behind.Load(); p != nil && s.doubt == nil {
		return *p
	}
	if s.doubt == nil {
		return s.frozen
	}
	return s.doubt
}

// Stopped returns nil, or why the store has stopped appending since it was opened: an
// error of class ErrStopped.
func (s *Store) Stopped() error {
	if p := s.stopped.Load(); p != nil {
		return *p
	}
	return nil
}

// Dir returns the store's directory, an absolute path.
func (s *Store) Dir() string { return s.dir }

// VerifierKey returns the log's public key, as verifiers take it.
func (s *Store) VerifierKey() string { return s.vkey }

// Origin returns the log's name.
func (s *Store) Origin() string { return s.verifier.Name() }

// LogID returns what entries of this log are bound to.
func (s *Store) LogID() ledger.LogID {
	return ledger.LogID{Origin: s.verifier.Name(), KeyID: s.verifier.KeyHash()}
}

// loadAbsence lets absence begin if there are no rows of chunks. The totals are committed
// with the first of them; where they say that there are none, it is looked at.
func (s *Store) loadAbsence(ctx context.Context) error {
	if s.totals != (tally{}) {
		return nil
	}
	for _, err := range s.kv.Scan(ctx, []byte{rowChunk}, nil) {
		return storeError(err) // nil where there is a row
	}
	s.absent.begin()
	return nil
}

func (s *Store) loadTail(ctx context.Context) (pack.Tail, error) {
	b, err := s.kv.Get(ctx, []byte{rowTotals}, nil)
	switch {
	case errors.Is(err, kv.ErrNotFound):
	case err != nil:
		return pack.Tail{}, storeError(err)
	default:
		if s.totals, err = parseTally(b); err != nil {
			return pack.Tail{}, err
		}
	}
	b, err = s.kv.Get(ctx, []byte{rowTail}, nil)
	if errors.Is(err, kv.ErrNotFound) {
		if s.totals != (tally{}) {
			// Appending would cut off all that is in the packs.
			s.doubt = s.doubtf("the row that says where its packs end is missing")
		}
		return pack.Tail{}, nil
	}
	if err != nil {
		return pack.Tail{}, storeError(err)
	}
	v, err := uvarints(b, 2)
	if err != nil {
		return pack.Tail{}, fmt.Errorf("end of packs: %w", err)
	}
	return pack.Tail{Pack: uint32(v[0]), End: v[1]}, nil
}

// appendable returns why nothing may be appended, or nil.
func (s *Store) appendable() error {
	if err := s.writable(); err != nil {
		return err
	}
	if p := s.behind.Load(); p != nil {
		return *p
	}
	return s.frozen
}

// writable returns why no blocks may be stored, or nil.
func (s *Store) writable() error {
	if s.doubt != nil {
		return s.doubt
	}
	if p := s.stopped.Load(); p != nil {
		return *p
	}
	return nil
}

// stop ends appending after a write whose outcome is unknown: what is on disk may
// differ from what is in memory until the store is opened again. A write that was
// refused for lack of space is known not to have happened.
func (s *Store) stop(err error) error {
	if errors.Is(err, kv.ErrNoSpace) || errors.Is(err, kv.ErrTooLarge) {
		return storeError(err)
	}
	e := fmt.Errorf("%w: %w; open the store again to recover", ErrStopped, storeError(err))
	s.stopped.CompareAndSwap(nil, &e)
	s.log.Error("store stopped", "err", err)
	return e
}

// storeError maps the parts' error classes to the store's.
func storeError(err error) error {
	for _, m := range [...]struct{ from, to error }{
		{kv.ErrNoSpace, ErrNoSpace}, {pack.ErrNoSpace, ErrNoSpace},
		{kv.ErrCorrupt, ErrCorrupt}, {pack.ErrCorrupt, ErrCorrupt}, {compress.ErrCorrupt, ErrCorrupt}, {rowpack.ErrCorrupt, ErrCorrupt},
		{ledger.ErrCorrupt, ErrCorrupt}, {ledger.ErrConflict, ErrConflict}, {kv.ErrNotFound, ErrNotFound},
		{dag.ErrNotFound, ErrNotFound}, {dag.ErrPath, ErrInvalid}, {dag.ErrRange, ErrInvalid}, {dag.ErrFormat, ErrCorrupt},
		{dag.ErrCorrupt, ErrCorrupt},
	} {
		if errors.Is(err, m.from) && !errors.Is(err, m.to) {
			return fmt.Errorf("%w: %w", m.to, err)
		}
	}
	return err
}
