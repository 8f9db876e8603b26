package grpcapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/testing/protocmp"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

func TestHTTPPutAndGet(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	data := bytes.Repeat([]byte("All of it, or a range.\n"), 50_000)
	code, head, body := n.do(t, "POST", "/v1/put", putBody("file", data, 300_000), n.bearer()...)
	var put struct {
		Result struct {
			Dataset struct{ Name, Cid, Size, Kind string }
		}
	}
	if err := json.Unmarshal([]byte(body), &put); err != nil || code != 200 || put.Result.Dataset.Size != fmt.Sprint(len(data)) || put.Result.Dataset.Kind != "KIND_FILE" {
		t.Fatalf("put: %d %v %s", code, err, body)
	}
	if head.Get("Content-Type") != "application/json" || head.Get("X-Content-Type-Options") != "nosniff" || head.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", head)
	}
	for query, want := range map[string][]byte{"": data, "&range.start=5&range.end=30": data[5:30]} {
		code, _, body := n.do(t, "GET", "/v1/get?ref=file"+query, "")
		if code != 200 {
			t.Fatalf("get: %d %s", code, body)
		}
		var got []byte
		for line := range strings.Lines(body) {
			var m struct{ Result struct{ Data []byte } }
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			got = append(got, m.Result.Data...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%q: %d bytes, want %d", query, len(got), len(want))
		}
	}
	if code, _, body := n.do(t, "GET", "/v1/stat?ref="+put.Result.Dataset.Cid, ""); code != 200 || !strings.Contains(body, `"name":"file"`) {
		t.Errorf("stat: %d %s", code, body)
	}
	if code, _, body := n.do(t, "GET", "/openapi.json", ""); code != 200 || !json.Valid([]byte(body)) || !strings.Contains(body, `"/v1/put"`) {
		t.Errorf("openapi: %d", code)
	}
}

