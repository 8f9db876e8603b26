package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/dag/ledger"
)

// vectorEntries returns the entries of the vectors and who signs them.
func vectorEntries(t testing.TB) (names []string, entries []*ledger.Entry) {
	add := func(name string, e *ledger.Entry) { names, entries = append(names, name), append(entries, e) }
	add("genesis policy of two curators", policyEntry(-1, "a", "b"))
	add("first version", datasetEntry("d"))
	next := datasetEntry("d")
	next.Previous, next.Times = 1, false
	next.Parents = []cid.Cid{testCID(cid.DagCBOR, "p"), testCID(cid.DagCBOR, "q")}
	add("second version with two parents", next)
	small := datasetEntry("empty-file")
	small.Root, small.Size, small.Files, small.Leaves, small.Chunks = testCID(cid.Raw, ""), 0, 1, 1, 0
	add("empty file", small)
	add("later policy", policyEntry(0, "c"))
	add("removal", removalEntry("d", 2, 0))
	add("later policy of two", policyEntry(4, "b", "c"))
	add("genesis policy that follows another log", successor(t, "before.example", 12345))
	old := policyEntry(0, "a")
	old.Curators = append([]ledger.CuratorKey{{}}, append(old.Curators, noPoint)...)
	add("later policy that names what is no key", old)
	return names, entries
}

// noPoint sorts behind all keys.
var noPoint = ledger.CuratorKey(bytes.Repeat([]byte{0xff}, 32))

