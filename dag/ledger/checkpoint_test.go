package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/torchwood"
	fnote "github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
)

func testCheckpoint(t testing.TB) (ledger.Checkpoint, []byte, note.Verifier) {
	t.Helper()
	s, v := logKey(t, testOrigin, "log")
	c := ledger.Checkpoint{Origin: testOrigin, Size: 12345, Root: sha256.Sum256([]byte("root"))}
	b, err := ledger.SignCheckpoint(c, s)
	if err != nil {
		t.Fatal(err)
	}
	return c, b, v
}

// cosign appends a witness's line. Its time is that of the run: for tests that
// pin bytes it is no use.
func cosign(t testing.TB, b []byte, name string) []byte {
	t.Helper()
	s, err := torchwood.NewCosignatureSigner(name, testKey(name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = note.Open(b, nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		t.Fatal(err)
	}
	b, err = note.Sign(unverified.Note, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCheckpointRoundTrip(t *testing.T) {
	c, b, v := testCheckpoint(t)
	cosigned := cosign(t, cosign(t, b, "w1.example"), "w2.example")
	for lines, b := range map[int][]byte{1: b, 3: cosigned} {
		got, err := ledger.OpenCheckpoint(b, v)
		if err != nil || got != c {
			t.Errorf("opens as %+v, %v", got, err)
		}
		got, sigs, err := ledger.ParseCheckpointUnverified(b)
		if err != nil || got != c || len(sigs) != lines {
			t.Errorf("parses as %+v with %d signatures, %v", got, len(sigs), err)
		}
		// Others read the same.
		other, rest, _, err := fnote.ParseCheckpoint(b, testOrigin, v)
		if err != nil || other.Size != uint64(c.Size) || !bytes.Equal(other.Hash, c.Root[:]) || len(rest) != 0 {
			t.Errorf("transparency-dev reads %+v, %q, %v", other, rest, err)
		}
	}
	// The size that the design promises to chains.
	if got, want := len(b), 146+2*len(testOrigin)+len("12345"); got != want {
		t.Errorf("checkpoint of %d bytes, want %d", got, want)
	}
}

func TestLargestCheckpoint(t *testing.T) {
	origin := strings.Repeat("o", ledger.MaxOrigin)
	s, v := logKey(t, origin, "log")
	b, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: origin, Size: ledger.MaxSize, Root: sha256.Sum256(nil)}, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenCheckpoint(b, v); err != nil {
		t.Error(err)
	}
	if len(b) > 512 {
		t.Errorf("%d bytes do not fit a Koii task submission", len(b))
	}
}

func TestSignCheckpointRefuses(t *testing.T) {
	s, _ := logKey(t, testOrigin, "log")
	for _, c := range []ledger.Checkpoint{
		{Origin: "other", Size: 1}, {Origin: "", Size: 1}, {Origin: testOrigin, Size: -1}, {Origin: testOrigin, Size: ledger.MaxSize + 1},
	} {
		_, err := ledger.SignCheckpoint(c, s)
		wantErr(t, fmt.Sprintf("%+v", c), err, ledger.ErrFormat)
	}
}

func TestCheckpointEveryByte(t *testing.T) {
	_, b, v := testCheckpoint(t)
	for i := range b {
		for _, c := range []byte{b[i] ^ 1, b[i] ^ 0x20, b[i] ^ 0x80, b[i] + 1, '\n', ' ', '0', 'A', 'z'} {
			if c == b[i] {
				continue
			}
			bad := bytes.Clone(b)
			bad[i] = c
			_, err := ledger.OpenCheckpoint(bad, v)
			if !errors.Is(err, ledger.ErrFormat) && !errors.Is(err, ledger.ErrSignature) {
				t.Errorf("byte %d set to %q: %v", i, c, err)
			}
		}
	}
	for n := range b {
		_, err := ledger.OpenCheckpoint(b[:n], v)
		wantErr(t, fmt.Sprintf("cut to %d bytes", n), err, ledger.ErrFormat)
	}
	for _, more := range []string{"\n", " ", "x", "\x00", "— \n"} {
		_, err := ledger.OpenCheckpoint(append(bytes.Clone(b), more...), v)
		wantErr(t, "appended", err, ledger.ErrFormat)
	}
}

// badCheckpoints returns what note takes and the canonical form does not.
func badCheckpoints(t testing.TB) map[string][]byte {
	s, _ := logKey(t, testOrigin, "log")
	other, _ := logKey(t, "other.example", "log")
	again, _ := logKey(t, testOrigin, "log 2")
	_, good, _ := testCheckpoint(t)
	text, _, _ := strings.Cut(string(good), "\n\n")
	text += "\n"
	signed := func(text string, by ...note.Signer) []byte {
		b, err := note.Sign(&note.Note{Text: text}, by...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	lines := strings.SplitAfter(string(good), "\n")
	line := lines[len(lines)-2]
	// 68 bytes leave four bits of the last base64 digit unused.
	at := strings.LastIndex(string(good), "=") - 1
	sloppy := bytes.Clone(good)
	sloppy[at]++
	return map[string][]byte{
		"extension line":           signed(text+"extension\n", s),
		"leading zero":             signed(strings.Replace(text, "\n12345\n", "\n012345\n", 1), s),
		"plus sign":                signed(strings.Replace(text, "\n12345\n", "\n+12345\n", 1), s),
		"negative size":            signed(strings.Replace(text, "\n12345\n", "\n-1\n", 1), s),
		"size too large":           signed(strings.Replace(text, "\n12345\n", fmt.Sprintf("\n%d\n", ledger.MaxSize+1), 1), s),
		"short root":               signed(strings.Replace(text, "=\n", "\n", 1), s),
		"no log signature":         signed(text, other),
		"log signature not first":  signed(text, other, s),
		"two keys of the log":      signed(text, s, again),
		"log signature twice":      append(bytes.Clone(good), line...),
		"non-canonical base64":     sloppy,
		"too large":                append(bytes.Repeat([]byte("x"), ledger.MaxCheckpoint), good...),
		"origin with control byte": signed("a\u0085\n1\n"+strings.SplitN(text, "\n", 4)[2]+"\n", s),
	}
}

func TestCheckpointCanonical(t *testing.T) {
	_, _, v := testCheckpoint(t)
	for what, b := range badCheckpoints(t) {
		_, _, err := ledger.ParseCheckpointUnverified(b)
		wantErr(t, what, err, ledger.ErrFormat)
		_, err = ledger.OpenCheckpoint(b, v)
		wantErr(t, what, err, ledger.ErrFormat)
	}
}

func TestOpenCheckpointOtherKey(t *testing.T) {
	_, b, _ := testCheckpoint(t)
	_, otherKey := logKey(t, testOrigin, "log 2")
	_, err := ledger.OpenCheckpoint(b, otherKey)
	wantErr(t, "another key", err, ledger.ErrSignature)
	_, otherOrigin := logKey(t, "other", "log")
	_, err = ledger.OpenCheckpoint(b, otherOrigin)
	wantErr(t, "another origin", err, ledger.ErrSignature)
}

func FuzzParseCheckpoint(f *testing.F) {
	_, b, v := testCheckpoint(f)
	f.Add(b)
	f.Add(cosign(f, b, "w1.example"))
	for what, b := range badCheckpoints(f) {
		if what != "too large" {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, sigs, err := ledger.ParseCheckpointUnverified(b)
		if err != nil {
			wantErr(t, "parse", err, ledger.ErrFormat)
			return
		}
		again, err := note.Sign(&note.Note{
			Text:           fmt.Sprintf("%s\n%d\n%v\n", c.Origin, c.Size, c.Root),
			UnverifiedSigs: sigs,
		})
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q parses, and is written as %q, %v", b, again, err)
		}
		if opened, err := ledger.OpenCheckpoint(b, v); err == nil && opened != c {
			t.Fatalf("opens as %+v, parses as %+v", opened, c)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte{0, 0})
	f.Add([]byte{0, 2, 1, 2, 0, 1, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		blocks, err := ledger.ParseBundle(b)
		if err != nil {
			wantErr(t, "parse", err, ledger.ErrFormat)
			return
		}
		var again []byte
		for _, block := range blocks {
			if again, err = ledger.AppendBundle(again, block); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x parses, and is written as %x", b, again)
		}
	})
}
