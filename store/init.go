package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
)

// Format is the number of the layout of stores that are made. Numbers are append-only: a
// store of a higher number is refused, one of a lower stays what it is and is read and
// written as such.
const Format = formatPacked

const (
	formatPlain  = 1
	formatPacked = 2 // nodes and commitment rows may be packed
)

// What is in a store's directory.
const (
	configFile    = "scale.json"
	initFile      = "init" // while Init is under way
	lockFile      = "lock"
	ballastFile   = "ballast"
	highWaterFile = "highwater"
	keysDir       = "keys"
	logKeyFile    = "log.key"
	curatorFile   = "curator.json"
	kvDir         = "kv"
	packsDir      = "packs"
)

// What processes that serve a store keep in its directory (package grpcapi).
const (
	// SocketFile is the private socket of the process that owns the store.
	SocketFile = "node.sock"
	// TokensFile holds hashes of the tokens that a node admits.
	TokensFile = "tokens.json"
)

type config struct {
	Format int    `json:"format"`
	Origin string `json:"origin"`
	VKey   string `json:"vkey"`
	// FrameSize is that of Options, unless they have one; 0 is the default.
	FrameSize int `json:"frame_size,omitempty"`
}

// Init makes a store in dir, which must not exist or be empty: its log key, its
// curator key and the first entry of its ledger, the policy that admits this
// curator. A directory is a store from the moment its scale.json is there, which
// comes last; what an interrupted Init left is taken away by the next one.
func Init(ctx context.Context, dir string, o InitOptions) error {
	if o.Origin == "" {
		o.Origin = "scale.local/" + strings.ToLower(rand.Text()[:16])
	}
	if err := ledger.CheckOrigin(o.Origin); err != nil {
		return fmt.Errorf("origin %q: %w (%v)", o.Origin, ErrInvalid, err)
	}
	if err := checkFrameSize(o.FrameSize); err != nil {
		return err
	}
	predecessor, err := o.Successor.predecessor()
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	dir, marker, err := claim(ctx, dir)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	defer marker.Close()
	if err := populate(ctx, dir, o, predecessor); err != nil {
		removeParts(dir)
		return fmt.Errorf("init %s: %w", dir, err)
	}
	return unclaim(dir, marker)
}

// checkFrameSize refuses a size that no store is made with; 0 is the default.
func checkFrameSize(n int) error {
	if n != 0 && (n < MinFrame || n > MaxFrame) {
		return fmt.Errorf("frames of %d bytes, must be %d to %d: %w", n, MinFrame, MaxFrame, ErrInvalid)
	}
	return nil
}

// claim makes dir, or takes it if nothing is in it, for a store that is about to be
// made there. It returns its absolute path.
func claim(ctx context.Context, dir string) (string, *os.File, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	if err := vacant(dir); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", nil, err
	}
	// The marker tells leftovers from somebody's files, and its lock tells them from
	// an Init that is under way.
	marker, err := os.OpenFile(filepath.Join(dir, initFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := flock(ctx, marker, initWait); err != nil {
		marker.Close()
		return "", nil, fmt.Errorf("%s: another process is at it: %w", dir, ErrBusy)
	}
	if Exists(dir) { // made while we waited
		marker.Close()
		return "", nil, fmt.Errorf("store %s %w", dir, ErrExists)
	}
	return dir, marker, nil
}

// unclaim ends what claim began, once there is a store.
func unclaim(dir string, marker *os.File) error {
	return errors.Join(os.Remove(marker.Name()), syncDir(dir), syncDir(filepath.Dir(dir)))
}

// predecessor returns what entry 0 says of the log before, nil for nothing: its last
// checkpoint with its own signature alone.
func (o *Successor) predecessor() ([]byte, error) {
	if o == nil {
		return nil, nil
	}
	v, err := note.NewVerifier(o.VKey)
	if err != nil {
		return nil, fmt.Errorf("public key of the log before: %w: %w", ErrInvalid, err)
	}
	c, err := ledger.OpenCheckpoint(o.Checkpoint, v)
	if err == nil && c.Size < 1 {
		err = errors.New("it has no entry")
	}
	if err != nil {
		return nil, fmt.Errorf("last checkpoint of the log before: %w: %w", ErrInvalid, err)
	}
	text, lines, _ := bytes.Cut(o.Checkpoint, []byte("\n\n"))
	line, _, _ := bytes.Cut(lines, []byte("\n"))
	return slices.Concat(text, []byte("\n\n"), line, []byte("\n")), nil
}

// initWait is how long Init waits for another one.
const initWait = 10 * time.Second

// vacant says whether a store can be made in dir.
func vacant(dir string) error {
	if Exists(dir) {
		return fmt.Errorf("store %s %w", dir, ErrExists)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrExists, err)
	}
	_, err = os.Lstat(filepath.Join(dir, initFile))
	begun := err == nil
	for _, e := range entries {
		ours := begun && (e.Name() == initFile || slices.Contains(parts, e.Name()))
		if !ours && e.Name() != "lost+found" { // which an empty file system has
			return fmt.Errorf("%s %w and is not empty; choose another directory", dir, ErrExists)
		}
	}
	return nil
}

