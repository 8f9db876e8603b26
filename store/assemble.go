package store

import (
	"context"
	"fmt"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store/kv"
)

const (
	// frameChunks bounds the chunks of a frame, so that its header stays small
	// beside a read of one of them.
	frameChunks = 4096
	// rowBytes is when DAG nodes and commitment rows are sent to be committed.
	rowBytes = 512 << 10
)

// An assembler takes slabs in order, drops the chunks that are stored already,
// fills frames with the others and builds DAG and commitment.
type assembler struct {
	s        *Store
	w        *frameWriter
	progress func(Progress)
	done     Progress

	job    *frameJob // being filled, nil before the first chunk
	recent recent
	rows   *kv.Batch
	nodes  map[[32]byte]struct{} // in rows

	ds   *dataset
	tree *dag.TreeBuilder
	file *dag.FileBuilder
}

func (a *assembler) run(ctx context.Context, f *feeder) error {
	a.rows, a.nodes = new(kv.Batch), make(map[[32]byte]struct{})
	for {
		var sl *slab
		var ok bool
		select {
		case sl, ok = <-f.order:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !ok {
			return a.cut()
		}
		select {
		case <-sl.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := a.slab(sl); err != nil {
			return fmt.Errorf("put %s: %w", sl.ds.in.Name, err)
		}
		f.free <- sl
		if a.progress != nil {
			a.progress(a.done)
		}
	}
}

func (a *assembler) slab(sl *slab) error {
	if sl.err != nil {
		return sl.err
	}
	if a.ds != sl.ds {
		a.ds = sl.ds
		a.file, a.tree = dag.NewFileBuilder(a.ds.profile, a), nil
		if a.ds.kind == dag.KindDir {
			a.tree = dag.NewTreeBuilder(a.ds.profile, a)
		}
	}
	if sl.stream {
		if err := a.chunks(sl, sl.cuts); err != nil {
			return err
		}
		if sl.entry != nil {
			if err := a.endFile(sl.entry, sl.readErr); err != nil {
				return err
			}
		}
	}
	cuts := sl.cuts
	for i := range sl.entries {
		e := &sl.entries[i]
		var err error
		switch e.Kind {
		case dag.KindDir:
			err = a.tree.AddDir(e.Path, e.Attr)
		case dag.KindLink:
			err = a.tree.AddLink(e.Path, e.Target, e.Attr)
		default:
			if e.err == nil {
				err = a.chunks(sl, cuts[:e.cuts])
				cuts = cuts[e.cuts:]
			}
			if err == nil {
				err = a.endFile(e.Entry, e.err)
			}
		}
		if err != nil {
			return err
		}
	}
	if sl.last && a.tree != nil {
		t, err := a.tree.Finish()
		if err != nil {
			return err
		}
		a.ds.tree = t
	}
	return nil
}

func (a *assembler) endFile(e *fstree.Entry, readErr error) error {
	if readErr != nil {
		if a.tree == nil {
			return readErr
		}
		if err := a.ds.src.Skip(e.Path, readErr); err != nil {
			return err
		}
		a.file = dag.NewFileBuilder(a.ds.profile, a) // drops what it was given
		return nil
	}
	f, err := a.file.Finish(e.Attr)
	if err != nil {
		return err
	}
	a.done.Files++
	if a.tree != nil {
		return a.tree.AddFile(e.Path, f)
	}
	a.ds.tree, err = dag.SingleFile(f, a)
	return err
}

func (a *assembler) chunks(sl *slab, cuts []cut) error {
	for i := range cuts {
		c := &cuts[i]
		data := sl.buf[c.start:c.end]
		if err := a.file.AddChunk(c.digest, len(data)); err != nil {
			return err
		}
		a.done.Bytes += uint64(len(data))
		if c.known || a.recent.has(c.digest) {
			continue
		}
		if err := a.store(c.digest, data); err != nil {
			return err
		}
	}
	return nil
}

// store puts a new chunk into the frame under way.
func (a *assembler) store(d dag.Digest, data []byte) error {
	if a.job != nil && (len(a.job.plain)+len(data) > a.s.opt.FrameSize || len(a.job.chunks) >= frameChunks) {
		if err := a.cut(); err != nil {
			return err
		}
	}
	if a.job == nil {
		j, err := a.w.job()
		if err != nil {
			return err
		}
		a.job = j
	}
	a.job.addChunk(d, data, &a.ds.added)
	a.ds.added.Chunks++
	a.ds.added.Plain += uint64(len(data))
	a.recent.add(d, len(data))
	return nil
}

// cut sends the frame under way and the rows that have gathered. The rows name
// chunks of this frame and the ones before, so they go behind it.
func (a *assembler) cut() error {
	j := a.job
	if j == nil {
		if a.rows.Len() == 0 {
			return nil
		}
		var err error
		if j, err = a.w.job(); err != nil {
			return err
		}
	}
	a.job = nil
	if a.rows.Len() > 0 {
		j.rows, a.rows = a.rows, new(kv.Batch)
		clear(a.nodes)
	}
	return a.w.submit(j)
}

var _ dag.Sink = (*assembler)(nil)

// Node implements dag.Sink.
func (a *assembler) Node(d dag.Digest, block []byte) error {
	key := digestKey(rowNode, d)
	fresh, err := a.fresh(d, key)
	if err != nil || !fresh {
		return err
	}
	a.rows.Set(key, block)
	return a.roomForRows()
}

// Row implements dag.Sink.
func (a *assembler) Row(h dag.Hash, row []byte) error {
	fresh, err := a.fresh(h, commitmentKey(h, 0))
	if err != nil || !fresh {
		return err
	}
	// The first part says that the row is there, so it is written last. The last
	// one is shorter than the others, and so may be empty.
	for part := len(row) / rowPart; part >= 0; part-- {
		a.rows.Set(commitmentKey(h, part), row[part*rowPart:min(len(row), (part+1)*rowPart)])
		if err := a.roomForRows(); err != nil {
			return err
		}
	}
	return nil
}

// fresh says whether a row has to be written, and notes that it will be.
func (a *assembler) fresh(d [32]byte, key []byte) (bool, error) {
	if _, ok := a.nodes[d]; ok {
		return false, nil
	}
	has, err := a.s.kv.Has(a.w.ctx, key)
	if err != nil {
		return false, fmt.Errorf("look up row: %w", storeError(err))
	}
	if !has {
		a.nodes[d] = struct{}{}
	}
	return !has, nil
}

func (a *assembler) roomForRows() error {
	if a.rows.Bytes() < rowBytes && a.rows.Len() < kv.MaxBatchRows/2 {
		return nil
	}
	return a.cut()
}
