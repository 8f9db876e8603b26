package filecache

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

// FuzzReader reads caches whose payloads are anything at all, under checksums that are
// right if sealed is set. Input is the payloads behind the first one, each with its
// length as a u32 in front, or else the whole file.
func FuzzReader(f *testing.F) {
	files := smallFiles()
	d := Dir{Path: f.TempDir()}
	root := f.TempDir()
	w := d.create(root, "p")
	w.nonce = [nonceSize]byte{}
	for _, x := range files {
		w.Begin(x.Path, x.Stamp)
		for _, c := range x.Chunks {
			w.Chunk(c.Digest, c.Size)
		}
		w.End(true)
	}
	if err := w.Commit(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(d.path(w.key))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, whole)
	var payloads []byte
	for _, at := range blockStarts(whole)[1:] {
		n := binary.BigEndian.Uint32(whole[at:])
		payloads = append(binary.BigEndian.AppendUint32(payloads, n), whole[at+frameSize:][:n]...)
	}
	f.Add(true, payloads)
	k := w.key
	f.Fuzz(func(t *testing.T, sealed bool, b []byte) {
		if sealed {
			b = seal(k, b)
		}
		r, err := newReader(bytes.NewReader(b), k)
		if err != nil {
			return
		}
		var last []byte
		for rows := 0; r.next(); rows++ {
			if rows > 0 && bytes.Compare(last, r.row.path) >= 0 {
				t.Fatalf("%q after %q", r.row.path, last)
			}
			last = append(last[:0], r.row.path...)
			size, left := r.row.stamp.Size, r.left
			if size < 0 || left != size {
				t.Fatalf("%d bytes left of %d", left, size)
			}
			for rows%2 == 0 {
				_, n, ok := r.Chunk()
				if !ok {
					break
				}
				if left -= int64(n); n == 0 || left < 0 {
					t.Fatalf("a chunk of %d bytes, %d left", n, left)
				}
			}
		}
	})
}

// seal makes a cache of payloads.
func seal(k key, b []byte) []byte {
	var nonce [nonceSize]byte
	out := []byte(magic)
	add := func(n uint64, payload []byte) {
		out = binary.BigEndian.AppendUint32(out, uint32(len(payload)))
		out = binary.BigEndian.AppendUint32(out, checksum(&nonce, n, payload))
		out = append(out, payload...)
	}
	add(0, appendHead(nil, &nonce, k))
	for n := uint64(1); len(b) >= 4; n++ {
		size := min(int(binary.BigEndian.Uint32(b)), len(b)-4)
		add(n, b[4:4+size])
		b = b[4+size:]
	}
	return out
}
