package k2_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/k2"
	"github.com/koii-network/scale/store"
)

// The rules of the chain that the tests share. Its slots move only when a worker waits.
const (
	confirmed = 2
	finalized = 6
	valid     = 20
	baseFee   = 500_000
)

var chain *devnet.K2

func TestMain(m *testing.M) {
	flag.Parse()
	anchortest.Child(anchorOnce)
	var err error
	chain, err = devnet.StartK2(context.Background(), devnet.K2Options{Confirmed: confirmed, Finalized: finalized, Valid: valid, Fee: baseFee})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	chain.Close()
	os.Exit(code)
}

func newWallet(t testing.TB, funds uint64) solana.PrivateKey {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	if funds > 0 {
		fund(t, key, funds)
	}
	return key
}

func fund(t testing.TB, key solana.PrivateKey, amount uint64) {
	t.Helper()
	if err := chain.Airdrop(t.Context(), key.PublicKey().String(), amount); err != nil {
		t.Fatal(err)
	}
}

// rpcCall calls the chain itself, past all proxies.
func rpcCall[T any](t testing.TB, method string, params ...any) T {
	t.Helper()
	var out T
	if err := chain.Call(context.Background(), &out, method, params...); err != nil {
		t.Fatal(err)
	}
	return out
}

// paid returns the transactions of a wallet that are in blocks, without those that paid
// it.
func paid(t testing.TB, key solana.PrivateKey) []string {
	t.Helper()
	type tx struct {
		Transaction struct {
			Message struct {
				AccountKeys []string `json:"accountKeys"`
			} `json:"message"`
		} `json:"transaction"`
	}
	all, err := chain.Transactions(context.Background(), key.PublicKey().String())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, id := range all {
		got := rpcCall[tx](t, "getTransaction", id, map[string]any{"commitment": "processed"})
		if got.Transaction.Message.AccountKeys[0] == key.PublicKey().String() {
			out = append(out, id)
		}
	}
	return out
}

// A world is a worker over a real store and a chain behind proxies.
type world struct {
	t       *testing.T
	proxies []*anchortest.Proxy
	wallet  solana.PrivateKey
	store   *store.Store
	cfg     k2.Config
	call    time.Duration // limit of one request
	now     func() time.Time
	sched   anchor.Schedule

	// onWait is called in the worker's own goroutine each time it wants to wait: for the
	// nth time, and so long. The chain is a slot further then.
	onWait func(n int, d time.Duration)
	// onRow is called at each transition.
	onRow func(anchor.Row)
	waits int
	words []string // of all transitions
}

// newStore makes a store with one entry.
func newStore(t *testing.T) *store.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(t.Context(), dir, store.InitOptions{Origin: "test.example/log"}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	put(t, s)
	return s
}

var puts int

