package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// messagesOf cuts fuzzed bytes into the messages of a call: each begins with its length in
// two bytes.
func messagesOf(b []byte) func(any) error {
	return func(m any) error {
		if len(b) < 2 {
			return io.EOF
		}
		n := min(int(b[0])<<8|int(b[1]), len(b)-2)
		msg := b[2 : 2+n]
		b = b[2+n:]
		// In two buffers, as the transport may have it.
		data := mem.BufferSlice{mem.SliceBuffer(bytes.Clone(msg[:n/2])), mem.SliceBuffer(bytes.Clone(msg[n/2:]))}
		return decode(data, mostMessage, m)
	}
}

func messageBytes(f *testing.F, messages ...proto.Message) []byte {
	f.Helper()
	var out []byte
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		out = append(append(out, byte(len(b)>>8), byte(len(b))), b...)
	}
	return out
}

// told checks that what is wrong with a request is told as such, and not as a fault of
// the node.
func told(t *testing.T, err error) {
	t.Helper()
	if err == nil || err == io.EOF {
		return
	}
	if c := toStatus(err).Code(); c != codes.InvalidArgument && c != codes.ResourceExhausted {
		t.Errorf("%v: %v", c, err)
	}
}

// inOrder checks what every source of a tree has to keep: the root first, whole paths in
// order, each once, each below a directory that came.
func inOrder(t *testing.T, entries []*store.SourceEntry) {
	t.Helper()
	dirs, last := map[string]bool{}, ""
	for i, e := range entries {
		key := e.Path
		if e.Kind == dag.KindDir {
			key += "/"
		}
		if i == 0 {
			if e.Path != "" {
				t.Fatalf("%q comes first", e.Path)
			}
			dirs[""] = true
			continue
		}
		up := ""
		if n := strings.LastIndexByte(e.Path, '/'); n >= 0 {
			up = e.Path[:n]
		}
		if key <= last || !dirs[up] || e.Path == "" || len(e.Path) > mostPath {
			t.Fatalf("%q after %q", key, last)
		}
		for name := range strings.SplitSeq(e.Path, "/") {
			if name == "" || name == "." || name == ".." || len(name) > mostName || strings.ContainsRune(name, 0) {
				t.Fatalf("%q", e.Path)
			}
		}
		if e.Kind == dag.KindDir {
			dirs[e.Path] = true
		}
		last = key
	}
}

func FuzzPutRequests(f *testing.F) {
	f.Add(messageBytes(f, treeHeader("x"), fileEntry("a.txt", "data"), dataPart([]byte("more")), fileEntry("a/b/c", ""), linkEntry("d", "e")))
	f.Add(messageBytes(f, treeHeader("x"), dirEntry(""), fileEntry("../x", "")))
	f.Add(messageBytes(f, treeHeader("x"), entriesPart(fileEntry("a.txt", "data"), dirEntry("a"), fileEntry("a/b/c", "x")), dataPart([]byte("more")), entriesPart(linkEntry("d", "e"))))
	f.Add(messageBytes(f, fileHeader("x"), dataPart([]byte("data"))))
	f.Add([]byte{0, 2, 0x1a, 0})
	lim, err := Limits{TreeEntries: 100}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src := &putSource{lim: &lim, recv: messagesOf(b), order: treeOrder{lim: &lim}}
		defer src.close()
		if err := src.next(); err != nil || src.m.header == nil {
			told(t, err)
			return
		}
		src.m.header = nil
		var entries []*store.SourceEntry
		var bytesRead uint64
		for {
			e, err := src.Next(t.Context())
			if err != nil {
				told(t, err)
				break
			}
			entries = append(entries, e)
			if e.Body != nil && len(entries)%3 != 0 { // of some nothing is read
				n, err := io.Copy(io.Discard, e.Body)
				told(t, err)
				if bytesRead += uint64(n); err != nil {
					break
				}
			}
		}
		if bytesRead > src.total || src.total > uint64(len(b)) || uint64(len(entries)) > lim.TreeEntries {
			t.Fatalf("%d bytes of %d, %d entries", bytesRead, src.total, len(entries))
		}
		inOrder(t, entries)
	})
}

