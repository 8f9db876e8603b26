package grpcapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// A message that does not arrive is not waited for, whether its bytes trickle or stop.
func TestHTTPSlowSender(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Idle = 50 * time.Millisecond })
	for name, begin := range map[string]string{"message": `{"header":{"name":`, "first message": "", "second message": putBody("x", []byte("x"), 1)} {
		c := n.post(t, "/v1/put", 1000, begin)
		if code, body := answerOn(t, c); code != 504 || reason(t, body) != "TOO_SLOW" {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	trickle := n.post(t, "/v1/put", 1<<20, "")
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for {
			if _, err := trickle.Write([]byte(" ")); err != nil {
				return
			}
		}
	}()
	if code, body := answerOn(t, trickle); code != 504 || reason(t, body) != "TOO_SLOW" {
		t.Errorf("white space: %d %s", code, body)
	}
	trickle.Close()
	<-stop
	// Time without a message counts for each message, not for the whole.
	if code, _, body := n.do(t, "GET", "/v1/datasets", ""); code != 200 || strings.Contains(body, `"name":"x"`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestHTTPLargeMessage(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	for name, body := range map[string]string{
		"value":       `{"data":"` + strings.Repeat("A", maxJSON) + `"}`,
		"white space": strings.Repeat(" ", maxJSON+1) + "{}",
	} {
		code, _, answer := n.do(t, "POST", "/v1/put", body, n.bearer()...)
		if code != 429 || reason(t, answer) != "LIMIT" {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	// As many as may be large at a time are held up; the next one waits, and does not fail.
	var held []net.Conn
	for range largeMessages {
		held = append(held, n.post(t, "/v1/put", maxJSON, `{"data":"`+strings.Repeat("A", 2*smallMessage)))
	}
	done := make(chan int)
	go func() {
		code, _, _ := n.do(t, "POST", "/v1/put", putBody("large", make([]byte, 1<<20), 1<<20), n.bearer()...)
		done <- code
	}()
	n.put(t, "small", []byte("small ones go by"))
	for _, c := range held {
		c.Close()
	}
	if code := <-done; code != 200 {
		t.Errorf("a large message: %d", code)
	}
}

func TestHTTPRequestsAtATime(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Requests = 1 })
	// The node has the request when it wants the body.
	c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := putBody("held", []byte("x"), 1)
	fmt.Fprintf(c, "POST /v1/put HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", n.write, len(body))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	code, head, text := n.do(t, "GET", "/v1/datasets", "")
	if code != 429 || reason(t, text) != "LIMIT" || head.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", code, head, text)
	}
	for _, path := range []string{"/healthz", "/metrics"} {
		if code, _, body := n.do(t, "GET", path, ""); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	io.WriteString(c, body)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
}

// underWay is how many requests have a place.
func (h *HTTP) underWay() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running
}

// One caller cannot have all places, and who may not call has none: what he sends is not
// even read.
func TestHTTPPlaces(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) {
		o.Requests, o.Anonymous = 8, scalev1.Scope_SCOPE_UNSPECIFIED
	})
	var strangers []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "POST /v1/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
		strangers = append(strangers, c)
	}
	for _, c := range strangers { // who never send what they announced
		if code, text := answerOn(t, c); code != 401 || reason(t, text) != "TOKEN" {
			t.Fatalf("%d %s", code, text)
		}
	}
	if got := n.http.underWay(); got != 0 {
		t.Errorf("strangers have %d places", got)
	}
	for range 7 {
		n.post(t, "/v1/put", 1000, "")
	}
	until(t, "7 requests have a place", func() bool { return n.http.underWay() == 7 })
	if code, _, text := n.do(t, "GET", "/v1/datasets", "", "Authorization", "Bearer "+n.write); code != 429 || reason(t, text) != "LIMIT" {
		t.Errorf("an eighth of one caller: %d %s", code, text)
	}
	other := mustCreate(t, n.tokens, "other", scalev1.Scope_SCOPE_READ, time.Time{})
	if code, _, text := n.do(t, "GET", "/v1/datasets", "", "Authorization", "Bearer "+other); code != 200 {
		t.Errorf("another caller: %d %s", code, text)
	}
	// A body that its caller may not send is left alone, whatever it says.
	code, _, text := n.do(t, "POST", "/v1/put", "{{{", "Authorization", "Bearer "+other, "Content-Type", "application/json")
	if code != 403 || reason(t, text) != "SCOPE" {
		t.Errorf("a put by a reader: %d %s", code, text)
	}
	// Of many objects, which take more memory than their text, there are few in a message.
	many := `{"entries":{"entries":[` + strings.Repeat("{},", maxObjects) + `{}]}}`
	code, _, text = n.do(t, "POST", "/v1/put", many, "Authorization", "Bearer "+mustCreate(t, n.tokens, "writer2", scalev1.Scope_SCOPE_WRITE, time.Time{}), "Content-Type", "application/json")
	if code != 429 || reason(t, text) != "LIMIT" {
		t.Errorf("too many objects: %d %s", code, text)
	}
}

