package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
	"github.com/koii-network/scale/store/badgerkv"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
	"github.com/koii-network/scale/store/rowpack"
)

type partTime struct{ cpu, wall time.Duration }

// A line takes a dataset through the stages, one after the other.
type line struct {
	ctx     context.Context
	profile *dag.Profile
	kv      *badgerkv.KV
	packs   *pack.Files
	sealer  *compress.Sealer
	opener  *compress.Opener
	packer  *rowpack.Packer
	took    map[string]partTime

	size  int64
	count int // of chunks

	buf     []byte              // of one read
	ends    []int               // scratch
	seen    map[dag.Digest]bool // chunks that were taken
	frame   []byte
	chunks  []pack.Chunk // of the frame
	sealed  []byte
	packed  []byte     // node or row of the commitment
	pending int        // plain bytes since the last flush
	index   []kv.Batch // rows of chunks
	rows    []kv.Batch // nodes and rows of the commitment
	file    *dag.FileBuilder
	tree    *dag.TreeBuilder
}

func newLine(ctx context.Context, scratch string) (_ *line, err error) {
	l := &line{ctx: ctx, took: map[string]partTime{}, seen: map[dag.Digest]bool{}, buf: make([]byte, partsRead), frame: make([]byte, 0, partsFrame)}
	if l.profile, err = dag.LookupProfile(dag.DefaultProfile); err != nil {
		return nil, err
	}
	if l.sealer, err = compress.NewSealer(compress.SealOptions{}); err != nil {
		return nil, err
	}
	if l.opener, err = compress.NewOpener(); err != nil {
		return nil, err
	}
	if l.packer, err = rowpack.New(l.opener); err != nil {
		return nil, err
	}
	packs := filepath.Join(scratch, "packs")
	if err := os.Mkdir(packs, 0o755); err != nil {
		return nil, err
	}
	if l.packs, err = pack.Open(packs, pack.Options{}, pack.Tail{}); err != nil {
		return nil, err
	}
	if l.kv, err = badgerkv.Open(filepath.Join(scratch, "kv"), badgerkv.Options{}); err != nil {
		return nil, errors.Join(err, l.packs.Close())
	}
	l.file, l.tree = dag.NewFileBuilder(l.profile, l), dag.NewTreeBuilder(l.profile, l)
	return l, nil
}

func (l *line) close() error {
	l.opener.Close()
	return errors.Join(l.tree.Close(), l.packs.Close(), l.kv.Close())
}

// do adds what a step takes to its stage. The CPU is that of the process: the collector
// and what the index does in the background count for the stage that runs meanwhile.
func (l *line) do(part string, step func() error) error {
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		return err
	}
	start := time.Now()
	err := step()
	wall := time.Since(start)
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		return err
	}
	t := l.took[part]
	t.cpu += cpuOf(&after) - cpuOf(&before)
	t.wall += wall
	l.took[part] = t
	return err
}

func cpuOf(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// put takes a file or a tree to its end.
func (l *line) put(input string) error {
	info, err := os.Stat(input)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		f, err := l.stream(input)
		if err == nil {
			err = l.do(partBuild, func() error { _, err := dag.SingleFile(f, l); return err })
		}
		if err != nil {
			return err
		}
		return l.flush()
	}
	tree, err := fstree.Open(input, fstree.Options{})
	if err != nil {
		return err
	}
	defer tree.Close()
	var entries []*fstree.Entry
	err = l.do(partRead, func() error {
		for e, err := range tree.Walk(l.ctx) {
			if err != nil {
				return err
			}
			entries = append(entries, e)
		}
		return nil
	})
	for len(entries) > 0 && err == nil {
		n := 0
		if n, err = l.small(tree, entries); n == 0 && err == nil {
			n, err = 1, l.large(input, entries[0].Path)
		}
		entries = entries[n:]
	}
	if err == nil {
		err = l.do(partBuild, func() error { _, err := l.tree.Finish(); return err })
	}
	if err != nil {
		return err
	}
	return l.flush()
}

