package extension

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/ledger"
)

const testOrigin = "log.example/scale"

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("scale test key " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// logKey returns a fixed signer and verifier of checkpoints.
func logKey(t testing.TB, name string) (note.Signer, note.Verifier) {
	t.Helper()
	key := testKey(name)
	vkey, err := note.NewEd25519VerifierKey(testOrigin, key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", testOrigin, v.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))))
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

// blocks returns entries as a ledger of datasets has them: names that differ in places,
// digests and signatures that do not compress.
func blocks(t testing.TB, n int) [][]byte {
	t.Helper()
	_, v := logKey(t, "log")
	id := ledger.LogID{Origin: testOrigin, KeyID: v.KeyHash()}
	key := testKey("curator")
	out := make([][]byte, n)
	for i := range out {
		digest := func(what string) [32]byte { return sha256.Sum256(fmt.Appendf(nil, "%s %d", what, i)) }
		d := digest("root")
		mh, err := multihash.Encode(d[:], multihash.SHA2_256)
		if err != nil {
			t.Fatal(err)
		}
		size := uint64(binary.BigEndian.Uint32(d[:]))
		e := &ledger.Entry{
			Kind: ledger.KindDataset, Name: fmt.Sprintf("traffic.2026-11-%02d.batch-%06d.jsonl", 1+i/100%30, i), Previous: -1,
			Root: cid.NewCidV1(cid.DagProtobuf, mh), Size: size, Files: 1, Leaves: 1, Chunks: size>>15 + 1, Commitment: digest("commitment"),
			Profile: "scale-1", Policy: 0, Time: time.UnixMilli(1795250000000 + int64(i)*713),
		}
		if err := e.Sign(id, key); err != nil {
			t.Fatal(err)
		}
		if out[i], err = e.Marshal(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func rootOf(list [][]byte) tlog.Hash {
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, n := range at {
			out[i] = stored[n]
		}
		return out, nil
	})
	for i, b := range list {
		hs, err := tlog.StoredHashes(int64(i), b, read)
		if err != nil {
			panic(err)
		}
		stored = append(stored, hs...)
	}
	h, err := tlog.TreeHash(int64(len(list)), read)
	if err != nil {
		panic(err)
	}
	return h
}

func checkpoint(t testing.TB, list [][]byte) []byte {
	t.Helper()
	s, _ := logKey(t, "log")
	b, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: testOrigin, Size: int64(len(list)), Root: rootOf(list)}, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func seq(list [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, b := range list {
			if !yield(b, nil) {
				return
			}
		}
	}
}

func receipt(n int) anchor.Receipt {
	return anchor.Receipt{Chain: "k2", Raw: fmt.Appendf(nil, "transaction %d", n), Network: "genesis", Height: uint64(n), Block: "block", Time: 1795250000, Depth: 32, Final: true}
}

// made encodes the extension of list[from:], with so many receipts.
func made(t testing.TB, list [][]byte, from, receipts int) []byte {
	t.Helper()
	x := anchor.Extension{Size: int64(len(list)), Checkpoint: checkpoint(t, list)}
	if from > 0 {
		root := rootOf(list[:from])
		x.Base = anchor.Link{ID: fmt.Sprintf("tx-%d", from), Size: int64(from), Root: root[:]}
	}
	for i := range receipts {
		x.Receipts = append(x.Receipts, receipt(i))
	}
	b, err := Encode(t.Context(), x, seq(list[from:]))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// records reads all of a bundle.
func records(b []byte) (x *Bundle, entries [][]byte, receipts []anchor.Receipt, err error) {
	if x, err = Parse(b); err != nil {
		return nil, nil, nil, err
	}
	next := x.Base.Size
	err = x.Records(func(i int64, b []byte) error {
		if i != next {
			return fmt.Errorf("entry %d comes as %d", next, i)
		}
		next++
		entries = append(entries, bytes.Clone(b))
		return nil
	}, func(r anchor.Receipt) error {
		receipts = append(receipts, r)
		return nil
	})
	return x, entries, receipts, err
}

func TestRoundTrip(t *testing.T) {
	many := 30_000 // several frames
	if testing.Short() {
		many = 3000
	}
	list := blocks(t, many)
	for _, c := range []struct{ n, from, receipts int }{{1, 0, 0}, {1, 0, 3}, {2, 1, 0}, {100, 37, 5}, {many, 0, 0}, {many, 50, 60}} {
		x, entries, receipts, err := records(made(t, list[:c.n], c.from, c.receipts))
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if !reflect.DeepEqual(entries, list[c.from:c.n]) || len(receipts) != c.receipts || x.Size != int64(c.n) || x.Base.Size != int64(c.from) ||
			tlog.Hash(x.Base.Root) != rootOf(list[:c.from]) || !bytes.Equal(x.Checkpoint, checkpoint(t, list[:c.n])) {
			t.Errorf("%+v: %d entries, %d receipts, %+v", c, len(entries), len(receipts), x.Base)
		}
		for i, r := range receipts {
			if !reflect.DeepEqual(r, receipt(i)) {
				t.Errorf("%+v: receipt %+v", c, r)
			}
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	list := blocks(t, 4)
	root := rootOf(list[:2])
	good := func() anchor.Extension {
		return anchor.Extension{Base: anchor.Link{ID: "tx", Size: 2, Root: root[:]}, Size: 4, Checkpoint: checkpoint(t, list)}
	}
	if _, err := Encode(t.Context(), good(), seq(list[2:])); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(x *anchor.Extension) iter.Seq2[[]byte, error]{
		"too few":     func(*anchor.Extension) iter.Seq2[[]byte, error] { return seq(list[3:]) },
		"too many":    func(*anchor.Extension) iter.Seq2[[]byte, error] { return seq(list[1:]) },
		"empty entry": func(*anchor.Extension) iter.Seq2[[]byte, error] { return seq([][]byte{list[2], nil}) },
		"large entry": func(*anchor.Extension) iter.Seq2[[]byte, error] {
			return seq([][]byte{list[2], make([]byte, 16<<10+1)})
		},
		"nothing new": func(x *anchor.Extension) iter.Seq2[[]byte, error] { x.Size = 2; return seq(nil) },
		"other size": func(x *anchor.Extension) iter.Seq2[[]byte, error] {
			x.Checkpoint = checkpoint(t, list[:3])
			return seq(list[2:])
		},
		"no checkpoint": func(x *anchor.Extension) iter.Seq2[[]byte, error] { x.Checkpoint = nil; return seq(list[2:]) },
		"no id":         func(x *anchor.Extension) iter.Seq2[[]byte, error] { x.Base.ID = ""; return seq(list[2:]) },
		"no root":       func(x *anchor.Extension) iter.Seq2[[]byte, error] { x.Base.Root = nil; return seq(list[2:]) },
		"id of nothing": func(x *anchor.Extension) iter.Seq2[[]byte, error] { x.Base.Size = 0; return seq(list) },
		"receipts": func(x *anchor.Extension) iter.Seq2[[]byte, error] {
			x.Receipts = make([]anchor.Receipt, anchor.MaxReceipts+1)
			return seq(list[2:])
		},
		"failing": func(*anchor.Extension) iter.Seq2[[]byte, error] {
			return func(yield func([]byte, error) bool) { yield(nil, errors.New("disk")) }
		},
	} {
		x := good()
		entries := change(&x)
		if b, err := Encode(t.Context(), x, entries); err == nil {
			t.Errorf("%s: is encoded in %d bytes", name, len(b))
		}
	}
}

func TestTooLarge(t *testing.T) {
	list := blocks(t, 1)
	s, _ := logKey(t, "log")
	for _, size := range []int64{anchor.MaxEntries + 1, 10_000} {
		note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: testOrigin, Size: size}, s)
		if err != nil {
			t.Fatal(err)
		}
		big := bytes.Repeat(list[0], 16<<10/len(list[0]))
		_, err = Encode(t.Context(), anchor.Extension{Size: size, Checkpoint: note}, func(yield func([]byte, error) bool) {
			for range size {
				if !yield(big, nil) {
					return
				}
			}
		})
		var large *anchor.TooLargeError
		if !errors.As(err, &large) || large.Fits < 1 || large.Fits >= size || large.Fits > anchor.MaxEntries {
			t.Errorf("%d entries: %v", size, err)
		}
	}
}

// TestParseRefuses: all that can be changed in a short bundle is noticed or leaves what
// the records say as it was.
func TestParseRefuses(t *testing.T) {
	list := blocks(t, 3)
	b := made(t, list, 1, 2)
	for i := range b {
		if _, _, _, err := records(b[:i]); !errors.Is(err, ErrFormat) {
			t.Errorf("%d of %d bytes: %v", i, len(b), err)
		}
	}
	if _, _, _, err := records(append(bytes.Clone(b), 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("a byte too many: %v", err)
	}
	_, v := logKey(t, "log")
	first := made(t, list[:1], 0, 0)
	for i := range b {
		for _, bit := range []byte{1, 0x80} {
			c := bytes.Clone(b)
			c[i] ^= bit
			n := 0
			take := func(_ int64, b []byte) error {
				if n < len(list) && bytes.Equal(b, list[n]) {
					n++
				}
				return nil
			}
			r := NewReplay(v)
			if _, err := r.Add("tx-1", first, take, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Add("tx-3", c, take, func(anchor.Receipt) error { return nil }); err == nil && n != len(list) {
				t.Errorf("byte %d: other entries are taken", i)
			}
		}
	}
}

// start returns a Replay that has had the extension tx-N of all of list.
func start(t testing.TB, list [][]byte, v note.Verifier) *Replay {
	t.Helper()
	r := NewReplay(v)
	if _, err := r.Add(fmt.Sprintf("tx-%d", len(list)), made(t, list, 0, 0), func(int64, []byte) error { return nil }, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReplay(t *testing.T) {
	list := blocks(t, 70)
	_, v := logKey(t, "log")
	none := func(anchor.Receipt) error { return nil }
	for _, steps := range [][]int{{1, 2, 3, 70}, {70}, {64, 65}, {7, 8, 9, 33}} {
		r, from := NewReplay(v), 0
		var got [][]byte
		for _, to := range steps {
			c, err := r.Add(fmt.Sprintf("tx-%d", to), made(t, list[:to], from, 1), func(_ int64, b []byte) error {
				got = append(got, bytes.Clone(b))
				return nil
			}, none)
			if err != nil || c.Size != int64(to) || c.Root != rootOf(list[:to]) || r.Last().ID != fmt.Sprintf("tx-%d", to) {
				t.Fatalf("%v: %d: %+v, %v", steps, to, c, err)
			}
			from = to
		}
		if !reflect.DeepEqual(got, list[:from]) {
			t.Errorf("%v: other entries", steps)
		}
	}
	take := func(int64, []byte) error { return nil }
	for name, c := range map[string]struct {
		id   string
		list [][]byte
		from int
		want error
	}{
		"gap":           {"tx-9", list[:9], 6, ErrChain},
		"again":         {"tx-5", list[:5], 0, ErrChain},
		"other entries": {"tx-9", slices.Concat(list[20:25], list[5:9]), 5, ErrChain},
	} {
		if _, err := start(t, list[:5], v).Add(c.id, made(t, c.list, c.from, 0), take, none); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, other := logKey(t, "other")
	if _, err := NewReplay(other).Add("tx-5", made(t, list[:5], 0, 0), take, none); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("another log: %v", err)
	}
	// Entries that are not those that were signed, in a bundle that is otherwise right.
	x := anchor.Extension{Size: 5, Checkpoint: checkpoint(t, list[:5])}
	b, err := Encode(t.Context(), x, seq(slices.Concat(list[:4], list[5:6])))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewReplay(v).Add("tx-5", b, take, none); !errors.Is(err, ErrChain) {
		t.Errorf("entries that were not signed: %v", err)
	}
	stop := errors.New("stop")
	if _, err := NewReplay(v).Add("tx-5", made(t, list[:5], 0, 0), func(int64, []byte) error { return stop }, none); !errors.Is(err, stop) {
		t.Errorf("the caller's error: %v", err)
	}
}

// BenchmarkExtension measures what an extension of 8,192 entries costs and holds.
func BenchmarkExtension(b *testing.B) {
	list := blocks(b, 8192)
	note := checkpoint(b, list)
	x := anchor.Extension{Size: int64(len(list)), Checkpoint: note}
	var body []byte
	var err error
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			if body, err = Encode(b.Context(), x, seq(list)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(list))/(float64(len(body))/1024), "entries/KiB")
		b.ReportMetric(float64(len(list)*b.N)/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("replay", func(b *testing.B) {
		_, v := logKey(b, "log")
		for b.Loop() {
			if _, err := NewReplay(v).Add("tx", body, func(int64, []byte) error { return nil }, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(list)*b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}
