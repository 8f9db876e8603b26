package arweave

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/devnet"
	"github.com/koii-network/scale/anchor/endpoint"
	"github.com/koii-network/scale/anchor/extension"
	"github.com/koii-network/scale/store"
)

func TestMain(m *testing.M) {
	flag.Parse()
	anchortest.Child(anchorOnce)
	code := m.Run()
	if gw := shared.Load(); gw != nil {
		gw.Close()
	}
	os.Exit(code)
}

// shared is the gateway of all tests that use worlds, started by the first.
var shared atomic.Pointer[devnet.Arweave]

func gateway(t *testing.T) *devnet.Arweave {
	t.Helper()
	if gw := shared.Load(); gw != nil {
		return gw
	}
	gw, err := devnet.StartArweave(context.Background(), devnet.ArweaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shared.Store(gw)
	if err := gw.Mint(t.Context(), testWallet().Address(), 1e18); err != nil {
		t.Fatal(err)
	}
	return gw
}

// confirmations that the tests below wait for. Blocks are mined only when a worker waits.
const confirmations = 3

// A world is a worker over a real store and a gateway behind proxies.
type world struct {
	t       *testing.T
	gw      *devnet.Arweave
	proxies []*anchortest.Proxy
	store   *store.Store
	origin  string
	cfg     Config
	call    time.Duration // limit of one request
	shift   time.Duration // by which the clock is wrong
	sched   anchor.Schedule
	more    []anchor.Target
	// body, if not 0, is the length of bodies, of random bytes in place of entries.
	body int

	blocks int // that come with each wait
	still  int // so many waits at first bring no block

	// onWait is called each time that the worker wants to wait: for the nth time, and so
	// long. The chain is a block further then.
	onWait func(n int, d time.Duration)
	// onRow is called at each transition.
	onRow func(anchor.Row)
	mu    sync.Mutex // lanes are concurrent
	words []string   // of all transitions
}

var origins int

// newWorld makes a world with so many endpoints, a wallet that can pay and one entry.
func newWorld(t *testing.T, endpoints int) *world {
	t.Helper()
	gw := gateway(t)
	origins++
	w := &world{t: t, gw: gw, call: 20 * time.Second, blocks: 1, origin: fmt.Sprintf("test.example/%d", origins)}
	w.sched = anchor.Schedule{Interval: time.Nanosecond, Poll: time.Microsecond, Call: time.Minute, MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond}
	for range endpoints {
		w.proxies = append(w.proxies, anchortest.NewProxy(t, gw.URL))
	}
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(t.Context(), dir, store.InitOptions{Origin: w.origin}); err != nil {
		t.Fatal(err)
	}
	w.open(dir)
	w.put()
	return w
}

func (w *world) open(dir string) {
	w.t.Helper()
	s, err := store.Open(w.t.Context(), dir, store.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = s
	w.t.Cleanup(func() { _ = s.Close() }) // again, where the test has done it
}

func (w *world) put() {
	w.t.Helper()
	size, _, _ := w.store.Newest()
	name := fmt.Sprintf("entry-%d", size)
	if _, err := w.store.Put(w.t.Context(), []store.Input{{Name: name, Reader: strings.NewReader(name)}}, store.PutOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// clock goes on by a step each time that it is asked, so that no pause is waited for.
func (w *world) clock(step time.Duration) func() time.Time {
	start, n := time.Now().Add(w.shift), atomic.Int64{}
	return func() time.Time { return start.Add(time.Duration(n.Add(1)) * step) }
}

func (w *world) chain() *Chain {
	w.t.Helper()
	var urls []string
	for _, p := range w.proxies {
		urls = append(urls, p.URL())
	}
	p, err := endpoint.New(urls, endpoint.Options{Call: w.call, Now: w.clock(time.Second)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Close)
	c := w.cfg
	c.Endpoints, c.Confirmations = p, confirmations
	k := chain(w.t, c)
	k.now = w.clock(readPause)
	return k
}

// encode makes bodies as the agent does, or of random bytes.
func (w *world) encode(ctx context.Context, x anchor.Extension) ([]byte, error) {
	if w.body > 0 {
		b := make([]byte, w.body)
		rand.NewChaCha8([32]byte{byte(x.Size), byte(origins), byte(origins >> 8)}).Read(b)
		return b, nil
	}
	return encodeStore(ctx, w.store, x)
}

func encodeStore(ctx context.Context, s *store.Store, x anchor.Extension) ([]byte, error) {
	var blocks iter.Seq2[[]byte, error] = func(yield func([]byte, error) bool) {
		for e, err := range s.Entries(ctx, x.Base.Size, x.Size) {
			if !yield(e.Block, err) {
				return
			}
		}
	}
	return extension.Encode(ctx, x, blocks)
}

// errLimit ends a run that does not get where it should.
var errLimit = errors.New("waited as often as it may")

// run runs a worker until a row meets a condition, or it has waited so often.
func (w *world) run(most int, until func(anchor.Row) bool) (last anchor.Row, err error) {
	w.t.Helper()
	ctx, cancel := context.WithCancelCause(w.t.Context())
	defer cancel(nil)
	n, met := 0, errors.New("met")
	worker, err := anchor.NewWorker(anchor.Options{
		Ledger: w.store, Outbox: w.store.Outbox(), Now: w.clock(time.Second), Encode: w.encode,
		Targets: append([]anchor.Target{{Chain: w.chain(), Schedule: w.sched}}, w.more...),
		After: func(d time.Duration) <-chan time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			n++
			if w.still--; w.still < 0 {
				if err := w.gw.Mine(context.Background(), w.blocks); err != nil {
					w.t.Error(err)
				}
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
			w.mu.Lock()
			defer w.mu.Unlock()
			last = r
			w.words = append(w.words, r.Chain+" "+r.State.String()+" "+r.Text())
			if r.State == anchor.Final && r.Chain == Name {
				w.checkFinal(r)
			}
			if w.onRow != nil {
				w.onRow(r)
			}
			if until(r) {
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

// checkFinal asks the gateway itself whether a row that says final is, so that no lie of
// an endpoint gets through.
func (w *world) checkFinal(r anchor.Row) {
	w.t.Helper()
	s, err := locate(context.Background(), pool(w.t, w.gw.URL).Endpoints()[0], r.Tx.ID, localNetwork)
	if err != nil || !s.mined || s.depth < confirmations || r.Receipt == nil || !r.Receipt.Final || s.block != r.Receipt.Block || s.at != r.Receipt.Height {
		w.t.Errorf("the row says final with %+v, the gateway %+v, %v", r.Receipt, s, err)
	}
}

func isFinal(r anchor.Row) bool { return r.Chain == Name && r.State == anchor.Final }

// final brings the newest checkpoint to its end, and checks it: so many transactions of
// this log are on the chain, the receipt holds, and the body can be read back.
func (w *world) final(transactions int) anchor.Row {
	w.t.Helper()
	size, _, _ := w.store.Newest()
	r, err := w.run(300, func(r anchor.Row) bool { return isFinal(r) && r.Size == size })
	if err != nil {
		w.t.Fatalf("not final: %v; %s", err, strings.Join(w.words, "\n\t"))
	}
	w.check(r, transactions)
	return r
}

func (w *world) check(r anchor.Row, transactions int) {
	w.t.Helper()
	size, note, _ := w.store.Newest()
	if got := w.paid(); len(got) != transactions || !slices.Contains(got, r.Tx.ID) {
		w.t.Errorf("the chain has %v, the final one is %s; want %d of them: %s", got, r.Tx.ID, transactions, strings.Join(w.words, "\n\t"))
	}
	a, err := Verifier{}.Open(*r.Receipt)
	if err != nil || r.Size != size || !bytes.Equal(a.Checkpoint, note) || a.ID != r.Tx.ID {
		w.t.Errorf("the receipt says %+v, %v", a, err)
	}
	if r.Receipt.Network != localNetwork || r.Receipt.Time == 0 {
		w.t.Errorf("receipt %+v", r.Receipt)
	}
	_, body, err := Fetch(w.t.Context(), pool(w.t, w.gw.URL), r.Tx.ID, 1<<24)
	if err != nil || int64(len(body)) != a.DataSize {
		w.t.Errorf("body of %d bytes, %v", len(body), err)
	}
	if left, err := os.ReadDir(filepath.Join(w.store.Dir(), "extensions")); err != nil || len(left) != 0 {
		w.t.Errorf("bodies that stay behind: %v, %v", left, err)
	}
}

// paid returns the transactions of the world's log that the gateway has.
func (w *world) paid() []string {
	w.t.Helper()
	q := fmt.Sprintf(`{transactions(first:100,tags:[{name:"Origin",values:[%q]}]){edges{node{id}}}}`, w.origin)
	b, err := json.Marshal(map[string]string{"query": q})
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.Post(w.gw.URL+"/graphql", "application/json", bytes.NewReader(b))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close() // read only
	var out struct {
		Data struct {
			Transactions struct {
				Edges []struct{ Node struct{ ID string } }
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		w.t.Fatal(err)
	}
	var ids []string
	for _, e := range out.Data.Transactions.Edges {
		ids = append(ids, e.Node.ID)
	}
	return ids
}

// says reports whether one of the transitions so far has the words.
func (w *world) says(words string) bool {
	return slices.ContainsFunc(w.words, func(s string) bool { return strings.Contains(s, words) })
}
