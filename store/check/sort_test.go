package check_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag/extsort"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
)

// sorting goes to disk after a few names. It counts the files it makes.
func sorting(t *testing.T, made *int) extsort.Options {
	return extsort.Options{Memory: 1, Scratch: func() (extsort.File, error) {
		*made++
		return os.CreateTemp(t.TempDir(), "sort")
	}}
}

// Directories that are sorted on disk are found sound and damaged like others, inside of
// one another, sharded and not, with names before and behind that of a directory.
func TestSortedOnDisk(t *testing.T) {
	dir := tree(t)
	for i := range 1500 {
		write(t, dir, fmt.Sprintf("sharded/%s%d", strings.Repeat("n", 180), i), []byte{byte(i), byte(i >> 8)}, fs.FileMode(0o644-i%2*0o44))
	}
	for i := range 40 {
		write(t, dir, fmt.Sprintf("sharded/nn/%d/a", i), []byte("x"), 0o644)
		write(t, dir, fmt.Sprintf("sharded/nn/%d-b", i), []byte("y"), 0o644)
	}
	s := newStore(t, []store.Input{{Name: "tree", Path: dir}})
	made := 0
	want := wantSound(t, s, check.Options{})
	if got := wantSound(t, s, check.Options{Sort: sorting(t, &made)}); got != want || made != 1 {
		t.Errorf("with %d files: %+v, want %+v", made, got, want)
	}

	full := check.Options{Sort: extsort.Options{Memory: 1, Scratch: func() (extsort.File, error) { return nil, syscall.ENOSPC }}}
	if _, err := check.Run(t.Context(), s, full); !errors.Is(err, extsort.ErrScratch) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}

	edit(t, s, func(db kv.Store, b *kv.Batch) {
		for _, r := range rowsOf(t, db, "d") { // of a shard
			if bytes.Contains(opened(t, r.Value), []byte(strings.Repeat("n", 180))) {
				b.Delete(r.Key)
				return
			}
		}
	})
	found, sum := run(t, s, check.Options{})
	again, sum2 := run(t, s, check.Options{Sort: sorting(t, &made)})
	if diff := cmp.Diff(found, again); diff != "" || sum != sum2 || sum.Sound() {
		t.Errorf("damaged: %+v, then %+v: %s", sum, sum2, diff)
	}
}
