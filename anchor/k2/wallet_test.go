package k2

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const walletKey = "[174,47,154,16,202,193,206,113,199,190,53,133,169,175,31,56,222,53,138,189,224,216,117,173,10,149,53,45,73,251,237,246,15,185,186,82,177,240,148,69,241,227,167,80,141,89,240,121,121,35,172,247,68,251,226,218,48,63,176,109,168,89,238,135]"

func TestReadWallet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "id.json")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadWallet(file); !errors.Is(err, ErrWallet) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	write(walletKey, 0o600)
	if a, err := Address(file); err != nil || a != "24PNhTaNtomHhoy3fTRaMhAFCRj4uHqhZEEoWrKDbR5p" {
		t.Errorf("%s, %v", a, err)
	}
	write(walletKey, 0o640)
	if _, err := ReadWallet(file); !errors.Is(err, ErrWallet) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("others can read it: %v", err)
	}
	for what, text := range map[string]string{
		"nothing": "", "a string": `"x"`, "short": "[1,2]", "no byte": strings.Replace(walletKey, "174", "256", 1), "another public half": strings.Replace(walletKey, "135]", "134]", 1),
		"large": walletKey + strings.Repeat(" ", maxWallet),
	} {
		write(text, 0o600)
		if _, err := ReadWallet(file); !errors.Is(err, ErrWallet) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := ReadWallet(t.TempDir()); !errors.Is(err, ErrWallet) {
		t.Errorf("a directory: %v", err)
	}
	if p, err := ParseProgram(""); err != nil || p.String() != DefaultMemoProgram {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := ParseProgram("0"); err == nil {
		t.Error("0 is an id")
	}
	if CheckGenesis("11111111111111111111111111111111") != nil || CheckGenesis("x") == nil {
		t.Error("genesis hashes")
	}
}

// Errors tell nothing of the key.
func FuzzParseWallet(f *testing.F) {
	f.Add([]byte(walletKey))
	f.Add([]byte("[1]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseWallet(b)
		if err == nil && k.Validate() != nil || err != nil && !errors.Is(err, ErrWallet) {
			t.Errorf("%v", err)
		}
	})
}
