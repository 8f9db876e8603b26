package ledger_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

// vectors is the content of testdata/vectors.json: see SPEC.md.
type vectors struct {
	Log struct {
		Origin string `json:"origin"`
		KeyID  string `json:"key_id"`
		VKey   string `json:"vkey"`
	} `json:"log"`
	Entries     []entryVector     `json:"entries"`
	Refused     []refusedVector   `json:"entries_refused"`
	Admission   []admissionVector `json:"admission"`
	Roots       map[int64]string  `json:"roots"`
	Inclusion   []proofVector     `json:"inclusion"`
	Consistency []proofVector     `json:"consistency"`
	Tiles       []tileVector      `json:"tiles"`
	Bundle      bundleVector      `json:"bundle"`
	Checkpoints []noteVector      `json:"checkpoints"`
	Names       map[string]bool   `json:"names"`
	Origins     map[string]bool   `json:"origins"`
	CuratorKeys map[string]string `json:"curator_keys"`
	PublicKeys  []keyVector       `json:"public_keys"`
}

type entryVector struct {
	Name     string `json:"name"`
	Block    string `json:"block"`
	CID      string `json:"cid"`
	LeafHash string `json:"leaf_hash"`
	Signed   string `json:"signed_bytes"`
}

type refusedVector struct {
	Name  string `json:"name"`
	Class string `json:"class"`
	Block string `json:"block"`
}

type admissionVector struct {
	Name   string `json:"name"`
	Block  string `json:"block"`
	Result string `json:"result"`
}

type proofVector struct {
	Name string   `json:"name"`
	OK   bool     `json:"ok"`
	From int64    `json:"from"` // index, or the smaller size
	Size int64    `json:"size"`
	Old  string   `json:"old"` // leaf hash, or the smaller root
	Root string   `json:"root"`
	Path []string `json:"path"`
}

