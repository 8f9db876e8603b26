package audit_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

// A world is a log with a few datasets, made without package store and with Merkle
// trees computed as RFC 6962 writes them. All of it is deterministic.
type world struct {
	t          testing.TB
	signer     note.Signer
	vkey       string
	id         ledger.LogID
	entries    [][]byte
	checkpoint []byte
	tiles      memTiles

	tree, stream, single, empty dataset
}

type dataset struct {
	name   string
	index  int64
	leaves []dag.FileLeaf
	chunks map[string][][]byte // of each file
}

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("scale test key " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func vkeyOf(t testing.TB, origin, key string) string {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(origin, testKey(key).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

type memTiles map[[2]int64][]byte

func (m memTiles) ReadTile(_ context.Context, level int, index int64, width int) ([]byte, error) {
	return m[[2]int64{int64(level), index}][:32*width], nil
}

func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

// root, path and compactRange are RFC 6962 to the letter.
func root(leaves []dag.Hash) dag.Hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := split(len(leaves))
	l, r := root(leaves[:k]), root(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
}

func path(leaves []dag.Hash, i int) []dag.Hash {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(path(leaves[:k], i), root(leaves[k:]))
	}
	return append(path(leaves[k:], i-k), root(leaves[:k]))
}

func compactRange(leaves []dag.Hash, from, to int) (list []dag.Hash) {
	for from < to {
		size := 1
		for from%(2*size) == 0 && from+2*size <= to {
			size *= 2
		}
		list = append(list, root(leaves[from:from+size]))
		from += size
	}
	return list
}

// chunkHashes returns the leaves of a file's chunk tree.
func chunkHashes(chunks [][]byte) (list []dag.Hash, size uint64) {
	for _, c := range chunks {
		list = append(list, dag.ChunkLeafHash(dag.ChunkRef{Digest: sha256.Sum256(c), Offset: size, Size: uint32(len(c))}))
		size += uint64(len(c))
	}
	return list, size
}

// content returns n bytes that look random.
func content(seed string, n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, h[:]...)
	}
	return b[:n]
}

// file adds a file of chunks with these sizes.
func (d *dataset) file(path string, sizes ...int) {
	l := dag.FileLeaf{Kind: dag.KindFile, Path: path, Chunks: uint64(len(sizes))}
	var chunks [][]byte
	for i, n := range sizes {
		chunks = append(chunks, content(fmt.Sprint(d.name, path, i), n))
	}
	var hashes []dag.Hash
	hashes, l.Size = chunkHashes(chunks)
	l.ChunkRoot = root(hashes)
	if d.chunks == nil {
		d.chunks = map[string][][]byte{}
	}
	d.chunks[path] = chunks
	d.leaves = append(d.leaves, l)
}

func (d *dataset) hashes() (list []dag.Hash) {
	for _, l := range d.leaves {
		list = append(list, l.Hash())
	}
	return list
}

func newWorld(t testing.TB) *world {
	t.Helper()
	const origin = "log.example/scale"
	w := &world{t: t, vkey: vkeyOf(t, origin, "log"), tiles: memTiles{}}
	v, err := note.NewVerifier(w.vkey)
	if err != nil {
		t.Fatal(err)
	}
	secret := base64.StdEncoding.EncodeToString(append([]byte{1}, testKey("log").Seed()...))
	if w.signer, err = note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", origin, v.KeyHash(), secret)); err != nil {
		t.Fatal(err)
	}
	w.id = ledger.LogID{Origin: origin, KeyID: v.KeyHash()}
	curator := ledger.CuratorKey(testKey("curator").Public().(ed25519.PublicKey))
	w.append(&ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: -1, Curators: []ledger.CuratorKey{curator}})

	w.tree = dataset{name: "tree"}
	w.tree.file("a.txt", 30, 50, 20)
	w.tree.file("dir/b", 40)
	w.tree.file("dir/empty")
	w.tree.leaves = append(w.tree.leaves, dag.FileLeaf{Kind: dag.KindLink, Path: "dir/link", Target: "b", Size: 1})
	w.tree.file("dir/\xff\nodd", 25, 35)
	w.tree.leaves = append(w.tree.leaves, dag.FileLeaf{Kind: dag.KindDir, Path: "void/"})
	w.tree.file("z", 10, 10, 10, 10, 60)
	w.stream = dataset{name: "stream"}
	w.stream.file("", 100, 7, 93)
	w.single = dataset{name: "single", leaves: []dag.FileLeaf{{Kind: dag.KindDir, Path: "a/"}}}
	w.single.file("only", 44, 56)
	w.empty = dataset{name: "empty"}
	w.empty.file("")
	for _, d := range []*dataset{&w.tree, &w.stream, &w.single, &w.empty} {
		w.put(d)
	}
	w.sign()
	return w
}

