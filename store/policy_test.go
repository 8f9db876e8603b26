package store_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// curatorKey returns a key of a name.
func curatorKey(name string) store.Ed25519Signer {
	seed := sha256.Sum256([]byte(name))
	return store.Ed25519Signer(ed25519.NewKeyFromSeed(seed[:]))
}

func (h *harness) policy() store.PolicyInfo {
	h.t.Helper()
	p, err := h.s.Policy(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func sorted(keys ...ledger.CuratorKey) []ledger.CuratorKey {
	slices.SortFunc(keys, ledger.CuratorKey.Compare)
	return keys
}

func TestPolicy(t *testing.T) {
	h := newHarness(t, store.Options{})
	own := h.policy().Own
	a, b := curatorKey("a"), curatorKey("b")
	want := func(entry int64, keys ...ledger.CuratorKey) {
		t.Helper()
		if d := cmp.Diff(store.PolicyInfo{Entry: entry, Curators: sorted(keys...), Own: own}, h.policy()); d != "" {
			t.Error(d)
		}
	}
	want(0, own)
	putBy := func(name string, by store.Signer, want error) {
		t.Helper()
		_, err := h.s.Put(h.ctx, []store.Input{stream(name, []byte(name))}, store.PutOptions{Curator: by})
		if !errors.Is(err, want) || (err != nil) != (want != nil) {
			t.Errorf("put %s: %v, want %v", name, err, want)
		}
	}
	putBy("early", a, ledger.ErrNotAdmitted)
	if p, changed, err := h.s.AddCurator(h.ctx, a.Curator(), nil); err != nil || !changed || p.Entry != 1 {
		t.Fatalf("%+v, %t, %v", p, changed, err)
	}
	want(1, own, a.Curator())
	putBy("x", a, nil)
	if p, changed, err := h.s.AddCurator(h.ctx, a.Curator(), nil); err != nil || changed || p.Entry != 1 {
		t.Errorf("a again: %+v, %t, %v", p, changed, err)
	}
	if _, changed, err := h.s.RemoveCurator(h.ctx, b.Curator(), nil); err != nil || changed {
		t.Errorf("remove b, who is not there: %t, %v", changed, err)
	}
	if _, _, err := h.s.AddCurator(h.ctx, b.Curator(), b); !errors.Is(err, ledger.ErrNotAdmitted) {
		t.Errorf("b adds himself: %v", err)
	}
	// a takes the store's own key away, and is alone then.
	if p, changed, err := h.s.RemoveCurator(h.ctx, own, a); err != nil || !changed || p.Entry != 3 {
		t.Fatalf("%+v, %t, %v", p, changed, err)
	}
	want(3, a.Curator())
	putBy("y", nil, ledger.ErrNotAdmitted)
	if _, err := h.s.Remove(h.ctx, "x", store.PutOptions{}); !errors.Is(err, ledger.ErrNotAdmitted) {
		t.Errorf("removal by the store's own key: %v", err)
	}
	if _, _, err := h.s.RemoveCurator(h.ctx, a.Curator(), a); !errors.Is(err, store.ErrLastCurator) {
		t.Errorf("the last one: %v", err)
	}
	putBy("y", a, nil)
	if _, changed, err := h.s.AddCurator(h.ctx, own, a); err != nil || !changed {
		t.Errorf("own again: %t, %v", changed, err)
	}
	putBy("z", nil, nil)
	want(5, own, a.Curator())
	h.check()
	want(5, own, a.Curator())
	putBy("z2", nil, nil)
	// Proofs of entries under older policies hold.
	for _, ref := range []string{"x", "y", "z"} {
		h.verify(ref, store.ProveOptions{})
	}
}

func TestPolicyIsFull(t *testing.T) {
	h := newHarness(t, store.Options{})
	for i := range ledger.MaxCurators - 1 {
		if _, _, err := h.s.AddCurator(h.ctx, curatorKey(fmt.Sprint(i)).Curator(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := h.s.AddCurator(h.ctx, curatorKey("one more").Curator(), nil); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("one more: %v", err)
	}
	h.check()
}

// What is signed by the store itself while the policy changes is signed anew under the
// new one, whoever comes first.
func TestPolicyChangesAmongPuts(t *testing.T) {
	h := newHarness(t, store.Options{})
	var wg sync.WaitGroup
	n := 24
	for i := range n {
		wg.Go(func() {
			if _, err := h.s.Put(h.ctx, []store.Input{stream("n"+string(rune('a'+i)), text(uint64(i), 500))}, store.PutOptions{}); err != nil {
				t.Error(err)
			}
		})
		if i%4 == 0 {
			wg.Go(func() {
				if _, changed, err := h.s.AddCurator(h.ctx, curatorKey(fmt.Sprint(i)).Curator(), nil); err != nil || !changed {
					t.Errorf("%t, %v", changed, err)
				}
			})
		}
	}
	wg.Wait()
	if got := h.s.Published().Size; got != int64(1+n+n/4) {
		t.Errorf("ledger of %d entries", got)
	}
	h.check()
}

// A careless signs as earlier versions did: the policies that it signs name keys as well
// that are none.
type careless struct {
	store.Ed25519Signer
	also []ledger.CuratorKey
}

func (c careless) SignEntry(e *ledger.Entry, id ledger.LogID) error {
	e.Curators = sorted(append(e.Curators, c.also...)...)
	return c.Ed25519Signer.SignEntry(e, id)
}

// A forger signs under a key of small order without its private key.
type forger ledger.CuratorKey

func (f forger) Curator() ledger.CuratorKey { return ledger.CuratorKey(f) }
func (f forger) SignEntry(e *ledger.Entry, _ ledger.LogID) error {
	e.Curator, e.Signature = f.Curator(), [64]byte{1} // R is the neutral point, S is 0
	return nil
}

var (
	neutral = ledger.CuratorKey{1} // under it that signature holds of everything
	noPoint = ledger.CuratorKey{2}
)

func TestAddNoKey(t *testing.T) {
	h := newHarness(t, store.Options{})
	for _, k := range []ledger.CuratorKey{{}, neutral, noPoint} {
		if _, _, err := h.s.AddCurator(h.ctx, k, nil); !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), "is not the public key of a curator") {
			t.Errorf("%v: %v", k, err)
		}
		// As of any that is not admitted.
		if _, changed, err := h.s.RemoveCurator(h.ctx, k, nil); err != nil || changed {
			t.Errorf("remove %v, who is not there: %t, %v", k, changed, err)
		}
	}
	if p := h.policy(); p.Entry != 0 {
		t.Errorf("%+v", p)
	}
}

// A policy of before keys were checked names some that are none. The store opens, what was
// put stays proven, nobody signs under them, and they can go.
func TestPolicyOfBefore(t *testing.T) {
	h := newHarness(t, store.Options{})
	own, a := h.policy().Own, curatorKey("a")
	if _, _, err := h.s.AddCurator(h.ctx, a.Curator(), nil); err != nil {
		t.Fatal(err)
	}
	h.mustPut(stream("before", text(1, 1000)))
	b := curatorKey("b").Curator()
	if _, _, err := h.s.AddCurator(h.ctx, b, careless{a, []ledger.CuratorKey{neutral, noPoint}}); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	want := sorted(own, a.Curator(), b, neutral, noPoint)
	if p := h.policy(); !slices.Equal(p.Curators, want) {
		t.Fatalf("policy of %v, want %v", p.Curators, want)
	}
	h.mustPut(stream("after", text(2, 1000)))
	for _, ref := range []string{"before", "after"} {
		h.verify(ref, store.ProveOptions{})
	}
	if _, err := h.s.Put(h.ctx, []store.Input{stream("forged", text(3, 1000))}, store.PutOptions{Curator: forger(neutral)}); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("forged: %v", err)
	}
	if _, _, err := h.s.RemoveCurator(h.ctx, own, forger(neutral)); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("forged policy: %v", err)
	}
	found, sum := h.findings()
	if !sum.Sound() || len(found) != 2 {
		t.Errorf("%+v, %+v", found, sum)
	}
	for _, f := range found {
		if f.Severity != check.Warning || !strings.Contains(f.Do, "scale curator remove ") {
			t.Errorf("%+v", f)
		}
	}

	// One key must remain that somebody can sign with.
	for _, k := range []ledger.CuratorKey{own, b} {
		if _, _, err := h.s.RemoveCurator(h.ctx, k, a); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := h.s.RemoveCurator(h.ctx, a.Curator(), a); !errors.Is(err, store.ErrLastCurator) {
		t.Errorf("the last key among three: %v", err)
	}
	for _, k := range []ledger.CuratorKey{neutral, noPoint} {
		if _, _, err := h.s.AddCurator(h.ctx, k, a); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%v, who is there: %v", k, err)
		}
		if _, changed, err := h.s.RemoveCurator(h.ctx, k, a); err != nil || !changed {
			t.Errorf("remove %v: %t, %v", k, changed, err)
		}
	}
	if p := h.policy(); !slices.Equal(p.Curators, []ledger.CuratorKey{a.Curator()}) {
		t.Errorf("policy of %v", p.Curators)
	}
	h.verify("before", store.ProveOptions{})
}
