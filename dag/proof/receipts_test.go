package proof_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
)

// pathAt is the inclusion path of an entry in the tree of the first size entries.
func (w *world) pathAt(index, size int64) tlog.RecordProof {
	w.t.Helper()
	p, err := ledger.ProveInclusion(w.t.Context(), w.tiles, size, index)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) rootAt(size int64) tlog.Hash {
	w.t.Helper()
	root, err := ledger.Root(w.t.Context(), w.tiles, size)
	if err != nil {
		w.t.Fatal(err)
	}
	return root
}

// proveAnchored proves entry 1 with receipts of a smaller tree and of the proof's own.
func (w *world) proveAnchored() *proof.Proof {
	p := w.prove(1)
	p.Receipts = []proof.Receipt{
		{Data: []byte("receipt of a tree of 6 entries"), Size: 6, Path: w.pathAt(1, 6)},
		{Data: []byte("receipt of the proof's own tree"), Size: logSize},
		{Data: []byte("receipt of the proof's own tree, on another chain"), Size: logSize},
	}
	return p
}

// A proof with one receipt more than there may be, and the most there may be.
func (w *world) manyReceipts(n int) *proof.Proof {
	p := w.prove(1)
	for i := range n {
		p.Receipts = append(p.Receipts, proof.Receipt{Data: []byte{byte(i)}, Size: logSize})
	}
	return p
}

func TestReceipts(t *testing.T) {
	w := newWorld(t)
	p := w.proveAnchored()
	got, err := proof.Parse(format(t, p))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, got); diff != "" {
		t.Error(diff)
	}
	v := w.verify(got)
	if len(v.Receipts) != 3 {
		t.Fatalf("%d receipts", len(v.Receipts))
	}
	for i, r := range v.Receipts {
		if !bytes.Equal(r.Data, p.Receipts[i].Data) {
			t.Errorf("receipt %d: %q", i, r.Data)
		}
		if err := ledger.CheckInclusion(r.Path, r.Size, w.rootAt(r.Size), v.Index, ledger.LeafHash(p.EntryBlock)); err != nil {
			t.Errorf("receipt %d: %v", i, err)
		}
	}
	if got.Receipts[1].Path != nil {
		t.Error("verifying changed the proof")
	}
	// What was verified can be given to a proof again, in any order.
	slices.Reverse(v.Receipts)
	if err := got.SetReceipts(append(v.Receipts, v.Receipts[0])); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, got); diff != "" {
		t.Error(diff)
	}
	if _, err := proof.Parse(format(t, w.manyReceipts(proof.MaxReceipts))); err != nil {
		t.Error(err)
	}
}

// The path in a proof has the length that the tree gives it, for every entry and size.
func TestReceiptPathLength(t *testing.T) {
	w := newWorld(t)
	for index := range int64(logSize) {
		for size := index + 1; size < logSize; size++ {
			p := w.prove(index)
			path := w.pathAt(index, size)
			p.Receipts = []proof.Receipt{{Data: []byte("r"), Size: size, Path: path}}
			if _, err := p.Format(); err != nil {
				t.Errorf("entry %d of %d: %v", index, size, err)
			}
			p.Receipts[0].Path = append(slices.Clone(path), tlog.Hash{})
			_, err := p.Format()
			wantErr(t, "a hash too many", err, proof.ErrFormat)
			if len(path) > 0 {
				p.Receipts[0].Path = path[1:]
				_, err := p.Format()
				wantErr(t, "a hash too few", err, proof.ErrFormat)
			}
		}
	}
}

func TestSortReceipts(t *testing.T) {
	r := func(size int64, data string) proof.Receipt { return proof.Receipt{Size: size, Data: []byte(data)} }
	got := proof.SortReceipts([]proof.Receipt{r(9, "b"), r(3, "z"), r(9, "a"), r(3, "z"), r(9, "b")})
	if diff := cmp.Diff([]proof.Receipt{r(3, "z"), r(9, "a"), r(9, "b")}, got); diff != "" {
		t.Error(diff)
	}
}

