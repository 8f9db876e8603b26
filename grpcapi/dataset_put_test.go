package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

func TestPutFile(t *testing.T) {
	n := newRawNode(t, nil)
	data := noiseBytes(1, 700_000)
	h := &scalev1.PutHeader{Name: "noise", Kind: scalev1.Kind_KIND_FILE, Size: ptr(uint64(len(data)))}
	parts := []*scalev1.PutRequest{header(h), dataPart(nil), dataPart(data[:1]), dataPart(data[1:300_000]), dataPart(data[300_000:])}
	resp, err := n.put(n.ctx, parts...)
	if err != nil {
		t.Fatal(err)
	}
	d := resp.GetResult().GetDataset()
	p, err := dag.LookupProfile(dag.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	want, err := dag.HashFile(n.ctx, p, bytes.NewReader(data), nil, dag.Attr{Mode: dag.DefaultFileMode})
	if err != nil {
		t.Fatal(err)
	}
	if d.GetCid() != want.CID.String() || d.GetSize() != uint64(len(data)) || d.GetChunks() != want.Chunks || d.GetVersion() != 1 ||
		d.GetEntry() != 1 || d.GetPrevious() != -1 || d.GetKind() != scalev1.Kind_KIND_FILE || d.GetProfile() != dag.DefaultProfile ||
		d.GetNewBytes() != uint64(len(data)) || d.GetStoredBytes() < uint64(len(data)) || len(d.GetCurator()) != 32 || len(d.GetCommitment()) != 32 ||
		d.GetFiles() != 1 || d.GetLeaves() != 1 || d.GetTime().AsTime().IsZero() || resp.GetResult().GetUnchanged() {
		t.Errorf("%v", d)
	}
	if c := resp.GetCheckpoint(); c.GetSize() != 2 || c.GetOrigin() != "node.test" || len(c.GetRoot()) != 32 || len(c.GetNote()) == 0 {
		t.Errorf("%v", c)
	}
	if got, err := n.get(&scalev1.GetRequest{Ref: d.GetCid()}); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes come back, %v", len(got), err)
	}
	// The same again changes nothing; with the CID that it must have, too.
	h.Cid = d.GetCid()
	resp, err = n.put(n.ctx, parts...)
	if err != nil || !resp.GetResult().GetUnchanged() || resp.GetResult().GetDataset().GetEntry() != 1 {
		t.Errorf("%v, %v", resp, err)
	}
	// An empty one, one with a mode, and one with parents and another profile.
	if d := n.putFile("empty", nil); d.GetSize() != 0 || d.GetChunks() != 0 || d.GetFiles() != 1 {
		t.Errorf("%v", d)
	}
	d = n.putParts(header(&scalev1.PutHeader{
		Name: "child", Kind: scalev1.Kind_KIND_FILE, Mode: ptr(uint32(0o600)), Profile: "scale-fixed-1", Parents: []string{"noise", ":2"},
	}), dataPart([]byte("x")))
	if len(d.GetParents()) != 2 || d.GetProfile() != "scale-fixed-1" {
		t.Errorf("%v", d)
	}
	stat, err := n.datasets.Stat(n.ctx, &scalev1.StatRequest{Ref: "child"})
	if err != nil || stat.GetEntry().GetMode() != 0o600 || stat.GetEntry().GetSize() != 1 {
		t.Errorf("%v, %v", stat, err)
	}
	// Its time is kept if that is asked for.
	at := &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 5}
	for _, times := range []bool{true, false} {
		n.putParts(header(&scalev1.PutHeader{Name: "timed", Kind: scalev1.Kind_KIND_FILE, Mtime: at, Times: times}), dataPart([]byte("x")))
		stat, err := n.datasets.Stat(n.ctx, &scalev1.StatRequest{Ref: "timed"})
		if err != nil || times != proto.Equal(stat.GetEntry().GetMtime(), at) || stat.GetEntry().GetMode() != 0o644 {
			t.Errorf("times %t: %v, %v", times, stat, err)
		}
	}
	n.sound()
}

