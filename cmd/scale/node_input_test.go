package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

func gzipped(t *testing.T, zeros int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.CopyN(w, zeroReader{}, zeros); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zstdZeros is what zeros become.
func zstdZeros(t *testing.T, n int) []byte {
	t.Helper()
	s, err := compress.NewSealer(compress.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	codec, sealed, err := s.Seal(nil, make([]byte, n))
	if err != nil || codec != compress.Zstd {
		t.Fatalf("codec %v, %v", codec, err)
	}
	return sealed
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// sendAll sends messages on a client stream and returns what the call ended with.
func sendAll[Req, Resp any](s grpc.ClientStreamingClient[Req, Resp], err error, messages ...*Req) error {
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := s.Send(m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	_, err = s.CloseAndRecv()
	return err
}

func chunkOf(b []byte) *scalev1.Chunk {
	d := sha256.Sum256(b)
	return &scalev1.Chunk{Digest: d[:], Size: uint32(len(b))}
}

// rawFrameOf is a frame of one chunk that is stored as it is.
func rawFrameOf(b []byte) *scalev1.Frame {
	return &scalev1.Frame{
		Codec: scalev1.Codec_CODEC_RAW, PlainSize: uint32(len(b)), SealedSize: uint32(len(b)),
		Chunks: []*scalev1.Chunk{chunkOf(b)}, Data: b,
	}
}

func uploadFrame(f *scalev1.Frame) *scalev1.UploadRequest {
	return &scalev1.UploadRequest{Part: &scalev1.UploadRequest_Frame{Frame: f}}
}

func commitHeader(name string) *scalev1.CommitRequest {
	return &scalev1.CommitRequest{Part: &scalev1.CommitRequest_Header{Header: &scalev1.CommitHeader{Name: name}}}
}

func commitEntries(entries ...*scalev1.CommitEntry) *scalev1.CommitRequest {
	return &scalev1.CommitRequest{Part: &scalev1.CommitRequest_Entries{Entries: &scalev1.CommitEntries{Entries: entries}}}
}

// A client that hashes at its own end may lie about each thing that it says.
func TestNodeFalseBlocks(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	conn := p.dial(t, p.write)
	blocks := scalev1.NewBlockServiceClient(conn)
	there, absent := noise(50_000), bytes.Repeat([]byte("absent"), 5000)
	upload := func(f *scalev1.Frame, more ...*scalev1.UploadRequest) error {
		s, err := blocks.Upload(t.Context())
		return sendAll(s, err, append([]*scalev1.UploadRequest{uploadFrame(f)}, more...)...)
	}
	commit := func(messages ...*scalev1.CommitRequest) error {
		s, err := blocks.Commit(t.Context())
		return sendAll(s, err, messages...)
	}
	if err := upload(rawFrameOf(there)); err != nil {
		t.Fatal(err)
	}

	// Frames that are not what they say. Each is the one that was taken, but for one thing.
	lie := func(change func(*scalev1.Frame)) *scalev1.Frame {
		f := rawFrameOf(append([]byte("another "), there...))
		change(f)
		return f
	}
	bomb := zstdZeros(t, 4<<20)
	for name, f := range map[string]*scalev1.Frame{
		"other bytes":       lie(func(f *scalev1.Frame) { f.Data = bytes.Clone(f.Data); f.Data[77] ^= 1 }),
		"other digest":      lie(func(f *scalev1.Frame) { f.Chunks[0].Digest = bytes.Repeat([]byte{7}, 32) }),
		"short digest":      lie(func(f *scalev1.Frame) { f.Chunks[0].Digest = f.Chunks[0].Digest[:31] }),
		"no digest":         lie(func(f *scalev1.Frame) { f.Chunks[0].Digest = nil }),
		"no chunks":         lie(func(f *scalev1.Frame) { f.Chunks = nil }),
		"no such chunk":     lie(func(f *scalev1.Frame) { f.Chunks[0] = nil }),
		"chunk of nothing":  lie(func(f *scalev1.Frame) { f.Chunks = append(f.Chunks, chunkOf(nil)) }),
		"chunks too long":   lie(func(f *scalev1.Frame) { f.Chunks[0].Size++ }),
		"chunks too short":  lie(func(f *scalev1.Frame) { f.Chunks[0].Size-- }),
		"too many chunks":   lie(func(f *scalev1.Frame) { f.Chunks = make([]*scalev1.Chunk, 5000) }),
		"plain size":        lie(func(f *scalev1.Frame) { f.PlainSize-- }),
		"plain size of 4 G": lie(func(f *scalev1.Frame) { f.PlainSize = 1<<32 - 1 }),
		"sealed size":       lie(func(f *scalev1.Frame) { f.SealedSize-- }),
		"larger sealed":     lie(func(f *scalev1.Frame) { f.SealedSize++ }),
		"not zstd":          lie(func(f *scalev1.Frame) { f.Codec = scalev1.Codec_CODEC_ZSTD }),
		"no codec":          lie(func(f *scalev1.Frame) { f.Codec = 0 }),
		"unknown codec":     lie(func(f *scalev1.Frame) { f.Codec = 99 }),
		"bomb": lie(func(f *scalev1.Frame) {
			*f = scalev1.Frame{Codec: scalev1.Codec_CODEC_ZSTD, PlainSize: 1 << 20, SealedSize: uint32(len(bomb)), Data: bomb}
			f.Chunks = []*scalev1.Chunk{chunkOf(make([]byte, 1<<20))}
		}),
	} {
		if err := upload(f); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a frame with %s: %v", name, err)
		}
	}
	err := upload(lie(func(f *scalev1.Frame) { f.Data = bytes.Clone(f.Data); f.Data[77] ^= 1 }))
	wantStatus(t, "bytes that do not match", err, codes.InvalidArgument, "MISMATCH")
	more := &scalev1.UploadRequest{Part: &scalev1.UploadRequest_Data{Data: []byte("more")}}
	if err := upload(rawFrameOf(there), more); status.Code(err) != codes.InvalidArgument {
		t.Errorf("data behind the end of a frame: %v", err)
	}
	if err := upload(lie(func(f *scalev1.Frame) { f.Data = f.Data[:100] })); status.Code(err) != codes.InvalidArgument {
		t.Errorf("half a frame: %v", err)
	}

	// Commits that name what was never sent, be it all, or one chunk of a thousand.
	file := func(chunks ...*scalev1.Chunk) *scalev1.CommitEntry {
		return &scalev1.CommitEntry{Kind: scalev1.Kind_KIND_FILE, Chunks: chunks}
	}
	err = commit(commitHeader("x"), commitEntries(file(chunkOf(there), chunkOf(absent))))
	wantStatus(t, "a chunk that was not sent", err, codes.FailedPrecondition, "MISSING_CHUNKS")
	if cids := missingCIDs(err); len(cids) != 1 || cids[0] != dag.RawCID(sha256.Sum256(absent)).String() {
		t.Errorf("said to be missing: %q", cids)
	}
	// What a refused frame held is not there either.
	err = commit(commitHeader("x"), commitEntries(file(chunkOf(append([]byte("another "), there...)))))
	wantStatus(t, "a chunk of refused frames", err, codes.FailedPrecondition, "MISSING_CHUNKS")
	wrong := chunkOf(there)
	wrong.Size--
	if err := commit(commitHeader("x"), commitEntries(file(wrong))); err == nil {
		t.Error("a chunk with another size is committed")
	}
	// One of two datasets cannot be: neither is.
	err = commit(commitHeader("good"), commitEntries(file(chunkOf(there))), commitHeader("bad"), commitEntries(file(chunkOf(absent))))
	wantStatus(t, "one of two", err, codes.FailedPrecondition, "MISSING_CHUNKS")
	err = commit(&scalev1.CommitRequest{Part: &scalev1.CommitRequest_Header{Header: &scalev1.CommitHeader{
		Name: "x", Known: true, Cid: dag.RawCID(sha256.Sum256(there)).String()}}})
	wantStatus(t, "a dataset that is not known", err, codes.NotFound, "NOT_FOUND")
	err = commit(commitHeader("x"), commitEntries(file(chunkOf(there))),
		&scalev1.CommitRequest{Part: &scalev1.CommitRequest_SignedEntry{SignedEntry: noise(200)}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("an entry that is noise: %v", err)
	}

	if names := datasetNames(t, conn); len(names) != 0 {
		t.Errorf("datasets appeared: %q", names)
	}
	if err := commit(commitHeader("x"), commitEntries(file(chunkOf(there), chunkOf(there)))); err != nil {
		t.Errorf("a commit of what is there: %v", err)
	}
	if got, err := getBytes(t.Context(), conn, "x"); err != nil || !bytes.Equal(got, append(bytes.Clone(there), there...)) {
		t.Errorf("what was committed reads as %d other bytes, %v", len(got), err)
	}
	p.sound(t)
}

func missingCIDs(err error) (cids []string) {
	for _, d := range status.Convert(err).Details() {
		if p, ok := d.(*errdetails.PreconditionFailure); ok {
			for _, v := range p.GetViolations() {
				cids = append(cids, v.GetSubject())
			}
		}
	}
	return cids
}

// badTrees are trees that no directory can hold, or whose order is wrong. A name that ends
// in "/" is that of a directory.
var badTrees = map[string][]string{
	"..":                  {".."},
	".. inside":           {"a/", "a/.."},
	".. in the middle":    {"a/", "a/../b"},
	". alone":             {"."},
	"absolute":            {"/etc"},
	"empty component":     {"a/", "a//b"},
	"root again":          {"a", ""},
	"a zero":              {"a\x00b"},
	"a long name":         {strings.Repeat("n", 256)},
	"a long path":         {strings.Repeat("n/", 2100) + "x"},
	"twice":               {"a", "a"},
	"twice, not adjacent": {"a", "b", "a"},
	"directory twice":     {"a/", "a/"},
	"file and directory":  {"a", "a/"},
	"directory and file":  {"a/", "a"},
	"wrong order":         {"b", "a"},
	"order of components": {"a/", "a/x", "a.txt"},
	"below a file":        {"a", "a/x"},
	"below a link":        {"l@", "l@/x"},
	"back into one":       {"a/", "a/x", "b/", "a/y"},
}

// Neither way to put a tree takes one that is none, and nothing of it is recorded.
func TestNodeBadTrees(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	conn := p.dial(t, p.write)
	content := []byte("content")
	s, err := scalev1.NewBlockServiceClient(conn).Upload(t.Context())
	if err := sendAll(s, err, uploadFrame(rawFrameOf(content))); err != nil {
		t.Fatal(err)
	}
	put := func(entries []*scalev1.CommitEntry) error {
		s, err := scalev1.NewDatasetServiceClient(conn).Put(t.Context())
		messages := []*scalev1.PutRequest{putHeader("tree", scalev1.Kind_KIND_DIRECTORY)}
		for _, e := range entries {
			pe := &scalev1.PutEntry{Path: e.GetPath(), Kind: e.GetKind(), Mode: e.Mode, Target: e.GetTarget()}
			if e.GetKind() == scalev1.Kind_KIND_FILE {
				pe.Data = content
			}
			messages = append(messages, &scalev1.PutRequest{Part: &scalev1.PutRequest_Entry{Entry: pe}})
		}
		return sendAll(s, err, messages...)
	}
	commit := func(entries []*scalev1.CommitEntry) error {
		s, err := scalev1.NewBlockServiceClient(conn).Commit(t.Context())
		root := &scalev1.CommitEntry{Kind: scalev1.Kind_KIND_DIRECTORY}
		return sendAll(s, err, commitHeader("tree"), commitEntries(append([]*scalev1.CommitEntry{root}, entries...)...))
	}
	entriesOf := func(names []string) (entries []*scalev1.CommitEntry) {
		for _, name := range names {
			e := &scalev1.CommitEntry{Path: []byte(name), Kind: scalev1.Kind_KIND_FILE, Chunks: []*scalev1.Chunk{chunkOf(content)}}
			if dir, ok := strings.CutSuffix(name, "/"); ok {
				e = &scalev1.CommitEntry{Path: []byte(dir), Kind: scalev1.Kind_KIND_DIRECTORY}
			} else if strings.HasSuffix(name, "@") {
				e = &scalev1.CommitEntry{Path: []byte(name), Kind: scalev1.Kind_KIND_LINK, Target: []byte("/etc/passwd")}
			}
			entries = append(entries, e)
		}
		return entries
	}
	bad := map[string][]*scalev1.CommitEntry{}
	for name, names := range badTrees {
		bad[name] = entriesOf(names)
	}
	for name, change := range map[string]func(*scalev1.CommitEntry){
		"of no kind":             func(e *scalev1.CommitEntry) { e.Kind = 0 },
		"of an unknown kind":     func(e *scalev1.CommitEntry) { e.Kind = 77 },
		"with a mode of 20 bits": func(e *scalev1.CommitEntry) { e.Mode = proto.Uint32(1 << 20) },
		"a file with a target":   func(e *scalev1.CommitEntry) { e.Target = []byte("t") },
		"a link to nothing":      func(e *scalev1.CommitEntry) { e.Kind, e.Chunks = scalev1.Kind_KIND_LINK, nil },
		"a link to too much": func(e *scalev1.CommitEntry) {
			e.Kind, e.Chunks, e.Target = scalev1.Kind_KIND_LINK, nil, bytes.Repeat([]byte("t"), 5000)
		},
		"a link with a zero": func(e *scalev1.CommitEntry) {
			e.Kind, e.Chunks, e.Target = scalev1.Kind_KIND_LINK, nil, []byte("t\x00t")
		},
	} {
		entries := entriesOf([]string{"a"})
		change(entries[0])
		bad[name] = entries
	}
	for name, entries := range bad {
		for way, try := range map[string]func([]*scalev1.CommitEntry) error{"put": put, "commit": commit} {
			if err := try(entries); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s of a tree %s: %v, want InvalidArgument", way, name, err)
			}
		}
	}
	for _, name := range []string{"", "a/b", "a b", strings.Repeat("n", 129), "a@1", ":7", "é"} {
		if _, err := putBytes(t.Context(), conn, name, content); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a dataset named %q: %v", name, err)
		}
	}
	if names := datasetNames(t, conn); len(names) != 0 {
		t.Errorf("datasets appeared: %q", names)
	}

	// What is right goes through both ways and comes to the same.
	good := entriesOf([]string{"a", "b.txt", "b/", "b/c", "l@"})
	for _, try := range []func([]*scalev1.CommitEntry) error{put, commit} {
		if err := try(good); err != nil {
			t.Error(err)
		}
	}
	versions, err := scalev1.NewDatasetServiceClient(conn).ListVersions(t.Context(), &scalev1.ListVersionsRequest{Name: "tree"})
	if err != nil || len(versions.GetVersions()) != 1 {
		t.Errorf("the two ways made %d versions, %v", len(versions.GetVersions()), err)
	}
	p.sound(t)
}

// Streams that break the order of their messages, end too early or too late.
func TestNodeBadStreams(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	conn := p.dial(t, p.write)
	datasets := scalev1.NewDatasetServiceClient(conn)
	header := putHeader("x", scalev1.Kind_KIND_FILE)
	sized := func(n uint64) *scalev1.PutRequest {
		h := putHeader("x", scalev1.Kind_KIND_FILE)
		h.GetHeader().Size = proto.Uint64(n)
		return h
	}
	withCID := putHeader("x", scalev1.Kind_KIND_FILE)
	withCID.GetHeader().Cid = dag.RawCID(sha256.Sum256([]byte("other"))).String()
	entry := &scalev1.PutRequest{Part: &scalev1.PutRequest_Entry{Entry: &scalev1.PutEntry{Path: []byte("a"), Kind: scalev1.Kind_KIND_FILE}}}
	data := putData([]byte("data"))
	for name, messages := range map[string][]*scalev1.PutRequest{
		"nothing":                    {},
		"empty message":              {{}},
		"data first":                 {data, header},
		"entry first":                {entry},
		"two headers":                {header, header},
		"a header at the end":        {header, data, header},
		"an entry in a file":         {header, entry},
		"data in no file":            {putHeader("x", scalev1.Kind_KIND_DIRECTORY), data},
		"a dataset that is a link":   {putHeader("x", scalev1.Kind_KIND_LINK)},
		"a dataset of no kind":       {putHeader("x", 0), data},
		"less than its size":         {sized(5), data},
		"more than its size":         {sized(3), data},
		"another CID":                {withCID, data},
		"an unknown profile":         {{Part: &scalev1.PutRequest_Header{Header: &scalev1.PutHeader{Name: "x", Kind: 1, Profile: "scale-9"}}}, data},
		"a parent that is not there": {{Part: &scalev1.PutRequest_Header{Header: &scalev1.PutHeader{Name: "x", Kind: 1, Parents: []string{"y"}}}}, data},
		"a piece of 2 MiB":           {header, putData(noise(2 << 20))},
		"a piece of 5 MiB":           {header, putData(noise(5 << 20))},
	} {
		s, err := datasets.Put(t.Context())
		err = sendAll(s, err, messages...)
		switch status.Code(err) {
		case codes.InvalidArgument, codes.ResourceExhausted, codes.NotFound:
		default:
			t.Errorf("%s: %v", name, err)
		}
	}
	// A caller who goes away in the middle, by a word or without one.
	ctx, cancel := context.WithCancel(t.Context())
	s, err := datasets.Put(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*scalev1.PutRequest{header, putData(noise(1 << 20))} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	other := p.dial(t, p.write)
	s, err = scalev1.NewDatasetServiceClient(other).Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*scalev1.PutRequest{header, putData(noise(1 << 20))} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	other.Close()
	if names := datasetNames(t, conn); len(names) != 0 {
		t.Errorf("datasets appeared: %q", names)
	}
	p.sound(t)
}

// A node keeps to limits that were set by name, and tells them.
func TestNodeLimits(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t), "--limit", "piece-bytes=2048", "--limit", "tree-depth=3")
	conn := p.dial(t, p.write)
	info, err := scalev1.NewNodeServiceClient(conn).GetInfo(t.Context(), &scalev1.GetInfoRequest{})
	if l := info.GetLimits(); err != nil || l.GetPieceBytes() != 2048 || l.GetTreeDepth() != 3 {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := putBytes(t.Context(), conn, "small", make([]byte, 2048)); err != nil {
		t.Error(err)
	}
	_, err = putBytes(t.Context(), conn, "large", make([]byte, 2049))
	wantStatus(t, "a piece of one byte more", err, codes.ResourceExhausted, "LIMIT")
	p.sound(t)
}
