package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/anchor/anchortest"
	"github.com/koii-network/scale/anchor/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bench is a pool before servers that answer "ok" through proxies, with a clock.
type bench struct {
	*endpoint.Pool
	proxies []*anchortest.Proxy
	now     time.Time
}

func newBench(t *testing.T, n int, o endpoint.Options) *bench {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	t.Cleanup(s.Close)
	b := &bench{now: time.Unix(1e9, 0)}
	o.Now = func() time.Time { return b.now }
	var urls []string
	for range n {
		p := anchortest.NewProxy(t, s.URL)
		b.proxies = append(b.proxies, p)
		urls = append(urls, p.URL())
	}
	p, err := endpoint.New(urls, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	b.Pool = p
	return b
}

// get reads one answer of an endpoint.
func get(ctx context.Context, e *endpoint.Endpoint) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL("/x"), nil)
	if err != nil {
		return "", err
	}
	resp, err := e.HTTP().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func try(ctx context.Context, e *endpoint.Endpoint) error {
	_, err := get(ctx, e)
	return err
}

func (b *bench) asked() []int {
	var out []int
	for _, p := range b.proxies {
		out = append(out, len(p.Seen("")))
	}
	return out
}

func TestNewRefuses(t *testing.T) {
	for _, urls := range [][]string{
		nil, {""}, {"ftp://a"}, {"http://"}, {"example.org"}, {"http://a", "http://a"}, {"http://a b"}, {"file:///etc/passwd"},
	} {
		if _, err := endpoint.New(urls, endpoint.Options{}); err == nil {
			t.Errorf("%q: no error", urls)
		}
	}
}

