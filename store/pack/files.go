package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// DefaultTarget is the size that packs are filled to.
const DefaultTarget = 512 << 20

// Options tune packs. The zero value is the production default.
type Options struct {
	// Target is the size in bytes beyond which no pack grows, unless by its first
	// frame. 0 means DefaultTarget.
	Target int64
	// ReadOnly refuses to append, so that nothing is cut off or made.
	ReadOnly bool
}

// Files are packs in a directory. One process may append at a time; the caller
// sees to that.
type Files struct {
	dir string
	opt Options
	r   handles // open packs, for reading

	syncMu sync.Mutex // held by Sync and Close; locked before mu
	mu     sync.Mutex // guards what follows
	tail   Tail
	w      *os.File   // pack tail.Pack, open for writing; nil until Append needs it
	full   []*os.File // earlier packs that Sync has yet to sync and close
	newDir bool       // the directory has entries that are not synced
	synced bool       // nothing was appended since the last Sync
	wb     writeback
	d      direct
	header []byte            // scratch of Append
	sizes  map[uint32]uint64 // of packs that Holds looked at, 0 for those that are not there
	err    error             // why appending has stopped
}

var _ Store = (*Files)(nil)

// Holds implements Store. A pack that is not appended to keeps its size, so one look
// at each is enough.
func (p *Files) Holds(loc Loc) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil && loc.Pack == p.tail.Pack {
		return loc.Off+uint64(loc.Len) <= p.tail.End
	}
	size, ok := p.sizes[loc.Pack]
	if !ok {
		if fi, err := os.Stat(p.path(loc.Pack)); err == nil {
			size = uint64(fi.Size())
		}
		if p.sizes == nil {
			p.sizes = make(map[uint32]uint64)
		}
		p.sizes[loc.Pack] = size
	}
	return loc.Off+uint64(loc.Len) <= size
}

var errReadOnly = errors.New("packs are open for reading only")

// Open opens the packs in dir, which must exist. The tail is the one that was
// durable when the caller last recorded where its frames are. Open only looks:
// what lies beyond the tail is cut off by the first Append, so a caller that
// doubts its tail must not append.
func Open(dir string, o Options, tail Tail) (*Files, error) {
	if o.Target == 0 {
		o.Target = DefaultTarget
	}
	if o.Target < 0 || (tail.Pack == 0) != (tail.End == 0) {
		return nil, fmt.Errorf("pack: target %d, tail %+v: %w", o.Target, tail, fs.ErrInvalid)
	}
	if fi, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("pack: open: %w", err)
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("pack: open %s: %w", dir, unix.ENOTDIR)
	}
	p := &Files{dir: dir, opt: o, tail: tail, synced: true}
	p.r.path = p.path
	return p, nil
}

func (p *Files) path(n uint32) string { return filepath.Join(p.dir, Name(n)) }

// Name returns the name of the file of pack number n.
func Name(n uint32) string { return fmt.Sprintf("%08d.pack", n) }

// Tail implements Store.
func (p *Files) Tail() Tail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tail
}

// List implements Store.
func (p *Files) List() ([]uint32, error) { return List(p.dir) }

// List returns the numbers of the packs in dir, ascending.
func List(dir string) ([]uint32, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("pack: list: %w", err)
	}
	var ns []uint32
	for _, e := range entries {
		digits, _ := strings.CutSuffix(e.Name(), ".pack")
		if n, err := strconv.ParseUint(digits, 10, 32); err == nil && n > 0 && Name(uint32(n)) == e.Name() {
			ns = append(ns, uint32(n))
		}
	}
	slices.Sort(ns)
	return ns, nil
}

// Size implements Store.
func (p *Files) Size() (int64, error) {
	ns, err := p.List()
	if err != nil {
		return 0, err
	}
	var size int64
	for _, n := range ns {
		var st unix.Stat_t
		if err := unix.Stat(p.path(n), &st); err != nil {
			return 0, fmt.Errorf("pack: size of %s: %w", Name(n), err)
		}
		size += st.Blocks * 512 // st_blocks counts in units of 512 bytes whatever the block size
	}
	return size, nil
}

// Scan implements Store.
func (p *Files) Scan(ctx context.Context, pack uint32) iter.Seq2[Scanned, error] {
	return func(yield func(Scanned, error) bool) {
		h, err := p.r.get(pack)
		if err != nil {
			yield(Scanned{}, fmt.Errorf("pack: scan %s: %w", Name(pack), err))
			return
		}
		defer p.r.put(h)
		fi, err := h.f.Stat()
		if err != nil {
			yield(Scanned{}, fmt.Errorf("pack: scan: %w", err))
			return
		}
		size := fi.Size()
		if tail := p.Tail(); tail.Pack == pack {
			size = min(size, int64(tail.End))
		}
		ScanFile(ctx, h.f, size, pack)(yield)
	}
}

// Close implements Store.
func (p *Files) Close() error {
	p.syncMu.Lock()
	defer p.syncMu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(p.err, ErrClosed) {
		return nil
	}
	var errs []error
	if p.w != nil {
		errs = append(errs, p.w.Close())
	}
	for _, f := range p.full {
		errs = append(errs, f.Close())
	}
	errs = append(errs, p.d.close())
	p.w, p.full, p.err = nil, nil, ErrClosed
	p.r.close()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pack: close: %w", err)
	}
	return nil
}
