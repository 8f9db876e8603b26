package fstree

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/koii-network/scale/dag/extsort"
)

// Layout of a linux_dirent64, the same on all architectures; see getdents(2).
const (
	direntLen  = 16 // u16
	direntType = 18 // u8
	direntName = 19 // ends in NUL
)

// list reads the names in the directory fd and sorts them: as keys the names, where
// those of directories end in '/', which is what the canonical order wants, and as
// values their types, one byte unix.DT_*. A name may be there twice if the directory
// changes meanwhile.
func (w *walker) list(fd int, names *extsort.Sorter) error {
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, w.buf) })
		if err != nil || n == 0 {
			return err
		}
		for b := w.buf[:n]; len(b) > 0; {
			size := binary.NativeEndian.Uint16(b[direntLen:])
			name, _, _ := bytes.Cut(b[direntName:size], []byte{0})
			if err := w.add(fd, names, name, b[direntType]); err != nil {
				return err
			}
			b = b[size:]
		}
	}
}

func (w *walker) add(fd int, names *extsort.Sorter, name []byte, typ uint8) error {
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
	w.key = append(w.key[:0], name...)
	if typ == unix.DT_DIR {
		w.key = append(w.key, '/')
	}
	return names.Add(w.key, []byte{typ})
}

// listed returns the name and the type that add took.
func listed(r extsort.Record) (name []byte, typ uint8, ok bool) {
	if len(r.Key) == 0 || len(r.Value) != 1 {
		return nil, 0, false
	}
	name, typ = r.Key, r.Value[0]
	if typ == unix.DT_DIR {
		name = name[:len(name)-1]
	}
	return name, typ, true
}

// typeOf returns the kind of a file as directories give it.
func typeOf(st *unix.Stat_t) uint8 { return uint8(st.Mode & unix.S_IFMT >> 12) }
