package arweave

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// testWallet is one key for all tests: making it takes a second.
var testWallet = sync.OnceValue(func() *Wallet {
	w, err := NewWallet()
	if err != nil {
		panic(err)
	}
	return w
})

func TestWallet(t *testing.T) {
	w := testWallet()
	file := filepath.Join(t.TempDir(), "wallet.json")
	if err := os.WriteFile(file, w.JWK(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadWallet(file)
	if err != nil || !got.key.Equal(w.key) || got.Address() != w.Address() || len(w.Address()) != 43 {
		t.Fatalf("%v", err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o644} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadWallet(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := ReadWallet(t.TempDir()); err == nil {
		t.Error("a directory is read")
	}
	var j map[string]string
	if err := json.Unmarshal(w.JWK(), &j); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(m map[string]string){
		"kty":    func(m map[string]string) { m["kty"] = "EC" },
		"no n":   func(m map[string]string) { delete(m, "n") },
		"no d":   func(m map[string]string) { delete(m, "d") },
		"short":  func(m map[string]string) { m["n"] = m["n"][:100] },
		"padded": func(m map[string]string) { m["d"] += "=" },
		"e":      func(m map[string]string) { m["e"] = "Aw" },
		"p":      func(m map[string]string) { m["p"] = m["q"] },
		"long":   func(m map[string]string) { m["p"] += strings.Repeat("A", 2000) },
	} {
		m := map[string]string{}
		for k, v := range j {
			m[k] = v
		}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseWallet(b); err == nil {
			t.Errorf("%s: is read", name)
		} else if strings.Contains(err.Error(), j["d"][:20]) || strings.Contains(err.Error(), j["p"][:20]) {
			t.Errorf("%s: the error tells of the key: %v", name, err)
		}
	}
	if _, err := ParseWallet(bytes.Repeat([]byte("["), 100)); err == nil {
		t.Error("brackets are read")
	}
}