// What the port refuses by itself is counted too.
func TestHTTPRefusalsCounted(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Anonymous = scalev1.Scope_SCOPE_UNSPECIFIED })
	for _, refused := range []struct {
		code                     int
		method, path, body, head string
	}{
		{403, "GET", "/v1/datasets", "", "Host: other.example"},
		{415, "POST", "/v1/put", "x", "Content-Type: text/plain"},
		{401, "GET", "/metrics", "", "Authorization: Bearer nothing"},
	} {
		name, value, _ := strings.Cut(refused.head, ": ")
		if code, _, text := n.do(t, refused.method, refused.path, refused.body, name, value); code != refused.code {
			t.Errorf("%s %s with %s: %d %s", refused.method, refused.path, refused.head, code, text)
		}
	}
	text := scrape(n.metrics)
	for series, want := range map[string]string{`scale_errors_total{reason="scope"}`: "1", `scale_errors_total{reason="invalid"}`: "1", `scale_errors_total{reason="token"}`: "1"} {
		if got := sample(text, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
}

// Who does not take an answer is cut off, and holds no place.
func TestHTTPSlowReader(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Idle, o.Requests = 100*time.Millisecond, 1 })
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	n.put(t, "large", data)
	for len(n.calls) > 0 {
		<-n.calls
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /v1/get?ref=large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for call := range n.calls {
		if call.Method == scalev1.DatasetService_Get_FullMethodName {
			if call.Err == nil {
				t.Error("all of it was taken")
			}
			break
		}
	}
}

func TestHTTPConnections(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Connections = 2 })
	var open []net.Conn
	for range 2 {
		c := n.post(t, "/v1/put", 1000, "")
		open = append(open, c)
	}
	// Connections over which nothing is under way would make room for the third.
	until(t, "all requests have a place", func() bool { return n.http.underWay() == len(open) })
	c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was answered")
	}
	for _, c := range open {
		c.Close()
	}
}

// A deadlineWriter says when its last deadline for writing is.
type deadlineWriter struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (w *deadlineWriter) SetWriteDeadline(t time.Time) error {
	w.until = t
	return nil
}

func (*deadlineWriter) SetReadDeadline(time.Time) error { return nil }

// A connection on which a request comes long after the one before has time for its answer,
// whatever the answer is.
func TestHTTPTimeForEveryAnswer(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Idle, o.Origins = time.Hour, []string{"https://app.example"} })
	for _, c := range []struct{ method, path, origin string }{
		{"GET", "/healthz", ""}, {"GET", "/metrics", ""}, {"GET", "/v1/info", ""}, {"GET", "/v1/nothing", ""},
		{"GET", "/v1/info", "https://evil.example"}, {"OPTIONS", "/v1/put", "https://app.example"}, {"POST", "/v1/put", ""}, {"TRACE", "/", ""},
	} {
		r := httptest.NewRequest(c.method, "http://localhost"+c.path, nil)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
			r.Header.Set("Access-Control-Request-Method", "POST")
		}
		w := &deadlineWriter{ResponseRecorder: httptest.NewRecorder()}
		n.http.ServeHTTP(w, r)
		if time.Until(w.until) < time.Minute {
			t.Errorf("%v is answered with %d until %v", c, w.Code, w.until)
		}
	}
}

