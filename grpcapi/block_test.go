package grpcapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// cut makes chunks of at most 64 KiB. A node does not ask where they were cut.
func cut(data []byte) (chunks []*scalev1.Chunk) {
	for b := range slices.Chunk(data, 64<<10) {
		d := sha256.Sum256(b)
		chunks = append(chunks, &scalev1.Chunk{Digest: d[:], Size: uint32(len(b))})
	}
	return chunks
}

// frameOf is a frame of the plain bytes.
func frameOf(data []byte) *scalev1.Frame {
	return &scalev1.Frame{Codec: scalev1.Codec_CODEC_RAW, PlainSize: uint32(len(data)), SealedSize: uint32(len(data)), Chunks: cut(data), Data: data}
}

func uploadFrame(f *scalev1.Frame) *scalev1.UploadRequest {
	return &scalev1.UploadRequest{Part: &scalev1.UploadRequest_Frame{Frame: f}}
}

func uploadData(b []byte) *scalev1.UploadRequest {
	return &scalev1.UploadRequest{Part: &scalev1.UploadRequest_Data{Data: b}}
}

func (n *rawNode) upload(parts ...*scalev1.UploadRequest) (*scalev1.UploadResponse, error) {
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	ss, err := n.blocks.Upload(ctx)
	return sendAll(ss, err, parts...)
}

// missing asks which chunks the node lacks.
func (n *rawNode) missing(chunks []*scalev1.Chunk) []uint32 {
	n.t.Helper()
	req := &scalev1.FindMissingRequest{}
	for _, c := range chunks {
		req.Digests = append(req.Digests, c.GetDigest())
	}
	resp, err := n.blocks.FindMissing(n.ctx, req)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.GetMissing()
}

func TestFindMissing(t *testing.T) {
	n := newRawNode(t, nil)
	data := noiseBytes(1, 200_000)
	if _, err := n.upload(uploadFrame(frameOf(data[:128<<10]))); err != nil {
		t.Fatal(err)
	}
	chunks := cut(data)
	if got := n.missing(append(chunks, chunks[2], chunks[0])); !slices.Equal(got, []uint32{2, 3, 4}) {
		t.Errorf("missing %v of 4 chunks and two of them again", got)
	}
	for what, req := range map[string]*scalev1.FindMissingRequest{
		"digests":    {},
		"digests[1]": {Digests: [][]byte{make([]byte, 32), make([]byte, 31)}},
		"digests[0]": {Digests: [][]byte{nil}},
	} {
		_, err := n.blocks.FindMissing(n.ctx, req)
		refusedField(t, what, err, isInvalid, what)
	}
	// As many as there may be, and one more.
	req := &scalev1.FindMissingRequest{}
	for i := range maxFindDigests {
		req.Digests = append(req.Digests, append(make([]byte, 30), byte(i>>8), byte(i)))
	}
	resp, err := n.blocks.FindMissing(n.ctx, req)
	if err != nil || len(resp.GetMissing()) != maxFindDigests {
		t.Errorf("%d missing, %v", len(resp.GetMissing()), err)
	}
	req.Digests = append(req.Digests, req.Digests[0])
	_, err = n.blocks.FindMissing(n.ctx, req)
	refusedField(t, "too many", err, isInvalid, "digests")
	// A list of nothing takes many times its size when it is read: it is not.
	_, err = n.blocks.FindMissing(n.ctx, &scalev1.FindMissingRequest{Digests: make([][]byte, 200_000)})
	refusedField(t, "far too many", err, isInvalid, "digests")
}

func TestUpload(t *testing.T) {
	n := newRawNode(t, nil)
	s, err := compress.NewSealer(compress.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("all work and no play makes a dull boy\n"), 20_000)
	codec, sealed, err := s.Seal(nil, text)
	if err != nil || codec != compress.Zstd {
		t.Fatal(codec, err)
	}
	zstd := frameOf(text)
	zstd.Codec, zstd.SealedSize, zstd.Data = scalev1.Codec_CODEC_ZSTD, uint32(len(sealed)), sealed
	noise := noiseBytes(1, 2<<20)
	pieces := frameOf(noise)
	pieces.Data = noise[:100]
	resp, err := n.upload(uploadFrame(zstd), uploadFrame(pieces), uploadData(noise[100:1<<20]), uploadData(noise[1<<20:]), uploadFrame(frameOf(noise[:64<<10])))
	if err != nil {
		t.Fatal(err)
	}
	if chunks := len(cut(text)) + len(cut(noise)); resp.GetChunks() != uint64(chunks) || resp.GetDuplicates() != 1 ||
		resp.GetNewBytes() != uint64(len(text)+len(noise)) || resp.GetStoredBytes() < uint64(len(noise)) || resp.GetStoredBytes() > uint64(len(noise)+len(text)/2) {
		t.Errorf("%d chunks: %v", chunks, resp)
	}
	if missing := n.missing(append(cut(text), cut(noise)...)); len(missing) != 0 {
		t.Errorf("missing %v", missing)
	}
	// Nothing at all is an upload too.
	if resp, err := n.upload(); err != nil || resp.GetChunks() != 0 {
		t.Errorf("%v, %v", resp, err)
	}
	n.sound()
}