func (w *world) put(d *dataset) {
	d.index = int64(len(w.entries))
	e := &ledger.Entry{
		Kind: ledger.KindDataset, Name: d.name, Root: dag.NodeCID(sha256.Sum256([]byte(d.name))), Leaves: uint64(len(d.leaves)),
		Commitment: root(d.hashes()), Profile: "scale-1", Previous: -1, Policy: 0,
	}
	for _, l := range d.leaves {
		if l.Kind == dag.KindFile {
			e.Files++
			e.Size += l.Size
			e.Chunks += l.Chunks
		}
	}
	w.append(e)
}

func (w *world) append(e *ledger.Entry) {
	w.t.Helper()
	e.Time = time.Date(2026, 11, 21, 9, 0, len(w.entries), 0, time.UTC)
	if err := e.Sign(w.id, testKey("curator")); err != nil {
		w.t.Fatal(err)
	}
	block, err := e.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	w.entries = append(w.entries, block)
}

// sign builds the log's tree and signs its checkpoint.
func (w *world) sign() {
	w.t.Helper()
	var leaves []tlog.Hash
	for _, b := range w.entries {
		leaves = append(leaves, ledger.LeafHash(b))
	}
	root, tiles, err := ledger.Append(w.t.Context(), w.tiles, 0, ledger.EmptyRoot(), leaves)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, t := range tiles {
		w.tiles[[2]int64{int64(t.Level), t.Index}] = t.Data
	}
	w.checkpoint, err = ledger.SignCheckpoint(ledger.Checkpoint{Origin: w.id.Origin, Size: int64(len(w.entries)), Root: root}, w.signer)
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) trust() proof.Trust {
	w.t.Helper()
	policy, err := proof.TrustKey(w.vkey)
	if err != nil {
		w.t.Fatal(err)
	}
	return proof.Trust{Policy: policy}
}

func (w *world) head(d *dataset) audit.Head {
	return audit.Head{Entry: w.entries[d.index], Checkpoint: w.checkpoint}
}

// prove proves the dataset.
func (w *world) prove(d *dataset) *proof.Proof {
	w.t.Helper()
	inclusion, err := ledger.ProveInclusion(w.t.Context(), w.tiles, int64(len(w.entries)), d.index)
	if err != nil {
		w.t.Fatal(err)
	}
	return &proof.Proof{EntryBlock: w.entries[d.index], Index: d.index, Inclusion: inclusion, Checkpoint: w.checkpoint}
}

func (w *world) manifest(d *dataset) *proof.Proof {
	p := w.prove(d)
	p.Manifest = d.leaves
	return p
}

func (w *world) format(p *proof.Proof) []byte {
	w.t.Helper()
	b, err := p.Format()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// chunks proves a run of chunks of a file.
func (w *world) chunks(d *dataset, leaf, first, n int) *proof.Proof {
	l := d.leaves[leaf]
	hashes, _ := chunkHashes(d.chunks[l.Path])
	r := &proof.RangeProof{First: uint64(first), Left: compactRange(hashes, 0, first), Right: compactRange(hashes, first+n, len(hashes))}
	for i, c := range d.chunks[l.Path][:first+n] {
		if i < first {
			r.Offset += uint64(len(c))
		} else {
			r.Sizes = append(r.Sizes, uint32(len(c)))
		}
	}
	p := w.prove(d)
	p.File, p.Range = &proof.FileProof{Leaf: l, Index: uint64(leaf), Path: path(d.hashes(), leaf)}, r
	return p
}

// sample is what an honest node answers, found by going through all bytes.
func (w *world) sample(d *dataset, i int, position uint64) audit.Sample {
	w.t.Helper()
	var at uint64
	for leaf, l := range d.leaves {
		start := at
		for n, c := range d.chunks[l.Path] {
			if position < at+uint64(len(c)) {
				return audit.Sample{
					Draw: i, Position: position, Path: l.Path, FileStart: start, ChunkStart: at - start,
					Proof: w.format(w.chunks(d, leaf, n, 1)), Data: c,
				}
			}
			at += uint64(len(c))
		}
	}
	w.t.Fatalf("position %d of %d", position, at)
	return audit.Sample{}
}

// answer is what an honest node answers to a challenge.
func (w *world) answer(d *dataset, c audit.Challenge) (list []audit.Sample) {
	w.t.Helper()
	var size uint64
	for _, l := range d.leaves {
		if l.Kind == dag.KindFile {
			size += l.Size
		}
	}
	positions, err := c.Positions(sha256.Sum256(w.entries[d.index]), size)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, p := range positions {
		list = append(list, w.sample(d, i, p))
	}
	return list
}

func each(samples []audit.Sample) func(yield func(audit.Sample, error) bool) {
	return func(yield func(audit.Sample, error) bool) {
		for _, s := range samples {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// seed returns n bytes, others for each name.
func seed(name string, n int) []byte { return content("seed "+name, n) }
