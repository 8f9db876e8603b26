package dag

import (
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/go-cid"
)

// A File is what is known of a file whose chunks have all been seen.
type File struct {
	CID       cid.Cid
	Size      uint64 // bytes of content
	Tsize     uint64 // bytes of all blocks of its DAG, as links to it say
	Chunks    uint64
	ChunkRoot Hash // root of its chunk tree
}

// maxFileSize keeps sums of sizes far from overflow.
const maxFileSize = 1 << 62

// A ChunkRef says where in a file a chunk lies.
type ChunkRef struct {
	Digest Digest
	Offset uint64
	Size   uint32
}

// A FileBuilder builds the DAG and the chunk tree of one file after another,
// from the digests and sizes of their chunks. Its memory grows with the
// logarithm of the number of chunks. After an error it cannot be used again.
type FileBuilder struct {
	sink   Sink
	max    int // bytes of a chunk
	size   uint64
	chunks uint64
	last   link // of the last chunk

	levels []fileLevel
	height int // levels in use
	block  []byte
	msg    []byte

	group   []Hash // leaves of the chunk tree that no row covers yet
	rows    rowBuilder
	grouped bool // rows were begun
}

// A fileLevel is a DAG node that is being filled. Chunks are linked on level
// 0, its nodes on level 1, and so on.
type fileLevel struct {
	links      []byte // encoded
	blocksizes []byte // encoded
	n          int
	size       uint64 // bytes of content below
	tsize      uint64 // sum of the links'
}

// NewFileBuilder returns a builder that gives what it makes to s.
func NewFileBuilder(p *Profile, s Sink) *FileBuilder {
	return &FileBuilder{sink: s, max: p.splitter.Max(), rows: rowBuilder{sink: s}}
}

// AddChunk adds the next chunk of the file.
func (b *FileBuilder) AddChunk(d Digest, size int) error {
	if size <= 0 || size > b.max {
		return fmt.Errorf("chunk of %d bytes: %w", size, ErrRange)
	}
	if b.size > maxFileSize-uint64(size) {
		return fmt.Errorf("file of more than %d bytes: %w", uint64(maxFileSize), ErrRange)
	}
	if len(b.group) == rowWidth {
		if err := b.endGroup(); err != nil {
			return err
		}
	}
	b.group = append(b.group, ChunkLeafHash(ChunkRef{Digest: d, Offset: b.size, Size: uint32(size)}))
	b.last = link{codec: cid.Raw, digest: d, tsize: uint64(size)}
	b.size += uint64(size)
	b.chunks++
	return b.add(0, b.last, uint64(size))
}

func (b *FileBuilder) endGroup() error {
	b.grouped = true
	h := foldRoot(b.group)
	b.group = b.group[:0]
	return b.rows.push(0, h)
}

// add links a child into the open node of a level.
func (b *FileBuilder) add(level int, l link, size uint64) error {
	if level == b.height {
		if b.height++; b.height > len(b.levels) {
			b.levels = append(b.levels, fileLevel{})
		}
	}
	// As with rows: a full node goes out only when another child comes, since
	// only the root carries mode and time.
	if b.levels[level].n == dagWidth {
		if err := b.flush(level); err != nil {
			return err
		}
	}
	v := &b.levels[level]
	v.links = appendLink(v.links, l, "", nil)
	v.blocksizes = appendBlocksize(v.blocksizes, size)
	v.n++
	v.size += size
	v.tsize += l.tsize
	return nil
}

// flush moves the node of a level into the sink and links it one level up.
func (b *FileBuilder) flush(level int) error {
	size := b.levels[level].size
	l, err := b.write(level, Attr{Mode: DefaultFileMode})
	if err != nil {
		return err
	}
	return b.add(level+1, l, size)
}

func (b *FileBuilder) write(level int, a Attr) (link, error) {
	v := &b.levels[level]
	b.msg = appendAttr(fileMessage(b.msg[:0], v.size, v.blocksizes), a, DefaultFileMode)
	b.block = appendData(append(b.block[:0], v.links...), b.msg)
	l, err := writeNode(b.sink, b.block, v.tsize)
	*v = fileLevel{links: v.links[:0], blocksizes: v.blocksizes[:0]}
	return l, err
}

// writeNode gives a node to the sink and returns the link to it. below is the
// sum of the sizes that its own links say.
func writeNode(s Sink, block []byte, below uint64) (link, error) {
	d := Digest(sha256.Sum256(block))
	if err := s.Node(d, block); err != nil {
		return link{}, fmt.Errorf("store DAG node: %w", err)
	}
	return link{codec: cid.DagProtobuf, digest: d, tsize: below + uint64(len(block))}, nil
}

// Finish ends the file and is ready for the next one.
func (b *FileBuilder) Finish(a Attr) (File, error) {
	if err := a.check(); err != nil {
		return File{}, err
	}
	f := File{Size: b.size, Chunks: b.chunks}
	var err error
	if f.ChunkRoot, err = b.finishRows(); err != nil {
		return File{}, err
	}
	root, err := b.finishDAG(a)
	if err != nil {
		return File{}, err
	}
	f.CID, f.Tsize = root.cid(), root.tsize
	b.size, b.chunks = 0, 0
	return f, nil
}

func (b *FileBuilder) finishRows() (Hash, error) {
	if !b.grouped {
		h := foldRoot(b.group)
		b.group = b.group[:0]
		return h, nil
	}
	b.grouped = false
	if err := b.rows.push(0, foldRoot(b.group)); err != nil {
		return Hash{}, err
	}
	b.group = b.group[:0]
	return b.rows.finish()
}

func (b *FileBuilder) finishDAG(a Attr) (link, error) {
	// A raw leaf cannot carry a mode or a time; what needs none is not
	// wrapped.
	plain := a.Mode == DefaultFileMode && a.Mtime.IsZero()
	if b.chunks == 0 && plain {
		return link{codec: cid.Raw, digest: EmptyDigest}, nil
	}
	if b.chunks == 0 {
		b.msg = appendAttr(fileMessage(b.msg[:0], 0, nil), a, DefaultFileMode)
		b.block = appendData(b.block[:0], b.msg)
		return writeNode(b.sink, b.block, 0)
	}
	if b.chunks == 1 && plain {
		v := &b.levels[0]
		*v = fileLevel{links: v.links[:0], blocksizes: v.blocksizes[:0]}
		b.height = 0
		return b.last, nil
	}
	level := 0
	for ; level+1 < b.height; level++ {
		if err := b.flush(level); err != nil {
			return link{}, err
		}
	}
	b.height = 0
	return b.write(level, a)
}