func FuzzCommitRequests(f *testing.F) {
	data := noiseBytes(1, 70_000)
	f.Add(messageBytes(f, commitHeader(&scalev1.CommitHeader{Name: "x"}), commitEntries(root, commitFile("a", data)), commitChunks(cut(data)...), commitSigned([]byte("x"))))
	f.Add(messageBytes(f, commitHeader(&scalev1.CommitHeader{Name: "x"}), commitEntries(commitFile("", data)), commitHeader(&scalev1.CommitHeader{Name: "y"}), commitEntries(commitFile("", nil))))
	f.Add(messageBytes(f, commitHeader(&scalev1.CommitHeader{Name: "x", Known: true}), commitHeader(&scalev1.CommitHeader{})))
	lim, err := Limits{TreeEntries: 100}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src := &commitSource{lim: &lim, recv: messagesOf(b)}
		defer src.close()
		for {
			if src.m.header == nil {
				if err := src.next(); err != nil || src.m.header == nil {
					told(t, err)
					return
				}
			}
			src.begin()
			var entries []*store.SourceEntry
			var err error
			for {
				var e *store.SourceEntry
				if e, err = src.Next(t.Context()); err != nil {
					break
				}
				entries = append(entries, e)
				if e.Chunks != nil {
					for c, cerr := range e.Chunks {
						if err = cerr; err != nil {
							break
						}
						if c.Size < 1 || c.Size > dag.MaxBlock {
							t.Fatalf("a chunk of %d bytes", c.Size)
						}
					}
				}
				if err != nil {
					break
				}
			}
			if told(t, err); err != io.EOF {
				return
			}
			if !src.single {
				inOrder(t, entries)
			} else if len(entries) != 1 {
				t.Fatalf("%d entries of one file", len(entries))
			}
			if _, err := src.finish(); err != nil {
				told(t, err)
				return
			}
			if src.ended {
				return
			}
		}
	})
}

func FuzzUploadRequest(f *testing.F) {
	small := frameOf([]byte("some bytes"))
	for _, m := range []*scalev1.UploadRequest{uploadFrame(small), uploadData([]byte("x")), {}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m uploadMessage
		err := m.decode(mem.BufferSlice{mem.SliceBuffer(b)})
		defer m.free()
		// What is copied at once is what would have been read otherwise.
		for _, cut := range []int{0, 1, len(b) / 2} {
			cut = min(cut, len(b))
			two := mem.BufferSlice{mem.SliceBuffer(b[:cut]), mem.SliceBuffer(b[cut:])}
			into := make([]byte, len(b))
			quick := uploadMessage{into: into}
			if qerr := quick.decode(two); (qerr == nil) != (err == nil) {
				t.Fatalf("%v, %v at once", err, qerr)
			}
			if n := quick.taken; n > 0 && (m.begins || !bytes.Equal(into[:n], m.data)) {
				t.Fatalf("%d bytes at once of %+v", n, m)
			}
			quick.free()
		}
		if told(t, err); err != nil {
			return
		}
		// What is read by hand is what the generated code reads.
		var want scalev1.UploadRequest
		if proto.Unmarshal(b, &want) != nil {
			return // the generated code reads what is skipped here
		}
		if !m.begins {
			if _, frame := want.GetPart().(*scalev1.UploadRequest_Frame); frame || !bytes.Equal(m.data, want.GetData()) {
				t.Fatalf("%x, want %v", m.data, &want)
			}
			return
		}
		w := want.GetFrame()
		if len(m.frame.Chunks) > maxFrameChunks || m.sealedSize != w.GetSealedSize() && countFrames(b) == 1 {
			t.Fatalf("%+v, want %v", m.frame, w)
		}
	})
}

// countFrames says how many frames a message has; the generated code merges several.
func countFrames(b []byte) (n int) {
	for {
		_, ok, err := nextField(&b, uploadFrameField)
		if !ok || err != nil {
			return n
		}
		n++
	}
}