// parts are what Init makes besides scale.json and its marker.
var parts = []string{keysDir, kvDir, packsDir, lockFile, ballastFile, highWaterFile, highWaterFile + ".new", configFile + ".new", closedFile, extensionsDir}

func removeParts(dir string) error {
	var errs []error
	for _, name := range parts {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// makeParts makes the directories of an empty store.
func makeParts(dir string) error {
	if err := removeParts(dir); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	for _, d := range []string{kvDir, packsDir} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func populate(ctx context.Context, dir string, o InitOptions, predecessor []byte) error {
	if err := makeParts(dir); err != nil {
		return err
	}
	vkey, err := makeKeys(dir, o.Origin)
	if err != nil {
		return err
	}
	c := config{Format: Format, Origin: o.Origin, VKey: vkey, FrameSize: o.FrameSize}
	s, err := open(ctx, dir, Options{}, c, true)
	if err != nil {
		return err
	}
	if err := errors.Join(s.genesis(ctx, predecessor), s.Close()); err != nil {
		return err
	}
	return c.write(dir)
}

// write makes the directory a store.
func (c config) write(dir string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return replaceFileSync(filepath.Join(dir, configFile), append(b, '\n'))
}

// Exists reports whether dir holds a store.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, configFile))
	return err == nil
}

// VerifierKeyOf returns the public key of the log in dir (the vkey of a signed
// note) without opening the store.
func VerifierKeyOf(dir string) (string, error) {
	c, err := readConfig(dir)
	return c.VKey, err
}

func readConfig(dir string) (config, error) {
	path := filepath.Join(dir, configFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config{}, fmt.Errorf("no store in %s: %w", dir, ErrNotFound)
	}
	if err != nil {
		return config{}, fmt.Errorf("open store: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return config{}, fmt.Errorf("open store: %w", err)
	}
	var c config
	if err := json.Unmarshal(b, &c); err != nil {
		return config{}, fmt.Errorf("%s: %w (%v)", path, ErrCorrupt, err)
	}
	if c.Format < formatPlain || c.Format > Format {
		return config{}, fmt.Errorf("store %s has format %d, this build reads %d to %d: %w; use a newer scale", dir, c.Format, formatPlain, Format, ErrFormat)
	}
	if c.FrameSize < 0 || c.FrameSize > MaxFrame {
		return config{}, fmt.Errorf("%s: frames of %d bytes: %w", path, c.FrameSize, ErrCorrupt)
	}
	return c, nil
}

// writeFileSync makes a private file that is on disk when it returns. The caller
// syncs the directory.
func writeFileSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// ReplaceFile puts b at path, with mode 0600, so that after a crash there is either the
// old content or the new. It is for files that others keep in a store's directory and
// that have one writer.
func ReplaceFile(path string, b []byte) error { return replaceFileSync(path, b) }

// replaceFileSync puts b at path so that after a crash there is either the old
// content or the new.
func replaceFileSync(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeFileSync(tmp, b); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