type tileVector struct {
	Size   int64  `json:"size"`
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

type bundleVector struct {
	Blocks []string `json:"blocks"`
	Bundle string   `json:"bundle"`
}

type noteVector struct {
	Name  string `json:"name"`
	Class string `json:"class"`
	Text  string `json:"text"`
}

type keyVector struct {
	Name  string `json:"name"`
	Class string `json:"class"`
	Key   string `json:"key"`
}

func hexOf[B ~[]byte](b B) string { return hex.EncodeToString(b) }
func hashHex(h tlog.Hash) string  { return hexOf(h[:]) }
func hashesHex(h []tlog.Hash) []string {
	list := make([]string, len(h))
	for i := range h {
		list[i] = hashHex(h[i])
	}
	return list
}

// vectorEntries returns the entries of the vectors and who signs them.
func vectorEntries(t testing.TB) (names []string, entries []*ledger.Entry) {
	add := func(name string, e *ledger.Entry) { names, entries = append(names, name), append(entries, e) }
	add("genesis policy of two curators", policyEntry(-1, "a", "b"))
	add("first version", datasetEntry("d"))
	next := datasetEntry("d")
	next.Previous, next.Times = 1, false
	next.Parents = []cid.Cid{testCID(cid.DagCBOR, "p"), testCID(cid.DagCBOR, "q")}
	add("second version with two parents", next)
	small := datasetEntry("empty-file")
	small.Root, small.Size, small.Files, small.Leaves, small.Chunks = testCID(cid.Raw, ""), 0, 1, 1, 0
	add("empty file", small)
	add("later policy", policyEntry(0, "c"))
	add("removal", removalEntry("d", 2, 0))
	add("later policy of two", policyEntry(4, "b", "c"))
	add("genesis policy that follows another log", successor(t, "before.example", 12345))
	old := policyEntry(0, "a")
	old.Curators = append([]ledger.CuratorKey{{}}, append(old.Curators, noPoint)...)
	add("later policy that names what is no key", old)
	return names, entries
}

// noPoint sorts behind all keys.
var noPoint = ledger.CuratorKey(bytes.Repeat([]byte{0xff}, 32))

// forgedEntry returns an entry whose signature nobody had to make: R is the neutral point and
// S is 0, under the neutral point as the key.
func forgedEntry(t testing.TB, e *ledger.Entry) []byte {
	e.Curator = ledger.CuratorKey{1}
	e.Signature = [64]byte{1}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bundled is how many of the entries are in the vector of a bundle.
const bundled = 5

// refusedEntries returns blocks made from a sound one. The signature is of no
// account where the class is format.
func refusedEntries(t testing.TB) (list []refusedVector) {
	add := func(name, class string, block []byte) {
		list = append(list, refusedVector{name, class, hexOf(block)})
	}
	good := sign(t, datasetEntry("d"), "a")
	edit := func(from, to string) []byte {
		if bytes.Count(good, []byte(from)) != 1 {
			t.Fatalf("%q is not in the block once", from)
		}
		return bytes.Replace(good, []byte(from), []byte(to), 1)
	}
	keys := func(b []byte, more int) []byte { b[0] = byte(int(b[0]) + more); return b }
	add("empty", "format", nil)
	add("integer not in its shortest form", "format", edit("\x64kind\x01", "\x64kind\x18\x01"))
	add("keys out of order", "format", edit("\x65files\x02\x65times\xf5", "\x65times\xf5\x65files\x02"))
	add("unknown key", "format", keys(append(bytes.Clone(good), "\x6bzzzzzzzzzzz\x00"...), 1))
	add("key twice", "format", keys(edit("\x64kind\x01", "\x64kind\x01\x64kind\x01"), 1))
	add("key missing", "format", keys(edit("\x65times\xf5", ""), -1))
	add("policy missing", "format", keys(edit("\x66policy\x00", ""), -1))
	add("null instead of no key", "format", keys(edit("\x69signature", "\x68previous\xf6\x69signature"), 1))
	add("key of another kind", "format", keys(edit("\x69signature", "\x68curators\x80\x69signature"), 1))
	add("map of indefinite length", "format", append(append([]byte{0xbf}, good[1:]...), 0xff))
	add("byte too many", "format", append(bytes.Clone(good), 0))
	add("cut short", "format", good[:len(good)-1])
	add("not a map", "format", []byte{0x80})
	add("another version", "format", edit("\x67version\x01", "\x67version\x02"))
	add("unknown kind", "format", edit("\x64kind\x01", "\x64kind\x02"))
	add("negative time", "format", edit("\x64time\x1b", "\x64time\x3b"))
	add("integer as text", "format", edit("\x65files\x02", "\x65files\x612"))
	add("name with a slash", "format", edit("\x64name\x61d", "\x64name\x61/"))
	add("empty name", "format", edit("\x64name\x61d", "\x64name\x60"))
	add("name is a CID", "format", edit("\x64name\x61d", "\x64name\x78\x3b"+testCID(cid.Raw, "x").String()))
	add("more files than leaves", "format", edit("\x65files\x02", "\x65files\x04"))
	add("link with another tag", "format", edit("\x64root\xd8\x2a", "\x64root\xd8\x2b"))
	add("link without its zero byte", "format", edit("\x64root\xd8\x2a\x58\x25\x00\x01", "\x64root\xd8\x2a\x58\x25\x01\x01"))
	add("root in another codec", "format", edit("\x58\x25\x00\x01\x70", "\x58\x25\x00\x01\x71"))
	add("parent that is no entry", "format", edit("\x67parents\x80", "\x67parents\x81\xd8\x2a\x58\x25\x00\x01\x55\x12\x20"+strings.Repeat("x", 32)))
	add("short commitment", "format", bytes.Replace(good[:len(good)-1], []byte("\x6acommitment\x58\x20"), []byte("\x6acommitment\x58\x1f"), 1))
	add("above 16 KiB", "format", append(bytes.Clone(good), make([]byte, ledger.MaxEntry)...))

	policy := sign(t, policyEntry(-1, "a", "b"), "a")
	at := bytes.Index(policy, []byte("\x68curators\x82")) + 10
	swapped := slices.Concat(policy[:at], policy[at+34:at+68], policy[at:at+34], policy[at+68:])
	add("curators not sorted", "format", swapped)
	add("curator twice", "format", slices.Concat(policy[:at], policy[at:at+34], policy[at:at+34], policy[at+68:]))

	add("changed after signing", "signature", edit("\x65files\x02", "\x65files\x01"))
	signedFor := func(id ledger.LogID) []byte {
		e := datasetEntry("d")
		if err := e.Sign(id, testKey("a")); err != nil {
			t.Fatal(err)
		}
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	add("signed for another key of the log", "signature", signedFor(ledger.LogID{Origin: testOrigin, KeyID: testLog(t).KeyID ^ 1}))
	add("signed for another log", "signature", signedFor(ledger.LogID{Origin: "other.example", KeyID: testLog(t).KeyID}))
	e := datasetEntry("d")
	sign(t, e, "b")
	e.Curator = curator("a")
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	add("signed by another curator", "signature", b)
	// S plus the order of the group passes a verifier that does not check its range.
	sign(t, e, "a")
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	le := bytes.Clone(e.Signature[32:])
	slices.Reverse(le)
	le = order.Add(order, new(big.Int).SetBytes(le)).FillBytes(make([]byte, 32))
	slices.Reverse(le)
	copy(e.Signature[32:], le)
	if b, err = e.Marshal(); err != nil {
		t.Fatal(err)
	}
	add("S of the signature not reduced", "signature", b)

	removal := sign(t, removalEntry("d", 2, 0), "a")
	change := func(from, to string) []byte {
		if bytes.Count(removal, []byte(from)) != 1 {
			t.Fatalf("%q is not in the removal once", from)
		}
		return bytes.Replace(removal, []byte(from), []byte(to), 1)
	}
	add("removal without previous", "format", keys(change("\x68previous\x02", ""), -1))
	add("removal without policy", "format", keys(change("\x66policy\x00", ""), -1))
	add("removal without a name", "format", keys(change("\x64name\x61d", ""), -1))
	add("removal with parents", "format", keys(change("\x67version", "\x67parents\x80\x67version"), 1))
	add("removal with curators", "format", keys(change("\x68previous", "\x68curators\x80\x68previous"), 1))
	add("removal with a CID as its name", "format", change("\x64name\x61d", "\x64name\x78\x3b"+testCID(cid.Raw, "x").String()))
	add("kind to come", "format", change("\x64kind\x02", "\x64kind\x03"))
	add("removal of another name than was signed", "signature", change("\x64name\x61d", "\x64name\x61e"))
	add("removal of another version than was signed", "signature", change("\x68previous\x02", "\x68previous\x03"))
	add("policy without curators", "format", slices.Concat(policy[:at-1], []byte{0x80}, policy[at+68:]))
	later := sign(t, policyEntry(4, "b", "c"), "a")
	add("policy under another one than was signed", "signature", bytes.Replace(later, []byte("\x66policy\x04"), []byte("\x66policy\x03"), 1))
	add("signed under a key of small order", "signature", forgedEntry(t, datasetEntry("d")))
	return append(list, refusedPredecessors(t)...)
}

// admissionSteps offers entries to one log, one after the other.
func admissionSteps(t testing.TB) (list []admissionVector) {
	s := &memState{t: t}
	results := map[error]string{
		ledger.ErrConflict: "conflict", ledger.ErrNotAdmitted: "not admitted", ledger.ErrDuplicate: "duplicate",
		ledger.ErrUnknownParent: "unknown parent", ledger.ErrSignature: "signature",
		ledger.ErrFormat: "format",
	}
	offerBlock := func(name string, block []byte) []byte {
		result := "admitted"
		if _, err := ledger.Admit(context.Background(), s, testLog(t), block); err == nil {
			s.blocks = append(s.blocks, block)
		} else {
			for target, r := range results {
				if errors.Is(err, target) {
					result = r
				}
			}
		}
		list = append(list, admissionVector{name, hexOf(block), result})
		return block
	}
	offer := func(name string, e *ledger.Entry, by string) []byte { return offerBlock(name, sign(t, e, by)) }
	version := func(previous, policy int64, parents ...cid.Cid) *ledger.Entry {
		e := datasetEntry("d")
		e.Previous, e.Policy, e.Parents = previous, policy, parents
		return e
	}
	offer("dataset before any policy", version(-1, 0), "a")
	offer("policy by one whom it does not name", policyEntry(-1, "a", "b"), "c")
	offer("genesis that follows its own log", successor(t, testOrigin, 3), "a")
	offer("genesis", policyEntry(-1, "a", "b"), "a")
	offer("genesis again", policyEntry(-1, "a", "b"), "a")
	offer("second genesis", policyEntry(-1, "a"), "a")
	first := offer("first version", version(-1, 0), "b")
	offer("first version again", version(-1, 0), "b")
	offer("first version by another curator", version(-1, 0), "a")
	offer("curator not named", version(1, 0), "c")
	offer("parent unknown", version(1, 0, testCID(cid.DagCBOR, "nowhere")), "a")
	offer("second version", version(1, 0, ledger.EntryCID(first)), "a")
	offer("policy by one not admitted", policyEntry(0, "c"), "c")
	offer("new policy", policyEntry(0, "c"), "b")
	offer("stale policy", version(2, 0), "c")
	offer("no longer admitted", version(2, 3), "a")
	offer("third version", version(2, 3), "c")
	offer("removal of an older version", removalEntry("d", 2, 3), "c")
	offer("removal by one not admitted", removalEntry("d", 4, 3), "a")
	offer("removal of a name that is not there", removalEntry("e", 4, 3), "c")
	offer("removal", removalEntry("d", 4, 3), "c")
	offer("removal again", removalEntry("d", 4, 3), "c")
	offer("removal of what is removed", removalEntry("d", 5, 3), "c")
	offer("version that skips the removal", version(4, 3), "c")
	offer("version after the removal", version(5, 3), "c")
	offer("policy of two", policyEntry(3, "b", "c"), "c")
	offer("policy by one whom only it admits", policyEntry(7, "b"), "a")
	offer("policy under the one before the newest", policyEntry(3, "b"), "c")
	offer("policy of one", policyEntry(7, "b"), "c")
	offer("version under the old policy by one who stays", version(6, 7), "b")
	offer("version by one who is gone", version(6, 8), "c")
	offer("version by one who stays", version(6, 8), "b")
	old := policyEntry(8, "b")
	old.Curators = append([]ledger.CuratorKey{{1}}, old.Curators...)
	offer("policy that names a key of small order", old, "b")
	offerBlock("version signed under it", forgedEntry(t, version(9, 10)))
	offer("version by the one beside it", version(9, 10), "b")
	return list
}

func buildVectors(t testing.TB) *vectors {
	ctx := context.Background()
	v := &vectors{Roots: map[int64]string{}, Names: map[string]bool{}, Origins: map[string]bool{}, CuratorKeys: map[string]string{}}
	id := testLog(t)
	v.Log.Origin, v.Log.KeyID = id.Origin, fmt.Sprintf("%08x", id.KeyID)
	v.Log.VKey = logVKey(t, testOrigin, "log")

	names, entries := vectorEntries(t)
	var bundle []byte
	for i, e := range entries {
		block := sign(t, e, "a")
		leaf := ledger.LeafHash(block)
		// The body that is signed: as many keys less, without the signature.
		body := bytes.Replace(block, append([]byte("\x69signature\x58\x40"), e.Signature[:]...), nil, 1)
		body[0]--
		signed := append(fmt.Appendf(nil, "scale-entry/v1\n%s\n%08x\n", id.Origin, id.KeyID), body...)
		v.Entries = append(v.Entries, entryVector{names[i], hexOf(block), ledger.EntryCID(block).String(), hashHex(leaf), hexOf(signed)})
		if i >= bundled {
			continue
		}
		var err error
		if bundle, err = ledger.AppendBundle(bundle, block); err != nil {
			t.Fatal(err)
		}
		v.Bundle.Blocks = append(v.Bundle.Blocks, hexOf(block))
	}
	v.Bundle.Bundle = hexOf(bundle)
	v.Refused = refusedEntries(t)
	v.Admission = admissionSteps(t)

	m, _ := buildTree(t, 600)
	roots := map[int64]tlog.Hash{}
	for _, size := range []int64{0, 1, 2, 3, 4, 5, 7, 8, 13, 255, 256, 257, 600} {
		root, err := ledger.Root(ctx, m, size)
		if err != nil {
			t.Fatal(err)
		}
		roots[size], v.Roots[size] = root, hashHex(root)
	}
	for _, c := range [][2]int64{{0, 1}, {0, 2}, {2, 3}, {4, 5}, {6, 7}, {6, 13}, {255, 256}, {256, 257}, {599, 600}} {
		p, err := ledger.ProveInclusion(ctx, m, c[1], c[0])
		if err != nil {
			t.Fatal(err)
		}
		leaf := leafHash(c[0])
		add := func(name string, index int64, leaf tlog.Hash, p []tlog.Hash) {
			ok := ledger.CheckInclusion(p, c[1], roots[c[1]], index, leaf) == nil
			v.Inclusion = append(v.Inclusion, proofVector{name, ok, index, c[1], hashHex(leaf), v.Roots[c[1]], hashesHex(p)})
		}
		add("sound", c[0], leaf, p)
		add("another leaf", c[0], leafHash(c[0]+1), p)
		add("index beyond the tree", c[1], leaf, p)
		add("hash too many", c[0], leaf, append(slices.Clone(p), tlog.Hash{}))
		if len(p) > 0 {
			add("hash too few", c[0], leaf, p[1:])
			p[0][5] ^= 1
			add("hash changed", c[0], leaf, p)
		}
	}
	for _, c := range [][2]int64{{0, 0}, {0, 5}, {1, 1}, {1, 2}, {2, 3}, {3, 7}, {4, 8}, {5, 13}, {8, 13}, {255, 256}, {256, 600}, {257, 600}} {
		p, err := ledger.ProveConsistency(ctx, m, c[0], c[1])
		if err != nil {
			t.Fatal(err)
		}
		add := func(name string, old tlog.Hash, p []tlog.Hash) {
			ok := ledger.CheckConsistency(p, c[0], old, c[1], roots[c[1]]) == nil
			v.Consistency = append(v.Consistency, proofVector{name, ok, c[0], c[1], hashHex(old), v.Roots[c[1]], hashesHex(p)})
		}
		add("sound", roots[c[0]], p)
		add("another old root", leafHash(-1), p)
		add("hash too many", roots[c[0]], append(slices.Clone(p), tlog.Hash{}))
		if len(p) > 0 {
			add("hash too few", roots[c[0]], p[1:])
			p[len(p)-1][5] ^= 1
			add("hash changed", roots[c[0]], p)
		}
	}
	for _, tile := range tlog.NewTiles(ledger.TileHeight, 0, 600) {
		data, err := m.ReadTile(ctx, tile.L, tile.N, tile.W)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		v.Tiles = append(v.Tiles, tileVector{600, ledger.TilePath(tile.L, tile.N, tile.W), hexOf(sum[:])})
	}

	_, checkpoint, verifier := testCheckpoint(t)
	v.Checkpoints = []noteVector{{"sound", "ok", string(checkpoint)}}
	texts := badCheckpoints(t)
	delete(texts, "too large")
	other, _ := logKey(t, testOrigin, "log 2")
	foreign, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: testOrigin, Size: 12345}, other)
	if err != nil {
		t.Fatal(err)
	}
	texts["signed by another key"] = foreign
	texts["changed after signing"] = bytes.Replace(checkpoint, []byte("12345"), []byte("12346"), 1)
	var bad []noteVector
	for name, text := range texts {
		class := "format"
		if _, err := ledger.OpenCheckpoint(text, verifier); errors.Is(err, ledger.ErrSignature) {
			class = "signature"
		} else if !errors.Is(err, ledger.ErrFormat) {
			t.Fatalf("%s: %v", name, err)
		}
		bad = append(bad, noteVector{name, class, string(text)})
	}
	slices.SortFunc(bad, func(a, b noteVector) int { return strings.Compare(a.Name, b.Name) })
	v.Checkpoints = append(v.Checkpoints, bad...)

	for _, s := range []string{"a", "go-1.26.8", "A_b.C", ".", "..", strings.Repeat("x", 128), strings.Repeat("x", 129), "", "a/b", "a b", "a@1", ":1", "é", testCID(cid.Raw, "x").String()} {
		v.Names[s] = ledger.CheckName(s) == nil
	}
	for _, s := range []string{"a", testOrigin, "журнал", strings.Repeat("x", 100), strings.Repeat("x", 101), "", "a b", "a\u00a0b", "a+b", "a\nb", "a\u0001b"} {
		v.Origins[s] = ledger.CheckOrigin(s) == nil
	}
	for _, k := range []ledger.CuratorKey{{}, {31: 1}, curator("a"), curator("b")} {
		v.CuratorKeys[hexOf(k[:])] = k.String()
	}
	for _, k := range publicKeys {
		class := "ok"
		if err := ledger.CheckCuratorKey(ledger.CuratorKey(unhex(t, k[1]))); errors.Is(err, ledger.ErrFormat) {
			class = "format"
		} else if err != nil {
			t.Fatal(err)
		}
		v.PublicKeys = append(v.PublicKeys, keyVector{k[0], class, k[1]})
	}
	return v
}

// publicKeys are those of the vectors, with what they are.
var publicKeys = [][2]string{
	{"of a private key", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"}, // both of RFC 8032, 7.1
	{"of another private key", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"},
	{"order 1", "0100000000000000000000000000000000000000000000000000000000000000"},
	{"order 1, with a sign", "0100000000000000000000000000000000000000000000000000000000000080"},
	{"order 1, y is p + 1", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	{"order 1, y is p + 1, with a sign", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	{"order 2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	{"order 2, with a sign", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	{"order 4", "0000000000000000000000000000000000000000000000000000000000000000"},
	{"order 4, negative", "0000000000000000000000000000000000000000000000000000000000000080"},
	{"order 4, y is p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	{"order 4, y is p, negative", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	{"order 8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"},
	{"order 8, negative", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"},
	{"order 8, other y", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"},
	{"order 8, other y, negative", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"},
	{"a point with y = 3", "0300000000000000000000000000000000000000000000000000000000000000"},
	{"the same, y is p + 3", "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	{"all bits, y is p + 18", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	{"not on the curve", "0200000000000000000000000000000000000000000000000000000000000000"},
}

func TestVectors(t *testing.T) {
	const path = "testdata/vectors.json"
	got, err := json.MarshalIndent(buildVectors(t), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Fatalf("the format changed, which is a promise broken:\n%s", diff)
	}

	// What the file says holds, whoever wrote it.
	var v vectors
	if err := json.Unmarshal(want, &v); err != nil {
		t.Fatal(err)
	}
	id := testLog(t)
	for _, e := range v.Entries {
		entry, err := ledger.ParseEntry(unhex(t, e.Block))
		if err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		if err := entry.CheckSignature(id); err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	for _, e := range v.Refused {
		entry, err := ledger.ParseEntry(unhex(t, e.Block))
		class := ledger.ErrFormat
		if e.Class == "signature" && err == nil {
			class, err = ledger.ErrSignature, entry.CheckSignature(id)
		}
		wantErr(t, e.Name, err, class)
	}
	for _, k := range v.PublicKeys {
		key := ledger.CuratorKey(unhex(t, k.Key))
		if _, err := ledger.ParseCuratorKey(key.String()); (err == nil) != (k.Class == "ok") {
			t.Errorf("%s: %v, want %s", k.Name, err, k.Class)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
