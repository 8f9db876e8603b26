package arweave

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/anchor"
)

// signed returns a transaction for a body of n bytes, made on a gateway of its own.
func signed(t *testing.T, n int) (anchor.Tx, []byte) {
	t.Helper()
	j := job(n, byte(n))
	return must(chain(t, Config{Endpoints: pool(t, newFake(t).URL)}).Prepare(t.Context(), j))(t), j.Body
}

func TestPrepareAsksAll(t *testing.T) {
	a, b, c := newFake(t), newFake(t), newFake(t)
	all := chain(t, Config{Endpoints: pool(t, a.URL, b.URL, c.URL)})
	two := chain(t, Config{Endpoints: pool(t, a.URL, b.URL)})
	prepare := func(c *Chain, want error, fee uint64) {
		t.Helper()
		tx, err := c.Prepare(t.Context(), job(10, 1))
		if !errors.Is(err, want) || tx.Fee != fee {
			t.Errorf("fee %d, %v; want %d, %v", tx.Fee, err, fee, want)
		}
		if err == nil && tx.Expires != 1050 {
			t.Errorf("expires at %d", tx.Expires)
		}
	}
	prepare(all, nil, 500)
	c.set("/price", 200, "999999") // one that lies is outvoted
	c.set("/wallet", 200, "0")
	c.set("/info", 200, `{"network":"arlocal.N.1","height":99999}`)
	prepare(all, nil, 500)
	c.set("/price", 200, "505")
	b.set("/price", 200, "510")
	prepare(two, nil, 510)
	b.set("/price", 200, "600")
	prepare(two, anchor.ErrDisagree, 0)
	b.set("/info", 200, `{"network":"arweave.N.1","height":1000}`)
	prepare(two, nil, 500)
	b.set("/info", 503, "")
	prepare(two, nil, 500)
	for path, answers := range map[string][]string{
		"/price":     {"", "x", "0", "-1", "1.5", "99999999999999999999999", strings.Repeat("1", 1000)},
		"/info":      {"", "{", `{"height":1}`, `{"network":"arlocal.N.1","height":-1}`, `{"network":"arlocal.N.1","height":9999999999999}`, `[]`},
		"/tx_anchor": {"", "A", "!!", "AAAB\nAA", strings.Repeat("A", 100)},
		"/wallet":    {"", "x", "-5"},
	} {
		for _, s := range answers {
			f := newFake(t)
			f.set(path, 200, "%s", s)
			prepare(chain(t, Config{Endpoints: pool(t, f.URL)}), anchor.ErrUnavailable, 0)
		}
	}
	for _, s := range []string{"1e+21", "99999999999999999999999"} {
		a.set("/wallet", 200, "%s", s)
		if b, err := chain(t, Config{Endpoints: pool(t, a.URL)}).Balance(t.Context()); err != nil || b.Units != 1<<63-1 || b.Price != 500 {
			t.Errorf("%s: %+v, %v", s, b, err)
		}
	}
}

func TestSendOutcomes(t *testing.T) {
	for _, v := range []struct {
		code          int
		size          int
		refused, fine bool
		chunks        int
	}{
		{200, 100, false, true, 0},
		{202, 100, false, true, 0},
		{208, 100, false, true, 1}, // which does not say that it has the body
		{200, 300_000, false, true, 2},
		{400, 100, true, false, 0},
		{403, 100, true, false, 0},
		{410, 100, true, false, 0},
		{404, 100, false, false, 0},
		{500, 100, false, false, 0},
		{429, 100, false, false, 0},
		{302, 100, false, false, 0},
	} {
		f := newFake(t)
		tx, body := signed(t, v.size)
		f.set("/tx", v.code, "")
		err := chain(t, Config{Endpoints: pool(t, f.URL)}).Send(t.Context(), tx, body)
		if (err == nil) != v.fine || errors.Is(err, anchor.ErrRefused) != v.refused || errors.Is(err, anchor.ErrFunds) != (v.code == 410) || len(f.chunks) != v.chunks {
			t.Errorf("%+v: %d chunks, %v", v, len(f.chunks), err)
		}
	}
	// What one endpoint refuses, another may have taken: that is no refusal.
	a, b := newFake(t), newFake(t)
	tx, body := signed(t, 100)
	a.set("/tx", 500, "")
	b.set("/tx", 400, "")
	c := chain(t, Config{Endpoints: pool(t, a.URL, b.URL)})
	if err := c.Send(t.Context(), tx, body); err == nil || errors.Is(err, anchor.ErrRefused) {
		t.Errorf("one fails, one refuses: %v", err)
	}
	b.set("/tx", 200, "")
	if err := c.Send(t.Context(), tx, body); err != nil {
		t.Errorf("one fails, one takes it: %v", err)
	}
}

