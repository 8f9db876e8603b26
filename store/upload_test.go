package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/ingest"
	"github.com/koii-network/scale/store/pack"
)

// A client chunks and seals at its own end.
type client struct {
	manifest source
	chunks   []store.Chunk
}

func (c *client) Begin(e ingest.Entry) error {
	c.manifest = append(c.manifest, &store.SourceEntry{Path: e.Path, Kind: e.Kind, Attr: e.Attr, Target: e.Target})
	c.chunks = nil
	return nil
}

func (c *client) Chunk(chunk store.Chunk) error {
	c.chunks = append(c.chunks, chunk)
	return nil
}

func (c *client) End(bool) error {
	if chunks := c.chunks; len(chunks) > 0 {
		c.manifest[len(c.manifest)-1].Chunks = func(yield func(store.Chunk, error) bool) {
			for _, chunk := range chunks {
				if !yield(chunk, nil) {
					return
				}
			}
		}
	}
	return nil
}

func (*client) Node(dag.Digest, []byte) error { return nil }
func (*client) Row(dag.Hash, []byte) error    { return nil }

// An asker asks the store what it lacks, as a client does.
type asker struct{ s *store.Store }

func (a asker) Known(ctx context.Context, chunks []store.Chunk, known []bool) error {
	digests := make([]dag.Digest, len(chunks))
	for i, c := range chunks {
		digests[i], known[i] = c.Digest, true
	}
	missing, err := a.s.Missing(ctx, digests)
	for _, i := range missing {
		known[i] = false
	}
	return err
}

// upload puts an input as a client would, and returns how many bytes it sent.
func (h *harness) upload(name string, in ingest.Input) (store.PutResult, int) {
	h.t.Helper()
	frames, err := ingest.NewFrames(ingest.FrameOptions{Size: 300 << 10})
	if err != nil {
		h.t.Fatal(err)
	}
	u, c, sent := h.s.NewUpload(), &client{}, 0
	packer := ingest.NewPacker(frames, func(f pack.Frame) error {
		sent += len(f.Sealed)
		_, err := u.Add(h.ctx, f)
		return err
	})
	in.Profile, err = dag.LookupProfile(dag.DefaultProfile)
	if err != nil {
		h.t.Fatal(err)
	}
	res, err := ingest.NewPools(ingest.PoolOptions{}).Run(h.ctx, &in, &ingest.Output{Index: asker{h.s}, Chunks: packer, Nodes: c, Manifest: c})
	if err := errors.Join(err, packer.Flush(), u.Finish(h.ctx)); err != nil {
		h.t.Fatal(err)
	}
	return h.mustPut(store.Input{Name: name, Source: &c.manifest, Root: res.Tree.Root})[0], sent
}

// What a client chunks, seals and sends is the dataset that the store would have
// made, and a second time nothing is sent.
func TestUpload(t *testing.T) {
	h, _ := newOrderly(t)
	root := makeTree(t,
		file{name: "a", data: text(1, 700_000)}, file{name: "b/c", mode: 0o755, data: random(2, 900_000)},
		file{name: "b/empty", data: nil}, file{name: "b/link", link: "c"}, file{name: "d/"},
		file{name: "e", data: append(text(1, 700_000), random(3, 10)...)},
	)
	got, sent := h.upload("sent", ingest.Input{Path: root})
	if sent < 900_000 || sent > 1_200_000 {
		t.Errorf("%d bytes were sent", sent)
	}
	want := h.mustPut(store.Input{Name: "local", Path: root})[0]
	if got.CID != want.CID || got.Commitment != want.Commitment || want.NewBytes != 0 || got.Files != 4 {
		t.Errorf("sent %+v, put %+v", got, want)
	}
	if d := h.tree("sent"); d["b/c"] != "file 0755 "+string(random(2, 900_000)) || d["b/link"] != "link c" {
		t.Error("what was sent reads back differently")
	}
	if _, sent := h.upload("again", ingest.Input{Path: root}); sent != 0 {
		t.Errorf("%d bytes were sent again", sent)
	}
	h.check()
}