// A tree comes back as it was sent, with the directories that were left out.
func TestPutTree(t *testing.T) {
	n := newRawNode(t, nil)
	at := timestamppb.New(time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC))
	big := noiseBytes(2, 600_000)
	d := n.putParts(
		header(&scalev1.PutHeader{Name: "tree", Kind: scalev1.Kind_KIND_DIRECTORY, Times: true, Size: ptr(uint64(len(big) + 7))}),
		entryPart(&scalev1.PutEntry{Path: []byte("a.txt"), Kind: scalev1.Kind_KIND_FILE, Mode: ptr(uint32(0o751)), Mtime: at, Data: []byte("one")}),
		fileEntry("a/b/deep", ""), dataPart([]byte("fo")), dataPart([]byte("ur")),
		entryPart(&scalev1.PutEntry{Path: []byte("big\xff"), Kind: scalev1.Kind_KIND_FILE}), dataPart(big[:300_000]), dataPart(big[300_000:]),
		dirEntry("empty"), linkEntry("link", "../else\xff"), fileEntry("none", ""),
	)
	if d.GetFiles() != 4 || d.GetLeaves() != 6 || !d.GetTimes() || d.GetKind() != scalev1.Kind_KIND_DIRECTORY {
		t.Errorf("%v", d)
	}
	got, data := n.tree(&scalev1.GetTreeRequest{Ref: "tree"})
	var lines []string
	for _, e := range got {
		lines = append(lines, fmt.Sprintf("%q %v %o %d %q", e.GetPath(), e.GetKind(), e.GetMode(), e.GetSize(), e.GetTarget()))
	}
	want := []string{
		`"" KIND_DIRECTORY 755 0 ""`, `"a.txt" KIND_FILE 751 3 ""`, `"a" KIND_DIRECTORY 755 0 ""`, `"a/b" KIND_DIRECTORY 755 0 ""`,
		`"a/b/deep" KIND_FILE 644 4 ""`, `"big\xff" KIND_FILE 644 600000 ""`, `"empty" KIND_DIRECTORY 755 0 ""`,
		`"link" KIND_LINK 0 0 "../else\xff"`, `"none" KIND_FILE 644 0 ""`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if data["a.txt"] != "one" || data["a/b/deep"] != "four" || data["big\xff"] != string(big) || data["none"] != "" {
		t.Error("files come back differently")
	}
	if !got[1].GetMtime().AsTime().Equal(at.AsTime()) {
		t.Errorf("time %v", got[1].GetMtime())
	}
	// What GetTree gives, Put takes.
	again := []*scalev1.PutRequest{header(&scalev1.PutHeader{Name: "again", Kind: scalev1.Kind_KIND_DIRECTORY, Times: true, Cid: d.GetCid()})}
	for _, e := range got {
		p := &scalev1.PutEntry{Path: e.GetPath(), Kind: e.GetKind(), Mtime: e.GetMtime(), Target: e.GetTarget(), Data: []byte(data[string(e.GetPath())])}
		if e.GetKind() != scalev1.Kind_KIND_LINK {
			p.Mode = ptr(e.GetMode())
		}
		again = append(again, entryPart(p))
	}
	if d := n.putParts(again...); d.GetNewBytes() != 0 {
		t.Errorf("again: %v", d)
	}
	// Nor does it matter how many come in a message.
	for _, of := range []int{1, 3, len(again) - 1} {
		together := []*scalev1.PutRequest{again[0]}
		for parts := range slices.Chunk(again[1:], of) {
			together = append(together, entriesPart(parts...))
		}
		if d := n.putParts(together...); d.GetNewBytes() != 0 {
			t.Errorf("again, %d entries a message: %v", of, d)
		}
	}
	together := entriesPart(dirEntry("a"), fileEntry("a/1", "one"), fileEntry("a/2", ""), fileEntry("a/3", "th"))
	n.putParts(treeHeader("x"), together, dataPart([]byte("ree")), entriesPart(fileEntry("b", "two")), dataPart([]byte("more")), fileEntry("c", ""))
	if _, data := n.tree(&scalev1.GetTreeRequest{Ref: "x"}); data["a/1"] != "one" || data["a/2"] != "" || data["a/3"] != "three" || data["b"] != "twomore" {
		t.Errorf("files of entries that came together: %q", data)
	}
	if d := n.putParts(treeHeader("nothing")); d.GetLeaves() != 1 || d.GetFiles() != 0 {
		t.Errorf("an empty directory: %v", d)
	}
	n.sound()
}

// tree reads a tree: its entries, and the bytes of its files.
func (n *rawNode) tree(req *scalev1.GetTreeRequest) (entries []*scalev1.TreeEntry, data map[string]string) {
	n.t.Helper()
	messages, err := receive(n.datasets.GetTree(n.ctx, req))
	if err != nil {
		n.t.Fatal(err)
	}
	data = map[string]string{}
	for _, m := range messages {
		if proto.Size(m) > mostPiece+64<<10 {
			n.t.Errorf("a message of %d bytes", proto.Size(m))
		}
		for _, p := range m.GetParts() {
			if p.GetEntry() != nil {
				entries = append(entries, p.GetEntry())
			}
			if len(p.GetData()) > 0 {
				data[string(entries[len(entries)-1].GetPath())] += string(p.GetData())
			}
		}
	}
	return entries, data
}

