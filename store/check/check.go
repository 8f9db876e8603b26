// Package check recomputes what a store holds by a reading of its own.
//
// It does not import package store: it reads rows, frames and nodes from
// their description in FORMAT.md and the SPECs, so that it can stand as the
// judge of the engine. It reads everything there is to look up; with
// Options.ReadData also every byte of every pack. It changes nothing unless
// Options.Forget says so.
//
// Memory is bounded, whatever the store: what is remembered to save time is
// dropped when it grows too large, lists of what is damaged are cut, and large
// directories are sorted as Options.Sort says.
//
// The caller owns the store's lock, so that nothing changes meanwhile, or is the one
// who owns the open store and gives a view of it: see [Live].
package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/badgerkv"
	"github.com/koii-network/scale/store/kv"
)

// Options configures Run. The zero value looks at everything but the bytes of
// the chunks.
type Options struct {
	// ReadData reads every frame of every pack and hashes every chunk.
	ReadData bool
	// Forget removes the rows of chunks, nodes and commitment rows that were
	// proven unreadable, once all is checked. The engine takes what has a row for
	// stored, so only then does putting the same data again mend it.
	Forget bool
	// Live, if set, is a view of the store, which is open in this process. It cannot go
	// with Forget.
	Live *Live
	// Sort bounds the memory for the names of the directories that are being looked
	// at. The zero value holds them in memory, however many there are. A failing
	// temporary file ends the run with extsort.ErrScratch.
	Sort extsort.Options
	// Report, if set, is called with each finding, from one goroutine at a time.
	Report func(Finding)
	// Progress, if set, is called now and then, never beside itself or Report.
	Progress func(Progress)
}

// A Live store is checked while it is open, as it was at one moment between two commits
// of its ledger. What is appended meanwhile is left out. The keys are those of now.
type Live struct {
	Rows      kv.Reader // as they were
	HighWater []byte    // content of the high-water mark
}

// A Severity says how bad a finding is.
type Severity uint8

const (
	// Note: nothing is wrong, but it may be worth knowing.
	Note Severity = iota
	// Warning: nothing is lost, but something should be put right.
	Warning
	// Error: something is damaged, lost or could be lost by the next put.
	Error
)

func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// A Finding is one thing that check has to say.
type Finding struct {
	Severity Severity
	What     string   // one sentence: what is wrong, with what
	Affected []string // datasets, paths or rows that it touches, the first of them
	More     uint64   // how many others there are
	Do       string   // what to do about it, or empty
}

// maxAffected is how many things a finding lists.
const maxAffected = 10

// affect adds to what a finding lists.
func (f *Finding) affect(what func() string) {
	if len(f.Affected) < maxAffected {
		f.Affected = append(f.Affected, what())
	} else {
		f.More++
	}
}

// Progress of a check.
type Progress struct {
	Stage       string // what is being looked at
	Done, Total uint64 // of what the stage counts: rows, entries, bytes of packs; Total is 0 when unknown
}

// A Summary counts what was looked at and what was found.
type Summary struct {
	Rows      uint64 // in the key-value store
	Entries   int64
	Datasets  int64
	Packs     int
	Frames    uint64
	Chunks    uint64 // with an index row
	Plain     uint64 // their bytes
	Garbage   uint64 // plain bytes in frames that no index row points to
	Read      uint64 // plain bytes decoded and hashed
	Forgotten uint64 // rows removed by Options.Forget
	Missing   uint64 // datasets of a restored ledger whose blocks are not all there

	Notes, Warnings, Errors uint64
}

// Sound says whether nothing is damaged.
func (s Summary) Sound() bool { return s.Errors == 0 }

// ErrFormat reports a store of a format that this build does not know.
// Nothing of it was read.
var ErrFormat = errors.New("unknown store format")

// What may be done about damage.
const (
	doBackup = "bring the store back from a backup, or put its datasets into a new store"
	doPut    = "put the same data again under this name: what is missing is stored anew"
	doForget = "run scale check --read-data --forget-damaged, then put the same data again under this name"
	doData   = "run scale check --read-data to see what can still be read"
)

// A checker is one run.
type checker struct {
	dir      string
	opt      Options
	verifier note.Verifier // nil when the configuration is damaged
	format   int           // the newest when the configuration is damaged
	opener   *compress.Opener
	mark     *ledger.Checkpoint
	db       kv.Reader // nil when it cannot be opened
	scanned  bool      // every row was seen

	mu    sync.Mutex // guards what follows, while packs are read
	sum   Summary
	kinds map[string]uint64 // findings of each kind so far

	rows   rowCounts
	policy *ledger.Entry // in force at the end
	packs  packState
	memo   memory
	forget [][]byte // keys of nodes and commitment rows that are damaged
}

