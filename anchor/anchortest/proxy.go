// Package anchortest has what the tests of anchors share: a proxy that makes the faults
// of a network and of servers, between a client and a chain that works.
package anchortest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A Proxy stands between a client and one server. Without faults it passes all on.
type Proxy struct {
	t      testing.TB
	target string
	addr   string

	mu     sync.Mutex
	server *http.Server
	ended  chan struct{} // closed when the server's goroutine is
	rules  []*rule
	seen   []Request
	stop   chan struct{} // closed at the end of the test
}

// A Request is what a client asked for.
type Request struct {
	// Name is the method of a JSON-RPC call, else the HTTP method and path.
	Name string
	Body []byte
}

// A rule makes a fault of the requests it matches.
type rule struct {
	match func(Request) bool
	left  int // times; negative for ever
	fault Fault
}

// NewProxy starts a proxy before target on a port of its own on 127.0.0.1; it ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: strings.TrimSuffix(target, "/"), addr: "127.0.0.1:0", stop: make(chan struct{})}
	p.Up()
	t.Cleanup(func() {
		close(p.stop)
		p.Down()
	})
	return p
}

// URL is the address for the client.
func (p *Proxy) URL() string { return "http://" + p.addr }

// Down refuses connections, and cuts those that are open.
func (p *Proxy) Down() {
	p.mu.Lock()
	s, ended := p.server, p.ended
	p.server = nil
	p.mu.Unlock()
	if s != nil {
		_ = s.Close() // that connections were open is no matter
		<-ended
	}
}

// Up listens again, on the same port.
func (p *Proxy) Up() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	s, ended := &http.Server{Handler: http.HandlerFunc(p.serve)}, make(chan struct{})
	p.mu.Lock()
	p.addr, p.server, p.ended = l.Addr().String(), s, ended
	p.mu.Unlock()
	go func() {
		defer close(ended)
		_ = s.Serve(l) // always ends with an error
	}()
}

// Fault makes a fault of the next n requests of a name, negative for all. The name is
// the method of a JSON-RPC call, or the beginning of an HTTP method and path ("GET /tx/");
// empty is any.
func (p *Proxy) Fault(name string, n int, f Fault) {
	p.FaultIf(func(r Request) bool {
		return name == "" || r.Name == name || strings.Contains(name, " ") && strings.HasPrefix(r.Name, name)
	}, n, f)
}

// FaultIf makes a fault of the next n requests that match, negative for all.
func (p *Proxy) FaultIf(match func(Request) bool, n int, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &rule{match, n, f})
}

// Heal ends all faults.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = nil
}

// Seen returns the requests of a name so far; empty is all.
func (p *Proxy) Seen(name string) []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Request
	for _, r := range p.seen {
		if name == "" || r.Name == name {
			out = append(out, r)
		}
	}
	return out
}

func (p *Proxy) find(r Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, r)
	for _, rule := range p.rules {
		if rule.left != 0 && rule.match(r) {
			rule.left--
			return rule.fault
		}
	}
	return nil
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	req := Request{Name: r.Method + " " + r.URL.Path, Body: body}
	var call struct{ Method string }
	if r.Method == http.MethodPost && json.Unmarshal(body, &call) == nil && call.Method != "" {
		req.Name = call.Method
	}
	x := &Exchange{Request: req, w: w, r: r, p: p}
	if f := p.find(req); f != nil {
		f(x)
		return
	}
	a, err := x.Forward()
	if err != nil {
		Cut(x)
		return
	}
	x.Answer(a)
}

// An Exchange is one request under a fault.
type Exchange struct {
	Request
	w http.ResponseWriter
	r *http.Request
	p *Proxy
}