// forgedEntry returns an entry whose signature nobody had to make: R is the neutral point and
// S is 0, under the neutral point as the key.
func forgedEntry(t testing.TB, e *ledger.Entry) []byte {
	e.Curator = ledger.CuratorKey{1}
	e.Signature = [64]byte{1}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bundled is how many of the entries are in the vector of a bundle.
const bundled = 5

// refusedEntries returns blocks made from a sound one. The signature is of no
// account where the class is format.
func refusedEntries(t testing.TB) (list []refusedVector) {
	add := func(name, class string, block []byte) {
		list = append(list, refusedVector{name, class, hexOf(block)})
	}
	good := sign(t, datasetEntry("d"), "a")
	edit := func(from, to string) []byte {
		if bytes.Count(good, []byte(from)) != 1 {
			t.Fatalf("%q is not in the block once", from)
		}
		return bytes.Replace(good, []byte(from), []byte(to), 1)
	}
	keys := func(b []byte, more int) []byte { b[0] = byte(int(b[0]) + more); return b }
	add("empty", "format", nil)
	add("integer not in its shortest form", "format", edit("\x64kind\x01", "\x64kind\x18\x01"))
	add("keys out of order", "format", edit("\x65files\x02\x65times\xf5", "\x65times\xf5\x65files\x02"))
	add("unknown key", "format", keys(append(bytes.Clone(good), "\x6bzzzzzzzzzzz\x00"...), 1))
	add("key twice", "format", keys(edit("\x64kind\x01", "\x64kind\x01\x64kind\x01"), 1))
	add("key missing", "format", keys(edit("\x65times\xf5", ""), -1))
	add("policy missing", "format", keys(edit("\x66policy\x00", ""), -1))
	add("null instead of no key", "format", keys(edit("\x69signature", "\x68previous\xf6\x69signature"), 1))
	add("key of another kind", "format", keys(edit("\x69signature", "\x68curators\x80\x69signature"), 1))
	add("map of indefinite length", "format", append(append([]byte{0xbf}, good[1:]...), 0xff))
	add("byte too many", "format", append(bytes.Clone(good), 0))
	add("cut short", "format", good[:len(good)-1])
	add("not a map", "format", []byte{0x80})
	add("another version", "format", edit("\x67version\x01", "\x67version\x02"))
	add("unknown kind", "format", edit("\x64kind\x01", "\x64kind\x02"))
	add("negative time", "format", edit("\x64time\x1b", "\x64time\x3b"))
	add("integer as text", "format", edit("\x65files\x02", "\x65files\x612"))
	add("name with a slash", "format", edit("\x64name\x61d", "\x64name\x61/"))
	add("empty name", "format", edit("\x64name\x61d", "\x64name\x60"))
	add("name is a CID", "format", edit("\x64name\x61d", "\x64name\x78\x3b"+testCID(cid.Raw, "x").String()))
	add("more files than leaves", "format", edit("\x65files\x02", "\x65files\x04"))
	add("link with another tag", "format", edit("\x64root\xd8\x2a", "\x64root\xd8\x2b"))
	add("link without its zero byte", "format", edit("\x64root\xd8\x2a\x58\x25\x00\x01", "\x64root\xd8\x2a\x58\x25\x01\x01"))
	add("root in another codec", "format", edit("\x58\x25\x00\x01\x70", "\x58\x25\x00\x01\x71"))
	add("parent that is no entry", "format", edit("\x67parents\x80", "\x67parents\x81\xd8\x2a\x58\x25\x00\x01\x55\x12\x20"+strings.Repeat("x", 32)))
	add("short commitment", "format", bytes.Replace(good[:len(good)-1], []byte("\x6acommitment\x58\x20"), []byte("\x6acommitment\x58\x1f"), 1))
	add("above 16 KiB", "format", append(bytes.Clone(good), make([]byte, ledger.MaxEntry)...))

	policy := sign(t, policyEntry(-1, "a", "b"), "a")
	at := bytes.Index(policy, []byte("\x68curators\x82")) + 10
	swapped := slices.Concat(policy[:at], policy[at+34:at+68], policy[at:at+34], policy[at+68:])
	add("curators not sorted", "format", swapped)
	add("curator twice", "format", slices.Concat(policy[:at], policy[at:at+34], policy[at:at+34], policy[at+68:]))

	add("changed after signing", "signature", edit("\x65files\x02", "\x65files\x01"))
	signedFor := func(id ledger.LogID) []byte {
		e := datasetEntry("d")
		if err := e.Sign(id, testKey("a")); err != nil {
			t.Fatal(err)
		}
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	add("signed for another key of the log", "signature", signedFor(ledger.LogID{Origin: testOrigin, KeyID: testLog(t).KeyID ^ 1}))
	add("signed for another log", "signature", signedFor(ledger.LogID{Origin: "other.example", KeyID: testLog(t).KeyID}))
	e := datasetEntry("d")
	sign(t, e, "b")
	e.Curator = curator("a")
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	add("signed by another curator", "signature", b)
	// S plus the order of the group passes a verifier that does not check its range.
	sign(t, e, "a")
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	le := bytes.Clone(e.Signature[32:])
	slices.Reverse(le)
	le = order.Add(order, new(big.Int).SetBytes(le)).FillBytes(make([]byte, 32))
	slices.Reverse(le)
	copy(e.Signature[32:], le)
	if b, err = e.Marshal(); err != nil {
		t.Fatal(err)
	}
	add("S of the signature not reduced", "signature", b)

	removal := sign(t, removalEntry("d", 2, 0), "a")
	change := func(from, to string) []byte {
		if bytes.Count(removal, []byte(from)) != 1 {
			t.Fatalf("%q is not in the removal once", from)
		}
		return bytes.Replace(removal, []byte(from), []byte(to), 1)
	}
	add("removal without previous", "format", keys(change("\x68previous\x02", ""), -1))
	add("removal without policy", "format", keys(change("\x66policy\x00", ""), -1))
	add("removal without a name", "format", keys(change("\x64name\x61d", ""), -1))
	add("removal with parents", "format", keys(change("\x67version", "\x67parents\x80\x67version"), 1))
	add("removal with curators", "format", keys(change("\x68previous", "\x68curators\x80\x68previous"), 1))
	add("removal with a CID as its name", "format", change("\x64name\x61d", "\x64name\x78\x3b"+testCID(cid.Raw, "x").String()))
	add("kind to come", "format", change("\x64kind\x02", "\x64kind\x03"))
	add("removal of another name than was signed", "signature", change("\x64name\x61d", "\x64name\x61e"))
	add("removal of another version than was signed", "signature", change("\x68previous\x02", "\x68previous\x03"))
	add("policy without curators", "format", slices.Concat(policy[:at-1], []byte{0x80}, policy[at+68:]))
	later := sign(t, policyEntry(4, "b", "c"), "a")
	add("policy under another one than was signed", "signature", bytes.Replace(later, []byte("\x66policy\x04"), []byte("\x66policy\x03"), 1))
	add("signed under a key of small order", "signature", forgedEntry(t, datasetEntry("d")))
	return append(list, refusedPredecessors(t)...)
}

// admissionSteps offers entries to one log, one after the other.
func admissionSteps(t testing.TB) (list []admissionVector) {
	s := &memState{t: t}
	results := map[error]string{
		ledger.ErrConflict: "conflict", ledger.ErrNotAdmitted: "not admitted", ledger.ErrDuplicate: "duplicate",
		ledger.ErrUnknownParent: "unknown parent", ledger.ErrSignature: "signature",
		ledger.ErrFormat: "format",
	}
	offerBlock := func(name string, block []byte) []byte {
		result := "admitted"
		if _, err := ledger.Admit(context.Background(), s, testLog(t), block); err == nil {
			s.blocks = append(s.blocks, block)
		} else {
			for target, r := range results {
				if errors.Is(err, target) {
					result = r
				}
			}
		}
		list = append(list, admissionVector{name, hexOf(block), result})
		return block
	}
	offer := func(name string, e *ledger.Entry, by string) []byte { return offerBlock(name, sign(t, e, by)) }
	version := func(previous, policy int64, parents ...cid.Cid) *ledger.Entry {
		e := datasetEntry("d")
		e.Previous, e.Policy, e.Parents = previous, policy, parents
		return e
	}
	offer("dataset before any policy", version(-1, 0), "a")
	offer("policy by one whom it does not name", policyEntry(-1, "a", "b"), "c")
	offer("genesis that follows its own log", successor(t, testOrigin, 3), "a")
	offer("genesis", policyEntry(-1, "a", "b"), "a")
	offer("genesis again", policyEntry(-1, "a", "b"), "a")
	offer("second genesis", policyEntry(-1, "a"), "a")
	first := offer("first version", version(-1, 0), "b")
	offer("first version again", version(-1, 0), "b")
	offer("first version by another curator", version(-1, 0), "a")
	offer("curator not named", version(1, 0), "c")
	offer("parent unknown", version(1, 0, testCID(cid.DagCBOR, "nowhere")), "a")
	offer("second version", version(1, 0, ledger.EntryCID(first)), "a")
	offer("policy by one not admitted", policyEntry(0, "c"), "c")
	offer("new policy", policyEntry(0, "c"), "b")
	offer("stale policy", version(2, 0), "c")
	offer("no longer admitted", version(2, 3), "a")
	offer("third version", version(2, 3), "c")
	offer("removal of an older version", removalEntry("d", 2, 3), "c")
	offer("removal by one not admitted", removalEntry("d", 4, 3), "a")
	offer("removal of a name that is not there", removalEntry("e", 4, 3), "c")
	offer("removal", removalEntry("d", 4, 3), "c")
	offer("removal again", removalEntry("d", 4, 3), "c")
	offer("removal of what is removed", removalEntry("d", 5, 3), "c")
	offer("version that skips the removal", version(4, 3), "c")
	offer("version after the removal", version(5, 3), "c")
	offer("policy of two", policyEntry(3, "b", "c"), "c")
	offer("policy by one whom only it admits", policyEntry(7, "b"), "a")
	offer("policy under the one before the newest", policyEntry(3, "b"), "c")
	offer("policy of one", policyEntry(7, "b"), "c")
	offer("version under the old policy by one who stays", version(6, 7), "b")
	offer("version by one who is gone", version(6, 8), "c")
	offer("version by one who stays", version(6, 8), "b")
	old := policyEntry(8, "b")
	old.Curators = append([]ledger.CuratorKey{{1}}, old.Curators...)
	offer("policy that names a key of small order", old, "b")
	offerBlock("version signed under it", forgedEntry(t, version(9, 10)))
	offer("version by the one beside it", version(9, 10), "b")
	return list
}