func TestPutRefused(t *testing.T) {
	n := newRawNode(t, nil)
	known := n.putFile("known", []byte("x"))
	n.putParts(treeHeader("dir"), fileEntry("f", "x"))
	size := n.size()
	file := func(change func(*scalev1.PutHeader)) []*scalev1.PutRequest {
		h := &scalev1.PutHeader{Name: "new", Kind: scalev1.Kind_KIND_FILE}
		change(h)
		return []*scalev1.PutRequest{header(h), dataPart([]byte("data"))}
	}
	tree := func(parts ...*scalev1.PutRequest) []*scalev1.PutRequest {
		return append([]*scalev1.PutRequest{treeHeader("new")}, parts...)
	}
	entry := func(e *scalev1.PutEntry) []*scalev1.PutRequest { return tree(entryPart(e)) }
	for what, c := range map[string]struct {
		parts  []*scalev1.PutRequest
		reason scalev1.ErrorReason
		field  string
	}{
		"nothing":              {nil, isInvalid, "header"},
		"no header":            {[]*scalev1.PutRequest{dataPart([]byte("x"))}, isInvalid, "header"},
		"an empty message":     {[]*scalev1.PutRequest{{}}, isInvalid, "part"},
		"two headers":          {[]*scalev1.PutRequest{fileHeader("new"), fileHeader("new")}, isInvalid, "data"},
		"two headers, tree":    {tree(treeHeader("new")), isInvalid, "header"},
		"header in a file":     {tree(fileEntry("f", "x"), treeHeader("new")), isInvalid, "header"},
		"empty in the middle":  {tree(&scalev1.PutRequest{}), isInvalid, "part"},
		"no name":              {file(func(h *scalev1.PutHeader) { h.Name = "" }), isInvalid, "header.name"},
		"bad name":             {file(func(h *scalev1.PutHeader) { h.Name = "a/b" }), isInvalid, "header.name"},
		"long name":            {file(func(h *scalev1.PutHeader) { h.Name = strings.Repeat("n", 129) }), isInvalid, "header.name"},
		"no kind":              {file(func(h *scalev1.PutHeader) { h.Kind = 0 }), isInvalid, "header.kind"},
		"a later kind":         {file(func(h *scalev1.PutHeader) { h.Kind = 77 }), isInvalid, "header.kind"},
		"a link":               {file(func(h *scalev1.PutHeader) { h.Kind = scalev1.Kind_KIND_LINK }), isInvalid, "header.kind"},
		"profile":              {file(func(h *scalev1.PutHeader) { h.Profile = "scale-9" }), isInvalid, "header.profile"},
		"cid":                  {file(func(h *scalev1.PutHeader) { h.Cid = "bafy" }), isInvalid, "header.cid"},
		"another cid":          {file(func(h *scalev1.PutHeader) { h.Cid = known.GetCid() }), isMismatch, ""},
		"a parent not there":   {file(func(h *scalev1.PutHeader) { h.Parents = []string{"known", "none"} }), isNotFound, ""},
		"a parent in one":      {file(func(h *scalev1.PutHeader) { h.Parents = []string{"dir/f"} }), isInvalid, "parents[0]"},
		"too many parents":     {file(func(h *scalev1.PutHeader) { h.Parents = make([]string, 256) }), isInvalid, "parents"},
		"mode":                 {file(func(h *scalev1.PutHeader) { h.Mode = ptr(uint32(0o10000)) }), isInvalid, "header.mode"},
		"time of a tree":       {[]*scalev1.PutRequest{header(&scalev1.PutHeader{Name: "new", Kind: scalev1.Kind_KIND_DIRECTORY, Mtime: &timestamppb.Timestamp{}})}, isInvalid, "header.mtime"},
		"time of a file":       {[]*scalev1.PutRequest{header(&scalev1.PutHeader{Name: "new", Kind: scalev1.Kind_KIND_FILE, Mtime: &timestamppb.Timestamp{Nanos: -1}})}, isInvalid, "header.mtime"},
		"mode of a tree":       {[]*scalev1.PutRequest{header(&scalev1.PutHeader{Name: "new", Kind: scalev1.Kind_KIND_DIRECTORY, Mode: ptr(uint32(0o700))})}, isInvalid, "header.mode"},
		"size too small":       {file(func(h *scalev1.PutHeader) { h.Size = ptr(uint64(3)) }), isInvalid, "header.size"},
		"size too large":       {file(func(h *scalev1.PutHeader) { h.Size = ptr(uint64(5)) }), isInvalid, "header.size"},
		"size of nothing":      {file(func(h *scalev1.PutHeader) { h.Size = ptr(uint64(0)) }), isInvalid, "header.size"},
		"size beyond all":      {file(func(h *scalev1.PutHeader) { h.Size = ptr(uint64(1 << 62)) }), isLimit, ""},
		"entry of a file":      {append(file(func(*scalev1.PutHeader) {}), fileEntry("x", "")), isInvalid, "data"},
		"no entries":           {tree(entriesPart()), isInvalid, "entries"},
		"entries of a file":    {[]*scalev1.PutRequest{fileHeader("new"), entriesPart(fileEntry("a", "x"))}, isInvalid, "data"},
		"entries not in order": {tree(entriesPart(fileEntry("a", "x"), fileEntry("c", ""), fileEntry("b", "y"))), isInvalid, "entry.path"},
		"pieces together":      {tree(entriesPart(fileEntry("a", string(make([]byte, mostPiece/2))), fileEntry("b", string(make([]byte, mostPiece/2+1))))), isLimit, ""},
		"data of a link":       {tree(entriesPart(fileEntry("a", "x"), entryPart(&scalev1.PutEntry{Path: []byte("l"), Kind: scalev1.Kind_KIND_LINK, Target: []byte("a"), Data: []byte("x")}))), isInvalid, "entry.data"},
		"piece":                {[]*scalev1.PutRequest{fileHeader("new"), dataPart(make([]byte, mostPiece+1))}, isLimit, ""},
		"piece of an entry":    {tree(fileEntry("x", strings.Repeat("x", mostPiece+1))), isLimit, ""},
		"data of no file":      {tree(dataPart([]byte("x"))), isInvalid, "data"},
		"data of a directory":  {entry(&scalev1.PutEntry{Path: []byte("d"), Kind: scalev1.Kind_KIND_DIRECTORY, Data: []byte("x")}), isInvalid, "entry.data"},
		"data behind one":      {tree(dirEntry("d"), dataPart([]byte("x"))), isInvalid, "data"},
		"entry without kind":   {entry(&scalev1.PutEntry{Path: []byte("d")}), isInvalid, "entry.kind"},
		"entry mode":           {entry(&scalev1.PutEntry{Path: []byte("d"), Kind: scalev1.Kind_KIND_FILE, Mode: ptr(uint32(0o20000))}), isInvalid, "entry.mode"},
		"mode of a link":       {entry(&scalev1.PutEntry{Path: []byte("d"), Kind: scalev1.Kind_KIND_LINK, Target: []byte("x"), Mode: ptr(uint32(0o777))}), isInvalid, "entry.mode"},
		"target of a file":     {entry(&scalev1.PutEntry{Path: []byte("d"), Kind: scalev1.Kind_KIND_FILE, Target: []byte("x")}), isInvalid, "entry.target"},
		"no target":            {tree(linkEntry("d", "")), isInvalid, "entry.target"},
		"long target":          {tree(linkEntry("d", strings.Repeat("x", 4096))), isInvalid, "entry.target"},
		"NUL in a target":      {tree(linkEntry("d", "x\x00")), isInvalid, "entry.target"},
		"time":                 {entry(&scalev1.PutEntry{Path: []byte("d"), Kind: scalev1.Kind_KIND_FILE, Mtime: &timestamppb.Timestamp{Nanos: -1}}), isInvalid, "entry.mtime"},
		"root twice":           {tree(dirEntry(""), dirEntry("")), isInvalid, "entry.path"},
		"root late":            {tree(fileEntry("a", ""), dirEntry("")), isInvalid, "entry.path"},
		"root a file":          {tree(fileEntry("", "x")), isInvalid, "entry.path"},
		"up":                   {tree(fileEntry("../x", "")), isInvalid, "entry.path"},
		"up in the middle":     {tree(fileEntry("a/../x", "")), isInvalid, "entry.path"},
		"here":                 {tree(fileEntry("./x", "")), isInvalid, "entry.path"},
		"absolute":             {tree(fileEntry("/x", "")), isInvalid, "entry.path"},
		"two slashes":          {tree(fileEntry("a//x", "")), isInvalid, "entry.path"},
		"a slash at the end":   {tree(dirEntry("a/")), isInvalid, "entry.path"},
		"NUL":                  {tree(fileEntry("a\x00", "")), isInvalid, "entry.path"},
		"long component":       {tree(fileEntry(strings.Repeat("x", 256), "")), isInvalid, "entry.path"},
		"long path":            {tree(fileEntry(strings.Repeat("x/", 2048)+"x", "")), isInvalid, "entry.path"},
		"deep":                 {tree(fileEntry(strings.Repeat("x/", 256)+"x", "")), isLimit, ""},
		"twice":                {tree(fileEntry("a", ""), fileEntry("a", "")), isInvalid, "entry.path"},
		"file and directory":   {tree(fileEntry("a", ""), dirEntry("a")), isInvalid, "entry.path"},
		"below a file":         {tree(fileEntry("a", ""), fileEntry("a/b", "")), isInvalid, "entry.path"},
		"below a link":         {tree(linkEntry("a", "b"), fileEntry("a.", ""), fileEntry("a/b", "")), isInvalid, "entry.path"},
		"order":                {tree(fileEntry("b", ""), fileEntry("a", "")), isInvalid, "entry.path"},
		"directory before":     {tree(dirEntry("a"), fileEntry("a.txt", "")), isInvalid, "entry.path"},
		"back into one":        {tree(fileEntry("a/b", ""), fileEntry("b", ""), fileEntry("a/c", "")), isInvalid, "entry.path"},
		"a file's name behind": {tree(fileEntry("a/b", ""), fileEntry("a", "")), isInvalid, "entry.path"},
	} {
		_, err := n.put(n.ctx, c.parts...)
		if c.field == "" {
			refused(t, what, err, c.reason)
		} else {
			refusedField(t, what, err, c.reason, c.field)
		}
	}
	if got := n.size(); got != size {
		t.Errorf("%d entries were recorded", got-size)
	}
	n.sound()
}

