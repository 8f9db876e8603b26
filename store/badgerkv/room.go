package badgerkv

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/store/kv"
)

// room guards against a full disk. Badger writes its files through memory
// maps, so when the disk is full it is not told by an error: the process dies of
// SIGBUS. Therefore a commit is refused beforehand when the disk has less room
// than Badger may come to need.
type room struct {
	dir     string
	tables  int64 // bytes in tables when the store was opened
	written int64 // bytes of rows in logs then, and committed since
	bulk    bool  // compactions take all there is
	statfs  func(path string, st *unix.Statfs_t) error
}

const (
	// slack covers what Badger writes however small the store: its MANIFEST, the
	// first pages of a log and of a value log, blocks of directories.
	slack = 1 << 20
	// openSlack covers the same for a process that only reads: 12 KiB were
	// measured.
	openSlack = 128 << 10
	// minInodes covers the tables of a few compactions. One that cannot create a
	// file loses the rows that were to go there: compactBuildTables in v4.9.6 drops
	// the error.
	minInodes = 256
)

// forOpen is what opening needs: tables for what is in logs.
func (r *room) forOpen() int64 { return openSlack + r.written }

// forCommit is what n more bytes of rows need: a place in the log and one in a
// table, tables for the rows that are only in logs as yet, and what a compaction
// writes before it deletes what it has read: level 0 and the part of the next
// level that it overlaps.
func (r *room) forCommit(n int64) int64 {
	compacted := r.tables + r.written
	if !r.bulk {
		compacted = min(compacted, l0Compact*memTable)
	}
	return slack + 2*n + min(r.written, 3*memTable) + compacted
}

// check returns an error that wraps kv.ErrNoSpace if the disk has less room.
func (r *room) check(need int64) error {
	var st unix.Statfs_t
	if err := r.statfs(r.dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: r.dir, Err: err}
	}
	if free := int64(st.Bavail) * st.Frsize; free < need {
		return fmt.Errorf("%w: %d bytes are free, %d needed", kv.ErrNoSpace, free, need)
	}
	// Some file systems have no limit on inodes and say 0 of 0.
	if st.Files > 0 && st.Ffree < minInodes {
		return fmt.Errorf("%w: %d inodes are free, %d needed", kv.ErrNoSpace, st.Ffree, minInodes)
	}
	return nil
}