func TestHTTPRefusals(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) {
		o.Hosts, o.Origins = []string{"node.example"}, []string{"https://app.example"}
	})
	n.put(t, "file", []byte("x"))
	read := mustCreate(t, n.tokens, "reader", scalev1.Scope_SCOPE_READ, time.Time{})
	revoked := mustCreate(t, n.tokens, "revoked", scalev1.Scope_SCOPE_ADMIN, time.Time{})
	if err := n.tokens.Revoke("revoked"); err != nil {
		t.Fatal(err)
	}
	const js = "application/json"
	for _, c := range []struct {
		name         string
		method, path string
		body         string
		head         []string
		code         int
		reason       string // "" for an answer
	}{
		{"read openly", "GET", "/v1/datasets", "", nil, 200, ""},
		{"own name", "GET", "/v1/datasets", "", []string{"Host", "node.example"}, 200, ""},
		{"listed page", "GET", "/v1/datasets", "", []string{"Origin", "https://app.example"}, 200, ""},
		{"foreign host", "GET", "/v1/datasets", "", []string{"Host", "evil.example"}, 403, "SCOPE"},
		{"foreign host, health", "GET", "/healthz", "", []string{"Host", "evil.example"}, 403, "SCOPE"},
		{"foreign page", "GET", "/v1/datasets", "", []string{"Origin", "https://evil.example"}, 403, "SCOPE"},
		{"foreign page, metrics", "GET", "/metrics", "", []string{"Origin", "https://evil.example"}, 403, "SCOPE"},
		{"foreign page with a token", "POST", "/v1/put", "{}", []string{"Origin", "https://evil.example", "Authorization", "Bearer " + n.write, "Content-Type", js}, 403, "SCOPE"},
		{"text", "POST", "/v1/put", putBody("x", nil, 1), []string{"Authorization", "Bearer " + n.write, "Content-Type", "text/plain"}, 415, "INVALID"},
		{"no type", "POST", "/v1/datasets/file/remove", "", []string{"Authorization", "Bearer " + n.write}, 415, "INVALID"},
		{"method", "PATCH", "/v1/datasets", "{}", n.bearer(), 405, "INVALID"},
		{"method of metrics", "POST", "/metrics", "{}", n.bearer(), 405, "INVALID"},
		{"path", "GET", "/v1/nothing", "", nil, 404, "NOT_FOUND"},
		{"tokens are not for HTTP", "GET", "/scale.v1.NodeService/ListTokens", "", nil, 404, "NOT_FOUND"},
		{"no dataset", "GET", "/v1/stat?ref=nothing", "", nil, 404, "NOT_FOUND"},
		{"query", "GET", "/v1/datasets?page_size=x", "", nil, 400, "INVALID"},
		{"field", "POST", "/v1/verify", `{"prof":""}`, []string{"Content-Type", js}, 400, "INVALID"},
		{"not JSON", "POST", "/v1/verify", `{"proof`, []string{"Content-Type", js}, 400, "INVALID"},
		{"two messages", "POST", "/v1/datasets/file/remove", "{}\n{}", n.bearer(), 400, "INVALID"},
		{"a message and more", "POST", "/v1/datasets/file/remove", "{} x", n.bearer(), 400, "INVALID"},
		{"another name in the body", "POST", "/v1/datasets/file/remove", `{"name":"other"}`, n.bearer(), 400, "INVALID"},
		{"compressed", "POST", "/v1/put", putBody("x", nil, 1), append(n.bearer(), "Content-Encoding", "gzip"), 415, "INVALID"},
		{"not UTF-8, query", "GET", "/v1/stat?ref=%ff", "", nil, 400, "INVALID"},
		{"not UTF-8, page", "GET", "/v1/datasets?page_token=a%80", "", nil, 400, "INVALID"},
		{"not UTF-8, path", "GET", "/v1/datasets/%ff/versions", "", nil, 400, "INVALID"},
		{"malformed path", "GET", "/v1/datasets/%25zz/versions", "", nil, 400, "INVALID"},
		{"write openly", "POST", "/v1/put", putBody("x", nil, 1), []string{"Content-Type", js}, 403, "SCOPE"},
		{"write with a token for reading", "POST", "/v1/put", putBody("x", nil, 1), []string{"Content-Type", js, "Authorization", "Bearer " + read}, 403, "SCOPE"},
		{"read with it", "GET", "/v1/datasets", "", []string{"Authorization", "Bearer " + read}, 200, ""},
		{"revoked", "GET", "/v1/datasets", "", []string{"Authorization", "Bearer " + revoked}, 401, "TOKEN"},
		{"malformed", "GET", "/v1/datasets", "", []string{"Authorization", "Bearer x"}, 401, "TOKEN"},
		{"not ASCII", "GET", "/v1/datasets", "", []string{"Authorization", "Bearer \xff"}, 401, "TOKEN"},
		{"two", "GET", "/v1/datasets", "", []string{"Authorization", "Bearer " + read, "Authorization", "Bearer " + n.write}, 401, "TOKEN"},
		{"revoked, metrics", "GET", "/metrics", "", []string{"Authorization", "Bearer " + revoked}, 401, "TOKEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, head, body := n.do(t, c.method, c.path, c.body, c.head...)
			if code != c.code {
				t.Errorf("%d %s", code, body)
			}
			if c.reason != "" && reason(t, body) != c.reason {
				t.Errorf("%s", body)
			}
			if (head.Get("WWW-Authenticate") != "") != (code == 401) {
				t.Errorf("WWW-Authenticate: %q", head.Get("WWW-Authenticate"))
			}
			if _, allow := head["Allow"]; allow != (code == 405) {
				t.Errorf("Allow: %q", head["Allow"])
			}
		})
	}
	if code, _, body := n.do(t, "GET", "/v1/datasets", ""); code != 200 || strings.Contains(body, `"name":"x"`) {
		t.Errorf("something was written: %d %s", code, body)
	}
}

// A name in the body is that of the path, or is left out; a call takes one message.
func TestHTTPBodyAndPath(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	for _, body := range []string{"", "{}", `{"name":"file"}`, " {} \n\t"} {
		n.put(t, "file", []byte("x"))
		if code, _, answer := n.do(t, "POST", "/v1/datasets/file/remove", body, append(n.bearer(), "Content-Encoding", "identity")...); code != 200 {
			t.Errorf("%q: %d %s", body, code, answer)
		}
	}
	code, _, answer := n.do(t, "POST", "/v1/datasets/file/remove", `{"name":"other"}`, n.bearer()...)
	if code != 400 || !strings.Contains(answer, `"field":"name"`) || !strings.Contains(answer, "other") {
		t.Errorf("%d %s", code, answer)
	}
	if code, head, answer := n.do(t, "POST", "/v1/put", "x", append(n.bearer(), "Content-Encoding", "gzip")...); code != 415 || head.Get("Accept-Encoding") != "identity" {
		t.Errorf("%d %v %s", code, head, answer)
	}
}

