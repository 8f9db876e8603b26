package grpcapi

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func testChecks(t testing.TB) checks {
	c, err := newChecks([]string{"Node.Example", "10.1.2.3:7071", "[2001:db8::1]"}, []string{"https://app.example", "http://app.example:8080"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHostAllowed(t *testing.T) {
	c := testChecks(t)
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:7071": true, "localhost.": true, "127.0.0.1": true, "127.9.9.9:1": true, "[::1]": true, "[::1]:7071": true,
		"[::ffff:127.0.0.1]": true,
		"node.example":       true, "node.example:7071": true, "NODE.example.": true, "10.1.2.3": true, "10.1.2.3:80": true, "[2001:db8::1]:7071": true,

		"": false, ":7071": false, "evil.example": false, "node.example.evil.example": false, "evil-node.example": false,
		"localhost.evil.example": false, "localhost:7071:1": false, "localhost:": false, "localhost:port": false, "localhost:99999": false,
		"127.0.0.1.evil.example": false, "127.1": false, "0.0.0.0": false, "2130706433": false, "0x7f.1": false, "10.1.2.4": false,
		"[::]": false, "[::1": false, "::1]": false, "[localhost]": false, "[127.0.0.1]": false, "[::1%lo]": false, "[2001:db8::2]": false,
		"user@localhost": false, "localhost/": false, "local host": false, "localhost\x00": false, "localhost,evil.example": false,
	} {
		if got := c.hostAllowed(host, false); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
	for host, want := range map[string]bool{"10.9.9.9:7071": true, "[2001:db8::9]": true, "evil.example": false, "": false} {
		if got := c.hostAllowed(host, true); got != want {
			t.Errorf("health of %q: %t", host, got)
		}
	}
}

func TestChecksArguments(t *testing.T) {
	for _, h := range []string{"", "*", "http://node.example", "node.example/", "a b"} {
		if _, err := newChecks([]string{h}, nil); err == nil {
			t.Errorf("host %q accepted", h)
		}
	}
	for _, o := range []string{"", "*", "null", "app.example", "https://", "ftp://app.example", "https://app.example/", "https://*.example", "https://u@app.example", "https://app.example?", "https://app.example#"} {
		if _, err := newChecks(nil, []string{o}); err == nil {
			t.Errorf("origin %q accepted", o)
		}
	}
}

func TestCheckRequest(t *testing.T) {
	c := testChecks(t)
	for _, test := range []struct {
		name   string
		method string
		head   http.Header
		body   string
		tls    bool
		status int // 0: goes on
	}{
		{"plain get", "GET", nil, "", false, 0},
		{"same origin", "GET", http.Header{"Origin": {"http://node.example:7071"}}, "", false, 0},
		{"same origin, TLS", "GET", http.Header{"Origin": {"https://node.example:7071"}}, "", true, 0},
		{"other scheme", "GET", http.Header{"Origin": {"https://node.example:7071"}}, "", false, 403},
		{"other port", "GET", http.Header{"Origin": {"http://node.example:7070"}}, "", false, 403},
		{"listed", "GET", http.Header{"Origin": {"https://app.example"}}, "", false, 0},
		{"listed, port", "GET", http.Header{"Origin": {"https://app.example:443"}}, "", false, 0},
		{"listed, with another port", "GET", http.Header{"Origin": {"https://app.example:8443"}}, "", false, 403},
		{"foreign", "GET", http.Header{"Origin": {"https://evil.example"}}, "", false, 403},
		{"foreign, longer", "GET", http.Header{"Origin": {"https://app.example.evil.example"}}, "", false, 403},
		{"local page", "GET", http.Header{"Origin": {"http://localhost:3000"}}, "", false, 403},
		{"null", "GET", http.Header{"Origin": {"null"}}, "", false, 403},
		{"empty", "GET", http.Header{"Origin": {""}}, "", false, 403},
		{"two", "GET", http.Header{"Origin": {"https://app.example", "https://evil.example"}}, "", false, 403},
		{"image", "GET", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}}, "", false, 403},
		{"sibling", "GET", http.Header{"Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Mode": {"no-cors"}}, "", false, 403},
		{"link", "GET", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}}, "", false, 0},
		{"form", "POST", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}}, "a=b", false, 403},
		{"typed in", "GET", http.Header{"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Mode": {"navigate"}}, "", false, 0},
		{"JSON", "POST", http.Header{"Content-Type": {"application/json"}}, "{}", false, 0},
		{"JSON, charset", "POST", http.Header{"Content-Type": {"Application/JSON; charset=UTF-8"}}, "{}", false, 0},
		{"JSON, other charset", "POST", http.Header{"Content-Type": {"application/json; charset=utf-16"}}, "{}", false, 415},
		{"JSON twice", "POST", http.Header{"Content-Type": {"application/json", "text/plain"}}, "{}", false, 415},
		{"text", "POST", http.Header{"Content-Type": {"text/plain"}}, "{}", false, 415},
		{"text that looks like it", "POST", http.Header{"Content-Type": {"text/plain; application/json"}}, "{}", false, 415},
		{"form data", "POST", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "a=b", false, 415},
		{"nothing", "POST", nil, "", false, 415},
		{"as it is", "POST", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"identity"}}, "{}", false, 0},
		{"compressed", "POST", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, "{}", false, 415},
		{"compressed twice", "POST", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"identity", "br"}}, "{}", false, 415},
		{"get with text", "GET", http.Header{"Content-Type": {"text/plain"}}, "{}", false, 415},
		{"delete", "DELETE", nil, "", false, 0},
		{"options", "OPTIONS", nil, "", false, 405},
		{"trace", "TRACE", nil, "", false, 405},
		{"other", "PROPFIND", nil, "", false, 405},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "http://node.example:7071/v1/info", strings.NewReader(test.body))
			if test.head != nil {
				r.Header = test.head
			}
			if test.tls {
				r.TLS = &tls.ConnectionState{}
			}
			w := httptest.NewRecorder()
			done, err := c.check(w, r, false)
			status := 0
			var refused *httpError
			if errors.As(err, &refused) {
				status = refused.status
			} else if errors.Is(err, ErrScope) {
				status = http.StatusForbidden
			}
			if status != test.status || done || err != nil && status == 0 {
				t.Errorf("%d, %t, %v", status, done, err)
			}
			if allowed := w.Header().Get("Access-Control-Allow-Origin"); allowed != "" && (status == 403 || allowed != r.Header.Get("Origin")) {
				t.Errorf("allowed %q", allowed)
			}
			if w.Header().Get("Access-Control-Allow-Credentials") != "" {
				t.Error("credentials are allowed")
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	c := testChecks(t)
	for origin, want := range map[string]bool{"https://app.example": true, "https://evil.example": false} {
		r := httptest.NewRequest("OPTIONS", "http://localhost/v1/put", nil)
		r.Header = http.Header{
			"Origin": {origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type"},
			"Access-Control-Request-Private-Network": {"true"},
		}
		w := httptest.NewRecorder()
		done, err := c.check(w, r, false)
		h := w.Header()
		if done != want || (err == nil) != want || (h.Get("Access-Control-Allow-Origin") == origin) != want ||
			(h.Get("Access-Control-Allow-Methods") != "") != want || (h.Get("Access-Control-Allow-Private-Network") != "") != want {
			t.Errorf("%s: %t, %v, %v", origin, done, err, h)
		}
	}
}

// Whatever the headers, a host passes only if it is one that was named, and a page only if
// it is the node's own or was named.
func FuzzCheckHeaders(f *testing.F) {
	f.Add("localhost:7071", "http://localhost:7071")
	f.Add("[::1]:1", "https://app.example")
	f.Add("evil.example", "null")
	f.Add("node.example", "http://node.example:80")
	c := testChecks(f)
	f.Fuzz(func(t *testing.T, host, origin string) {
		if c.hostAllowed(host, false) {
			name, ok := hostName(host)
			ip, err := netip.ParseAddr(name)
			named := name == "localhost" || name == "node.example" || name == "10.1.2.3" || name == "2001:db8::1"
			if !ok || !named && (err != nil || !ip.IsLoopback()) {
				t.Errorf("host %q passes as %q", host, name)
			}
			// The name that a browser would look up is the one that was checked.
			if !strings.Contains(strings.ToLower(host), name) && err != nil {
				t.Errorf("host %q passes as %q", host, name)
			}
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		if !c.originAllowed(origin, r) {
			return
		}
		got, ok := formatOrigin(origin)
		own, same := formatOrigin("http://" + host)
		if !ok || got != "https://app.example:443" && got != "http://app.example:8080" && (!same || got != own) {
			t.Errorf("origin %q passes with host %q", origin, host)
		}
	})
}
