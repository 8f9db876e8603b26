package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// chunkPrefix begins the keys of chunks, and their digest follows.
const chunkPrefix = 'b'

// lookups counts how often a chunk is looked up.
type lookups struct {
	kv.Store
	n atomic.Int64
}

func (l *lookups) Get(ctx context.Context, key, dst []byte) ([]byte, error) {
	if key[0] == chunkPrefix {
		l.n.Add(1)
	}
	return l.Store.Get(ctx, key, dst)
}

// Reading looks up few of the chunks: of a file, of a tree of small ones, and of versions
// that lie in the frames of several.
func TestReadLookups(t *testing.T) {
	rows := &lookups{}
	h := newHarness(t, store.Options{FrameSize: 1 << 20, WrapKV: func(s kv.Store) kv.Store {
		rows.Store = s
		return rows
	}})
	all := versions()
	for _, b := range all {
		h.mustPut(stream("x", b))
	}
	var files []file
	for i := range 1000 {
		files = append(files, file{name: fmt.Sprintf("f/%04d", i), data: fmt.Append(nil, "file ", i)})
	}
	h.mustPut(store.Input{Name: "tree", Path: makeTree(t, files...)})
	few := func(what string, chunks uint64) {
		t.Helper()
		if n := rows.n.Swap(0); n == 0 || uint64(n) > chunks/4 {
			t.Errorf("%s: %d look-ups for %d chunks", what, n, chunks)
		}
	}
	rows.n.Store(0)
	for i, ref := range []string{"x@1", "x@2", "x@3"} {
		if got := h.get(ref); !bytes.Equal(got, all[i]) {
			t.Fatalf("%s comes back different", ref)
		}
		few(ref, h.resolve(ref).Dataset.Chunks)
	}
	if got := h.tree("tree"); len(got) < len(files) {
		t.Errorf("%d entries came back of %d files", len(got), len(files))
	}
	few("tree", 1000)
}

// A chunk that was damaged, forgotten and put again lies elsewhere than the list of its
// frame has it. It is found all the same, also if the frame has become unreadable.
func TestReadMoved(t *testing.T) {
	var rows kv.Store
	h := newHarness(t, store.Options{Cache: 1, WrapKV: func(s kv.Store) kv.Store {
		rows = s
		return s
	}})
	raw := random(1, 2<<20)
	h.mustPut(stream("x", raw))
	path := filepath.Join(h.dir, "packs", "00000001.pack")
	stored, err := os.ReadFile(path)
	must(t, err)
	start := bytes.Index(stored, raw)
	if start < 0 {
		t.Fatal("random bytes are not stored as they are")
	}
	at := len(raw) / 2
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{raw[at] ^ 1}, int64(start+at))
	must(t, err)
	get := func() ([]byte, error) {
		var got bytes.Buffer
		_, err := h.s.Get(h.ctx, h.resolve("x"), nil, &got)
		return got.Bytes(), err
	}
	if _, err := get(); !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("a changed byte: %v, want ErrCorrupt", err)
	}

	// Forgotten, it is lost, though its frame has it in its list.
	var forget kv.Batch
	forget.Delete(chunkAt(t, rows, raw, at))
	must(t, rows.Commit(h.ctx, &forget))
	h.reopen()
	if _, err := get(); !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("a chunk that was forgotten: %v, want ErrCorrupt", err)
	}
	h.mustPut(stream("again", raw))
	if got, err := get(); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("after it was put again: %d bytes of %d, %v", len(got), len(raw), err)
	}
	// A range that begins in front of it.
	var part bytes.Buffer
	r := store.Range{From: uint64(at) - 200<<10, To: uint64(at) + 100<<10}
	if _, err := h.s.Get(h.ctx, h.resolve("x"), &r, &part); err != nil || !bytes.Equal(part.Bytes(), raw[r.From:r.To]) {
		t.Errorf("a range: %d bytes, %v", part.Len(), err)
	}

	// What is not anywhere else stays an error, with the place of the frame.
	_, err = f.WriteAt([]byte{raw[10] ^ 1}, int64(start+10))
	must(t, err)
	var lost *store.ChunkError
	if _, err := get(); !errors.Is(err, store.ErrCorrupt) || !errors.As(err, &lost) {
		t.Errorf("another changed byte: %v, want ErrCorrupt", err)
	}
	_, err = f.WriteAt([]byte{raw[10]}, int64(start+10))
	must(t, err)
}

// wrongLists gives lists of frames in which the bound between two chunks is elsewhere.
type wrongLists struct {
	pack.Store
	shift int
	given atomic.Int64
}

func (p *wrongLists) ReadList(ctx context.Context, loc pack.Loc, buf []byte) ([]pack.Chunk, []byte, error) {
	chunks, buf, err := p.Store.ReadList(ctx, loc, buf)
	for i := 1; i < len(chunks); i += 2 {
		p.given.Add(1)
		chunks[i-1].Size -= uint32(p.shift)
		chunks[i].Size += uint32(p.shift)
	}
	return chunks, buf, err
}

// What the index has with another length than the list of its frame is not taken for what
// the list has: no bytes are given that are not those of the chunk, be they more or fewer.
// An export does not know how long chunks are.
func TestReadOtherSize(t *testing.T) {
	packs := &wrongLists{}
	h := newHarness(t, store.Options{Cache: 1, WrapPacks: func(p pack.Store) pack.Store {
		packs.Store = p
		return packs
	}})
	h.mustPut(stream("x", random(1, 2<<20)))
	var want bytes.Buffer
	must(t, h.s.ExportCAR(h.ctx, h.resolve("x"), &want))
	for _, shift := range []int{-10, 10} {
		packs.shift = shift
		packs.given.Store(0)
		var got bytes.Buffer
		err := h.s.ExportCAR(h.ctx, h.resolve("x"), &got)
		if !errors.Is(err, store.ErrCorrupt) || !bytes.HasPrefix(want.Bytes(), got.Bytes()) {
			t.Errorf("bounds shifted by %d: %d bytes, %v, want ErrCorrupt", shift, got.Len(), err)
		}
		if packs.given.Load() == 0 {
			t.Error("no list was read")
		}
	}
}

// chunkAt returns the key of the chunk that holds a place of a file that is stored as it is.
func chunkAt(t *testing.T, rows kv.Store, raw []byte, at int) (key []byte) {
	t.Helper()
	for row, err := range rows.Scan(t.Context(), []byte{chunkPrefix}, nil) {
		must(t, err)
		v := row.Value
		var n [5]uint64
		for i := range n {
			var k int
			if n[i], k = binary.Uvarint(v); k <= 0 {
				t.Fatalf("row %x", row.Value)
			}
			v = v[k:]
		}
		from, to := int(n[3]), int(n[3]+n[4])
		if sum := sha256.Sum256(raw[from:min(to, len(raw))]); from <= at && at < to && bytes.Equal(sum[:], row.Key[1:]) {
			return bytes.Clone(row.Key)
		}
	}
	t.Fatal("no row of that place")
	return nil
}
