package anchor

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag/ledger"
)

// textVerifier opens transactions that are "SIGNER\nCHECKPOINT".
type textVerifier struct{ name string }

func (v textVerifier) Name() string { return v.name }

func (v textVerifier) Open(r Receipt) (Anchored, error) {
	signer, cp, ok := bytes.Cut(r.Raw, []byte("\n"))
	if !ok {
		return Anchored{}, fmt.Errorf("%w: not a transaction", ErrForged)
	}
	return Anchored{ID: fmt.Sprintf("%x", sha256.Sum256(r.Raw))[:8], Checkpoint: cp, Signer: string(signer)}, nil
}

// A signedLog is a log of which only the tree is there.
type signedLog struct {
	t        *testing.T
	signer   note.Signer
	verifier note.Verifier
	hashes   []tlog.Hash // stored hashes
}

func newSignedLog(t *testing.T, origin string) *signedLog {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	l := &signedLog{t: t}
	if err == nil {
		l.signer, err = note.NewSigner(skey)
	}
	if err == nil {
		l.verifier, err = note.NewVerifier(vkey)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *signedLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *signedLog) leaf(i int64) tlog.Hash { return tlog.RecordHash([]byte{byte(i)}) }

func (l *signedLog) grow(size int64) {
	l.t.Helper()
	for n := int64(0); n < size; n++ {
		h, err := tlog.StoredHashesForRecordHash(n, l.leaf(n), l)
		if err != nil {
			l.t.Fatal(err)
		}
		if int64(len(l.hashes)) <= tlog.StoredHashIndex(0, n) {
			l.hashes = append(l.hashes, h...)
		}
	}
}

func (l *signedLog) checkpoint(size int64) []byte {
	l.t.Helper()
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: l.verifier.Name(), Size: size, Root: root}, l.signer)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *signedLog) path(_ context.Context, index, size int64) (tlog.RecordProof, error) {
	return tlog.ProveRecord(size, index, l)
}

func (l *signedLog) receipt(chain, signer string, size int64) Receipt {
	r := receiptOf(chain)
	r.Raw = append([]byte(signer+"\n"), l.checkpoint(size)...)
	return r
}

func (l *signedLog) claim(r Receipt, index, size int64) Claim {
	l.t.Helper()
	p, err := l.path(l.t.Context(), index, size)
	if err != nil {
		l.t.Fatal(err)
	}
	return Claim{Receipt: r.Append(nil), Size: size, Path: p}
}

