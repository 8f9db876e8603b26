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
// than Badger may come to need for it.
type room struct {
	memTable int64 // Options.MemTable
	tables   int64 // bytes in tables when the store was opened
	written  int64 // bytes of rows committed since
	statfs   func(path string, st *unix.Statfs_t) error
}

// slack covers what Badger writes however small the store: MANIFEST, headers
// and the blocks of directories.
const (
	slack     = 1 << 20
	minInodes = 256
)

// check returns an error that wraps kv.ErrNoSpace if there is too little room
// for n more bytes of rows: they and what is still in memory go to the log and
// later to a table of level 0, and then a compaction needs room for new tables
// before it gives up the old ones, but never for much more than level 0 and the
// parts of the next level that it overlaps.
func (r *room) check(dir string, n int64) error {
	var st unix.Statfs_t
	if err := r.statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	need := slack + 2*n + 2*min(r.written, 3*r.memTable) + min(r.tables+r.written, 4*r.memTable)
	if free := int64(st.Bavail) * st.Frsize; free < need {
		return fmt.Errorf("%w: %d bytes are free, %d needed", kv.ErrNoSpace, free, need)
	}
	// A compaction that cannot create a file drops the rows that were to go there
	// (compactBuildTables in v4.9.6 loses the error). Some file systems have no
	// limit and say 0 of 0.
	if st.Files > 0 && st.Ffree < minInodes {
		return fmt.Errorf("%w: %d inodes are free, %d needed", kv.ErrNoSpace, st.Ffree, minInodes)
	}
	return nil
}
