// Package badgerkv keeps the engine's rows in Badger. It is the only importer
// of Badger.
//
// Rows live in Badger's LSM tree alone: the value log stays empty. Every commit
// is one transaction, synced before it is answered.
//
// # Damage
//
// Badger starts goroutines in which a panic ends the process, deletes tables
// that a damaged MANIFEST does not list, takes a damaged log for a torn write and
// reads a damaged block as absent rows. So Open reads the files itself first (see
// verify and walFile) and refuses with kv.ErrCorrupt what does not match its
// checksums and what lacks a commit. Left are:
//
//   - The last commit of a store that was not closed: a byte flipped in it, or
//     the loss of the log that begins with it, looks like a crash before it was
//     finished. It is gone without an error, and only it. A mark kept elsewhere,
//     as the engine has one, tells.
//   - Stores of more than verifyBytes: the older tables are not read at Open. A
//     damaged block there reads as absent rows or as kv.ErrCorrupt, or ends the
//     process when a compaction meets it. The same holds for damage done while
//     the store is open.
package badgerkv

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store/kv"
)

// Options tune a store. The zero value is the production default.
type Options struct {
	// Logger gets Badger's messages, all at debug level. nil means slog.Default.
	Logger *slog.Logger
	// Bulk is for filling a store that nobody relies on before Close has returned nil: only
	// then its commits are durable, and a crash may leave anything. Rows are moved to
	// their last level at once, which takes as much space again as they do.
	Bulk bool
}

const (
	// memTable is the size of the table in memory that takes commits, and of its
	// log: the least that takes a batch of kv.MaxBatchBytes, as Badger allows 15 %
	// of it. It must never shrink: Badger ends the process when it replays a log
	// that does not fit.
	memTable = 8 << 20
	// Badger builds tables in buffers, of which it keeps up to eight as large as
	// there ever was one, and a row that is longer than a block costs them several
	// times its length. So memory is bounded by a small memtable and blocks that
	// hold a DAG node of 256 links: rows of 12 kB at 10 MB/s take 65 MB, where
	// 16 MiB and Badger's 4 KiB took 190 MB.
	blockSize = 16 << 10
	// Most look-ups of a put are of new chunks, in ten tables or so: each filter that is
	// wrong costs the checksum of a block. A row takes 0.6 bytes more than with 1 %.
	bloom = 0.001
)

// A KV is a kv.Store on Badger.
type KV struct {
	dir     string
	dirLock *os.File // dir, locked
	db      *badger.DB
	lk      lock
	// committed is the timestamp of the newest commit that is durable. Readers
	// read at it, so they never see half a commit or one that failed.
	committed atomic.Uint64
	lookups   atomic.Uint64 // counts towards trim
	mapsName  []byte        // how names of files in dir begin in /proc/self/maps
	unwatch   func()        // ends the trimming beside the calls

	mu     sync.Mutex // held by Commit
	broken error      // why commits have stopped; guarded by mu
	room   room       // guarded by mu
	log    uint32     // number of the log that takes commits; guarded by mu
	// reserved and next say that blocks were allocated for that log, and for the one
	// behind it, whose file is there; guarded by mu.
	reserved, next bool
	// pinned counts the open snapshots of each timestamp; guarded by mu.
	pinned map[uint64]int
}

var _ kv.Store = (*KV)(nil)

// Open opens the store in dir, which is made when it is missing (its parent
// must exist). Damage gives kv.ErrCorrupt, a full disk kv.ErrNoSpace.
func Open(dir string, o Options) (_ *KV, err error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("badgerkv: open: %w", err)
	}
	s := &KV{dir: dir, mapsName: []byte(abs + "/")}
	if s.dirLock, err = lockDir(dir); err != nil {
		return nil, fmt.Errorf("badgerkv: open: %w", noSpace(err))
	}
	defer func() {
		if err != nil {
			s.dirLock.Close()
		}
	}()
	found, err := verify(dir)
	if err != nil {
		return nil, fmt.Errorf("badgerkv: open %s: %w", dir, err)
	}
	s.room = room{dir: dir, tables: found.tableBytes, bulk: o.Bulk, statfs: unix.Statfs}
	for _, w := range found.logs {
		s.room.written += w.end
	}
	if err := s.room.check(s.room.forOpen()); err != nil {
		return nil, fmt.Errorf("badgerkv: open %s: %w", dir, err)
	}
	if err := found.tidy(); err != nil {
		return nil, fmt.Errorf("badgerkv: open: %w", err)
	}
	bo := badgerOptions(dir, o.Logger)
	if s.room.check(s.room.forCommit(0)) != nil {
		// No commit will be taken, but reads go on: nothing must be compacted either.
		bo = bo.WithNumCompactors(0).WithNumLevelZeroTablesStall(math.MaxInt32)
	} else if o.Bulk {
		bo = bulkOptions(bo)
	} else if found.l0Tables >= l0Close {
		bo = bo.WithCompactL0OnClose(true)
	}
	if s.db, err = openBadger(bo); err != nil {
		return nil, fmt.Errorf("badgerkv: open %s: %w", dir, err)
	}
	ticker := time.NewTicker(trimEvery)
	stop := watch(ticker.C, s.trim)
	s.unwatch = func() { ticker.Stop(); stop() }
	s.committed.Store(s.db.MaxVersion())
	s.db.SetDiscardTs(s.committed.Load())
	s.log = 1 // Badger numbers a new log one above those it finds
	if n := len(found.logs); n > 0 {
		s.log = found.logs[n-1].fid + 1
	}
	return s, nil
}

