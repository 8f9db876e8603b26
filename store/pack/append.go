package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Append implements Store.
func (p *Files) Append(ctx context.Context, f Frame) (Loc, error) {
	if err := ctx.Err(); err != nil {
		return Loc{}, fmt.Errorf("pack: append: %w", err)
	}
	if err := f.check(); err != nil {
		return Loc{}, fmt.Errorf("pack: append: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return Loc{}, fmt.Errorf("pack: append: %w", p.err)
	}
	if p.opt.ReadOnly {
		return Loc{}, fmt.Errorf("pack: append: %w", errReadOnly)
	}
	loc, err := p.append(&f)
	if err != nil {
		if err = noSpace(err); !errors.Is(err, ErrNoSpace) {
			p.err = fmt.Errorf("an append failed: %w", err)
		}
		return Loc{}, fmt.Errorf("pack: append: %w", err)
	}
	return loc, nil
}

func (p *Files) append(f *Frame) (Loc, error) {
	if p.w == nil {
		if err := p.resume(); err != nil {
			return Loc{}, err
		}
	}
	n := frameFixed + len(f.Chunks)*chunkEntry + len(f.Sealed)
	if p.tail.End > fileHeader && p.tail.End+uint64(n) > uint64(p.opt.Target) {
		if err := p.roll(); err != nil {
			return Loc{}, err
		}
	}
	loc := Loc{Pack: p.tail.Pack, Off: p.tail.End, Len: uint32(n)}
	p.header = appendHeader(p.header[:0], f, loc.Pack, loc.Off)
	large := n >= directMin && p.d.begin(p.w)
	var err error
	if large {
		err = p.d.writeAt(p.w, int64(loc.Off), p.header, f.Sealed)
	} else {
		err = writeAt(p.w, int64(loc.Off), p.header, f.Sealed)
	}
	if err != nil {
		// A later frame must not lie behind half a one.
		return Loc{}, errors.Join(err, p.w.Truncate(int64(p.tail.End)))
	}
	p.tail.End += uint64(n)
	p.synced = false
	if large {
		return loc, nil // the pages left to the cache are too few to hurry
	}
	return loc, p.wb.wrote(p.w, p.tail.End)
}

// resume makes the end of the packs that which the tail says and opens it for
// writing: packs and bytes beyond it go, because no index knows of them. If
// bytes before it are lost, what is appended goes to a new pack, so that nothing
// takes their place.
func (p *Files) resume() error {
	ns, err := List(p.dir)
	if err != nil {
		return err
	}
	for _, n := range ns {
		if n > p.tail.Pack {
			if err := os.Remove(p.path(n)); err != nil {
				return err
			}
			p.newDir = true
		}
	}
	if p.tail.Pack == 0 {
		return p.create(1)
	}
	f, err := os.OpenFile(p.path(p.tail.Pack), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return p.create(p.tail.Pack + 1)
	} else if err != nil {
		return err
	}
	sound, err := p.soundTail(f)
	if err == nil && sound {
		err = f.Truncate(int64(p.tail.End))
	}
	if err != nil || !sound {
		f.Close()
	}
	if err != nil {
		return err
	}
	if !sound {
		return p.create(p.tail.Pack + 1)
	}
	p.w, p.wb = f, writeback{done: p.tail.End, begun: p.tail.End}
	return nil
}

// soundTail says whether f, the pack of the tail, has its header and is as
// long as the tail says.
func (p *Files) soundTail(f *os.File) (bool, error) {
	var b [fileHeader]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	return checkFileHeader(b[:n], p.tail.Pack) == nil && uint64(fi.Size()) >= p.tail.End, nil
}

// roll leaves the active pack to Sync and begins the next.
func (p *Files) roll() error {
	full := p.w
	if err := p.create(p.tail.Pack + 1); err != nil {
		return err
	}
	p.d.end()
	p.full = append(p.full, full)
	return nil
}

// create makes pack number n and makes it the one to append to.
func (p *Files) create(n uint32) error {
	f, err := os.OpenFile(p.path(n), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err := writeAt(f, 0, appendFileHeader(nil, n)); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	p.w, p.wb = f, writeback{}
	p.tail = Tail{Pack: n, End: fileHeader}
	p.newDir, p.synced = true, false
	return nil
}

// Sync implements Store.
func (p *Files) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pack: sync: %w", err)
	}
	p.syncMu.Lock()
	defer p.syncMu.Unlock()
	p.mu.Lock()
	w, full, newDir, clean, err := p.w, p.full, p.newDir, p.synced, p.err
	if err != nil || clean {
		p.mu.Unlock()
		return err
	}
	p.full, p.newDir, p.synced = nil, false, true
	p.mu.Unlock()

	// Appends go on meanwhile. They may put w onto p.full, but only Sync takes
	// files from there, so w stays open.
	err = syncFiles(full, w)
	if newDir {
		err = errors.Join(err, syncDir(p.dir))
	}
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		// After one fsync has failed the kernel forgets the error and drops the
		// pages, so a second one would succeed without anything being there.
		p.err = fmt.Errorf("a sync failed: %w", noSpace(err))
		return fmt.Errorf("pack: sync: %w", p.err)
	}
	return nil
}