// small takes as many of the entries as fit into one read, directories and files that are
// small, and returns how many.
func (l *line) small(tree *fstree.Tree, entries []*fstree.Entry) (n int, err error) {
	var files []int // how many bytes each has, -1 for a directory
	buf := l.buf[:0]
	err = l.do(partRead, func() error {
		for _, e := range entries {
			if e.Kind == dag.KindDir {
				files = append(files, -1)
				continue
			}
			read, err := tree.Read(e, buf[len(buf):cap(buf)])
			if errors.Is(err, io.ErrShortBuffer) {
				return nil
			}
			if err != nil {
				return err
			}
			buf = buf[:len(buf)+read]
			files = append(files, read)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var pieces [][]byte
	counts := make([]int, len(files))
	err = l.do(partChunk, func() error {
		rest := buf
		for i, size := range files {
			if size > 0 {
				before := len(pieces)
				pieces = l.cut(pieces, rest[:size], true)
				counts[i], rest = len(pieces)-before, rest[size:]
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	digests, err := l.take(pieces)
	if err != nil {
		return 0, err
	}
	return len(files), l.do(partBuild, func() error {
		for i, size := range files {
			if size < 0 {
				if err := l.tree.AddDir(entries[i].Path, dag.Attr{Mode: dag.DefaultDirMode}); err != nil {
					return err
				}
				continue
			}
			if err := l.add(digests[:counts[i]], pieces[:counts[i]]); err != nil {
				return err
			}
			digests, pieces = digests[counts[i]:], pieces[counts[i]:]
			f, err := l.file.Finish(dag.Attr{Mode: dag.DefaultFileMode})
			if err != nil {
				return err
			}
			if err := l.tree.AddFile(entries[i].Path, f); err != nil {
				return err
			}
		}
		return nil
	})
}

// large takes a file that is larger than one read.
func (l *line) large(input, path string) error {
	f, err := l.stream(filepath.Join(input, path))
	if err != nil {
		return err
	}
	return l.do(partBuild, func() error { return l.tree.AddFile(path, f) })
}

// stream takes one file through the stages.
func (l *line) stream(name string) (f dag.File, err error) {
	in, err := os.Open(name)
	if err != nil {
		return f, err
	}
	defer in.Close()
	buf := l.buf[:0]
	for final := false; !final; {
		err := l.do(partRead, func() error {
			n, err := io.ReadFull(in, buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			if final = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); final {
				err = nil
			}
			return err
		})
		if err != nil {
			return f, err
		}
		var pieces [][]byte
		if err := l.do(partChunk, func() error { pieces = l.cut(nil, buf, final); return nil }); err != nil {
			return f, err
		}
		digests, err := l.take(pieces)
		if err == nil {
			err = l.do(partBuild, func() error { return l.add(digests, pieces) })
		}
		if err != nil {
			return f, err
		}
		done := 0
		for _, p := range pieces {
			done += len(p)
		}
		buf = buf[:copy(buf, buf[done:])]
	}
	err = l.do(partBuild, func() error {
		f, err = l.file.Finish(dag.Attr{Mode: dag.DefaultFileMode})
		return err
	})
	return f, err
}

// cut appends the chunks of p.
func (l *line) cut(pieces [][]byte, p []byte, final bool) [][]byte {
	l.ends = l.profile.Splitter().Split(l.ends[:0], p, final)
	start := 0
	for _, end := range l.ends {
		pieces = append(pieces, p[start:end])
		start = end
	}
	return pieces
}

// add adds chunks to the file that is being built.
func (l *line) add(digests []dag.Digest, pieces [][]byte) error {
	for i, d := range digests {
		if err := l.file.AddChunk(d, len(pieces[i])); err != nil {
			return err
		}
		l.size += int64(len(pieces[i]))
	}
	l.count += len(digests)
	return nil
}

// take hashes chunks, looks them up, and seals those that are new. The store is new, and the
// engine then asks the index for nothing.
func (l *line) take(pieces [][]byte) ([]dag.Digest, error) {
	digests, known := make([]dag.Digest, len(pieces)), make([]bool, len(pieces))
	err := l.do(partHash, func() error {
		for i, p := range pieces {
			digests[i] = sha256.Sum256(p)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = l.do(partLookup, func() error {
		for i, d := range digests {
			known[i], l.seen[d] = l.seen[d], true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, p := range pieces {
		if known[i] {
			continue
		}
		if len(l.frame)+len(p) > partsFrame || len(l.chunks) == ingest.MaxFrameChunks {
			if err := l.seal(); err != nil {
				return nil, err
			}
		}
		l.frame = append(l.frame, p...)
		l.chunks = append(l.chunks, pack.Chunk{Digest: digests[i], Size: uint32(len(p))})
	}
	return digests, nil
}

// seal seals the frame and appends it to the packs.
func (l *line) seal() (err error) {
	if len(l.frame) == 0 {
		return nil
	}
	f := pack.Frame{PlainSize: uint32(len(l.frame)), Chunks: l.chunks}
	err = l.do(partSeal, func() (err error) {
		f.Codec, f.Sealed, err = l.sealer.Seal(l.sealed, l.frame)
		return err
	})
	if err != nil {
		return err
	}
	if f.Codec == compress.Zstd {
		l.sealed = f.Sealed
	}
	err = l.do(partAppend, func() error {
		loc, err := l.packs.Append(l.ctx, f)
		for _, c := range l.chunks {
			value := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(loc.Pack)), loc.Off)
			l.index = addRow(l.index, chunkKey(c.Digest), binary.AppendUvarint(value, uint64(c.Size)))
		}
		return err
	})
	if err != nil {
		return err
	}
	l.pending += len(l.frame)
	l.frame, l.chunks = l.frame[:0], l.chunks[:0]
	if l.pending < partsFlush && len(l.index) < 4 && len(l.rows) < 2 {
		return nil
	}
	return l.durable()
}

// flush makes what is left durable.
func (l *line) flush() error {
	if err := l.seal(); err != nil {
		return err
	}
	return l.durable()
}

func (l *line) durable() error {
	if err := l.do(partSync, func() error { return l.packs.Sync(l.ctx) }); err != nil {
		return err
	}
	l.pending = 0
	return l.do(partCommit, func() error {
		for _, batches := range [][]kv.Batch{l.index, l.rows} {
			for i := range batches {
				if err := l.kv.Commit(l.ctx, &batches[i]); err != nil {
					return err
				}
			}
		}
		l.index, l.rows = nil, nil
		return nil
	})
}

func chunkKey(d dag.Digest) []byte { return append([]byte{'b'}, d[:]...) }

// Node implements dag.Sink.
func (l *line) Node(d dag.Digest, block []byte) error {
	var shrunk bool
	if l.packed, shrunk = l.packer.Node(l.packed, block); shrunk {
		block = l.packed
	}
	l.rows = addRow(l.rows, append([]byte{'d'}, d[:]...), block)
	return nil
}

// Row implements dag.Sink.
func (l *line) Row(h dag.Hash, row []byte) error {
	var shrunk bool
	if l.packed, shrunk = l.packer.Row(l.packed, row); shrunk {
		row = l.packed
	}
	part := byte(0)
	for piece := range slices.Chunk(row, partsRow) {
		l.rows = addRow(l.rows, append(append([]byte{'m'}, h[:]...), part), piece)
		part++
	}
	return nil
}

// addRow adds a row to the last of the batches that has room for it.
func addRow(batches []kv.Batch, key, value []byte) []kv.Batch {
	if n := len(batches); n == 0 || !batches[n-1].Fits(1, len(key)+len(value)) {
		batches = append(batches, kv.Batch{})
	}
	batches[len(batches)-1].Set(key, value)
	return batches
}
