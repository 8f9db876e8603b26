package extension

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag/ledger"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

// raw builds a bundle around frames.
func raw(t testing.TB, list [][]byte, news, receipts uint64, frames ...[]byte) []byte {
	root := ledger.EmptyRoot()
	b := append([]byte(Magic), 0, 0)
	b = append(b, root[:]...)
	b = appendString(b, string(checkpoint(t, list)))
	b = binary.AppendUvarint(binary.AppendUvarint(b, news), receipts)
	return append(b, bytes.Join(frames, nil)...)
}

// frame is one that is stored as it is, of the given plain size.
func frame(codec byte, size uint64, sealed []byte) []byte {
	return appendString(binary.AppendUvarint([]byte{codec}, size), string(sealed))
}

type vector struct {
	Name     string   `json:"name"`
	Body     string   `json:"body"` // hex
	Error    string   `json:"error,omitempty"`
	BaseID   string   `json:"base_id,omitempty"`
	BaseSize int64    `json:"base_size,omitempty"`
	Size     int64    `json:"size,omitempty"`
	Entries  []string `json:"entries,omitempty"`  // hex
	Receipts []string `json:"receipts,omitempty"` // hex
}

func vectors(t testing.TB) []vector {
	list := blocks(t, 4)
	rec := appendString(nil, string(list[0]))
	two := appendString(bytes.Clone(rec), string(list[1]))
	plain := func(b []byte) []byte { return frame(0, uint64(len(b)), b) }
	out := []vector{
		{Name: "first, one entry", Body: hex.EncodeToString(made(t, list[:1], 0, 0))},
		{Name: "later, with receipts", Body: hex.EncodeToString(made(t, list, 1, 2))},
		{Name: "raw frames, one record each", Body: hex.EncodeToString(raw(t, list[:2], 2, 0, plain(rec), plain(appendString(nil, string(list[1])))))},
	}
	good := made(t, list[:1], 0, 0)
	bad := map[string][]byte{
		"empty":                  {},
		"another version":        bytes.Replace(good, []byte("/v1\n"), []byte("/v2\n"), 1),
		"no entries":             raw(t, list[:1], 0, 0),
		"checkpoint of another":  raw(t, list[:2], 1, 0, plain(rec)),
		"entries missing":        raw(t, list[:2], 2, 0, plain(rec)),
		"entries too many":       raw(t, list[:1], 1, 0, plain(two)),
		"receipt too many":       raw(t, list[:1], 1, 0, plain(slices.Concat(rec, appendString(nil, string(receipt(0).Append(nil)))))),
		"receipt missing":        raw(t, list[:1], 1, 1, plain(rec)),
		"malformed receipt":      raw(t, list[:1], 1, 1, plain(slices.Concat(rec, []byte{1, 0}))),
		"empty frame":            raw(t, list[:1], 1, 0, plain(nil), plain(rec)),
		"record over frames":     raw(t, list[:1], 1, 0, plain(rec[:10]), plain(rec[10:])),
		"empty entry":            raw(t, list[:1], 1, 0, plain([]byte{0})),
		"unknown codec":          raw(t, list[:1], 1, 0, frame(9, uint64(len(rec)), rec)),
		"wrong plain size":       raw(t, list[:1], 1, 0, frame(0, uint64(len(rec))+1, rec)),
		"frame above the bound":  raw(t, list[:1], 1, 0, frame(1, compress.MaxPlain+1, rec)),
		"not zstd":               raw(t, list[:1], 1, 0, frame(1, uint64(len(rec)), rec)),
		"long varint":            append([]byte(Magic), 0x80, 0),
		"first with a base's id": bytes.Replace(good, []byte(Magic+"\x00"), []byte(Magic+"\x01x"), 1),
	}
	names := make([]string, 0, len(bad))
	for n := range bad {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		out = append(out, vector{Name: n, Body: hex.EncodeToString(bad[n]), Error: "format"})
	}
	for i := range out {
		b, err := hex.DecodeString(out[i].Body)
		if err != nil {
			t.Fatal(err)
		}
		x, entries, receipts, err := records(b)
		switch {
		case out[i].Error != "":
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %v", out[i].Name, err)
			}
			continue
		case err != nil:
			t.Fatalf("%s: %v", out[i].Name, err)
		}
		out[i].BaseID, out[i].BaseSize, out[i].Size = x.Base.ID, x.Base.Size, x.Size
		for _, e := range entries {
			out[i].Entries = append(out[i].Entries, hex.EncodeToString(e))
		}
		for _, r := range receipts {
			out[i].Receipts = append(out[i].Receipts, hex.EncodeToString(r.Append(nil)))
		}
	}
	return out
}

// TestVectors reads the bundles in testdata, which are those of SPEC.md for others. How
// zstd makes a frame may change; what is in it may not.
func TestVectors(t *testing.T) {
	file := filepath.Join("testdata", "vectors.json")
	want := vectors(t)
	if *update {
		b, err := json.MarshalIndent(want, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []vector
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d vectors, want %d", len(got), len(want))
	}
	for i, g := range got {
		body, err := hex.DecodeString(g.Body)
		if err != nil {
			t.Fatal(err)
		}
		x, entries, receipts, err := records(body)
		if (err != nil) != (g.Error == "format") {
			t.Errorf("%s: %v", g.Name, err)
		}
		if err != nil {
			continue
		}
		g.Body = want[i].Body
		if !reflect.DeepEqual(g, want[i]) || x.Size != g.Size || len(entries) != len(g.Entries) || len(receipts) != len(g.Receipts) {
			t.Errorf("%s: reads otherwise", g.Name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		b, err := hex.DecodeString(v.Body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, entries, receipts, err := records(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%v", err)
			}
			return
		}
		if int64(len(entries)) != x.Size-x.Base.Size {
			t.Errorf("%d entries from %d to %d", len(entries), x.Base.Size, x.Size)
		}
		again, err := Encode(t.Context(), anchor.Extension{Base: base(x), Size: x.Size, Checkpoint: x.Checkpoint, Receipts: receipts}, seq(entries))
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, e, r, err := records(again); err != nil || !reflect.DeepEqual(e, entries) || !reflect.DeepEqual(r, receipts) {
			t.Errorf("what was written reads otherwise: %v", err)
		}
	})
}

func base(x *Bundle) anchor.Link {
	if x.Base.Size == 0 {
		return anchor.Link{}
	}
	return x.Base
}
