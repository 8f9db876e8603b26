package dag

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "compute the results in testdata/vectors.json anew")

// The vectors for other implementations; SPEC.md says how to read them. The
// inputs are written by hand, -update fills in the results. A result that
// changes for a profile that was released is a bug.
const vectorFile = "testdata/vectors.json"

type vectors struct {
	Datasets []*vector       `json:"datasets"`
	Refused  []refused       `json:"refused"`
	Proofs   []*refusedProof `json:"refused_proofs"`
}

type vector struct {
	Name    string        `json:"name"`
	Profile string        `json:"profile"`
	Entries []vectorEntry `json:"entries"`
	Result  vectorResult  `json:"result"`
}

type vectorEntry struct {
	Path      string    `json:"path"`
	PathB64   []byte    `json:"path_b64,omitempty"`
	Kind      string    `json:"kind"`
	Mode      string    `json:"mode,omitempty"`
	Mtime     *[2]int64 `json:"mtime,omitempty"`
	Seed      string    `json:"seed,omitempty"`
	Size      int       `json:"size,omitempty"`
	Chunks    int       `json:"chunks,omitempty"`
	Target    string    `json:"target,omitempty"`
	TargetB64 []byte    `json:"target_b64,omitempty"`
	Repeat    int       `json:"repeat,omitempty"`
}

type vectorResult struct {
	Root       string            `json:"root"`
	Size       uint64            `json:"size"`
	Tsize      uint64            `json:"tsize"`
	Files      uint64            `json:"files"`
	Leaves     uint64            `json:"leaves"`
	Chunks     uint64            `json:"chunks"`
	Commitment string            `json:"commitment"`
	Detail     []vectorFileInfo  `json:"detail,omitempty"`
	Nodes      map[string]string `json:"nodes,omitempty"`
	Rows       map[string]string `json:"rows,omitempty"`
	LeafProofs []vectorLeafProof `json:"leaf_proofs"`
	RangeProof []vectorRange     `json:"range_proofs,omitempty"`
}

type vectorFileInfo struct {
	Path       string   `json:"path"`
	PathB64    []byte   `json:"path_b64,omitempty"`
	CID        string   `json:"cid"`
	Tsize      uint64   `json:"tsize"`
	Chunks     uint64   `json:"chunks"`
	ChunkRoot  string   `json:"chunk_root"`
	ChunkSizes []uint32 `json:"chunk_sizes,omitempty"`
}

type vectorLeafProof struct {
	Index uint64   `json:"index"`
	Leaf  string   `json:"leaf"`
	Hash  string   `json:"hash"`
	Path  []string `json:"path"`
}

type vectorRange struct {
	Path   string   `json:"path"`
	From   uint64   `json:"from"`
	To     uint64   `json:"to"`
	First  uint64   `json:"first"`
	Last   uint64   `json:"last"`
	Offset uint64   `json:"offset"`
	End    uint64   `json:"end"`
	Left   []string `json:"left"`
	Right  []string `json:"right"`
}

type refused struct {
	What string `json:"what"` // node, leaf, leaf row, hash row
	Why  string `json:"why"`
	Hex  string `json:"hex"`
}

type refusedProof struct {
	Why   string   `json:"why"`
	Root  string   `json:"root"`
	Size  uint64   `json:"size"`
	Index uint64   `json:"index"`
	Leaf  string   `json:"leaf_hash"`
	Path  []string `json:"path"`
}

// entries builds the files of a vector and returns its entries.
func (v *vector) entries(t *testing.T, m *memory) []entry {
	t.Helper()
	p := mustProfile(t, v.Profile)
	var entries []entry
	for _, e := range v.Entries {
		path, target := e.Path, e.Target
		if e.PathB64 != nil {
			path = string(e.PathB64)
		}
		if e.TargetB64 != nil {
			target = string(e.TargetB64)
		}
		mode, err := strconv.ParseUint(e.Mode, 8, 32)
		if err != nil && e.Kind != "link" {
			t.Fatalf("%s: mode of %q: %v", v.Name, path, err)
		}
		a := Attr{Mode: uint32(mode)}
		if e.Mtime != nil {
			a.Mtime = time.Unix(e.Mtime[0], e.Mtime[1]).UTC()
		}
		for i := range max(1, e.Repeat) {
			suffix := ""
			if e.Repeat > 0 {
				suffix = fmt.Sprintf("%06d", i)
			}
			x := entry{path: path + suffix, attr: a, target: target}
			switch e.Kind {
			case "dir":
				x.kind = KindDir
			case "link":
				x.kind = KindLink
			case "file":
				x.kind = KindFile
				if e.Chunks > 0 {
					x.file = chunksOf(t, p, m, e, a)
				} else {
					x.file = m.put(t, p, stream(e.Seed+suffix, e.Size), a)
				}
			default:
				t.Fatalf("%s: kind %q", v.Name, e.Kind)
			}
			entries = append(entries, x)
		}
	}
	return entries
}

