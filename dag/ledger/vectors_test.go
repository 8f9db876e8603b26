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
