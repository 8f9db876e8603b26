package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	"github.com/koii-network/scale/dag/ledger"
)

var cidComparer = cmp.Comparer(func(a, b cid.Cid) bool { return a == b })

func TestEntryRoundTrip(t *testing.T) {
	full := datasetEntry("full")
	full.Previous, full.Policy = 1<<62, 1<<62
	full.Size, full.Chunks, full.Leaves, full.Files = 1<<63-1, 1<<63-1, 1<<63-1, 1<<63-1
	for i := range ledger.MaxParents {
		full.Parents = append(full.Parents, testCID(cid.DagCBOR, fmt.Sprint(i)))
	}
	full.Profile = strings.Repeat("p", ledger.MaxProfile)
	full.Name = strings.Repeat("n", ledger.MaxName)
	empty := datasetEntry("empty")
	empty.Root, empty.Size, empty.Files, empty.Leaves, empty.Chunks = testCID(cid.Raw, ""), 0, 0, 1, 0
	empty.Times, empty.Time = false, time.UnixMilli(0)
	many := policyEntry(7)
	for i := range ledger.MaxCurators {
		many.Curators = append(many.Curators, sha256.Sum256([]byte{byte(i)}))
	}
	slices.SortFunc(many.Curators, ledger.CuratorKey.Compare)

	for _, e := range []*ledger.Entry{policyEntry(-1, "a"), many, datasetEntry("d"), full, empty, removalEntry("d", 1<<62, 1<<62), successor(t, "before.example", 7)} {
		block := sign(t, e, "a")
		got, err := ledger.ParseEntry(block)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got, cidComparer); diff != "" {
			t.Error(diff)
		}
		if err := got.CheckSignature(testLog(t)); err != nil {
			t.Error(err)
		}
		nb := basicnode.Prototype.Any.NewBuilder()
		if err := dagcbor.Decode(nb, bytes.NewReader(block)); err != nil {
			t.Fatal(err)
		}
		var other bytes.Buffer
		if err := dagcbor.Encode(nb.Build(), &other); err != nil || !bytes.Equal(other.Bytes(), block) {
			t.Errorf("go-ipld-prime writes %x, %v, we %x", other.Bytes(), err, block)
		}
		if block[0] < 0xa0 {
			t.Errorf("block begins with %#x: it could be taken for a leaf of another tree", block[0])
		}
	}
}

func TestEntryLimits(t *testing.T) {
	for what, edit := range map[string]func(*ledger.Entry){
		"unknown kind":           func(e *ledger.Entry) { e.Kind = 2 },
		"bad name":               func(e *ledger.Entry) { e.Name = "a/b" },
		"no profile":             func(e *ledger.Entry) { e.Profile = "" },
		"long profile":           func(e *ledger.Entry) { e.Profile = strings.Repeat("p", 65) },
		"no root":                func(e *ledger.Entry) { e.Root = cid.Undef },
		"root of version 0":      func(e *ledger.Entry) { e.Root = cid.NewCidV0(e.Root.Hash()) },
		"root of another codec":  func(e *ledger.Entry) { e.Root = testCID(cid.DagJSON, "") },
		"root of an entry":       func(e *ledger.Entry) { e.Root = testCID(cid.DagCBOR, "") },
		"large size":             func(e *ledger.Entry) { e.Size = 1 << 63 },
		"no leaves":              func(e *ledger.Entry) { e.Files, e.Leaves = 0, 0 },
		"more files than leaves": func(e *ledger.Entry) { e.Files = e.Leaves + 1 },
		"parent not an entry":    func(e *ledger.Entry) { e.Parents = []cid.Cid{e.Root} },
		"parent twice": func(e *ledger.Entry) {
			e.Parents = []cid.Cid{testCID(cid.DagCBOR, ""), testCID(cid.DagCBOR, "")}
		},
		"many parents": func(e *ledger.Entry) {
			for i := range ledger.MaxParents + 1 {
				e.Parents = append(e.Parents, testCID(cid.DagCBOR, fmt.Sprint(i)))
			}
		},
		"no policy":         func(e *ledger.Entry) { e.Policy = -1 },
		"negative policy":   func(e *ledger.Entry) { e.Policy = -2 },
		"negative previous": func(e *ledger.Entry) { e.Previous = -2 },
		"curators":          func(e *ledger.Entry) { e.Curators = []ledger.CuratorKey{curator("a")} },
		"before 1970":       func(e *ledger.Entry) { e.Time = time.UnixMilli(-1) },
		"after 9999":        func(e *ledger.Entry) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := datasetEntry("d")
		edit(e)
		_, err := e.Marshal()
		wantErr(t, what, err, ledger.ErrFormat)
		wantErr(t, what+": sign", e.Sign(testLog(t), testKey("a")), ledger.ErrFormat)
		wantErr(t, what+": check", e.CheckSignature(testLog(t)), ledger.ErrFormat)
	}
	for what, edit := range map[string]func(*ledger.Entry){
		"no curators":     func(e *ledger.Entry) { e.Curators = nil },
		"unsorted":        func(e *ledger.Entry) { slices.Reverse(e.Curators) },
		"curator twice":   func(e *ledger.Entry) { e.Curators[1] = e.Curators[0] },
		"many curators":   func(e *ledger.Entry) { e.Curators = make([]ledger.CuratorKey, 257) },
		"dataset's field": func(e *ledger.Entry) { e.Name = "a" },
		"has previous":    func(e *ledger.Entry) { e.Previous = 0 },
	} {
		e := policyEntry(-1, "a", "b")
		edit(e)
		_, err := e.Marshal()
		wantErr(t, what, err, ledger.ErrFormat)
	}
	for what, edit := range map[string]func(*ledger.Entry){
		"bad name":        func(e *ledger.Entry) { e.Name = "a/b" },
		"no previous":     func(e *ledger.Entry) { e.Previous = -1 },
		"no policy":       func(e *ledger.Entry) { e.Policy = -1 },
		"curators":        func(e *ledger.Entry) { e.Curators = []ledger.CuratorKey{curator("a")} },
		"root":            func(e *ledger.Entry) { e.Root = testCID(cid.Raw, "") },
		"size":            func(e *ledger.Entry) { e.Size = 1 },
		"parent":          func(e *ledger.Entry) { e.Parents = []cid.Cid{testCID(cid.DagCBOR, "p")} },
		"profile":         func(e *ledger.Entry) { e.Profile = "scale-1" },
		"unknown to come": func(e *ledger.Entry) { e.Kind = 3 },
	} {
		e := removalEntry("d", 1, 0)
		edit(e)
		_, err := e.Marshal()
		wantErr(t, "removal: "+what, err, ledger.ErrFormat)
	}
	wantErr(t, "short key", policyEntry(-1, "a").Sign(testLog(t), testKey("a")[:32]), ledger.ErrFormat)
	wantErr(t, "bad origin", policyEntry(-1, "a").Sign(ledger.LogID{}, testKey("a")), ledger.ErrFormat)
}

