package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/store/kv"
)

// ResumeOptions says with what a restored log goes on.
type ResumeOptions struct {
	// LogKey is the file of the log's private key, for its owner alone.
	LogKey string
	// Seen asks the chains, and the witnesses where there are any, for the size of the
	// largest ledger that the log's key was seen to have signed. It must succeed.
	Seen func(ctx context.Context) (size int64, err error)
	// Options are those of Open.
	Options Options
}

// Resume makes the restored store in dir append again. It does so only when whoever
// could know of a larger ledger was asked and knows of none: signing again what was
// signed differently before would fork the log. ErrReadOnly says that it cannot go on,
// ErrKeys that the key is not this log's. The key is copied into the store.
func Resume(ctx context.Context, dir string, o ResumeOptions) (err error) {
	s, err := Open(ctx, dir, o.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.resume(ctx, o); err != nil {
		return fmt.Errorf("resume the log of store %s: %w", s.dir, storeError(err))
	}
	return nil
}

func (s *Store) resume(ctx context.Context, o ResumeOptions) error {
	if s.doubt != nil {
		return s.doubt
	}
	if s.frozen == nil {
		return fmt.Errorf("it was not restored, or appends already: %w", ErrInvalid)
	}
	if o.Seen == nil {
		return fmt.Errorf("nobody is named who could know of a larger ledger: %w", ErrInvalid)
	}
	key, err := s.checkLogKey(o.LogKey)
	if err != nil {
		return err
	}
	have := s.size()
	size, err := o.Seen(ctx)
	switch {
	case size > have:
		return fmt.Errorf("%w: a ledger of %d entries was signed, here are %d; restore from a later extension, or begin a new log that names this one: scale init --successor", ErrReadOnly, size, have)
	case err != nil:
		return fmt.Errorf("%w: whether more than these %d entries were signed could not be found out: %w; "+
			"try again when the chains can be reached, or begin a new log that names this one: scale init --successor", ErrReadOnly, have, err)
	}
	// The key first: without the row it is not used.
	if key != nil {
		keys := filepath.Join(s.dir, keysDir)
		if err := os.Mkdir(keys, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := replaceFileSync(filepath.Join(keys, logKeyFile), key); err != nil {
			return err
		}
	}
	var b kv.Batch
	b.Set([]byte{rowRestored}, restoredRow{size: s.restored, resumed: true}.append(nil))
	return s.kv.Commit(ctx, &b)
}

// checkLogKey returns the content of the key's file if it is that of this log, and nil
// if it is the store's own.
func (s *Store) checkLogKey(path string) ([]byte, error) {
	b, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	key, err := note.NewSigner(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("log key %s: %w (%v)", path, ErrKeys, err)
	}
	if key.Name() != s.verifier.Name() || key.KeyHash() != s.verifier.KeyHash() {
		return nil, fmt.Errorf("log key %s is %s+%08x, the store's is %s+%08x: %w", path, key.Name(), key.KeyHash(), s.verifier.Name(), s.verifier.KeyHash(), ErrKeys)
	}
	// The public half that a key file names says nothing of its private half.
	msg := []byte("scale log resume\n")
	if sig, err := key.Sign(msg); err != nil || !s.verifier.Verify(msg, sig) {
		return nil, fmt.Errorf("log key %s does not sign for this log: %w", path, ErrKeys)
	}
	own, err := os.Stat(filepath.Join(s.dir, keysDir, logKeyFile))
	if given, e := os.Stat(path); e == nil && err == nil && os.SameFile(own, given) {
		return nil, nil
	}
	return b, nil
}