func TestUploadRefused(t *testing.T) {
	n := newRawNode(t, nil)
	data := noiseBytes(1, 100_000)
	frame := func(change func(*scalev1.Frame)) *scalev1.UploadRequest {
		f := frameOf(data)
		change(f)
		return uploadFrame(f)
	}
	begun := frame(func(f *scalev1.Frame) { f.Data = data[:10] })
	bomb := bytes.Repeat([]byte{0}, 1<<20)
	s, err := compress.NewSealer(compress.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, sealedBomb, err := s.Seal(nil, bomb)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		parts  []*scalev1.UploadRequest
		reason scalev1.ErrorReason
		field  string
	}{
		"an empty message": {[]*scalev1.UploadRequest{{}}, isInvalid, "part"},
		"data of no frame": {[]*scalev1.UploadRequest{uploadData(data)}, isInvalid, "frame"},
		"no codec":         {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Codec = 0 })}, isInvalid, "frame.codec"},
		"a later codec":    {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Codec = 9 })}, isInvalid, "frame.codec"},
		"nothing sealed":   {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.SealedSize = 0 })}, isInvalid, "frame.sealed_size"},
		"sealed too large": {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.SealedSize = 4<<20 + 1 })}, isInvalid, "frame.sealed_size"},
		"more than sealed": {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.SealedSize-- })}, isInvalid, "frame.data"},
		"less than sealed": {[]*scalev1.UploadRequest{begun}, isInvalid, "data"},
		"too much more":    {[]*scalev1.UploadRequest{begun, uploadData(data)}, isInvalid, "data"},
		"nothing more":     {[]*scalev1.UploadRequest{begun, uploadData(nil)}, isInvalid, "data"},
		"a frame in one":   {[]*scalev1.UploadRequest{begun, frame(func(*scalev1.Frame) {})}, isInvalid, "frame"},
		"a large piece":    {[]*scalev1.UploadRequest{uploadFrame(frameOf(noiseBytes(1, mostPiece+1)))}, isLimit, ""},
		"a large piece more": {[]*scalev1.UploadRequest{
			frame(func(f *scalev1.Frame) { f.SealedSize = 4 << 20; f.Data = data[:1] }), uploadData(make([]byte, mostPiece+1))}, isLimit, ""},
		"no chunks":       {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Chunks = nil })}, isInvalid, ""},
		"sizes":           {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.PlainSize-- })}, isInvalid, ""},
		"plain too large": {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.PlainSize = 4<<20 + 1 })}, isInvalid, ""},
		"digest":          {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Chunks[0].Digest = f.Chunks[0].Digest[1:] })}, isInvalid, "frame.chunks"},
		"no digest":       {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Chunks[0].Digest = nil })}, isInvalid, "frame.chunks"},
		"an empty chunk":  {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Chunks[0].Size = 0 })}, isInvalid, "frame.chunks"},
		"a large chunk":   {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Chunks[0].Size = 4<<20 + 1 })}, isInvalid, "frame.chunks"},
		"many chunks": {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) {
			f.Chunks = slices.Repeat(f.Chunks[:1], maxFrameChunks+1)
		})}, isInvalid, "frame.chunks"},
		"other bytes":  {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Chunks[1].Digest[0] ^= 1 })}, isMismatch, ""},
		"not zstd":     {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.Codec = scalev1.Codec_CODEC_ZSTD })}, isMismatch, ""},
		"sealed twice": {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) { f.SealedSize = 4 << 20 }), uploadData(make([]byte, mostPiece))}, isInvalid, "data"},
		"opens to more": {[]*scalev1.UploadRequest{frame(func(f *scalev1.Frame) {
			f.Codec, f.Data, f.SealedSize = scalev1.Codec_CODEC_ZSTD, sealedBomb, uint32(len(sealedBomb))
		})}, isMismatch, ""},
	} {
		_, err := n.upload(c.parts...)
		if c.field == "" {
			refused(t, what, err, c.reason)
		} else {
			refusedField(t, what, err, c.reason, c.field)
		}
	}
	if missing := n.missing(cut(data)); len(missing) != 2 {
		t.Errorf("chunks of frames that were refused were kept: %v are missing", missing)
	}
	// The frame before one that does not match stays.
	bad := frameOf(noiseBytes(2, 1000))
	bad.Data[7]++
	_, err = n.upload(uploadFrame(frameOf(data)), uploadFrame(bad))
	refused(t, "the second", err, isMismatch, "frame 1")
	if missing := n.missing(cut(data)); len(missing) != 0 {
		t.Errorf("missing %v", missing)
	}
	n.sound()
}

