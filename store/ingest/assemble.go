package ingest

import (
	"github.com/koii-network/scale/dag"
)

// An assembler takes slabs in order, hands on the chunks that are new and builds DAG
// and commitment.
type assembler struct {
	r    *run
	done Progress
	part uint64 // bytes of the file under way
	err  error  // why it takes no more

	fresh   []NewChunk // scratch
	missing []dag.Digest
	sizes   []uint32                // of missing
	listed  map[dag.Digest]struct{} // in missing

	tree   *dag.TreeBuilder // nil for a single file
	file   *dag.FileBuilder
	result dag.Tree
}

func (a *assembler) take(sl *slab) error {
	a.err = a.slab(sl)
	return a.err
}

func (a *assembler) slab(sl *slab) error {
	if sl.err != nil {
		return sl.err
	}
	if err := a.handOver(sl); err != nil {
		return err
	}
	// A node must not name what is not stored, so nothing is built any more once
	// something is missing.
	if n := len(a.missing); n == MaxMissing || n > 0 && sl.last {
		return &MissingError{Digests: a.missing, Sizes: a.sizes}
	} else if n == 0 {
		if err := a.build(sl); err != nil {
			return err
		}
	}
	if a.r.out.Progress != nil {
		a.r.out.Progress(a.done)
	}
	return nil
}

// handOver hands on the slab's new chunks and notes those that are missing.
func (a *assembler) handOver(sl *slab) error {
	a.fresh = a.fresh[:0]
	for i, c := range sl.chunks {
		switch at := sl.starts[i]; {
		case sl.known[i]:
		case at >= 0:
			a.fresh = append(a.fresh, NewChunk{Chunk: c, Data: sl.buf.b[at : at+int(c.Size)]})
		default:
			a.miss(c)
		}
	}
	if len(a.fresh) == 0 {
		return nil
	}
	err := a.r.out.Chunks.Add(a.r.ctx, a.fresh, sl.last)
	clear(a.fresh)
	return err
}

func (a *assembler) miss(c Chunk) {
	if _, ok := a.listed[c.Digest]; ok || len(a.missing) == MaxMissing {
		return
	}
	if a.listed == nil {
		a.listed = make(map[dag.Digest]struct{})
	}
	a.listed[c.Digest] = struct{}{}
	a.missing, a.sizes = append(a.missing, c.Digest), append(a.sizes, c.Size)
}

func (a *assembler) build(sl *slab) error {
	if a.file == nil {
		a.file = dag.NewFileBuilder(a.r.in.Profile, a.r.out.Nodes)
		if a.r.kind == dag.KindDir {
			a.tree = dag.NewTreeBuilder(a.r.in.Profile, a.r.out.Nodes)
			a.tree.Spill(a.r.in.Sort)
		}
	}
	chunks := sl.chunks
	for i := range sl.items {
		it := &sl.items[i]
		if err := a.item(it, chunks[:it.chunks]); err != nil {
			return err
		}
		chunks = chunks[it.chunks:]
	}
	if !sl.last || a.tree == nil {
		return nil
	}
	var err error
	a.result, err = a.tree.Finish()
	return err
}

func (a *assembler) item(it *item, chunks []Chunk) error {
	m, e := a.r.out.Manifest, it.entry
	if it.begins {
		a.part = 0
		if e.Kind == dag.KindFile {
			a.r.out.Files.Begin(e.Path, e.Stamp)
		}
	}
	if it.begins && m != nil {
		if err := m.Begin(Entry{Path: e.Path, Kind: e.Kind, Attr: e.Attr, Target: e.Target}); err != nil {
			return err
		}
	}
	for _, c := range chunks {
		if err := a.file.AddChunk(c.Digest, int(c.Size)); err != nil {
			return err
		}
		if m != nil {
			if err := m.Chunk(c); err != nil {
				return err
			}
		}
		a.part += uint64(c.Size)
		if it.from != fromKnown { // which may come again
			a.done.Bytes += uint64(c.Size)
		}
		a.r.out.Files.Chunk(c.Digest, c.Size)
	}
	if !it.ends {
		return nil
	}
	keep := it.err == nil && !it.again
	if it.again {
		a.drop()
	} else if it.err != nil {
		if a.tree == nil {
			return it.err
		}
		if err := a.r.src.Skip(e.Path, it.err); err != nil {
			return err
		}
		a.drop()
	} else if err := a.end(it); err != nil {
		return err
	}
	if e.Kind == dag.KindFile {
		a.r.out.Files.End(keep)
	}
	if keep && it.unread() {
		a.done.Unread += a.part
	}
	if keep && it.from == fromKnown {
		a.done.Bytes += a.part
	}
	if m != nil {
		return m.End(keep)
	}
	return nil
}

// drop forgets the chunks of the file under way.
func (a *assembler) drop() {
	a.file = dag.NewFileBuilder(a.r.in.Profile, a.r.out.Nodes)
}

// close gives back what a dataset that did not come to its end holds.
func (a *assembler) close() error {
	if a.tree == nil {
		return nil
	}
	return a.tree.Close()
}

// end adds an entry that is complete.
func (a *assembler) end(it *item) error {
	e := it.entry
	switch e.Kind {
	case dag.KindDir:
		return a.tree.AddDir(e.Path, e.Attr)
	case dag.KindLink:
		return a.tree.AddLink(e.Path, e.Target, e.Attr)
	}
	f, err := a.file.Finish(e.Attr)
	if err != nil {
		return err
	}
	a.done.Files++
	if a.tree != nil {
		return a.tree.AddFile(e.Path, f)
	}
	a.result, err = dag.SingleFile(f, a.r.out.Nodes)
	return err
}
