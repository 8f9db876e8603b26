package arweave

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/everFinance/goar/utils"
)

// TestDataRoot compares with what arweave-js 1.15.7 says of the same bytes: number of
// chunks, data root, and the beginning of a digest over all paths.
func TestDataRoot(t *testing.T) {
	for _, v := range []struct {
		size, chunks int
		root, paths  string
	}{
		{1, 1, "Ht_yZhXGBDUZfLv4OD6we7FkrjcpDpGPwQZEZgEJVfk", "02eceb606a2177f5"},
		{262143, 1, "mKn7lkJZ5Uq7l5HQUdkKpk4nDH_vWpoouZ87KS-g3ao", "e2cd4b82a862e2b1"},
		{262144, 1, "ynRharnsTytY4DWoVqhPWg_KKP2c6IINnSmapZsn-7E", "023df44f7030b932"},
		{262145, 2, "lMHUoCiwDsSdn2Z52m6ui797LUTPjH_lHnR1sgqNAEU", "b0431755f3b54fb3"},
		{262146, 2, "q721wNE2rynicV7UrH7hqE9KMqRAAYAwhVipyS6xnAw", "9077e00691786938"},
		{294911, 2, "no6RcgbdBfOnrePcApTc5xtEFRGb3EYLTypfUbwnVAA", "1aba7e5ecd54da6b"},
		{294912, 2, "AqCWsFJXEX7MKNWkyzcUkC-6ziN7ZGolnOttoYksffU", "8ef55b686fb95d44"},
		{524288, 2, "LDdIz4hNnP95V0E4Hq6PYxkEnBk0C94dSAtr-mDx0jw", "299828b5a60ce584"},
		{524289, 3, "3ktvLrei6vhvq_avre3eVLsWhfNOH9k-n7sJMgDnbH0", "8dbaa242f64d549d"},
		{556800, 3, "k4daZRwUNn3z3YNVfJCg8oQeL3WKcFzYPJR6LTBOtgo", "2668afeba74d5bc7"},
		{600001, 3, "pLRCibymVkfYlNmgs3RrDcW0VCGnL3ciq9hhLCavinU", "144dea8db6f45291"},
		{1048576, 4, "wP7QXg3RLTgwkUsa2fCb72Ls-upen0c11lAUcLUgncA", "a577ab623a86a2f2"},
		{1048577, 5, "Ww5Jytz_tf2fRarB9q6ockzUaxoDldezaXZP7Pgp3So", "79bf55f280e2cb41"},
	} {
		body := make([]byte, v.size)
		for i := range body {
			body[i] = byte(i*7 + i>>10)
		}
		root, pieces, err := cut(body)
		if err != nil {
			t.Fatal(err)
		}
		paths := sha256.New()
		var again []byte
		for _, p := range pieces {
			paths.Write(p.path)
			again = append(again, body[p.start:p.end]...)
		}
		if got := hex.EncodeToString(paths.Sum(nil)[:8]); encode(root[:]) != v.root || len(pieces) != v.chunks || got != v.paths {
			t.Errorf("%d bytes: %d chunks, root %s, paths %s; want %+v", v.size, len(pieces), encode(root[:]), got, v)
		}
		if !bytes.Equal(again, body) || DataRoot(body) != root {
			t.Errorf("%d bytes: the chunks are not the body", v.size)
		}
		// The library cuts an odd end otherwise than arweave-js, which is why it does not
		// make the tree. Where it cuts alike, it has to find the same.
		if lib, err := utils.GenerateChunks(body); err != nil || v.size%2 == 0 && !bytes.Equal(lib.DataRoot, root[:]) {
			t.Errorf("%d bytes: goar says %s, %v", v.size, encode(lib.DataRoot), err)
		}
	}
}