// What a commit needs for a tree of two files.
var commitFiles = map[string][]byte{"a": noiseBytes(5, 150_000), "b": noiseBytes(6, 70_000)}

func commitHeader(h *scalev1.CommitHeader) *scalev1.CommitRequest {
	return &scalev1.CommitRequest{Part: &scalev1.CommitRequest_Header{Header: h}}
}

func commitEntries(e ...*scalev1.CommitEntry) *scalev1.CommitRequest {
	return &scalev1.CommitRequest{Part: &scalev1.CommitRequest_Entries{Entries: &scalev1.CommitEntries{Entries: e}}}
}

func commitChunks(c ...*scalev1.Chunk) *scalev1.CommitRequest {
	return &scalev1.CommitRequest{Part: &scalev1.CommitRequest_Chunks{Chunks: &scalev1.ChunkList{Chunks: c}}}
}

func commitSigned(block []byte) *scalev1.CommitRequest {
	return &scalev1.CommitRequest{Part: &scalev1.CommitRequest_SignedEntry{SignedEntry: block}}
}

func commitFile(path string, data []byte) *scalev1.CommitEntry {
	return &scalev1.CommitEntry{Path: []byte(path), Kind: scalev1.Kind_KIND_FILE, Chunks: cut(data)}
}

func (n *rawNode) commit(parts ...*scalev1.CommitRequest) (*scalev1.CommitResponse, error) {
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	ss, err := n.blocks.Commit(ctx)
	return sendAll(ss, err, parts...)
}

var root = &scalev1.CommitEntry{Kind: scalev1.Kind_KIND_DIRECTORY}

func TestCommit(t *testing.T) {
	n := newRawNode(t, nil)
	a, b := commitFiles["a"], commitFiles["b"]
	up, err := n.upload(uploadFrame(frameOf(a)), uploadFrame(frameOf(b)))
	if err != nil {
		t.Fatal(err)
	}
	chunks := cut(a)
	resp, err := n.commit(
		// A tree whose entries and chunks come in pieces.
		commitHeader(&scalev1.CommitHeader{Name: "tree", NewBytes: up.GetNewBytes(), StoredBytes: up.GetStoredBytes()}),
		commitEntries(root, &scalev1.CommitEntry{Path: []byte("a"), Kind: scalev1.Kind_KIND_FILE, Chunks: chunks[:1]}),
		commitChunks(chunks[1:2]...), commitChunks(), commitChunks(chunks[2:]...),
		commitEntries(commitFile("d/b", b), &scalev1.CommitEntry{Path: []byte("e"), Kind: scalev1.Kind_KIND_LINK, Target: []byte("a")}),
		commitEntries(commitFile("f", nil)),
		// One file, and one that is there already, in the same commit.
		commitHeader(&scalev1.CommitHeader{Name: "file", Parents: nil}), commitEntries(commitFile("", b)),
	)
	if err != nil {
		t.Fatal(err)
	}
	tree, file := resp.GetResults()[0].GetDataset(), resp.GetResults()[1].GetDataset()
	if len(resp.GetResults()) != 2 || tree.GetFiles() != 3 || tree.GetLeaves() != 4 || tree.GetNewBytes() != up.GetNewBytes() || file.GetSize() != uint64(len(b)) ||
		file.GetKind() != scalev1.Kind_KIND_FILE || resp.GetCheckpoint().GetSize() != 3 || file.GetNewBytes() != 0 {
		t.Errorf("%v", resp)
	}
	for ref, want := range map[string][]byte{"tree/a": a, "tree/d/b": b, "file": b, "tree/f": nil} {
		if got, err := n.get(&scalev1.GetRequest{Ref: ref}); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", ref, len(got), err)
		}
	}
	resp, err = n.commit(commitHeader(&scalev1.CommitHeader{Name: "other", Known: true, Cid: tree.GetCid(), Parents: []string{"file"}}),
		commitHeader(&scalev1.CommitHeader{Name: "file", Cid: file.GetCid()}), commitEntries(commitFile("", b)))
	if err != nil || resp.GetResults()[0].GetDataset().GetCid() != tree.GetCid() || !resp.GetResults()[1].GetUnchanged() || resp.GetCheckpoint().GetSize() != 4 {
		t.Errorf("%v, %v", resp, err)
	}
	n.sound()
}