func TestUploadGoesOn(t *testing.T) {
	f := newFake(t)
	f.fail = 3
	tx, body := signed(t, 5*262144)
	c := chain(t, Config{Endpoints: pool(t, f.URL)})
	if err := c.Send(t.Context(), tx, body); err == nil || errors.Is(err, anchor.ErrRefused) || !strings.Contains(err.Error(), "chunk 3 of 5") {
		t.Fatalf("cut half-way: %v", err)
	}
	f.status(tx.ID, 202, "Pending")
	if err := c.Send(t.Context(), tx, body); err != nil {
		t.Fatal(err)
	}
	if f.posts != 1 || len(f.chunks) != 6 {
		t.Errorf("%d transactions and %d chunks were sent, want 1 and 5 with one of them twice", f.posts, len(f.chunks))
	}
	// One that has lost the transaction gets all anew; so does one after a new start.
	f.fail, f.chunks = 2, nil
	if err := chain(t, Config{Endpoints: pool(t, f.URL)}).Send(t.Context(), tx, body); err == nil {
		t.Fatal("no error")
	}
	f.status(tx.ID, 404, "")
	f.fail, f.chunks = 0, nil
	if err := c.Send(t.Context(), tx, body); err != nil || f.posts != 2 || len(f.chunks) != 5 {
		t.Errorf("%d transactions and %d chunks, %v", f.posts, len(f.chunks), err)
	}
}

func TestStatusAnswers(t *testing.T) {
	tx, _ := signed(t, 100)
	f := newFake(t)
	c := chain(t, Config{Endpoints: pool(t, f.URL)})
	for _, v := range []struct {
		code int
		body string
		want anchor.Phase
		bad  bool
	}{
		{404, "Not Found", anchor.Absent, false},
		{202, "Pending", anchor.Waiting, false},
		{200, "Pending", anchor.Waiting, false},
		{200, "Pending\n", anchor.Waiting, false},
		{200, "", 0, true},
		{200, "{}", 0, true},
		{200, "null", 0, true},
		{200, `{"block_height":5`, 0, true},
		{200, `{"block_height":-5,"block_indep_hash":"AAAA","number_of_confirmations":1}`, 0, true},
		{200, `{"block_height":5,"block_indep_hash":"../info","number_of_confirmations":1}`, 0, true},
		{200, `{"block_height":5,"block_indep_hash":"","number_of_confirmations":1}`, 0, true},
		{200, `{"block_height":5,"block_indep_hash":"AAAA","number_of_confirmations":"many"}`, 0, true},
		{200, `{"block_height":5,"block_indep_hash":"AAAA","number_of_confirmations":1}`, anchor.Included, false},
		// No more confirmations than there are blocks.
		{200, `{"block_height":999,"block_indep_hash":"AAAA","number_of_confirmations":18}`, anchor.Included, false},
		{200, `{"block_height":1999,"block_indep_hash":"AAAA","number_of_confirmations":18}`, anchor.Included, false},
		{400, "Invalid hash.", 0, true},
		{429, "", 0, true},
		{502, "", 0, true},
	} {
		f.status(tx.ID, v.code, "%s", v.body)
		st, err := c.Status(t.Context(), tx)
		if (err != nil) != v.bad || err == nil && st.Phase != v.want || err != nil && !errors.Is(err, anchor.ErrUnavailable) {
			t.Errorf("%d %s: %+v, %v", v.code, v.body, st, err)
		}
	}
	if _, err := c.Status(t.Context(), anchor.Tx{ID: "../info"}); err == nil {
		t.Error("a path is taken for a transaction")
	}
}