// Headers that are long, in all or one of them, do no more than fail.
func TestHTTPLongHeaders(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	for name, head := range map[string][]string{
		"authorization": {"Authorization", "Bearer " + strings.Repeat("x", 12<<10)},
		"many":          slices.Repeat([]string{"Authorization", "Bearer x"}, 400),
	} {
		if code, _, body := n.do(t, "GET", "/v1/datasets", "", head...); code != 401 || reason(t, body) != "TOKEN" {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	for name, head := range map[string][]string{
		"forwarded for":  {"X-Forwarded-For", strings.Repeat("1.2.3.4, ", 1500)},
		"forwarded host": {"X-Forwarded-Host", strings.Repeat("x", 12<<10)},
		"cookie":         {"Cookie", strings.Repeat("x", 12<<10)},
	} {
		if code, _, body := n.do(t, "GET", "/v1/datasets", "", head...); code != 200 {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	if code, _, _ := n.do(t, "GET", "/v1/datasets", "", "Cookie", strings.Repeat("x", 24<<10)); code != 431 {
		t.Errorf("too long: %d", code)
	}
}

// Whoever opens a connection and does not say what he wants is closed, whatever he sends of
// it; the server has times for it.
func TestHTTPSlowHeaders(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	h, err := NewHTTP(HTTPOptions{Server: n.server, Auth: n.auth})
	if err != nil {
		t.Fatal(err)
	}
	if s := h.server; s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > time.Minute || s.IdleTimeout <= 0 {
		t.Fatalf("headers have %v, idle connections %v", s.ReadHeaderTimeout, s.IdleTimeout)
	}
	h.server.ReadHeaderTimeout = 50 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	defer func() {
		if err := errors.Join(h.Shutdown(t.Context()), <-served); err != nil {
			t.Error(err)
		}
	}()
	for _, begin := range []string{"", "G", "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, begin); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: %q, %v", begin, b, err)
		}
	}
}

// A fault of ours is in the log, and whoever ran into it is not left with half an answer
// that looks whole.
func TestHTTPPanic(t *testing.T) {
	var log syncBuffer
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a fault") })
	})
	if resp, err := n.client.Get(n.base + "/metrics"); err == nil {
		resp.Body.Close()
		t.Errorf("answered with %d", resp.StatusCode)
	}
	if text := log.String(); !strings.Contains(text, "a fault") || !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "http_limits_test.go") {
		t.Errorf("log %q", text)
	}
	if code, _, _ := n.do(t, "GET", "/healthz", ""); code != 200 {
		t.Error("the node is gone")
	}
}

// Answers over HTTP that are not taken have a bound, and leave room for small ones; when they
// are over, all is given back.
func TestHTTPAnswersNotTaken(t *testing.T) {
	n := newWebNode(t, Limits{SendBytes: 5 << 19, WriteWait: 10 * time.Millisecond}, nil)
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	n.put(t, "large", data)
	c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /v1/get?ref=large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	b := n.server.answers
	until(t, "the answer is held", func() bool { _, _, _, held := b.now(); return held > 0 })
	for _, path := range []string{"/v1/get?ref=large", "/v1/tree?ref=large"} {
		code, head, body := n.do(t, "GET", path, "")
		if code != 429 || reason(t, body) != "LIMIT" || head.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _, body := n.do(t, "GET", "/v1/info", ""); code != 200 {
		t.Errorf("a small answer: %d %s", code, body)
	}
	if out, _, _, held := b.now(); out > b.limit || held != 1 {
		t.Errorf("%d bytes, %d connections", out, held)
	}
	c.Close()
	until(t, "all is given back", func() bool { out, _, _, _ := b.now(); return out == 0 })
	if code, _, body := n.do(t, "GET", "/v1/get?ref=large", ""); code != 200 || len(body) < len(data) {
		t.Errorf("%d, %d bytes", code, len(body))
	}
}

// A slicedWriter counts what is written at a time.
type slicedWriter struct {
	deadlineWriter
	most, deadlines int
}

func (w *slicedWriter) Write(p []byte) (int, error) {
	w.most = max(w.most, len(p))
	return w.deadlineWriter.Write(p)
}

func (w *slicedWriter) SetWriteDeadline(t time.Time) error {
	w.deadlines++
	return w.deadlineWriter.SetWriteDeadline(t)
}

// A long answer has time for each part of it.
func TestHTTPLongAnswer(t *testing.T) {
	w := &slicedWriter{deadlineWriter: deadlineWriter{ResponseRecorder: httptest.NewRecorder()}}
	p := make([]byte, 10*writeBytes+1)
	if n, err := newPacedWriter(w, time.Hour).Write(p); n != len(p) || err != nil || w.most > writeBytes || w.deadlines < 11 || w.Body.Len() != len(p) {
		t.Errorf("%d bytes, %v, at most %d at a time, %d deadlines", n, err, w.most, w.deadlines)
	}
}
