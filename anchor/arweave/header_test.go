package arweave

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/everFinance/goar/types"
	"github.com/everFinance/goar/utils"

	"github.com/koii-network/scale/anchor"
)

var update = flag.Bool("update", false, "write testdata/header.json anew, signed by a new key")

func itoa(n int) string { return strconv.Itoa(n) }

// A vector is a header with what it says; others read it too: see SPEC.md.
type vector struct {
	Raw        string `json:"raw"`
	ID         string `json:"id"`
	Signer     string `json:"signer"`
	Origin     string `json:"origin"`
	Checkpoint string `json:"checkpoint"`
	DataRoot   string `json:"data_root"`
	DataSize   int64  `json:"data_size"`
	Reward     uint64 `json:"reward"`
}

func readVector(t testing.TB) vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "header.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func vectorOf(h Header) vector {
	return vector{Raw: string(h.Raw), ID: h.ID, Signer: h.Signer, Origin: h.Origin, Checkpoint: string(h.Checkpoint), DataRoot: encode(h.DataRoot), DataSize: h.DataSize, Reward: h.Reward}
}

func TestHeaderVector(t *testing.T) {
	if *update {
		tx, _ := signed(t, 1000)
		b, err := json.MarshalIndent(vectorOf(must(open(tx.Raw))(t)), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", "header.json"), append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	v := readVector(t)
	if got := vectorOf(must(open([]byte(v.Raw)))(t)); got != v {
		t.Errorf("reads as %+v", got)
	}
	var tx types.Transaction
	if err := json.Unmarshal([]byte(v.Raw), &tx); err != nil {
		t.Fatal(err)
	}
	if err := utils.VerifyTransaction(tx); err != nil { // the library's own reading
		t.Error(err)
	}
}

// TestNoByteIsFree changes every byte of a header in several ways.
func TestNoByteIsFree(t *testing.T) {
	raw := []byte(readVector(t).Raw)
	changes := []byte{1, 2, 0x20, 0x80}
	if testing.Short() {
		changes = changes[:1]
	}
	for i := range raw {
		for _, x := range changes {
			b := bytes.Clone(raw)
			b[i] ^= x
			if h, err := open(b); !errors.Is(err, anchor.ErrForged) {
				t.Fatalf("byte %d as %q: %+v, %v", i, b[i], h, err)
			}
		}
		if _, err := open(raw[:i]); !errors.Is(err, anchor.ErrForged) {
			t.Fatalf("%d bytes: %v", i, err)
		}
	}
	if _, err := open(append(bytes.Clone(raw), ' ')); !errors.Is(err, anchor.ErrForged) {
		t.Error("a space at the end is taken")
	}
}

// TestOpenRefuses: transactions that are properly signed, and still are no anchors.
func TestOpenRefuses(t *testing.T) {
	good, _ := signed(t, 1000)
	for name, change := range map[string]func(tx *types.Transaction, tags map[string]string){
		"":                 func(*types.Transaction, map[string]string) {},
		"format":           func(tx *types.Transaction, _ map[string]string) { tx.Format = 1 },
		"target":           func(tx *types.Transaction, _ map[string]string) { tx.Target = encode(make([]byte, 32)) },
		"quantity":         func(tx *types.Transaction, _ map[string]string) { tx.Quantity = "1" },
		"no body":          func(tx *types.Transaction, _ map[string]string) { tx.DataSize = "0" },
		"size":             func(tx *types.Transaction, _ map[string]string) { tx.DataSize = "01000" },
		"root":             func(tx *types.Transaction, _ map[string]string) { tx.DataRoot = encode(make([]byte, 31)) },
		"reward":           func(tx *types.Transaction, _ map[string]string) { tx.Reward = "5e2" },
		"last_tx":          func(tx *types.Transaction, _ map[string]string) { tx.LastTx = encode(make([]byte, 49)) },
		"app":              func(_ *types.Transaction, tags map[string]string) { tags[tagApp] = "SCALE2" },
		"type":             func(_ *types.Transaction, tags map[string]string) { tags[tagType] = "text/html" },
		"origin":           func(_ *types.Transaction, tags map[string]string) { tags[tagOrigin] = "log.exampl" },
		"no checkpoint":    func(_ *types.Transaction, tags map[string]string) { delete(tags, tagCheckpoint) },
		"too much in tags": func(_ *types.Transaction, tags map[string]string) { tags["Note"] = strings.Repeat("x", 1900) },
	} {
		var tx types.Transaction
		if err := json.Unmarshal(good.Raw, &tx); err != nil {
			t.Fatal(err)
		}
		list := must(utils.TagsDecode(tx.Tags))(t)
		tags := map[string]string{}
		for _, tag := range list {
			tags[tag.Name] = tag.Value
		}
		change(&tx, tags)
		list = nil
		for n, v := range tags {
			list = append(list, types.Tag{Name: n, Value: v})
		}
		tx.Tags = utils.TagsEncode(list)
		if err := utils.SignTransaction(&tx, testWallet().key); err != nil {
			t.Fatal(err)
		}
		raw := must(format(tx))(t)
		if _, err := open(raw); (err == nil) != (name == "") || err != nil && !errors.Is(err, anchor.ErrForged) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	raw := []byte(readVector(f).Raw)
	f.Add(raw)
	f.Add(bytes.Replace(raw, []byte(`"format":2`), []byte(`"format":1`), 1))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := open(b)
		switch {
		case err != nil && !errors.Is(err, anchor.ErrForged):
			t.Errorf("%v", err)
		case err == nil && !bytes.Equal(b, raw):
			t.Errorf("%s opens as %+v", b, h)
		}
		if n, err := normal(b); err == nil {
			if again, err := normal(n); err != nil || !bytes.Equal(again, n) {
				t.Errorf("%s becomes %s, then %s: %v", b, n, again, err)
			}
		}
	})
}
