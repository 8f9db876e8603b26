package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
)

// successor is entry 0 of a log that carries another one on.
func successor(t testing.TB, origin string, size int64) *ledger.Entry {
	e := policyEntry(-1, "a")
	e.Predecessor = lastCheckpoint(t, origin, size)
	return e
}

func lastCheckpoint(t testing.TB, origin string, size int64) []byte {
	t.Helper()
	s, _ := logKey(t, origin, "log")
	b, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: origin, Size: size, Root: sha256.Sum256([]byte("last root"))}, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refusedPredecessors returns entries whose predecessor is not one.
func refusedPredecessors(t testing.TB) (list []refusedVector) {
	good := sign(t, successor(t, "before.example", 12345), "a")
	at := bytes.Index(good, []byte("\x6bpredecessor\x58"))
	if at < 0 {
		t.Fatal("no predecessor of 24 to 255 bytes")
	}
	with := func(name string, value []byte) {
		b := bytes.Clone(good[:at])
		b = append(b, "\x6bpredecessor"...)
		switch n := len(value); {
		case n < 24:
			b = append(b, 0x40|byte(n))
		case n < 256:
			b = append(b, 0x58, byte(n))
		default:
			b = append(b, 0x59, byte(n>>8), byte(n))
		}
		list = append(list, refusedVector{name, "format", hexOf(append(b, value...))})
	}
	last := lastCheckpoint(t, "before.example", 12345)
	other, _ := logKey(t, "witness.example", "log")
	text, _, _ := strings.Cut(string(last), "\n\n")
	own, _ := logKey(t, "before.example", "log")
	two, err := note.Sign(&note.Note{Text: text + "\n"}, own, other)
	if err != nil {
		t.Fatal(err)
	}
	with("empty predecessor", nil)
	with("predecessor that is no checkpoint", []byte("before.example"))
	with("predecessor cut short", last[:len(last)-1])
	with("predecessor with a cosignature", two)
	with("predecessor with nothing in it", lastCheckpoint(t, "before.example", 0))
	with("predecessor of 513 bytes", bytes.Repeat([]byte("x"), 513))

	later := sign(t, policyEntry(0, "c"), "a")
	later[0]++
	list = append(list, refusedVector{"predecessor in a later policy", "format", hexOf(append(later, good[at:]...))})
	data := sign(t, datasetEntry("d"), "a")
	data[0]++
	list = append(list, refusedVector{"predecessor of a dataset", "format", hexOf(append(data, good[at:]...))})
	changed := bytes.Replace(good, []byte("\n12345\n"), []byte("\n12346\n"), 1)
	return append(list, refusedVector{"another predecessor than was signed", "signature", hexOf(changed)})
}

func TestPredecessor(t *testing.T) {
	e := successor(t, "before.example", 12345)
	block := sign(t, e, "a")
	got, err := ledger.ParseEntry(block)
	if err != nil || !bytes.Equal(got.Predecessor, e.Predecessor) {
		t.Fatalf("%+v, %v", got, err)
	}
	_, key := logKey(t, "before.example", "log")
	if c, err := got.OpenPredecessor(key); err != nil || c.Size != 12345 || c.Origin != "before.example" {
		t.Errorf("%+v, %v", c, err)
	}
	_, wrong := logKey(t, "before.example", "log 2")
	_, err = got.OpenPredecessor(wrong)
	wantErr(t, "another key", err, ledger.ErrSignature)
	_, err = policyEntry(-1, "a").OpenPredecessor(key)
	wantErr(t, "no predecessor", err, ledger.ErrFormat)

	wantErr(t, "its own log", successor(t, testOrigin, 3).CheckSuccession(testLog(t)), ledger.ErrFormat)
	for _, e := range []*ledger.Entry{got, policyEntry(-1, "a"), datasetEntry("d")} {
		if err := e.CheckSuccession(testLog(t)); err != nil {
			t.Error(err)
		}
	}
	// The same origin under another key is another log.
	if err := successor(t, testOrigin, 3).CheckSuccession(ledger.LogID{Origin: testOrigin, KeyID: testLog(t).KeyID ^ 1}); err != nil {
		t.Error(err)
	}
	// Entries without it are what they were.
	plain := sign(t, policyEntry(-1, "a"), "a")
	if bytes.Contains(plain, []byte("predecessor")) || !slices.Equal(plain[1:9], block[1:9]) || plain[0] != block[0]-1 {
		t.Errorf("%x", plain)
	}
	later := policyEntry(4, "a")
	later.Predecessor = e.Predecessor
	if _, err := later.Marshal(); !errors.Is(err, ledger.ErrFormat) {
		t.Errorf("in a later policy: %v", err)
	}
	// The longest origin fits.
	if _, err := successor(t, strings.Repeat("x", ledger.MaxOrigin), 1<<60).Marshal(); err != nil {
		t.Error(err)
	}
}
