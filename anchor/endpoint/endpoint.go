// Package endpoint calls the HTTP endpoints of a chain: several of them, none of which
// is trusted to answer soon, briefly, or at all.
package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/koii-network/scale/anchor"
)

// Defaults of Options.
const (
	DefaultCall   = 15 * time.Second
	DefaultAnswer = 1 << 20
)

// Options configures a Pool.
type Options struct {
	// Call bounds one request with its answer; 0 is DefaultCall.
	Call time.Duration
	// Answer bounds the bytes of one answer's body; 0 is DefaultAnswer.
	Answer int64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// A Pool is the endpoints of one chain, in the order of preference.
type Pool struct {
	all []*Endpoint
	opt Options
}

// An Endpoint is one server.
type Endpoint struct {
	url    string
	show   string // url without what may be secret
	client *http.Client
	opt    Options

	mu    sync.Mutex
	fails int       // in a row
	until time.Time // not asked before, while others are there
}

// New makes a pool. URLs are http or https; a URL with a query or user is used as it
// is, and shown without.
func New(urls []string, o Options) (*Pool, error) {
	if o.Call <= 0 {
		o.Call = DefaultCall
	}
	if o.Answer <= 0 {
		o.Answer = DefaultAnswer
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(urls) == 0 {
		return nil, errors.New("no endpoint")
	}
	p := &Pool{opt: o}
	seen := map[string]bool{}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("endpoint %q is not an http or https URL", s)
		}
		if seen[u.String()] {
			return nil, fmt.Errorf("endpoint %s twice", u.Redacted())
		}
		seen[u.String()] = true
		user := u.User
		u.User = nil // it goes into a header, not into messages
		e := &Endpoint{url: strings.TrimSuffix(u.String(), "/"), show: u.Scheme + "://" + u.Host, opt: o}
		e.client = &http.Client{
			Transport: &transport{e: e, user: user, next: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            (&net.Dialer{Timeout: o.Call}).DialContext,
				TLSHandshakeTimeout:    o.Call,
				ResponseHeaderTimeout:  o.Call,
				MaxResponseHeaderBytes: 64 << 10,
				MaxIdleConnsPerHost:    4,
				IdleConnTimeout:        time.Minute,
				DisableCompression:     true, // a small answer stays small
			}},
			Timeout: o.Call,
			// Whoever names an endpoint trusts that one, not where it points to.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		p.all = append(p.all, e)
	}
	return p, nil
}

// Close closes idle connections.
func (p *Pool) Close() {
	for _, e := range p.all {
		e.client.CloseIdleConnections()
	}
}

// Len returns how many endpoints there are.
func (p *Pool) Len() int { return len(p.all) }

// Endpoints returns them in their order.
func (p *Pool) Endpoints() []*Endpoint { return p.all }

// String shows where the endpoint is.
func (e *Endpoint) String() string { return e.show }

// URL returns the address with a path, which begins with "/" or is empty, appended.
func (e *Endpoint) URL(path string) string { return e.url + path }

// HTTP returns the endpoint's client: its answers are bounded, their errors of the
// classes of package anchor.
func (e *Endpoint) HTTP() *http.Client { return e.client }

// First calls endpoints one after the other, those that work first, until f succeeds on
// one. If all refused, the error wraps anchor.ErrRefused, else anchor.ErrUnavailable.
func (p *Pool) First(ctx context.Context, f func(context.Context, *Endpoint) error) error {
	return p.first(ctx, p.opt.Call, p.order(), f)
}

// Long is First for many requests with one endpoint: each of them is bounded, all of
// them together by ctx alone.
func (p *Pool) Long(ctx context.Context, f func(context.Context, *Endpoint) error) error {
	return p.first(ctx, 0, p.order(), f)
}

