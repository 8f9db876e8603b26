package dag

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
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

// An entrySet holds the entries of one directory, a million of them in some
// 70 MB: packed into segments, with one 4-byte reference each.
type entrySet struct {
	segments [][]byte
	refs     []uint32 // segment<<segmentBits | place in it
	sorted   bool     // so far they came in order of name
}

const (
	segmentBits = 20
	segmentSize = 1 << segmentBits
	// entryMax is the largest packed entry: codec, digest, size, name.
	entryMax = 1 + 32 + binary.MaxVarintLen64 + 1 + MaxName
)

// reset empties the set and keeps memory for a directory of usual size.
func (s *entrySet) reset() {
	if len(s.segments) > 0 {
		s.segments = s.segments[:1]
		s.segments[0] = s.segments[0][:0]
	}
	if cap(s.refs) > segmentSize/16 {
		s.refs = nil
	}
	s.refs = s.refs[:0]
	s.sorted = true
}

func (s *entrySet) add(l link, name string) error {
	last := len(s.segments) - 1
	switch {
	case last < 0:
		s.segments = append(s.segments, nil)
		last = 0
	case len(s.segments[last]) > segmentSize-entryMax:
		if last++; last == 1<<(32-segmentBits) {
			return fmt.Errorf("directory of more than %d entries: %w", len(s.refs), ErrRange)
		}
		s.segments = append(s.segments, make([]byte, 0, segmentSize))
	}
	seg := s.segments[last]
	if n := len(s.refs); n > 0 && s.sorted {
		_, before := s.entry(s.refs[n-1])
		s.sorted = string(before) < name
	}
	s.refs = append(s.refs, uint32(last<<segmentBits|len(seg)))
	seg = append(seg, l.codec)
	seg = append(seg, l.digest[:]...)
	seg = binary.AppendUvarint(seg, l.tsize)
	seg = append(seg, byte(len(name)))
	s.segments[last] = append(seg, name...)
	return nil
}

// entry unpacks an entry. The name is valid until the set changes.
func (s *entrySet) entry(ref uint32) (link, []byte) {
	p := s.segments[ref>>segmentBits][ref&(segmentSize-1):]
	l := link{codec: p[0], digest: Digest(p[1:33])}
	var n int
	l.tsize, n = binary.Uvarint(p[33:])
	p = p[33+n:]
	return l, p[1 : 1+int(p[0])]
}

func (s *entrySet) name(ref uint32) []byte {
	_, name := s.entry(ref)
	return name
}

// sort puts the references into order of name and refuses a name that is
// there twice.
func (s *entrySet) sort() error {
	if s.sorted {
		return nil
	}
	slices.SortFunc(s.refs, func(a, b uint32) int {
		return bytes.Compare(s.name(a), s.name(b))
	})
	for i := 1; i < len(s.refs); i++ {
		if name := s.name(s.refs[i]); string(name) == string(s.name(s.refs[i-1])) {
			return fmt.Errorf("two entries of the name %q: %w", name, ErrOrder)
		}
	}
	s.sorted = true
	return nil
}

// A dirBuilder gathers one directory.
type dirBuilder struct {
	attr  Attr
	path  int // length of its path
	set   entrySet
	size  int    // bytes that its links take in a basic directory
	tsize uint64 // sum of the links'
}

func (d *dirBuilder) add(l link, name string) error {
	if d.tsize > math.MaxInt64-l.tsize {
		return fmt.Errorf("tree of more than %d bytes: %w", int64(math.MaxInt64), ErrRange)
	}
	d.size += l.size(len(name))
	d.tsize += l.tsize
	return d.set.add(l, name)
}

// A nodeWriter encodes directories and links and gives them to the sink.
type nodeWriter struct {
	sink  Sink
	limit int // Profile.dirLimit
	block []byte
	msg   []byte
	hamt  hamtWriter
}

// dir writes a directory, as one node where that is small enough.
func (w *nodeWriter) dir(d *dirBuilder) (link, error) {
	if err := d.set.sort(); err != nil {
		return link{}, err
	}
	w.msg = dirMessage(w.msg[:0], d.attr)
	if d.size+dataSize(len(w.msg)) > w.limit {
		return w.hamt.write(w.sink, &d.set, d.attr)
	}
	w.block = w.block[:0]
	for _, ref := range d.set.refs {
		l, name := d.set.entry(ref)
		w.block = appendLink(w.block, l, "", name)
	}
	w.block = appendData(w.block, w.msg)
	return writeNode(w.sink, w.block, d.tsize)
}

// symlink writes a symbolic link.
func (w *nodeWriter) symlink(target string, a Attr) (link, error) {
	w.msg = linkMessage(w.msg[:0], target, a.Mtime)
	w.block = appendData(w.block[:0], w.msg)
	return writeNode(w.sink, w.block, 0)
}
