package filecache

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/fstree"
)

func (d Dir) path(k key) string { return filepath.Join(d.Path, k.file()) }

// A Writer records a cache, beside the one that there is, which it replaces when it is
// committed. Nothing that goes wrong with it means anything for the files, so its methods
// return no errors before Commit does. One goroutine may use it. A nil Writer records
// nothing.
type Writer struct {
	dir     Dir
	key     key
	settled int64 // files that changed at this time or later are not recorded, ns since 1970

	f     *os.File // nil before the first block is written
	nonce [nonceSize]byte
	n     uint64 // blocks written or tried to
	block []byte // the one being filled: room for its frame, and its payload
	last  row    // of the block; zero: none
	err   error

	row   row   // the one under way
	start int   // where it begins in the block; -1: in one before
	left  int64 // bytes that chunks are still to come for
	skip  bool  // it is not recorded

	// What the walk found, recorded or not.
	files, bytes uint64
	rows         uint64
	size         int64 // of the cache
}

// create begins a cache of the tree at root, or returns nil if there is no such tree.
func (d Dir) create(root, profile string) *Writer {
	k, err := keyOf(root, profile)
	if err != nil {
		return nil
	}
	w := &Writer{dir: d, key: k, settled: d.now().Add(-Settled).UnixNano()}
	rand.Read(w.nonce[:])
	w.block = make([]byte, frameSize, frameSize+blockSize+1024)
	w.begin()
	return w
}

// Begin begins the row of a file that had the stamp s from before it was read until after.
func (w *Writer) Begin(path string, s fstree.Stamp) {
	if w == nil {
		return
	}
	w.files++
	w.bytes += uint64(s.Size)
	// Such a file may be written to again without a change of its stamp.
	w.skip = w.err != nil || s.Mtime >= w.settled || s.Ctime >= w.settled || len(path) > dag.MaxPath
	if w.skip {
		return
	}
	w.start, w.left = len(w.block), s.Size
	w.row.path, w.row.stamp = append(w.row.path[:0], path...), s
	w.block = appendRow(w.block, &w.last, path, s)
}

// Chunk adds a chunk of the file.
func (w *Writer) Chunk(d dag.Digest, size uint32) {
	if w == nil || w.skip {
		return
	}
	if len(w.block) >= frameSize+blockSize {
		w.flush()
		w.block[frameSize], w.start = chunkBlock, -1
	}
	w.block = appendChunk(w.block, d, size)
	w.left -= int64(size)
}

// End ends the row. Without keep it is not recorded.
func (w *Writer) End(keep bool) {
	if w == nil || w.skip {
		return
	}
	keep = keep && w.left == 0
	switch {
	case w.start < 0 && keep:
		w.flush() // rows begin in a block of their own
	case w.start < 0:
		// The row that the blocks before it begin is void without the rest.
		w.begin()
	case !keep:
		w.block = w.block[:w.start]
	default:
		w.last, w.row = w.row, w.last
		if len(w.block) >= frameSize+blockSize {
			w.flush()
		}
	}
	if keep {
		w.rows++
	}
}

// begin begins a block of rows.
func (w *Writer) begin() {
	w.block = append(w.block[:frameSize], rowBlock)
	w.last.path, w.last.stamp = w.last.path[:0], fstree.Stamp{}
}

// flush writes the block, if anything is in it, and begins another.
func (w *Writer) flush() {
	if len(w.block) > frameSize+1 {
		if w.f == nil && w.err == nil {
			w.err = w.open()
		}
		w.write(w.block)
	}
	w.begin()
}

// write puts the frame before a payload and writes both.
func (w *Writer) write(b []byte) {
	payload := b[frameSize:]
	binary.BigEndian.PutUint32(b, uint32(len(payload)))
	binary.BigEndian.PutUint32(b[4:], checksum(&w.nonce, w.n, payload))
	w.n++
	if w.size += int64(len(b)); w.size > maxBytes && w.err == nil {
		w.err = fmt.Errorf("a file cache of more than %d bytes is not kept", maxBytes)
	}
	if w.err == nil && w.dir.Room != nil {
		w.err = w.dir.Room(int64(len(b)))
	}
	if w.err == nil {
		_, w.err = w.f.Write(b)
	}
}

// open makes the file and writes its beginning.
func (w *Writer) open() error {
	err := os.MkdirAll(w.dir.Path, 0o700)
	if err != nil {
		return err
	}
	// A name of its own, so that others who record the same tree are not disturbed. The
	// mode is 0600.
	if w.f, err = os.CreateTemp(w.dir.Path, w.key.file()+unfinished+"*"); err != nil {
		return err
	}
	if _, err := io.WriteString(w.f, magic); err != nil {
		return err
	}
	w.write(appendHead(make([]byte, frameSize), &w.nonce, w.key))
	return w.err
}

// Commit ends the walk and puts the cache in the place of the one before. It is not
// synced: a crash may lose it. A tree that is read within some milliseconds has none.
func (w *Writer) Commit() error {
	if w == nil {
		return nil
	}
	defer w.Abort()
	if w.err == nil && w.rows > 0 && w.bytes+fileBytes*w.files >= worthBytes {
		w.flush()
		if w.err == nil {
			w.err = os.Rename(w.f.Name(), w.dir.path(w.key))
		}
		if w.err == nil {
			w.err = w.dir.prune(maxFiles, maxBytes)
		}
	}
	if w.err != nil {
		return fmt.Errorf("file cache of %q: %w", w.key.root, w.err)
	}
	return nil
}

// Abort gives up what was not committed.
func (w *Writer) Abort() {
	if w == nil || w.f == nil {
		return
	}
	os.Remove(w.f.Name()) // after Commit there is nothing of that name
	w.f.Close()
	w.f = nil
}