// LongLast is Long with some endpoints at the end, whatever else is known of them.
func (p *Pool) LongLast(ctx context.Context, last func(*Endpoint) bool, f func(context.Context, *Endpoint) error) error {
	all := p.order()
	slices.SortStableFunc(all, func(a, b *Endpoint) int {
		switch x, y := last(a), last(b); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	return p.first(ctx, 0, all, f)
}

func (p *Pool) first(ctx context.Context, limit time.Duration, order []*Endpoint, f func(context.Context, *Endpoint) error) error {
	var errs []error
	for _, e := range order {
		err := e.call(ctx, limit, f)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", e, err))
		if ctx.Err() != nil {
			break
		}
	}
	return p.verdict(errs)
}

// Any calls endpoints at once, as Some does, and needs success on one of them. Its errors
// are those of First.
func (p *Pool) Any(ctx context.Context, f func(context.Context, *Endpoint) error) error {
	errs := p.Some(ctx, 1, func(ctx context.Context, _ int, e *Endpoint) error { return f(ctx, e) })
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return p.verdict(errs)
}

// verdict makes one error of those of all endpoints that were asked.
func (p *Pool) verdict(errs []error) error {
	refused := 0
	for _, err := range errs {
		if errors.Is(err, anchor.ErrRefused) {
			refused++
		}
	}
	err := errors.Join(errs...)
	if refused == len(p.all) {
		return err
	}
	return &unavailable{err}
}

// unavailable is a failure of all endpoints that is not a refusal by all: what one of
// them refused, another may have done.
type unavailable struct{ err error }

func (u *unavailable) Error() string { return u.err.Error() }

func (u *unavailable) Is(target error) bool { return target == anchor.ErrUnavailable }

func (u *unavailable) As(target any) bool { return errors.As(u.err, target) }

// All calls all endpoints at once and returns their errors in the order of the pool.
func (p *Pool) All(ctx context.Context, f func(ctx context.Context, i int, e *Endpoint) error) []error {
	return p.Some(ctx, len(p.all), f)
}

// Some is All without the endpoints that failed of late, as long as so many are left as
// are needed: one that hangs does not hold up the others again and again. The errors of
// those that were not asked wrap ErrSkipped.
func (p *Pool) Some(ctx context.Context, need int, f func(ctx context.Context, i int, e *Endpoint) error) []error {
	now := p.opt.Now()
	skip, left := make([]bool, len(p.all)), len(p.all)
	for i, e := range p.all {
		if skip[i] = e.open(now); skip[i] {
			left--
		}
	}
	errs := make([]error, len(p.all))
	var wg sync.WaitGroup
	for i, e := range p.all {
		if skip[i] && left >= need {
			errs[i] = fmt.Errorf("%s: %w", e, ErrSkipped)
			continue
		}
		wg.Go(func() {
			if err := e.call(ctx, p.opt.Call, func(ctx context.Context, e *Endpoint) error { return f(ctx, i, e) }); err != nil {
				errs[i] = fmt.Errorf("%s: %w", e, err)
			}
		})
	}
	wg.Wait()
	return errs
}

// ErrSkipped: the endpoint was not asked, because it failed of late.
var ErrSkipped = fmt.Errorf("not asked, as it failed of late: %w", anchor.ErrUnavailable)

// order returns the endpoints with those that failed of late at the end.
func (p *Pool) order() []*Endpoint {
	now := p.opt.Now()
	var good, bad []*Endpoint
	for _, e := range p.all {
		if e.open(now) {
			bad = append(bad, e)
		} else {
			good = append(good, e)
		}
	}
	return append(good, bad...)
}

const (
	failsToOpen = 3
	openFor     = 30 * time.Second
)

// open reports whether the endpoint's breaker is.
func (e *Endpoint) open(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return now.Before(e.until)
}

// call calls f and keeps the breaker's account; limit 0 is none.
func (e *Endpoint) call(ctx context.Context, limit time.Duration, f func(context.Context, *Endpoint) error) error {
	cctx, cancel := ctx, context.CancelFunc(func() {})
	if limit > 0 {
		cctx, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	err := f(cctx, e)
	if err != nil {
		if text := strings.ReplaceAll(err.Error(), e.url, e.show); text != err.Error() {
			err = &shown{err, text}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, anchor.ErrRefused):
		e.fails, e.until = 0, time.Time{}
	case ctx.Err() == nil:
		e.fails++
		var retry *anchor.RetryError
		if errors.As(err, &retry) {
			e.until = e.opt.Now().Add(min(retry.After, time.Hour))
		} else if e.fails >= failsToOpen {
			e.until = e.opt.Now().Add(openFor)
		}
	}
	return err
}

// shown is an error without the part of an address that may be a key.
type shown struct {
	err  error
	text string
}

func (s *shown) Error() string { return s.text }
func (s *shown) Unwrap() error { return s.err }

// WithAnswer allows requests under ctx an answer of most bytes where Options.Answer is
// less: for what is known to be large.
func WithAnswer(ctx context.Context, most int64) context.Context {
	return context.WithValue(ctx, answerKey{}, most)
}

type answerKey struct{}

// transport bounds answers and turns status codes that say "later" into errors.
type transport struct {
	e    *Endpoint
	user *url.Userinfo
	next http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.user != nil {
		r = r.Clone(r.Context())
		password, _ := t.user.Password()
		r.SetBasicAuth(t.user.Username(), password)
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	most := t.e.opt.Answer
	if n, ok := r.Context().Value(answerKey{}).(int64); ok {
		most = max(most, n)
	}
	switch c := resp.StatusCode; {
	case c == http.StatusTooManyRequests, c >= 500:
		err := fmt.Errorf("%s: %w", resp.Status, anchor.ErrUnavailable)
		if s := snippet(resp.Body); s != "" {
			err = fmt.Errorf("%s: %s: %w", resp.Status, s, anchor.ErrUnavailable)
		}
		_ = resp.Body.Close()
		if d, ok := retryAfter(resp.Header); ok {
			return nil, &anchor.RetryError{After: d, Err: err}
		}
		return nil, err
	case c >= 300 && c < 400:
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: redirected, which is not followed: name the final address: %w", resp.Status, anchor.ErrUnavailable)
	case resp.ContentLength > most:
		_ = resp.Body.Close()
		return nil, fmt.Errorf("answer of %d bytes, at most %d are read: %w", resp.ContentLength, most, anchor.ErrUnavailable)
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: most, limit: most}
	return resp, nil
}

func snippet(r io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(r, 200)) // for people; what cannot be read is left out
	return strings.ToValidUTF8(string(bytes.TrimSpace(b)), "")
}

// retryAfter reads the header in both its forms. A date counts from the answer's own
// date, so that a wrong clock here does not matter.
func retryAfter(h http.Header) (time.Duration, bool) {
	s := h.Get("Retry-After")
	if n, err := strconv.ParseInt(s, 10, 32); err == nil && n >= 0 {
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0, false
	}
	return max(0, at.Sub(now)), true
}

// bounded fails after so many bytes instead of ending there: half an answer is none.
type bounded struct {
	io.ReadCloser
	left, limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		return int(b.left), fmt.Errorf("answer of more than %d bytes: %w", b.limit, anchor.ErrUnavailable)
	}
	b.left -= int64(n)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	return n, err
}
