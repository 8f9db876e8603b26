package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// fakeAnchors has a row of each chain, of the newest checkpoint of a node's store.
type fakeAnchors struct {
	n      *rawNode
	mu     sync.Mutex
	cfg    anchor.Config
	events chan anchor.Row
}

var _ Anchors = (*fakeAnchors)(nil)

func (f *fakeAnchors) row(chain string, size int64) *anchor.Row {
	at := time.Unix(1_800_000_000, 0).UTC()
	r := &anchor.Row{
		Chain: chain, Size: size, Checkpoint: f.n.store.Published().Checkpoint, State: anchor.Final, Attempt: 2,
		Tx: anchor.Tx{ID: fmt.Sprintf("tx%d", size), Raw: []byte("raw"), Fee: 5}, Base: anchor.Link{ID: "base", Size: size - 1}, Body: 7,
		History: []anchor.Transition{{Time: at, State: anchor.Pending}, {Time: at, State: anchor.Final, Attempt: 2, Text: "well"}},
	}
	r.Receipt = &anchor.Receipt{Chain: chain, Raw: r.Tx.Raw, Network: "net", Height: 9, Block: "block", Time: at.Unix(), Depth: 3, Final: true}
	return r
}

func (f *fakeAnchors) Chains(context.Context) ([]anchor.ChainState, bool, error) {
	at := time.Unix(1_800_000_000, 0).UTC()
	size := f.n.store.Published().Size
	return []anchor.ChainState{
		{Chain: "arweave", Published: size},
		{
			Chain: "k2", Published: size, Final: 1, Seen: 1, Backlog: size - 1, Open: f.row("k2", size), Failing: "down", Since: at, Retry: at.Add(time.Hour),
			Balance: &anchor.Balance{Address: "me", Units: 10, Price: 3, Unit: "ROE", Decimals: 9, Coin: "KOII"},
		},
	}, true, nil
}

func (f *fakeAnchors) Names(context.Context) ([]string, error) { return []string{"arweave", "k2"}, nil }

func (f *fakeAnchors) List(_ context.Context, chain string, size int64, most int) (out []*anchor.Row, err error) {
	top := f.n.store.Published().Size // the one that has a checkpoint of its size
	if size >= top && most > 0 {
		out = append(out, f.row(chain, top))
	}
	return out, nil
}

func (f *fakeAnchors) Receipts(_ context.Context, entry int64) ([]anchor.Claim, int64, error) {
	r := f.row("k2", entry+1)
	return []anchor.Claim{{Receipt: r.Receipt.Append(nil), Size: entry + 1, Path: tlog.RecordProof{{1}, {2}}}}, entry + 1, nil
}

func (f *fakeAnchors) Prove(ctx context.Context, o store.Object, opt store.ProveOptions) (*proof.Proof, error) {
	p, err := f.n.store.Prove(ctx, o, opt)
	if err == nil {
		err = p.SetReceipts([]proof.Receipt{{Data: f.row("k2", 1).Receipt.Append(nil), Size: f.n.store.Published().Size}})
	}
	return p, err
}

func (f *fakeAnchors) Now(chain string) (int64, []string, error) {
	if chain != "" && chain != "k2" {
		return 0, nil, anchor.ErrNoChain
	}
	return f.n.store.Published().Size, []string{"k2"}, nil
}

