package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// A state is one published tree of the ledger.
type state struct {
	checkpoint  ledger.Checkpoint
	signed      []byte
	policy      *ledger.Entry // in force; nil before entry 0
	policyIndex int64         // -1 before entry 0

	superseded chan struct{} // closed when a newer state is published
}

// loadState finds the newest checkpoint, checks it against the stored tiles and
// the high-water mark, and publishes it. What is wrong with the ledger becomes
// s.doubt, so that what is there can still be read.
func (s *Store) loadState(ctx context.Context, fresh bool) error {
	found := s.doubt
	defer func() {
		if found != nil {
			s.doubt = found
		}
	}()
	st := &state{checkpoint: ledger.Checkpoint{Origin: s.Origin(), Root: ledger.EmptyRoot()}, policyIndex: -1}
	row, err := s.kv.Last(ctx, []byte{rowCheckpoint})
	switch {
	case errors.Is(err, kv.ErrNotFound):
		s.publish(st)
		if !fresh {
			s.doubt = s.doubtf("its ledger is empty")
		}
		return nil
	case err != nil:
		return storeError(err)
	}
	st.signed = append([]byte(nil), row.Value...)
	st.checkpoint, err = ledger.OpenCheckpoint(st.signed, s.verifier)
	if err != nil {
		return fmt.Errorf("stored checkpoint: %w (%v)", ErrCorrupt, err)
	}
	s.publish(st)
	if err := s.checkEdge(ctx, st.checkpoint); err != nil {
		s.doubt = s.doubtf("its ledger does not match its signed checkpoint: %v", err)
		return nil
	}
	if err := s.checkHighWater(ctx, st); err != nil {
		s.doubt = err
		return nil
	}
	row, err = s.kv.Last(ctx, []byte{rowPolicy})
	if err != nil {
		s.doubt = s.doubtf("its policy is missing: %v", err)
		return nil
	}
	if st.policyIndex, err = parseInt(row.Key[1:]); err != nil {
		return err
	}
	e, err := s.entryAt(ctx, st.policyIndex)
	if err != nil {
		s.doubt = s.doubtf("its policy cannot be read: %v", err)
		return nil
	}
	st.policy = e.Entry
	s.doubt = s.checkAnchored(ctx, st.checkpoint.Size)
	return nil
}

func (s *Store) doubtf(format string, args ...any) error {
	return fmt.Errorf("%w: %s; reading goes on. Run: scale check --read-data, and bring the directory back from a backup or put its datasets into a new store",
		ErrReadOnly, fmt.Sprintf(format, args...))
}

// checkEdge recomputes the root from the stored tiles.
func (s *Store) checkEdge(ctx context.Context, c ledger.Checkpoint) error {
	root, err := ledger.Root(ctx, tiles{s}, c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("tiles of size %d give root %v, signed is %v: %w", c.Size, root, c.Root, ErrCorrupt)
	}
	return nil
}

// checkHighWater compares the ledger with the mark that is kept outside Badger:
// Badger can lose rows without an error, and a ledger that signed again over such a
// loss would fork.
func (s *Store) checkHighWater(ctx context.Context, st *state) error {
	path := filepath.Join(s.dir, highWaterFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.doubtf("its high-water mark %s is missing, so a loss of entries would go unseen", path)
	}
	if err != nil {
		return s.doubtf("its high-water mark cannot be read: %v", err)
	}
	mark, err := ledger.OpenCheckpoint(b, s.verifier)
	if err != nil {
		return s.doubtf("its high-water mark %s is damaged: %v", path, err)
	}
	cur := st.checkpoint
	switch {
	case mark.Size > cur.Size:
		return s.doubtf("it signed a ledger of %d entries but only %d are there: entries were lost, or an old copy was put in place", mark.Size, cur.Size)
	case mark.Size == cur.Size && mark.Root != cur.Root:
		return s.doubtf("its high-water mark names another tree of %d entries", mark.Size)
	case mark.Size == cur.Size:
		return nil
	}
	// A crash between the commit and the mark: the ledger must extend what the mark saw.
	p, err := ledger.ProveConsistency(ctx, tiles{s}, mark.Size, cur.Size)
	if err == nil {
		err = ledger.CheckConsistency(p, mark.Size, mark.Root, cur.Size, cur.Root)
	}
	if err != nil {
		return s.doubtf("its ledger does not extend the tree of %d entries that its high-water mark names: %v", mark.Size, err)
	}
	if err := s.writeHighWater(st.signed); err != nil {
		return s.doubtf("its high-water mark cannot be written: %v", err)
	}
	return nil
}

func (s *Store) writeHighWater(signed []byte) error {
	if err := replaceFileSync(filepath.Join(s.dir, highWaterFile), signed); err != nil {
		return fmt.Errorf("high-water mark: %w", err)
	}
	return nil
}

// tiles reads the ledger's hash tiles.
type tiles struct{ s *Store }

func (t tiles) ReadTile(ctx context.Context, level int, index int64, width int) ([]byte, error) {
	b, err := t.s.kv.Get(ctx, tileKey(level, index), nil)
	if err != nil {
		return nil, fmt.Errorf("tile %d/%d: %w", level, index, storeError(err))
	}
	if len(b) < width*tlog.HashSize {
		return nil, fmt.Errorf("tile %d/%d has %d bytes, %d are needed: %w", level, index, len(b), width*tlog.HashSize, ErrCorrupt)
	}
	return b[:width*tlog.HashSize], nil
}