func TestCommitMissing(t *testing.T) {
	n := newRawNode(t, nil)
	a, b := commitFiles["a"], commitFiles["b"]
	if _, err := n.upload(uploadFrame(frameOf(b))); err != nil {
		t.Fatal(err)
	}
	whole := []*scalev1.CommitRequest{commitHeader(&scalev1.CommitHeader{Name: "tree"}), commitEntries(root, commitFile("a", a), commitFile("b", b))}
	_, err := n.commit(whole...)
	st := refused(t, "missing", err, scalev1.ErrorReason_ERROR_REASON_MISSING_CHUNKS)
	var cids []string
	for _, v := range detailOf[*errdetails.PreconditionFailure](st).GetViolations() {
		if v.GetType() != missingType {
			t.Errorf("%v", v)
		}
		cids = append(cids, v.GetSubject())
	}
	for i, c := range cut(a) {
		if i >= len(cids) || cids[i] != dag.RawCID(dag.Digest(c.GetDigest())).String() {
			t.Errorf("%v, want that of chunk %d", cids, i)
		}
	}
	if n.size() != 1 {
		t.Error("it was recorded")
	}
	// A chunk whose size is not what the node holds under its digest.
	wrong := commitFile("", b)
	wrong.Chunks[0].Size--
	_, err = n.commit(commitHeader(&scalev1.CommitHeader{Name: "x"}), commitEntries(wrong))
	size := wrong.Chunks[0].GetSize()
	refused(t, "another size", err, isMismatch, dag.RawCID(dag.Digest(wrong.Chunks[0].GetDigest())).String(), fmt.Sprint(size, ":"), fmt.Sprint(size+1, " bytes"))
	// Sent, it goes through.
	if _, err := n.upload(uploadFrame(frameOf(a))); err != nil {
		t.Fatal(err)
	}
	if _, err := n.commit(whole...); err != nil {
		t.Error(err)
	}
	n.sound()
}