// Messages that are no messages.
func TestPutGarbage(t *testing.T) {
	n := newRawNode(t, nil)
	for what, b := range map[string][]byte{
		"cut off":       {0x0a, 0x7f, 1},
		"no field":      {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"another type":  {0x08, 1},
		"a bad header":  {0x0a, 2, 0x0a, 9},
		"not text":      {0x0a, 3, 0x0a, 1, 0xff},
		"a long header": append([]byte{0x0a, 0x81, 0x80, 0x04}, make([]byte, 65537)...),
		"a bad entry":   {0x12, 2, 0x0a, 9},
	} {
		ss, err := n.conn.NewStream(n.ctx, &scalev1.DatasetService_ServiceDesc.Streams[0], scalev1.DatasetService_Put_FullMethodName, forceRaw)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(ss.SendMsg(&b), ss.CloseSend()); err != nil {
			t.Fatal(err)
		}
		var answer []byte
		refused(t, what, ss.RecvMsg(&answer), isInvalid)
	}
}

// A put that breaks off leaves nothing that could be seen, but what it sent.
func TestPutBroken(t *testing.T) {
	n := newRawNode(t, nil)
	data := noiseBytes(3, 2<<20)
	for _, parts := range [][]*scalev1.PutRequest{
		{fileHeader("broken")},
		{fileHeader("broken"), dataPart(data[:1<<20]), dataPart(data[1<<20:])},
		{treeHeader("broken"), fileEntry("a", "x"), fileEntry("b", ""), dataPart(data[:1<<20])},
	} {
		ctx, cancel := context.WithCancel(n.ctx)
		ss, err := n.datasets.Put(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if err := ss.Send(p); err != nil {
				t.Fatal(err)
			}
		}
		n.waiting(1, waitsRecv)
		cancel()
		if _, err := ss.CloseAndRecv(); status.Code(err) != codes.Canceled {
			t.Errorf("%v", err)
		}
		n.until("the call's end", func() bool {
			n.srv.mu.Lock()
			defer n.srv.mu.Unlock()
			return len(n.srv.calls) == 0
		})
		if size := n.size(); size != 1 {
			t.Errorf("%d entries", size)
		}
	}
	list, err := n.datasets.ListDatasets(n.ctx, &scalev1.ListDatasetsRequest{})
	if err != nil || len(list.GetDatasets()) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	// What the transport dropped, the collector finds. The connection, which lives on, may
	// hold the buffer of its last frame.
	n.until("what was received is given back", func() bool {
		runtime.GC()
		return n.srv.pool.out.Load() <= 16<<10
	})
	if d := n.putFile("whole", data); d.GetSize() != uint64(len(data)) {
		t.Errorf("%v", d)
	}
	n.sound()
}