// The requests of one message that name things: nothing of them is a fault of the node.
func FuzzRequests(f *testing.F) {
	f.Add("tree", []byte("a"), make([]byte, 16), uint32(3), uint64(1), uint64(2), "")
	f.Add("tree@1/a", []byte{}, make([]byte, 64), uint32(0), uint64(0), uint64(0), "AQMAAAAAAAAAAAEAAA")
	f.Add(":1", []byte("../x"), []byte{}, uint32(1<<31), uint64(1<<63), uint64(1), "x")
	f.Add("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", []byte{0}, make([]byte, 17), uint32(1), uint64(9), uint64(3), "AQEBYQ")
	dir := f.TempDir() + "/store"
	if err := store.Init(f.Context(), dir, store.InitOptions{Origin: "fuzz.test"}); err != nil {
		f.Fatal(err)
	}
	s, err := store.Open(context.Background(), dir, store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	src := &putSource{lim: &Limits{TreeEntries: 10, PathBytes: 100, NameBytes: 100, TreeDepth: 9, PieceBytes: 1 << 20, DatasetBytes: 1 << 20}}
	src.order.lim = src.lim
	src.recv = messagesOf(messageBytes(f, fileEntry("a", "some bytes"), linkEntry("l", "a")))
	if _, err := s.Put(f.Context(), []store.Input{{Name: "tree", Source: src}}, store.PutOptions{}); err != nil {
		f.Fatal(err)
	}
	srv, err := NewServer(s, ServerOptions{Authenticate: Anyone(read)})
	if err != nil {
		f.Fatal(err)
	}
	d, l := &datasets{Server: srv}, &ledgers{Server: srv}
	f.Fuzz(func(t *testing.T, ref string, path, seed []byte, count uint32, from, to uint64, token string) {
		ctx := t.Context()
		sane := func(err error) {
			t.Helper()
			if err == nil {
				return
			}
			if c := toStatus(err).Code(); !slices.Contains([]codes.Code{codes.InvalidArgument, codes.NotFound}, c) {
				t.Errorf("%v: %v", c, err)
			}
		}
		_, err := d.Stat(ctx, &scalev1.StatRequest{Ref: ref, Path: path})
		sane(err)
		_, err = d.ListTree(ctx, &scalev1.ListTreeRequest{Ref: ref, Path: path, PageSize: count, PageToken: token})
		sane(err)
		_, err = d.ListDatasets(ctx, &scalev1.ListDatasetsRequest{PageSize: count, PageToken: token})
		sane(err)
		_, err = d.ListVersions(ctx, &scalev1.ListVersionsRequest{Name: ref, PageSize: count, PageToken: token})
		sane(err)
		_, err = l.GetInclusionProof(ctx, &scalev1.GetInclusionProofRequest{Index: int64(from), Size: ptr(int64(to))})
		sane(err)
		_, err = l.GetEntry(ctx, &scalev1.GetEntryRequest{Index: int64(from)})
		sane(err)
		o, err := srv.resolve(ctx, ref, path)
		if sane(err); err != nil {
			return
		}
		r, err := byteRange(&scalev1.ByteRange{Start: from, End: &to}, o.Info.Size)
		if sane(err); err == nil && (r.From > r.To || r.To > o.Info.Size) {
			t.Fatalf("%v of %d bytes", r, o.Info.Size)
		}
		sunk := &sunkSamples{ctx: ctx}
		err = (&audits{Server: srv}).Challenge(&scalev1.ChallengeRequest{Ref: ref, Seed: seed, Count: count % 2000}, sunk)
		if sane(err); err == nil && sunk.samples != int(count%2000) {
			t.Fatalf("%d samples of %d", sunk.samples, count%2000)
		}
	})
}

// sunkSamples takes the answer to a challenge.
type sunkSamples struct {
	sunk
	ctx     context.Context
	samples int
}

func (s *sunkSamples) Context() context.Context { return s.ctx }
func (s *sunkSamples) Send(m *scalev1.ChallengeResponse) error {
	if m.GetSample() != nil {
		s.samples++
	}
	return nil
}

// Every order of a few entries of a small tree: the order is accepted if a plain reading
// of the rules accepts it, and then what was left out is put in its place.
func TestTreeOrderSmall(t *testing.T) {
	lim, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	all := []store.SourceEntry{
		{Path: "", Kind: dag.KindDir}, {Path: "a", Kind: dag.KindDir}, {Path: "a", Kind: dag.KindFile}, {Path: "a.", Kind: dag.KindFile},
		{Path: "a/b", Kind: dag.KindFile}, {Path: "a/b", Kind: dag.KindDir}, {Path: "a/b/c", Kind: dag.KindLink}, {Path: "a0", Kind: dag.KindDir}, {Path: "a0/b", Kind: dag.KindFile},
	}
	accepted := 0
	var try func(chosen []int)
	try = func(chosen []int) {
		o, got := treeOrder{lim: &lim}, []*store.SourceEntry{}
		var failed error
		for _, i := range chosen {
			e := all[i]
			if failed = o.enter(&e, &got); failed != nil {
				break
			}
		}
		if want := plainOrder(all, chosen); (failed == nil) != want {
			t.Errorf("%v: %v, want %t", chosen, failed, want)
		}
		if failed == nil {
			accepted++
			inOrder(t, got)
			if int(o.entries) != len(got) {
				t.Errorf("%v: %d entries, %d came", chosen, o.entries, len(got))
			}
		} else if !errors.Is(failed, store.ErrInvalid) {
			t.Errorf("%v: %v", chosen, failed)
		}
		if len(chosen) == 4 {
			return
		}
		for i := range all {
			try(append(slices.Clone(chosen), i))
		}
	}
	try(nil)
	if accepted < 50 {
		t.Errorf("only %d orders were accepted", accepted)
	}
}

// plainOrder reads the rules of the API word for word.
func plainOrder(all []store.SourceEntry, chosen []int) bool {
	key := func(e store.SourceEntry) string {
		if e.Kind == dag.KindDir && e.Path != "" {
			return e.Path + "/"
		}
		return e.Path
	}
	for n, i := range chosen {
		e := all[i]
		if e.Path == "" && n > 0 {
			return false
		}
		if n > 0 && key(e) <= key(all[chosen[n-1]]) {
			return false
		}
		for _, j := range chosen[:n] {
			before := all[j]
			if before.Path == e.Path || before.Kind != dag.KindDir && strings.HasPrefix(e.Path, before.Path+"/") {
				return false // twice, or below what is no directory
			}
			if strings.HasPrefix(before.Path, e.Path+"/") && e.Path != "" {
				return false // what was put in as a directory, and now comes again
			}
		}
	}
	return true
}

// FuzzGetResponses sends a client what a node might answer to a get. What is written of frames
// has its digest, and nothing goes beyond what was asked for.
func FuzzGetResponses(f *testing.F) {
	data := bytes.Repeat([]byte("some text, "), 400)
	fr := frameOf(data)
	fr.Data = nil
	whole := &scalev1.GetResponse{Frame: &scalev1.FrameRange{Frame: fr, Start: 5, End: fr.PlainSize}}
	back := &scalev1.GetResponse{Frame: &scalev1.FrameRange{Start: 1, End: 10}}
	plain := &scalev1.GetResponse{Data: []byte("plain bytes")}
	f.Add(uint64(1<<20), messageBytes(f, plain, whole, &scalev1.GetResponse{Data: data[:100]}, &scalev1.GetResponse{Data: data[100:]}, back, plain, whole))
	f.Add(uint64(6000), messageBytes(f, whole, &scalev1.GetResponse{Data: data}, whole, &scalev1.GetResponse{Data: data}))
	f.Add(uint64(20), messageBytes(f, back, plain, plain, plain))
	f.Fuzz(func(t *testing.T, to uint64, b []byte) {
		next := messagesOfClient(b)
		var got bytes.Buffer
		g := newGetter(&got, 0, min(to, 1<<20))
		g.workers = 0 // one after the other, so that an input always takes the same way
		defer g.close()
		err := error(nil)
		for err == nil {
			var m wireMessage
			if m.b, err = next(); err == nil {
				err = g.take(&m)
			}
		}
		if err == io.EOF {
			err = g.flush()
		}
		if err != nil && !errors.Is(err, ErrNode) {
			t.Fatal(err)
		}
		if uint64(got.Len()) != g.at || g.at > g.to || g.came > g.to {
			t.Fatalf("%d bytes were written, at %d of %d", got.Len(), g.at, g.to)
		}
		for _, o := range g.recent {
			if o.frame.PlainSize > compress.MaxPlain || len(o.buf) > compress.MaxPlain || len(o.frame.Chunks) > maxFrameChunks {
				t.Fatalf("a frame of %d bytes, %d sealed, %d chunks", o.frame.PlainSize, len(o.buf), len(o.frame.Chunks))
			}
		}
	})
}

// messagesOfClient is messagesOf for what a client receives.
func messagesOfClient(b []byte) func() ([]byte, error) {
	return func() ([]byte, error) {
		if len(b) < 2 {
			return nil, io.EOF
		}
		n := min(int(b[0])<<8|int(b[1]), len(b)-2)
		msg := bytes.Clone(b[2 : 2+n])
		b = b[2+n:]
		return msg, nil
	}
}