func (f *fakeAnchors) Watch(ctx context.Context, chain string) iter.Seq2[*anchor.Row, error] {
	return func(yield func(*anchor.Row, error) bool) {
		if !yield(nil, nil) {
			return
		}
		for {
			select {
			case r, ok := <-f.events:
				if !ok {
					yield(nil, errors.New("over"))
					return
				}
				if !yield(&r, nil) {
					return
				}
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

func (f *fakeAnchors) Config() (anchor.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cfg, nil
}

func (f *fakeAnchors) Configure(c anchor.ChainConfig, remove bool) error {
	if err := c.Check(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cfg = f.cfg.Without(c.Chain); !remove {
		f.cfg = f.cfg.With(c)
	}
	return nil
}

func anchoredNode(t *testing.T, change func(*rawNode)) (*rawNode, *fakeAnchors) {
	f := &fakeAnchors{events: make(chan anchor.Row, 10)}
	n := newRawNode(t, func(n *rawNode) {
		f.n = n
		n.opt.Anchors = f
		if change != nil {
			change(n)
		}
	})
	must(n.store.Put(n.ctx, []store.Input{{Name: "d", Reader: strings.NewReader("d")}}, store.PutOptions{}))
	return n, f
}

func dialRaw(t *testing.T, target string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), target, DialOptions{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// The client gives what the node has.
func TestAnchors(t *testing.T) {
	n, f := anchoredNode(t, nil)
	ctx, c := n.ctx, dialRaw(t, n.addr)
	size := n.store.Published().Size
	plainRow := func(r *anchor.Row) *anchor.Row { r.Base.Root = nil; return r }

	chains, working, err := c.AnchorChains(ctx)
	want, _, _ := f.Chains(ctx)
	if err != nil || !working || !reflect.DeepEqual(chains, want) {
		t.Errorf("chains %+v, want %+v, %v", chains, want, err)
	}
	var list []*anchor.Row
	for r, err := range c.Anchors(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	if want := []*anchor.Row{f.row("arweave", size), plainRow(f.row("k2", size))}; !reflect.DeepEqual(list, want) {
		t.Errorf("anchors %+v, want %+v", list, want)
	}
	claims, at, err := c.AnchorReceipts(ctx, 1)
	wantClaims, wantAt, _ := f.Receipts(ctx, 1)
	if err != nil || at != wantAt || !reflect.DeepEqual(claims, wantClaims) {
		t.Errorf("receipts %+v, %d, %v", claims, at, err)
	}
	if _, _, err := c.AnchorReceipts(ctx, size); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("receipts of an entry that is not there: %v", err)
	}
	if got, names, err := c.AnchorNow(ctx, ""); err != nil || got != size || !slices.Equal(names, []string{"k2"}) {
		t.Errorf("now %d %v, %v", got, names, err)
	}
	if _, _, err := c.AnchorNow(ctx, "doge"); !errors.Is(err, anchor.ErrNoChain) {
		t.Errorf("now on no chain: %v", err)
	}
	if p, err := c.Prove(ctx, must(c.Resolve(ctx, "d")), store.ProveOptions{}); err != nil || len(p.Receipts) != 1 {
		t.Errorf("proof without receipts: %v", err)
	}
	seen := 0
	for r, err := range c.WatchAnchors(ctx, "k2") {
		if err != nil {
			t.Fatal(err)
		}
		if r == nil {
			f.events <- *f.row("k2", size)
			continue
		}
		if seen++; seen == 2 {
			break
		}
		f.events <- *f.row("k2", size)
	}
	// When the node anchors no more the watch ends as at its close, and is begun again.
	close(f.events)
	watch, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	again := 0
	for r, err := range c.WatchAnchors(watch, "") {
		if r == nil && err == nil {
			again++
		}
	}
	if again < 1 {
		t.Error("the watch was not begun")
	}
}

// Pages follow each other over chains, and a token goes with its request.
func TestListAnchorsPages(t *testing.T) {
	n, _ := anchoredNode(t, nil)
	api := scalev1.NewAnchorServiceClient(n.conn)
	first := must(api.ListAnchors(n.ctx, &scalev1.ListAnchorsRequest{PageSize: 1}))
	second := must(api.ListAnchors(n.ctx, &scalev1.ListAnchorsRequest{PageSize: 1, PageToken: first.GetNextPageToken()}))
	if first.GetAnchors()[0].GetChain() != "arweave" || first.GetNextPageToken() == "" || second.GetAnchors()[0].GetChain() != "k2" || second.GetNextPageToken() != "" {
		t.Errorf("%v and %v", first, second)
	}
	for what, req := range map[string]*scalev1.ListAnchorsRequest{
		"a token of another request": {Chain: "k2", PageToken: first.GetNextPageToken()},
		"nonsense":                   {PageToken: "x"},
		"a negative page":            {PageSize: -1},
		"a long name":                {Chain: strings.Repeat("k", 33)},
	} {
		_, err := api.ListAnchors(n.ctx, req)
		refused(t, what, err, scalev1.ErrorReason_ERROR_REASON_INVALID)
	}
}

// Chains are configured through the private socket alone.
func TestConfigureChainIsPrivate(t *testing.T) {
	var auth Authenticator
	auth.Anonymous = read
	n, _ := anchoredNode(t, func(n *rawNode) {
		n.opt.Credentials = Credentials(nil)
		n.opt.Authenticate = func(ctx context.Context) (Identity, error) {
			id, err := auth.Authenticate(ctx)
			id.Scope = admin
			return id, err
		}
	})
	var l net.Listener = must(ListenPrivate(n.dir))
	served := make(chan error, 1)
	go func() { served <- n.srv.Serve(l) }()
	defer func() {
		n.stop()
		<-served
	}()
	one := anchor.ChainConfig{
		Chain: "k2", Endpoints: []string{"http://127.0.0.1:1"}, Wallet: "/wallet", Network: "net", Interval: 90 * time.Second, Poll: 20 * time.Millisecond,
		Entries: 5, Agree: 1, MaxFee: 7, MemoProgram: "memo",
	}
	public, own := dialRaw(t, n.addr), dialRaw(t, "unix:"+n.dir)
	if err := public.ConfigureAnchors(n.ctx, one, false); !errors.Is(err, ErrScope) {
		t.Errorf("over the network: %v", err)
	}
	_, err := public.AnchorConfig(n.ctx)
	st := refused(t, "over the network", err, scalev1.ErrorReason_ERROR_REASON_SCOPE, "private socket", "no token")
	if links := detailOf[*errdetails.Help](st).GetLinks(); len(links) != 1 || !strings.Contains(links[0].GetDescription(), "without --node") {
		t.Errorf("over the network: help %v", links)
	}
	if err := own.ConfigureAnchors(n.ctx, one, false); err != nil {
		t.Fatal(err)
	}
	if cfg, err := own.AnchorConfig(n.ctx); err != nil || !reflect.DeepEqual(cfg, anchor.Config{one}) {
		t.Errorf("%+v, %v", cfg, err)
	}
	bad := one
	bad.Wallet = "wallet"
	if err := own.ConfigureAnchors(n.ctx, bad, false); !errors.Is(err, anchor.ErrConfig) {
		t.Errorf("a relative path: %v", err)
	}
	if err := own.ConfigureAnchors(n.ctx, one, true); err != nil {
		t.Fatal(err)
	}
	if cfg, err := own.AnchorConfig(n.ctx); err != nil || len(cfg) != 0 {
		t.Errorf("%+v, %v", cfg, err)
	}
	own.Close()
	public.Close()
}

// Without anything that anchors there are no chains, and proofs have no receipts.
func TestNoAnchors(t *testing.T) {
	n := newRawNode(t, nil)
	c := dialRaw(t, n.addr)
	if _, _, err := c.AnchorChains(n.ctx); !errors.Is(err, anchor.ErrNoChain) {
		t.Errorf("got %v", err)
	}
}

// A node that lies about anchors is found out.
func TestAnchorsHostileNode(t *testing.T) {
	n, _ := anchoredNode(t, nil)
	proxy := startGRPCProxy(t, n.addr)
	c := dialRaw(t, proxy.addr)
	const (
		chainsM, listM  = scalev1.AnchorService_ListChains_FullMethodName, scalev1.AnchorService_ListAnchors_FullMethodName
		receiptsM, nowM = scalev1.AnchorService_GetReceipts_FullMethodName, scalev1.AnchorService_AnchorNow_FullMethodName
	)
	chains := func() error { _, _, err := c.AnchorChains(n.ctx); return err }
	list := func() error { return drain(c.Anchors(n.ctx, "")) }
	receipts := func() error { _, _, err := c.AnchorReceipts(n.ctx, 1); return err }
	now := func() error { _, _, err := c.AnchorNow(n.ctx, ""); return err }
	onChains := func(change func(m *scalev1.AnchorChain)) tamper {
		return onlyThat(t, chainsM, func(_ int, m *scalev1.ListChainsResponse) { change(m.Chains[1]) })
	}
	onList := func(change func(m *scalev1.ListAnchorsResponse)) tamper {
		return onlyThat(t, listM, func(_ int, m *scalev1.ListAnchorsResponse) { change(m) })
	}
	onReceipts := func(change func(m *scalev1.GetReceiptsResponse)) tamper {
		return onlyThat(t, receiptsM, func(_ int, m *scalev1.GetReceiptsResponse) { change(m) })
	}
	for _, lie := range []struct {
		what string
		call func() error
		lie  tamper
	}{
		{"no name", chains, onChains(func(m *scalev1.AnchorChain) { m.Chain = "" })},
		{"a name with a line", chains, onChains(func(m *scalev1.AnchorChain) { m.Chain = "k\n2" })},
		{"a negative size", chains, onChains(func(m *scalev1.AnchorChain) { m.Final = -1 })},
		{"decimals", chains, onChains(func(m *scalev1.AnchorChain) { m.Balance.Decimals = 1000 })},
		{"a state", chains, onChains(func(m *scalev1.AnchorChain) { m.Open.State = 99 })},
		{"many chains", chains, onlyThat(t, chainsM, func(_ int, m *scalev1.ListChainsResponse) {
			m.Chains = slices.Repeat(m.Chains, 10)
		})},
		{"a checkpoint of another size", list, onList(func(m *scalev1.ListAnchorsResponse) { m.Anchors[0].Size = 1 })},
		{"an unsigned checkpoint", list, onList(func(m *scalev1.ListAnchorsResponse) {
			note := m.Anchors[0].Checkpoint.Note
			note[len(note)-5] ^= 1
		})},
		{"no checkpoint", list, onList(func(m *scalev1.ListAnchorsResponse) { m.Anchors[0].Checkpoint = nil })},
		{"another chain's receipt", list, onList(func(m *scalev1.ListAnchorsResponse) { m.Anchors[0].Receipt = m.Anchors[1].Receipt })},
		{"a receipt that is none", list, onList(func(m *scalev1.ListAnchorsResponse) { m.Anchors[0].Receipt = []byte("x") })},
		{"out of order", list, onList(func(m *scalev1.ListAnchorsResponse) { slices.Reverse(m.Anchors) })},
		{"twice", list, onList(func(m *scalev1.ListAnchorsResponse) { m.Anchors = slices.Repeat(m.Anchors[:1], 2) })},
		{"no end", list, onList(func(m *scalev1.ListAnchorsResponse) { m.Anchors, m.NextPageToken = nil, "x" })},
		{"a tree without the entry", receipts, onReceipts(func(m *scalev1.GetReceiptsResponse) { m.Receipts[0].Size = 1 })},
		{"a short hash", receipts, onReceipts(func(m *scalev1.GetReceiptsResponse) { m.Receipts[0].Path[0] = []byte("x") })},
		{"a long path", receipts, onReceipts(func(m *scalev1.GetReceiptsResponse) {
			m.Receipts[0].Path = slices.Repeat(m.Receipts[0].Path[:1], 65)
		})},
		{"malformed", receipts, onReceipts(func(m *scalev1.GetReceiptsResponse) { m.Receipts[0].Receipt = []byte("x") })},
		{"many receipts", receipts, onReceipts(func(m *scalev1.GetReceiptsResponse) { m.Receipts = slices.Repeat(m.Receipts, 17) })},
		{"a size", now, onlyThat(t, nowM, func(_ int, m *scalev1.AnchorNowResponse) { m.Size = -1 })},
		{"a chain", now, onlyThat(t, nowM, func(_ int, m *scalev1.AnchorNowResponse) { m.Chains = []string{"\x1b[2J"} })},
	} {
		proxy.set(lie.lie, nil)
		if err := lie.call(); !errors.Is(err, ErrNode) {
			t.Errorf("%s: %v", lie.what, err)
		}
		proxy.set(nil, nil)
		if err := lie.call(); err != nil {
			t.Errorf("%s, in truth: %v", lie.what, err)
		}
	}
}

func TestAnchorMetrics(t *testing.T) {
	n, f := anchoredNode(t, nil)
	m := NewMetrics("v1")
	m.WatchAnchors(f)
	r := f.row("k2", 2)
	r.State, r.History[1].State = anchor.Seen, anchor.Seen
	m.AnchorChanged(*r)
	r.History = append(r.History, r.History[1])
	m.AnchorChanged(*r) // more of the same
	r.State, r.History[2].State = anchor.Final, anchor.Final
	m.AnchorChanged(*r)
	text := scrape(m)
	for series, want := range map[string]string{
		`scale_anchor_transitions_total{chain="k2",state="seen"}`: "1", `scale_anchor_transitions_total{chain="k2",state="final"}`: "1",
		`scale_anchor_fees_total{chain="k2"}`: "5", `scale_anchor_final_entries{chain="k2"}`: "1", `scale_anchor_ledger_entries{chain="k2"}`: fmt.Sprint(n.store.Published().Size),
		`scale_anchor_backlog_entries{chain="k2"}`: "1", `scale_anchor_balance_coins{chain="k2",coin="KOII"}`: "1e-08", `scale_anchor_anchors_left{chain="k2"}`: "3",
		`scale_anchor_failing_seconds{chain="arweave"}`: "0", `scale_anchor_open_attempt{chain="k2"}`: "2",
	} {
		if got := sample(text, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
}