// chunksOf is a file of which only digests and sizes of the chunks are given:
// SHA-256 of the seed and a big-endian 64-bit counter, all of one size.
func chunksOf(t *testing.T, p *Profile, m *memory, e vectorEntry, a Attr) File {
	t.Helper()
	b := NewFileBuilder(p, m)
	for i := range e.Chunks {
		if err := b.AddChunk(digestOf(binary.BigEndian.AppendUint64([]byte(e.Seed), uint64(i))), e.Size); err != nil {
			t.Fatal(err)
		}
	}
	f, err := b.Finish(a)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func hexes(h []Hash) []string {
	s := make([]string, len(h))
	for i := range h {
		s[i] = h[i].String()
	}
	return s
}

// run computes the result of a vector, and checks it by reading it back.
func (v *vector) run(t *testing.T) vectorResult {
	t.Helper()
	ctx, m := t.Context(), newMemory()
	entries := v.entries(t, m)
	var tree Tree
	var err error
	if len(entries) == 1 && entries[0].kind == KindFile && entries[0].path == "" {
		tree, err = SingleFile(entries[0].file, m)
	} else {
		tree, err = buildTree(mustProfile(t, v.Profile), m, canonical(entries))
	}
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	r := m.reader()
	res := vectorResult{Root: tree.Root.String(), Size: tree.Size, Tsize: tree.Tsize, Files: tree.Files, Leaves: tree.Leaves, Chunks: tree.Chunks, Commitment: tree.Commitment.String()}
	for _, i := range slices.Compact([]uint64{0, tree.Leaves / 3, tree.Leaves - 1}) {
		leaf, err := Leaf(ctx, r, tree.Commitment, tree.Leaves, i)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		path, err := ProveLeaf(ctx, r, tree.Commitment, tree.Leaves, i)
		if err == nil {
			err = CheckLeaf(tree.Commitment, tree.Leaves, i, leaf.Hash(), path)
		}
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		res.LeafProofs = append(res.LeafProofs, vectorLeafProof{Index: i, Leaf: hex.EncodeToString(leaf.Marshal()), Hash: leaf.Hash().String(), Path: hexes(path)})
	}
	for _, e := range entries {
		if e.kind != KindFile || len(res.Detail) == 20 {
			continue
		}
		info := vectorFileInfo{Path: e.path, CID: e.file.CID.String(), Tsize: e.file.Tsize, Chunks: e.file.Chunks, ChunkRoot: e.file.ChunkRoot.String()}
		if !utf8.ValidString(e.path) {
			info.Path, info.PathB64 = "", []byte(e.path)
		}
		if e.file.Chunks > 1 && e.file.Chunks <= 400 {
			for _, c := range collect(t, Chunks(ctx, r, e.file.CID, 0, e.file.Size)) {
				info.ChunkSizes = append(info.ChunkSizes, c.Size)
			}
		}
		res.Detail = append(res.Detail, info)
		if e.file.Chunks > 2 {
			res.RangeProof = append(res.RangeProof, v.prove(t, r, e, e.file.Size/3, e.file.Size/3+100_000))
		}
	}
	size := 0
	for _, b := range m.nodes {
		size += len(b)
	}
	for _, b := range m.rows {
		size += len(b)
	}
	if size < 4096 {
		res.Nodes, res.Rows = map[string]string{}, map[string]string{}
		for d, b := range m.nodes {
			res.Nodes[NodeCID(d).String()] = hex.EncodeToString(b)
		}
		for h, b := range m.rows {
			res.Rows[h.String()] = hex.EncodeToString(b)
		}
	}
	return res
}

func (v *vector) prove(t *testing.T, r Reader, e entry, from, to uint64) vectorRange {
	t.Helper()
	f := fileLeafOf(e.path, e.file)
	run, err := FindChunks(t.Context(), r, e.file.CID, f, from, to)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	left, right, err := ProveChunks(t.Context(), r, e.file.CID, f, run.First, run.Last)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	var leaves []Hash
	for _, c := range collect(t, Chunks(t.Context(), r, e.file.CID, run.Offset, run.End)) {
		leaves = append(leaves, ChunkLeafHash(c))
	}
	if err := CheckChunks(f.ChunkRoot, f.Chunks, run.First, leaves, left, right); err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return vectorRange{Path: e.path, From: from, To: to, First: run.First, Last: run.Last, Offset: run.Offset, End: run.End, Left: hexes(left), Right: hexes(right)}
}

func readVectors(t *testing.T) *vectors {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectors(t *testing.T) {
	all := readVectors(t)
	for _, v := range all.Datasets {
		got := v.run(t)
		if *update {
			v.Result = got
		} else if diff := cmp.Diff(v.Result, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", v.Name, diff)
		}
	}
	if *update {
		b, err := json.MarshalIndent(all, "", " ")
		if err == nil {
			err = os.WriteFile(vectorFile, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusedVectors(t *testing.T) {
	all := readVectors(t)
	parse := map[string]func([]byte) error{
		"node":     func(b []byte) error { _, err := parseNode(b); return err },
		"leaf":     func(b []byte) error { _, err := ParseFileLeaf(b); return err },
		"leaf row": func(b []byte) error { _, err := parseLeafRow(b); return err },
		"hash row": func(b []byte) error { _, err := parseHashRow(b); return err },
	}
	for _, v := range all.Refused {
		b, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if err := parse[v.What](b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s, %s: %v", v.What, v.Why, err)
		}
	}
	for _, v := range all.Proofs {
		path := make([]Hash, len(v.Path))
		for i, s := range v.Path {
			path[i] = mustHash(t, s)
		}
		if err := CheckLeaf(mustHash(t, v.Root), v.Size, v.Index, mustHash(t, v.Leaf), path); !errors.Is(err, ErrProof) {
			t.Errorf("proof, %s: %v", v.Why, err)
		}
	}
	if len(all.Refused) < 50 || len(all.Proofs) < 5 {
		t.Errorf("only %d and %d negative vectors", len(all.Refused), len(all.Proofs))
	}
}

func mustHash(t *testing.T, s string) Hash {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Hash{}) {
		t.Fatalf("hash %q: %v", s, err)
	}
	return Hash(b)
}
