package arweave

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/extension"
	"github.com/koii-network/scale/anchor/k2"
)

// otherBlock is what a liar says of where a transaction is.
const otherBlock = `{"block_height":1,"block_indep_hash":"AAAABBBB","number_of_confirmations":1000}`

func height(n int) anchortest.Fault {
	return anchortest.Body(fmt.Sprintf(`{"network":%q,"height":%d}`, localNetwork, n))
}

// lies are what one endpoint can say that is not so; those of them that contradict what
// others say of the transaction are told in the row.
var lies = map[string]struct {
	lie  func(p *anchortest.Proxy)
	told bool
}{
	"final already": {func(p *anchortest.Proxy) { p.FaultIf(isStatus, -1, anchortest.Body(otherBlock)) }, true},
	"never heard of it, and it is too late": {func(p *anchortest.Proxy) {
		p.FaultIf(isStatus, -1, anchortest.Status(http.StatusNotFound))
		p.Fault("GET /info", -1, height(1<<30))
	}, true},
	"never heard of it": {func(p *anchortest.Proxy) { p.FaultIf(isStatus, -1, anchortest.Status(http.StatusNotFound)) }, true},
	"waits for ever":    {func(p *anchortest.Proxy) { p.FaultIf(isStatus, -1, anchortest.Body("Pending")) }, true},
	"many confirmations": {func(p *anchortest.Proxy) {
		p.FaultIf(isStatus, -1, anchortest.Rewrite(func(b []byte) []byte {
			var m map[string]any
			if json.Unmarshal(b, &m) == nil {
				m["number_of_confirmations"] = 1000
				b, _ = json.Marshal(m)
			}
			return b
		}))
		p.Fault("GET /info", -1, height(1<<30))
	}, false},
	"no confirmations": {func(p *anchortest.Proxy) { p.Fault("GET /info", -1, height(1)) }, false},
	"no price":         {func(p *anchortest.Proxy) { p.Fault("GET /price/", -1, anchortest.Body("1")) }, false},
	"a price too high": {func(p *anchortest.Proxy) { p.Fault("GET /price/", -1, anchortest.Body("1000000000001")) }, false},
	"no money":         {func(p *anchortest.Proxy) { p.Fault("GET /wallet/", -1, anchortest.Body("0")) }, false},
	"takes all and keeps it": {func(p *anchortest.Proxy) {
		p.Fault("POST /", -1, anchortest.Body("OK"))
	}, false},
	"refuses all": {func(p *anchortest.Proxy) { p.Fault("POST /", -1, anchortest.Status(http.StatusBadRequest)) }, false},
	"refuses and does it": {func(p *anchortest.Proxy) {
		p.Fault("POST /", -1, func(x *anchortest.Exchange) {
			_, _ = x.Forward() // the lie is about its answer
			anchortest.Status(http.StatusBadRequest)(x)
		})
	}, false},
	"other bytes for the body": {func(p *anchortest.Proxy) { p.FaultIf(isData, -1, anchortest.Body("other bytes")) }, false},
}

// One of three endpoints that lies costs no money, makes nothing final that is not, and
// does not keep the checkpoint from getting there.
func TestOneLies(t *testing.T) {
	for name, l := range lies {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			l.lie(w.proxies[0])
			r := w.final(1)
			if l.told && !strings.Contains(r.Text(), w.proxies[0].URL()+" says ") {
				t.Errorf("nobody says who lies: %q", w.words)
			}
		})
	}
}

// With one of two down anchors go on; two that contradict each other make nothing final.
func TestTwo(t *testing.T) {
	for i := range 2 {
		w := newWorld(t, 2)
		w.proxies[i].Down()
		if r := w.final(1); r.Attempt != 1 {
			t.Errorf("attempt %d", r.Attempt)
		}
	}
	for _, name := range []string{"final already", "never heard of it", "never heard of it, and it is too late", "waits for ever"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			lies[name].lie(w.proxies[1])
			last, err := w.run(30, isFinal)
			if !errors.Is(err, errLimit) || last.Attempt != 1 {
				t.Errorf("%v in %s, attempt %d", err, last.State, last.Attempt)
			}
			if !w.says(w.proxies[0].URL()+" says ") && !w.says(w.proxies[1].URL()+" says ") {
				t.Errorf("nobody says who disagrees: %q", w.words)
			}
			w.proxies[1].Heal()
			w.final(1)
		})
	}
}

// Two chains at once: what one of them suffers does not hold up the other, and the
// extension brings the receipts of K2.
func TestTwoChains(t *testing.T) {
	net, err := devnet.StartK2(t.Context(), devnet.K2Options{Confirmed: 2, Finalized: 4, Slot: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	key, err := k2.ParseWallet([]byte(strings.ReplaceAll(fmt.Sprint([]byte(ed25519.NewKeyFromSeed(make([]byte, 32)))), " ", ",")))
	if err != nil {
		t.Fatal(err)
	}
	if err := net.Airdrop(t.Context(), key.PublicKey().String(), 1e9); err != nil {
		t.Fatal(err)
	}
	rpc := anchortest.NewProxy(t, net.URL)
	p, err := endpoint.New([]string{rpc.URL()}, endpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	k, err := k2.New(k2.Config{Endpoints: p, Wallet: key, Genesis: net.Genesis})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 1)
	w.more = []anchor.Target{{Chain: k, Schedule: w.sched}}
	finalOnK2 := func(r anchor.Row) bool { return r.Chain == k2.Name && r.State == anchor.Final }
	// Arweave is down, K2 goes on.
	w.proxies[0].Down()
	sizes := map[int64]string{} // on K2, with its transaction
	for range 3 {
		size, _, _ := w.store.Newest()
		r, err := w.run(100_000, func(r anchor.Row) bool { return finalOnK2(r) && r.Size == size })
		if err != nil {
			t.Fatal(err)
		}
		sizes[size] = r.Tx.ID
		w.put()
	}
	// K2 is down, Arweave goes on.
	w.proxies[0].Up()
	rpc.Down()
	r := w.final(1)
	_, body, err := Fetch(t.Context(), pool(t, w.gw.URL), r.Tx.ID, 1<<24)
	if err != nil {
		t.Fatal(err)
	}
	b, err := extension.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	entries := int64(0)
	err = b.Records(func(int64, []byte) error { entries++; return nil }, func(c anchor.Receipt) error {
		a, err := k2.Verifier{}.Open(c)
		if err != nil {
			return err
		}
		for size, id := range sizes {
			if id == a.ID {
				delete(sizes, size)
			}
		}
		return nil
	})
	if err != nil || entries != r.Size || len(sizes) != 0 {
		t.Errorf("%d of %d entries; receipts that are missing: %v; %v", entries, r.Size, sizes, err)
	}
}
