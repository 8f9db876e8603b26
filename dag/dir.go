package dag

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/koii-network/scale/dag/extsort"
)

// Limits of what a tree holds, those of Linux.
const (
	MaxName   = 255
	MaxPath   = 4096
	MaxTarget = 4095
)

func checkName[S []byte | string](name S) error {
	n := len(name)
	if n == 0 || n > MaxName || n == 1 && name[0] == '.' || n == 2 && name[0] == '.' && name[1] == '.' {
		return fmt.Errorf("name %q: %w", name, ErrPath)
	}
	for i := range n {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("name %q: %w", name, ErrPath)
		}
	}
	return nil
}

// checkPath checks the path of anything but the root.
func checkPath(path string) error {
	if len(path) > MaxPath {
		return fmt.Errorf("path of %d bytes: %w", len(path), ErrPath)
	}
	for name := range strings.SplitSeq(path, "/") {
		if err := checkName(name); err != nil {
			return fmt.Errorf("path %q: %w", path, err)
		}
	}
	return nil
}

func checkTarget[S []byte | string](target S) error {
	n := len(target)
	if n == 0 || n > MaxTarget {
		return fmt.Errorf("link target of %d bytes: %w", n, ErrPath)
	}
	for i := range n {
		if target[i] == 0 {
			return fmt.Errorf("link target %q: %w", target, ErrPath)
		}
	}
	return nil
}

// A dirBuilder gathers one directory.
type dirBuilder struct {
	attr Attr
	path int // length of its path
	n    int // entries
	// entries are sorted by name as long as the directory may turn out to be one
	// node, and by hash and name once it is known to be sharded. The values are
	// links.
	entries *extsort.Sorter
	sharded bool
	size    int    // bytes of the one node
	tsize   uint64 // sum of the links'
}

// A nodeWriter encodes directories and links and gives them to the sink.
type nodeWriter struct {
	sink  Sink
	limit int // Profile.dirLimit
	space *extsort.Space
	block []byte
	msg   []byte
	key   []byte
	value []byte
	last  []byte // name
	hamt  hamtWriter
}

// open begins a directory.
func (w *nodeWriter) open(d *dirBuilder, a Attr, path int) {
	w.msg = dirMessage(w.msg[:0], a)
	*d = dirBuilder{attr: a, path: path, entries: w.space.Sorter(), size: dataSize(len(w.msg))}
}

func (w *nodeWriter) add(d *dirBuilder, l link, name string) error {
	if d.tsize > math.MaxInt64-l.tsize {
		return fmt.Errorf("tree of more than %d bytes: %w", int64(math.MaxInt64), ErrRange)
	}
	d.n++
	d.size += l.size(len(name))
	d.tsize += l.tsize
	if !d.sharded && d.size > w.limit {
		if err := w.shard(d); err != nil {
			return err
		}
	}
	w.value = l.append(w.value[:0])
	w.key = w.key[:0]
	if d.sharded {
		w.key = appendHash(w.key, name)
	}
	w.key = append(w.key, name...)
	return d.entries.Add(w.key, w.value)
}

// shard sorts the entries so far by their hashes instead.
func (w *nodeWriter) shard(d *dirBuilder) error {
	byName := d.entries
	defer byName.Close()
	d.entries, d.sharded = w.space.Sorter(), true
	for e, err := range byName.Sorted() {
		if err == nil {
			w.key = append(appendHash(w.key[:0], e.Key), e.Key...)
			w.value = append(w.value[:0], e.Value...) // e is valid until the next call
			err = d.entries.Add(w.key, w.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func appendHash[S []byte | string](b []byte, name S) []byte {
	return binary.BigEndian.AppendUint64(b, hamtHashOf([]byte(name)))
}

// append encodes a link as the value of an entry that is sorted.
func (l link) append(b []byte) []byte {
	b = append(b, l.codec)
	b = append(b, l.digest[:]...)
	return binary.AppendUvarint(b, l.tsize)
}

// parseEntry is the inverse of link.append.
func parseEntry(b []byte) (link, error) {
	c := cursor{rest: b}
	l := link{codec: c.byte()}
	copy(l.digest[:], c.bytes(uint64(len(l.digest))))
	l.tsize = c.uvarint()
	if !c.end() {
		return l, fmt.Errorf("entry of %d bytes in the %w", len(b), extsort.ErrScratch)
	}
	return l, nil
}

func errTwice(name []byte) error {
	return fmt.Errorf("two entries of the name %q: %w", name, ErrOrder)
}

// close ends a directory and writes it, as one node where that is small enough.
func (w *nodeWriter) close(d *dirBuilder) (link, error) {
	defer d.entries.Close()
	if d.sharded {
		return w.hamt.write(w.sink, d.entries, d.attr)
	}
	w.block, w.last = w.block[:0], w.last[:0]
	for e, err := range d.entries.Sorted() {
		if err != nil {
			return link{}, err
		}
		l, err := parseEntry(e.Value)
		if err != nil {
			return link{}, err
		}
		if string(e.Key) == string(w.last) {
			return link{}, errTwice(e.Key)
		}
		w.last = append(w.last[:0], e.Key...)
		w.block = appendLink(w.block, l, "", e.Key)
	}
	w.msg = dirMessage(w.msg[:0], d.attr)
	w.block = appendData(w.block, w.msg)
	return writeNode(w.sink, w.block, d.tsize)
}

// symlink writes a symbolic link.
func (w *nodeWriter) symlink(target string, a Attr) (link, error) {
	w.msg = linkMessage(w.msg[:0], target, a.Mtime)
	w.block = appendData(w.block[:0], w.msg)
	return writeNode(w.sink, w.block, 0)
}