// TestJudge: what several endpoints say together. Seats are written as a letter for the
// block, "p" for pending, "-" for unknown, "x" for no answer, with depth and height.
func TestJudge(t *testing.T) {
	const h = 1000
	tx := anchor.Tx{Expires: 500}
	at := func(block string, depth uint64) *seat {
		return &seat{known: true, mined: true, block: block, at: h + 1 - 18, depth: depth, network: network{Height: h}}
	}
	a18, a3, b18, b3 := at("a", 18), at("a", 3), at("b", 18), at("b", 3)
	gone := &seat{network: network{Height: h}}
	early := &seat{network: network{Height: 400}}
	edge := &seat{network: network{Height: 500 + forkDepth}}
	behind := &seat{network: network{Height: h - 5}}
	pending := &seat{known: true, network: network{Height: h}}
	for _, v := range []struct {
		name  string
		agree int
		all   []*seat
		want  anchor.Phase
		err   error
	}{
		{"one", 0, []*seat{a18}, anchor.Settled, nil},
		{"one, not deep", 0, []*seat{a3}, anchor.Included, nil},
		{"nobody answers", 0, []*seat{nil, nil}, 0, anchor.ErrUnavailable},
		{"one of two is down", 0, []*seat{a18, nil}, anchor.Settled, nil},
		{"one of two is down, both have to agree", 2, []*seat{a18, nil}, anchor.Included, nil},
		{"two of three are down", 0, []*seat{a18, nil, nil}, anchor.Included, nil},
		{"one of three is down", 0, []*seat{a18, nil, a18}, anchor.Settled, nil},
		{"one is behind", 0, []*seat{a18, behind}, anchor.Settled, nil},
		{"one is behind and deep", 0, []*seat{a18, a3}, anchor.Settled, nil},
		{"one of two does not know it", 0, []*seat{a18, gone}, anchor.Included, nil},
		{"one of two says it waits", 0, []*seat{pending, a18}, anchor.Included, nil},
		{"one of three does not know it", 0, []*seat{a18, gone, a18}, anchor.Settled, nil},
		{"two of three do not know it, and it is too late", 0, []*seat{a18, gone, gone}, anchor.Dead, nil},
		{"two of three do not know it yet", 0, []*seat{a3, early, early}, anchor.Absent, nil},
		{"two final blocks", 0, []*seat{a18, b18}, anchor.Included, nil},
		{"two final blocks, one outvoted", 0, []*seat{a18, b18, a18}, anchor.Settled, nil},
		{"three final blocks, none of which has most", 1, []*seat{a18, b18, gone}, anchor.Included, nil},
		{"two of four have it, nobody else answers", 0, []*seat{a18, nil, nil, a18}, anchor.Settled, nil},
		{"two of four have it, another has not", 0, []*seat{a18, gone, nil, a18}, anchor.Included, nil},
		{"three of four have it, another has not", 0, []*seat{a18, gone, a18, a18}, anchor.Settled, nil},
		{"too late for two of four, the others are down", 0, []*seat{gone, nil, gone, nil}, anchor.Dead, nil},
		{"too late for two of four, another has it", 0, []*seat{gone, a3, gone, nil}, anchor.Included, nil},
		{"too late for one of two, the other waits", 0, []*seat{gone, pending}, anchor.Waiting, nil},
		{"too late for two of three, the other is behind", 0, []*seat{gone, early, gone}, anchor.Dead, nil},
		{"another block is not final", 0, []*seat{a18, b3}, anchor.Included, nil},
		{"another block is outvoted", 0, []*seat{b3, a18, a18}, anchor.Settled, nil},
		{"waits", 0, []*seat{pending, gone}, anchor.Waiting, nil},
		{"absent", 0, []*seat{early}, anchor.Absent, nil},
		{"absent at the edge", 0, []*seat{edge}, anchor.Absent, nil},
		{"dead", 0, []*seat{gone, gone}, anchor.Dead, nil},
		{"dead for one, the other is behind", 0, []*seat{gone, early}, anchor.Absent, nil},
		{"dead for one of three", 0, []*seat{gone, nil, nil}, anchor.Absent, nil},
	} {
		c := &Chain{cfg: Config{Confirmations: 18, Agree: v.agree}}
		if v.agree == 0 {
			c.cfg.Agree = (len(v.all) + 1) / 2
		}
		for range 2 { // in both orders
			st, _, err := c.judge(tx, v.all)
			if !errors.Is(err, v.err) || err == nil && st.Phase != v.want {
				t.Errorf("%s: phase %d (%s), %v; want %d, %v", v.name, st.Phase, st.Detail, err, v.want, v.err)
			}
			for i, j := 0, len(v.all)-1; i < j; i, j = i+1, j-1 {
				v.all[i], v.all[j] = v.all[j], v.all[i]
			}
		}
	}
}