// A method that a path does not have is refused with those that it has.
func TestHTTPAllow(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/v1/datasets", "GET"}, {"HEAD", "/v1/stat?ref=x", "GET"}, {"GET", "/v1/put", "POST"}, {"GET", "/v1/datasets/x/remove", "POST"},
		{"DELETE", "/v1/ledger/entries/3", "GET"}, {"PATCH", "/metrics", "GET, HEAD"}, {"POST", "/openapi.json", "GET, HEAD"},
		{"OPTIONS", "/v1/put", "POST"}, {"PROPFIND", "/healthz", "GET, HEAD"}, {"PROPFIND", "/v1/nothing", ""},
	} {
		code, head, body := n.do(t, c.method, c.path, "", "Content-Type", "application/json")
		if got := head.Values("Allow"); code != 405 || len(got) != 1 || got[0] != c.allow {
			t.Errorf("%s %s: %d, allows %q, want %q: %s", c.method, c.path, code, got, c.allow, body)
		}
		if c.method != "HEAD" && reason(t, body) != "INVALID" {
			t.Errorf("%s %s: %s", c.method, c.path, body)
		}
	}
}

// What HTTP refuses by itself has the code and details that gRPC gives for the same.
func TestHTTPRefusesAsGRPC(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	conn, err := grpc.NewClient(n.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wireCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for field, c := range map[protowire.Number]struct{ method, path string }{
		1: {scalev1.DatasetService_Stat_FullMethodName, "/v1/stat?ref=%ff"},
		2: {scalev1.DatasetService_ListDatasets_FullMethodName, "/v1/datasets?page_token=%ff"},
	} {
		b := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), []byte("\xff"))
		want := status.Convert(conn.Invoke(t.Context(), c.method, &wireMessage{b}, &wireMessage{}))
		code, _, body := n.do(t, "GET", c.path, "")
		var got spb.Status
		if err := protojson.Unmarshal([]byte(body), &got); err != nil || code != 400 || got.GetCode() != int32(want.Code()) {
			t.Errorf("%s: %d %s, %v; gRPC says %v", c.path, code, body, err, want)
		}
		if diff := cmp.Diff(want.Proto().GetDetails(), got.GetDetails(), protocmp.Transform()); diff != "" {
			t.Errorf("%s:\n%s", c.path, diff)
		}
	}
}

// A body that is cut short is the caller's fault, whoever he is, and a number is given only
// to what is in the log.
func TestHTTPBodyCutShort(t *testing.T) {
	log := &syncBuffer{}
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	for _, c := range []struct{ path, length, begin string }{
		{"/v1/verify", "Content-Length: 100", `{"policy":"x"`},
		{"/v1/verify", "Content-Length: 100", `{}`},
		{"/v1/verify", "Transfer-Encoding: chunked", "5\r\n{\"pol"},
		{"/v1/verify", "Transfer-Encoding: chunked", "x\r\n"},
		{"/v1/challenge", "Content-Length: 100", ``},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%s\r\n\r\n%s", c.path, c.length, c.begin)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if code, body := answerOn(t, conn); code != 400 || reason(t, body) != "INVALID" {
			t.Errorf("%v: %d %s", c, code, body)
		}
		conn.Close()
	}
	w := httptest.NewRecorder()
	n.http.answerError(w, httptest.NewRequest("GET", "/v1/stat", nil), errors.New("/home/node: secret"))
	number := regexp.MustCompile(`number ([0-9a-f]{12}) `).FindStringSubmatch(w.Body.String())
	if w.Code != 500 || reason(t, w.Body.String()) != "INTERNAL" || number == nil || strings.Contains(w.Body.String(), "secret") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if said := log.String(); !strings.Contains(said, number[1]) || !strings.Contains(said, "secret") {
		t.Errorf("the log has %q of %s", said, number[1])
	}
}

