package proof_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

// A world is a ledger with a few datasets, made without package store and with
// Merkle trees computed as RFC 6962 writes them. All of it is deterministic.
type world struct {
	t          testing.TB
	signer     note.Signer
	vkey       string
	id         ledger.LogID
	entries    [][]byte
	tiles      memTiles
	checkpoint []byte

	tree   dataset // entry 1
	stream dataset // entry 2
	other  dataset // entry 3: like tree, one byte differs
}

type dataset struct {
	index  int64
	leaves []dag.FileLeaf
	chunks map[string][][]byte // of each file
	tree   dag.Tree
}

const (
	testOrigin = "log.example/scale"
	logSize    = 11
)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("scale test key " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func curatorKey(name string) ledger.CuratorKey {
	return ledger.CuratorKey(testKey(name).Public().(ed25519.PublicKey))
}

func logKey(t testing.TB, origin, name string) (s note.Signer, vkey string, id ledger.LogID) {
	t.Helper()
	key := testKey(name)
	vkey, err := note.NewEd25519VerifierKey(origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	secret := base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))
	if s, err = note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", origin, v.KeyHash(), secret)); err != nil {
		t.Fatal(err)
	}
	return s, vkey, ledger.LogID{Origin: origin, KeyID: v.KeyHash()}
}

type memTiles map[[2]int64][]byte

func (m memTiles) ReadTile(_ context.Context, level int, index int64, width int) ([]byte, error) {
	return m[[2]int64{int64(level), index}][:32*width], nil
}

// root is the RFC 6962 root, path the audit path of leaf i, and compact the
// roots of the perfect subtrees that cover leaves [from, to).
func root(leaves []dag.Hash) dag.Hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := split(len(leaves))
	return node(root(leaves[:k]), root(leaves[k:]))
}

func node(l, r dag.Hash) dag.Hash { return dag.Hash(tlog.NodeHash(tlog.Hash(l), tlog.Hash(r))) }

func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func path(leaves []dag.Hash, i int) []dag.Hash {
	if len(leaves) == 1 {
		return nil
	}
	if k := split(len(leaves)); i < k {
		return append(path(leaves[:k], i), root(leaves[k:]))
	} else {
		return append(path(leaves[k:], i-k), root(leaves[:k]))
	}
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

func (d *dataset) add(l dag.FileLeaf, chunks ...[]byte) {
	if l.Kind == dag.KindFile {
		hashes, size := chunkHashes(chunks)
		l.Size, l.Chunks, l.ChunkRoot = size, uint64(len(chunks)), root(hashes)
		d.chunks[l.Path] = chunks
		d.tree.Files++
		d.tree.Size += size
		d.tree.Chunks += l.Chunks
	}
	d.leaves = append(d.leaves, l)
	d.tree.Leaves++
}

func (d *dataset) hashes() (list []dag.Hash) {
	for _, l := range d.leaves {
		list = append(list, l.Hash())
	}
	return list
}

// finish sets the tree's root, which nothing here builds, and the commitment.
func (d *dataset) finish(name string) {
	slices.SortFunc(d.leaves, func(a, b dag.FileLeaf) int { return strings.Compare(a.Path, b.Path) })
	d.tree.Commitment = root(d.hashes())
	d.tree.Root = dag.NodeCID(sha256.Sum256([]byte(name)))
}

func (d *dataset) file(p string) int {
	return slices.IndexFunc(d.leaves, func(l dag.FileLeaf) bool { return l.Path == p })
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

func bigChunks() (chunks [][]byte) {
	for i := range 21 {
		chunks = append(chunks, content(fmt.Sprint("big", i), 40+i*7))
	}
	return chunks
}

func treeDataset(name string, b byte) dataset {
	d := dataset{chunks: map[string][][]byte{}}
	d.add(dag.FileLeaf{Kind: dag.KindFile, Path: "a.txt"}, []byte{b})
	d.add(dag.FileLeaf{Kind: dag.KindFile, Path: "dir/big"}, bigChunks()...)
	d.add(dag.FileLeaf{Kind: dag.KindFile, Path: "dir/empty"})
	d.add(dag.FileLeaf{Kind: dag.KindFile, Path: "dir/\xff\nodd"}, content("odd", 300))
	d.add(dag.FileLeaf{Kind: dag.KindLink, Path: "link", Target: "dir/big", Size: 7})
	d.add(dag.FileLeaf{Kind: dag.KindDir, Path: "void/"})
	d.finish(name)
	return d
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, tiles: memTiles{}}
	w.signer, w.vkey, w.id = logKey(t, testOrigin, "log")
	w.append(&ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: -1, Curators: []ledger.CuratorKey{curatorKey("curator")}})

	w.tree = treeDataset("tree", 'a')
	w.put("tree", &w.tree)
	w.stream = dataset{chunks: map[string][][]byte{}}
	w.stream.add(dag.FileLeaf{Kind: dag.KindFile}, bigChunks()[:5]...)
	w.stream.finish("stream")
	w.put("stream", &w.stream)
	w.other = treeDataset("other", 'b')
	w.put("other", &w.other)
	for i := len(w.entries); i < logSize; i++ {
		d := treeDataset("filler", byte(i))
		w.put(fmt.Sprint("filler-", i), &d)
	}
	w.sign()
	return w
}