func TestBodyMissing(t *testing.T) {
	tx, body := signed(t, 300_000)
	f := newFake(t)
	c := chain(t, Config{Endpoints: pool(t, f.URL)})
	now := time.Unix(1790000000, 0)
	c.now = func() time.Time { return now }
	f.mined(tx.ID, fakeBlock, 900, 101)
	look := func(want anchor.Phase, missing bool) {
		t.Helper()
		st, err := c.Status(t.Context(), tx)
		if err != nil || st.Phase != want || st.Missing != missing || st.Receipt.Height != 900 || st.Receipt.Time != 1790000000 {
			t.Fatalf("%+v, %v", st, err)
		}
	}
	look(anchor.Included, true)
	look(anchor.Included, false) // not at each look
	now = now.Add(readPause)
	f.set("/"+tx.ID, 200, "%s", bytes.Repeat([]byte{'x'}, len(body)))
	look(anchor.Included, true)
	now = now.Add(readPause)
	f.set("/"+tx.ID, http.StatusFound, "")
	f.set("/raw/"+tx.ID, 200, "%s", body)
	look(anchor.Settled, false)
	f.set("/raw/"+tx.ID, 404, "")
	look(anchor.Settled, false) // it was there once

	// That no endpoint can be asked for it says nothing of the body.
	c = chain(t, Config{Endpoints: pool(t, f.URL)})
	for _, path := range []string{"/" + tx.ID, "/raw/" + tx.ID, "/tx/" + tx.ID + "/offset"} {
		f.set(path, 503, "")
	}
	if st, err := c.Status(t.Context(), tx); !errors.Is(err, anchor.ErrUnavailable) {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestChunkedRead(t *testing.T) {
	tx, body := signed(t, 600_001)
	f := newFake(t)
	h := must(open(tx.Raw))(t)
	e := pool(t, f.URL).Endpoints()[0]
	offset := "/tx/" + tx.ID + "/offset"
	f.set(offset, 200, `{"size":"600001","offset":"%d"}`, 5000+600_001-1)
	chunk := func(start, end int) { f.set("/chunk/"+itoa(5000+start), 200, `{"chunk":%q}`, encode(body[start:end])) }
	chunk(0, 262144)
	chunk(262144, 524288)
	chunk(524288, 600001)
	if b, err := readChunks(t.Context(), e, h); err != nil || !bytes.Equal(b, body) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for name, breaks := range map[string]func(){
		"empty":    func() { f.set("/chunk/"+itoa(5000+262144), 200, `{"chunk":""}`) },
		"too long": func() { f.set("/chunk/"+itoa(5000+524288), 200, `{"chunk":%q}`, encode(body[:100_000])) },
		"garbage":  func() { f.set("/chunk/5000", 200, "garbage") },
		"none":     func() { f.set("/chunk/5000", 204, "") },
		"size":     func() { f.set(offset, 200, `{"size":"1","offset":"605000"}`) },
		"offset":   func() { f.set(offset, 200, `{"size":"600001","offset":"5"}`) },
		"huge":     func() { f.set(offset, 200, `{"size":"600001","offset":"99999999999999999999"}`) },
	} {
		breaks()
		if _, err := readChunks(t.Context(), e, h); !errors.Is(err, errNotReadable) {
			t.Errorf("%s: %v", name, err)
		}
		f.set(offset, 200, `{"size":"600001","offset":"605000"}`)
		chunk(0, 262144)
		chunk(262144, 524288)
		chunk(524288, 600001)
	}
}

func TestObserverWantsAll(t *testing.T) {
	tx, _ := signed(t, 100)
	a, b := newFake(t), newFake(t)
	o := Observer{Endpoints: pool(t, a.URL, b.URL)}
	r := anchor.Receipt{Chain: Name, Raw: tx.Raw, Network: localNetwork, Height: 900, Block: fakeBlock, Time: 1790000000, Final: true}
	want := func(name string, class error) {
		t.Helper()
		if c, err := o.Confirm(t.Context(), r); !errors.Is(err, class) || (err == nil) != c.Final {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		a.mined(tx.ID, fakeBlock, 900, 101)
		b.mined(tx.ID, fakeBlock, 900, 101)
		b.set("/info", 200, `{"network":"arlocal.N.1","height":1000}`)
	}
	want("nobody knows it", anchor.ErrNotFinal)
	want("all alike", nil)
	b.status(tx.ID, 404, "")
	want("one does not know it", anchor.ErrNotFinal)
	b.status(tx.ID, 202, "Pending")
	want("waits at one", anchor.ErrNotFinal)
	b.mined(tx.ID, fakeBlock, 900, 17)
	want("one has fewer confirmations", anchor.ErrNotFinal)
	b.mined(tx.ID, "AAAA", 900, 101)
	want("another block", anchor.ErrDisagree)
	b.mined(tx.ID, fakeBlock, 901, 100)
	want("another height", anchor.ErrDisagree)
	b.set("/block/hash/"+fakeBlock, 200, `{"indep_hash":%q,"timestamp":1790000001,"txs":[%q]}`, fakeBlock, tx.ID)
	want("another time", anchor.ErrDisagree)
	b.set("/block/hash/"+fakeBlock, 200, `{"indep_hash":%q,"timestamp":1790000000,"txs":[%q]}`, fakeBlock, strings.Repeat("A", 43))
	want("not in the block", anchor.ErrUnavailable)
	b.set("/block/hash/"+fakeBlock, 200, `{"indep_hash":"AAAA","timestamp":1790000000}`)
	want("an answer for another block", anchor.ErrUnavailable)
	b.status(tx.ID, 503, "")
	want("one is down", anchor.ErrUnavailable)
	b.set("/info", 200, `{"network":"arweave.N.1","height":1000}`)
	want("two networks", anchor.ErrDisagree)
	o.Network = MainNetwork
	want("not the network that was meant", anchor.ErrCluster)
	o.Network, r.Height = "", 899
	want("the receipt says another height", anchor.ErrForged)
	r.Height, r.Raw = 900, bytes.Replace(r.Raw, []byte(`"reward":"500"`), []byte(`"reward":"501"`), 1)
	want("the receipt's transaction was changed", anchor.ErrForged)
}

func TestFetchAsksTheNext(t *testing.T) {
	tx, body := signed(t, 1000)
	other, _ := signed(t, 1001)
	liar, good := newFake(t), newFake(t)
	path := "/tx/" + tx.ID
	// As gateways write it: other order, spaces, further fields.
	good.set(path, 200, `{"data_tree":[],"data":%q,%s`, "AAAA", strings.Replace(string(tx.Raw[1:]), `"data":"",`, "", 1))
	good.set("/"+tx.ID, 200, "%s", body)
	for name, raw := range map[string]string{
		"another transaction": string(other.Raw),
		"changed":             strings.Replace(string(tx.Raw), `"reward":"500"`, `"reward":"501"`, 1),
		"garbage":             "garbage",
		"a list":              "[]",
	} {
		liar.set(path, 200, "%s", raw)
		h, got, err := Fetch(t.Context(), pool(t, liar.URL, good.URL), tx.ID, 1<<20)
		if err != nil || !bytes.Equal(got, body) || h.ID != tx.ID || !cmp.Equal(h.Raw, tx.Raw) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := Fetch(t.Context(), pool(t, liar.URL), tx.ID, 1<<20); err == nil {
			t.Errorf("%s: is believed", name)
		}
	}
	liar.set(path, 200, "%s", tx.Raw)
	liar.set("/"+tx.ID, 200, "%s", body[1:])
	if _, got, err := Fetch(t.Context(), pool(t, liar.URL, good.URL), tx.ID, 1<<20); err != nil || !bytes.Equal(got, body) {
		t.Errorf("another body: %v", err)
	}
	if _, _, err := Fetch(t.Context(), pool(t, liar.URL), tx.ID, 1<<20); !errors.Is(err, errNotReadable) {
		t.Errorf("another body: %v", err)
	}
}