// No byte of an entry varies freely: every change is refused, or is an entry
// of another meaning that its curator did not sign.
func TestEntryEveryByte(t *testing.T) {
	t.Parallel()
	e := datasetEntry("d")
	e.Previous, e.Parents = 1, []cid.Cid{testCID(cid.DagCBOR, "p")}
	for _, block := range [][]byte{sign(t, e, "a"), sign(t, policyEntry(3, "a", "b"), "a"), sign(t, removalEntry("d", 1, 0), "a")} {
		for i := range block {
			for _, c := range []byte{block[i] ^ 1, block[i] ^ 0x80, block[i] + 1, 0, 0xff} {
				if c == block[i] {
					continue
				}
				b := bytes.Clone(block)
				b[i] = c
				got, err := ledger.ParseEntry(b)
				if err != nil {
					wantErr(t, "parse", err, ledger.ErrFormat)
					continue
				}
				wantErr(t, fmt.Sprintf("byte %d set to %#x", i, c), got.CheckSignature(testLog(t)), ledger.ErrSignature)
			}
		}
		for n := range block {
			_, err := ledger.ParseEntry(block[:n])
			wantErr(t, fmt.Sprintf("cut to %d bytes", n), err, ledger.ErrFormat)
		}
		for _, more := range []string{"\x00", "\xa0", "\xf6", string(block)} {
			_, err := ledger.ParseEntry(append(bytes.Clone(block), more...))
			wantErr(t, "appended bytes", err, ledger.ErrFormat)
		}
	}
}

func TestSignatureBindsTheLog(t *testing.T) {
	e := datasetEntry("d")
	sign(t, e, "a")
	id := testLog(t)
	for _, other := range []ledger.LogID{{id.Origin + "x", id.KeyID}, {id.Origin, id.KeyID + 1}} {
		wantErr(t, other.String(), e.CheckSignature(other), ledger.ErrSignature)
	}
	wantErr(t, "no log", e.CheckSignature(ledger.LogID{}), ledger.ErrFormat)
	e.Signature[63] |= 0xe0 // S above the order of the group
	wantErr(t, "large S", e.CheckSignature(id), ledger.ErrSignature)
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range []*ledger.Entry{policyEntry(-1, "a", "b"), datasetEntry("d"), removalEntry("d", 1, 0), successor(f, "before.example", 7)} {
		f.Add(sign(f, e, "a"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ledger.ParseEntry(b)
		if err != nil {
			wantErr(t, "parse", err, ledger.ErrFormat)
			return
		}
		again, err := e.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x parses, and is written as %x, %v", b, again, err)
		}
	})
}

func BenchmarkParseEntry(b *testing.B) {
	block := sign(b, datasetEntry("d"), "a")
	for b.Loop() {
		if _, err := ledger.ParseEntry(block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckSignature(b *testing.B) {
	e := datasetEntry("d")
	sign(b, e, "a")
	id := testLog(b)
	for b.Loop() {
		if err := e.CheckSignature(id); err != nil {
			b.Fatal(err)
		}
	}
}