func (w *world) put(name string, d *dataset) {
	d.index = int64(len(w.entries))
	w.append(&ledger.Entry{
		Kind: ledger.KindDataset, Name: name, Root: d.tree.Root, Size: d.tree.Size, Files: d.tree.Files, Leaves: d.tree.Leaves,
		Chunks: d.tree.Chunks, Commitment: d.tree.Commitment, Profile: "scale-1", Previous: -1, Policy: 0,
	})
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
	root, tiles, err := ledger.Append(context.Background(), w.tiles, 0, ledger.EmptyRoot(), leaves)
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

func (w *world) prove(index int64) *proof.Proof {
	w.t.Helper()
	p := &proof.Proof{EntryBlock: w.entries[index], Index: index, Checkpoint: w.checkpoint}
	var err error
	if p.Inclusion, err = ledger.ProveInclusion(context.Background(), w.tiles, int64(len(w.entries)), index); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) proveFile(d *dataset, name string) *proof.Proof {
	w.t.Helper()
	p, i := w.prove(d.index), d.file(name)
	p.File = &proof.FileProof{Leaf: d.leaves[i], Index: uint64(i), Path: path(d.hashes(), i)}
	return p
}

// proveRange proves chunks [first, last).
func (w *world) proveRange(d *dataset, name string, first, last int) *proof.Proof {
	w.t.Helper()
	p, chunks := w.proveFile(d, name), d.chunks[name]
	hashes, _ := chunkHashes(chunks)
	r := &proof.RangeProof{
		First: uint64(first), Left: compactRange(hashes, 0, first), Right: compactRange(hashes, last, len(hashes)),
	}
	for _, c := range chunks[:first] {
		r.Offset += uint64(len(c))
	}
	for _, c := range chunks[first:last] {
		r.Sizes = append(r.Sizes, uint32(len(c)))
	}
	p.Range = r
	return p
}

// rangeData returns the bytes of a range of one of the datasets.
func (w *world) rangeData(p *proof.Proof) []byte {
	chunks := w.tree.chunks
	if p.Index == w.stream.index {
		chunks = w.stream.chunks
	}
	return bytes.Join(chunks[p.File.Leaf.Path][p.Range.First:int(p.Range.First)+len(p.Range.Sizes)], nil)
}

func (w *world) proveManifest(d *dataset) *proof.Proof {
	w.t.Helper()
	p := w.prove(d.index)
	p.Manifest = d.leaves
	return p
}

func (w *world) trust() proof.Trust {
	w.t.Helper()
	policy, err := proof.TrustKey(w.vkey)
	if err != nil {
		w.t.Fatal(err)
	}
	return proof.Trust{Policy: policy}
}

func (w *world) verify(p *proof.Proof) *proof.Verified {
	w.t.Helper()
	v, err := p.Verify(w.trust())
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func format(t testing.TB, p *proof.Proof) []byte {
	t.Helper()
	b, err := p.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// proofs returns a proof of each scope.
func (w *world) proofs() map[string]*proof.Proof {
	return map[string]*proof.Proof{
		"policy":       w.prove(0),
		"dataset":      w.prove(w.tree.index),
		"stream":       w.prove(w.stream.index),
		"manifest":     w.proveManifest(&w.tree),
		"file":         w.proveFile(&w.tree, "dir/big"),
		"file-empty":   w.proveFile(&w.tree, "dir/empty"),
		"file-odd":     w.proveFile(&w.tree, "dir/\xff\nodd"),
		"link":         w.proveFile(&w.tree, "link"),
		"void":         w.proveFile(&w.tree, "void/"),
		"range":        w.proveRange(&w.tree, "dir/big", 5, 9),
		"range-whole":  w.proveRange(&w.tree, "dir/big", 0, 21),
		"stream-file":  w.proveFile(&w.stream, ""),
		"stream-range": w.proveRange(&w.stream, "", 4, 5),
	}
}

// unverified splits a checkpoint without checking it.
func unverified(t testing.TB, b []byte) *note.Note {
	t.Helper()
	_, err := note.Open(b, nil)
	var e *note.UnverifiedNoteError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	return e.Note
}

// A witness cosigns with a key and a time that never change.
type witness struct{ *torchwood.CosignatureSigner }

const cosignedAt = 1795251600 // 2026-11-21 09:00 UTC

func newWitness(t testing.TB, name string) witness {
	t.Helper()
	s, err := torchwood.NewCosignatureSigner(name, testKey(name))
	if err != nil {
		t.Fatal(err)
	}
	return witness{s}
}

func (w witness) vkey() string { return w.Verifier().String() }

// Sign writes what C2SP tlog-cosignature says of cosignature/v1.
func (w witness) Sign(text []byte) ([]byte, error) {
	msg := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", cosignedAt, text)
	sig := binary.BigEndian.AppendUint64(nil, cosignedAt)
	return append(sig, ed25519.Sign(testKey(w.Name()), msg)...), nil
}

// cosign appends a witness's line to a checkpoint.
func cosign(t testing.TB, checkpoint []byte, name string) []byte {
	t.Helper()
	b, err := note.Sign(unverified(t, checkpoint), newWitness(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}
