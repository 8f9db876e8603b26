package proof_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

func TestVerified(t *testing.T) {
	w := newWorld(t)
	scopes := map[string]proof.Scope{
		"policy": proof.ScopeEntry, "dataset": proof.ScopeDataset, "stream": proof.ScopeDataset, "manifest": proof.ScopeDataset,
		"range": proof.ScopeRange, "range-whole": proof.ScopeRange, "stream-range": proof.ScopeRange,
	}
	for name, p := range w.proofs() {
		v := w.verify(p)
		want, ok := scopes[name]
		if !ok {
			want = proof.ScopeFile
		}
		if v.Scope != want || v.HasManifest != (name == "manifest") || v.Index != p.Index || v.CID != ledger.EntryCID(p.EntryBlock) ||
			v.KeyID != w.id.KeyID || v.Checkpoint.Origin != testOrigin || v.Checkpoint.Size != logSize || v.CuratorTrusted {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestTrust(t *testing.T) {
	w := newWorld(t)
	p := w.prove(1)
	_, err := p.Verify(proof.Trust{})
	wantErr(t, "no policy", err, proof.ErrNoKey)

	trust := w.trust()
	trust.Curators = []ledger.CuratorKey{curatorKey("x"), curatorKey("curator")}
	if v, err := p.Verify(trust); err != nil || !v.CuratorTrusted {
		t.Errorf("trusted curator: %+v, %v", v, err)
	}
	trust.Curators = trust.Curators[:1]
	_, err = p.Verify(trust)
	wantErr(t, "another curator", err, proof.ErrRefused)

	for what, key := range map[string][2]string{"another key": {testOrigin, "log 2"}, "another origin": {"other.example", "log"}} {
		_, vkey, _ := logKey(t, key[0], key[1])
		policy, err := proof.TrustKey(vkey)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Verify(proof.Trust{Policy: policy})
		wantErr(t, what, err, proof.ErrRefused)
	}
	for _, bad := range []string{"", "x", w.vkey + "x", newWitness(t, "w1").vkey(), strings.Replace(w.vkey, "log", "lug", 1)} {
		if _, err := proof.TrustKey(bad); err == nil {
			t.Errorf("key %q is taken", bad)
		}
	}
}

func TestPolicyFile(t *testing.T) {
	w := newWorld(t)
	_, otherKey, _ := logKey(t, "other.example", "other")
	w1, w2 := newWitness(t, "w1.example").vkey(), newWitness(t, "w2.example").vkey()
	witnesses := "witness one " + w1 + "\nwitness two " + w2 + "\ngroup both all one two\ngroup either any one two\n"
	none, one := w.checkpoint, cosign(t, w.checkpoint, "w1.example")
	both := cosign(t, one, "w2.example")
	bad := bytes.Clone(one)
	if at := len(bad) - 20; bad[at] != 'A' {
		bad[at] = 'A'
	} else {
		bad[at] = 'B'
	}
	for _, c := range []struct {
		what, policy string
		checkpoint   []byte
		want         error
	}{
		{"log only", "log " + w.vkey + "\nquorum none\n", none, nil},
		{"log only, cosigned", "log " + w.vkey + "\nquorum none\n", both, nil},
		{"one of two logs", "log " + otherKey + "\nlog " + w.vkey + " https://log.example/\nquorum none\n", none, nil},
		{"unknown log", "log " + otherKey + "\nquorum none\n", none, proof.ErrRefused},
		{"unknown log, known witness", "log " + otherKey + "\n" + witnesses + "quorum either\n", both, proof.ErrRefused},
		{"no witness", "log " + w.vkey + "\n" + witnesses + "quorum either\n", none, proof.ErrRefused},
		{"one witness of any", "log " + w.vkey + "\n" + witnesses + "quorum either\n", one, nil},
		{"one witness of two", "log " + w.vkey + "\n" + witnesses + "quorum both\n", one, proof.ErrRefused},
		{"two witnesses", "log " + w.vkey + "\n" + witnesses + "quorum both\n", both, nil},
		{"two logs, two witnesses", "# logs\nlog " + otherKey + "\nlog " + w.vkey + "\n" + witnesses + "quorum both\n", both, nil},
		{"forged cosignature", "log " + w.vkey + "\n" + witnesses + "quorum either\n", bad, proof.ErrRefused},
	} {
		policy, err := proof.ParsePolicy([]byte(c.policy))
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		p := w.prove(1)
		p.Checkpoint = c.checkpoint
		v, err := parseVerify(format(t, p), proof.Trust{Policy: policy})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.what == "log only, cosigned" && (len(v.Cosignatures) != 2 || v.Cosignatures[0].Verified || v.Cosignatures[0].Time.Unix() != cosignedAt) {
			t.Errorf("unknown cosignatures: %+v", v.Cosignatures)
		}
		if c.what == "two witnesses" && (len(v.Cosignatures) != 2 || !v.Cosignatures[1].Verified || v.Cosignatures[1].Name != "w2.example") {
			t.Errorf("known cosignatures: %+v", v.Cosignatures)
		}
	}
	_, err := proof.ParsePolicy([]byte(witnesses + "quorum both\n"))
	wantErr(t, "policy without a log", err, proof.ErrNoKey)
	// More ways to a witness than can be walked.
	ways := witnesses + "group g0 any one two\n"
	for i := range 60 {
		ways += fmt.Sprintf("group g%d any g%d g%d\n", i+1, i, i)
	}
	for _, bad := range []string{ways + "log " + w.vkey + "\nquorum g60\n", witnesses + "group g all both either\nlog " + w.vkey + "\nquorum g\n",
		strings.Repeat("log "+w.vkey+"\n", 65) + "quorum none\n", "log x\nquorum none\n", "log " + w.vkey + "\n", "log " + w.vkey + "\nquorum x\n", "log " + w.vkey + "\nhello\n"} {
		if _, err := proof.ParsePolicy([]byte(bad)); err == nil {
			t.Errorf("policy %q is taken", bad)
		}
	}
}

// Parts of sound proofs put together do not make a sound proof.
func TestMixedProofs(t *testing.T) {
	w := newWorld(t)
	elsewhere := newWorld(t) // the same entries, signed for this log, in another
	elsewhere.signer, _, _ = logKey(t, testOrigin, "log 2")
	elsewhere.sign()
	empty, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: testOrigin, Root: ledger.EmptyRoot()}, w.signer)
	if err != nil {
		t.Fatal(err)
	}
	other := w.proveFile(&w.other, "dir/big")
	for what, edit := range map[string]func(*proof.Proof){
		"another log's checkpoint": func(p *proof.Proof) { p.Checkpoint = elsewhere.checkpoint },
		"empty log":                func(p *proof.Proof) { p.Checkpoint, p.Inclusion = empty, nil },
		"another index":            func(p *proof.Proof) { p.Index++ },
		"index beyond the log":     func(p *proof.Proof) { p.Index = logSize },
		"another entry":            func(p *proof.Proof) { p.EntryBlock = other.EntryBlock },
		"another entry and its place": func(p *proof.Proof) {
			p.EntryBlock, p.Index, p.Inclusion = other.EntryBlock, other.Index, other.Inclusion
		},
		"a policy's entry": func(p *proof.Proof) {
			q := w.prove(0)
			p.EntryBlock, p.Index, p.Inclusion = q.EntryBlock, q.Index, q.Inclusion
		},
		"no inclusion path":      func(p *proof.Proof) { p.Inclusion = nil },
		"another file":           func(p *proof.Proof) { p.File.Leaf = w.tree.leaves[0] },
		"another leaf index":     func(p *proof.Proof) { p.File.Index++ },
		"leaf index too large":   func(p *proof.Proof) { p.File.Index = 6 },
		"another dataset's path": func(p *proof.Proof) { p.File.Path = other.File.Path },
		"no file path":           func(p *proof.Proof) { p.File.Path = nil },
		"hash too many":          func(p *proof.Proof) { p.File.Path = append(p.File.Path, dag.Hash{}) },
	} {
		p := w.proveFile(&w.tree, "dir/big")
		w.verify(p)
		edit(p)
		if _, err := p.Verify(w.trust()); !errors.Is(err, proof.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	p := w.proveManifest(&w.tree)
	for what, leaves := range map[string][]dag.FileLeaf{
		"another manifest": w.other.leaves, "leaf left out": w.tree.leaves[1:], "one leaf": w.stream.leaves,
	} {
		p.Manifest = leaves
		if _, err := p.Verify(w.trust()); !errors.Is(err, proof.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	p = w.prove(0)
	p.Manifest = w.tree.leaves
	if _, err := p.Verify(w.trust()); !errors.Is(err, proof.ErrRefused) {
		t.Errorf("manifest of a policy: %v", err)
	}
}

// An entry that was signed for another log is refused even where the log took it.
func TestEntryOfAnotherLog(t *testing.T) {
	w := newWorld(t)
	_, _, foreign := logKey(t, "other.example", "log")
	e := &ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: 0, Curators: []ledger.CuratorKey{curatorKey("curator")}}
	w.id, foreign = foreign, w.id
	e.Time = e.Time.AddDate(2025, 0, 0)
	w.append(e)
	w.id = foreign
	w.sign()
	_, err := w.prove(logSize).Verify(w.trust())
	wantErr(t, "replayed entry", err, proof.ErrRefused)
}

func TestCheckTree(t *testing.T) {
	w := newWorld(t)
	v := w.verify(w.prove(w.tree.index))
	if err := errors.Join(v.CheckTree(w.tree.tree), v.CheckRoot(w.tree.tree.Root)); err != nil {
		t.Error(err)
	}
	err := v.CheckTree(w.other.tree)
	var m *proof.MismatchError
	if !errors.Is(err, proof.ErrRefused) || !errors.As(err, &m) {
		t.Fatalf("another tree: %v", err)
	}
	if m.Want != w.tree.tree.Commitment.String() || m.Got != w.other.tree.Commitment.String() {
		t.Errorf("another tree: %v", m)
	}
	for what, edit := range map[string]func(*dag.Tree){
		"leaves": func(t *dag.Tree) { t.Leaves++ }, "size": func(t *dag.Tree) { t.Size++ },
		"files": func(t *dag.Tree) { t.Files++ }, "chunks": func(t *dag.Tree) { t.Chunks++ },
	} {
		tree := w.tree.tree
		edit(&tree)
		wantErr(t, what, v.CheckTree(tree), proof.ErrRefused)
	}
	wantErr(t, "another root", v.CheckRoot(w.other.tree.Root), proof.ErrRefused)
}

func fileOf(d *dataset, name string) dag.File {
	l := d.leaves[d.file(name)]
	return dag.File{Size: l.Size, Chunks: l.Chunks, ChunkRoot: l.ChunkRoot}
}

func TestCheckFile(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a.txt", "dir/big", "dir/empty", "dir/\xff\nodd"} {
		v := w.verify(w.proveFile(&w.tree, name))
		good := fileOf(&w.tree, name)
		if err := v.CheckFile(good); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		for _, bad := range []dag.File{{}, {Size: good.Size + 1, Chunks: good.Chunks, ChunkRoot: good.ChunkRoot},
			{Size: good.Size, Chunks: good.Chunks + 1, ChunkRoot: good.ChunkRoot}, {Size: good.Size, Chunks: good.Chunks}} {
			wantErr(t, name, v.CheckFile(bad), proof.ErrRefused)
		}
	}
	if err := w.verify(w.proveRange(&w.tree, "dir/big", 5, 9)).CheckFile(fileOf(&w.tree, "dir/big")); err != nil {
		t.Errorf("whole file with a proof of a range: %v", err)
	}
	// A dataset of one stream needs no leaf.
	for _, p := range []*proof.Proof{w.prove(w.stream.index), w.proveFile(&w.stream, "")} {
		v := w.verify(p)
		if err := v.CheckFile(fileOf(&w.stream, "")); err != nil {
			t.Error(err)
		}
		wantErr(t, "another stream", v.CheckFile(fileOf(&w.tree, "a.txt")), proof.ErrRefused)
	}
	link := w.verify(w.proveFile(&w.tree, "link"))
	if err := link.CheckLink("dir/big"); err != nil {
		t.Error(err)
	}
	wantErr(t, "another target", link.CheckLink("dir/bigger"), proof.ErrRefused)
	wantErr(t, "file for a link", link.CheckFile(fileOf(&w.tree, "dir/big")), proof.ErrRefused)
}

func TestChecksRefuseOtherScopes(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.proofs() {
		v := w.verify(p)
		_, _, _, diff := v.Diff(nil2)
		for what, c := range map[string]struct {
			err  error
			mine bool
		}{
			"tree":  {v.CheckTree(dag.Tree{}), v.Scope == proof.ScopeDataset},
			"root":  {v.CheckRoot(w.tree.tree.Root), v.Scope == proof.ScopeDataset},
			"file":  {v.CheckFile(dag.File{}), v.Scope == proof.ScopeDataset || v.File != nil},
			"link":  {v.CheckLink(""), v.Scope == proof.ScopeFile},
			"range": {v.CheckRange(strings.NewReader("")), v.Scope == proof.ScopeRange},
			"diff":  {diff, name == "manifest"},
		} {
			if !c.mine && !errors.Is(c.err, proof.ErrRefused) {
				t.Errorf("%s as a %s: %v", name, what, c.err)
			}
		}
	}
}

func nil2(func(dag.FileLeaf, error) bool) {}

var errRead = errors.New("read failed")

func TestCheckRange(t *testing.T) {
	w := newWorld(t)
	p := w.proveRange(&w.tree, "dir/big", 5, 9)
	data := w.rangeData(p)
	v := w.verify(p)
	for what, r := range map[string]io.Reader{
		"at once": bytes.NewReader(data), "byte by byte": iotest.OneByteReader(bytes.NewReader(data)), "with EOF": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		if err := v.CheckRange(r); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range data {
		data[i] ^= 4
		wantErr(t, fmt.Sprint("byte ", i), v.CheckRange(bytes.NewReader(data)), proof.ErrRefused)
		data[i] ^= 4
		wantErr(t, fmt.Sprint("cut to ", i), v.CheckRange(bytes.NewReader(data[:i])), proof.ErrRefused)
	}
	wantErr(t, "one byte more", v.CheckRange(bytes.NewReader(append(data, 0))), proof.ErrRefused)
	wantErr(t, "shifted", v.CheckRange(bytes.NewReader(append([]byte{0}, data[:len(data)-2]...))), proof.ErrRefused)
	for _, r := range []io.Reader{iotest.ErrReader(errRead), io.MultiReader(bytes.NewReader(data[:len(data)-1]), iotest.ErrReader(errRead))} {
		if err := v.CheckRange(r); !errors.Is(err, errRead) || errors.Is(err, proof.ErrRefused) {
			t.Errorf("failing reader: %v", err)
		}
	}
}

// Every run of every small file; every hash of its path, every size and place changed.
func TestRangeEveryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n := 1; n <= 17; n++ {
		d := dataset{chunks: map[string][][]byte{}, index: int64(len(w.entries))}
		d.add(dag.FileLeaf{Kind: dag.KindFile}, bigChunks()[:n]...)
		d.finish("run")
		w.put(fmt.Sprint("run-", n), &d)
		w.sign()
		for first := range n {
			for last := first + 1; last <= n; last++ {
				p := w.proveRange(&d, "", first, last)
				data := bytes.Join(d.chunks[""][first:last], nil)
				check := func() error {
					v, err := p.Verify(w.trust())
					if err == nil {
						err = v.CheckRange(bytes.NewReader(data))
					}
					return err
				}
				if err := check(); err != nil {
					t.Fatalf("%d: [%d, %d): %v", n, first, last, err)
				}
				bad := func(what string, edit func(r *proof.RangeProof)) {
					t.Helper()
					good := p.Range
					r := proof.RangeProof{First: good.First, Offset: good.Offset, Sizes: slices.Clone(good.Sizes), Left: slices.Clone(good.Left), Right: slices.Clone(good.Right)}
					edit(&r)
					p.Range = &r
					if err := check(); !errors.Is(err, proof.ErrRefused) {
						t.Fatalf("%d: [%d, %d), %s: %v", n, first, last, what, err)
					}
					p.Range = good
				}
				for i := range p.Range.Left {
					bad("left hash changed", func(r *proof.RangeProof) { r.Left[i][i%32] ^= 1 })
				}
				for i := range p.Range.Right {
					bad("right hash changed", func(r *proof.RangeProof) { r.Right[i][i%32] ^= 1 })
				}
				bad("left hash too many", func(r *proof.RangeProof) { r.Left = append(r.Left, dag.Hash{}) })
				bad("right hash too many", func(r *proof.RangeProof) { r.Right = append(r.Right, dag.Hash{}) })
				bad("sides swapped", func(r *proof.RangeProof) { r.Left, r.Right = append(r.Right, dag.Hash{}), r.Left })
				bad("moved by a chunk", func(r *proof.RangeProof) { r.First++ })
				bad("far away", func(r *proof.RangeProof) { r.First = 1<<63 - 1 })
				bad("moved by a byte", func(r *proof.RangeProof) { r.Offset++ })
				bad("offset far away", func(r *proof.RangeProof) { r.Offset = 1<<63 - 1 })
				bad("no chunks", func(r *proof.RangeProof) { r.Sizes = nil })
				bad("chunk of no bytes", func(r *proof.RangeProof) { r.Sizes[0] = 0 })
				bad("chunk longer", func(r *proof.RangeProof) { r.Sizes[0]++ })
				bad("huge chunk", func(r *proof.RangeProof) { r.Sizes[0] = 1<<32 - 1 })
				bad("two chunks as one", func(r *proof.RangeProof) {
					if len(r.Sizes) > 1 {
						r.Sizes[1] += r.Sizes[0]
					}
					r.Sizes = r.Sizes[1:]
				})
			}
		}
	}
}

func TestRangeOfALink(t *testing.T) {
	w := newWorld(t)
	p := w.proveFile(&w.tree, "link")
	p.Range = &proof.RangeProof{Sizes: []uint32{7}}
	_, err := p.Verify(w.trust())
	wantErr(t, "range of a link", err, proof.ErrRefused)
}

func TestDiff(t *testing.T) {
	w := newWorld(t)
	v := w.verify(w.proveManifest(&w.tree))
	l := w.tree.leaves
	relinked := l[4]
	relinked.Target = "a.txtxx"
	stream := func(leaves ...dag.FileLeaf) func(func(dag.FileLeaf, error) bool) {
		return func(yield func(dag.FileLeaf, error) bool) {
			for _, l := range leaves {
				if !yield(l, nil) {
					return
				}
			}
		}
	}
	first, last := dag.FileLeaf{Kind: dag.KindDir, Path: "0/"}, dag.FileLeaf{Kind: dag.KindDir, Path: "z/"}
	paths := func(leaves ...dag.FileLeaf) (list []string) {
		for _, l := range leaves {
			list = append(list, l.Path)
		}
		return list
	}
	for what, c := range map[string]struct{ data, extra, missing, changed []dag.FileLeaf }{
		"same":    {data: l},
		"nothing": {missing: l},
		"changed": {data: w.other.leaves, changed: l[:1]},
		"missing": {data: []dag.FileLeaf{l[1], l[2], l[4]}, missing: []dag.FileLeaf{l[0], l[3], l[5]}},
		"extra":   {data: slices.Concat([]dag.FileLeaf{first}, l, []dag.FileLeaf{last}), extra: []dag.FileLeaf{first, last}},
		"all": {
			data: []dag.FileLeaf{first, w.other.leaves[0], l[1], l[2], l[3], relinked, last}, extra: []dag.FileLeaf{first, last},
			missing: l[5:], changed: []dag.FileLeaf{l[0], l[4]},
		},
	} {
		extra, missing, changed, err := v.Diff(stream(c.data...))
		got := [][]string{extra, missing, changed}
		want := [][]string{paths(c.extra...), paths(c.missing...), paths(c.changed...)}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %s, %v", what, diff, err)
		}
	}
	if _, _, _, err := v.Diff(stream(l[1], l[0])); err == nil {
		t.Error("leaves out of order are taken")
	}
	failing := func(yield func(dag.FileLeaf, error) bool) { yield(dag.FileLeaf{}, errRead) }
	if _, _, _, err := v.Diff(failing); !errors.Is(err, errRead) {
		t.Errorf("failing leaves: %v", err)
	}
}

// BenchmarkVerify parses and verifies a range proof out of a file of a million
// chunks, in a dataset of a million files, in a log of a million entries.
func BenchmarkVerify(b *testing.B) {
	const n, at = 1 << 20, 654321
	w := newWorld(b)
	hashes := make([]dag.Hash, n)
	for i := range hashes {
		hashes[i][i%32], hashes[i][0] = byte(i>>8), byte(i)
	}
	chunks := [][]byte{content("a", 30000), content("b", 40000)}
	r := &proof.RangeProof{First: at, Offset: at << 16, Left: compactRange(hashes, 0, at), Right: compactRange(hashes, at+2, n)}
	for i, c := range chunks {
		ref := dag.ChunkRef{Digest: sha256.Sum256(c), Offset: at<<16 + uint64(i)*30000, Size: uint32(len(c))}
		r.Sizes, hashes[at+i] = append(r.Sizes, ref.Size), dag.ChunkLeafHash(ref)
	}
	leaf := dag.FileLeaf{Kind: dag.KindFile, Path: "some/directory/and/a/file.tar", Size: n << 16, Chunks: n, ChunkRoot: root(hashes)}
	hashes[at] = leaf.Hash()
	d := dataset{tree: dag.Tree{Root: w.tree.tree.Root, Size: n << 40, Files: n, Leaves: n, Chunks: n << 20, Commitment: root(hashes)}}
	f := &proof.FileProof{Leaf: leaf, Index: at, Path: path(hashes, at)}
	w.put("million", &d)
	block := w.entries[d.index]
	hashes[at] = dag.Hash(ledger.LeafHash(block))
	p := &proof.Proof{EntryBlock: block, Index: at, File: f, Range: r}
	for _, h := range path(hashes, at) {
		p.Inclusion = append(p.Inclusion, tlog.Hash(h))
	}
	var err error
	p.Checkpoint, err = ledger.SignCheckpoint(ledger.Checkpoint{Origin: testOrigin, Size: n, Root: tlog.Hash(root(hashes))}, w.signer)
	if err != nil {
		b.Fatal(err)
	}
	file, trust := format(b, p), w.trust()
	v, err := parseVerify(file, trust)
	if err == nil {
		err = v.CheckRange(io.MultiReader(bytes.NewReader(chunks[0]), bytes.NewReader(chunks[1])))
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Run("range", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseVerify(file, trust); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(file)), "proof-bytes")
	})
	p.File, p.Range = nil, nil
	file = format(b, p)
	b.Run("dataset", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseVerify(file, trust); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(file)), "proof-bytes")
	})
}
