package main

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// A traceSink is an OpenTelemetry collector that hands on what it gets.
type traceSink struct {
	collector.UnimplementedTraceServiceServer
	got chan *tracev1.ResourceSpans
}

func (s *traceSink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, spans := range r.GetResourceSpans() {
		s.got <- spans
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (s *traceSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	m := &collector.ExportTraceServiceRequest{}
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(b, m) != nil {
		http.Error(w, "not a request for traces", http.StatusBadRequest)
		return
	}
	s.Export(r.Context(), m)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// startTraced serves a store with tracing to an address.
func startTraced(t *testing.T, s *nodeStore, env ...string) *nodeProcess {
	t.Helper()
	cmd := exec.Command("scale", "serve", "--json", "--store", s.dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), env...)
	p := &nodeProcess{nodeStore: s}
	p.launch(t, cmd)
	p.addresses(t)
	return p
}

// A collector gets a span of every call, over either protocol: who called, what became of
// it, and the caller's own trace as a link.
func TestTraces(t *testing.T) {
	noLeaks(t)
	for protocol, serve := range map[string]func(*testing.T, *traceSink) string{
		"http/protobuf": func(t *testing.T, s *traceSink) string {
			srv := httptest.NewServer(s)
			t.Cleanup(srv.Close)
			return srv.URL
		},
		"grpc": func(t *testing.T, s *traceSink) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := grpc.NewServer()
			collector.RegisterTraceServiceServer(srv, s)
			go srv.Serve(l)
			t.Cleanup(srv.Stop)
			return "http://" + l.Addr().String()
		},
	} {
		t.Run(protocol, func(t *testing.T) {
			sink := &traceSink{got: make(chan *tracev1.ResourceSpans, 1000)}
			p := startTraced(t, newNodeStore(t), "OTEL_EXPORTER_OTLP_ENDPOINT="+serve(t, sink), "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
				"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test")
			const theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
			parent := "00-" + theirs + "-00f067aa0ba902b7-00" // not sampled, which is not for them to say
			conn := p.dial(t, p.read)
			node := scalev1.NewNodeServiceClient(conn)
			if _, err := node.GetInfo(metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent), &scalev1.GetInfoRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := node.ListTokens(t.Context(), &scalev1.ListTokensRequest{}); err == nil {
				t.Fatal("a token to read lists tokens")
			}
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+p.http+"/v1/ledger/head", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("traceparent", parent)
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != 200 {
				t.Fatal(resp.Status)
			}
			p.stop(t) // sends what is left
			close(sink.got)

			spans := make(map[string]*tracev1.Span)
			for r := range sink.got {
				for key, want := range map[string]string{"service.name": "scale", "deployment.environment.name": "test"} {
					if got := attributeOf(r.GetResource().GetAttributes(), key); got != want {
						t.Errorf("resource has %s %q, want %q", key, got, want)
					}
				}
				for _, s := range r.GetScopeSpans() {
					for _, span := range s.GetSpans() {
						spans[span.GetName()] = span
					}
				}
			}
			for _, c := range []struct {
				name, who, reason string
				linked            bool
			}{
				{"scale.v1.NodeService/GetInfo", "token read", "", true},
				{"scale.v1.NodeService/ListTokens", "token read", "scope", false},
				{"scale.v1.LedgerService/GetHead", "anonymous", "", true},
			} {
				span := spans[c.name]
				if span == nil {
					t.Errorf("no span %s", c.name)
					continue
				}
				if who := attributeOf(span.GetAttributes(), "enduser.id"); who != c.who {
					t.Errorf("%s: by %q, want %q", c.name, who, c.who)
				}
				if reason := attributeOf(span.GetAttributes(), "error.type"); reason != c.reason {
					t.Errorf("%s: error %q, want %q", c.name, reason, c.reason)
				}
				if trace := hex.EncodeToString(span.GetTraceId()); trace == theirs || len(span.GetParentSpanId()) > 0 {
					t.Errorf("%s: goes on with the caller's trace", c.name)
				}
				links := span.GetLinks()
				if linked := len(links) == 1 && hex.EncodeToString(links[0].GetTraceId()) == theirs; linked != c.linked {
					t.Errorf("%s: links %v", c.name, links)
				}
			}
		})
	}
}

func attributeOf(attributes []*otlp.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// A collector that takes a connection and never answers holds up neither calls nor the end.
func TestTracesStuck(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := startTraced(t, newNodeStore(t), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://"+l.Addr().String()+"/v1/traces",
		"OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4")
	for range 100 {
		p.alive(t)
	}
	p.stop(t)
	if log := p.log.tail(50); !strings.Contains(log, "traces are lost") {
		t.Errorf("the log does not say that traces are lost:\n%s", log)
	}
}