func TestVerifiedOpenCheckpoint(t *testing.T) {
	w := newWorld(t)
	v := w.verify(w.prove(1))
	smaller := ledger.Checkpoint{Origin: testOrigin, Size: 6, Root: w.rootAt(6)}
	note, err := ledger.SignCheckpoint(smaller, w.signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.OpenCheckpoint(note); err != nil || got != smaller {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = v.OpenCheckpoint(bytes.Replace(note, []byte("\n6\n"), []byte("\n7\n"), 1))
	wantErr(t, "changed after signing", err, proof.ErrRefused)
	_, err = v.OpenCheckpoint([]byte("hello"))
	wantErr(t, "no checkpoint", err, proof.ErrFormat)
	for _, other := range [][2]string{{testOrigin, "log 2"}, {"other.example", "log"}} {
		signer, vkey, _ := logKey(t, other[0], other[1])
		note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: other[0], Size: 6, Root: smaller.Root}, signer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.OpenCheckpoint(note)
		wantErr(t, "another log", err, proof.ErrRefused)
		// Even one that the policy knows too: it is not the log of this proof.
		policy, err := proof.ParsePolicy([]byte("log " + vkey + "\nlog " + w.vkey + "\nquorum none\n"))
		if err != nil {
			t.Fatal(err)
		}
		both, err := w.prove(1).Verify(proof.Trust{Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		_, err = both.OpenCheckpoint(note)
		wantErr(t, "another log of the policy", err, proof.ErrRefused)
	}
	// A quorum of witnesses is for the proof's checkpoint, not for what was anchored.
	policy, err := proof.ParsePolicy([]byte("log " + w.vkey + "\nwitness one " + newWitness(t, "w1.example").vkey() + "\nquorum one\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := w.prove(1)
	p.Checkpoint = cosign(t, p.Checkpoint, "w1.example")
	if v, err = p.Verify(proof.Trust{Policy: policy}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.OpenCheckpoint(note); err != nil {
		t.Error(err)
	}
}

// receiptVectors adds what concerns section 5.
func receiptVectors(w *world, add func(vector), extra func(string, []byte)) {
	t := w.t
	text := func(p *proof.Proof) string { return string(format(t, p)) }
	p := w.proveAnchored()
	add(vector{Name: "receipts", Class: "ok", Dataset: "tree", Proof: text(p)})
	file := w.proveFile(&w.tree, "dir/big")
	file.Receipts = p.Receipts
	big := "6469722f626967"
	add(vector{Name: "receipts with a file", Class: "ok", Dataset: "tree", File: &big, Proof: text(file)})
	add(vector{Name: "sixteen receipts", Class: "ok", Dataset: "tree", Proof: text(w.manyReceipts(16))})
	alone := w.prove(0)
	alone.Receipts = []proof.Receipt{{Data: []byte("of the policy alone"), Size: 1}}
	add(vector{Name: "receipt of a tree of one entry", Class: "ok", Proof: text(alone)})

	body := openExtra(t, []byte(text(p)))
	begin := bytes.Index(body, []byte("receipt of a tree of 6")) - 2 // number of receipts, length of the first
	section := func(b []byte) []byte {
		return append(append(bytes.Clone(body[:begin-2]), byte(len(b))|0x80, byte(len(b)>>7)), b...)
	}
	if !bytes.Equal(section(body[begin:]), body) {
		t.Fatal("the section is not where it should be")
	}
	change := func(name, from, to string) {
		if strings.Count(string(body[begin:]), from) != 1 {
			t.Fatalf("%s: %q is not in the section once", name, from)
		}
		extra(name, section(bytes.Replace(body[begin:], []byte(from), []byte(to), 1)))
	}
	own := "receipt of the proof's own tree"
	extra("section without receipts", section([]byte{0}))
	change("receipt missing", "\x03\x1ereceipt", "\x04\x1ereceipt")
	change("receipt too many", "\x03\x1ereceipt", "\x02\x1ereceipt")
	change("empty receipt", "\x1ereceipt of a tree of 6 entries", "\x00")
	change("receipt of a tree without the entry", "6 entries\x06", "6 entries\x01")
	change("receipt with a hash too few", "6 entries\x06\x03"+string(p.Receipts[0].Path[0][:]), "6 entries\x06\x02")
	change("receipt with a hash too many", "6 entries\x06\x03", "6 entries\x06\x04"+strings.Repeat("h", 32))
	change("receipt that repeats the proof's own path", own+"\x0b\x00", own+"\x0b\x04"+strings.Repeat("h", 4*32))
	change("receipts out of order", own+"\x0b\x00", "x"+own[1:]+"\x0b\x00")
	change("receipt twice", "\x31"+own+", on another chain", "\x1f"+own)
	seventeen := []byte{17}
	for i := range 17 {
		seventeen = append(seventeen, 1, byte(i), logSize, 0)
	}
	extra("seventeen receipts", section(seventeen))
	large := append([]byte{1, 0x81, 0x88, 1}, make([]byte, 17409)...)
	large = append(large, logSize, 0)
	extra("receipt of 17,409 bytes", append(append(bytes.Clone(body[:begin-3]), 5, byte(len(large))|0x80, byte(len(large)>>7)|0x80, byte(len(large)>>14)), large...))
	twice := w.proveAnchored()
	twice.Receipts[0].Data = twice.Receipts[1].Data
	if _, err := twice.Format(); err == nil {
		t.Error("one receipt for two sizes is taken")
	}
}
