package fstree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// A listing holds the names of a directory in canonical order. It is packed,
// because a directory may hold millions: a name costs its bytes and 8 more.
type listing struct {
	// text holds the names; those of directories end in '/', which is what the order
	// wants. It grows by segments: doubling one slice would take as much again.
	text  [][]byte
	names []nameRef
}

// segment is the size of one piece of text. The first piece grows, because most
// directories are small.
const (
	segmentBits = 20
	segment     = 1 << segmentBits
)

type nameRef struct {
	off  uint32
	size uint16
	typ  uint8 // unix.DT_*
}

func (l *listing) bytes(n nameRef) []byte {
	return l.text[n.off>>segmentBits][n.off%segment:][:n.size]
}

// name returns the name without the slash of a directory.
func (l *listing) name(n nameRef) string {
	b := l.bytes(n)
	if n.typ == unix.DT_DIR {
		b = b[:len(b)-1]
	}
	return string(b)
}

// Layout of a linux_dirent64, the same on all architectures; see getdents(2).
const (
	direntLen  = 16 // u16
	direntType = 18 // u8
	direntName = 19 // ends in NUL
)

// list reads the directory fd. buf is scratch space.
func list(fd int, buf []byte) (*listing, error) {
	l := &listing{}
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			size := binary.NativeEndian.Uint16(b[direntLen:])
			name, _, _ := bytes.Cut(b[direntName:size], []byte{0})
			if err := l.add(fd, name, b[direntType]); err != nil {
				return nil, err
			}
			b = b[size:]
		}
	}
	slices.SortFunc(l.names, func(a, b nameRef) int { return bytes.Compare(l.bytes(a), l.bytes(b)) })
	// A directory that changes meanwhile may list a name twice.
	l.names = slices.CompactFunc(l.names, func(a, b nameRef) bool { return bytes.Equal(l.bytes(a), l.bytes(b)) })
	return l, nil
}

func (l *listing) add(fd int, name []byte, typ uint8) error {
	if s := string(name); s == "." || s == ".." {
		return nil
	}
	if typ == unix.DT_UNKNOWN { // some file systems do not tell
		var st unix.Stat_t
		err := unix.Fstatat(fd, string(name), &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			return nil // removed since
		}
		if err != nil {
			return err
		}
		typ = typeOf(&st)
	}
	last := len(l.text) - 1
	if last < 0 || len(l.text[last])+len(name)+1 > segment {
		if len(l.text) == 1<<(32-segmentBits) {
			return errors.New("the names in this directory take more than 4 GiB")
		}
		last++
		l.text = append(l.text, make([]byte, 0, min(last, 1)*segment))
	}
	text := l.text[last]
	off := len(text)
	if text = append(text, name...); typ == unix.DT_DIR {
		text = append(text, '/')
	}
	l.text[last] = text
	l.names = append(l.names, nameRef{off: uint32(last<<segmentBits | off), size: uint16(len(text) - off), typ: typ})
	return nil
}

// typeOf returns the kind of a file as directories give it.
func typeOf(st *unix.Stat_t) uint8 { return uint8(st.Mode & unix.S_IFMT >> 12) }