// A Reply is what the server said.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// Forward lets the server act, and returns its answer.
func (x *Exchange) Forward() (Reply, error) {
	url := x.p.target + x.r.URL.RequestURI()
	req, err := http.NewRequestWithContext(x.r.Context(), x.r.Method, url, bytes.NewReader(x.Body))
	if err != nil {
		return Reply{}, err
	}
	for _, name := range []string{"Content-Type", "Accept", "Range"} {
		if v := x.r.Header.Values(name); len(v) > 0 {
			req.Header[name] = v
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close() // read only
	b, err := io.ReadAll(resp.Body)
	header := resp.Header.Clone()
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Content-Encoding"} {
		header.Del(name)
	}
	return Reply{resp.StatusCode, header, b}, err
}

// Answer answers the client.
func (x *Exchange) Answer(a Reply) {
	for name, v := range a.Header {
		x.w.Header()[name] = v
	}
	x.w.WriteHeader(a.Status)
	_, _ = x.w.Write(a.Body) // the client may have gone
}

// A Fault answers a request in place of the server, which it may ask.
type Fault func(x *Exchange)

// Cut closes the connection; the server has got nothing.
func Cut(x *Exchange) {
	panic(http.ErrAbortHandler)
}

// CutAfter closes the connection after the server has acted: the reply is lost.
func CutAfter(x *Exchange) {
	_, _ = x.Forward() // whatever it says is lost
	Cut(x)
}

// Hang never answers; the server has got nothing.
func Hang(x *Exchange) {
	select {
	case <-x.r.Context().Done():
	case <-x.p.stop:
	}
	Cut(x)
}

// HangAfter lets the server act and never answers.
func HangAfter(x *Exchange) {
	_, _ = x.Forward() // whatever it says is lost
	Hang(x)
}

// Until answers as f says once released is closed, or cuts when the client has gone.
func Until(released <-chan struct{}, f Fault) Fault {
	return func(x *Exchange) {
		select {
		case <-released:
			f(x)
		case <-x.r.Context().Done():
			Cut(x)
		case <-x.p.stop:
			Cut(x)
		}
	}
}

// Pass lets the request through.
func Pass(x *Exchange) {
	a, err := x.Forward()
	if err != nil {
		Cut(x)
	}
	x.Answer(a)
}

// Status answers with a code and headers given as pairs; the server has got nothing.
func Status(code int, header ...string) Fault {
	return func(x *Exchange) {
		h := http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		x.Answer(Reply{code, h, []byte(http.StatusText(code) + "\n")})
	}
}

// StatusAfter answers with a code after the server has acted.
func StatusAfter(code int) Fault {
	return func(x *Exchange) {
		_, _ = x.Forward() // whatever it says is lost
		Status(code)(x)
	}
}

// Body answers 200 with fixed bytes; the server has got nothing.
func Body(b string) Fault {
	return func(x *Exchange) {
		x.Answer(Reply{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, []byte(b)})
	}
}

// Truncate gives half of the server's answer and cuts, with the length of the whole announced.
func Truncate(x *Exchange) {
	a, err := x.Forward()
	if err != nil {
		Cut(x)
	}
	x.w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	x.w.WriteHeader(a.Status)
	_, _ = x.w.Write(a.Body[:len(a.Body)/2])
	Cut(x)
}

// Endless answers with n bytes of a JSON string that goes on, with the length in the header or without.
func Endless(n int64, announced bool) Fault {
	return func(x *Exchange) {
		if announced {
			x.w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		}
		x.w.WriteHeader(http.StatusOK)
		block := []byte(`{"jsonrpc":"2.0","id":1,"result":"` + strings.Repeat("A", 1<<16))
		for left := n; left > 0; {
			k, err := x.w.Write(block[:min(left, int64(len(block)))])
			if err != nil {
				return
			}
			left -= int64(k)
			block = bytes.Repeat([]byte("A"), 1<<16)
		}
	}
}

// Rewrite changes the bytes of the server's answer.
func Rewrite(f func(body []byte) []byte) Fault {
	return func(x *Exchange) {
		a, err := x.Forward()
		if err != nil {
			Cut(x)
		}
		a.Body = f(a.Body)
		x.Answer(a)
	}
}

// Result changes the result of a JSON-RPC call, as encoding/json decodes it.
func Result(f func(result any) any) Fault {
	return Rewrite(func(body []byte) []byte {
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil || m["error"] != nil {
			return body
		}
		m["result"] = f(m["result"])
		b, err := json.Marshal(m)
		if err != nil {
			return fmt.Appendf(nil, "the fault's result: %v", err)
		}
		return b
	})
}

// Error answers a JSON-RPC call with an error; the server has got nothing.
func Error(code int, message string) Fault {
	return func(x *Exchange) {
		b, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "error": map[string]any{"code": code, "message": message}})
		Body(string(b))(x)
	}
}