func TestCheckEvidence(t *testing.T) {
	l, other := newSignedLog(t, "log.example"), newSignedLog(t, "other.example")
	again := newSignedLog(t, "log.example") // same origin, another key
	for _, x := range []*signedLog{l, other, again} {
		x.grow(20)
	}
	const index = 5
	sound := func() Claim { return l.claim(l.receipt("k2", "us", 9), index, 9) }
	edit := func(f func(*Claim)) Claim {
		c := sound()
		f(&c)
		return c
	}
	receipt := func(f func(*Receipt)) Claim {
		r := l.receipt("k2", "us", 9)
		f(&r)
		return l.claim(r, index, 9)
	}
	for what, c := range map[string]struct {
		claim        Claim
		keys         []string
		holds, named bool
		refused      bool
		says         string
	}{
		"sound":                           {claim: sound(), holds: true, says: "not checked by you"},
		"sound, key named":                {claim: sound(), keys: []string{"them", "us"}, holds: true, named: true, says: "an anchor key that you name"},
		"copied by a stranger":            {claim: l.claim(l.receipt("k2", "stranger", 9), index, 9), holds: true, says: "stranger (not checked by you)"},
		"copied by a stranger, key named": {claim: l.claim(l.receipt("k2", "stranger", 9), index, 9), keys: []string{"us"}, refused: true, says: "none of the anchor keys"},
		"checkpoint of another log":       {claim: other.claim(other.receipt("k2", "us", 9), index, 9), refused: true, says: "no checkpoint of this log"},
		"another key of the origin":       {claim: again.claim(again.receipt("k2", "us", 9), index, 9), refused: true, says: "no checkpoint of this log"},
		"tree without the entry":          {claim: edit(func(c *Claim) { c.Receipt, c.Size = l.receipt("k2", "us", 5).Append(nil), 5 }), refused: true, says: "in which entry 5 is not"},
		"another size than stated":        {claim: edit(func(c *Claim) { c.Size = 10 }), refused: true, says: "the proof says 10"},
		"path of another entry":           {claim: l.claim(l.receipt("k2", "us", 9), 4, 9), refused: true, says: "not in the tree that was anchored"},
		"path of another tree":            {claim: edit(func(c *Claim) { c.Path = l.claim(l.receipt("k2", "us", 9), index, 10).Path }), refused: true, says: "not in the tree"},
		"no path":                         {claim: edit(func(c *Claim) { c.Path = nil }), refused: true, says: "not in the tree"},
		"no transaction":                  {claim: receipt(func(r *Receipt) { r.Raw = []byte("x") }), refused: true, says: "not a transaction"},
		"no checkpoint":                   {claim: receipt(func(r *Receipt) { r.Raw = []byte("us\nhello") }), refused: true, says: "no checkpoint of this log"},
		"checkpoint changed": {claim: receipt(func(r *Receipt) { r.Raw = bytes.Replace(r.Raw, []byte("\n9\n"), []byte("\n8\n"), 1) }),
			refused: true, says: "no checkpoint of this log"},
		"malformed":     {claim: edit(func(c *Claim) { c.Receipt = c.Receipt[1:] }), refused: true, says: "malformed"},
		"unknown chain": {claim: l.claim(l.receipt("k3", "us", 9), index, 9), says: `does not know the chain "k3"`},
	} {
		open := func(b []byte) (ledger.Checkpoint, error) { return ledger.OpenCheckpoint(b, l.verifier) }
		o := EvidenceOptions{Index: index, Leaf: l.leaf(index), Open: open, Verifiers: map[string]Verifier{"k2": textVerifier{"k2"}}, Keys: c.keys}
		e := CheckEvidence([]Claim{c.claim}, o)[0]
		if e.Holds() != c.holds || e.KeyNamed != c.named || errors.Is(e.Err, ErrForged) != c.refused || (e.Err != nil) != c.refused || !strings.Contains(e.Proven(), c.says) {
			t.Errorf("%s: %+v\n%s", what, e, e.Proven())
		}
		if c.holds && (e.Checkpoint.Size != 9 || !strings.Contains(e.Claimed(), "at height 300") || !strings.HasSuffix(e.Claimed(), ", final")) {
			t.Errorf("%s: %+v\n%s", what, e.Checkpoint, e.Claimed())
		}
	}
	// One that does not hold says nothing of the others.
	list := CheckEvidence([]Claim{edit(func(c *Claim) { c.Size = 10 }), sound()}, EvidenceOptions{
		Index: index, Leaf: l.leaf(index), Verifiers: map[string]Verifier{"k2": textVerifier{"k2"}},
		Open: func(b []byte) (ledger.Checkpoint, error) { return ledger.OpenCheckpoint(b, l.verifier) },
	})
	if list[0].Holds() || !list[1].Holds() {
		t.Errorf("%+v", list)
	}
}

// rowOf is the row of a receipt in a state.
func rowOf(t *testing.T, l *signedLog, chain string, size int64, s State) *Row {
	t.Helper()
	r := l.receipt(chain, "us", size)
	r.Final = s == Final
	row := &Row{Chain: chain, Size: size, Checkpoint: l.checkpoint(size), Attempt: 1, Tx: Tx{ID: "id", Raw: r.Raw}, Receipt: &r}
	row.become(s, time.Unix(1790000000, 0), "")
	return row
}