// Whatever an answer is instead of a good one, it is an error that says unavailable, and
// takes no more memory than is allowed.
func TestAnswers(t *testing.T) {
	for name, f := range map[string]anchortest.Fault{
		"500": anchortest.Status(500), "503": anchortest.Status(503), "429": anchortest.Status(429), "cut": anchortest.Cut, "cut after": anchortest.CutAfter,
		"redirect": anchortest.Status(302, "Location", "http://127.0.0.1:1/"), "truncated": anchortest.Truncate,
		"endless": anchortest.Endless(1<<30, false), "1 GB": anchortest.Endless(1<<30, true), "a byte too long": anchortest.Body("12345678901"),
		"hang": anchortest.Hang,
	} {
		t.Run(name, func(t *testing.T) {
			o := endpoint.Options{Answer: 10}
			if name == "hang" {
				o.Call = 50 * time.Millisecond
			}
			b := newBench(t, 1, o)
			b.proxies[0].Fault("", 1, f)
			if err := b.First(t.Context(), try); !errors.Is(err, anchor.ErrUnavailable) || errors.Is(err, anchor.ErrRefused) {
				t.Errorf("%v", err)
			}
			if err := b.First(t.Context(), try); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
	b := newBench(t, 1, endpoint.Options{Answer: 10})
	b.proxies[0].Fault("", 1, anchortest.Body("1234567890"))
	if s, err := get(t.Context(), b.Endpoints()[0]); err != nil || s != "1234567890" {
		t.Errorf("%q, %v", s, err)
	}
	b.proxies[0].Down()
	if err := b.First(t.Context(), try); !errors.Is(err, anchor.ErrUnavailable) {
		t.Errorf("down: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		header []string
		want   time.Duration
		ok     bool
	}{
		{nil, 0, false},
		{[]string{"Retry-After", "3"}, 3 * time.Second, true},
		{[]string{"Retry-After", "0"}, 0, true},
		{[]string{"Retry-After", "-1"}, 0, false},
		{[]string{"Retry-After", "99999999999"}, 0, false},
		{[]string{"Retry-After", "soon"}, 0, false},
		// The answer's own date counts: the clock here says 2001.
		{[]string{"Retry-After", "Mon, 02 Jan 2040 15:04:15 GMT", "Date", "Mon, 02 Jan 2040 15:04:05 GMT"}, 10 * time.Second, true},
		{[]string{"Retry-After", "Mon, 02 Jan 2040 15:04:00 GMT", "Date", "Mon, 02 Jan 2040 15:04:05 GMT"}, 0, true},
	} {
		b := newBench(t, 1, endpoint.Options{})
		b.proxies[0].Fault("", -1, anchortest.Status(429, c.header...))
		err := b.First(t.Context(), try)
		var retry *anchor.RetryError
		if ok := errors.As(err, &retry); ok != c.ok || ok && retry.After != c.want || !errors.Is(err, anchor.ErrUnavailable) {
			t.Errorf("%q: %v", c.header, err)
		}
	}
}

func TestFirst(t *testing.T) {
	refuse := func(context.Context, *endpoint.Endpoint) error { return fmt.Errorf("no: %w", anchor.ErrRefused) }
	b := newBench(t, 3, endpoint.Options{})
	if err := b.First(t.Context(), refuse); !errors.Is(err, anchor.ErrRefused) || errors.Is(err, anchor.ErrUnavailable) {
		t.Errorf("all refuse: %v", err)
	}
	// What one refused, another may have done.
	n := 0
	mixed := func(context.Context, *endpoint.Endpoint) error {
		if n++; n == 2 {
			return fmt.Errorf("lost: %w", anchor.ErrUnavailable)
		}
		return fmt.Errorf("no: %w", anchor.ErrRefused)
	}
	if err := b.First(t.Context(), mixed); errors.Is(err, anchor.ErrRefused) || !errors.Is(err, anchor.ErrUnavailable) || n != 3 {
		t.Errorf("two of three refuse: %v", err)
	}
	n = 0
	if err := b.Any(t.Context(), refuse); !errors.Is(err, anchor.ErrRefused) {
		t.Errorf("all refuse at once: %v", err)
	}
	// The first that works is enough.
	b.proxies[0].Fault("", -1, anchortest.Cut)
	if err := b.First(t.Context(), try); err != nil || !slices.Equal(b.asked(), []int{1, 1, 0}) {
		t.Errorf("%v, %v", err, b.asked())
	}
	if err := b.Any(t.Context(), try); err != nil || !slices.Equal(b.asked(), []int{2, 2, 1}) {
		t.Errorf("%v, %v", err, b.asked())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.First(ctx, try); !errors.Is(err, anchor.ErrUnavailable) || !slices.Equal(b.asked(), []int{2, 2, 1}) {
		t.Errorf("ended: %v, %v", err, b.asked())
	}
}

func TestBreaker(t *testing.T) {
	b := newBench(t, 3, endpoint.Options{})
	b.proxies[0].Fault("", -1, anchortest.Status(500))
	for range 6 {
		if err := b.First(t.Context(), try); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.asked(); !slices.Equal(got, []int{3, 6, 0}) {
		t.Errorf("asked %v", got)
	}
	some := func(need int) []error {
		return b.Some(t.Context(), need, func(ctx context.Context, _ int, e *endpoint.Endpoint) error { return try(ctx, e) })
	}
	if errs := some(2); !errors.Is(errs[0], endpoint.ErrSkipped) || errs[1] != nil || errs[2] != nil {
		t.Errorf("two needed: %v", errs)
	}
	if errs := some(3); errs[0] == nil || errors.Is(errs[0], endpoint.ErrSkipped) {
		t.Errorf("three needed: %v", errs)
	}
	all := b.All(t.Context(), func(ctx context.Context, _ int, e *endpoint.Endpoint) error { return try(ctx, e) })
	if errors.Is(all[0], endpoint.ErrSkipped) {
		t.Errorf("all: %v", all)
	}
	// After a while it is asked again, and if it works, first again.
	b.proxies[0].Heal()
	b.now = b.now.Add(31 * time.Second)
	before := b.asked()
	for range 2 {
		if err := b.First(t.Context(), try); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.asked(); got[0] != before[0]+2 || got[1] != before[1] {
		t.Errorf("asked %v, before %v", got, before)
	}
	// One that says when is left alone until then, at once.
	b.proxies[0].Fault("", 1, anchortest.Status(429, "Retry-After", "100"))
	if err := b.First(t.Context(), try); err != nil {
		t.Fatal(err)
	}
	before = b.asked()
	b.now = b.now.Add(99 * time.Second)
	if err := b.First(t.Context(), try); err != nil || b.asked()[0] != before[0] {
		t.Errorf("%v, asked %v, before %v", err, b.asked(), before)
	}
	b.now = b.now.Add(2 * time.Second)
	if err := b.First(t.Context(), try); err != nil || b.asked()[0] != before[0]+1 {
		t.Errorf("%v, asked %v, before %v", err, b.asked(), before)
	}
}

// A call of many requests is bounded by its context alone, each request by itself.
func TestLong(t *testing.T) {
	b := newBench(t, 1, endpoint.Options{Call: 50 * time.Millisecond})
	b.proxies[0].Fault("", 1, anchortest.Hang)
	n := 0
	err := b.Long(t.Context(), func(ctx context.Context, e *endpoint.Endpoint) error {
		if err := try(ctx, e); err == nil {
			t.Error("no time-out")
		}
		n++
		return try(ctx, e)
	})
	if err != nil || n != 1 {
		t.Errorf("%v", err)
	}
}

// The user of an address is sent as such.
func TestUser(t *testing.T) {
	got := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		got <- name + " " + password
	}))
	t.Cleanup(s.Close)
	p, err := endpoint.New([]string{strings.Replace(s.URL, "//", "//name:s3cret@", 1)}, endpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if err := p.First(t.Context(), try); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "name s3cret" {
		t.Error(s)
	}
}

// What may be a key does not get into messages.
func TestSecret(t *testing.T) {
	for _, u := range []string{"http://127.0.0.1:1/v1/s3cret?key=s3cret", "http://s3cret:s3cret@127.0.0.1:1/s3cret/", "http://:s3cret@127.0.0.1:1"} {
		p, err := endpoint.New([]string{u}, endpoint.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.First(t.Context(), try); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Error(err)
		}
		if s := p.Endpoints()[0].String(); strings.Contains(s, "s3cret") {
			t.Error(s)
		}
	}
}
