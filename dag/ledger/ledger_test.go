package ledger_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"golang.org/x/mod/sumdb/note"

	"github.com/koii-network/scale/dag/ledger"
)

const testOrigin = "log.example/scale"

// testKey returns a fixed key: what it signs is pinned in testdata.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("scale test key " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func curator(name string) ledger.CuratorKey {
	return ledger.CuratorKey(testKey(name).Public().(ed25519.PublicKey))
}

func logVKey(t testing.TB, origin, name string) string {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(origin, testKey(name).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

// logKey returns a fixed signer and verifier of checkpoints.
func logKey(t testing.TB, origin, name string) (note.Signer, note.Verifier) {
	t.Helper()
	key := testKey(name)
	v, err := note.NewVerifier(logVKey(t, origin, name))
	if err != nil {
		t.Fatal(err)
	}
	secret := base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))
	s, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", origin, v.KeyHash(), secret))
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func testLog(t testing.TB) ledger.LogID {
	_, v := logKey(t, testOrigin, "log")
	return ledger.LogID{Origin: v.Name(), KeyID: v.KeyHash()}
}

func testCID(codec uint64, content string) cid.Cid {
	d := sha256.Sum256([]byte(content))
	mh, err := multihash.Encode(d[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(codec, mh)
}

var testTime = time.Date(2026, 11, 21, 9, 0, 0, 123e6, time.UTC)

// policyEntry and datasetEntry return entries yet to be signed.
func policyEntry(inForce int64, names ...string) *ledger.Entry {
	e := &ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: inForce, Time: testTime}
	for _, n := range names {
		e.Curators = append(e.Curators, curator(n))
	}
	slices.SortFunc(e.Curators, ledger.CuratorKey.Compare)
	return e
}

func datasetEntry(name string) *ledger.Entry {
	return &ledger.Entry{
		Kind: ledger.KindDataset, Name: name, Root: testCID(cid.DagProtobuf, "root of "+name),
		Size: 1 << 33, Files: 2, Leaves: 3, Chunks: 300000, Commitment: sha256.Sum256([]byte(name)),
		Profile: "scale-1", Times: true, Previous: -1, Policy: 0, Time: testTime,
	}
}

func removalEntry(name string, previous, inForce int64) *ledger.Entry {
	return &ledger.Entry{Kind: ledger.KindRemoval, Name: name, Previous: previous, Policy: inForce, Time: testTime}
}

func sign(t testing.TB, e *ledger.Entry, by string) []byte {
	t.Helper()
	if err := e.Sign(testLog(t), testKey(by)); err != nil {
		t.Fatal(err)
	}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "go-1.26.8", "A_b.C", ".", "..", "-", strings.Repeat("x", 128), "baf", "Qm"} {
		if err := ledger.CheckName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	c := testCID(cid.Raw, "x")
	v0 := cid.NewCidV0(c.Hash()).String()
	for _, s := range []string{"", strings.Repeat("x", 129), "a/b", "a b", "a@1", ":1", "é", "a\n", "a\x00", c.String(), v0} {
		wantErr(t, fmt.Sprintf("%q", s), ledger.CheckName(s), ledger.ErrFormat)
	}
}

func TestCheckOrigin(t *testing.T) {
	for _, s := range []string{"a", "log.example/scale", "scale-0123", "журнал", strings.Repeat("x", 100)} {
		if err := ledger.CheckOrigin(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", strings.Repeat("x", 101), "a b", "a\u00a0b", "a+b", "a\nb", "a\x01b", "a\x7f", "\xff", "a\u200eb"} {
		wantErr(t, fmt.Sprintf("%q", s), ledger.CheckOrigin(s), ledger.ErrFormat)
	}
}

func TestCuratorKeyText(t *testing.T) {
	for _, k := range []ledger.CuratorKey{{}, {31: 1}, {0: 255}, curator("a")} {
		got, err := ledger.ParseCuratorKeyUnverified(k.String())
		if err != nil || got != k {
			t.Errorf("%v parses as %v, %v", k, got, err)
		}
	}
	// The Solana system program's address is 32 zero bytes.
	if got, want := (ledger.CuratorKey{}).String(), strings.Repeat("1", 32); got != want {
		t.Errorf("zero key is %q, want %q", got, want)
	}
	for _, s := range []string{"", "1", strings.Repeat("1", 31), strings.Repeat("1", 33), "0OIl", curator("a").String() + "1", strings.Repeat("z", 1<<20)} {
		_, err := ledger.ParseCuratorKey(s)
		wantErr(t, "curator key", err, ledger.ErrFormat)
		_, err = ledger.ParseCuratorKeyUnverified(s)
		wantErr(t, "curator key, unverified", err, ledger.ErrFormat)
	}
	// What has the form of a key and is none is told so.
	_, err := ledger.ParseCuratorKey(strings.Repeat("1", 32))
	wantErr(t, "zero key", err, ledger.ErrFormat)
	if err == nil || !strings.Contains(err.Error(), "not the public key of a curator: it is a point of small order") {
		t.Error(err)
	}
}

// memState is a plain State.
type memState struct {
	t      testing.TB
	blocks [][]byte
}

func (m *memState) entry(i int) *ledger.Entry {
	e, err := ledger.ParseEntry(m.blocks[i])
	if err != nil {
		m.t.Fatal(err)
	}
	return e
}

func (m *memState) find(match func(*ledger.Entry) bool) int64 {
	for i := len(m.blocks) - 1; i >= 0; i-- {
		if match(m.entry(i)) {
			return int64(i)
		}
	}
	return -1
}

func (m *memState) Policy(context.Context) (int64, *ledger.Entry, error) {
	i := m.find(func(e *ledger.Entry) bool { return e.Kind == ledger.KindPolicy })
	if i < 0 {
		return -1, nil, nil
	}
	return i, m.entry(int(i)), nil
}

func (m *memState) Newest(_ context.Context, name string) (int64, ledger.Kind, error) {
	i := m.find(func(e *ledger.Entry) bool { return e.Name == name })
	if i < 0 {
		return -1, 0, nil
	}
	return i, m.entry(int(i)).Kind, nil
}

func (m *memState) IndexOf(_ context.Context, c cid.Cid) (int64, error) {
	return int64(slices.IndexFunc(m.blocks, func(b []byte) bool { return ledger.EntryCID(b) == c })), nil
}

func TestAdmit(t *testing.T) {
	ctx := context.Background()
	s := &memState{t: t}
	first := sign(t, datasetEntry("d"), "b")
	steps := []struct {
		what  string
		entry *ledger.Entry
		by    string
		edit  func(*ledger.Entry) // after signing
		want  error
	}{
		{what: "dataset first", entry: datasetEntry("d"), by: "a", want: ledger.ErrConflict},
		{what: "policy that names another policy", entry: policyEntry(0, "a"), by: "a", want: ledger.ErrConflict},
		{what: "policy by one it does not name", entry: policyEntry(-1, "a", "b"), by: "c", want: ledger.ErrNotAdmitted},
		{what: "forged signature", entry: policyEntry(-1, "a", "b"), by: "a", edit: func(e *ledger.Entry) { e.Curator = curator("b") }, want: ledger.ErrSignature},
		{what: "genesis", entry: policyEntry(-1, "a", "b"), by: "a"},
		{what: "genesis again", entry: policyEntry(-1, "a", "b"), by: "a", want: ledger.ErrDuplicate},
		{what: "another genesis", entry: policyEntry(-1, "a"), by: "a", want: ledger.ErrConflict},
		{what: "not admitted", entry: datasetEntry("d"), by: "c", want: ledger.ErrNotAdmitted},
		{what: "first version", entry: datasetEntry("d"), by: "b"},
		{what: "same again", entry: datasetEntry("d"), by: "b", want: ledger.ErrDuplicate},
		{what: "first version once more", entry: datasetEntry("d"), by: "a", want: ledger.ErrConflict},
		{what: "version after another name's", entry: func() *ledger.Entry { e := datasetEntry("x"); e.Previous = 1; return e }(), by: "a", want: ledger.ErrConflict},
		{what: "unknown parent", entry: func() *ledger.Entry {
			e := datasetEntry("d")
			e.Previous, e.Parents = 1, []cid.Cid{testCID(cid.DagCBOR, "nowhere")}
			return e
		}(), by: "a", want: ledger.ErrUnknownParent},
		{what: "second version", entry: func() *ledger.Entry {
			e := datasetEntry("d")
			e.Previous, e.Parents = 1, []cid.Cid{ledger.EntryCID(first)}
			return e
		}(), by: "a"},
		{what: "new policy by an outsider", entry: policyEntry(0, "c"), by: "c", want: ledger.ErrNotAdmitted},
		{what: "new policy", entry: policyEntry(0, "c"), by: "b"},
		{what: "stale policy", entry: datasetEntry("e"), by: "c", want: ledger.ErrConflict},
		{what: "no longer admitted", entry: func() *ledger.Entry { e := datasetEntry("e"); e.Policy = 3; return e }(), by: "a", want: ledger.ErrNotAdmitted},
		{what: "newly admitted", entry: func() *ledger.Entry { e := datasetEntry("e"); e.Policy = 3; return e }(), by: "c"},
		{what: "removal by one not admitted", entry: removalEntry("d", 2, 3), by: "a", want: ledger.ErrNotAdmitted},
		{what: "removal under a stale policy", entry: removalEntry("d", 2, 0), by: "c", want: ledger.ErrConflict},
		{what: "removal of an older version", entry: removalEntry("d", 1, 3), by: "c", want: ledger.ErrConflict},
		{what: "removal of another name", entry: removalEntry("e", 2, 3), by: "c", want: ledger.ErrConflict},
		{what: "removal of a name that is not there", entry: removalEntry("nowhere", 0, 3), by: "c", want: ledger.ErrConflict},
		{what: "removal", entry: removalEntry("d", 2, 3), by: "c"},
		{what: "same removal again", entry: removalEntry("d", 2, 3), by: "c", want: ledger.ErrDuplicate},
		{what: "removal of what is removed", entry: removalEntry("d", 5, 3), by: "c", want: ledger.ErrConflict},
		{what: "version that does not know of the removal", entry: func() *ledger.Entry {
			e := datasetEntry("d")
			e.Policy, e.Previous = 3, 2
			return e
		}(), by: "c", want: ledger.ErrConflict},
		{what: "version after the removal", entry: func() *ledger.Entry {
			e := datasetEntry("d")
			e.Policy, e.Previous = 3, 5
			return e
		}(), by: "c"},
	}
	for _, step := range steps {
		block := sign(t, step.entry, step.by)
		if step.edit != nil {
			step.edit(step.entry)
			var err error
			if block, err = step.entry.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := ledger.Admit(ctx, s, testLog(t), block)
		if !errors.Is(err, step.want) || (err != nil) != (step.want != nil) {
			t.Fatalf("%s: error %v, want %v", step.what, err, step.want)
		}
		if err == nil {
			s.blocks = append(s.blocks, block)
		}
	}
	_, err := ledger.Admit(ctx, s, testLog(t), []byte{0xa0})
	wantErr(t, "malformed", err, ledger.ErrFormat)
	_, err = ledger.Admit(ctx, s, ledger.LogID{Origin: testOrigin, KeyID: 1}, sign(t, datasetEntry("f"), "c"))
	wantErr(t, "entry for another log", err, ledger.ErrSignature)
	wantErr(t, "admitted by a dataset", ledger.CheckAdmitted(datasetEntry("a"), datasetEntry("a")), ledger.ErrFormat)
}

type failingState struct{ memState }

var errLookup = errors.New("lookup failed")

func (failingState) Policy(context.Context) (int64, *ledger.Entry, error) { return 0, nil, errLookup }

func TestAdmitKeepsErrorsOfTheState(t *testing.T) {
	_, err := ledger.Admit(context.Background(), &failingState{}, testLog(t), sign(t, datasetEntry("d"), "a"))
	wantErr(t, "failing state", err, errLookup)
}

func TestBundle(t *testing.T) {
	var bundle []byte
	var want [][]byte
	for i := range ledger.TileWidth {
		want = append(want, bytes.Repeat([]byte{byte(i)}, i*64))
		var err error
		if bundle, err = ledger.AppendBundle(bundle, want[i]); err != nil {
			t.Fatal(err)
		}
		got, err := ledger.ParseBundle(bundle)
		if err != nil || len(got) != i+1 || !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%d entries: got %d, %v", i+1, len(got), err)
		}
	}
	more, err := ledger.AppendBundle(bundle, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, {0}, {0, 2, 1}, bundle[:len(bundle)-1], more, append([]byte{0xff, 0xff}, make([]byte, 0xffff)...)} {
		_, err := ledger.ParseBundle(bad)
		wantErr(t, fmt.Sprintf("bundle of %d bytes", len(bad)), err, ledger.ErrFormat)
	}
	_, err = ledger.AppendBundle(nil, make([]byte, ledger.MaxEntry+1))
	wantErr(t, "large entry", err, ledger.ErrFormat)
}

func TestTilePaths(t *testing.T) {
	for want, got := range map[string]string{
		"tile/0/000":                  ledger.TilePath(0, 0, 256),
		"tile/0/000.p/1":              ledger.TilePath(0, 0, 1),
		"tile/1/x001/x234/067.p/8":    ledger.TilePath(1, 1234067, 8),
		"tile/entries/x123/x456/789":  ledger.BundlePath(123456789, 256),
		"tile/entries/x001/000.p/255": ledger.BundlePath(1000, 255),
		"tile/entries/999":            ledger.BundlePath(999, 256),
	} {
		if got != want {
			t.Errorf("path %q, want %q", got, want)
		}
	}
}