func TestAttach(t *testing.T) {
	l := newSignedLog(t, "log.example")
	l.grow(20)
	box := newMemOutbox()
	put := func(r *Row) {
		t.Helper()
		b, err := r.Encode()
		if err == nil {
			err = box.Put(t.Context(), r.Chain, r.Size, b, r.State.Open())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	attach := func(entry int64) (sizes []int64, at int64) {
		t.Helper()
		claims, at, err := Attach(t.Context(), box, []string{"k2", "arweave"}, entry, l.path)
		if err != nil {
			t.Fatal(err)
		}
		verifiers := map[string]Verifier{"k2": textVerifier{"k2"}, "arweave": textVerifier{"arweave"}}
		open := func(b []byte) (ledger.Checkpoint, error) { return ledger.OpenCheckpoint(b, l.verifier) }
		for _, e := range CheckEvidence(claims, EvidenceOptions{Index: entry, Leaf: l.leaf(entry), Open: open, Verifiers: verifiers}) {
			if !e.Holds() {
				t.Errorf("entry %d: %s", entry, e.Proven())
			}
			sizes = append(sizes, e.Size)
		}
		return sizes, at
	}
	want := func(entry int64, sizes []int64, at int64) {
		t.Helper()
		if got, gotAt := attach(entry); !slices.Equal(got, sizes) || gotAt != at {
			t.Errorf("entry %d: receipts of %v, at %d; want %v, at %d", entry, got, gotAt, sizes, at)
		}
	}
	want(3, nil, 0)
	put(rowOf(t, l, "k2", 4, Seen))
	want(3, []int64{4}, 0)
	put(rowOf(t, l, "k2", 6, Final))
	put(rowOf(t, l, "k2", 8, Final))
	want(3, []int64{6}, 6)
	put(rowOf(t, l, "arweave", 8, Seen))
	want(3, []int64{6, 8}, 6)
	put(rowOf(t, l, "arweave", 5, Final))
	want(3, []int64{5, 6}, 5)
	want(5, []int64{6, 8}, 6)
	want(7, []int64{8, 8}, 8)
	want(8, nil, 0)
	_, _, err := Attach(t.Context(), box, []string{"k2"}, 3, func(context.Context, int64, int64) (tlog.RecordProof, error) { return nil, ErrUnavailable })
	if !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func TestMergeClaims(t *testing.T) {
	l := newSignedLog(t, "log.example")
	l.grow(20)
	claim := func(chain string, size int64, final bool, depth uint64) Claim {
		r := l.receipt(chain, "us", size)
		r.Final, r.Depth = final, depth
		return Claim{Receipt: r.Append(nil), Size: size}
	}
	for what, c := range map[string]struct{ old, more, want []Claim }{
		"nothing":                       {},
		"order":                         {nil, []Claim{claim("k2", 9, true, 1), claim("k2", 4, true, 1)}, []Claim{claim("k2", 4, true, 1), claim("k2", 9, true, 1)}},
		"the same again":                {[]Claim{claim("k2", 9, true, 1)}, []Claim{claim("k2", 9, true, 1)}, []Claim{claim("k2", 9, true, 1)}},
		"it became final":               {[]Claim{claim("k2", 9, false, 1)}, []Claim{claim("k2", 9, true, 40)}, []Claim{claim("k2", 9, true, 40)}},
		"another became final":          {[]Claim{claim("k2", 9, false, 1)}, []Claim{claim("k2", 12, true, 40)}, []Claim{claim("k2", 12, true, 40)}},
		"one of another chain stays":    {[]Claim{claim("arweave", 9, false, 1)}, []Claim{claim("k2", 12, true, 40)}, []Claim{claim("arweave", 9, false, 1), claim("k2", 12, true, 40)}},
		"final does not become less":    {[]Claim{claim("k2", 9, true, 40)}, []Claim{claim("k2", 9, false, 1)}, []Claim{claim("k2", 9, true, 40)}},
		"what cannot be read is no use": {[]Claim{{Receipt: []byte("x"), Size: 3}}, nil, nil},
	} {
		got := MergeClaims(c.old, c.more)
		if !slices.EqualFunc(got, c.want, func(a, b Claim) bool { return bytes.Equal(a.Receipt, b.Receipt) && a.Size == b.Size }) {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestRestoredRow(t *testing.T) {
	l := newSignedLog(t, "log.example")
	l.grow(20)
	r := l.receipt("k2", "us", 7)
	row, err := RestoredRow(r, textVerifier{"k2"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := row.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if row, err = DecodeRow(b); err != nil || row.State != Final || row.Size != 7 || !bytes.Equal(row.Checkpoint, l.checkpoint(7)) || row.Receipt.Height != r.Height {
		t.Errorf("%+v, %v", row, err)
	}
	r.Final = false
	if _, err := RestoredRow(r, textVerifier{"k2"}); !errors.Is(err, ErrForged) {
		t.Errorf("not final: %v", err)
	}
	r.Final, r.Raw = true, []byte("us\nhello")
	if _, err := RestoredRow(r, textVerifier{"k2"}); !errors.Is(err, ErrForged) {
		t.Errorf("no checkpoint: %v", err)
	}
}