// lockDir makes dir if need be and takes the lock on it that Badger would take.
func lockDir(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s is in use: %w", dir, err)
	}
	return d, nil
}

func badgerOptions(dir string, l *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(logger{l}).
		WithMetricsEnabled(false).
		WithBypassLockGuard(true). // we hold the lock
		WithSyncWrites(true).
		WithDetectConflicts(false). // commits are serial
		WithMemTableSize(memTable).
		WithNumMemtables(1).
		WithBlockSize(blockSize).
		WithBloomFalsePositive(bloom).
		WithValueThreshold(kv.MaxValue + 1).
		WithValueLogFileSize(1 << 20). // the least: nothing goes there
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithCompression(options.None). // index rows: 63 bytes, 55 with zstd; and no cache is needed
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithNumGoroutines(1).
		WithNumCompactors(2).
		WithNumLevelZeroTables(l0Compact).
		WithNumLevelZeroTablesStall(l0Stall)
}

// bulkOptions make few, large compactions straight into the last level. For a million
// entries of a ledger, 0.7 GB, 2.7 GB are written instead of 6.6, and compactions take
// 10 µs of CPU for each instead of 22.
func bulkOptions(bo badger.Options) badger.Options {
	return bo.
		WithSyncWrites(false).
		WithNumLevelZeroTables(bulkCompact).
		WithNumLevelZeroTablesStall(2 * bulkCompact).
		WithBaseLevelSize(1 << 40). // no level between
		WithCompactL0OnClose(true)
}

// Tables of level 0, of which each short-lived process leaves one behind.
const (
	l0Compact = 8  // merged into the next level in the background
	l0Close   = 16 // found at Open: merged at Close, for processes too short for the background
	l0Stall   = 32 // writers wait for the merge

	bulkCompact = 32 // l0Compact of a store that is filled
)

// openBadger opens in managed mode, where we give the timestamps: its reads do
// without the oracle's channels, which cost more than a lookup.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: badger panicked: %v", kv.ErrCorrupt, r)
		}
	}()
	if db, err = badger.OpenManaged(o); err != nil {
		return nil, openError(err)
	}
	return db, nil
}

// openError sorts out why Badger did not open. Verify has read the files, so
// what the system has not refused is damage.
func openError(err error) error {
	if err := systemError(err); errors.As(err, new(unix.Errno)) {
		return err
	}
	return fmt.Errorf("%w: %w", kv.ErrCorrupt, err)
}

// systemError finds the system's error in one of Badger's, which keep it as
// text alone.
func systemError(err error) error {
	if err == nil || errors.As(err, new(unix.Errno)) {
		return noSpace(err)
	}
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EACCES, unix.EPERM, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EFBIG} {
		if strings.Contains(err.Error(), ": "+errno.Error()) {
			return noSpace(fmt.Errorf("%w: %w", errno, err))
		}
	}
	return err
}

func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", kv.ErrNoSpace, err)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Size implements kv.Store.
func (s *KV) Size() (int64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, fmt.Errorf("badgerkv: size: %w", err)
	}
	var size int64
	for _, e := range entries {
		var st unix.Stat_t
		err := unix.Lstat(filepath.Join(s.dir, e.Name()), &st)
		if errors.Is(err, fs.ErrNotExist) {
			continue // compacted away meanwhile
		} else if err != nil {
			return 0, fmt.Errorf("badgerkv: size of %s: %w", e.Name(), err)
		}
		size += st.Blocks * 512
	}
	return size, nil
}

// Close implements kv.Store.
func (s *KV) Close() error {
	if !s.lk.close() {
		return nil
	}
	defer s.unwatch() // closing may compact too
	if err := errors.Join(systemError(s.closeBadger()), s.unreserve(), s.dirLock.Close()); err != nil {
		return fmt.Errorf("badgerkv: close: %w", err)
	}
	return nil
}

func (s *KV) closeBadger() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked(r)
		}
	}()
	return s.db.Close()
}

// A lock lets calls in until it is closed, and closes when all are out. Unlike
// a sync.RWMutex it lets a call begin another while a close waits: that one is
// refused, not deadlocked.
type lock struct {
	mu     sync.Mutex
	calls  sync.WaitGroup
	closed bool
}

// enter begins a call, which ends with lock.calls.Done.
func (l *lock) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("badgerkv: %w", kv.ErrClosed)
	}
	l.calls.Add(1)
	return nil
}

// close waits for the calls in flight. Only the first one returns true.
func (l *lock) close() bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.closed = true
	l.mu.Unlock()
	l.calls.Wait()
	return true
}

// A logger hands Badger's messages to slog. Badger logs its way through every
// open and close, so nothing of it is above debug level; what matters comes back
// as errors.
type logger struct{ l *slog.Logger }

func (l logger) Errorf(f string, a ...any) {
	l.l.Debug("badger: "+fmt.Sprintf(f, a...), "level", "error")
}
func (l logger) Warningf(f string, a ...any) {
	l.l.Debug("badger: "+fmt.Sprintf(f, a...), "level", "warning")
}
func (l logger) Infof(f string, a ...any) {
	l.l.Debug("badger: "+fmt.Sprintf(f, a...), "level", "info")
}
func (l logger) Debugf(f string, a ...any) {
	l.l.Debug("badger: "+fmt.Sprintf(f, a...), "level", "debug")
}