// Nothing that a request can carry makes it somebody else's.
func TestHTTPCallerIsNotForged(t *testing.T) {
	n := newWebNode(t, Limits{}, func(o *HTTPOptions) { o.Anonymous = scalev1.Scope_SCOPE_UNSPECIFIED })
	forged := `{"Addr":"127.0.0.1:1","Cert":"x","Anonymous":3}`
	b64 := base64.StdEncoding.EncodeToString([]byte(forged))
	for _, head := range [][]string{
		nil,
		{callerKey, b64}, {"Grpc-Metadata-" + callerKey, b64}, {"Grpcgateway-" + callerKey, b64},
		{"Grpc-Metadata-Authorization", "Bearer " + n.write}, {"Grpcgateway-Authorization", "Bearer " + n.write},
		{"X-Forwarded-For", "127.0.0.1"}, {"Forwarded", "for=127.0.0.1"}, {"X-Real-Ip", "127.0.0.1"}, {"Host", "localhost"},
		{"Cookie", "authorization=" + n.write},
	} {
		for _, path := range []string{"/v1/datasets", "/v1/info", "/metrics", "/openapi.json"} {
			if code, _, body := n.do(t, "GET", path, "", head...); code != 401 || reason(t, body) != "TOKEN" {
				t.Errorf("%s %v: %d %s", path, head, code, body)
			}
		}
	}
	for _, path := range []string{"/v1/datasets", "/metrics", "/openapi.json"} {
		if code, _, body := n.do(t, "GET", path, "", n.bearer()...); code != 200 {
			t.Errorf("%s with a token: %d %s", path, code, body)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, _, body := n.do(t, "GET", path, ""); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// A trace header that metadata cannot have is left out: it is no fault of the node's.
func TestHTTPTraceHeaders(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	for _, v := range []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "\xff", strings.Repeat("x", 600)} {
		if code, _, body := n.do(t, "GET", "/v1/info", "", "Traceparent", v, "Tracestate", v); code != http.StatusOK {
			t.Errorf("%.20q: %d %s", v, code, body)
		}
	}
}

func TestHTTPHealth(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	health := func(path string, want int, text string) {
		t.Helper()
		if code, _, body := n.do(t, "GET", path, "", "Host", "10.1.2.3:7071"); code != want || body != text {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	health("/healthz", 200, "ok\n")
	health("/readyz", 200, "ready\n")
	n.http.Close()
	health("/readyz", 503, "the node is shutting down\n")
	health("/healthz", 200, "ok\n")
}

// A store that does not append serves, but asks for no work.
func TestHTTPNotReady(t *testing.T) {
	dir := newStoreDir(t)
	if err := os.Remove(filepath.Join(dir, "highwater")); err != nil {
		t.Fatal(err)
	}
	n := newWebNodeAt(t, dir, Limits{}, nil)
	if code, _, body := n.do(t, "GET", "/readyz", ""); code != 503 || body != "store is read-only\n" {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := n.do(t, "GET", "/v1/datasets", ""); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

func TestHTTPMetrics(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	data := bytes.Repeat([]byte("metrics move\n"), 10_000)
	n.put(t, "one", data)
	n.put(t, "one", data)
	n.put(t, "two", data)
	if code, _, body := n.do(t, "GET", "/v1/get?ref=one", ""); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	n.do(t, "GET", "/v1/stat?ref=none", "")
	n.do(t, "GET", "/v1/stat?ref=none", "", "Authorization", "Bearer x")
	if code, _, body := n.do(t, "GET", "/v1/prove?ref=one", ""); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	if code, _, body := n.do(t, "POST", "/v1/challenge", `{"ref":"one","seed":"AAAAAAAAAAAAAAAAAAAAAA==","count":2}`, "Content-Type", "application/json"); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	code, head, text := n.do(t, "GET", "/metrics", "")
	if code != 200 || !strings.HasPrefix(head.Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %v", code, head)
	}
	got := map[string]string{}
	want := map[string]string{
		`scale_puts_total{result="ok"}`: "2", `scale_puts_total{result="unchanged"}`: "1", "scale_put_bytes_total": fmt.Sprint(3 * len(data)),
		"scale_put_new_bytes_total": fmt.Sprint(len(data)), "scale_ledger_entries": "3", "scale_calls_in_flight": "0",
		"scale_put_duration_seconds_count": "3", "scale_commit_entries_sum": "2",
		`scale_proofs_total{result="ok"}`: "1", "scale_proof_duration_seconds_count": "1", `scale_audits_total{result="ok"}`: "1",
		`scale_calls_total{code="OK",method="/scale.v1.DatasetService/Put"}`:        "3",
		`scale_call_duration_seconds_count{method="/scale.v1.DatasetService/Get"}`:  "1",
		`scale_errors_total{reason="not_found"}`:                                    "1",
		`scale_errors_total{reason="token"}`:                                        "1",
		`scale_calls_total{code="NotFound",method="/scale.v1.DatasetService/Stat"}`: "1",
	}
	for series := range want {
		got[series] = sample(text, series)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics:\n%s", diff)
	}
	value := func(series string) float64 {
		v, err := strconv.ParseFloat(sample(text, series), 64)
		if err != nil {
			t.Errorf("%s: %v", series, err)
		}
		return v
	}
	in, fresh, stored := value("scale_put_bytes_total"), value("scale_put_new_bytes_total"), value("scale_put_stored_bytes_total")
	if value("scale_dedup_ratio") != 1-fresh/in || value("scale_compression_ratio") != stored/fresh || stored <= 0 || stored > fresh/10 {
		t.Errorf("of %v bytes %v were new and take %v: dedup %v, compression %v", in, fresh, stored, value("scale_dedup_ratio"), value("scale_compression_ratio"))
	}
	if read := value("scale_read_bytes_total"); read < float64(len(data)) {
		t.Errorf("%v bytes were read", read)
	}
	for _, series := range []string{"scale_put_stored_bytes_total", "scale_read_bytes_total", "scale_commit_duration_seconds_count", "scale_dedup_ratio", "scale_compression_ratio", "go_goroutines"} {
		if v := sample(text, series); v == "" || v == "0" {
			t.Errorf("%s is %q", series, v)
		}
	}
}

func TestHTTPOverTLS(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), t.TempDir()
	o := tlsFiles(dir)
	o.ClientCA = filepath.Join(dir, "clients.pem")
	ca.writeServer(t, o, "node")
	writeFile(t, o.ClientCA, ca.pem)
	n := newWebNode(t, Limits{}, func(h *HTTPOptions) {
		h.TLS, h.Anonymous = loadTLS(t, o), scalev1.Scope_SCOPE_UNSPECIFIED
	})
	plain := n.base
	n.base = "https" + strings.TrimPrefix(n.base, "http")
	with := func(c *tls.Config) { n.client.Transport = &http.Transport{TLSClientConfig: c} }
	with(ca.client(t, ca))
	if code, _, body := n.do(t, "POST", "/v1/put", putBody("x", []byte("x"), 1), "Content-Type", "application/json"); code != 200 {
		t.Errorf("by the certificate alone: %d %s", code, body)
	}
	if code, _, body := n.do(t, "GET", "/metrics", ""); code != 200 {
		t.Errorf("metrics: %d %s", code, body)
	}
	call := <-n.calls
	if call.Identity.Name != "certificate client" || !strings.HasPrefix(fmt.Sprint(call.Peer), "127.0.0.1:") {
		t.Errorf("the call is of %q at %v", call.Identity.Name, call.Peer)
	}
	n.client.CloseIdleConnections()
	with(ca.client(t, nil))
	if _, err := n.client.Get(n.base + "/healthz"); err == nil {
		t.Error("without a certificate")
	}
	if resp, err := n.client.Get(plain + "/healthz"); err == nil {
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("without TLS: %d", resp.StatusCode)
		}
	}
}

func TestHTTPShutdown(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	body := putBody("x", []byte("finished"), 4)
	c := n.post(t, "/v1/put", len(body), body[:10])
	if code, _, _ := n.do(t, "GET", "/v1/datasets", ""); code != 200 {
		t.Fatal("not served")
	}
	n.client.CloseIdleConnections()
	down := make(chan error)
	go func() {
		n.http.Close()
		down <- n.http.server.Shutdown(context.Background())
	}()
	io.WriteString(c, body[10:])
	if code, text := answerOn(t, c); code != 200 {
		t.Errorf("what was under way: %d %s", code, text)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if _, err := n.client.Get(n.base + "/healthz"); err == nil {
		t.Error("served after it was shut down")
	}
}

// Revoking a token ends what was begun with it.
func TestStreamEndsWithToken(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	r, err := http.NewRequestWithContext(t.Context(), "GET", n.base+"/v1/ledger/entries?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+n.write)
	resp, err := n.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"result"`) {
		t.Fatalf("%s, %v", lines.Text(), lines.Err())
	}
	if err := n.tokens.Revoke("writer"); err != nil {
		t.Fatal(err)
	}
	var last string
	for lines.Scan() {
		last = lines.Text()
	}
	if !strings.Contains(last, `"error"`) || !strings.Contains(last, "revoked") {
		t.Errorf("the stream ended with %q, %v", last, lines.Err())
	}
}
