package grpcapi

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// damage changes bytes in the middle of every pack of a node that is stopped.
func (n *rawNode) damage() {
	n.t.Helper()
	packs, err := filepath.Glob(filepath.Join(n.dir, "packs", "*"))
	if err != nil || len(packs) == 0 {
		n.t.Fatal(packs, err)
	}
	for _, p := range packs {
		b, err := os.ReadFile(p)
		if err != nil {
			n.t.Fatal(err)
		}
		for i := len(b) / 4; i < len(b)/2; i++ {
			b[i] ^= 1
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
}

func TestGet(t *testing.T) {
	n := newRawNode(t, nil)
	data := noiseBytes(1, 3<<20)
	n.putFile("f", data)
	n.putParts(treeHeader("tree"), dirEntry("d"), fileEntry("d/odd\xff", "odd"), linkEntry("l", "d"))
	n.putFile("empty", nil)
	size := uint64(len(data))
	for _, c := range []struct{ from, to uint64 }{
		{0, size}, {0, 1}, {size - 1, size}, {1, size - 1}, {100_000, 100_000 + smallRead}, {100_000, 100_001 + smallRead}, {7, 7 + pieceSize}, {1 << 20, 2<<20 + 1},
	} {
		got, err := n.get(&scalev1.GetRequest{Ref: "f", Range: &scalev1.ByteRange{Start: c.from, End: &c.to}})
		if err != nil || !bytes.Equal(got, data[c.from:c.to]) {
			t.Errorf("%d to %d: %d bytes, %v", c.from, c.to, len(got), err)
		}
	}
	for what, c := range map[string]struct {
		req  *scalev1.GetRequest
		want string
	}{
		"to the end":      {&scalev1.GetRequest{Ref: "f@1", Range: &scalev1.ByteRange{Start: size - 3}}, string(data[size-3:])},
		"nothing is left": {&scalev1.GetRequest{Ref: "f", Range: &scalev1.ByteRange{Start: size}}, ""},
		"empty":           {&scalev1.GetRequest{Ref: "empty"}, ""},
		"a path":          {&scalev1.GetRequest{Ref: "tree", Path: []byte("d/odd\xff")}, "odd"},
		"two paths":       {&scalev1.GetRequest{Ref: "tree/d", Path: []byte("odd\xff")}, "odd"},
		"an index":        {&scalev1.GetRequest{Ref: ":2/d", Path: []byte("odd\xff")}, "odd"},
	} {
		if got, err := n.get(c.req); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for what, c := range map[string]struct {
		req    *scalev1.GetRequest
		reason scalev1.ErrorReason
		field  string
	}{
		"nothing":          {&scalev1.GetRequest{}, isInvalid, "ref"},
		"long":             {&scalev1.GetRequest{Ref: strings.Repeat("x", maxRef+1)}, isInvalid, "ref"},
		"long path":        {&scalev1.GetRequest{Ref: "tree", Path: make([]byte, mostPath+1)}, isInvalid, "path"},
		"bad":              {&scalev1.GetRequest{Ref: "no such name!"}, isInvalid, ""},
		"bad index":        {&scalev1.GetRequest{Ref: ":01"}, isInvalid, ""},
		"no name":          {&scalev1.GetRequest{Ref: "none"}, isNotFound, ""},
		"no version":       {&scalev1.GetRequest{Ref: "f@2"}, isNotFound, ""},
		"no entry":         {&scalev1.GetRequest{Ref: ":99"}, isNotFound, ""},
		"no dataset":       {&scalev1.GetRequest{Ref: ":0"}, isInvalid, ""},
		"no path":          {&scalev1.GetRequest{Ref: "tree/none"}, isNotFound, ""},
		"below a file":     {&scalev1.GetRequest{Ref: "f/x"}, isNotFound, ""},
		"up":               {&scalev1.GetRequest{Ref: "tree", Path: []byte("d/../l")}, isInvalid, ""},
		"a directory":      {&scalev1.GetRequest{Ref: "tree"}, isInvalid, "ref"},
		"a link":           {&scalev1.GetRequest{Ref: "tree/l"}, isInvalid, "ref"},
		"from beyond":      {&scalev1.GetRequest{Ref: "f", Range: &scalev1.ByteRange{Start: size + 1}}, isInvalid, "range.start"},
		"to beyond":        {&scalev1.GetRequest{Ref: "f", Range: &scalev1.ByteRange{End: ptr(size + 1)}}, isInvalid, "range.end"},
		"to below from":    {&scalev1.GetRequest{Ref: "f", Range: &scalev1.ByteRange{Start: 5, End: ptr(uint64(4))}}, isInvalid, "range.end"},
		"to equal to from": {&scalev1.GetRequest{Ref: "f", Range: &scalev1.ByteRange{Start: 5, End: ptr(uint64(5))}}, isInvalid, "range.end"},
	} {
		_, err := n.get(c.req)
		if c.field == "" {
			refused(t, what, err, c.reason)
		} else {
			refusedField(t, what, err, c.reason, c.field)
		}
	}
	_, err := n.get(&scalev1.GetRequest{Ref: "f", Range: &scalev1.ByteRange{End: ptr(size + 1)}})
	refused(t, "beyond", err, isInvalid, fmt.Sprint(size))
}

// Bytes that are damaged are not given out, and the error says nothing of the node's disk.
func TestGetDamaged(t *testing.T) {
	n := newRawNode(t, nil)
	n.putFile("f", noiseBytes(1, 3<<20))
	n.putFile("small", noiseBytes(2, 100_000))
	n.stop()
	n.damage()
	n.start()
	got, err := n.get(&scalev1.GetRequest{Ref: "f"})
	st := refused(t, "get", err, isCorrupt)
	if strings.Contains(st.String(), n.dir) {
		t.Errorf("it says where the store is: %v", st)
	}
	if !bytes.HasPrefix(noiseBytes(1, 3<<20), got) {
		t.Error("other bytes were sent")
	}
	_, err = receive(n.datasets.GetTree(n.ctx, &scalev1.GetTreeRequest{Ref: "f"}))
	refused(t, "get tree", err, isCorrupt)
	_, err = receive(n.datasets.ExportCar(n.ctx, &scalev1.ExportCarRequest{Ref: "f"}))
	refused(t, "export", err, isCorrupt)
	_, err = receive(n.audits.Challenge(n.ctx, &scalev1.ChallengeRequest{Ref: "f", Seed: make([]byte, 16), Count: 100}))
	refused(t, "challenge", err, isCorrupt)
	_, err = receive(n.proofs.Prove(n.ctx, &scalev1.ProveRequest{Ref: "f", WithData: true}))
	refused(t, "prove with data", err, isCorrupt)
	sum, findings := n.check(true)
	if sum.GetErrors() == 0 || len(findings) == 0 || findings[0].GetWhat() == "" || findings[0].GetDo() == "" {
		t.Errorf("check: %v, %v", sum, findings)
	}
}

// GetTree goes on behind any entry that it gave.
func TestGetTreeAfter(t *testing.T) {
	n := newRawNode(t, nil)
	parts := []*scalev1.PutRequest{treeHeader("tree"), dirEntry("a"), fileEntry("a/1", "one"), fileEntry("a/2", "two"), fileEntry("b", string(noiseBytes(1, 500_000))), linkEntry("c", "b")}
	n.putParts(parts...)
	all, data := n.tree(&scalev1.GetTreeRequest{Ref: "tree"})
	for i, e := range all[1:] {
		rest, restData := n.tree(&scalev1.GetTreeRequest{Ref: "tree", After: e.GetPath()})
		if len(rest) != len(all)-i-2 {
			t.Errorf("%d entries behind %q, want %d", len(rest), e.GetPath(), len(all)-i-2)
		}
		for _, r := range rest {
			if restData[string(r.GetPath())] != data[string(r.GetPath())] {
				t.Errorf("%q differs", r.GetPath())
			}
		}
	}
	below, _ := n.tree(&scalev1.GetTreeRequest{Ref: "tree", Path: []byte("a"), After: []byte("1")})
	if len(below) != 1 || string(below[0].GetPath()) != "2" {
		t.Errorf("%v", below)
	}
	one, oneData := n.tree(&scalev1.GetTreeRequest{Ref: "tree/b"})
	if len(one) != 1 || len(one[0].GetPath()) != 0 || oneData[""] != data["b"] {
		t.Errorf("a file: %v", one)
	}
	_, err := receive(n.datasets.GetTree(n.ctx, &scalev1.GetTreeRequest{Ref: "none"}))
	refused(t, "none", err, isNotFound)
	_, err = receive(n.datasets.GetTree(n.ctx, &scalev1.GetTreeRequest{Ref: "tree", After: []byte("../x")}))
	refused(t, "after no path", err, isNotFound)
}

func TestStatAndResolve(t *testing.T) {
	n := newRawNode(t, nil)
	d := n.putParts(treeHeader("tree"), fileEntry("d/f", "12345"), linkEntry("l", "d"))
	for ref, want := range map[string]string{"tree": "", "tree@1/d": "d", d.GetCid() + "/d/f": "d/f", ":1/l": "l"} {
		stat, err := n.datasets.Stat(n.ctx, &scalev1.StatRequest{Ref: ref})
		if err != nil || string(stat.GetEntry().GetPath()) != want || stat.GetDataset().GetCid() != d.GetCid() {
			t.Errorf("%s: %v, %v", ref, stat, err)
		}
		r, err := n.datasets.Resolve(n.ctx, &scalev1.ResolveRequest{Ref: ref})
		if err != nil || string(r.GetPath()) != want || r.GetEntry() != 1 || r.GetName() != "tree" || r.GetVersion() != 1 || r.GetCid() != stat.GetEntry().GetCid() {
			t.Errorf("%s: %v, %v", ref, r, err)
		}
	}
	f, err := n.datasets.Stat(n.ctx, &scalev1.StatRequest{Ref: "tree", Path: []byte("d/f")})
	if err != nil || f.GetEntry().GetSize() != 5 || f.GetEntry().GetMode() != 0o644 || f.GetEntry().GetKind() != scalev1.Kind_KIND_FILE || f.GetEntry().GetMtime() != nil {
		t.Errorf("%v, %v", f, err)
	}
	_, err = n.datasets.Stat(n.ctx, &scalev1.StatRequest{})
	refusedField(t, "stat", err, isInvalid, "ref")
	_, err = n.datasets.Resolve(n.ctx, &scalev1.ResolveRequest{Ref: "tree/x"})
	refused(t, "resolve", err, isNotFound)
}

func TestLists(t *testing.T) {
	n := newRawNode(t, nil)
	var names []string
	for i := range 25 {
		names = append(names, fmt.Sprintf("n%02d", i))
		n.putFile(names[i], []byte{byte(i)})
	}
	n.putFile("n03", []byte("second"))
	if _, err := n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: "n04"}); err != nil {
		t.Fatal(err)
	}
	names = slices.Delete(names, 4, 5)
	for _, size := range []uint32{0, 1, 7, 24, 25, 5000} {
		var got []string
		token := ""
		for {
			page, err := n.datasets.ListDatasets(n.ctx, &scalev1.ListDatasetsRequest{PageSize: size, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if size > 0 && len(page.GetDatasets()) > int(size) || len(page.GetDatasets()) == 0 {
				t.Errorf("a page of %d, asked for %d", len(page.GetDatasets()), size)
			}
			for _, d := range page.GetDatasets() {
				got = append(got, d.GetName())
				if d.GetName() == "n03" && d.GetVersion() != 2 {
					t.Errorf("%v", d)
				}
			}
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("pages of %d: %v", size, got)
		}
	}
	// Versions, a removal among them.
	n.putFile("n04", []byte("again"))
	token, got := "", ""
	for {
		page, err := n.datasets.ListVersions(n.ctx, &scalev1.ListVersionsRequest{Name: "n04", PageSize: 1, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.GetVersions() {
			if r := v.GetRemoval(); r != nil {
				got += fmt.Sprintf("-%d:%d ", r.GetVersion(), r.GetEntry())
			} else {
				got += fmt.Sprintf("+%d:%d ", v.GetDataset().GetVersion(), v.GetDataset().GetEntry())
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if got != "+1:5 -2:27 +3:28 " {
		t.Errorf("versions %s", got)
	}
	_, err := n.datasets.ListVersions(n.ctx, &scalev1.ListVersionsRequest{Name: "none"})
	refused(t, "no name", err, isNotFound)
	_, err = n.datasets.ListVersions(n.ctx, &scalev1.ListVersionsRequest{Name: "?"})
	refusedField(t, "bad name", err, isInvalid, "name")

	// Tokens go with their request.
	page, err := n.datasets.ListDatasets(n.ctx, &scalev1.ListDatasetsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"garbage": "!", "another listing": page.GetNextPageToken(), "long": strings.Repeat("A", maxPageToken+1), "empty": "AQ",
		"after a version that cannot be": formatPage(&versionsToken{name: "n04", after: 1 << 31}),
	} {
		_, err := n.datasets.ListVersions(n.ctx, &scalev1.ListVersionsRequest{Name: "n04", PageToken: token})
		refusedField(t, what, err, isInvalid, "page_token")
		_, err = n.datasets.ListTree(n.ctx, &scalev1.ListTreeRequest{Ref: "n04", PageToken: token})
		refusedField(t, what, err, isInvalid, "page_token")
		if what != "another listing" {
			_, err = n.datasets.ListDatasets(n.ctx, &scalev1.ListDatasetsRequest{PageToken: token})
			refusedField(t, what, err, isInvalid, "page_token")
		}
	}
	versions, err := n.datasets.ListVersions(n.ctx, &scalev1.ListVersionsRequest{Name: "n04", PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.datasets.ListVersions(n.ctx, &scalev1.ListVersionsRequest{Name: "n03", PageToken: versions.GetNextPageToken()})
	refusedField(t, "another name", err, isInvalid, "page_token")
}

// A listing goes on in the version that it began in, and an answer fits into a message.
func TestListTree(t *testing.T) {
	n := newRawNode(t, limited(Limits{MessageBytes: 128 << 10}))
	parts := []*scalev1.PutRequest{treeHeader("tree")}
	for i := range 300 {
		parts = append(parts, fileEntry(fmt.Sprintf("%s/%03d", strings.Repeat("d", 250), i), ""))
	}
	n.putParts(append(parts, fileEntry("last", "x"))...)
	var got []string
	token, pages := "", 0
	for {
		page, err := n.datasets.ListTree(n.ctx, &scalev1.ListTreeRequest{Ref: "tree", PageSize: 9999, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEntries() {
			got = append(got, string(e.GetPath()))
		}
		if pages++; pages == 1 {
			n.putParts(treeHeader("tree"), fileEntry("another", ""))
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(got) != 303 || pages < 2 || got[0] != "" || got[302] != "last" || !slices.IsSorted(got) {
		t.Errorf("%d entries on %d pages", len(got), pages)
	}
	page, err := n.datasets.ListTree(n.ctx, &scalev1.ListTreeRequest{Ref: "tree@1/last"})
	if err != nil || len(page.GetEntries()) != 1 || page.GetEntries()[0].GetSize() != 1 || page.GetNextPageToken() != "" {
		t.Errorf("a file: %v, %v", page, err)
	}
	page, err = n.datasets.ListTree(n.ctx, &scalev1.ListTreeRequest{Ref: "tree@1", PageSize: 2})
	if err != nil || len(page.GetEntries()) != 2 {
		t.Fatalf("%v, %v", page, err)
	}
	_, err = n.datasets.ListTree(n.ctx, &scalev1.ListTreeRequest{Ref: "tree@2", PageToken: page.GetNextPageToken()})
	refusedField(t, "another ref", err, isInvalid, "page_token")
	_, err = n.datasets.ListTree(n.ctx, &scalev1.ListTreeRequest{Ref: "none"})
	refused(t, "none", err, isNotFound)
}

func TestRemove(t *testing.T) {
	n := newRawNode(t, nil)
	d := n.putFile("x", []byte("x"))
	resp, err := n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: "x"})
	if err != nil || resp.GetRemoval().GetName() != "x" || resp.GetRemoval().GetVersion() != 2 || resp.GetRemoval().GetEntry() != 2 || resp.GetCheckpoint().GetSize() != 3 {
		t.Fatalf("%v, %v", resp, err)
	}
	for ref, reason := range map[string]scalev1.ErrorReason{"x": isNotFound, "x@2": isNotFound, "x@1": 0, "x@-1": 0, ":1": 0, d.GetCid(): 0} {
		if _, err := n.get(&scalev1.GetRequest{Ref: ref}); reason != 0 {
			refused(t, ref, err, reason)
		} else if err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for name, reason := range map[string]scalev1.ErrorReason{"x": isNotFound, "none": isNotFound, "": isInvalid, "a/b": isInvalid} {
		_, err := n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: name})
		refused(t, name, err, reason)
	}
	_, err = n.datasets.Remove(n.ctx, &scalev1.RemoveRequest{Name: "x", SignedEntry: []byte("x")})
	refusedField(t, "signed", err, isInvalid, "signed_entry")
	if d := n.putFile("x", []byte("y")); d.GetVersion() != 3 {
		t.Errorf("%v", d)
	}
}

// What is exported over the wire is what the store exports.
func TestExports(t *testing.T) {
	n := newRawNode(t, limited(Limits{PieceBytes: 1 << 10}))
	n.putParts(treeHeader("tree"), fileEntry("a", string(noiseBytes(1, 1000))), fileEntry("b", string(noiseBytes(1, 900))), linkEntry("l", "a"))
	for i := range 20 {
		n.putFile(fmt.Sprint("f", i), []byte{byte(i)})
	}
	for _, ref := range []string{"tree", "tree/a"} {
		o, err := n.store.Resolve(n.ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := n.store.ExportCAR(n.ctx, o, &want); err != nil {
			t.Fatal(err)
		}
		messages, err := receive(n.datasets.ExportCar(n.ctx, &scalev1.ExportCarRequest{Ref: ref}))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, m := range messages {
			got = append(got, m.GetData()...)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s: %d bytes, want %d", ref, len(got), want.Len())
		}
	}
	_, err := receive(n.datasets.ExportCar(n.ctx, &scalev1.ExportCarRequest{Ref: "none"}))
	refused(t, "none", err, isNotFound)

	dir := filepath.Join(t.TempDir(), "log")
	if err := n.store.ExportLog(n.ctx, dir); err != nil {
		t.Fatal(err)
	}
	messages, err := receive(n.ledger.ExportLog(n.ctx, &scalev1.ExportLogRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	files, last, largest := map[string][]byte{}, "", 0
	for _, m := range messages {
		if m.GetPath() != "" {
			last = m.GetPath()
		}
		files[last] = append(files[last], m.GetData()...)
		largest = max(largest, len(m.GetData()))
	}
	if last != "checkpoint" || largest != 1<<10 {
		t.Errorf("%s comes last, the largest piece has %d bytes", last, largest)
	}
	for path, b := range files {
		want, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes, want %d, %v", path, len(b), len(want), err)
		}
	}
	exported := 0
	filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			exported++
		}
		return err
	})
	if exported != len(files) || exported < 3 {
		t.Errorf("%d files, want %d", len(files), exported)
	}
}
