package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag"
)

// Get writes the bytes of a file, or of a range of it, to w and returns how many
// it wrote. Each chunk has been checked against its digest before any of it is
// written. A nil range is the whole file; one that begins past the end is
// ErrInvalid.
func (s *Store) Get(ctx context.Context, o Object, r *Range, w io.Writer) (int64, error) {
	if o.Info.Kind == 0 {
		return 0, fmt.Errorf("get %s: %w", o, s.gone(errors.New("its root is missing")))
	}
	if o.Info.Kind != dag.KindFile {
		return 0, fmt.Errorf("%s is not a file but a %v: %w", o, o.Info.Kind, ErrInvalid)
	}
	from, to := uint64(0), o.Info.Size
	if r != nil {
		from, to = r.From, min(r.To, o.Info.Size)
		if r.From > r.To || r.From > o.Info.Size {
			return 0, fmt.Errorf("range %d:%d of %s, which has %d bytes: %w", r.From, r.To, o, o.Info.Size, ErrInvalid)
		}
	}
	var n int64
	err := s.read(ctx, s.fileOps(ctx, o.CID, from, to), readOptions{Join: true}, func(p *op, data []byte) error {
		if end := p.ref.Offset + uint64(len(data)); end > to {
			data = data[:to-p.ref.Offset]
		}
		if p.ref.Offset < from {
			data = data[from-p.ref.Offset:]
		}
		m, err := w.Write(data)
		n += int64(m)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("get %s: %w", o, storeError(err))
	}
	if n != int64(to-from) {
		return n, fmt.Errorf("get %s: %d bytes, expected %d: %w", o, n, to-from, ErrCorrupt)
	}
	return n, nil
}

// smallRange is the size up to which ranges of a file are read through nodes that are kept:
// whoever reads one asks for another soon. Larger ones would only drive them out.
const smallRange = 4 << 20

func (s *Store) fileOps(ctx context.Context, file cid.Cid, from, to uint64) iter.Seq2[op, error] {
	return func(yield func(op, error) bool) {
		chunks := dag.Chunks(ctx, s, file, from, to)
		if to-from <= smallRange {
			chunks = s.prover.Chunks(ctx, file, from, to)
		}
		for c, err := range chunks {
			if !yield(op{ref: c}, err) {
				return
			}
		}
	}
}

// GetTree gives everything at or below o to v, in canonical order. Paths are
// relative to o, whose own is "".
func (s *Store) GetTree(ctx context.Context, o Object, v Visitor) error {
	return s.giveTree(ctx, o, s.walker().Walk(ctx, o.CID), v)
}

// GetTreeFrom gives what GetTree gives, but only what comes after the given path, which
// is one that GetTree gave; an empty one is that of o itself. It is for going on where a
// GetTree was broken off.
func (s *Store) GetTreeFrom(ctx context.Context, o Object, after string, v Visitor) error {
	if o.Info.Kind != dag.KindDir {
		return nil
	}
	at := dag.Place{Below: o.Path, After: after}
	return s.giveTree(ctx, o, dag.WalkFrom(ctx, s, o.Dataset.CID, o.Dataset.Commitment, o.Dataset.Leaves, at), v)
}

func (s *Store) giveTree(ctx context.Context, o Object, walk iter.Seq2[dag.WalkEntry, error], v Visitor) error {
	var file io.WriteCloser
	var want, got uint64
	err := s.read(ctx, s.treeOps(ctx, o, walk), readOptions{Join: true}, func(p *op, data []byte) (err error) {
		switch p.kind {
		case opDir:
			return v.Dir(p.path, p.attr)
		case opLink:
			return v.Link(p.path, p.target, p.attr)
		case opFile:
			want, got = p.size, 0
			file, err = v.File(p.path, p.attr, p.size)
			return err
		case opData:
			got += uint64(len(data))
			_, err = file.Write(data)
			return err
		default:
			if got != want {
				return fmt.Errorf("%q has %d bytes, expected %d: %w", p.path, got, want, ErrCorrupt)
			}
			f := file
			file = nil
			return f.Close()
		}
	})
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", o, storeError(err))
	}
	return nil
}

func (s *Store) treeOps(ctx context.Context, root Object, walk iter.Seq2[dag.WalkEntry, error]) iter.Seq2[op, error] {
	return func(yield func(op, error) bool) {
		for e, err := range walk {
			if err != nil {
				yield(op{}, err)
				return
			}
			o := op{path: e.Path, attr: e.Info.Attr, size: e.Info.Size, target: e.Info.Target}
			if !e.Info.SizeKnown {
				// Of a file that is one chunk the directory's Tsize is the size, which is
				// compared with the index when its bytes are looked up.
				o.size = e.Tsize
				if e.Path == "" {
					o.size = root.Info.Size
				}
			}
			switch e.Info.Kind {
			case dag.KindDir:
				o.kind = opDir
			case dag.KindLink:
				o.kind = opLink
			case dag.KindFile:
				if !s.yieldFile(ctx, o, e.Info, yield) {
					return
				}
				continue
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (s *Store) yieldFile(ctx context.Context, o op, info dag.Info, yield func(op, error) bool) bool {
	o.kind = opFile
	if !yield(o, nil) {
		return false
	}
	if o.size > 0 {
		for c, err := range dag.Chunks(ctx, s, info.CID, 0, o.size) {
			if c.Size == 0 && err == nil {
				if o.size > dag.MaxBlock {
					err = fmt.Errorf("%q: a chunk of %d bytes: %w", o.path, o.size, ErrCorrupt)
				}
				c.Size = uint32(o.size)
			}
			if !yield(op{ref: c}, err) || err != nil {
				return false
			}
		}
	}
	return yield(op{kind: opEnd, path: o.path}, nil)
}