func TestCommitRefused(t *testing.T) {
	n := newRawNode(t, nil)
	b := commitFiles["b"]
	if _, err := n.upload(uploadFrame(frameOf(b))); err != nil {
		t.Fatal(err)
	}
	known := n.putFile("known", b)
	size := n.size()
	h := commitHeader(&scalev1.CommitHeader{Name: "new"})
	good := []*scalev1.CommitRequest{commitHeader(&scalev1.CommitHeader{Name: "good"}), commitEntries(commitFile("", b))}
	with := func(parts ...*scalev1.CommitRequest) []*scalev1.CommitRequest {
		return append(slices.Clone(good), parts...)
	}
	head := func(h *scalev1.CommitHeader) []*scalev1.CommitRequest {
		return with(commitHeader(h), commitEntries(commitFile("", b)))
	}
	for what, c := range map[string]struct {
		parts  []*scalev1.CommitRequest
		reason scalev1.ErrorReason
		field  string
	}{
		"nothing":               {nil, isInvalid, ""},
		"an empty message":      {with(&scalev1.CommitRequest{}), isInvalid, "part"},
		"no header":             {[]*scalev1.CommitRequest{commitEntries(root)}, isInvalid, "header"},
		"chunks first":          {[]*scalev1.CommitRequest{commitChunks()}, isInvalid, "header"},
		"no entries":            {with(h), isInvalid, "entries"},
		"empty entries":         {with(h, commitEntries()), isInvalid, "entries"},
		"name":                  {head(&scalev1.CommitHeader{Name: "?"}), isInvalid, "header.name"},
		"the same name":         {head(&scalev1.CommitHeader{Name: "good"}), isInvalid, ""},
		"profile":               {head(&scalev1.CommitHeader{Name: "new", Profile: "x"}), isInvalid, "header.profile"},
		"cid":                   {head(&scalev1.CommitHeader{Name: "new", Cid: "x"}), isInvalid, "header.cid"},
		"another cid":           {head(&scalev1.CommitHeader{Name: "new", Cid: known.GetEntryCid()}), isMismatch, ""},
		"parents":               {head(&scalev1.CommitHeader{Name: "new", Parents: []string{"none"}}), isNotFound, ""},
		"known without cid":     {with(commitHeader(&scalev1.CommitHeader{Name: "new", Known: true})), isInvalid, "header.cid"},
		"not known":             {with(commitHeader(&scalev1.CommitHeader{Name: "new", Known: true, Cid: known.GetEntryCid()})), isNotFound, ""},
		"entries of a known":    {with(commitHeader(&scalev1.CommitHeader{Name: "new", Known: true, Cid: known.GetCid()}), commitEntries(root)), isInvalid, "entries"},
		"two entries, a file":   {with(h, commitEntries(commitFile("", b), commitFile("x", b))), isInvalid, "entries"},
		"a file, then a tree":   {with(h, commitEntries(commitFile("", b)), commitEntries(root)), isInvalid, "entries"},
		"chunks of a link":      {with(h, commitEntries(root, &scalev1.CommitEntry{Path: []byte("l"), Kind: scalev1.Kind_KIND_LINK, Target: []byte("x"), Chunks: cut(b)})), isInvalid, "entries.chunks"},
		"chunks of a directory": {with(h, commitEntries(root), commitChunks(cut(b)...)), isInvalid, "chunks"},
		"kind":                  {with(h, commitEntries(&scalev1.CommitEntry{})), isInvalid, "entries.kind"},
		"mode":                  {with(h, commitEntries(&scalev1.CommitEntry{Kind: scalev1.Kind_KIND_DIRECTORY, Mode: ptr(uint32(1 << 20))})), isInvalid, "entries.mode"},
		"target of a file":      {with(h, commitEntries(&scalev1.CommitEntry{Kind: scalev1.Kind_KIND_FILE, Target: []byte("x")})), isInvalid, "entries.target"},
		"no target":             {with(h, commitEntries(root, &scalev1.CommitEntry{Path: []byte("l"), Kind: scalev1.Kind_KIND_LINK})), isInvalid, "entries.target"},
		"order":                 {with(h, commitEntries(root, commitFile("b", b)), commitEntries(commitFile("a", b))), isInvalid, "entries.path"},
		"twice":                 {with(h, commitEntries(root, commitFile("b", b), commitFile("b", b))), isInvalid, "entries.path"},
		"up":                    {with(h, commitEntries(root, commitFile("../b", b))), isInvalid, "entries.path"},
		"digest":                {with(h, commitEntries(&scalev1.CommitEntry{Kind: scalev1.Kind_KIND_FILE, Chunks: []*scalev1.Chunk{{Digest: []byte("x"), Size: 1}}})), isInvalid, "chunks"},
		"chunk size":            {with(h, commitEntries(commitFile("", nil)), commitChunks(&scalev1.Chunk{Digest: make([]byte, 32)})), isInvalid, "chunks"},
		"an empty entry":        {with(commitSigned(nil)), isInvalid, "signed_entry"},
		"a bad entry":           {with(commitSigned([]byte("x"))), isInvalid, "signed_entry"},
		"a long entry":          {with(commitSigned(make([]byte, 16<<10+1))), isInvalid, "signed_entry"},
		"a long header":         {head(&scalev1.CommitHeader{Name: "new", Parents: slices.Repeat([]string{string(bytes.Repeat([]byte("p"), 1000))}, 100)}), isInvalid, ""},
	} {
		_, err := n.commit(c.parts...)
		if c.field == "" {
			refused(t, what, err, c.reason)
		} else {
			refusedField(t, what, err, c.reason, c.field)
		}
	}
	if got := n.size(); got != size {
		t.Errorf("%d entries were recorded", got-size)
	}
	// A commit that breaks off records nothing either.
	ctx, cancel := context.WithCancel(n.ctx)
	ss, err := n.blocks.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ss.Send(good[0]), ss.Send(good[1])); err != nil {
		t.Fatal(err)
	}
	n.waiting(1, waitsRecv)
	cancel()
	if _, err := ss.CloseAndRecv(); err == nil {
		t.Error("it went through")
	}
	n.stop()
	n.start()
	if got := n.size(); got != size {
		t.Errorf("%d entries were recorded", got-size)
	}
	n.sound()
}