func put(t testing.TB, s *store.Store) {
	t.Helper()
	puts++
	name := fmt.Sprintf("entry-%d", puts)
	if _, err := s.Put(t.Context(), []store.Input{{Name: name, Reader: strings.NewReader(name)}}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// newWorld makes a world with so many endpoints and a wallet that can pay.
func newWorld(t *testing.T, s *store.Store, endpoints int) *world {
	t.Helper()
	w := &world{t: t, store: s, wallet: newWallet(t, 1e9), call: 20 * time.Second, now: time.Now}
	w.sched = anchor.Schedule{Interval: time.Nanosecond, Poll: time.Microsecond, Call: time.Minute, MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond}
	for range endpoints {
		w.proxies = append(w.proxies, anchortest.NewProxy(t, chain.URL))
	}
	t.Cleanup(func() {
		for name, value := range map[string]any{"svm_dropNext": 0, "svm_failNext": 0, "svm_setFee": baseFee} {
			rpcCall[any](t, name, value)
		}
		rpcCall[any](t, "svm_setProgram", k2.DefaultMemoProgram, true)
	})
	return w
}

func (w *world) pool() *endpoint.Pool {
	w.t.Helper()
	var urls []string
	for _, p := range w.proxies {
		urls = append(urls, p.URL())
	}
	p, err := endpoint.New(urls, endpoint.Options{Call: w.call, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Close)
	return p
}

func (w *world) chain() *k2.Chain {
	w.t.Helper()
	c := w.cfg
	c.Endpoints, c.Wallet = w.pool(), w.wallet
	if c.Genesis == "" {
		c.Genesis = chain.Genesis
	}
	k, err := k2.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// errLimit ends a run that does not get where it should.
var errLimit = errors.New("waited as often as it may")

// run runs a worker until a row meets a condition, or it has waited so often.
func (w *world) run(most int, until func(anchor.Row) bool) (last anchor.Row, err error) {
	w.t.Helper()
	ctx, cancel := context.WithCancelCause(w.t.Context())
	defer cancel(nil)
	n, met := 0, errors.New("met")
	k := w.chain()
	worker, err := anchor.NewWorker(anchor.Options{
		Ledger: w.store, Outbox: w.store.Outbox(), Now: w.now,
		Targets: []anchor.Target{{Chain: k, Schedule: w.sched}},
		After: func(d time.Duration) <-chan time.Time {
			n++
			w.waits++
			if err := chain.Advance(context.Background(), 1); err != nil {
				w.t.Error(err)
			}
			if w.onWait != nil {
				w.onWait(n, d)
			}
			if n >= most {
				cancel(errLimit)
			}
			c := make(chan time.Time, 1)
			c <- time.Now()
			return c
		},
		Changed: func(r anchor.Row) {
			last = r
			w.words = append(w.words, r.State.String()+" "+r.Text())
			if r.State == anchor.Final {
				w.checkFinal(r)
			}
			if w.onRow != nil {
				w.onRow(r)
			}
			if until != nil && until(r) {
				cancel(met)
			}
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	worker.Run(ctx)
	if cause := context.Cause(ctx); cause != met {
		return last, cause
	}
	return last, nil
}

// checkFinal asks the chain itself whether a row that says final is, so that no lie of an
// endpoint gets through.
func (w *world) checkFinal(r anchor.Row) {
	w.t.Helper()
	type status struct {
		Slot  uint64
		Err   any
		Level string `json:"confirmationStatus"`
	}
	got := rpcCall[struct{ Value []*status }](w.t, "getSignatureStatuses", []string{r.Tx.ID}).Value[0]
	if got == nil || got.Level != "finalized" || got.Err != nil || r.Receipt == nil || !r.Receipt.Final || got.Slot != r.Receipt.Height {
		w.t.Errorf("the row says final with %+v, the chain %+v", r.Receipt, got)
	}
}

func isFinal(r anchor.Row) bool { return r.State == anchor.Final }

// final brings the newest checkpoint to its end, and checks it: so many transactions were
// paid, and the receipt holds.
func (w *world) final(transactions int) anchor.Row {
	w.t.Helper()
	size, note, _ := w.store.Newest()
	r, err := w.run(400, func(r anchor.Row) bool { return isFinal(r) && r.Size == size })
	if err != nil {
		w.t.Fatalf("not final: %v; %s", err, strings.Join(w.words, "\n\t"))
	}
	if got := paid(w.t, w.wallet); len(got) != transactions || got[0] != r.Tx.ID {
		w.t.Errorf("paid for %v, the final one is %s; want %d of them: %s", got, r.Tx.ID, transactions, strings.Join(w.words, "\n\t"))
	}
	a, err := k2.Verifier{}.Open(*r.Receipt)
	if err != nil {
		w.t.Fatal(err)
	}
	if a.ID != r.Tx.ID || string(a.Checkpoint) != string(note) || a.Signer != w.wallet.PublicKey().String() {
		w.t.Errorf("the receipt says %+v", a)
	}
	if r.Receipt.Network != chain.Genesis || r.Receipt.Time == 0 || r.Receipt.Block == "" {
		w.t.Errorf("receipt %+v", r.Receipt)
	}
	return r
}

// open returns the newest row of the outbox, nil if there is none.
func (w *world) newest() *anchor.Row {
	w.t.Helper()
	rows, err := anchor.NewestRows(w.t.Context(), w.store.Outbox(), k2.Name, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(rows) == 0 {
		return nil
	}
	return rows[0]
}