// Run checks the store in dir, whose lock the caller holds. Damage is
// reported, not returned: an error means that the check could not be carried
// through.
func Run(ctx context.Context, dir string, o Options) (Summary, error) {
	c := &checker{dir: dir, opt: o, kinds: map[string]uint64{}, format: formatPacked}
	var err error
	if c.opener, err = compress.NewOpener(); err == nil {
		err = c.run(ctx)
		c.opener.Close()
	}
	c.flush()
	if err != nil {
		err = fmt.Errorf("check store %s: %w", dir, err)
	}
	return c.sum, err
}

func (c *checker) run(ctx context.Context) (err error) {
	if c.opt.Live != nil && c.opt.Forget {
		return errors.New("nothing can be forgotten while the store is open")
	}
	if err := c.checkConfig(); err != nil {
		return err
	}
	db, err := c.openRows()
	if err != nil {
		return err
	}
	if db != nil {
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	if c.db != nil {
		if err := c.scanRows(ctx); err != nil {
			return err
		}
	}
	if c.verifier != nil {
		c.checkHighWater()
		if c.db != nil {
			if err := c.checkLedger(ctx); err != nil {
				return err
			}
		}
		c.checkKeys()
	}
	if err := c.checkPacks(ctx); err != nil {
		return err
	}
	if c.db == nil {
		return nil
	}
	if c.verifier != nil {
		if err := c.checkDatasets(ctx); err != nil {
			return err
		}
	}
	if c.opt.Forget {
		return c.forgetDamaged(ctx, db)
	}
	return nil
}

// openRows sets c.db. It opens the key-value store, unless that is open. There is no
// opening for reading only: one that was not closed has to replay its logs.
func (c *checker) openRows() (kv.Store, error) {
	if c.opt.Live != nil {
		c.db = c.opt.Live.Rows
		return nil, nil
	}
	dir := filepath.Join(c.dir, "kv")
	if _, err := os.Stat(dir); err != nil {
		c.report("kv", Finding{Severity: Error, What: fmt.Sprintf("the index %s cannot be read: %v", dir, err), Do: doBackup})
		return nil, nil
	}
	db, err := badgerkv.Open(dir, badgerkv.Options{Logger: slog.New(slog.DiscardHandler)})
	if errors.Is(err, kv.ErrCorrupt) {
		c.report("kv", Finding{
			Severity: Error, What: fmt.Sprintf("the index cannot be opened: %v", err),
			Affected: []string{"everything: entries, names, and where each chunk is"}, Do: doBackup,
		})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.db = db
	return db, nil
}

// maxFindings is how many findings of one kind are reported in full.
const maxFindings = 20

// report counts a finding and passes it on unless there were too many of its
// kind.
func (c *checker) report(kind string, f Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(f.Severity)
	if c.kinds[kind]++; c.kinds[kind] <= maxFindings && c.opt.Report != nil {
		c.opt.Report(f)
	}
}

func (c *checker) count(s Severity) {
	switch s {
	case Note:
		c.sum.Notes++
	case Warning:
		c.sum.Warnings++
	default:
		c.sum.Errors++
	}
}

// flush says of which kinds there was more.
func (c *checker) flush() {
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		if n := c.kinds[kind]; n > maxFindings && c.opt.Report != nil {
			c.opt.Report(Finding{Severity: Note, What: fmt.Sprintf("%d more findings like the %d above: %s", n-maxFindings, maxFindings, kind)})
		}
	}
}

func (c *checker) errorf(kind, do, format string, args ...any) {
	c.report(kind, Finding{Severity: Error, What: fmt.Sprintf(format, args...), Do: do})
}

func (c *checker) warnf(kind, do, format string, args ...any) {
	c.report(kind, Finding{Severity: Warning, What: fmt.Sprintf(format, args...), Do: do})
}

func (c *checker) notef(kind, do, format string, args ...any) {
	c.report(kind, Finding{Severity: Note, What: fmt.Sprintf(format, args...), Do: do})
}

func (c *checker) progress(stage string, done, total uint64) {
	if c.opt.Progress != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.opt.Progress(Progress{Stage: stage, Done: done, Total: total})
	}
}