// sealed makes a frame of chunks.
func sealed(t testing.TB, chunks ...[]byte) pack.Frame {
	t.Helper()
	s, err := compress.NewSealer(compress.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var f pack.Frame
	var plain []byte
	for _, c := range chunks {
		f.Chunks = append(f.Chunks, pack.Chunk{Digest: sha256.Sum256(c), Size: uint32(len(c))})
		plain = append(plain, c...)
	}
	f.PlainSize = uint32(len(plain))
	if f.Codec, f.Sealed, err = s.Seal(nil, plain); err != nil {
		t.Fatal(err)
	}
	return f
}

// Of a frame only what is new is kept: all of it, its new chunks, or nothing.
func TestUploadDuplicates(t *testing.T) {
	h := newHarness(t, store.Options{})
	var chunks [][]byte
	for i := range 10 {
		chunks = append(chunks, random(uint64(i), 20_000))
	}
	u := h.s.NewUpload()
	add := func(want store.FrameResult, grown uint64, chunks ...[]byte) {
		t.Helper()
		before, err := h.s.Totals(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.Add(h.ctx, sealed(t, chunks...))
		if err := errors.Join(err, u.Finish(h.ctx)); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		after, err := h.s.Totals(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		packed := after.Packed - before.Packed
		if after.Unique-before.Unique != want.NewBytes || packed < grown || packed > grown+2000 {
			t.Errorf("%d bytes new, the packs grew by %d, want %d and about %d", after.Unique-before.Unique, packed, want.NewBytes, grown)
		}
	}
	add(store.FrameResult{Chunks: 4, NewBytes: 80_000}, 80_000, chunks[:4]...)
	add(store.FrameResult{Chunks: 4, Duplicate: 4}, 0, chunks[:4]...)
	add(store.FrameResult{Chunks: 5, Duplicate: 4, NewBytes: 20_000}, 20_000, chunks[:5]...)
	add(store.FrameResult{Chunks: 6, Duplicate: 2, NewBytes: 80_000}, 120_000, chunks[3:9]...)
	add(store.FrameResult{Chunks: 3, Duplicate: 2, NewBytes: 20_000}, 20_000, chunks[9], chunks[9], chunks[9])
	if err := h.s.NewUpload().Finish(h.ctx); err != nil {
		t.Errorf("an upload of nothing: %v", err)
	}
	digests := make([]dag.Digest, 0, 11)
	for _, c := range append(chunks, []byte("never sent")) {
		digests = append(digests, sha256.Sum256(c))
	}
	if missing, err := h.s.Missing(h.ctx, digests); err != nil || !slices.Equal(missing, []int{10}) {
		t.Errorf("missing %v, %v, want the last", missing, err)
	}
	h.check()
}

// Missing takes any number of digests, and its context.
func TestMissing(t *testing.T) {
	h := newHarness(t, store.Options{})
	b := random(1, 100)
	h.mustPut(stream("x", b))
	digests := make([]dag.Digest, 10_000)
	for i := range digests {
		digests[i] = dag.Digest{byte(i), byte(i >> 8), 1}
	}
	digests[7000] = sha256.Sum256(b)
	missing, err := h.s.Missing(h.ctx, digests)
	if err != nil || len(missing) != 9999 || missing[6999] != 6999 || missing[7000] != 7001 {
		t.Errorf("%d missing, %v", len(missing), err)
	}
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	if _, err := h.s.Missing(ctx, digests); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was canceled", err)
	}
}

// A dataset that names chunks that are not there, or not as long, is refused.
func TestCommitOfMissing(t *testing.T) {
	h := newHarness(t, store.Options{})
	b := random(1, 1000)
	h.mustPut(stream("x", b))
	name := func(chunks ...store.Chunk) store.Input {
		s := sourceOf(file{name: "a"}).(*source)
		(*s)[1].Body = nil
		(*s)[1].Chunks = func(yield func(store.Chunk, error) bool) {
			for _, c := range chunks {
				if !yield(c, nil) {
					return
				}
			}
		}
		return store.Input{Name: "y", Source: s}
	}
	there := store.Chunk{Digest: sha256.Sum256(b), Size: 1000}
	for what, in := range map[string]store.Input{
		"absent": name(store.Chunk{Digest: dag.Digest{1}, Size: 1000}),
		"twice":  name(store.Chunk{Digest: dag.Digest{2}, Size: 20_000}, store.Chunk{Digest: dag.Digest{2}, Size: 20_001}),
	} {
		_, err := h.put(in)
		var missing *store.MissingError
		if !errors.As(err, &missing) || !errors.Is(err, store.ErrMissing) || len(missing.Digests) != 1 {
			t.Errorf("%s: %v, want a MissingError", what, err)
		}
	}
	for _, size := range []uint32{999, 1001} {
		want := fmt.Sprintf("chunk %v has 1000 bytes, the dataset names it with %d", dag.RawCID(there.Digest), size)
		_, err := h.put(name(store.Chunk{Digest: dag.Digest{1}, Size: 20_000}, store.Chunk{Digest: there.Digest, Size: size}))
		if !errors.Is(err, store.ErrMismatch) || errors.Is(err, store.ErrMissing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want ErrMismatch: %s", err, want)
		}
	}
	if got := h.s.Published().Size; got != 2 {
		t.Errorf("the ledger has %d entries, want 2", got)
	}
	h.mustPut(name(there))
	if !bytes.Equal(h.get("y/a"), b) {
		t.Error("y/a reads back differently")
	}
	h.check()
}

// Frames that are not what they say are refused whole.
func TestHostileFrames(t *testing.T) {
	h := newHarness(t, store.Options{})
	a, b := text(1, 100_000), random(2, 50_000)
	var all []byte
	for i := range 20_000 {
		all = append(all, byte(i), byte(i>>8))
	}
	for name, edit := range map[string]func(f *pack.Frame){
		"no chunks":       func(f *pack.Frame) { f.Chunks = nil },
		"empty chunk":     func(f *pack.Frame) { f.Chunks = append(f.Chunks, pack.Chunk{Digest: dag.EmptyDigest}) },
		"huge chunk":      func(f *pack.Frame) { f.Chunks[0].Size = dag.MaxBlock + 1; f.PlainSize = dag.MaxBlock + 1 + 50_000 },
		"sum":             func(f *pack.Frame) { f.Chunks[1].Size-- },
		"sizes overflow":  func(f *pack.Frame) { f.Chunks[0].Size, f.Chunks[1].Size = 1<<31, 1<<31+150_000 },
		"declared less":   func(f *pack.Frame) { f.PlainSize--; f.Chunks[1].Size-- },
		"declared more":   func(f *pack.Frame) { f.PlainSize++; f.Chunks[1].Size++ },
		"too large":       func(f *pack.Frame) { f.PlainSize = compress.MaxPlain + 1 },
		"codec":           func(f *pack.Frame) { f.Codec = 9 },
		"raw":             func(f *pack.Frame) { f.Codec = compress.Raw },
		"cut":             func(f *pack.Frame) { f.Sealed = f.Sealed[:len(f.Sealed)-1] },
		"nothing":         func(f *pack.Frame) { f.Sealed = nil },
		"more behind":     func(f *pack.Frame) { f.Sealed = append(f.Sealed, 0) },
		"flipped":         func(f *pack.Frame) { f.Sealed[len(f.Sealed)/2] ^= 1 },
		"digest":          func(f *pack.Frame) { f.Chunks[1].Digest[0] ^= 1 },
		"digests swapped": func(f *pack.Frame) { f.Chunks[0].Digest, f.Chunks[1].Digest = f.Chunks[1].Digest, f.Chunks[0].Digest },
		"too many": func(f *pack.Frame) {
			*f = pack.Frame{PlainSize: uint32(len(all)), Sealed: all}
			for _, c := range all {
				f.Chunks = append(f.Chunks, pack.Chunk{Digest: sha256.Sum256([]byte{c}), Size: 1})
			}
		},
		"sealed too large": func(f *pack.Frame) { f.Sealed = make([]byte, pack.MaxSealed+1) },
	} {
		f := sealed(t, a, b)
		edit(&f)
		u := h.s.NewUpload()
		if _, err := u.Add(h.ctx, f); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
		if err := u.Finish(h.ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := h.s.Totals(h.ctx); err != nil || got.Chunks != 0 || got.Packed != 0 {
		t.Errorf("%+v, %v, want that nothing was stored", got, err)
	}
	// The same frame as it should be, and one that its codec has made larger.
	u := h.s.NewUpload()
	if _, err := u.Add(h.ctx, sealed(t, a, b)); err != nil {
		t.Error(err)
	}
	r := random(3, 5000)
	if _, err := u.Add(h.ctx, pack.Frame{
		Codec: compress.Zstd, PlainSize: 5000, Chunks: []pack.Chunk{{Digest: sha256.Sum256(r), Size: 5000}}, Sealed: storedZstd(r),
	}); err != nil {
		t.Error(err)
	}
	if err := u.Finish(h.ctx); err != nil {
		t.Error(err)
	}
	h.check()
	if res := h.mustPut(stream("r", r))[0]; res.NewBytes != 0 || !bytes.Equal(h.get("r"), r) {
		t.Errorf("%+v", res)
	}
}

// A frame that would open to a gigabyte is given up at what it declares.
func TestBomb(t *testing.T) {
	h := newHarness(t, store.Options{})
	bomb := binary.LittleEndian.AppendUint32(nil, 0xfd2fb528)
	bomb = append(bomb, 0, 10<<3) // of unknown size, window of 1 MiB
	const block, size = 128 << 10, 1 << 30
	for left := size; left > 0; left -= block {
		head := 1<<1 | block<<3 // one byte, repeated
		if left == block {
			head |= 1 // the last one
		}
		bomb = append(bomb, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	f := sealed(t, make([]byte, 1<<20), make([]byte, 1<<20))
	f.Codec, f.Sealed = compress.Zstd, bomb
	u := h.s.NewUpload()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := u.Add(h.ctx, f)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, store.ErrInvalid) || !errors.Is(err, store.ErrMismatch) {
		t.Errorf("%v, want ErrInvalid and ErrMismatch", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%d bytes were allocated to find out", n)
	}
	if err := u.Finish(h.ctx); err != nil {
		t.Error(err)
	}
}

// storedZstd returns a zstd frame of one block that is stored as it is.
func storedZstd(b []byte) []byte {
	f := binary.LittleEndian.AppendUint32(nil, 0xfd2fb528)
	f = append(f, 1<<5|1<<6) // single segment, content size of two bytes
	f = binary.LittleEndian.AppendUint16(f, uint16(len(b)-256))
	head := 1 | len(b)<<3 // last block, raw
	f = append(f, byte(head), byte(head>>8), byte(head>>16))
	return append(f, b...)
}

// Clients that send the same at the same time do no harm to each other.
func TestUploadsMeet(t *testing.T) {
	h, _ := newOrderly(t)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			data := append(random(1, 500_000), text(uint64(g%3), 400_000)...)
			name := fmt.Sprintf("n%d", g)
			h.upload(name, ingest.Input{Reader: bytes.NewReader(data)})
			if !bytes.Equal(h.get(name), data) {
				t.Errorf("%s reads back differently", name)
			}
		})
	}
	wg.Wait()
	h.check()
}

// FuzzUpload sends frames of strangers. What is taken must read back.
func FuzzUpload(f *testing.F) {
	for _, chunks := range [][][]byte{{text(1, 3000)}, {random(1, 300), text(2, 500), text(2, 500)}, {{1}, {2}, {1}}} {
		fr := sealed(f, chunks...)
		var sizes []byte
		for _, c := range fr.Chunks {
			sizes = binary.AppendUvarint(sizes, uint64(c.Size))
		}
		f.Add(uint8(fr.Codec), fr.PlainSize, sizes, fr.Sealed, uint8(0))
	}
	dir := filepath.Join(f.TempDir(), "store")
	if err := store.Init(f.Context(), dir, store.InitOptions{}); err != nil {
		f.Fatal(err)
	}
	s, err := store.Open(f.Context(), dir, store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	opener, err := compress.NewOpener()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, codec uint8, size uint32, sizes, sealed []byte, wrong uint8) {
		fr := pack.Frame{Codec: compress.Codec(codec), PlainSize: size, Sealed: sealed}
		plain, _ := opener.Open(nil, fr.Codec, sealed, int(min(size, compress.MaxPlain)))
		for at := uint64(0); len(sizes) > 0; {
			n, w := binary.Uvarint(sizes)
			if w <= 0 {
				break
			}
			sizes = sizes[w:]
			c := pack.Chunk{Size: uint32(n)}
			if end := at + n; end <= uint64(len(plain)) && end >= at && len(fr.Chunks)+1 != int(wrong) {
				c.Digest = sha256.Sum256(plain[at:end])
				at = end
			}
			fr.Chunks = append(fr.Chunks, c)
		}
		u := s.NewUpload()
		res, err := u.Add(t.Context(), fr)
		if err := u.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			if !errors.Is(err, store.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if res.Chunks != len(fr.Chunks) || res.Duplicate > res.Chunks {
			t.Fatalf("%+v of %d chunks", res, len(fr.Chunks))
		}
		if wrong > 0 && int(wrong) <= len(fr.Chunks) {
			t.Fatal("a chunk with a wrong digest was taken")
		}
		for _, c := range fr.Chunks[:min(len(fr.Chunks), 3)] {
			var got bytes.Buffer
			in := store.Input{Name: "fuzz", Source: &source{{Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o644}, Chunks: func(yield func(store.Chunk, error) bool) {
				yield(store.Chunk{Digest: c.Digest, Size: c.Size}, nil)
			}}}}
			if c.Size > 128<<10 {
				continue // beyond what the profile allows
			}
			put, err := s.Put(t.Context(), []store.Input{in}, store.PutOptions{})
			if err != nil {
				t.Fatal(err)
			}
			o, err := s.Resolve(t.Context(), put[0].CID.String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(t.Context(), o, nil, &got); err != nil || sha256.Sum256(got.Bytes()) != c.Digest {
				t.Fatalf("reads back %d bytes, %v", got.Len(), err)
			}
		}
	})
}
